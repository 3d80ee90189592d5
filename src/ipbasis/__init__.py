"""Parameter estimates for differential equations on a trained basis of their solutions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipbasis.errors import InputError
    from ipbasis.estimates.estimate import estimate
    from ipbasis.estimates.result import Estimates
    from ipbasis.offline.artefact import Basis
    from ipbasis.offline.settings import BasisSettings
    from ipbasis.offline.train import train
    from ipbasis.problem.declaration import Problem
    from ipbasis.simulation.simulate import simulate

# each name is imported where it is first used: PyTorch, SciPy and SymPy take seconds
_HOMES = {
    "Basis": "ipbasis.offline.artefact",
    "BasisSettings": "ipbasis.offline.settings",
    "Estimates": "ipbasis.estimates.result",
    "InputError": "ipbasis.errors",
    "Problem": "ipbasis.problem.declaration",
    "estimate": "ipbasis.estimates.estimate",
    "simulate": "ipbasis.simulation.simulate",
    "train": "ipbasis.offline.train",
}

__all__ = ["Basis", "BasisSettings", "Estimates", "InputError", "Problem", "estimate", "simulate", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
