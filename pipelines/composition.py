"""Which files Hydra composes for a command, and in which of them the values stand that the command reads."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

WHOLE = ""  # in place of a key: all of a file
_INNERMOST = re.compile(r"\$\{([^${}]+)\}")
_NO_VALUES = ("defaults", "hydra")  # at the top of a file: how it is composed and run


@dataclass(frozen=True)
class Source:
    """A file of a composition.

    Args:
        path: from the root of the repository.
        place: key below which its values stand; empty at the top.
        values: what stands in it.
    """

    path: str
    place: str
    values: Mapping[str, Any]

    def key_in_file(self, key: str) -> str | None:
        """A key of the configuration as this file has it: `WHOLE` if it holds the file, None if it is not here."""
        if not self.place or below(key, self.place):
            inner = key.removeprefix(self.place).removeprefix(".")
        else:
            return WHOLE if below(self.place, key) else None
        if inner == WHOLE:
            return WHOLE
        found, node = [], self.values
        for part in inner.split("."):
            if not isinstance(node, Mapping):  # an interpolation or a list stands for what is below it
                break
            if part not in node:
                return None
            found.append(part)
            node = node[part]
        return ".".join(found)


def below(key: str, other: str) -> bool:
    """Whether a key is another one or stands below it."""
    return other == WHOLE or key == other or key.startswith(f"{other}.")


def outermost(keys: set[str]) -> list[str]:
    """The keys that stand below no other one."""
    return sorted(key for key in keys if not any(key != other and below(key, other) for other in keys))


class Composition:
    """What Hydra composes.

    Args:
        conf: directory of the configuration.
        name: of the configuration.
        overrides: as on the command line, without sweeps.
        merged: by the first part of a key, further places where its value may come from; the code merges them.
    """

    def __init__(self, conf: Path, name: str, overrides: Sequence[str], merged: Mapping[str, Sequence[str]] = {}):
        self._merged = merged
        with initialize_config_dir(str(conf), version_base=None):
            self._config = compose(name, list(overrides))
            loader = GlobalHydra.instance().config_loader()
            listed = loader.compute_defaults_list(name, list(overrides), RunMode.RUN).defaults
        self._raw = OmegaConf.to_container(self._config, resolve=False)
        self.sources = []
        for entry in listed:
            path = conf / f"{entry.config_path}.yaml"
            if path.exists():  # otherwise one of Hydra's own, or an optional one that is absent
                content = yaml.safe_load(path.read_text()) or {}
                values = {key: value for key, value in content.items() if key not in _NO_VALUES}
                self.sources.append(Source(path.relative_to(conf.parent).as_posix(), entry.package or "", values))

    def value(self, key: str) -> Any:
        """The value of a key; None if there is none, or if it refers to what the code merges."""
        try:
            found = OmegaConf.select(self._config, key)
        except OmegaConfBaseException:
            return None
        return OmegaConf.to_container(found, resolve=False) if OmegaConf.is_config(found) else found

    def own_keys(self) -> list[str]:
        """Keys that the files without a place of their own put at the top."""
        return sorted({key for source in self.sources if not source.place for key in source.values})

    def read(self, patterns: Sequence[str]) -> dict[str, set[str]]:
        """Where the values of some keys stand, and those that they refer to.

        Args:
            patterns: keys; ``*`` for a part of one is any, ``${key}`` the value of another, which is read too.

        Returns:
            keys by the path of the file.
        """
        keys: set[str] = set()
        for pattern in patterns:
            named, resolved = self._references(pattern)
            for key in [*named, *self._expanded(resolved)]:
                self._follow(key, keys)
        found: dict[str, set[str]] = {}
        for source in self.sources:
            inside = {name for name in map(source.key_in_file, keys) if name is not None}
            if inside >= set(source.values) > set():
                inside = {WHOLE}
            if inside:
                found[source.path] = found.get(source.path, set()) | inside
        return {path: set(outermost(inside)) for path, inside in found.items()}

    def _expanded(self, pattern: str) -> Iterator[str]:
        """The keys that a pattern with ``*`` is for."""
        head, star, tail = pattern.partition("*")
        if not star:
            yield pattern
            return
        for name in self.value(head.strip(".")) or {}:
            yield from self._expanded(f"{head}{name}{tail}")

    def _follow(self, key: str, keys: set[str]) -> None:
        """Add a key, and those that its value refers to."""
        first, _, rest = key.partition(".")
        for place in self._merged.get(first, ()):
            named, resolved = self._references(place)
            for other in [*named, self._nearest(f"{resolved}.{rest}" if rest else resolved)]:
                self._follow(other, keys)
        parts, node = key.split("."), self._raw
        for position, part in enumerate(parts):
            if not isinstance(node, Mapping):  # the value is a part of what stands for it here
                keys.add(".".join(parts[:position]))
                *named, target = self._references(node)[0] if isinstance(node, str) else [None]
                for other in [*named, target and ".".join([target, *parts[position:]])]:
                    if other:
                        self._follow(other, keys)
                return
            if part not in node:
                return
            node = node[part]
        if key not in keys:
            keys.add(key)
            for text in _texts(node):
                for other in self._references(text)[0]:
                    self._follow(other, keys)

    def _nearest(self, key: str) -> str:
        """A key, or where there is no such one, the nearest one above it: that it is absent is read there."""
        found, node = [], self._raw
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                break
            found.append(part)
            node = node[part]
        return ".".join(found)

    def _references(self, text: str) -> tuple[list[str], str]:
        """The keys that a text refers to, from the innermost to the outermost, and the text with their values."""
        keys = []
        while match := _INNERMOST.search(text):
            if match[1].startswith("."):
                raise ValueError(f"{match[0]}: interpolations are followed from the top; name the whole key")
            resolver, *arguments = re.split("[:,]", match[1])
            keys += [key.split("[")[0] for key in arguments or [resolver]]
            text = text.replace(match[0], "" if arguments else str(self.value(match[1])))
        return keys, text


def _texts(node: Any) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping | list):
        for child in node.values() if isinstance(node, Mapping) else node:
            yield from _texts(child)
