"""Problems declared in other units: the same equations, conditions, ranges and knowledge, whatever the units are."""

import numpy as np
import pytest
import torch

from ipbasis.errors import InputError
from ipbasis.problem.declaration import Interval, Problem
from ipbasis.problem.natural_units import declared_sizes, natural_units
from ipbasis.problem.units import CoordinateUnit, ParameterUnit, Units, rescaled
from ipbasis.reference.ode import integrate


def rod() -> Problem:
    """Two fields in time and space, every kind of name and condition, functions with pieces."""
    return Problem(
        name="rod",
        coordinates={"t": [10, 40], "x": [-2, 3]},
        fields=["u", "v"],
        parameters={"k": {"range": [1e-3, 10], "scale": "log"}, "h": [0.5, 2], "m": [-4, 3]},
        constants={"c": 3.5, "n": 2},
        equations=[
            "c*u_t - k*u_xx + h*where(t < 20 and x > 0, u, min(u, v))*abs(v)**n + exp(-x)*m",
            "v_tt + u_t*v - h/k*v_x + heaviside(t - 12)*sin(m*x)",
        ],
        initial={"u": "m*exp(-h*x**2)", "v": {"range": [0.1, 50], "scale": "log"}, "v_t": [-1, 2]},
        boundary=[
            {"at": {"x": -2}, "equations": ["u_x - m*h", "v - cos(t)"]},
            {"at": {"x": 3}, "equations": ["k*u_x + h*(u - 3)"]},
        ],
        bounds={"k": [0, 8], "m": [-5, None]},
        priors={"k": {"lognormal": [0.1, 1.5]}, "m": {"normal": [1, 2]}},
        fixed={"h": 0.75, "initial_v": 20},
    )


def units_of(problem: Problem, seed: int, decades: float) -> Units:
    """Random units, powers of ten up to so many decades up or down; the logarithm of every log-scaled parameter."""
    rng = np.random.default_rng(seed)

    def size() -> float:
        return float(10 ** rng.uniform(-decades, decades))

    identity = Units.identity(problem)
    return identity.with_parts(
        coordinates={name: CoordinateUnit(rng.uniform(-3, 3), size()) for name in problem.coordinates},
        fields={name: size() for name in problem.fields},
        parameters={name: ParameterUnit(size(), p.logarithmic) for name, p in problem.parameters.items()},
        equations=[size() for _ in problem.equations],
        conditions=[[size() for _ in part] for part in identity.conditions],
    )


def draws(problem: Problem, units: Units, system, count: int = 20):
    """Coordinates, jets of a system and parameters, declared and in the units."""
    rng = np.random.default_rng(1)
    points = rng.uniform(*problem.domain.T, size=(count, len(problem.coordinates)))
    parameters = problem.sample_tasks(count, rng).parameters
    jets = [rng.normal(size=count) for _ in system.jets]
    scaled = [values / units.jet_scale(jet) for jet, values in zip(system.jets, jets, strict=True)]
    return (points.T, jets, parameters.T), (units.points_to(points).T, scaled, units.to(parameters).T)


def residuals(system, arguments) -> np.ndarray:
    """(equations, points) by NumPy; PyTorch gives the same."""
    values = np.stack(np.broadcast_arrays(*system.evaluated(system.residuals)(*arguments)))
    tensors = [[torch.as_tensor(column, dtype=torch.float64) for column in part] for part in arguments]
    by_torch = system.compiled(system.residuals)(*tensors)
    assert np.allclose(values, np.stack([torch.as_tensor(v).numpy() for v in by_torch]), rtol=1e-12)
    return values


@pytest.mark.parametrize("decades", [0.5, 4])
def test_residuals_are_the_declared_ones_divided(decades):
    problem = rod()
    units = units_of(problem, 0, decades)
    other = rescaled(problem, units)
    declared, scaled = draws(problem, units, problem.system)
    expected = residuals(problem.system, declared) / np.array(units.equations)[:, None]
    assert np.allclose(residuals(other.system, scaled), expected, rtol=1e-9)


