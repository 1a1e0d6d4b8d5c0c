"""Masks of observed entries: which networks read them, and the check of one that is passed to the loss."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from scoresde.model import Model, ScoreModel

__all__ = ["check_reads_observed", "checked_mask", "reads_observed"]


def reads_observed(network: nn.Module) -> bool:
    """Whether a network reads which entries of its input are observed.

    Its ``forward`` has a parameter ``observed``. If the network has an attribute of this name, that must be true. A
    wrapper with the attribute ``module``, as for several processes, reads what the network inside reads.
    """
    while isinstance(inner := getattr(network, "module", None), nn.Module):
        network = inner
    named = "observed" in inspect.signature(network.forward).parameters
    return named and bool(getattr(network, "observed", True))


def check_reads_observed(model: Model, subject: str) -> None:
    """Checks that a model can be trained where values are missing.

    Args:
        model: A network's model.
        subject: What has the missing values, for the error.

    Raises:
        TypeError: If its network does not read ``observed``, or it has no network.
    """
    network = model.net if isinstance(model, ScoreModel) else None
    if network is None or not reads_observed(network):
        while network is not None and isinstance(inner := getattr(network, "net", None), nn.Module):
            network = inner  # a wrapper reads what the network inside does
        name = type(model if network is None else network).__name__
        raise TypeError(
            f"{subject} need a network that reads which values are observed, {name} does not: build "
            "MLP(..., observed=True), or a network whose forward has a parameter observed; or leave incomplete events "
            'out: load_data(..., missing="drop"), Data.complete().'
        )


def checked_mask(model: Model, x0: Tensor, observed: Tensor) -> Tensor:
    """The mask of a loss's call, after checks.

    Args:
        model: Whose loss is computed.
        x0: Data, ``(B, *D)``.
        observed: Whether each entry of ``x0`` is observed.

    Raises:
        TypeError: If ``observed`` is not bool, or the model does not read it.
        ValueError: If ``observed`` has another shape than ``x0``.
    """
    if observed.dtype != torch.bool:
        raise TypeError(f"observed must be bool, got {observed.dtype}; pass ~x0.isnan(), or mask.bool().")
    if observed.shape != x0.shape:
        raise ValueError(
            f"observed must have the shape of x0, {tuple(x0.shape)}, got {tuple(observed.shape)}; pass ~x0.isnan()."
        )
    check_reads_observed(model, "missing values")
    return observed
