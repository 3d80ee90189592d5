"""A trunk in training scored by the parameters that are estimated on its basis."""

import pytest
from conftest import COMPRESSION, FORWARD
from trainings import settings

from ipbasis import InputError
from ipbasis.estimates.validation import GaussNewtonValidator
from ipbasis.offline.settings import BasisSettings
from ipbasis.offline.trained import train_trunk_basis

SETTINGS = BasisSettings(
    trunk={"width": 24, "depth": 3, "dtype": "float64"},
    training=settings("variable_projection", steps=10),
    forward=FORWARD,
    compression=COMPRESSION,
    validation={"queries": 5, "seed": 2, "observations": 30},
    quadrature_points=100,
)


def test_training_is_scored_by_the_error_of_the_parameters(oscillator):
    rows = []
    basis = train_trunk_basis(
        oscillator, SETTINGS, validator=GaussNewtonValidator(oscillator, SETTINGS), log=rows.append
    )
    assert [row["score"] for row in rows] == [row["validation_parameter_mse"] for row in rows]
    figures = basis.record.figures
    assert figures["score"] == min(row["score"] for row in rows) < 1e-6
    assert figures["validation_loss"] == basis.record.accuracy.residual**2
    assert figures["functions"] == basis.record.functions


def test_without_observations_there_is_nothing_to_estimate_from(oscillator):
    validation = SETTINGS.validation.model_copy(update={"observations": None})
    with pytest.raises(InputError, match=r"validation\.observations"):
        GaussNewtonValidator(oscillator, SETTINGS.model_copy(update={"validation": validation}))
