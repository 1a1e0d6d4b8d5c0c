r"""Which bounds stand beside the ODE's likelihood? In continuous time and along a chain, on the same held-out events.

Levels are bounded in two ways. Dequantized, by the law at ``tau_min``: the number that the ODE gives, for the model's
reverse SDE. And undivided, by a decoder that takes over where σ/α is a third of a level's cell: below that the noise
would ask where in its cell a level lies, which a model trained on dequantized data cannot know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.likelihood import (
    Bound,
    Decoder,
    Dequantization,
    ErrorProfile,
    RoundedDecoder,
    continuous_vlb,
    discrete_vlb,
    measure_error_profile,
)
from scoresde.likelihood.dequantize import default_dequantization
from scoresde.model import ScoreModel
from scoresde.process import ou
from scoresde.sampling import UniformLogSNR
from scoresde.storage.labels import short_text

__all__ = ["BoundSummary", "BoundSettings", "bound_events", "decoding_time"]

_CELL = 1 / 3  # σ/α where a decoder takes over, in cells
_LOOKED_AT = 32  # events that the profile is measured on


@dataclass(frozen=True)
class BoundSettings:
    """How bounds are estimated.

    Attributes:
        evaluations: Network calls per event and bound: of the times in continuous time, of the terms of a chain. A
            multiple of 8.
        steps: Lengths of the chains, even in log-SNR; those of at most ``evaluations`` steps are summed in full.

    Raises:
        ValueError: If ``evaluations`` is no positive multiple of 8, or a chain has no step.
    """

    evaluations: int = 64
    steps: tuple[int, ...] = (100, 1000)

    def __post_init__(self) -> None:
        if self.evaluations < 8 or self.evaluations % 8:
            raise ValueError(
                f"evaluations must be a positive multiple of 8 (pairs of noises at four independent lattices of times),"
                f" got {self.evaluations!r}."
            )
        if any(steps < 1 for steps in self.steps):
            raise ValueError(f"a chain has at least one step, got {self.steps}.")


@dataclass(frozen=True, eq=False)
class BoundSummary:
    """One bound of every event.

    Attributes:
        name: What it is called.
        settings: How it was made.
        value: ``(n,)`` float64, bits per dimension, an upper bound; or nats in data units, a lower bound on log p.
        stderr: ``(n,)`` float64, over the draws of noise and times, as ``value``.
        terms: What -log p is the sum of, means over the events, nats.
        nfe: Network calls per event.
    """

    name: str
    settings: str
    value: Tensor
    stderr: Tensor
    terms: dict[str, float]
    nfe: int

    def said(self, beside: Tensor) -> dict[str, Any]:
        """JSON; ``over_ode`` is the mean of the difference to the ODE's values ``beside``, ``(n,)``, NaN left out."""
        return {
            "name": self.name,
            "settings": self.settings,
            **mean(self.value),
            "draw_stderr": float(self.stderr.square().sum().sqrt()) / max(len(self.stderr), 1),
            "over_ode": mean((self.value - beside)[~beside.isnan()]),
            "nfe": self.nfe,
            "terms": self.terms,
        }


def mean(values: Tensor) -> dict[str, float]:
    """``value`` and its ``stderr`` over the events, ``(n,)``; NaN where there are too few."""
    n = len(values)
    return {
        "value": float(values.mean()) if n else math.nan,
        "stderr": float(values.std()) / math.sqrt(n) if n > 1 else math.nan,
    }


