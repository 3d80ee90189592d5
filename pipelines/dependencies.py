"""What each stage of dvc.yaml depends on: rooms by the imports of its entry, configuration by what Hydra composes.

    python -m pipelines.dependencies --write    # after a new import, a new file in conf/, a new stage
    python -m pipelines.dependencies            # exit 1 and the difference where dvc.yaml says something else

Commands, outputs and the data that stages hand to one another are written by hand, but for the outputs of stages that
do all problems (`pipelines.dvc_yaml.OUTS`); and which values a stage reads, in the table `READS`. Values that are read
through an interpolation (budgets of the profile) are found. What is composed but not read, as the baselines in a
training, is no dependency.
"""

import ast
import difflib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipelines.composition import WHOLE, Composition, below, outermost
from pipelines.dvc_yaml import with_sections
from pipelines.paths import ROOT

# no result depends on what hands it on, nor on the error by which a stage ends without one
_NO_RESULT = {"ipbasis.tracking", "ipbasis.errors"}
# what the code merges, see `pipelines.configuration.with_budget`
_MERGED = {"budget": ("standard", "profile.budget", "profile.exceptions.${problem.name}")}
_POINTS = ("number", "layout", "seed", "truth")
_QUERIED = ("source", "queries", "noise_seeds", "together", "online")


@dataclass(frozen=True)
class Reads:
    """What a stage reads of its configuration.

    Args:
        keys: see `Composition.read`.
        own: whether all that stands in the files of its entry is read.
        benchmarks: the key that names the benchmarks which a study composes besides.
        of_benchmarks: keys of those.
    """

    keys: tuple[str, ...] = ()
    own: bool = False
    benchmarks: str = ""
    of_benchmarks: tuple[str, ...] = ()


def _study(benchmarks: str, *further: str) -> Reads:
    keys = (*_keys("observations", "known", "layout", "noise_kind", "noise_unit", "seed", "truth"), *further)
    return Reads(own=True, benchmarks=benchmarks, of_benchmarks=("problem", *keys))


