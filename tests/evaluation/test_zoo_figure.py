"""The figure of the zoo draws what the table says."""

import numpy as np
import pandas as pd
import pytest

from ipbasis.evaluation.zoo_figure import plot_zoo

BARS = {"median": 1.05, "worst": 1.3, "coverage": 0.9}


def test_a_line_for_each_problem_even_without_estimates():
    table = pd.DataFrame(
        {
            "problem": ["first_one", "refused"],
            "queries": [100, np.nan],
            "ok": [0.75, np.nan],
            "failed": [0.25, np.nan],
            "error_over_cramer_rao": [1.5, np.nan],
            "worst_error_over_cramer_rao": [2.5, np.nan],
            "typical_error_over_cramer_rao": [1.1, np.nan],
            "coverage": [0.94, np.nan],
            "worst_coverage": [0.91, np.nan],
        }
    )
    figure = plot_zoo(table, BARS)
    errors, covered, statuses = figure.axes
    assert [label.get_text() for label in errors.get_yticklabels()] == ["first one", "refused"]
    assert [line.get_xdata()[0] for line in errors.lines[:3]] == [1.5, 2.5, 1.1]
    assert covered.lines[0].get_xdata()[0] == 94
    bars = {box.get_label(): box[0].get_width() for box in statuses.containers}
    assert bars["ok"] == pytest.approx(75)
    assert bars["failed"] == pytest.approx(25)
    figure.canvas.draw()


def test_a_table_of_refusals_alone_is_drawn():
    plot_zoo(pd.DataFrame({"problem": ["refused"], "note": ["no"]}), BARS).canvas.draw()
