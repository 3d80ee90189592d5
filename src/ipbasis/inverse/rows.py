"""Dataclasses of tensors or arrays with one row per query: some of the queries, replaced or taken."""

from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def select(whole: T, rows: Any) -> T:
    """The queries `rows`."""
    return type(whole)(**{field.name: getattr(whole, field.name)[rows] for field in fields(whole)})


def overwrite(whole: Any, rows: Tensor, part: Any) -> None:
    """Write those of a part over the queries `rows` of the whole, in place."""
    for field in fields(whole):
        getattr(whole, field.name)[rows] = getattr(part, field.name)


def put(whole: T, rows: Tensor, part: T) -> T:
    """The whole with the queries `rows` replaced by those of a part."""
    copy = type(whole)(**{field.name: getattr(whole, field.name).clone() for field in fields(whole)})
    overwrite(copy, rows, part)
    return copy


def unwritten(like: T) -> T:
    """Room for as many queries, all of which are still to be written."""
    return type(like)(**{field.name: torch.empty_like(getattr(like, field.name)) for field in fields(like)})


def merge(old: T, new: T, moved: Tensor) -> T:
    """The new one for the queries that `moved` (B,), the old one for the others."""

    def picked(name: str) -> Tensor:
        one, other = getattr(new, name), getattr(old, name)
        return torch.where(moved.view(-1, *[1] * (one.ndim - 1)), one, other)

    return type(old)(**{field.name: picked(field.name) for field in fields(old)})