def _keys(above: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{above}.{name}" for name in names)


# every stage reads the seed, see `pipelines.common.run_stage`
READS = {
    "simulate": Reads(("problem", *_keys("observations", *_POINTS, "sets"), "budget.queries")),
    "train": Reads(("problem", "basis", "recipes.*.source", "recipes.*.offline", "observations.training_label")),
    "offline": Reads(("problem.name",)),
    "query": Reads(
        (
            *("problem", "basis.problem", "observations", "threads"),
            *_keys("recipes.*", *_QUERIED),
            *_keys("budget", "queries", "paper_queries", "crossed_queries"),
        )
    ),
    "pinn": Reads(("problem", "baselines.pinn", "observations")),
    "least_squares": Reads(("problem", "baselines.least_squares", "observations")),
    "compare": Reads(
        (
            *("problem", "basis.problem", "observations", "report", "profile.name"),
            *_keys("recipes.*", "source", "queries", "online.solver"),
            *_keys("budget", "queries", "paper_queries", "offline.steps", "online.steps"),
        )
    ),
    "derivatives": Reads(("problems",), own=True),
    "zoo": Reads(("problems",), own=True),
    "calibration": Reads(("problems",), own=True),
    "published_data": _study("cases", *_keys("observations", "number", "sets")),
    "accuracy_limit": _study("drawn"),
    "convergence_basin": _study("drawn"),
    "throughput": _study("drawn"),
    "basis_quality": _study("drawn"),
}

Key = tuple[str, str]  # path of a configuration file, and key in it


@dataclass(frozen=True)
class Item:
    """A stage, or one of those that a ``foreach`` stands for.

    Args:
        name: of the stage.
        command: with all values in place.
        values: that templates may refer to, by their names there.
    """

    name: str
    command: str
    values: Mapping[str, str]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """The single values in a value of params.yaml, by their names in templates."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _flat(child, f"{name}.{key}" if name else key)
    elif not isinstance(value, list):
        yield name, str(value)


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template of dvc.yaml with values in place."""
    return re.sub(r"\$\{([^}]*)\}", lambda match: values[match[1]], template)


def items(name: str, stage: Mapping, parameters: Mapping) -> list[Item]:
    """What a stage of dvc.yaml stands for, with the values of params.yaml."""
    shared = {key: str(value) for key, value in parameters.items() if not isinstance(value, Mapping | list)}
    if "foreach" not in stage:
        return [Item(name, filled(stage["cmd"], shared), shared)]
    found = []
    for key, value in parameters[stage["foreach"].strip("${}")].items():
        values = {"key": key, **dict(_flat(value, "item")), **shared}
        found.append(Item(f"{name}@{key}", filled(stage["do"]["cmd"], values), values))
    return found


@cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("ipbasis", "pipelines", exclude_type_checking_imports=True, cache_dir=None)


def _path(module: str) -> str:
    """Where a module stands: itself, or the room of the package that it is in."""
    parts = module.split(".")
    if parts[0] == "ipbasis":
        place = Path("src", *parts[:2])
        return place.as_posix() if (ROOT / place).is_dir() and len(parts) > 1 else f"{place}.py"
    place = Path(*parts)
    return f"{place}/__init__.py" if (ROOT / place).is_dir() else f"{place}.py"


def code(module: str) -> list[str]:
    """The rooms and the modules of the pipeline that a module imports from, with what those import."""
    found = {module, *_imports().find_upstream_modules(module)} - _NO_RESULT
    return sorted({"src/ipbasis/__init__.py" if name == "ipbasis" else _path(name) for name in found})


def _config_name(module: str) -> str:
    """Name of the configuration that an entry hands to Hydra."""
    for node in ast.walk(ast.parse((ROOT / _path(module)).read_text())):
        if isinstance(node, ast.keyword) and node.arg == "config_name":
            return ast.literal_eval(node.value)
    raise ValueError(f"{module}: no config_name")


def _jobs(overrides: list[str]) -> list[list[str]]:
    """The choices of files in each job of a sweep; other values change nothing of what is composed."""
    swept = []
    for one in OverridesParser.create().parse_overrides(overrides):
        if (ROOT / "conf" / one.key_or_group).is_dir():
            values = one.sweep_string_iterator() if one.is_sweep_override() else [one.value()]
            swept.append([f"{one.get_key_element()}={value}" for value in values])
    return [list(job) for job in itertools.product(*swept)]


def compositions(command: str, reads: Reads) -> list[tuple[Composition, tuple[str, ...]]]:
    """All that a command composes, job by job, with the keys that are read of it."""
    _, _, module, *arguments = shlex.split(command)
    name = _config_name(module)
    found = []
    for job in _jobs([text for text in arguments if not text.startswith("--")]):
        entry = _composition(name, tuple(job))
        found.append((entry, (*reads.keys, *(entry.own_keys() if reads.own else []))))
        named = entry.value(reads.benchmarks) if reads.benchmarks else []
        for benchmark in sorted({one["problem"] if isinstance(one, Mapping) else one for one in named}):
            found.append((_composition("config", (*job, f"problem={benchmark}")), reads.of_benchmarks))
    return found


@cache
def _composition(name: str, overrides: tuple[str, ...]) -> Composition:
    return Composition(ROOT / "conf", name, overrides, _MERGED)


def configuration(item: Item) -> set[Key]:
    """The configuration files that a stage composes, each with the keys that it reads."""
    found: dict[str, set[str]] = {}
    for one, keys in compositions(item.command, READS[item.name.split("@")[0]]):
        for path, inside in one.read(["seed", *keys]).items():
            found[path] = found.get(path, set()) | inside
    return {(path, key) for path, keys in found.items() for key in outermost(keys)}


def _templates(text: str, values: Mapping[str, str], fixed: bool = True) -> list[str]:
    """All ways to write a path or a key with the values of an item, by preference; with its own text as the last.

    Args:
        text: the path or key.
        values: by their names in templates.
        fixed: whether a part that is one of the values may stand as it is.
    """
    options = []
    for part in re.split(r"([/.])", text):
        names = [f"${{{name}}}" for name, value in values.items() if value == part]
        options.append([*names, part] if fixed or not names else names)
    return ["".join(chosen) for chosen in itertools.product(*options)]


def generalised(keys: Mapping[str, set[Key]], every: list[Item]) -> list[Key]:
    """Templates that give the keys of each item, and no file that an item does not compose.

    A key that only some items have is widened to the nearest one above it that all have.

    Raises:
        ValueError: if an item composes a file for which there is no template.
    """
    found: set[Key] = set()

    def holds(path: str, key: str) -> bool:
        """Whether each item composes the file, and the file has the key."""
        return all(
            any(p == filled(path, item.values) for p, _ in keys[item.name])
            and _has(filled(path, item.values), filled(key, item.values))
            for item in every
        )

    for item in every:
        own = {name: value for name, value in item.values.items() if name.split(".")[0] in ("key", "item")}
        for path, key in sorted(keys[item.name]):
            if any(filled(p, item.values) == path and below(key, filled(k, item.values)) for p, k in found):
                continue
            wider = [".".join(key.split(".")[:count]) for count in range(key.count(".") + 1, 0, -1)] if key else []
            candidates = (
                (p, k)
                for wide in [*wider, WHOLE]
                for p in _templates(path, item.values)
                for k in _templates(wide, own, fixed=False)
            )
            chosen = next((pair for pair in candidates if holds(*pair)), None)
            if chosen is None:
                raise ValueError(f"{item.name} composes {path}: no template of its foreach gives it; see params.yaml")
            found.add(chosen)
    return sorted((p, k) for p, k in found if not any(p == q and k != o and below(k, o) for q, o in found))


@cache
def _content(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def _has(path: str, key: str) -> bool:
    """Whether a file has a key."""
    node = _content(path)
    for part in key.split(".") if key else []:
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def derived(name: str, stage: Mapping, parameters: Mapping) -> tuple[list[str], dict[str, list[str]]]:
    """Code and configuration that a stage of dvc.yaml depends on, as templates; no keys where all of a file is read."""
    every = items(name, stage, parameters)
    needed = code(shlex.split(every[0].command)[2])
    keys: dict[str, list[str]] = {}
    for path, key in generalised({item.name: configuration(item) for item in every}, every):
        keys.setdefault(path, []).extend([key] if key else [])
    return needed, dict(sorted(keys.items(), key=lambda pair: (pair[0].count("/"), pair[0])))


def axes(parameters: Mapping) -> dict[str, list[str]]:
    """The problems of stages that do several in one start of Python."""
    problems = parameters["problems"]
    return {"every": list(problems), "trained": [name for name in problems if problems[name]["basis"] == name]}


def rewritten(text: str, parameters: Mapping) -> str:
    """The text of dvc.yaml with dependencies of each stage, and outputs of each problem, as they are derived."""
    stages = yaml.safe_load(text)["stages"]
    found = {name: derived(name, stage, parameters) for name, stage in stages.items()}
    return with_sections(text, found, axes(parameters))


def with_axes(text: str) -> str:
    """The text of params.yaml with its axes as they follow from its problems, and as a sweep of Hydra takes them."""
    for axis, problems in axes(yaml.safe_load(text)).items():
        text = re.sub(rf"(?m)^{axis}:.*$", f"{axis}: {','.join(problems)}", text)
    return text


def _make_directories(parameters: Mapping) -> None:
    """DVC wants the directories above outputs to exist in a fresh clone."""
    every, trained = axes(parameters).values()
    directories = [Path("data", kind, name) for kind in ("observations", "estimates") for name in every]
    for directory in [*directories, *(Path("data", "training", name) for name in trained)]:
        (ROOT / directory).mkdir(parents=True, exist_ok=True)
        (ROOT / directory / ".gitkeep").touch()


def main(arguments: list[str]) -> int:
    files = {name: (ROOT / name).read_text() for name in ("params.yaml", "dvc.yaml")}
    params = with_axes(files["params.yaml"])
    parameters = yaml.safe_load(params)
    new = {"params.yaml": params, "dvc.yaml": rewritten(files["dvc.yaml"], parameters)}
    if "--write" in arguments:
        _make_directories(parameters)
        for name, text in new.items():
            (ROOT / name).write_text(text)
        return 0
    for name, text in new.items():
        lines = files[name].splitlines(True), text.splitlines(True)
        sys.stdout.writelines(difflib.unified_diff(*lines, name, "derived"))
    return int(new != files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
