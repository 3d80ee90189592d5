"""The online recipes of the paper as solvers: all queries as one batch, no error bars."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ipbasis.errors import InputError
from ipbasis.estimates.solvers import SOLVERS
from ipbasis.observations.long_form import Batch
from ipbasis.offline.artefact import Basis
from ipbasis.problem.declaration import Problem
from ipbasis.published.adam import AdamSettings, adam, quadratic_forms
from ipbasis.published.misfit import reduce_misfit
from ipbasis.published.term_networks import TermNetworkSettings, fit_term_networks
from ipbasis.search.noise import Errors, Noise
from ipbasis.search.reweighting import Fit, fit_once
from ipbasis.search.solution import without_errors
from ipbasis.search.solver import Ability, Prepared, Solver
from ipbasis.search.unknown_terms import searched_problem


@dataclass(frozen=True)
class _Whole(Prepared):
    """A recipe on a basis; it treats all queries as one batch.

    Args:
        basis: for the problem that is searched.
        settings: of the recipe.
    """

    basis: Basis
    settings: AdamSettings | TermNetworkSettings

    def most_queries(self, longest: int) -> None:
        """All at once."""


class _AdamOnBasis(_Whole):
    """The published recipe on the functions of the basis, in the number type of its trunk."""

    def solve(self, batch: Batch, noise: Noise) -> Fit:
        """Estimates of a batch."""
        basis, settings = self.basis, self.settings
        misfits = reduce_misfit(basis, batch)
        forms, rest = quadratic_forms(basis, misfits, settings)
        start = torch.as_tensor(basis.problem.parameter_ranges.mean(1))
        search, loss = adam(forms, start, torch.as_tensor(batch.known), settings)
        readouts = search.readouts.double()
        counts = torch.as_tensor(batch.observed).sum((1, 2)).double()
        loss, misfit = loss.double() + rest, misfits(readouts)
        solution = without_errors(search.parameters.double(), readouts, loss, misfit, counts, settings.steps)
        return fit_once(batch, noise, noise, solution)


class _TermNetworksOnBasis(_Whole):
    """The published recipe for unknown terms."""

    def solve(self, batch: Batch, noise: Noise) -> Fit:
        """Estimates of a batch, and its terms."""
        found = fit_term_networks(self.basis, batch, self.settings)
        counts = torch.as_tensor(batch.observed).sum((1, 2)).double()
        readouts = found.readouts.flatten(1)
        solution = without_errors(found.parameters, readouts, found.loss, found.misfit, counts, self.settings.steps)
        return fit_once(batch, noise, noise, solution, terms=found)


class _Published(Solver):
    """What the recipes have in common."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"polish"})

    def searched(self, problem: Problem) -> Problem:
        return searched_problem(problem) if problem.unknown_terms else problem


class PublishedAdam(AdamSettings, _Published):
    """Readouts and parameters by Adam; for equations with an affine split."""

    def check(self, problem: Problem) -> None:
        if problem.system.affine is None:
            raise InputError(f"{problem.name}: the solver 'adam' needs an affine split; 'term_networks' does not")

    def prepare(self, declared: Problem, basis: Basis, errors: Errors, device: torch.device) -> Prepared:
        return _AdamOnBasis(basis, self)


class PublishedTermNetworks(TermNetworkSettings, _Published):
    """Readouts, parameters and a small network per query for the unknown terms, by Adam."""

    def prepare(self, declared: Problem, basis: Basis, errors: Errors, device: torch.device) -> Prepared:
        return _TermNetworksOnBasis(basis, self)


# by name, as configuration and command line call them
PUBLISHED: Mapping[str, type[Solver]] = {"adam": PublishedAdam, "term_networks": PublishedTermNetworks}
ALL: Mapping[str, type[Solver]] = {**SOLVERS, **PUBLISHED}
