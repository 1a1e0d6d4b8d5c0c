r"""Initial state of the forward process given data: clean data at $\tau = 0$, or a noised state at ``tau_min``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_event_shape, check_finite
from scoresde._core.noise import Noise
from scoresde._core.tensors import event_size, widest_dtype
from scoresde.likelihood.bounds.decoder import Decoder
from scoresde.likelihood.dequantize import Dequantization
from scoresde.model import Model

__all__ = ["InitialState", "check_integer_data"]


@dataclass(frozen=True, eq=False)
class InitialState:
    """Where the forward process starts: at clean data (OU time 0), or at states that carry the noise of ``tau_min``.

    Attributes:
        model: Carries process and description.
        tau_start: OU time of the initial state: 0 with a decoder, ``tau_min`` without one.
        decoder: Distribution of clean data given the first noised state; None if ``tau_start`` > 0.
        dequantization: Distribution of the offset within a bin, or None.
        quantized: Whether the data are integer values.
    """

    model: Model
    tau_start: float
    decoder: Decoder | None
    dequantization: Dequantization | None
    quantized: bool

    @classmethod
    def of(
        cls, model: Model, data: Tensor, decoder: Decoder | None, dequantization: Dequantization | None
    ) -> InitialState:
        """The initial state of these data, after checks of all arguments.

        Raises:
            ValueError: If integer data have no description with bins or lie outside their range; if a shape does not
                fit or a float is not finite; if a dequantization comes with a decoder or with floats.
        """
        quantized = not data.is_floating_point()
        if dequantization is not None and (decoder is not None or not quantized):
            problem = (
                "a decoder as well; leave one of them out."
                if quantized
                else f"data of {data.dtype}; pass integer values."
            )
            raise ValueError(f"a dequantization adds noise to integer values, got {problem}")
        if quantized:
            check_integer_data(model, data)
        else:
            check_event_shape(data, model.event_shape, "data")
            check_finite(data, "data")
        return cls(model, model.sde.tau_min if decoder is None else 0.0, decoder, dequantization, quantized)

    def draw(self, data: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """One draw of the initial state of the data.

        Returns:
            The state x, ``(B, *D)`` of the widest float type, and the terms that lead from its density to that of the
            data, nats, each ``(B,)`` float64.
        """
        dtype, sde, description = widest_dtype(data.device), self.model.sde, self.model.data
        if not self.quantized:
            x, terms = data.to(dtype), {}
        elif self.dequantization is None:
            assert description is not None
            return description.to_model(data.to(dtype) + 0.5), {}
        else:
            assert description is not None
            y, log_q = self.dequantization.draw(data, noise)
            x = description.to_model(y)
            terms = {"dequantization": log_q - description.log_det(x)}
        if self.tau_start > 0:
            scale = float(sde.scale(self.tau_start))
            x, log_volume = x / scale, event_size(x) * math.log(scale)
            terms["reconstruction"] = torch.full((len(x),), log_volume, dtype=torch.float64, device=x.device)
        return x, terms


def check_integer_data(model: Model, data: Tensor) -> None:
    """Refuses integer data if the model does not know their bins, or if they lie outside their range.

    Raises:
        ValueError: States which of the two applies.
    """
    description = model.data
    if description is None or description.bins is None:
        problem = "a model without a description" if description is None else f"{description.name!r} with bins=None"
        raise ValueError(
            f"bits per dimension need quantized data with their bins and scale, got {problem}; set model.data = "
            "Description(name, shape, bins=..., scale=...), or pass floats and report nats."
        )
    description.validate(data)
