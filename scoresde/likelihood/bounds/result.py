"""What is a bound on -log p, and where do the data stand? The result, the state at the start, the batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_finite
from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.likelihood.batching import bar, batches, evaluated
from scoresde.likelihood.bounds.decoder import Decoder
from scoresde.likelihood.dequantize import Dequantization
from scoresde.model import Model, event_size

__all__ = ["Bound", "InitialState", "check_count", "check_levels", "mean_variance", "estimate_terms"]

Terms = dict[str, Tensor]
Estimator = Callable[[Tensor, Noise, dict[str, object], Callable[[float], None]], Terms]


@dataclass(frozen=True, eq=False)
class Bound:
    """An upper bound on -log p of each sample, its terms and its uncertainty.

    Attributes:
        nats: ``(B,)`` float64, nats per sample.
        terms: What ``nats`` is the sum of, by name ("prior", "diffusion", "reconstruction", "dequantization"), each
            ``(B,)`` float64, nats. Of an importance-weighted bound: of the trajectories' mean, which is larger.
        stderr: ``(B,)`` float64, standard error of ``nats`` over the draws of noise and times; NaN where unknown.
        nfe: Network calls that a sample saw.
        dims: Number of values in one sample.
        quantized: Whether levels were bounded, so that there are bits.
        per_step: ``(K,)`` float64, what each step k = 1 … K of a chain adds, nats, averaged over the samples; the first
            is the reconstruction where there is one. None in continuous time.
    """

    nats: Tensor
    terms: Terms
    stderr: Tensor
    nfe: int
    dims: int
    quantized: bool
    per_step: Tensor | None = None

    @property
    def bits(self) -> Tensor | None:
        """``(B,)`` float64, bits per dimension; None if the data are not quantized."""
        return self.nats * self._unit if self.quantized else None

    @property
    def mean(self) -> float:
        """Mean over the samples: of ``bits`` if there are any, else of ``nats``."""
        return float(self.nats.mean()) * self._unit

    @property
    def mean_stderr(self) -> float:
        """Standard error of ``mean`` over samples and draws together; NaN for one sample."""
        n = len(self.nats)
        return float(self.nats.std()) / math.sqrt(n) * self._unit if n > 1 else math.nan

    @property
    def mean_draw_stderr(self) -> float:
        """Standard error of ``mean`` over the draws alone, the samples held fixed."""
        return float(self.stderr.square().sum().sqrt()) / max(len(self.nats), 1) * self._unit

    @property
    def _unit(self) -> float:
        return 1.0 / (self.dims * math.log(2)) if self.quantized else 1.0


@dataclass(frozen=True, eq=False)
class InitialState:
    """Where data stand before they are noised: clean at 0, or already noised at ``given`` = ``tau_min``.

    Attributes:
        model: Carries process and description.
        given: OU time at which the data stand.
        decoder: What leads from ``tau_min``, or a chain's first time, to clean data; None at ``given`` > 0.
        law: The law of a level's place in its cell, or None.
        levels: Whether the data are levels.
    """

    model: Model
    given: float
    decoder: Decoder | None
    law: Dequantization | None
    levels: bool

    @classmethod
    def of(cls, model: Model, data: Tensor, decoder: Decoder | None, law: Dequantization | None) -> InitialState:
        """The start of these data, checked: with a ``law`` of the place, or floats without decoder, at ``tau_min``.

        Raises:
            ValueError: If levels have no description with bins or are out of range, a shape does not fit, a float is
                not finite, or what is given contradicts itself.
        """
        levels = not data.is_floating_point()
        if law is not None and (decoder is not None or not levels):
            raise ValueError(
                "a dequantization places levels in their cells, got "
                + ("a decoder besides; leave one of them out." if levels else f"data of {data.dtype}; pass levels.")
            )
        if levels:
            check_levels(model, data)
        else:
            shape = model.event_shape
            if data.ndim == 0 or (shape is not None and data.shape[1:] != shape):
                axes = ", ".join(["B", *map(str, ("*D",) if shape is None else shape)])
                raise ValueError(
                    f"data must have shape ({axes}), got {tuple(data.shape)}; give the batch first, then one event."
                )
            check_finite(data, "data")
        clean = decoder is not None
        return cls(model, 0.0 if clean else model.sde.tau_min, decoder, law, levels)

    def place(self, data: Tensor, noise: Noise) -> tuple[Tensor, Terms]:
        """The state x, ``(B, *D)`` of the widest type, and what it costs to come from there to the data, nats."""
        wide, sde = widest_dtype(data.device), self.model.sde
        about = self.model.data
        if not self.levels:
            x, terms = data.to(wide), {}
        elif self.law is None:
            assert about is not None
            return about.to_model(data.to(wide) + 0.5), {}
        else:
            assert about is not None
            y, log_q = self.law.draw(data, noise)
            x, terms = about.to_model(y), {"dequantization": log_q - about.log_det}
        if self.given > 0:
            scale = float(sde.scale(self.given))
            x, volume = x / scale, event_size(x) * math.log(scale)
            terms["reconstruction"] = torch.full((len(x),), volume, dtype=torch.float64, device=x.device)
        return x, terms


def check_levels(model: Model, levels: Tensor) -> None:
    """Refuses levels of which the model does not know the bins, or that are outside of their range.

    Raises:
        ValueError: If so.
    """
    about = model.data
    if about is None or about.bins is None:
        got = "a model without a description" if about is None else f"{about.name!r} with bins=None"
        raise ValueError(
            f"bits per dimension need quantized data with their bins and scale, got {got}; set model.data = "
            "Description(name, shape, bins=..., scale=...), or pass floats and report nats."
        )
    about.validate(levels)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuses a number that is not an integer of at least ``least``.

    Raises:
        ValueError: If so.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")


def mean_variance(values: Tensor) -> Tensor:
    """Variance of the mean of n independent estimates, ``(n, B)`` with n > 1, as their scatter shows it, ``(B,)``."""
    n = len(values)
    return (values - values.mean(0)).square().sum(0) / (n * (n - 1))


def estimate_terms(
    model: Model,
    data: Tensor,
    estimate: Estimator,
    generator: torch.Generator | None,
    seeds: Sequence[int] | None,
    batch_size: int | None,
    progress: bool,
    cond: dict[str, object],
) -> Terms:
    """The estimate's terms, batch by batch, joined along their last axis, the samples.

    In eval mode and without gradients, whatever the caller's modes.

    Raises:
        ValueError: If seeds or conditioning do not fit the data.
        RuntimeError: If a term is not finite; names the samples.
    """
    per_sample = {name: value for name, value in cond.items() if isinstance(value, Tensor) and value.ndim}
    for name, value in {"seeds": seeds, **per_sample}.items():
        if value is not None and len(value) != len(data):
            raise ValueError(f"{name} must have one entry per sample, {len(data)}, got {len(value)}.")
    parts: list[Terms] = []
    with evaluated(model), bar(progress) as observe:
        for rows in batches(len(data), batch_size) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            given = {**cond, **{name: value[rows].to(data.device) for name, value in per_sample.items()}}
            start, share = rows.start / max(len(data), 1), (rows.stop - rows.start) / max(len(data), 1)

            def tell(done: float, start: float = start, share: float = share) -> None:
                if observe is not None:
                    observe(start + share * done)

            parts.append(estimate(data[rows], noise, given, tell))
    terms = {name: torch.cat([part[name] for part in parts], -1) for name in parts[0]}
    bad = torch.zeros(len(data), dtype=torch.bool)
    for name, value in terms.items():
        if name != "variance":  # NaN is an unknown one
            bad |= ~torch.isfinite(value if value.ndim == 1 else value.sum(0)).cpu()
    if bool(bad.any()):
        shown = ", ".join(map(str, bad.nonzero().flatten()[:8].tolist()))
        raise RuntimeError(
            f"the bound is NaN or infinite for the samples [{shown}] ({int(bad.sum())} of {len(bad)}); look at the "
            "network's outputs there, or at a decoder that gives its level no mass."
        )
    return terms
