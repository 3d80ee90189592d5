"""What tests of stages share."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from pipelines.common import settings_of

CONF = Path(__file__).parents[1] / "conf"


class Recorder:
    """A tracker that keeps what it is given."""

    def __init__(self):
        self.figures, self.paths = {}, []

    def parameters(self, values):
        pass

    def history(self, rows, prefix=""):
        pass

    def metrics(self, values, step=0):
        self.figures |= values

    def artefact(self, path, folder=""):
        self.paths.append(path)


def settings(name, *overrides):
    """The configuration of an entry."""
    with initialize_config_dir(str(CONF), version_base=None):
        return settings_of(compose(name, list(overrides)))
