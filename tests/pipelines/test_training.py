"""What a training of the pipeline is asked to do, and what it sends on."""

import pytest
from stages import benchmark

from ipbasis.estimates.validation import GaussNewtonValidator
from pipelines import training


class Sent:
    def __init__(self):
        self.calls = []

    def history(self, rows, prefix=""):
        self.calls.append([prefix, *[row["step"] for row in rows]])


@pytest.mark.parametrize("seconds", [0, 1e9])
def test_every_row_is_sent_once(seconds):
    tracker = Sent()
    history = training.History(tracker, "ipbasis_", seconds)
    for step in range(3):
        history({"step": step})
    history.send()
    assert [row["step"] for row in history.rows] == [0, 1, 2]
    assert [step for _, *steps in tracker.calls for step in steps] == [0, 1, 2]
    assert len(tracker.calls) == (4 if seconds == 0 else 1)
    assert {prefix for prefix, *_ in tracker.calls} == {"ipbasis_"}


@pytest.mark.parametrize("observations", [None, 30])
def test_settings_choose_the_validator(basis, monkeypatch, observations):
    """Observations ask for estimates of the parameters; without them the training scores the forward problem."""
    asked = {}
    monkeypatch.setattr(training, "one_thread", lambda: None)
    monkeypatch.setattr(training, "train_trunk_basis", lambda problem, chosen, **given: asked.update(given) or basis)
    given = f"recipes.ipbasis.offline.validation.observations={observations or 'null'}"
    chosen = benchmark("damped_oscillator", "profile=smoke", "basis.readouts=3", given)
    made, _ = training.train_basis(chosen, None, Sent())
    assert isinstance(asked["validator"], type(None) if observations is None else GaussNewtonValidator)
    assert made.record.provenance == {"source": "ipbasis", "profile": "smoke", "readouts": "3"}
