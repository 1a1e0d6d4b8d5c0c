"""How do matrices learn faster than their entries? Muon: every direction of a step as long as any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "matrices", "orthogonal"]

_NARROW = 8
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


class Muon(torch.optim.AdamW):
    r"""AdamW, but a matrix moves along the orthogonal factor of its momentum.

    With momentum $M = U S V^\top$ of an ``m x n`` matrix the step is $0.2 \sqrt{\max(m, n)}\, U V^\top$, as long as
    AdamW's usually is, so that a learning rate of one serves the other. How large gradients are does not matter: a
    matrix whose gradient has become 0 goes on along the last ones until its momentum has died away.

    Args:
        weights: All that are trained.
        matrices: Which of them are matrices; kernels ``(out, in, ...)`` count as ``(out, in · ...)``. AdamW moves
            the others.
        lr, betas, weight_decay: As AdamW's.
        momentum: Decay of the average of a matrix's gradients, in [0, 1).

    Raises:
        ValueError: If ``momentum`` is out of range, or another setting, as AdamW says.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the length after Liu et
    al. 2025, "Muon is scalable for LLM training".
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        matrices: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}; 0.95 is usual.")
        turned = list(matrices)
        apart = set(map(id, turned))
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights if id(p) not in apart]},
            {"params": turned, "momentum": momentum},
        ]
        super().__init__(groups, lr, betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; of a step whose gradient is not finite (``found_inf``) nothing is left, as with AdamW."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        bad = getattr(self, "found_inf", None)
        group = self.param_groups[1]
        alike: dict[Any, list[nn.Parameter]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                alike.setdefault((len(weight), weight.numel(), weight.dtype, weight.device), []).append(weight)
        for weights in alike.values():
            self._move(weights, group, None if bad is None else bad == 0)
            for weight in weights:
                weight.grad = None  # done: AdamW passes over it
        super().step()
        return loss

    def _move(self, weights: list[nn.Parameter], group: dict[str, Any], good: Tensor | None) -> None:
        """Matrices of one shape, all at once."""
        ahead = torch.stack([self._ahead(weight, group["momentum"], good).flatten(1) for weight in weights])
        rate = torch.full((), group["lr"]).to(ahead) if good is None else group["lr"] * good.to(ahead)
        steps = orthogonal(ahead) * (0.2 * max(ahead.shape[1:]) ** 0.5 * rate)
        for weight, step in zip(weights, steps, strict=True):
            if group["weight_decay"]:
                weight.mul_(1.0 - rate * group["weight_decay"])
            weight.sub_(step.view(weight.shape))

    def _ahead(self, weight: nn.Parameter, momentum: float, good: Tensor | None) -> Tensor:
        """Nesterov's momentum of one weight; its state has AdamW's names: gradients seen, and their average."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if (scale := getattr(self, "grad_scale", None)) is not None:  # a GradScaler that did not take it out
            gradient = gradient / scale.to(gradient)
        if not state:
            state["step"], state["exp_avg"] = torch.zeros((), device=weight.device), torch.zeros_like(weight)
        if good is not None:
            gradient = torch.where(good, gradient, state["exp_avg"])
        state["step"] += 1 if good is None else good
        return gradient.lerp(state["exp_avg"].lerp_(gradient, 1.0 - momentum), momentum)


def orthogonal(matrix: Tensor) -> Tensor:
    r"""The orthogonal factor of matrices, $U V^\top$ of $U S V^\top$, but for sizes of 0.7 to 1.2 for 1.

    Five rounds of a Newton-Schulz iteration in the Gram matrix, so that all but two products are of the short side.

    Args:
        matrix: ``(..., m, n)``; a matrix of zeros stays one.
    """
    if matrix.shape[-2] > matrix.shape[-1]:
        return orthogonal(matrix.mT).mT
    small = torch.finfo(matrix.dtype).tiny
    wide = matrix / matrix.abs().amax((-2, -1), keepdim=True).clamp(min=small)  # first, or a square might be 0
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=small)
    gram = wide @ wide.mT
    one = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    a, b, c = _QUINTIC
    factor = one
    for _ in range(_ROUNDS):
        turn = a * one + b * gram + c * (gram @ gram)
        factor, gram = turn @ factor, turn @ gram @ turn
    return factor @ wide


def matrices(net: nn.Module) -> list[nn.Parameter]:
    """Trained weights of linear layers and of convolutions without groups, of at least 8 rows and columns."""
    layers = (layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d))
    weights = (layer.weight for layer in layers if getattr(layer, "groups", 1) == 1)
    return list(
        dict.fromkeys(
            w for w in weights if isinstance(w, nn.Parameter) and w.requires_grad and min(w.flatten(1).shape) >= _NARROW
        )
    )