def test_conditions_are_the_declared_ones_divided():
    problem = rod()
    units = units_of(problem, 1, 2)
    other = rescaled(problem, units)
    for (known, system), (at, scaled), divisors in zip(
        problem.boundary_systems, other.boundary_systems, units.conditions, strict=True
    ):
        assert units.points_from(np.array([0.0, at[1]]))[1] == pytest.approx(known[1], rel=1e-14)
        assert at[1] in other.domain[1]
        declared, arguments = draws(problem, units, system)
        expected = residuals(system, declared) / np.array(divisors)[:, None]
        assert np.allclose(residuals(scaled, arguments), expected, rtol=1e-9)


def test_initial_values_ranges_and_knowledge_are_turned():
    problem = rod()
    units = units_of(problem, 2, 2)
    other, (t, x) = rescaled(problem, units), units.coordinates.values()
    scale = units.parameters["k"].scale
    assert other.parameters["k"] == Interval(np.log(1e-3 / scale), np.log(10 / scale), "linear")
    assert other.parameters["m"] == Interval(-4 / units.parameters["m"].scale, 3 / units.parameters["m"].scale)
    u, v = units.fields.values()
    assert other.initial["v"] == Interval(0.1 / v, 50 / v, "log")
    assert other.initial["v_t"][:2] == pytest.approx((-1 * t.scale / v, 2 * t.scale / v))
    symbols = other.notation.coordinates["x"], *other.system.parameters
    (formula,) = other.fixed_initial.values()
    values = np.array([[0.2, 1.1, -2.0]])
    at = [(0.7 - x.offset) / x.scale, *units.to(values)[0]]
    expected = -2.0 * np.exp(-1.1 * 0.7**2) / u
    assert float(formula.subs(dict(zip(symbols, at, strict=True)))) == pytest.approx(expected, rel=1e-12)
    assert other.bounds["k"] == (None, pytest.approx(np.log(8 / scale)))
    assert other.bounds["m"] == (pytest.approx(-5 / units.parameters["m"].scale), None)
    assert other.priors["k"].normal == pytest.approx((np.log(0.1 / scale), 1.5))
    assert other.priors["m"].normal == pytest.approx(tuple(p / units.parameters["m"].scale for p in (1, 2)))
    assert other.fixed["h"] == pytest.approx(0.75 / units.parameters["h"].scale)
    assert other.fixed["initial_v"] == pytest.approx(20 / v)


def test_values_go_to_the_units_and_back():
    problem = rod()
    units = units_of(problem, 3, 5)
    tasks = problem.sample_tasks(30, np.random.default_rng(0))
    scaled = units.tasks_to(problem, tasks)
    again = units.tasks_from(problem, scaled)
    assert np.allclose(again.parameters, tasks.parameters, rtol=1e-13)
    assert np.allclose(again.initial, tasks.initial, rtol=1e-13)
    h = 1e-6
    slopes = (units.values(scaled.parameters + h) - units.values(scaled.parameters - h)) / (2 * h)
    assert np.allclose(units.slopes(scaled.parameters), slopes, rtol=1e-6)
    assert np.isnan(units.to(np.array([-1.0, 1.0, 1.0]))).tolist() == [True, False, False]
    assert Units.model_validate_json(units.model_dump_json()) == units


def test_solutions_are_the_same(oscillator):
    units = units_of(oscillator, 4, 1)
    other = rescaled(oscillator, units)
    tasks, times = oscillator.sample_tasks(5, np.random.default_rng(0)), np.linspace(0, 3, 20)
    expected = integrate(oscillator, tasks, times)
    found = integrate(other, units.tasks_to(oscillator, tasks), units.points_to(times[:, None])[:, 0])
    assert np.abs(found * units.field_scales - expected).max() < 1e-8 * np.abs(expected).max()


