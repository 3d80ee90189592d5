"""Bases of untrained and of trained features, against exact solutions, and estimates on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ipbasis import Basis, InputError, Problem, estimate, train
from ipbasis.features.untrained import Spread
from ipbasis.observations.simulate import long_table
from ipbasis.offline.adapted import Recipe, untrained
from ipbasis.offline.pilot import pilot
from ipbasis.offline.tuned import Tuned, Tuning
from ipbasis.problem.declaration import Tasks
from ipbasis.reference.solutions import solutions

# untrained features end long before; those of a training take what there is, unless they are accurate untrained
ACCURACY, MINUTES, TASKS = 1e-2, {"random": 3, "trained": 0.4}, 4


@dataclass(frozen=True)
class Case:
    """A problem and its solutions.

    Args:
        problem: the problem.
        exact: of parameters and coordinates.
    """

    problem: Problem
    exact: Callable[..., np.ndarray]


def decay() -> Case:
    """A linear ordinary equation: cooling to the temperature around."""
    problem = Problem(
        name="cooling",
        coordinates={"t": [0, 3]},
        fields=["u"],
        parameters={"rate": [0.5, 2], "outside": [-1, 1]},
        equations=["u_t + rate*(u - outside)"],
        initial={"u": "2"},
    )
    return Case(problem, lambda rate, outside, t: outside + (2 - outside) * np.exp(-rate * t))


def growth() -> Case:
    """A nonlinear one: logistic growth."""
    problem = Problem(
        name="growth",
        coordinates={"t": [0, 5]},
        fields=["n"],
        parameters={"r": [0.5, 2], "K": {"range": [0.5, 4], "scale": "log"}},
        equations=["n_t - r*n*(1 - n/K)"],
        initial={"n": "0.1"},
    )
    return Case(problem, lambda r, most, t: most / (1 + (most / 0.1 - 1) * np.exp(-r * t)))


def heat(**changes) -> Case:
    """A linear partial equation: a sine between cold walls."""
    values = {
        "name": "heat",
        "coordinates": {"t": [0, 1], "x": [0, 1]},
        "fields": ["u"],
        "parameters": {"D": {"range": [0.02, 0.2], "scale": "log"}},
        "equations": ["u_t - D*u_xx"],
        "initial": {"u": "sin(pi*x)"},
        "boundary": [{"at": {"x": x}, "equations": ["u"]} for x in (0, 1)],
    }
    problem = Problem(**{**values, **changes})
    return Case(problem, lambda diffusivity, t, x: np.exp(-diffusivity * np.pi**2 * t) * np.sin(np.pi * x))


def front() -> Case:
    """A nonlinear one, Burgers' equation: a sine steepens; beside an independent solver."""
    problem = Problem(
        name="front",
        coordinates={"t": [0, 1], "x": [-1, 1]},
        fields=["u"],
        parameters={"nu": [0.1, 0.5]},
        equations=["u_t + u*u_x - nu*u_xx"],
        initial={"u": "-sin(pi*x)"},
        boundary=[{"at": {"x": x}, "equations": ["u"]} for x in (-1, 1)],
    )

    def integrated(nu, t, x):
        task = Tasks(np.array([[nu]]), np.zeros((1, 0)))
        return solutions(problem, task, np.stack([t, x], axis=1)[None], tolerance=1e-6)[0, :, 0]

    return Case(problem, integrated)


@pytest.fixture(scope="module", params=[decay, growth, heat, front], ids=lambda make: make.__name__)
def case(request) -> Case:
    return request.param()


@pytest.fixture(scope="module", params=["random", "trained"])
def trained(request, case) -> Basis:
    return train(case.problem, ACCURACY, MINUTES[request.param], request.param)


def places(problem: Problem, count: int) -> np.ndarray:
    low, high = problem.domain.T
    return low + (high - low) * np.random.default_rng(0).random((count, len(low)))


def unseen(problem: Problem) -> np.ndarray:
    return problem.sample_tasks(TASKS, np.random.default_rng(3)).parameters


def test_unseen_solutions_are_in_the_span(trained, case):
    points = places(case.problem, 500)
    functions = trained.functions(points)
    for parameters in unseen(case.problem):
        truth = case.exact(*parameters, *points.T)
        rest = truth - functions @ np.linalg.lstsq(functions, truth, rcond=None)[0]
        # a training that had little time may end before the accuracy is met, and tells so
        told = max(ACCURACY, 3 * trained.record.accuracy.approximation)
        assert np.linalg.norm(rest) < told * np.linalg.norm(truth)


