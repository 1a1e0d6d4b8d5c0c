r"""Variational bounds (VLB) on held-out events: in continuous time and along chains, next to the ODE's likelihood.

Integer values have two bounds in continuous time. The first dequantizes them and bounds the density at ``tau_min``:
the quantity of the ODE, for the model's reverse SDE. The second has a decoder from the time where σ/α is a third of the
bin width. At lower noise the model would have to predict the position of a value within its bin. A model trained on
dequantized data cannot do that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde.data import Description
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
from scoresde.likelihood.student import student_half_width
from scoresde.model import ScoreModel, gaussian_process
from scoresde.process import ou
from scoresde.sampling import UniformLogSNR
from scoresde.storage.setting_labels import short_text

__all__ = ["BoundSettings", "BoundSummary", "bound_events", "decoding_time", "mean_interval", "mean_with_stderr"]

_DECODER_NOISE = 1 / 3  # σ/α where a decoder takes over, in bin widths
_PROFILE_EVENTS = 32  # events on which the error profile is measured


@dataclass(frozen=True)
class BoundSettings(CheckedArguments):
    """Settings of the bounds.

    Attributes:
        evaluations: Network evaluations per event and bound, a multiple of 8: timesteps in continuous time, terms of a
            chain.
        steps: Lengths of the chains, which are uniform in log-SNR. Chains of at most ``evaluations`` steps are summed
            in full.

    Raises:
        ValueError: If ``evaluations`` is not a positive multiple of 8, or a chain has no step.
    """

    evaluations: int = 64
    steps: tuple[int, ...] = (100, 1000)

    def __post_init__(self) -> None:
        if self.evaluations < 8 or self.evaluations % 8:
            raise ValueError(
                "evaluations must be a positive multiple of 8 (pairs of noises on four independent lattices of "
                f"timesteps), got {self.evaluations!r}."
            )
        for steps in self.steps:
            check_integer("steps", steps)


@dataclass(frozen=True, eq=False)
class BoundSummary:
    """One bound on all events.

    Attributes:
        name: Name of the bound.
        settings: Settings of the estimate, as text.
        value: ``(n,)`` float64: an upper bound in bits per dimension, or a lower bound on log p in nats in data units.
        stderr: ``(n,)`` float64, over the draws of noise and timesteps, in the unit of ``value``.
        low, high: ``(n,)`` float64, 95 % interval of the bound's expectation over those draws, by Student's t.
        terms: Terms of the bound on -log p by name, means over the events, nats.
        nfe: Network evaluations per event.
    """

    name: str
    settings: str
    value: Tensor
    stderr: Tensor
    low: Tensor
    high: Tensor
    terms: dict[str, float]
    nfe: int

    def to_json(self, ode_value: Tensor) -> dict[str, Any]:
        """The bound as JSON; ``over_ode`` is the mean difference to the ODE's values ``(n,)``, without NaN."""
        return {
            "name": self.name,
            "settings": self.settings,
            **mean_with_stderr(self.value),
            "interval": mean_interval(self.value),
            "draw_stderr": float(self.stderr.square().sum().sqrt()) / max(len(self.stderr), 1),
            "over_ode": mean_with_stderr((self.value - ode_value)[~ode_value.isnan()]),
            "nfe": self.nfe,
            "terms": self.terms,
        }


def mean_with_stderr(values: Tensor) -> dict[str, float]:
    """Mean ``value`` and its ``stderr`` over the events, ``(n,)``; NaN where there are too few."""
    n = len(values)
    return {
        "value": float(values.mean()) if n else math.nan,
        "stderr": float(values.std()) / math.sqrt(n) if n > 1 else math.nan,
    }


def mean_interval(values: Tensor) -> list[float]:
    """Both ends of the 95 % interval of the mean over the events, ``(n,)``, by Student's t; NaN for fewer than two."""
    mean = mean_with_stderr(values)
    stderr, dof = torch.tensor([mean["stderr"], len(values) - 1.0], dtype=torch.float64)
    half = float(student_half_width(stderr, dof, 0.95)) if len(values) > 1 else math.nan
    return [mean["value"] - half, mean["value"] + half]


def bound_events(
    model: ScoreModel,
    y: Tensor,
    settings: BoundSettings,
    *,
    dequantization: Dequantization | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
    announce: Callable[[str], None] | None = None,
    **cond: Any,
) -> list[BoundSummary]:
    """The bounds on every event: in continuous time, then along each chain.

    Args:
        model: Carries the data's description.
        y: Integer values, or floats in data units, ``(n, *D)``, on the model's device.
        settings: Settings of the bounds.
        dequantization: Distribution of the offset within a bin; default `default_dequantization`.
        seed: Seed of noise, timesteps and dequantization.
        batch_size: Events at once.
        progress: Shows a progress bar for each bound.
        announce: Receives the name of each bound before its estimate starts.
        **cond: Passed to the network, in model units, one entry per event.

    Returns:
        Two bounds in continuous time for integer values, one for floats; one per chain.
    """
    description = model.data
    assert description is not None
    quantized = description.bins is not None
    dequantization = dequantization or default_dequantization(model)
    x, profile = y if quantized else _continuous(description, y, seed), _profile(model, y, dequantization, seed, cond)
    estimates = _Estimates(model, x, settings, profile, seed, batch_size, progress, announce, cond)
    if not quantized:
        return [estimates.continuous("continuous"), *(estimates.discrete(model, steps) for steps in settings.steps)]
    tau = decoding_time(model)
    sde, variance = replace(gaussian_process(model), tau_min=tau), model.learned_variance
    decoded = ScoreModel(model.net, sde, model.parameterization, model.event_shape, description, variance)
    return [
        estimates.continuous("continuous, dequantized", dequantization=dequantization),
        estimates.continuous("continuous, decoder", decoder=RoundedDecoder(), tau=tau),
        *(estimates.discrete(decoded, steps, RoundedDecoder()) for steps in settings.steps),
    ]


