r"""Optimizers: AdamW, and Muon, whose step of a matrix with momentum $M = U S V^\top$ is along $U V^\top$."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.training.settings import Training

__all__ = ["Muon", "adamw", "build_optimizer", "matrices", "orthogonalize"]

_MIN_SIDE = 8  # rows and columns of a matrix that Muon updates
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    r"""AdamW, except that a matrix moves along the orthogonal factor of its momentum.

    With momentum $M = U S V^\top$ of an ``m x n`` matrix the step is $0.2 \sqrt{\max(m, n)}\, U V^\top$. Its length is
    that of a usual AdamW step, so both have the same scale of learning rates. The size of the gradient does not matter:
    a matrix whose gradient has become 0 moves on until its momentum has decayed.

    Args:
        weights: All trained weights.
        matrices: Those that are matrices; kernels ``(out, in, ...)`` count as ``(out, in · ...)``. AdamW updates the
            others.
        lr, betas, weight_decay: As of AdamW.
        momentum: Decay of the average of a matrix's gradients, in [0, 1).

    Raises:
        ValueError: If ``momentum`` is out of range; by AdamW for the other settings.

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
        matrices = list(matrices)
        ids = set(map(id, matrices))
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights if id(p) not in ids]},
            {"params": matrices, "momentum": momentum},
        ]
        super().__init__(groups, lr, betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; with ``found_inf`` set, a step whose gradient is not finite changes nothing, as in AdamW."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        found_inf = getattr(self, "found_inf", None)
        group = self.param_groups[1]
        batches: dict[Any, list[nn.Parameter]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                batches.setdefault((len(weight), weight.numel(), weight.dtype, weight.device), []).append(weight)
        for weights in batches.values():
            self._update_matrices(weights, group, None if found_inf is None else found_inf == 0)
            for weight in weights:
                weight.grad = None  # AdamW skips weights without a gradient
        super().step()
        return loss

    def _update_matrices(self, weights: list[nn.Parameter], group: dict[str, Any], finite: Tensor | None) -> None:
        """One step of matrices of one shape, as a batch."""
        momenta = torch.stack([self._nesterov(weight, group["momentum"], finite).flatten(1) for weight in weights])
        rate = torch.full((), group["lr"]).to(momenta) if finite is None else group["lr"] * finite.to(momenta)
        steps = orthogonalize(momenta) * (0.2 * max(momenta.shape[1:]) ** 0.5 * rate)
        for weight, step in zip(weights, steps, strict=True):
            if group["weight_decay"]:
                weight.mul_(1.0 - rate * group["weight_decay"])
            weight.sub_(step.view(weight.shape))

    def _nesterov(self, weight: nn.Parameter, momentum: float, finite: Tensor | None) -> Tensor:
        """Nesterov's momentum of one weight; the state has AdamW's names: number of gradients and their average."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if (scale := getattr(self, "grad_scale", None)) is not None:  # a GradScaler that did not unscale
            gradient = gradient / scale.to(gradient)
        if not state:
            state["step"], state["exp_avg"] = torch.zeros((), device=weight.device), torch.zeros_like(weight)
        if finite is not None:
            gradient = torch.where(finite, gradient, state["exp_avg"])
        state["step"] += 1 if finite is None else finite
        return gradient.lerp(state["exp_avg"].lerp_(gradient, 1.0 - momentum), momentum)


def orthogonalize(matrix: Tensor) -> Tensor:
    r"""The orthogonal factor $U V^\top$ of matrices $U S V^\top$, with singular values of 0.7 to 1.2 in place of 1.

    Five Newton-Schulz iterations in the Gram matrix, so that all products but two have the size of the short side.

    Args:
        matrix: ``(..., m, n)``; a matrix of zeros stays zero.
    """
    if matrix.shape[-2] > matrix.shape[-1]:
        return orthogonalize(matrix.mT).mT
    tiny = torch.finfo(matrix.dtype).tiny
    wide = matrix / matrix.abs().amax((-2, -1), keepdim=True).clamp(min=tiny)  # first, or a square might underflow
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=tiny)
    gram = wide @ wide.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    a, b, c = _QUINTIC
    factor = identity
    for _ in range(_ITERATIONS):
        polynomial = a * identity + b * gram + c * (gram @ gram)
        factor, gram = polynomial @ factor, polynomial @ gram @ polynomial
    return factor @ wide


def matrices(net: nn.Module) -> list[nn.Parameter]:
    """Trained weights of linear layers and of convolutions without groups, of at least 8 rows and columns."""
    layers = (layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d))
    weights = (layer.weight for layer in layers if getattr(layer, "groups", 1) == 1)
    trained = (w for w in weights if isinstance(w, nn.Parameter) and w.requires_grad)
    return list(dict.fromkeys(w for w in trained if min(w.flatten(1).shape) >= _MIN_SIDE))


def build_optimizer(
    weights: Sequence[nn.Parameter], net: nn.Module, settings: Training, sharded: bool
) -> torch.optim.AdamW:
    """The optimizer that the settings name.

    Args:
        weights: All trained weights of ``net``.
        net: Whose matrices Muon updates.
        settings: Of the run.
        sharded: Whether the network is sharded among processes.

    Raises:
        ValueError: If Muon is requested for a sharded network.
    """
    if settings.optimizer == "adamw":
        return adamw(weights, settings)
    if sharded:
        raise ValueError(
            "Muon needs whole matrices, got a sharded network (FSDP); train it whole in each process, or with "
            'Training(optimizer="adamw").'
        )
    return Muon(weights, matrices(net), settings.lr, settings.betas, settings.weight_decay)


def adamw(weights: Sequence[nn.Parameter], settings: Training) -> torch.optim.AdamW:
    """AdamW with the settings of a run."""
    return torch.optim.AdamW(weights, settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True)
