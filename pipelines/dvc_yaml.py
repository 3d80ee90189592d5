"""How dvc.yaml is written: dependencies and outputs into the sections of its stages, all other lines as they are."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping

import yaml

CODE = ("pipelines/", "src/")
# What stages that do several problems in one start of Python leave of each: of `every` one, or of those `trained`
OUTS = {
    "simulate": ("every", ["data/observations/{}/sets"]),
    "least_squares": ("every", ["data/estimates/{}/least_squares"]),
    "offline": ("trained", ["reports/tables/{}_offline.csv", "reports/figures/{}_training.png"]),
}

# code that a stage needs, and the keys that it reads of each configuration file
Needed = tuple[list[str], dict[str, list[str]]]


def _flow(name: str, values: Iterable[str], brackets: str, indent: str) -> str:
    """A list or a mapping in YAML's flow style, behind its name."""
    quoted = [re.sub(r"([^\s:\[]*\$\{[^:,\]]*)", r'"\1"', value) for value in values]
    text = f"{name} {brackets[0]}{', '.join(quoted)}{brackets[1]}"
    return textwrap.fill(
        text,
        130,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _groups(keys: Mapping[str, list[str]]) -> list[dict[str, list[str]]]:
    """What several problems have in one directory, of the files of a stage."""
    directories: dict[str, dict[str, list[str]]] = {}
    for path, inside in keys.items():
        directories.setdefault(path.rpartition("/")[0], {})[path] = inside
    return [part for directory, part in directories.items() if directory != "conf" and len(part) > 1]


def _apart(keys: Mapping[str, list[str]]) -> list[dict[str, list[str]]]:
    """Files of a stage so that no two templates of one mapping can mean the same file: DVC would take one of them."""
    first, further, directories = {}, [], set()
    for path, inside in keys.items():
        directory = path.rpartition("/")[0]
        if "${" in path and directory in directories:
            further.append({path: inside})
            continue
        first[path] = inside
        directories |= {directory} if "${" in path else set()
    return [*([first] if first else []), *further]


class _Writer:
    """Writes the sections of the stages; what several of them name stands in the first one, others refer to it."""

    def __init__(self, every: Iterable[Mapping[str, list[str]]]):
        counted = Counter(str(group) for keys in every for group in _groups(keys))
        self._shared = {text for text, count in counted.items() if count > 1}
        self._names: dict[str, str] = {}

    def sections(self, data: list[str], needed: list[str], keys: Mapping[str, list[str]], indent: str) -> list[str]:
        """``deps`` and ``params`` of a stage: files with the keys that are read of each, all of a file without keys."""
        shared = [group for group in _groups(keys) if str(group) in self._shared]
        own = {path: inside for path, inside in keys.items() if not any(path in group for group in shared)}
        lines = [_flow("deps:", [*data, *needed], "[]", indent), f"{indent}params:"]
        for group in [*_apart(own), *shared]:
            name, known = "-", self._names.get(str(group))
            if group in shared and not known:
                directory = next(iter(group)).split("/")[-2]
                self._names[str(group)] = f"{directory}_{len(self._names) + 1}"
                name = f"- &{self._names[str(group)]}"
            written = (f"{path}: [{', '.join(inside)}]" for path, inside in group.items())
            lines.append(f"{indent}  - *{known}" if known else _flow(name, written, "{}", f"{indent}  "))
        return lines


def _outs(name: str, problems: Mapping[str, list[str]], indent: str) -> str:
    """``outs`` of a stage of the table `OUTS`; reports are in git."""
    axis, templates = OUTS[name]
    paths = [path.format(problem) for problem in problems[axis] for path in templates]
    uncached = "{{{}: {{cache: false}}}}"
    return _flow(
        "outs:", [uncached.format(path) if path.startswith("reports") else path for path in paths], "[]", indent
    )


def with_sections(text: str, found: Mapping[str, Needed], problems: Mapping[str, list[str]]) -> str:
    """The text of dvc.yaml with other dependencies and outputs.

    Args:
        text: as it is.
        found: what each stage needs, by name.
        problems: of stages that do several, by axis.
    """
    stages, lines = yaml.safe_load(text)["stages"], text.splitlines()
    writer = _Writer(keys for _, keys in found.values())
    for name, stage in stages.items():
        inner, indent = (stage["do"], " " * 6) if "foreach" in stage else (stage, " " * 4)
        start = lines.index(f"  {name}:")
        end = next((n for n in range(start + 1, len(lines)) if re.match(r" {0,2}\S", lines[n])), len(lines))
        kept, section = [], ""
        for line in lines[start:end]:
            if match := re.match(rf"{indent}(\w+):", line):
                section = match[1]
                if section == "outs":
                    data = [path for path in inner.get("deps", []) if not path.startswith((*CODE, "conf/"))]
                    kept += writer.sections(data, *found[name], indent)
                    kept += [_outs(name, problems, indent)] if name in OUTS else []
            written = section in ("deps", "params") or (section == "outs" and name in OUTS)
            if not (written and line.strip()):
                kept.append(line)
        lines[start:end] = kept
    return "\n".join(lines) + "\n"
