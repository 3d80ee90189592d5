"""What the settings of the studies of several problems share."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf
from pydantic import Field, PositiveInt

from ipbasis.problem.declaration import Declared
from pipelines.benchmark import Benchmark, QuerySet
from pipelines.configuration import benchmark_of, settings_of


class StudyCell(Declared):
    """How the queries of a problem are observed: noise in % of the largest value, and number of observations."""

    noise: int | float
    number: PositiveInt


class Study(Declared):
    """Settings of a study.

    Args:
        seed: of what the study draws.
        profile: its name.
        benchmarks: of the problems whose queries it takes.
    """

    seed: int
    profile: str
    benchmarks: dict[str, Benchmark] = Field({}, exclude=True)

    @property
    def name(self) -> str:
        """In the place of a problem's."""
        return "all"

    @classmethod
    def parsed(cls, config: DictConfig) -> Self:
        """What Hydra composed from the study's own file, with the benchmarks of its problems."""
        values = settings_of(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))
        profile, seed = values["profile"]["name"], values["seed"]
        benchmarks = {name: benchmark_of(name, profile=profile, seed=seed) for name in cls.problems_in(values)}
        return cls(**{**values, "profile": profile, "benchmarks": benchmarks})

    @classmethod
    def problems_in(cls, values: Mapping[str, Any]) -> Iterable[str]:
        """The problems whose benchmarks a study needs."""
        return ()


class QueryStudy(Study):
    """Settings of a study that draws queries of its own.

    Args:
        drawn: by problem, what its queries are drawn from.
        threads: of PyTorch.
    """

    drawn: dict[str, QuerySet]
    threads: PositiveInt

    @classmethod
    def problems_in(cls, values: Mapping[str, Any]) -> Iterable[str]:
        return values["drawn"]
