"""What tests of stages share."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from pipelines.configuration import parsed

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


def benchmark(problem, *overrides, conf=CONF):
    """The benchmark of a problem."""
    with initialize_config_dir(str(conf), version_base=None):
        return parsed(compose("config", [f"problem={problem}", *overrides]))


def study(kind, name, *overrides):
    """The settings of a study, `kind` their type, from the entry of this name."""
    with initialize_config_dir(str(CONF), version_base=None):
        return kind.parsed(compose(name, list(overrides)))
