"""The published recipe from a problem to a basis."""

import pytest
import torch
from trainings import FORWARD, SMALL, settings

from ipbasis import Basis, InputError
from ipbasis.published.train import PublishedSettings, train_published

SETTINGS = PublishedSettings(
    trunk=SMALL,
    training=settings("trained_heads", steps=20),
    forward=FORWARD,
    validation={"queries": 5, "seed": 2, "observations": 30, "learning_rate": 3e-2},
    quadrature_points=40,
)


def test_the_basis_is_all_features_as_they_are(oscillator, tmp_path):
    rows = []
    basis = train_published(oscillator, SETTINGS, log=rows.append)
    assert torch.equal(basis.transform, torch.eye(SMALL.width + 1, dtype=torch.float64))
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert basis.record.figures["validation_parameter_mse"] == min(row["score"] for row in rows)
    basis.save(tmp_path)
    record = Basis.load(tmp_path).record
    # of another room: plain data in the record, whole all the same
    assert PublishedSettings(**record.settings) == SETTINGS
    assert record == basis.record


@pytest.mark.parametrize(
    "changes",
    [
        {"compression": {"tasks": 10, "tolerance": 1e-3, "seed": 0}},
        {"training": {**SETTINGS.training.model_dump(), "recipe": "variable_projection"}},
    ],
)
def test_settings_that_do_not_apply_are_refused(changes):
    with pytest.raises(InputError, match=f"PublishedSettings: {next(iter(changes))}") as caught:
        PublishedSettings(**{**SETTINGS.model_dump(), **changes})
    assert "\n" not in str(caught.value)
