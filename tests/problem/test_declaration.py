"""Declared problems: exact solutions satisfy them, contradictions are refused."""

import numpy as np
import pytest
import torch
from conftest import closed_form

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Interval, Problem, about, problem_directory
from ipbasis.reference.ode import integrate


def residuals(problem, coordinates, jets, parameters):
    """Residuals of the problem's true equations; jets by name."""
    system = problem.truth
    names = [system.notation.jet_name(jet) for jet in system.jets]
    tensors = [torch.as_tensor(jets[name]) for name in names]
    return system.compiled(system.residuals)(
        [torch.as_tensor(c) for c in coordinates],
        tensors,
        [torch.as_tensor(p, dtype=torch.float64) for p in parameters],
    )


def test_oscillator_vanishes_on_its_exact_solution(oscillator):
    """Derivatives by central differences: rounding errors of the closed form are divided by h² = 1e-8."""
    tasks = oscillator.sample_tasks(20, np.random.default_rng(0))
    times, h = np.linspace(0.1, 2.9, 30), 1e-4
    u, ahead, behind = (closed_form(tasks.parameters, tasks.initial, times + s) for s in (0, h, -h))
    jets = {"u": u, "u_t": (ahead - behind) / (2 * h), "u_tt": (ahead - 2 * u + behind) / h**2}
    parameters = [p[:, None] for p in tasks.parameters.T]
    (residual,) = residuals(oscillator, [times[None]], jets, parameters)
    assert residual.abs().max() < 1e-4


def test_lotka_volterra_vanishes_at_its_equilibrium_and_on_integrated_solutions(lotka_volterra):
    alpha, beta, gamma, delta = np.array([1.1, 0.7, 0.9, 1.3])
    zero = np.zeros(())
    jets = {"x": gamma / delta, "y": alpha / beta, "x_t": zero, "y_t": zero}
    for residual in residuals(lotka_volterra, [zero], jets, [alpha, beta, gamma, delta]):
        assert abs(float(residual)) < 1e-15
    tasks = lotka_volterra.sample_tasks(5, np.random.default_rng(1))
    h, times = 1e-3, np.linspace(0.5, 9.5, 40)
    values, ahead, behind = (integrate(lotka_volterra, tasks, times + s) for s in (0, h, -h))
    slope = (ahead - behind) / (2 * h)
    jets = {"x": values[..., 0], "y": values[..., 1], "x_t": slope[..., 0], "y_t": slope[..., 1]}
    for residual in residuals(lotka_volterra, [times[None]], jets, [p[:, None] for p in tasks.parameters.T]):
        assert residual.abs().max() < 1e-4  # central differences at h = 1e-3


def test_quantum_oscillator_vanishes_on_its_ground_state(quantum_oscillator):
    """psi = exp(-sqrt(k) x²/2 - i sqrt(k) t/2) solves i psi_t = -psi_xx/2 + k/2 x² psi."""
    k = 2.3
    omega = np.sqrt(k)
    t, x = np.meshgrid(np.linspace(0, 1.5, 7), np.linspace(-2, 2, 9), indexing="ij")
    psi = np.exp(-omega * x**2 / 2 - 0.5j * omega * t)
    in_time, in_space = -0.5j * omega * psi, (omega**2 * x**2 - omega) * psi
    jets = {"re": psi.real, "im": psi.imag, "re_t": in_time.real, "im_t": in_time.imag}
    jets |= {"re_xx": in_space.real, "im_xx": in_space.imag}
    for residual in residuals(quantum_oscillator, [t, x], jets, [k]):
        assert residual.abs().max() < 1e-14


def test_unknown_terms_stand_as_symbols_and_as_truth(lotka_volterra):
    assert {"f", "alpha"} <= {s.name for s in lotka_volterra.system.residuals[0].free_symbols}
    assert {s.name for s in lotka_volterra.truth.residuals[0].free_symbols} == {"x_t", "x", "y", "alpha", "beta"}


def declare(**changes):
    base = {
        "name": "p",
        "coordinates": {"t": [0, 1]},
        "fields": ["u"],
        "parameters": {"a": [0, 1]},
        "equations": ["u_t + a*u"],
        "initial": {"u": [0, 1]},
    }
    return Problem(**{**base, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parameters": {"a": [1, 0]}}, r"parameters\.a: range \[1, 0\]: low must be below high"),
        ({"parameters": {"a": [1, 1]}}, "low must be below high"),
        ({"parameters": {"a": [0, float("inf")]}}, "both finite"),
        ({"coordinates": {"t": [0, 0]}}, "low must be below high"),
        ({"equations": ["u_t + b*u"]}, "position 7: unknown symbol 'b'"),
        ({"equations": []}, "at least one is needed"),
        ({"fields": ["a"]}, "used twice"),
        ({"fields": ["sin"]}, "cannot be a name"),
        ({"fields": ["c_a"]}, "no underscore"),
        ({"parameters": {"a": [0, 1], "b": [0, 1]}}, "'b' occurs in no equation"),
        ({"parameters": {"status": [0, 1]}, "equations": ["u_t + status*u"]}, "column of that name"),
        ({"initial": {}}, "no initial and no boundary conditions"),
        ({"parameters": {"u_t": [0, 1]}}, "reads as a derivative"),
        ({"initial": {"v": [0, 1]}}, "not a field"),
        ({"initial": {"u": "u_t"}}, "initial.u: 'u_t' is neither a coordinate nor a parameter"),
        ({"boundary": [{"at": {"t": 2}, "equations": ["u"]}]}, r"t = 2 is not in the domain \[0, 1\]"),
        ({"boundary": [{"at": {"t": 1}, "equations": ["u**2"]}]}, "linear"),
        ({"unknown_terms": {"f": {"of": ["v"]}}}, "'v' is not a field"),
        ({"equation": ["u"]}, "equation"),
    ],
)
def test_contradictions_are_refused_in_one_line(changes, reason):
    with pytest.raises(InputError, match=reason) as caught:
        declare(**changes)
    assert "\n" not in str(caught.value)


def test_ranges_can_be_replaced(oscillator):
    wider = oscillator.with_ranges(parameters={"a1": [2, 3]}, initial={"u": [-40, 40]})
    assert wider.parameters["a1"] == Interval(2, 3)
    assert oscillator.parameters["a1"] == Interval(0, 1.5)
    with pytest.raises(InputError, match="no parameters 'b'"):
        oscillator.with_ranges(parameters={"b": [0, 1]})


def test_tasks_lie_in_their_ranges(oscillator):
    tasks = oscillator.sample_tasks(500, np.random.default_rng(0))
    ranges = oscillator.parameter_ranges
    assert (tasks.parameters >= ranges[:, 0]).all()
    assert (tasks.parameters <= ranges[:, 1]).all()
    assert tasks.initial.shape == (500, 2)
    assert np.abs(tasks.initial).max() > 4.5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: [", "not YAML"),
        ("- 1", "mapping"),
        ("1: x", "mapping"),
        ("name: x", "coordinates: missing; .* is right"),
    ],
)
def test_faulty_files_name_the_file(tmp_path, text, reason):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        Problem.from_yaml(path)
    assert "p.yaml" in str(caught.value)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Problem.from_yaml(tmp_path / "none.yaml")


def test_every_shipped_problem_is_named_like_its_file():
    paths = sorted(problem_directory().glob("*.yaml"))
    assert paths
    for path in paths:
        assert Problem.from_yaml(path).name == path.stem
        assert len(about(path)) > 40  # says what it is
