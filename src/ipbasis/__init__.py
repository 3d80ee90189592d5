"""Parameter estimates for differential equations on a trained basis of their solutions."""

from ipbasis.basis.artefact import Basis
from ipbasis.errors import InputError
from ipbasis.inverse.estimate import Estimates, estimate
from ipbasis.problem import Problem

__all__ = ["Basis", "Estimates", "InputError", "Problem", "estimate"]
