"""Conventions that several code bases share: images of bytes, and grids of noise levels or steps that end at 0."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import torch
from torch import nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde.adapters import Label
from scoresde.bridges.opened import Finding
from scoresde.bridges.weights import WeightFile
from scoresde.data import Description
from scoresde.process import ou
from scoresde.process.schedule import Schedule
from scoresde.sampling import ExplicitGrid

__all__ = [
    "byte_images",
    "cosine_betas",
    "data_finding",
    "default_data",
    "karras_grid",
    "labeled",
    "linear_betas",
    "sigma_grid",
    "step_findings",
    "step_grid",
]


def byte_images(shape: tuple[int, ...], centered: bool = True) -> Description:
    r"""Images of bytes k as x = k/127.5 − 1, or x = k/255 where they are not centered.

    Args:
        shape: Shape of one image, channels first.
        centered: Whether they lie in [-1, 1]; otherwise in [0, 1].
    """
    check_arguments(byte_images, locals())
    if centered:
        return Description("images", shape, bins=256, offset=128.0, scale=127.5)
    return Description("images", shape, bins=256, offset=0.5, scale=255.0)


def default_data(shape: tuple[int, ...] | None, centered: bool = True) -> Description | None:
    """Images of bytes where the shape is that of gray or color images; otherwise values as the network receives them.

    Args:
        shape: Shape of one event; None gives None.
        centered: As in `byte_images`.
    """
    check_arguments(default_data, locals())
    if shape is None:
        return None
    return byte_images(shape, centered) if len(shape) == 3 and shape[0] in (1, 3) else Description("values", shape)


_CLASS_INPUTS = {"y": ("label_emb", 0), "class_cond": ("class_emb", 1), "classes": ("classes_emb", 0)}
"""Argument of the classes: attribute of the network with their embeddings, and how many of these are null."""


def labeled(net: nn.Module, findings: list[Finding]) -> nn.Module:
    """A network that takes classes under a name of its code base, with the condition ``label``; others as they are.

    Args:
        net: The network: of guided-diffusion (``y``), k-diffusion (``class_cond``) or lucidrains (``classes``).
        findings: Gets the number of classes.
    """
    check_arguments(labeled, locals())
    parameters = inspect.signature(net.forward).parameters
    for keyword, (attribute, nulls) in _CLASS_INPUTS.items():
        table = getattr(net, attribute, None)
        if keyword not in parameters or not isinstance(table, nn.Embedding) or getattr(net, "conditions", None):
            continue
        count = table.num_embeddings - nulls
        value = f"{count}{' and a null' if nulls else ''}, label is passed as {keyword}"
        findings.append(Finding("classes", value, "derived", f"size of {attribute}"))
        return Label(net, count, keyword, nulls > 0, "cond_drop_prob" if "cond_drop_prob" in parameters else "")
    return net


def data_finding(data: Description | None, given: bool, centered: bool, why: str) -> Finding:
    """What is known of the range of the data."""
    span = "[-1, 1]" if centered else "[0, 1]"
    if given:
        return Finding("range of the data", "as in the description given", "stated", "argument `data`")
    if data is not None and data.bins is None:
        why = "the shape is not that of gray or color images"
        return Finding("range of the data", "values as the network receives them", "assumed", why)
    unit = "images of bytes in " if data is not None else ""
    return Finding("range of the data", f"{unit}{span}", "assumed", why)


def step_findings(file: WeightFile) -> tuple[Finding, ...]:
    """The number of training steps, where the file states it as ``step``."""
    step = file.values.get("step")
    return () if step is None else (Finding("trained for", f"{step} steps", "stated", f"step in {file.path.name}"),)


def sigma_grid(sigmas: Sequence[float]) -> ExplicitGrid:
    r"""Falling noise levels $\tilde\sigma$, the last perhaps 0, as OU times $\tfrac12\log(1 + \tilde\sigma^2)$."""
    check_arguments(sigma_grid, locals())
    return ExplicitGrid(
        tuple(float(ou.tau_from_log_snr(-2.0 * math.log(s))) if s > 0 else 0.0 for s in map(float, sigmas))
    )


def karras_grid(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> ExplicitGrid:
    r"""EDM's grid: ``steps`` levels from ``sigma_max`` to ``sigma_min``, even in $\sigma^{1/\rho}$, then 0.

    Source: Karras et al. 2022, eq. 5.
    """
    check_arguments(karras_grid, locals())
    check_integer("steps", steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    inner = [(high + (low - high) * i / max(steps - 1, 1)) ** rho for i in range(1, steps - 1)]
    return sigma_grid([sigma_max, *inner, *([sigma_min] if steps > 1 else []), 0.0])


def step_grid(clock: Schedule, length: int, steps: Sequence[int]) -> ExplicitGrid:
    """Steps of a chain, counted from 0 at its first knot, as OU times in falling order, then 0.

    Args:
        clock: The schedule of the chain.
        length: Its length.
        steps: The steps, each in 0 … length - 1.
    """
    check_arguments(step_grid, locals())
    knots = clock.knots(length)
    return ExplicitGrid((*(knots[t + 1] for t in sorted(set(steps), reverse=True)), 0.0))


def linear_betas(steps: int, scaled: bool = True) -> tuple[float, ...]:
    """DDPM's betas 1e-4 … 0.02, times 1000/steps, as the code bases after improved-diffusion have them."""
    factor = 1000 / steps if scaled else 1.0
    values = torch.linspace(factor * 1e-4, factor * 0.02, steps, dtype=torch.float64)
    return tuple(values.tolist())


def cosine_betas(steps: int) -> tuple[float, ...]:
    r"""Betas of $\bar\alpha = \cos^2(\tfrac\pi2 (u + .008)/1.008)$, each at most .999.

    `Cosine` is the same clock where only the last beta is clipped.

    Source: Nichol & Dhariwal 2021, eq. 17.
    """
    bars = [math.cos((k / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(steps + 1)]
    return tuple(min(1 - after / before, 0.999) for before, after in zip(bars, bars[1:]))
