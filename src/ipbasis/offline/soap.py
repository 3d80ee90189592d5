"""SOAP: Adam in the eigenbasis of the gradients' second moments."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class Soap(Optimizer):
    """Adam in coordinates in which the gradients of a layer are nearly uncorrelated.

    For a gradient G (m, n) of a weight matrix the coordinates are ``Qₗᵀ G Qᵣ``, with the eigenvectors of
    the running means of ``G Gᵀ`` and ``Gᵀ G``. A tensor of another shape is seen as a matrix of as many rows
    as it has entries along its first axis.

    Args:
        parameters: tensors to train.
        lr: learning rate.
        betas: decay of the running means: of the gradient, and of all second moments.
        refresh: steps between two updates of the eigenvectors, each by one orthogonal iteration.
        eps: added to the root of the second moments.

    Reference: Vyas et al., *SOAP: Improving and stabilizing Shampoo using Adam*, arXiv 2409.11321 (2024).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        refresh: int = 10,
        eps: float = 1e-12,
    ):
        super().__init__(parameters, {"lr": lr, "betas": betas, "refresh": refresh, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step along the gradients at hand; the very first only measures them."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _advance(parameter, self.state[parameter], group)


def _advance(parameter: Tensor, state: dict, group: dict) -> None:
    """Move one tensor, or only begin its state if it has none."""
    gradient = parameter.grad.reshape(len(parameter), -1)
    moments = gradient @ gradient.T, gradient.T @ gradient
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        for side, moment in enumerate(moments):
            state[f"moment{side}"], state[f"basis{side}"] = moment, torch.linalg.eigh(moment)[1].flip(1)
        return
    state["step"] += 1
    left, right = state["basis0"], state["basis1"]
    first, second = group["betas"]
    state["mean"].lerp_(gradient, 1 - first)
    turned = left.T @ gradient @ right
    state["square"].mul_(second).addcmul_(turned, turned, value=1 - second)
    mean = (left.T @ state["mean"] @ right) / (1 - first ** state["step"])
    size = (state["square"] / (1 - second ** state["step"])).sqrt_() + group["eps"]
    parameter.sub_((left @ (mean / size) @ right.T).reshape(parameter.shape), alpha=group["lr"])
    for side, moment in enumerate(moments):
        state[f"moment{side}"].lerp_(moment, 1 - second)
        if state["step"] % group["refresh"] == 0:
            basis = state[f"basis{side}"]
            image = state[f"moment{side}"] @ basis
            # by falling eigenvalue: orthogonal iteration finds the leading directions first
            order = (basis * image).sum(0).argsort(descending=True)
            state["square"] = state["square"].index_select(side, order)
            state[f"basis{side}"] = torch.linalg.qr(image[:, order])[0]
