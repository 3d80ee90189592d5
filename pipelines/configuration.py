"""From what Hydra composes to a benchmark."""

from collections.abc import Mapping
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ipbasis.errors import InputError
from pipelines.benchmark import Benchmark

Parsed = TypeVar("Parsed", bound=Benchmark)


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, interpolations resolved."""
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"configuration: {' '.join(str(error).split())}") from None


def with_budget(config: DictConfig) -> DictConfig:
    """The configuration with its budget.

    That of the benchmark (``standard``), replaced by what the profile gives any benchmark, then by its exceptions for
    this one, then by what ``budget`` says on the command line.
    """
    chosen = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    OmegaConf.set_struct(chosen, False)
    own, exceptions = chosen.get("standard", {}), chosen.profile.exceptions.get(chosen.problem.name, {})
    chosen.budget = OmegaConf.merge(own, chosen.profile.budget, exceptions, chosen.budget)
    return chosen


def parsed(config: DictConfig, kind: type[Parsed] = Benchmark) -> Parsed:
    """What Hydra composed from ``conf/config.yaml``, as a benchmark.

    Args:
        config: as it was composed.
        kind: `Benchmark`, or one with the further fields of a study.

    Raises:
        InputError: in one line, where it is wrong and what would be right.
    """
    values = settings_of(with_budget(config))
    values["profile"] = values["profile"]["name"]
    for key in {"standard", "study"} - set(kind.model_fields):
        values.pop(key, None)
    return kind(**values)


def composed(**changes: object) -> Benchmark:
    """The benchmark of the running job's configuration, with other values of some overrides.

    Args:
        changes: by key, such as ``problem`` and ``recipe``.
    """
    overrides = [o for o in HydraConfig.get().overrides.task if o.split("=")[0] not in changes]
    return parsed(hydra.compose("config", [*overrides, *_overrides(changes)]))


def benchmark_of(problem: str, **changes: object) -> Benchmark:
    """The benchmark of a problem as configured, whatever job is running; ``profile`` and the like by keyword."""
    return parsed(hydra.compose("config", _overrides({"problem": problem, **changes})))


def _overrides(changes: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in changes.items()]
