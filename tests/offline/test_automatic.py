"""Bases of partial equations from their declaration alone, against exact solutions, and estimates on them."""

import numpy as np
import pandas as pd
import pytest
import torch

from ipbasis import Basis, InputError, Problem, estimate, train
from ipbasis.offline.kept import Kept
from ipbasis.offline.trajectory import Slab, Trajectory

TASKS = 5


def heat(**changes) -> Problem:
    """A sine between cold walls: exp(-D pi² t) A sin(pi x)."""
    values = {
        "name": "heat",
        "coordinates": {"t": [0, 1], "x": [0, 1]},
        "fields": ["u"],
        "parameters": {"D": {"range": [0.02, 0.2], "scale": "log"}, "A": [1, 3]},
        "equations": ["u_t - D*u_xx"],
        "initial": {"u": "A*sin(pi*x)"},
        "boundary": [{"at": {"x": x}, "equations": ["u"]} for x in (0, 1)],
    }
    return Problem(**{**values, **changes})


def wave() -> Problem:
    """A wave that travels round: sin(2 pi (x - c t)), plus what diffusion takes."""
    return Problem(
        name="round",
        coordinates={"t": [0, 1], "x": [0, 1]},
        fields=["u"],
        parameters={"c": [0.5, 1], "D": [0.001, 0.01]},
        equations=["u_t + c*u_x - D*u_xx"],
        initial={"u": "sin(2*pi*x)"},
        boundary=[{"periodic": "x"}],
    )


EXACT = {
    "heat": lambda p, t, x: p[1] * np.exp(-p[0] * np.pi**2 * t) * np.sin(np.pi * x),
    "round": lambda p, t, x: np.exp(-p[1] * 4 * np.pi**2 * t) * np.sin(2 * np.pi * (x - p[0] * t)),
}


@pytest.fixture(scope="module", params=[heat, wave], ids=["heat", "round"])
def trained(request) -> Basis:
    return train(request.param(), minutes=1)


def unseen(basis: Basis) -> np.ndarray:
    return basis.problem.sample_tasks(TASKS, np.random.default_rng(3)).parameters


def test_unseen_solutions_are_in_the_span(trained):
    rng = np.random.default_rng(0)
    points = rng.random((800, 2))
    functions = trained.functions(points)
    for p in unseen(trained):
        truth = EXACT[trained.problem.name](p, *points.T)
        readouts = np.linalg.lstsq(functions, truth, rcond=None)[0]
        assert np.linalg.norm(functions @ readouts - truth) < 1e-3 * np.linalg.norm(truth)


def test_derivatives_are_in_the_problems_own_units(trained):
    points = np.random.default_rng(1).random((50, 2))
    step = np.array([[0.0, 1e-6]])
    numerical = (trained.functions(points + step) - trained.functions(points - step)) / 2e-6
    assert np.allclose(trained.functions(points, "x"), numerical, rtol=1e-4, atol=1e-4)


def test_record_tells_accuracy_over_the_ranges_and_digits(trained, tmp_path):
    record = trained.record
    assert record.accuracy.floor < 1e-3
    assert record.rounding < 1e-12
    residual, error = record.local.at(np.random.default_rng(0).random((20, 2)))
    assert (error < 1e-2).all()
    assert (residual > 0).all()
    trained.save(tmp_path)
    assert Basis.load(tmp_path).record == record


def test_estimates_hold_the_truth(trained):
    rng, parts, truth = np.random.default_rng(2), [], unseen(trained)
    for query, p in enumerate(truth):
        t, x = rng.random((2, 100))
        values = EXACT[trained.problem.name](p, t, x)
        noisy = values + 0.02 * values.std() * rng.normal(size=100)
        parts.append(pd.DataFrame({"query": query, "t": t, "x": x, "u": noisy}))
    found = estimate(trained, pd.concat(parts, ignore_index=True)).table
    assert found["status"].tolist() == ["ok"] * TASKS
    names = list(trained.problem.parameters)
    errors = (found[names].to_numpy() - truth) / found[[f"{name}_std" for name in names]].to_numpy()
    assert np.abs(errors).max() < 4
    assert np.sqrt(np.mean(errors**2)) > 0.3


def test_a_basis_far_off_beside_the_noise_cannot_tell(trained):
    """Noise a hundredth of what the basis is accurate to."""
    p = unseen(trained)[0]
    t, x = np.random.default_rng(5).random((2, 300))
    table = pd.DataFrame({"query": 0, "t": t, "x": x, "u": EXACT[trained.problem.name](p, t, x)})
    assert estimate(trained, table, noise_std=1e-8).table["status"].tolist() != ["ok"]


def test_other_features_are_refused():
    with pytest.raises(InputError, match="more than one coordinate; chebyshev is right"):
        train(heat(), features="windows")


def test_an_interrupted_training_goes_on_from_its_solved_tasks(tmp_path):
    told = []

    def interrupting(text):
        told.append(text)
        if "functions" in text:
            raise KeyboardInterrupt

    stopped = train(heat(), told=interrupting, accuracy=1e-9, unfinished=tmp_path / "tasks")
    assert stopped.record.figures["interrupted"] == 1
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tasks").iterdir()}
    assert kept
    again = train(heat(), accuracy=1e-9, unfinished=tmp_path / "tasks")
    assert again.record.figures["interrupted"] == 0
    assert again.record.accuracy.floor <= 1e-9
    assert not (tmp_path / "tasks").exists()


def test_a_kept_task_is_that_which_was_solved(tmp_path):
    solution = Trajectory(
        (Slab(1, 0, torch.rand(1, 3, 4).double(), 0.1), Slab(1, 1, torch.rand(1, 3, 5).double(), 0.2))
    )
    kept, unknowns = Kept(tmp_path / "tasks"), np.array([0.1, 2.0])
    assert kept.read(unknowns, "heat") is None
    kept.write(solution, unknowns, "heat")
    found = kept.read(unknowns, "heat")
    assert [(s.level, s.number, s.tail) for s in found.slabs] == [(1, 0, 0.1), (1, 1, 0.2)]
    assert all(
        torch.equal(own.readouts, other.readouts) for own, other in zip(found.slabs, solution.slabs, strict=True)
    )
    assert kept.read(unknowns, "wave") is None
    for path in (tmp_path / "tasks").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert kept.read(unknowns, "heat") is None
