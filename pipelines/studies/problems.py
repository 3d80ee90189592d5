"""What the studies of problems that come along share: they span many problems, which need no benchmarks."""

from collections.abc import Iterable, Mapping
from typing import Self

from omegaconf import DictConfig, OmegaConf
from pydantic import PositiveFloat, PositiveInt, model_validator

from ipbasis.problem.declaration import Declared, Problem
from pipelines.configuration import settings_of

STATUSES = ("ok", "not_identifiable", "out_of_range", "poor_fit", "poor_basis", "failed")


class ProblemsStudy(Declared):
    """Settings of a study of problems that are trained by their equations alone.

    Args:
        seed: of all that is drawn.
        profile: its name.
        threads: problems that are done side by side.
        problems: by name.
        chosen: of them; None for all.
        accuracy: relative error of unseen solutions that a training is asked for.
        minutes: that it may take.
    """

    seed: int
    profile: str
    threads: PositiveInt
    problems: dict[str, Problem]
    chosen: list[str] | None
    accuracy: PositiveFloat
    minutes: PositiveFloat

    @property
    def named(self) -> Mapping[str, Iterable[str]]:
        """By the key of the settings, the problems that it names."""
        return {"chosen": self.chosen or []}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind, names in self.named.items():
            for name in names:
                if name not in self.problems:
                    raise ValueError(f"{kind}: there is no problem {name!r}; there are {', '.join(self.problems)}")
        return self

    @classmethod
    def parsed(cls, config: DictConfig) -> Self:
        """What Hydra composed from the study's own file."""
        values = settings_of(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))
        return cls(**{**values, "profile": values["profile"]["name"]})

    @property
    def ordered(self) -> list[str]:
        """The problems that are done, what takes long first, so that no core is left with it alone."""
        size = {name: (len(problem.coordinates), len(problem.fields)) for name, problem in self.problems.items()}
        return sorted(self.chosen or self.problems, key=size.get, reverse=True)
