"""Parameter estimates for differential equations on a trained basis of their solutions."""

from ipbasis.errors import InputError
from ipbasis.estimates.estimate import estimate
from ipbasis.estimates.result import Estimates
from ipbasis.offline.artefact import Basis
from ipbasis.offline.settings import BasisSettings
from ipbasis.offline.train import train
from ipbasis.problem.declaration import Problem

__all__ = ["Basis", "BasisSettings", "Estimates", "InputError", "Problem", "estimate", "train"]
