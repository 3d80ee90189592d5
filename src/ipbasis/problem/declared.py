"""Settings read from a file: frozen, checked, the first fault told in one line."""

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


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last in silence."""

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


def read_yaml(path: str | Path, keys: Sequence[str]) -> Mapping[str, Any]:
    """A YAML file that holds a mapping with text keys.

    Args:
        path: the file.
        keys: what keys it may have, for the message.

    Raises:
        InputError: if it cannot be read, is not YAML, or holds something else.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.constructor.ConstructorError as error:
        mark = error.problem_mark
        raise InputError(f"{path}: line {mark.line + 1}, column {mark.column + 1}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that there is not
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: a problem is a mapping with the keys {', '.join(keys)}")
    return values
