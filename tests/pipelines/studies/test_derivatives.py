"""The stage of the derivative benchmark, at its published sizes and tiny."""

import pandas as pd
from stages import Recorder, study

from ipbasis.baselines.derivatives import METHODS, PASSES, PRODUCTS
from pipelines.studies import derivatives
from pipelines.studies.derivatives import Derivatives


def test_sizes_are_the_published_ones_and_then_a_sweep():
    everything = study(Derivatives, "derivatives", "++profile.derivatives={repeats: 1, points: 10000}")
    found, methods = {}, {}
    for problem, size, timed in derivatives.cases(everything):
        key = (problem.name, len(problem.coordinates), size.features, size.points)
        found[key], methods[key] = size, timed
    lotka_volterra = found["lotka_volterra", 1, 64, 1000]
    assert (lotka_volterra.depth, lotka_volterra.readouts) == (4, 100)
    assert ("damped_oscillator", 1, 40, 30) in found
    assert found["quantum_oscillator", 2, 100, 5000].depth == 5
    without_reverse = [key for key, timed in methods.items() if "reverse_loop" not in timed]
    assert without_reverse == [("quantum_oscillator", 2, 100, 5000)]
    assert set(methods["quantum_oscillator", 2, 100, 500]) == set(METHODS)
    sweep = {key[1:3] for key in found if key[0] == "laplacian"}
    assert sweep == {(coordinates, features) for coordinates in (1, 2, 3, 4) for features in (1, 8, 64)}


def test_writes_table_and_figure(place):
    sweep = ["laplacian.features=[1,2]", "laplacian.coordinates=[1,2]"]
    tiny = study(Derivatives, "derivatives", "++profile.derivatives={repeats: 1, points: 3}", *sweep)
    tracker = Recorder()
    derivatives.work(tiny, tracker)
    table = pd.read_csv(place / "tables" / "derivatives.csv")
    assert list(table)[:7] == ["problem", "coordinates", "features", "points", "method", "pass", "seconds"]
    cells = table.groupby(["problem", "coordinates", "features"], sort=False)
    assert len(cells) == 3 + 4
    for _, rows in cells:
        assert set(zip(rows["method"], rows["pass"], strict=True)) == {
            (m, p) for m in (*METHODS, PRODUCTS) for p in PASSES
        }
    assert (table["points"] == 3).all()
    assert (table["seconds"] > 0).all()
    assert (place / "figures" / "derivatives.png").stat().st_size > 10_000
    assert tracker.paths == [place / "tables" / "derivatives.csv", place / "figures" / "derivatives.png"]
    assert tracker.figures["lotka_volterra_3_reverse_loop_seconds"] > 0