def bound_events(
    model: ScoreModel,
    y: Tensor,
    how: BoundSettings,
    *,
    law: Dequantization | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> list[BoundSummary]:
    """The bounds on every event: in continuous time, then along each chain.

    Args:
        model: Carries the data's description.
        y: Levels, or floats in data units, ``(n, *D)``, on the model's device.
        how: The settings.
        law: Of the dequantization; default what suits the network, uniform for most.
        seed: Of noise, times and dequantization.
        batch_size: Events at once.
        progress: Show a bar for each.
        tell: Is told each bound's name before it is estimated.

    Returns:
        Two in continuous time for levels, one for floats; one per chain.
    """
    about = model.data
    assert about is not None
    levels, law = about.bins is not None, law or default_dequantization(model)
    x = y if levels else about.to_model(y)
    bounds = _Estimates(model, x, how, _profile(model, x, law, seed), seed, batch_size, progress, tell)
    if not levels:
        return [bounds.continuous("continuous"), *(bounds.discrete(model, steps) for steps in how.steps)]
    at = decoding_time(model)
    decoded = ScoreModel(
        model.net,
        replace(model.sde, tau_min=at),
        model.parameterization,
        model.event_shape,
        about,
        model.learned_variance,
    )
    return [
        bounds.continuous("continuous, dequantized", law=law),
        bounds.continuous("continuous, decoder", decoder=RoundedDecoder(), at=at),
        *(bounds.discrete(decoded, steps, RoundedDecoder()) for steps in how.steps),
    ]


def decoding_time(model: ScoreModel) -> float:
    """Where σ/α is a third of the narrowest level's cell, OU time; not below ``tau_min``.

    Args:
        model: Carries the description of quantized data.
    """
    assert model.data is not None
    scale = model.data.scale
    assert scale is not None
    cell = 1.0 / (max(scale) if isinstance(scale, tuple) else scale)
    return max(model.sde.tau_min, float(ou.tau_from_log_snr(-2.0 * math.log(_CELL * cell))))


def _profile(model: ScoreModel, x: Tensor, law: Dequantization, seed: int) -> ErrorProfile | None:
    """Measured on the first events, on noise of its own; None for a single one."""
    if len(x) < 2:
        return None
    generator, about = torch.Generator(x.device).manual_seed(seed + 1), model.data
    assert about is not None
    first = x[:_LOOKED_AT]
    if about.bins is not None:
        first = about.to_model(law.draw(first, Noise(generator))[0])
    return measure_error_profile(model, first, points=16, generator=generator)


@dataclass(frozen=True, eq=False)
class _Estimates:
    """Everything that the bounds on the same events have in common."""

    model: ScoreModel
    x: Tensor
    how: BoundSettings
    profile: ErrorProfile | None
    seed: int
    batch_size: int | None
    progress: bool
    tell: Callable[[str], None] | None

    def _settings(self, name: str) -> dict[str, Any]:
        if self.tell is not None:
            self.tell(name)
        generator = torch.Generator(self.x.device).manual_seed(self.seed)
        shared = {"profile": self.profile, "generator": generator}
        return shared | {"batch_size": self.batch_size, "progress": self.progress}

    def continuous(
        self, name: str, *, law: Dequantization | None = None, decoder: Decoder | None = None, at: float | None = None
    ) -> BoundSummary:
        found = continuous_vlb(
            self.model,
            self.x,
            decoder=decoder,
            decode_at=at,
            dequantization=law,
            evaluations=self.how.evaluations,
            **self._settings(name),
        )
        placed = "as given" if law is None else short_text(law)
        return self._bounded(name, placed if decoder is None else self._decoded(decoder, at), found)

    def discrete(self, model: ScoreModel, steps: int, decoder: Decoder | None = None) -> BoundSummary:
        name, terms = f"discrete, {steps} steps", self.how.evaluations
        found = discrete_vlb(
            model,
            self.x,
            steps,
            grid=UniformLogSNR(),
            decoder=decoder,
            terms=terms if steps > terms else None,
            **self._settings(name),
        )
        start = "as given" if decoder is None else self._decoded(decoder, model.sde.tau_min)
        return self._bounded(name, f"even in log-SNR, {start}", found)

    def _decoded(self, decoder: Decoder, at: float | None) -> str:
        assert at is not None
        return f"{short_text(decoder)} at sigma/alpha = {math.exp(-0.5 * ou.log_snr(at)):.3g}"

    def _bounded(self, name: str, settings: str, found: Bound) -> BoundSummary:
        about = self.model.data
        assert about is not None
        terms = {key: float(value.mean()) for key, value in found.terms.items()}
        if found.bits is not None:
            stderr = found.stderr / (found.dims * math.log(2))
            return BoundSummary(name, settings, found.bits, stderr, terms, found.nfe)
        return BoundSummary(name, settings, about.log_det - found.nats, found.stderr, terms, found.nfe)
