"""Reading, checking, batching and simulating observations."""

import typing
import warnings

import numpy as np
import pandas as pd
import pytest

from ipbasis.errors import InputError
from ipbasis.observations.long_form import InputWarning, check_observations, read_observations
from ipbasis.observations.simulate import ObservationSettings, long_table
from ipbasis.reference.solutions import TRUTHS

GOOD = "query,t,u\na,0.1,1.0\na,0.5,\nb,0.2,2.0\n"


def write(tmp_path, text):
    path = tmp_path / "observations.csv"
    path.write_text(text)
    return path


def test_reads_csv_with_empty_cells(tmp_path, oscillator):
    found = read_observations(write(tmp_path, GOOD), oscillator)
    assert list(found.queries) == ["a", "b"]
    assert found.table["u"].isna().tolist() == [False, True, False]


def test_csv_and_parquet_agree(tmp_path, oscillator):
    one = read_observations(write(tmp_path, GOOD), oscillator).table
    pd.read_csv(tmp_path / "observations.csv").to_parquet(tmp_path / "o.parquet")
    other = read_observations(tmp_path / "o.parquet", oscillator).table
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("query,t\na,0.1\n", "column 'u' is missing; there are query, t"),
        ("t,u\n0.1,1\n", "column 'query' is missing; there are t, u"),
        ("query,u\na,1\n", "column 't' is missing"),
        ("query,t,u\n", "no rows"),
        ("", "cannot be read"),
        ("query,t,u\na,0.1,1\na,zero,1\n", r"row 3, column 't' \(query a\): 'zero' is not a number"),
        ("query,t,u\na,0.1,1\nb,0.2,1.0.0\n", r"row 3, column 'u' \(query b\): '1.0.0' is not a number"),
        ("query,t,u\na,,1\n", "row 2, column 't'.*finite number"),
        ("query,t,u\n,0.1,1\n", "row 2, column 'query': empty"),
        ("query,t,u,u_std\na,0.1,1,0\n", "row 2, column 'u_std'.*above zero"),
        ("query,t,u,u_std\na,0.1,1,\n", "row 2, column 'u_std'.*above zero"),
        ("query,t,u\na,0.1,1\n\n\na,0.2,high\n", r"row 5, column 'u' \(query a\): 'high'"),
        ("query,t,u,u\na,0.1,9,1\n", "column 'u' stands there twice"),
        ('query,t,u\na,"0,1",1\n', r"row 2, column 't' \(query a\): '0,1' is not a number; 0.1 is right"),
        ("query,t,u\na,0.1,1,\na,low,1,\n", r"row 3, column 't' \(query a\): 'low'"),
    ],
)
def test_faults_name_file_row_and_column(tmp_path, oscillator, text, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read_observations(write(tmp_path, text), oscillator)
    assert "observations.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


UNUSABLE = {
    "b,0.2,\n": "no observation in u",
    "b,3.5,1\nb,0.2,1\nb,4,1\n": "row 4, column 't': 3.5 is outside the basis domain [0, 3]",
    "b,0.2,1,0.5\nb,0.3,1,0.5\nb,0.4,1,0.6\n": "row 6, column 'a1': a second value; one per query is right",
    "b,0.2,1,\nb,0.3,1,0.6\n": "row 5, column 'a1': a second value; one per query is right",
}


@pytest.mark.parametrize(("rows", "reason"), UNUSABLE.items())
def test_unusable_queries_are_set_aside_with_a_reason(tmp_path, oscillator, rows, reason):
    path = write(tmp_path, f"query,t,u,a1\na,0.1,1,0.7\na,0.2,1,0.7\n{rows}c,0.3,1,\na,0.3,2,0.7\n")
    found = read_observations(path, oscillator)
    assert found.unusable == {"b": reason}
    assert list(found.queries) == ["a", "b", "c"]
    assert found.usable.tolist() == [True, False, True]
    (batch,) = found.batches(10)
    assert batch.queries.tolist() == ["a", "c"]
    assert batch.values[..., 0].tolist() == [[1, 1, 2], [1, 0, 0]]
    assert batch.known[0, 0] == 0.7
    assert np.isnan(batch.known[1, 0])


def test_a_query_with_nothing_but_nan_is_set_aside(tmp_path, oscillator):
    with pytest.warns(InputWarning, match="2 values"):
        found = read_observations(write(tmp_path, "query,t,u\na,0.1,nan\na,0.2,-inf\nb,0.1,1\n"), oscillator)
    assert found.unusable == {"a": "no observation in u"}


def test_missing_file(tmp_path, oscillator):
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_observations(tmp_path / "none.csv", oscillator)


def test_damaged_parquet(tmp_path, oscillator):
    (tmp_path / "o.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        read_observations(tmp_path / "o.parquet", oscillator)


def test_nan_and_infinity_count_as_not_observed(tmp_path, oscillator):
    path = write(tmp_path, "query,t,u\na,0.1,1\na,0.2,nan\na,0.3,inf\na,0.4,-inf\na,0.5,\n")
    with pytest.warns(InputWarning, match="3 values are NaN or infinite"):
        found = read_observations(path, oscillator)
    assert found.table["u"].notna().sum() == 1


def test_other_columns_are_ignored_with_a_warning(tmp_path, oscillator):
    with pytest.warns(InputWarning, match="ignored: room, day"):
        read_observations(write(tmp_path, "query,room,t,u,day\na,1,0.1,1,2\n"), oscillator)


def test_known_parameters_are_kept(oscillator):
    table = pd.DataFrame({"query": [1, 1, 2], "t": [0.0, 1.0, 0.5], "u": [1.0, 2.0, 3.0], "a2": [0.7, 0.7, np.nan]})
    (batch,) = check_observations(table, oscillator).batches(10)
    assert batch.known[:, 1].tolist()[0] == 0.7
    assert np.isnan(batch.known[1]).all()


def test_missing_fields_count_as_not_observed(lotka_volterra):
    table = pd.DataFrame({"query": [1, 1], "t": [0.0, 1.0], "y": [1.0, 2.0]})
    (batch,) = check_observations(table, lotka_volterra).batches(10)
    assert batch.observed[0].tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_batches_hold_every_observation_once(oscillator, size):
    rng = np.random.default_rng(0)
    queries = rng.permutation(np.repeat(list("gfedcba"), [3, 1, 4, 1, 5, 9, 2]))
    table = pd.DataFrame({"query": queries, "t": rng.uniform(0, 3, 25), "u": np.arange(25.0)})
    observations = check_observations(table, oscillator)
    seen = {}
    for batch in observations.batches(size):
        assert len(batch.queries) <= size
        for i, query in enumerate(batch.queries):
            assert query not in seen
            seen[query] = sorted(
                zip(
                    batch.points[i, batch.observed[i, :, 0], 0],
                    batch.values[i, batch.observed[i, :, 0], 0],
                    strict=True,
                )
            )
    expected = {q: sorted(zip(g["t"], g["u"], strict=True)) for q, g in table.groupby("query")}
    assert seen == expected
    assert list(seen) == list(observations.queries)


def sampling(**changes):
    base = {"number": 50, "layout": "own", "noise": 5, "noise_unit": "percent", "noise_kind": "gaussian"}
    return ObservationSettings(**{**base, "truth": "exact", "seed": 0, **changes})


@pytest.mark.parametrize("layout", ["equispaced", "common", "own"])
def test_points_lie_in_the_domain(oscillator, quantum_oscillator, layout):
    for problem in (oscillator, quantum_oscillator):
        points = sampling(layout=layout, number=49).points(problem, 6)
        assert points.shape == (6 if layout == "own" else 1, 49, len(problem.coordinates))
        low, high = problem.domain.T
        assert ((points >= low) & (points <= high)).all()


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_has_the_size_it_says(kind):
    values = np.zeros((4, 20000, 2))
    values[:, 0] = [3.0, 4.0]  # modulus 5
    disturbed, std = sampling(noise_kind=kind).disturb(values)
    noise = (disturbed - values).std(axis=(1, 2))
    assert noise == pytest.approx(std, rel=0.02)
    expected = 0.25 if kind == "gaussian" else 0.25 / 3**0.5
    assert std == pytest.approx(expected)
    if kind == "uniform":
        assert np.abs(disturbed - values).max() <= 0.25


def test_absolute_noise_and_seeds():
    values = np.ones((2, 10, 1))
    one, std = sampling(noise=0.3, noise_unit="absolute").disturb(values)
    again, _ = sampling(noise=0.3, noise_unit="absolute").disturb(values)
    other, _ = sampling(noise=0.3, noise_unit="absolute", seed=1).disturb(values)
    assert (std == 0.3).all()
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_long_table_and_check_are_inverse(oscillator):
    points = sampling(layout="common", number=4).points(oscillator, 3)
    values = np.random.default_rng(0).normal(size=(3, 4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (batch,) = check_observations(long_table(oscillator, points, values), oscillator).batches(5)
    assert np.array_equal(batch.values, values)
    assert np.array_equal(batch.points, np.broadcast_to(points, (3, 4, 1)))


def test_settings_are_checked():
    with pytest.raises(InputError, match="noise"):
        sampling(noise=-1)
    with pytest.raises(InputError, match="layout"):
        sampling(layout="random")
    with pytest.raises(InputError, match=r"truth.*'exact' or 'published_tolerance'"):
        sampling(truth="approximate")


def test_every_truth_can_be_simulated():
    assert set(typing.get_args(ObservationSettings.model_fields["truth"].annotation)) == set(TRUTHS)


def test_a_batch_of_some_queries(oscillator):
    table = pd.DataFrame({"query": ["a", "a", "b", "c"], "t": [0.1, 0.2, 0.3, 0.4], "u": [1.0, 2.0, 3.0, 4.0]})
    (batch,) = check_observations(table.assign(a1=[7, 7, 8, 9]), oscillator).batches(10)
    part = batch.select(np.array([2, 0]))
    assert part.queries.tolist() == ["c", "a"]
    assert part.values[:, :, 0].tolist() == [[4.0, 0.0], [1.0, 2.0]]
    assert part.known[:, 0].tolist() == [9, 7]
    assert part.std is None


def test_ids_that_are_lists_are_refused(oscillator):
    table = pd.DataFrame({"query": [[1], [2]], "t": [0.1, 0.2], "u": [1.0, 2.0]})
    with pytest.raises(InputError, match="column 'query': ids that are no texts and no numbers"):
        check_observations(table, oscillator)
