"""Settings read from a file: frozen, checked, the first fault told in one line."""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ipbasis.errors import InputError


class _DeclaredError(InputError):
    """A fault of settings, and what it is without their name in front."""

    def __init__(self, model: type[BaseModel], fault: str):
        super().__init__(f"{model.__name__}: {fault}")
        self.fault = fault


class Declared(BaseModel):
    """Settings read from a file: frozen, no unknown keys, the first fault told in one line.

    The examples of a field (``Field(examples=[...])``) are told where it is missing or of the wrong type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _DeclaredError(type(self), _told(type(self), error.errors()[0])) from None


def _told(model: type[BaseModel], fault: Mapping) -> str:
    """A fault that pydantic found, as ``key: what is wrong; what would be right``."""
    place = [str(part) for part in fault["loc"] if part != "[key]"]
    where, error = ".".join(place), fault.get("ctx", {}).get("error")
    if isinstance(error, _DeclaredError):  # of settings within these
        return f"{where}.{error.fault}" if re.match(r"[\w.]+: ", error.fault) else f"{where}: {error.fault}"
    if fault["type"] == "extra_forbidden":
        near, keys = get_close_matches(where, model.model_fields, 1), ", ".join(model.model_fields)
        what = f"no such key; {f'do you mean {near[0]!r}? ' if near else ''}there are {keys}"
    elif fault["type"] == "value_error":
        what = fault["msg"].removeprefix("Value error, ")
    else:
        what = "missing" if fault["type"] == "missing" else f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
        described = model.model_fields.get(place[0]) if place else None
        if described is not None and described.examples:
            what += f"; {place[0]}: {described.examples[0]} is right"
    return f"{where}: {what}" if where else what


_MOST_BYTES = 1_000_000  # of a file that somebody wrote: YAML takes a minute for ten of them


class _Loader(yaml.SafeLoader):
    """Refuses what means something else than it seems.

    A key that stands twice, of which YAML would take the last in silence; and aliases, by which a few lines can stand
    for more than any memory holds. Numbers are decimal: 1:30 is no 90, 010 no 8, and dates are text.
    """

    yaml_implicit_resolvers = {
        letter: [
            (tag, pattern) for tag, pattern in rules if tag.rpartition(":")[2] not in ("int", "float", "timestamp")
        ]
        for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            what = "an alias such as *name; the value itself is right"
            raise yaml.constructor.ConstructorError(None, None, what, mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        fault, seen = yaml.constructor.ConstructorError, set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise fault(None, None, f"key {key.value!r} stands there twice", key.start_mark)
            seen.add(key.value)
            if key.tag == "tag:yaml.org,2002:bool":
                what = f"key {key.value!r} means true or false to YAML; '{key.value}' in quotes is right"
                raise fault(None, None, what, key.start_mark)
        return super().construct_mapping(node, deep)


_START = list("-+.0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9]\d*)$"), _START)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF|nan|NaN|NAN))$"),
    _START,
)


def read_yaml(path: str | Path, keys: Sequence[str]) -> Mapping[str, Any]:
    """A YAML file that holds a mapping with text keys.

    Args:
        path: the file.
        keys: what keys it may have, for the message.

    Raises:
        InputError: if it cannot be read, is not YAML, or holds something else.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: not a file; a file in YAML is right")
        text = Path(path).read_text(encoding="utf-8")
        if len(text) > _MOST_BYTES:
            raise InputError(f"{path}: {len(text)} characters; a problem of {_MOST_BYTES} at most is right")
        values = yaml.load(text, _Loader)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.constructor.ConstructorError as error:
        mark = error.problem_mark
        raise InputError(f"{path}: line {mark.line + 1}, column {mark.column + 1}: {error.problem}") from None
    # beside those of YAML, errors of values that their tags do not fit, such as !!bool 3, or numbers of 5000 digits
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: a problem is a mapping with the keys {', '.join(keys)}")
    return values
