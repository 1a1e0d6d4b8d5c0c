r"""Diverged samples: finite values $x = \alpha x_0 + \sigma\varepsilon$ far outside the range that the data can have.

A method that is unstable on its grid returns finite numbers that look like samples. The check compares them with the
data's range in model units. It takes its tolerance from what is known of the data:

| known | largest absolute value admitted |
|---|---|
| an exact model: its components | 100 × the largest value that it draws |
| a description with a range | 100 × its largest absolute value |
| nothing: data of variance about 1 | 10 000, and a root mean square of 1000 |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde._core.tensors import has_values
from scoresde.data import Description
from scoresde.model import Model
from scoresde.process import ou

if TYPE_CHECKING:
    from scoresde.sampling.base import Sampler

__all__ = ["MagnitudeLimit", "guidance_remedy"]

_KNOWN, _UNIT, _UNIT_RMS = 100.0, 1e4, 1e3  # see above
_NOISE = 10.0  # magnitude that noise of variance 1 hardly ever exceeds


class MagnitudeLimit:
    """The magnitudes in x beyond which the values of a batch cannot be samples of a model.

    Args:
        model: The model.
        tau: OU time of the samples.
        init: The first state if the caller gave it, in x; larger values there widen the limit.
    """

    def __init__(self, model: Model, tau: float, init: Tensor | None = None) -> None:
        largest, rms, self.reason = _data_limits(model)
        self._model = model
        start = 1.0
        if init is not None and init.numel() and has_values(init):
            start = max(1.0, float(init.abs().amax()))
        noise = _NOISE * ou.sigma(tau)
        self.largest, self.rms = start * (largest + noise), start * (rms + noise)

    def check(self, x: Tensor, sampler: Sampler) -> bool:
        """Whether the values are finite; diverged ones are an error. Waits for the device once.

        Args:
            x: Samples, ``(B, *D)``. Without elements or values (meta, fake) they pass.
            sampler: The sampler, for the message.

        Raises:
            RuntimeError: If finite values are too large; names the sampler, its grid and the remedies.
        """
        if not has_values(x) or not x.numel():
            return True
        magnitude = x.abs()
        rms = (magnitude / self.rms).square().mean().sqrt()  # relative to the limit, so that it hardly overflows
        largest, relative_rms = torch.stack([magnitude.amax(), rms]).tolist()
        if not math.isfinite(largest):
            return False
        if largest <= self.largest and relative_rms <= 1.0:
            return True
        rows = magnitude.flatten(1).amax(1) if x.ndim > 1 else magnitude
        bound = self.rms if relative_rms > 1.0 else self.largest
        count = int((rows > bound).sum())
        raise RuntimeError(
            f"samples must have the scale of the data, but {sampler} diverged: {count} of {len(x)} samples exceed "
            f"|x| = {bound:.3g} in model units ({self.reason}); the largest value is {largest:.3g}. "
            f"{self._remedy(sampler)}"
        )

    def _remedy(self, sampler: Sampler) -> str:
        words = "Take more steps" if hasattr(sampler, "steps") else "Take a smaller tolerance"
        if hasattr(sampler, "grid"):
            words += ", or another grid such as Karras() or DenseEnds()"
        if getattr(sampler, "prediction", None) == "eps":
            words += ', or prediction="v" or "x0"'
        words += "; if that does not help, train the network longer at late tau."
        return f"{guidance_remedy(self._model)}{words}"


def guidance_remedy(model: Model) -> str:
    """What to do about a guided model that diverges, a sentence and a space; empty for others."""
    scale = getattr(model, "scale", None)
    scales = list(scale.values()) if isinstance(scale, Mapping) else [scale]
    if model.why_guided() is None or not all(isinstance(value, (int, float, Tensor)) for value in scales):
        return ""
    largest = max(float(torch.as_tensor(value).abs().max()) for value in scales)
    return f"Lower the guidance scale, {largest:g}, or guide in an interval only. "


def _data_limits(model: Model) -> tuple[float, float, str]:
    """The largest absolute value and the root mean square of the data in model units, and their origin in words."""
    exact, data = model.largest_value(), model.data
    if exact is not None:
        limit = _KNOWN * max(exact, 1.0)
        return limit, limit, f"{_KNOWN:g} times the largest value of the exact model"
    declared = None if data is None else _declared_range(data)
    if data is not None and declared is not None:
        limit = _KNOWN * max(declared, 1.0)
        return limit, limit, f"{_KNOWN:g} times the declared range of {data.name!r}"
    return _UNIT, _UNIT_RMS, "data in model units have a variance of about 1"


def _declared_range(description: Description) -> float | None:
    """Largest absolute value in model units that the declared range admits; None if the range is not bounded."""
    if description.low is None or description.high is None:
        return None
    ends = torch.tensor([[description.low], [description.high]], dtype=torch.float64)
    offset, scale = (torch.as_tensor(c, dtype=torch.float64) for c in (description.offset, description.scale))
    return float(((ends - offset) / scale).abs().amax())