def test_record_tells_features_accuracy_and_digits(trained, case, tmp_path):
    record = trained.record
    assert record.settings["features"] in ("random", "trained")
    assert record.settings["width"] >= 60
    assert record.accuracy.solution < (ACCURACY if record.settings["features"] == "random" else 0.1)
    assert record.rounding < 1e-12
    assert record.local is not None
    trained.save(tmp_path)
    assert Basis.load(tmp_path).record == record


def test_estimates_hold_the_truth(trained, case):
    rng, truth, points = np.random.default_rng(2), unseen(case.problem), places(case.problem, 100)
    values = np.array([case.exact(*parameters, *points.T) for parameters in truth])
    noisy = values + 0.05 * np.sqrt(np.mean(values**2)) * rng.normal(size=values.shape)
    found = estimate(trained, long_table(case.problem, points[None], noisy[..., None])).table
    assert set(found["status"]) <= {"ok", "not_identifiable", "poor_basis"}
    good = found["status"] == "ok"
    assert good.any() or trained.record.accuracy.solution > ACCURACY
    names = list(case.problem.parameters)
    errors = (found[names].to_numpy() - truth) / found[[f"{name}_std" for name in names]].to_numpy()
    assert (np.abs(errors[good]) < 4).all()


def test_polynomials_serve_one_coordinate_too():
    case = decay()
    basis = train(case.problem, 1e-6, features="chebyshev")
    times = places(case.problem, 100)
    functions = basis.functions(times)
    for parameters in unseen(case.problem):
        truth = case.exact(*parameters, times[:, 0])
        rest = truth - functions @ np.linalg.lstsq(functions, truth, rcond=None)[0]
        assert np.linalg.norm(rest) < 1e-6 * np.linalg.norm(truth)


def test_a_rough_basis_cannot_tell_what_noise_does_not_hide():
    case = heat()
    rough = train(case.problem, 0.3, MINUTES["random"], "random")
    points = places(case.problem, 300)
    values = np.array([case.exact(0.1, *points.T)])
    found = estimate(rough, long_table(case.problem, points[None], values[..., None]), noise_std=1e-9).table
    assert found["status"].tolist() != ["ok"]


def test_the_gradient_of_a_training_holds_the_combination_constant():
    """Beside differences of the loss, whose combination is found anew."""
    problem = heat().problem
    found = pilot(problem, ACCURACY, 60, lambda text: None)
    tuning = Tuning(found.marcher.problem, found.tried, untrained, found.marcher.in_time, np.inf)
    features = Tuned(Spread((2.0, 2.0)), 12)
    trunk = untrained(features.spread, features.width).requires_grad_(True)
    recipe = Recipe(tuning.focused(features), features)
    recipe.loss(trunk)[0]["loss"].backward()
    for weight in trunk.parameters():
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=weight.dtype)
        step, ends = 1e-5 / direction.norm(), []
        with torch.no_grad():
            for sign in (1, -2, 1):
                weight += sign * step * direction
                ends.append(recipe.loss(trunk)[0]["loss"].item())
        difference = (ends[0] - ends[1]) / (2 * step)
        assert difference == pytest.approx((weight.grad * direction).sum().item(), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_units_do_not_matter(kind):
    """In hours and kilometres, and for a field in thousandths, features and accuracy are the same."""
    here = train(heat().problem, ACCURACY, MINUTES[kind], kind).record
    there = heat(
        coordinates={"t": [0, 3600], "x": [0, 1e-3]},
        parameters={"D": {"range": [0.02 * 1e-6 / 3600, 0.2 * 1e-6 / 3600], "scale": "log"}},
        initial={"u": "1000*sin(pi*x*1000)"},
        boundary=[{"at": {"x": x}, "equations": ["u"]} for x in (0, 1e-3)],
    )
    other = train(there.problem, ACCURACY, MINUTES[kind], kind).record
    assert other.settings["width"] == here.settings["width"]
    assert np.allclose(other.settings["scales"], here.settings["scales"])
    if kind == "random":  # how long a training goes on is a matter of time
        assert other.functions == here.functions
        assert other.accuracy.solution == pytest.approx(here.accuracy.solution, rel=1e-2)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (heat, "windows", "more than one coordinate; chebyshev is right"),
        (decay, "fourier", "windows, chebyshev, random, trained are the kinds there are"),
    ],
)
def test_other_kinds_are_refused(make, kind, words):
    with pytest.raises(InputError, match=words) as caught:
        train(make().problem, features=kind)
    assert "\n" not in str(caught.value)
