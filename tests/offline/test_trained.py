"""From a problem to its basis, in few lines of Python."""

import numpy as np
import pytest
import torch
from conftest import FORWARD
from trainings import CutOffError, settings

from ipbasis import Basis, BasisSettings, InputError, Problem, estimate
from ipbasis.observations.simulate import long_table
from ipbasis.offline.settings import CompressionSettings
from ipbasis.offline.trained import train_trunk_basis
from ipbasis.reference.ode import integrate

SETTINGS = BasisSettings(
    trunk={"width": 20, "depth": 3, "dtype": "float32"},
    training=settings("variable_projection", steps=20),
    forward=FORWARD.model_copy(update={"rank_tolerance": 1e-10}),
    compression=CompressionSettings(tasks=60, tolerance=1e-8, seed=1),
    validation={"queries": 20, "seed": 2},
    quadrature_points=60,
)


@pytest.fixture(scope="module")
def decay() -> Problem:
    return Problem(
        name="decay",
        coordinates={"t": [0, 2]},
        fields=["u"],
        parameters={"rate": [0.5, 2]},
        equations=["u_t + rate*u"],
        initial={"u": [0.5, 2]},
    )


def test_ten_lines_give_a_basis_of_ones_own_equation(decay, tmp_path):
    """Its functions span the solutions, its record says how it was made, and queries are answered on it."""
    rows = []
    basis = train_trunk_basis(decay, SETTINGS, log=rows.append)
    tasks, times = decay.sample_tasks(10, np.random.default_rng(0)), np.linspace(0, 2, 30)
    exact = integrate(decay, tasks, times)[..., 0].T
    functions = basis.functions(times)
    span = functions @ np.linalg.lstsq(functions, exact, rcond=None)[0]
    assert np.abs(span - exact).max() < 1e-5
    assert basis.record.settings == SETTINGS
    assert [row["step"] for row in rows] == [0, 10, 20]
    best = min(rows, key=lambda row: row["score"])
    assert basis.record.figures == {**best, "seconds": basis.record.figures["seconds"]}
    assert "validation_worst_residual" in best  # of the forward problem
    basis.save(tmp_path)
    assert Basis.load(tmp_path).record == basis.record
    found = estimate(basis, long_table(decay, times[None, :, None], exact.T[..., None])).table["rate"]
    assert np.allclose(found, tasks.parameters[:, 0], rtol=1e-4)


def test_an_interrupted_training_gives_the_same_basis(decay, tmp_path):
    whole, checkpoint = train_trunk_basis(decay, SETTINGS), tmp_path / "state.pt"
    rows = []

    def cut(row):
        if row["step"] == 10:
            raise CutOffError

    with pytest.raises(CutOffError):
        train_trunk_basis(decay, SETTINGS, checkpoint=checkpoint, checkpoint_seconds=0, log=cut)
    assert checkpoint.exists()
    resumed = train_trunk_basis(decay, SETTINGS, checkpoint=checkpoint, log=rows.append)
    assert torch.equal(resumed.transform, whole.transform)
    assert resumed.record.accuracy == whole.record.accuracy
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert not checkpoint.exists()


def test_observations_need_a_validator_that_observes(decay):
    chosen = SETTINGS.model_copy(update={"validation": SETTINGS.validation.model_copy(update={"observations": 10})})
    with pytest.raises(InputError, match=r"validation\.observations: only a validator that estimates") as caught:
        train_trunk_basis(decay, chosen)
    assert "\n" not in str(caught.value)


def test_settings_of_another_recipe_are_refused():
    values = SETTINGS.model_dump()
    with pytest.raises(InputError, match="BasisSettings: training") as caught:
        BasisSettings(**{**values, "training": {**values["training"], "recipe": "trained_heads"}})
    assert "\n" not in str(caught.value)


def test_unknown_terms_are_refused(lotka_volterra):
    with pytest.raises(InputError, match="without unknown terms"):
        train_trunk_basis(lotka_volterra, SETTINGS)