def _continuous(description: Description, y: Tensor, seed: int) -> Tensor:
    """Model units of data without bins; the rows of a table are dequantized once."""
    generator = torch.Generator(y.device).manual_seed(seed)
    return description.to_model(description.dequantize(y, generator) if description.is_quantized(y) else y)


def decoding_time(model: ScoreModel) -> float:
    """OU time where σ/α is a third of the width of the narrowest bin; at least ``tau_min``.

    Args:
        model: Carries the description of quantized data.
    """
    assert model.data is not None
    scale = model.data.scale
    assert scale is not None
    bin_width = 1.0 / (max(scale) if isinstance(scale, tuple) else scale)
    return max(model.sde.tau_min, float(ou.tau_from_log_snr(-2.0 * math.log(_DECODER_NOISE * bin_width))))


def _profile(
    model: ScoreModel, y: Tensor, dequantization: Dequantization, seed: int, cond: Mapping[str, Any]
) -> ErrorProfile | None:
    """The error profile on the first events, from separate noise; None for a single event."""
    if len(y) < 2:
        return None
    generator, description = torch.Generator(y.device).manual_seed(seed + 1), model.data
    assert description is not None
    first = y[:_PROFILE_EVENTS]
    if description.bins is not None:
        first = dequantization.draw(first, Noise(generator))[0]
    x = description.to_model(first) if description.bins is not None else _continuous(description, first, seed)
    given = {name: value[:_PROFILE_EVENTS] for name, value in cond.items()}
    return measure_error_profile(model, x, points=16, generator=generator, **given)


@dataclass(frozen=True, eq=False)
class _Estimates:
    """Estimates of several bounds on the same events."""

    model: ScoreModel
    x: Tensor
    settings: BoundSettings
    profile: ErrorProfile | None
    seed: int
    batch_size: int | None
    progress: bool
    announce: Callable[[str], None] | None
    cond: Mapping[str, Any]

    def _options(self, name: str) -> dict[str, Any]:
        if self.announce is not None:
            self.announce(name)
        generator = torch.Generator(self.x.device).manual_seed(self.seed)
        options: dict[str, Any] = {"profile": self.profile, "generator": generator}
        return options | {"batch_size": self.batch_size, "progress": self.progress, **self.cond}

    def continuous(
        self,
        name: str,
        *,
        dequantization: Dequantization | None = None,
        decoder: Decoder | None = None,
        tau: float | None = None,
    ) -> BoundSummary:
        bound = continuous_vlb(
            self.model,
            self.x,
            decoder=decoder,
            decode_at=tau,
            dequantization=dequantization,
            evaluations=self.settings.evaluations,
            **self._options(name),
        )
        data_text = "as given" if dequantization is None else short_text(dequantization)
        return self._summary(name, data_text if decoder is None else self._decoder_text(decoder, tau), bound)

    def discrete(self, model: ScoreModel, steps: int, decoder: Decoder | None = None) -> BoundSummary:
        name, terms = f"discrete, {steps} steps", self.settings.evaluations
        bound = discrete_vlb(
            model,
            self.x,
            steps,
            grid=UniformLogSNR(),
            decoder=decoder,
            terms=terms if steps > terms else None,
            **self._options(name),
        )
        data_text = "as given" if decoder is None else self._decoder_text(decoder, model.sde.tau_min)
        return self._summary(name, f"uniform in log-SNR, {data_text}", bound)

    def _decoder_text(self, decoder: Decoder, tau: float | None) -> str:
        assert tau is not None
        return f"{short_text(decoder)} at sigma/alpha = {math.exp(-0.5 * ou.log_snr(tau)):.3g}"

    def _summary(self, name: str, settings: str, bound: Bound) -> BoundSummary:
        description = self.model.data
        assert description is not None
        terms = {key: float(value.mean()) for key, value in bound.terms.items()}
        low, high = bound.interval()
        if bound.bits is not None:
            unit = 1.0 / (bound.dims * math.log(2))
            numbers = (bound.nats * unit, bound.stderr * unit, low * unit, high * unit)
        else:
            log_det = description.log_det(self.x)
            numbers = (log_det - bound.nats, bound.stderr, log_det - high, log_det - low)
        return BoundSummary(name, settings, *numbers, terms, bound.nfe)
