"""Seeds and the small fixtures that many tests share."""

import numpy as np
import pytest
import torch

from ipbasis.features.quadrature import gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.offline.artefact import Accuracy, Basis, Record
from ipbasis.offline.build import build_basis
from ipbasis.offline.settings import BuildSettings, CompressionSettings, ForwardSettings
from ipbasis.problem.declaration import Problem, problem_directory
from ipbasis.reference.ode import integrate

FORWARD = ForwardSettings(condition_weight=100, condition_points=1, rank_tolerance=1e-12)
COMPRESSION = CompressionSettings(tasks=300, tolerance=1e-10, seed=1)
TRUNK = TrunkSettings(width=40, depth=4, dtype="float64")


DECAY = """
# First-order decay
name: decay
coordinates: {t: [0, 2]}
fields: [u, w]
parameters: {k: {range: [0.5, 2], scale: log}}
equations: ["u_t + k*u", "w_t - k*u"]
initial: {u: [1, 2], w: "0"}
"""


@pytest.fixture(autouse=True)
def _seeded():
    """Global generators start the same for every test, and the number type stays what it was."""
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def decay_file(tmp_path):
    path = tmp_path / "decay.yaml"
    path.write_text(DECAY)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory in the place of the reports."""
    monkeypatch.setattr("pipelines.report.outputs.REPORTS", tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def oscillator() -> Problem:
    return Problem.from_yaml(problem_directory() / "damped_oscillator.yaml")


@pytest.fixture(scope="session")
def lotka_volterra() -> Problem:
    """With unknown terms."""
    return Problem.from_yaml(problem_directory() / "lotka_volterra_unknown_terms.yaml")


@pytest.fixture(scope="session")
def epidemic() -> Problem:
    """Three fields, two of which never meet in an equation; of one only the derivative occurs."""
    return Problem(
        name="epidemic",
        coordinates={"t": [0, 20]},
        fields=["s", "i", "r"],
        parameters={"beta": [0.4, 1.2], "gamma": [0.1, 0.4]},
        equations=["s_t + beta*s*i", "i_t - beta*s*i + gamma*i", "r_t - gamma*i"],
        initial={"s": [0.8, 1], "i": [0.01, 0.05], "r": [0, 0.1]},
    )


@pytest.fixture(scope="session")
def quantum_oscillator() -> Problem:
    return Problem.from_yaml(problem_directory() / "quantum_oscillator.yaml")


@pytest.fixture(scope="session")
def basis(oscillator: Problem) -> Basis:
    """A basis of the oscillator on an untrained trunk, which spans its solutions to 1e-11."""
    trunk = Trunk(oscillator.domain, TRUNK, torch.Generator().manual_seed(0)).requires_grad_(False)
    tasks = oscillator.sample_tasks(50, np.random.default_rng(5))
    quadrature = gauss_legendre(oscillator.domain, 200)
    truth = integrate(oscillator, tasks, quadrature.points[:, 0].numpy())
    settings = BuildSettings(trunk=TRUNK, forward=FORWARD, compression=COMPRESSION, quadrature_points=200)
    return build_basis(oscillator, trunk, settings, tasks, truth)


@pytest.fixture(scope="session")
def lotka_volterra_basis() -> Basis:
    """A basis of Lotka-Volterra, all four parameters in the equations, on an untrained trunk."""
    problem = Problem.from_yaml(problem_directory() / "lotka_volterra.yaml")
    size = TrunkSettings(width=64, depth=4, dtype="float64", first_layer_scale=7)
    trunk = Trunk(problem.domain, size, torch.Generator().manual_seed(0)).requires_grad_(False)
    forward = FORWARD.model_copy(update={"linearise": "reference"})
    tasks = problem.sample_tasks(40, np.random.default_rng(5))
    truth = integrate(problem, tasks, gauss_legendre(problem.domain, 100).points[:, 0].numpy())
    compression = CompressionSettings(tasks=200, tolerance=1e-8, seed=1)
    settings = BuildSettings(trunk=size, forward=forward, compression=compression, quadrature_points=100)
    return build_basis(problem, trunk, settings, tasks, truth)


def untrained(problem: Problem, width: int, depth: int, dtype: str = "float64") -> Basis:
    """The raw features of an untrained trunk, as the published recipe uses those of a trained one."""
    settings = TrunkSettings(width=width, depth=depth, dtype=dtype)
    trunk = Trunk(problem.domain, settings, torch.Generator().manual_seed(0)).requires_grad_(False)
    accuracy = Accuracy(residual=1e-3, solution=1e-3)
    record = Record(problem=problem, features=settings, functions=width + 1, quadrature_points=20, accuracy=accuracy)
    return Basis(trunk, torch.eye(width + 1, dtype=torch.float64), record)


def closed_form(parameters: np.ndarray, initial: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(tasks, n) exact solution of the damped oscillator, by the roots of its characteristic polynomial."""
    a1, a2, a3 = parameters.T.astype(complex)
    rest = -a3 / a2
    root = np.sqrt(a1**2 / 4 - a2)
    first, second = -a1 / 2 + root, -a1 / 2 - root
    u, slope = initial.T
    weight = (slope - second * (u - rest)) / (first - second)
    terms = weight[:, None] * np.exp(first[:, None] * times)
    terms = terms + (u - rest - weight)[:, None] * np.exp(second[:, None] * times)
    return (terms + rest[:, None]).real