def test_unknown_terms_keep_their_unit(lotka_volterra):
    units = units_of(lotka_volterra, 5, 2)
    other = rescaled(lotka_volterra, units)
    declared, scaled = draws(lotka_volterra, units, lotka_volterra.truth)
    expected = residuals(lotka_volterra.truth, declared) / np.array(units.equations)[:, None]
    assert np.allclose(residuals(other.truth, scaled), expected, rtol=1e-11)


def test_identity_changes_nothing():
    assert rescaled(rod(), Units.identity(rod())).model_dump() == rod().model_dump()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"parameters": dict.fromkeys("khm", ParameterUnit(1, True))}, "parameters.m: -4 has no logarithm"),
        ({"fields": {"u": 1.0, "v": 0.0}}, "above zero"),
        ({"fields": {"u": 1.0}}, "of another problem"),
        ({"equations": [1.0]}, "of another problem"),
    ],
)
def test_units_that_do_not_fit_are_refused(parts, reason):
    with pytest.raises(InputError, match=reason):
        rescaled(rod(), Units.identity(rod()).with_parts(**parts))


def test_natural_units_are_of_order_one():
    problem = rod()
    units = natural_units(problem, {"u": 3.0, "v": 20.0})
    other = rescaled(problem, units)
    assert np.allclose(other.domain, [[0, 1], [-1, 1]], atol=1e-15)
    assert np.allclose(other.parameter_ranges[0], [-np.log(100), np.log(100)])
    assert np.abs(other.parameter_ranges[1:]).max(axis=1) == pytest.approx(1)
    assert np.allclose(natural_units(other, {"u": 1.0, "v": 1.0}).equations, 1)
    assert np.allclose(np.concatenate(natural_units(other, {"u": 1.0, "v": 1.0}).conditions), 1)


def test_without_time_every_coordinate_is_centred():
    problem = Problem(
        name="p",
        coordinates={"x": [0, 70]},
        fields=["u"],
        parameters={"k": [1, 5]},
        equations=["u_xx - k*u"],
        boundary=[{"at": {"x": 0}, "equations": ["u_x - k"]}, {"at": {"x": 70}, "equations": ["u"]}],
    )
    assert rescaled(problem, natural_units(problem)).domain.tolist() == [[-1, 1]]


def test_sizes_that_the_declaration_tells():
    assert declared_sizes(rod()) == {"u": pytest.approx(4, rel=1e-3), "v": 50}


@pytest.mark.parametrize("seed", range(6))
def test_a_change_of_units_changes_rounding_only(seed):
    """A problem and the same in units 1e-12 to 1e12 times as large have the same natural form."""
    problem, sizes = rod(), {"u": 3.0, "v": 20.0}
    change = units_of(problem, seed, 12)
    # offsets of this size would cost the digits of the coordinates, in which the user writes them
    coordinates = {name: CoordinateUnit(0.0, unit.scale) for name, unit in change.coordinates.items()}
    parameters = {name: ParameterUnit(unit.scale) for name, unit in change.parameters.items()}
    change = change.with_parts(coordinates=coordinates, parameters=parameters)
    foreign = rescaled(problem, change)
    assert foreign.parameters["k"].logarithmic
    ours, theirs = (
        natural_units(problem, sizes),
        natural_units(foreign, {f: s / change.fields[f] for f, s in sizes.items()}),
    )
    one, other = rescaled(problem, ours), rescaled(foreign, theirs)
    assert np.allclose(one.unknown_ranges, other.unknown_ranges, rtol=1e-12, atol=1e-12)
    assert np.allclose(one.domain, other.domain, rtol=1e-13, atol=1e-13)
    _, arguments = draws(problem, ours, problem.system)
    assert np.allclose(residuals(one.system, arguments), residuals(other.system, arguments), rtol=1e-9)
    for (at, system), (at_other, system_other) in zip(one.boundary_systems, other.boundary_systems, strict=True):
        assert at == pytest.approx(at_other)
        _, arguments = draws(problem, ours, system)
        assert np.allclose(residuals(system, arguments), residuals(system_other, arguments), rtol=1e-9)
