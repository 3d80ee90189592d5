"""Dataclasses of tensors or arrays with one row per query: some of the queries, replaced or taken, or in parts."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_IN_CACHE = 2**18  # entries of the normal matrices that are worked on at once


def numbers(rows: Any) -> Any:
    """The same rows for an index, found once for many tensors: numbers for a mask, a slice where it takes all."""
    if not (isinstance(rows, Tensor) and rows.dtype == torch.bool):
        return rows
    return slice(None) if rows.all() else rows.nonzero().squeeze(1)


def select(whole: T, rows: Any) -> T:
    """The queries `rows`."""
    rows = numbers(rows)
    if not is_dataclass(whole):
        return whole[rows]
    return type(whole)(**{field.name: select(getattr(whole, field.name), rows) for field in fields(whole)})


def gather(parts: Sequence[tuple[Tensor, T]]) -> T:
    """The whole of which the parts are the queries `rows`, every query in one of them."""
    if len(parts) == 1:
        return parts[0][1]
    count = sum(len(rows) for rows, _ in parts)

    def joined(values: Sequence[Any]) -> Any:
        if not is_dataclass(values[0]):
            whole = values[0].new_empty(count, *values[0].shape[1:])
            for value, (rows, _) in zip(values, parts, strict=True):
                whole[rows] = value
            return whole
        names = [field.name for field in fields(values[0])]
        return type(values[0])(**{name: joined([getattr(value, name) for value in values]) for name in names})

    return joined([part for _, part in parts])


def put(whole: T, rows: Tensor, part: T) -> None:
    """Replace the queries `rows` of the whole, in place, by those of a part."""
    for field in fields(whole):
        old, new = getattr(whole, field.name), getattr(part, field.name)
        if is_dataclass(old):
            put(old, rows, new)
        else:
            old[rows] = new


def merge(old: T, new: T, moved: Tensor) -> T:
    """The new one for the queries that `moved` (B,), the old one for the others."""

    def picked(name: str) -> Any:
        one, other = getattr(new, name), getattr(old, name)
        if is_dataclass(one):
            return merge(other, one, moved)
        return torch.where(moved.view(-1, *[1] * (one.ndim - 1)), one, other)

    return type(old)(**{field.name: picked(field.name) for field in fields(old)})


def chunks(queries: int, size: int, entries: int = _IN_CACHE) -> Iterator[slice]:
    """Parts of the queries whose matrices (size, size) hold so many entries together, which a core's cache keeps."""
    step = max(1, entries // size**2)
    return (slice(at, min(at + step, queries)) for at in range(0, queries, step))
