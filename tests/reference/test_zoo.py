"""Reference solutions of every problem that comes along, against exact formulas or another method."""

import numpy as np
import pytest
from scipy.fft import dct, idct
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import brentq
from scipy.special import lambertw, roots_hermite

from ipbasis.problem.declaration import Problem, problem_directory
from ipbasis.reference.solutions import solutions

ELSEWHERE = {
    "damped_oscillator",
    "lotka_volterra",
    "lotka_volterra_unknown_terms",
    "quantum_oscillator",
}  # tests of their own


def exponential(matrix, start, times):
    """Solution of y' = A y."""
    return np.array([expm(np.array(matrix) * t) @ start for t in times])


def integrated(right_side, start, times, method="LSODA"):
    """Solution of y' = f(y); the reference takes DOP853, or LSODA where that is stiff."""
    last = times.max()
    found = solve_ivp(
        lambda _, y: right_side(*y), (0, last), start, method=method, rtol=1e-12, atol=1e-17, t_eval=times
    )
    return found.y.T


def absorption(p, _, t):
    exact = 320 * p["ka"] / p["V"] / (p["ka"] - p["CL"] / p["V"])
    return np.stack([320 * np.exp(-p["ka"] * t), exact * (np.exp(-p["CL"] / p["V"] * t) - np.exp(-p["ka"] * t))], 1)


def two_compartments(p, _, t):
    out, over, back = (p["CL"] + p["Q"]) / p["V1"], p["Q"] / p["V1"], p["Q"] / p["V2"]
    return exponential([[-out, over], [back, -back]], [100 / p["V1"], 0], t)


def sir(p, _, t):
    def rates(s, i, r):
        return [-p["beta"] * s * i / 763, p["beta"] * s * i / 763 - p["gamma"] * i, p["gamma"] * i]

    return integrated(rates, [763 - p["i0"], p["i0"], 0], t)


def van_der_pol(p, start, t):
    return integrated(lambda u, v: [v, p["mu"] * (1 - u**2) * v - p["w"] ** 2 * u], start, t)[:, :1]


def fitzhugh_nagumo(p, start, t):
    return integrated(lambda v, w: [p["c"] * (v - v**3 / 3 + w), -(v - p["a"] + p["b"] * w) / p["c"]], start, t)


def logistic(p, start, t):
    return (p["K"] / (1 + (p["K"] / start[0] - 1) * np.exp(-p["r"] * t)))[:, None]


def michaelis_menten(p, start, t):
    power = (start[0] - p["Vmax"] * t) / p["Km"]
    s = p["Km"] * lambertw(start[0] / p["Km"] * np.exp(power)).real
    return np.stack([s, start[0] - s], 1)


def rlc(p, _, t):
    """The drive as a third and fourth component that turn."""
    turn = 2 * np.pi * 5000
    matrix = [[-p["R"] / p["L"], -1 / p["L"], 5 / p["L"], 0], [1 / p["C"], 0, 0, 0], [0, 0, 0, turn], [0, 0, -turn, 0]]
    return exponential(matrix, [0, 0, 0, 1], t)[:, :2]


def chain(p, start, t):
    return exponential([[-p["k1"], 0, 0], [p["k1"], -p["k2"], 0], [0, p["k2"], -p["k3"]]], [start[0], 0, 0], t)


def robertson(p, _, t):
    def rates(a, b, c):
        made, back, gone = p["k1"] * a, p["k3"] * b * c, p["k2"] * b**2
        return [back - made, made - back - gone, gone]

    return integrated(rates, [1, 0, 0], t, "Radau")


def heat_dirichlet(p, t, x):
    modes = [np.exp(-p["D"] * (n * np.pi / 0.1) ** 2 * t) * np.sin(n * np.pi * x / 0.1) for n in (1, 2)]
    return p["Tb"] + p["A"] * (modes[0] + modes[1] / 2)


def heat_neumann(p, t, x):
    """Cosine series of the flash, its coefficients by the trapezoidal rule, exact for a smooth periodic function."""
    places = (np.arange(4000) + 0.5) / 4000 * 0.1
    flash = 60 * np.exp(-(((places - 0.05) / 0.012) ** 2))
    value = np.full_like(t, flash.mean())
    for n in range(1, 60):
        factor = 2 * np.mean(flash * np.cos(n * np.pi * places / 0.1))
        value += factor * np.exp(-p["D"] * (n * np.pi / 0.1) ** 2 * t) * np.cos(n * np.pi * x / 0.1)
    return 20 + np.exp(-p["h"] * t) * value


def heat_robin(p, t, x):
    """Even modes about the middle: cos(m (x - L/2)) with m tan(m L/2) = h / lam."""
    half, lam, h = 0.025, p["lam"], p["h"]
    nodes, weights = np.polynomial.legendre.leggauss(400)
    start = 5e4 * 0.05 / (2 * h) + 5e4 / (2 * lam) * (half**2 - (half * nodes) ** 2)
    value = np.zeros_like(t)
    for n in range(40):
        low, high = (n * np.pi + 1e-12) / half, (n * np.pi + np.pi / 2 - 1e-12) / half
        m = brentq(
            lambda m: m * np.sin(m * half) - h / lam * np.cos(m * half), low, high, xtol=1e-13 * high, rtol=1e-14
        )
        mode = np.cos(m * half * nodes)
        factor = (weights * start * mode).sum() / (weights * mode**2).sum()
        value += factor * np.exp(-lam / 2e6 * m**2 * t) * np.cos(m * (x - half))
    return 20 + value


