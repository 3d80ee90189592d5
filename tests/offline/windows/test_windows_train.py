"""Bases of windows: fine enough by themselves, for every kind of problem of one coordinate, in any units."""

import numpy as np
import pytest

from ipbasis import Basis, InputError, Problem, train
from ipbasis.reference.ode import integrate


@pytest.fixture(scope="module")
def growth() -> Problem:
    return Problem(
        name="growth",
        coordinates={"t": [0, 10]},
        fields=["u"],
        parameters={"r": [0.5, 2], "K": {"range": [1, 100], "scale": "log"}},
        equations=["u_t - r*u*(1 - u/K)"],
        initial={"u": [0.1, 1]},
    )


@pytest.fixture(scope="module")
def basis(growth) -> Basis:
    return train(growth)


def test_solutions_to_start_from_are_solutions(basis, growth):
    units, solved = basis.record.units, basis.solved
    points = np.linspace(0, 10, 50)
    values = np.einsum("nk,tk->tn", basis.functions(points), solved.readouts[:20, 0].numpy()) * units.field_scales[0]
    r, k = units.values(solved.parameters[:20].numpy()).T[..., None]
    start = solved.initial[:20].numpy() * units.field_scales[0]
    assert np.allclose(values, k / (1 + (k / start - 1) * np.exp(-r * points)), rtol=1e-6)


def test_accuracy_is_better_than_asked_and_saved(basis, tmp_path):
    assert basis.record.accuracy.worst_residual < 1e-6
    basis.save(tmp_path)
    again = Basis.load(tmp_path)
    assert again.record == basis.record
    points = np.linspace(0, 10, 7)
    assert np.array_equal(again.functions(points, "t"), basis.functions(points, "t"))
    assert np.allclose(again.solved.readouts, basis.solved.readouts, rtol=1e-6)


def test_boundary_values_with_parameters_need_no_integrator():
    """Heat along a rod, cooled along its length: a cosh, which is exact."""
    rod = Problem(
        name="rod",
        coordinates={"x": [0, 2]},
        fields=["u"],
        parameters={"m": [1, 9], "phi": [1, 2]},
        equations=["u_xx - m*u"],
        boundary=[{"at": {"x": 0}, "equations": ["u_x + phi"]}, {"at": {"x": 2}, "equations": ["u_x"]}],
    )
    basis = train(rod)
    points = np.linspace(0, 2, 30)
    values = np.einsum("nk,tk->tn", basis.functions(points), basis.solved.readouts[:, 0].numpy())
    values *= basis.record.units.field_scales[0]
    m, phi = basis.record.units.values(basis.solved.parameters.numpy()).T[..., None]
    root = np.sqrt(m)
    exact = phi * np.cosh(root * (2 - points)) / (root * np.sinh(2 * root))
    assert np.allclose(values, exact, rtol=1e-7)


def test_nonlinear_boundary_value_problems_are_reached_by_continuation():
    """Bratu's problem on its lower branch, against the root of its exact solution."""
    bratu = Problem(
        name="bratu",
        coordinates={"x": [0, 1]},
        fields=["u"],
        parameters={"k": [0.5, 3]},
        equations=["u_xx + k*exp(u)"],
        boundary=[{"at": {"x": 0}, "equations": ["u"]}, {"at": {"x": 1}, "equations": ["u"]}],
    )
    basis = train(bratu)
    middle = np.einsum("nk,tk->tn", basis.functions([0.5]), basis.solved.readouts[:, 0].numpy())[:, 0]
    middle *= basis.record.units.field_scales[0]
    k = basis.record.units.values(basis.solved.parameters.numpy())[:, 0]
    # u(1/2) = 2 log cosh(a), where a = sqrt(k / 8) cosh(a)
    a = np.arccosh(np.exp(middle / 2))
    assert np.allclose(a, np.sqrt(k / 8) * np.cosh(a), rtol=1e-6)
    assert (a < 1.2).all()


def test_windows_break_where_the_equation_jumps():
    stepped = Problem(
        name="stepped",
        coordinates={"t": [0, 10]},
        fields=["u"],
        parameters={"k": [0.5, 2]},
        equations=["u_t + k*u - where(t < 3.7, 1, 0)"],
        initial={"u": "0"},
    )
    basis = train(stepped)
    edges = basis.features.settings.breakpoints[0]
    assert min(abs(edge - 0.37) for edge in edges) < 1e-12
    assert basis.record.accuracy.residual < 1e-9


