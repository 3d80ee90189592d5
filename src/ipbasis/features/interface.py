"""What every kind of features is: a map from coordinates to functions with exact derivatives."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ipbasis.problem.equations import MultiIndex


class Features(nn.Module, ABC):
    """H functions of the coordinates and their derivatives.

    A kind has a buffer ``domain`` (d, 2), the lower and upper end of each coordinate, whose number type is that of all
    its values. What is not said by its settings is in its state.
    """

    domain: Tensor

    @property
    @abstractmethod
    def feature_count(self) -> int:
        """Number H of features."""

    @abstractmethod
    def forward(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> dict[MultiIndex, Tensor]:
        """Features and their derivatives in the problem's own units.

        Args:
            points: (n, d) coordinates in the problem's own units.
            indices: which derivatives; the value is always among the results.

        Returns:
            for each derivative (n, H).
        """

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the values."""
        return self.domain.dtype

    def combined(self, points: Tensor, indices: Iterable[MultiIndex], transform: Tensor) -> dict[MultiIndex, Tensor]:
        """For each derivative, and the value, the (n, K) combinations of the features with a transform (H, K)."""
        values = self(points, indices)
        return {index: values[index].to(transform.dtype) @ transform for index in {(), *indices}}


class Combined(Features):
    """Combinations of features, which are features again.

    Args:
        features: what they are combined of.
        transform: (H, K).
    """

    def __init__(self, features: Features, transform: Tensor):
        super().__init__()
        self.features, self.transform, self.domain = features, transform, features.domain

    @property
    def feature_count(self) -> int:
        """Number K of combinations."""
        return self.transform.shape[1]

    def forward(self, points: Tensor, indices: Iterable[MultiIndex] = ((),)) -> dict[MultiIndex, Tensor]:
        """For each derivative (n, K)."""
        return self.features.combined(points, indices, self.transform)


def rounding_error(features: Features, transform: Tensor | None, points: Tensor) -> float:
    """Relative error that rounding leaves in the values of functions ``features @ transform``.

    The terms of a sum cancel where the entries of the transform are large. Measured as the change of a function, in
    units of its largest value, if each entry changes by the precision of the number type in either direction; the worst
    function counts.

    Args:
        features: the features.
        transform: (H, K); None where the functions are the features.
        points: (n, d) that cover the domain.
    """
    precision = torch.finfo(features.dtype).eps
    if transform is None:
        return precision
    points = points.to(features.dtype)
    sizes = features.combined(points, ((),), transform)[()].abs().amax(0)
    signs = torch.randint(0, 2, transform.shape, generator=torch.Generator().manual_seed(0)).to(transform) * 2 - 1
    change = features.combined(points, ((),), transform * signs)[()].abs().amax(0)
    return precision * torch.maximum(change / sizes, torch.ones_like(sizes)).max().item()
