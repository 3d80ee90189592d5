"""The published online recipe: its gradient, and that it does what it is for."""

import numpy as np
import pytest
import torch

from ipbasis import InputError, estimate
from ipbasis.inverse.adam import AdamReadouts, AdamSettings, QuadraticForms
from ipbasis.observations import long_table
from ipbasis.reference.ode import integrate


def test_gradient_agrees_with_autograd(oscillator):
    """One step of plain gradients, by hand and by autograd of the loss as published."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    forms = QuadraticForms(oscillator.system, draw(7, 5), draw(4, 7), draw(4, 6, 6))
    settings = AdamSettings(steps=1, learning_rate=1e-3, drop_after=None, physics_weight=0.3, collocation_points=6)
    search = AdamReadouts(oscillator.system, torch.tensor([0.4, 0.7, -0.2]), 4, 5, settings, torch.float64)
    search.readouts += draw(4, 5)
    readouts = search.readouts.clone().requires_grad_()
    parameters = search.parameters.clone().requires_grad_()
    thetas = {"a1": parameters[:, 0], "a2": parameters[:, 1], "a3": parameters[:, 2], "1": torch.ones(4)}
    augmented = torch.cat([readouts, torch.ones(4, 1, dtype=torch.float64)], dim=1)
    residual = sum(
        thetas[str(t)][:, None] * (augmented @ forms.factor[q].T) for q, t in enumerate(oscillator.system.affine.thetas)
    )
    misfit = readouts @ forms.data.T - forms.targets
    loss = 0.3 * residual.square().sum(1) + misfit.square().sum(1)
    loss.mean().backward()
    assert search.step(forms, 0).numpy() == pytest.approx(loss.detach().numpy())
    assert search.readouts.grad.numpy() == pytest.approx(readouts.grad.numpy())
    assert search.parameters.grad.numpy() == pytest.approx(parameters.grad.numpy())


@pytest.fixture
def clean(oscillator):
    tasks = oscillator.sample_tasks(30, np.random.default_rng(2))
    times = np.linspace(0, 3, 100)
    return long_table(oscillator, times[None, :, None], integrate(oscillator, tasks, times)), tasks


def test_more_steps_lower_the_loss_and_the_error_of_the_fit(basis, clean):
    table, _ = clean
    short, long = (
        estimate(basis, table, AdamSettings(steps=steps, drop_after=steps - steps // 5)) for steps in (50, 2000)
    )
    assert long.table["objective"].mean() < short.table["objective"].mean() / 100
    assert long.table["noise_std"].median() < short.table["noise_std"].median() / 10
    assert long.table["a1_std"].isna().all()
    assert (long.table["iterations"] == 2000).all()


def test_known_parameters_are_held(basis, clean):
    table, tasks = clean
    table["a2"] = tasks.parameters[table["query"], 1]
    found = estimate(basis, table, AdamSettings(steps=50)).table
    assert found["a2"].to_numpy() == pytest.approx(tasks.parameters[:, 1])


def test_given_noise_is_refused(basis, clean):
    with pytest.raises(InputError, match="no error bars"):
        estimate(basis, clean[0], AdamSettings(steps=1), noise_std=0.1)


def test_points_of_their_own_are_refused(basis, clean):
    table, _ = clean
    with pytest.raises(InputError, match="same points for all queries"):
        estimate(basis, table.drop(index=3), AdamSettings(steps=1))