def rod(length: float, size: float, equation: str) -> Problem:
    """A heated rod between cold ends, its temperature near a size."""
    k = length**2 / size
    return Problem(
        name="rod",
        coordinates={"x": [0, length]},
        fields=["u"],
        parameters={"k": [k, 3 * k]},
        constants={"l": length, "s": size},
        equations=[equation],
        boundary=[{"at": {"x": x}, "equations": ["u"]} for x in (0, length)],
    )


def values_at(basis, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, n) solved tasks at points, and (T,) their parameter."""
    values = np.einsum("nk,tk->tn", basis.functions(points), basis.solved.readouts[:, 0].numpy())
    return values * basis.record.units.field_scales[0], basis.record.units.values(basis.solved.parameters.numpy())[:, 0]


@pytest.mark.parametrize(("length", "size"), [(1.0, 1.0), (1e-6, 1e-12), (1e6, 1e12)])
def test_windows_of_boundary_value_problems_break_where_the_equation_jumps_in_any_units(length, size):
    """Heat is made in the first 0.3 of the rod: u'' jumps there."""
    basis = train(rod(length, size, "k*u_xx + where(x < 0.3*l, 1, 0)"))
    edges = (np.array(basis.features.settings.breakpoints[0]) + 1) / 2
    assert np.abs(edges - 0.3).min() < 1e-12
    assert len(edges) <= 6
    x = np.linspace(0, length, 50)
    values, k = values_at(basis, x)
    end, slope = 0.3 * length, (0.3 - 0.3**2 / 2) * length
    exact = np.where(x < end, slope * x - x**2 / 2, slope * x - end * x + end**2 / 2) / k[:, None]
    assert np.allclose(values, exact, rtol=0, atol=1e-6 * size)  # solved tasks are kept to half the digits


def test_nonlinear_boundary_value_problems_in_tiny_units():
    small, plain = (rod(*sizes, "k*u_xx + 1 - 0.3*(u/s)**2") for sizes in ((1e-6, 1e-12), (1.0, 1.0)))
    shares = np.linspace(0, 1, 20)
    found, expected = values_at(train(small), 1e-6 * shares), values_at(train(plain), shares)
    assert np.allclose(found[0] / 1e-12, expected[0], rtol=1e-5, atol=1e-6)


def test_tasks_without_solution_are_left_out_and_counted():
    """u' = u² ends at 1 / u(0): beyond the domain only for small ones."""
    blow = Problem(
        name="blow",
        coordinates={"t": [0, 1]},
        fields=["u"],
        parameters={"k": [0.5, 1]},
        equations=["u_t - k*u**2"],
        initial={"u": [0.1, 1.5]},
    )
    basis = train(blow)
    lost = basis.record.figures["tasks_without_solution"]
    assert 0 < lost < 200
    assert len(basis.solved.parameters) == 256 - lost


@pytest.mark.parametrize(
    ("argument", "value"), [("accuracy", 0), ("accuracy", 2), ("minutes", -1), ("features", "fourier")]
)
def test_arguments_without_sense_are_refused(growth, argument, value):
    with pytest.raises(InputError, match=argument):
        train(growth, **{argument: value})


def test_unknown_terms_are_refused(lotka_volterra):
    with pytest.raises(InputError, match="unknown_terms"):
        train(lotka_volterra)


def test_stiff_rates_grade_the_windows():
    stiff = Problem(
        name="stiff",
        coordinates={"t": [0, 1]},
        fields=["u", "v"],
        parameters={"k": {"range": [1e3, 1e5], "scale": "log"}},
        equations=["u_t + k*(u - v)", "v_t + v"],
        initial={"u": "0", "v": "1"},
    )
    basis = train(stiff)
    edges = np.array(basis.features.settings.breakpoints[0])
    assert edges[1] < 1e-3
    assert len(edges) < 40
    tasks = basis.problem.sample_tasks(1, np.random.default_rng(0))
    assert integrate(basis.problem, tasks, [1.0])[0, 0, 0] == pytest.approx(np.exp(-1), rel=1e-2)