def advection_diffusion(p, t, x):
    places = np.arange(256) / 256 * 10
    factors = np.fft.rfft(np.exp(4 * (np.cos(2 * np.pi * (places - 3) / 10) - 1))) / 256
    value = np.full_like(t, factors[0].real)
    for n in range(1, 60):
        rate = 2 * np.pi * n / 10
        value += 2 * (factors[n] * np.exp(1j * rate * (x - p["v"] * t) - p["D"] * rate**2 * t)).real
    return value


def wave(p, t, x):
    value = 0
    for n, height in ((1, 3), (2, 1)):
        turn = np.sqrt((n * np.pi * p["c"] / 0.65) ** 2 - p["b"] ** 2 / 4)
        motion = np.exp(-p["b"] * t / 2) * (np.cos(turn * t) + p["b"] / 2 / turn * np.sin(turn * t))
        value = value + height * motion * np.sin(n * np.pi * x / 0.65)
    return value


def burgers(p, t, x):
    """Cole and Hopf, by Gauss-Hermite quadrature."""
    nodes, weights = roots_hermite(400)
    places = x[:, None] - np.sqrt(4 * p["nu"] * t)[:, None] * nodes
    power = -np.cos(np.pi * places) / (2 * np.pi * p["nu"])
    factors = weights * np.exp(power - power.max(axis=1, keepdims=True))
    return -(np.sin(np.pi * places) * factors).sum(1) / factors.sum(1)


def fisher(p, t, x):
    """Cosine modes, products on a grid, by Radau."""
    count = 128
    places = (np.arange(count) + 0.5) / count * 2
    rates = p["D"] * (np.arange(count) * np.pi / 2) ** 2

    def right_side(_, u):
        return p["r"] * u * (1 - u / p["K"]) - idct(rates * dct(u))

    times, place = np.unique(t, return_inverse=True)
    start = 800 * np.exp(-((places / 0.5) ** 2))
    options = {"method": "Radau", "rtol": 1e-10, "atol": 1e-7, "t_eval": times}
    modes = dct(solve_ivp(right_side, (0, times[-1]), start, **options).y, axis=0) / count
    modes[0] /= 2
    return (modes[:, place] * np.cos(np.arange(count)[:, None] * np.pi * x / 2)).sum(0)


def helmholtz(p, x, y):
    def profile(rate):
        rate = np.sqrt(complex(rate))
        return (np.sin(rate * (1 - y)) / np.sin(rate)).real

    first, second = (profile(p["k"] ** 2 - (n * np.pi) ** 2) for n in (1, 2))
    return p["A"] * np.sin(np.pi * x) * first + np.sin(2 * np.pi * x) / 2 * second


def heat_2d(p, t, x, y):
    def mode(m, n):
        rate = p["Dx"] * (m * np.pi / 0.1) ** 2 + p["Dy"] * (n * np.pi / 0.1) ** 2
        return np.exp(-rate * t) * np.sin(m * np.pi * x / 0.1) * np.sin(n * np.pi * y / 0.1)

    return 20 + 60 * mode(1, 1) + 30 * mode(2, 1) + 30 * mode(1, 2)


ORDINARY = {
    "fitzhugh_nagumo": fitzhugh_nagumo,
    "logistic_growth": logistic,
    "michaelis_menten": michaelis_menten,
    "pharmacokinetics_absorption": absorption,
    "pharmacokinetics_two_compartment": two_compartments,
    "rlc_circuit": rlc,
    "robertson": robertson,
    "sir": sir,
    "stiff_chain": chain,
    "van_der_pol": van_der_pol,
}
PARTIAL = {
    "advection_diffusion": advection_diffusion,
    "burgers": burgers,
    "fisher_kpp": fisher,
    "heat_2d": heat_2d,
    "heat_dirichlet": heat_dirichlet,
    "heat_neumann": heat_neumann,
    "heat_robin": heat_robin,
    "helmholtz": helmholtz,
    "wave": wave,
}


def test_every_problem_that_comes_along_is_checked():
    assert {path.stem for path in problem_directory().glob("*.yaml")} == {*ORDINARY, *PARTIAL} | ELSEWHERE


@pytest.mark.parametrize("name", [*ORDINARY, *PARTIAL])
def test_reference_agrees_with_an_independent_solution(name):
    """To 1e-8 of each field's size: ten times what either side is solved to, and a hundred times the default."""
    problem = Problem.from_yaml(problem_directory() / f"{name}.yaml")
    rng = np.random.default_rng(7)
    corners, drawn = problem.corner_tasks(), problem.sample_tasks(2, rng)
    tasks = problem.tasks(
        np.concatenate([np.hstack([some.parameters, some.initial]) for some in (corners[:: len(corners) - 1], drawn)])
    )
    low, high = problem.domain.T
    points = low + (high - low) * np.sort(rng.random((40, len(low))), axis=0)
    points[:, 1:] = rng.permutation(points[:, 1:])
    found = solutions(problem, tasks, points[None])
    for number in range(len(tasks)):
        parameters = dict(zip(problem.parameters, tasks.parameters[number], strict=True))
        if name in ORDINARY:
            exact = ORDINARY[name](parameters, tasks.initial[number], points[:, 0])
        else:
            exact = PARTIAL[name](parameters, *points.T)[:, None]
        assert found[number].shape == exact.shape
        size = np.abs(exact).max(axis=0)
        assert (np.abs(found[number] - exact).max(axis=0) <= 1e-8 * size).all()


def test_robertson_at_40_seconds_as_published():
    """Values of the Test Set for IVP Solvers (Mazzia, Magherini), also in Hairer and Wanner, volume II."""
    problem = Problem.from_yaml(problem_directory() / "robertson.yaml")
    found = solutions(problem, problem.tasks(np.array([[0.04, 3e7, 1e4]])), np.array([[[40.0]]]))[0, 0]
    assert found == pytest.approx([0.715827068718, 9.18553476474e-6, 0.284163745745], rel=1e-8)
