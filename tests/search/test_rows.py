"""Queries taken apart and put together again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ipbasis.search.rows import gather, select


@dataclass(frozen=True)
class _Inner:
    values: Tensor


@dataclass(frozen=True)
class _Outer:
    numbers: Tensor
    inner: _Inner


def test_parts_come_together_in_their_order():
    whole = _Outer(torch.arange(7), _Inner(torch.randn(7, 2)))
    odd = torch.arange(7) % 2 == 1
    parts = [(rows.nonzero().squeeze(1), select(whole, rows)) for rows in (odd, ~odd)]
    again = gather(parts)
    assert torch.equal(again.numbers, whole.numbers)
    assert torch.equal(again.inner.values, whole.inner.values)
    assert torch.equal(parts[0][1].numbers, torch.tensor([1, 3, 5]))
