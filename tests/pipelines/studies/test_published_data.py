"""The table of the published data's own errors."""

import pandas as pd
import pytest
from stages import study

from pipelines.report import outputs
from pipelines.studies import published_data
from pipelines.studies.published_data import PublishedData


class Silent:
    """A tracker that keeps the metrics."""

    def __init__(self):
        self.values = []

    def metrics(self, values, step=0):
        self.values += values.values()

    def artefact(self, path, folder=""):
        self.path = path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    chosen = study(PublishedData, "published_data", "queries=20")
    fewer = chosen.benchmarks["quantum_oscillator"].with_observations(number=500)
    chosen = chosen.model_copy(update={"benchmarks": {**chosen.benchmarks, "quantum_oscillator": fewer}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "REPORTS", tmp_path_factory.mktemp("reports"))
        tracker = Silent()
        published_data.work(chosen, tracker)
    written = pd.read_csv(tracker.path)
    assert tracker.values == pytest.approx(written["mean_abs_error"].tolist(), rel=1e-5)
    return written


def test_has_a_row_for_each_field_and_term_of_each_case(table):
    rows = table.groupby(["problem", "range"])["quantity"].agg(list).to_dict()
    assert rows == {
        ("damped_oscillator", "in range"): ["u"],
        ("lotka_volterra_unknown_terms", "in range"): ["x", "y", "f", "g"],
        ("lotka_volterra_unknown_terms", "out of range"): ["x", "y", "f", "g"],
        ("quantum_oscillator", "k = the thirds between 0 and 5"): ["re", "im"],
        ("quantum_oscillator", "k = 8/3"): ["re", "im"],
    }


def test_errors_have_the_size_known_of_the_published_data(table):
    """Means of 20 queries against the known mean of many, hence a factor 2."""
    mean = table.groupby(["problem", "range"])["mean_abs_error"]
    of_fields = mean.apply(lambda errors: errors.head(2).mean())
    assert 0.003 < of_fields["lotka_volterra_unknown_terms", "in range"] < 0.012
    assert 0.005 < of_fields["lotka_volterra_unknown_terms", "out of range"] < 0.02
    assert 0.001 < of_fields["quantum_oscillator", "k = 8/3"] < 0.005
    assert (table["max_abs_error"] > 3 * table["mean_abs_error"]).all()
