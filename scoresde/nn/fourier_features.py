r"""Fourier features of the network input: $\sin(2\pi f x)$ and $\cos(2\pi f x)$ at octaves of a base frequency f.

They let a network resolve the bins of quantized data. Frequencies are Python floats, not buffers, so that
``.to(torch.bfloat16)`` cannot round them and ``.to_empty()`` cannot erase them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_positive

__all__ = ["FourierInput"]


@dataclass(frozen=True)
class FourierInput(CheckedArguments):
    r"""Appends $\sin(2\pi f x)$ and $\cos(2\pi f x)$ to the input, at $f = \mathrm{base} \cdot 2^n$, n in ``octaves``.

    Data of ``bins`` integer values on [-1, 1] have bins of width ``2 / bins``: ``base=bins / 2`` gives the top default
    octave exactly that period. The features of Kingma et al. (n = 7, 8 for 8-bit images) are ``base=128``.

    Attributes:
        base: Base frequency f in cycles per unit of x, > 0.
        octaves: Powers of two by which ``base`` is multiplied; integers, negative ones allowed.
        damped: Multiplies each feature by $e^{-(2\pi f\sigma)^2/2}$, its mean over noise of scale $\sigma$. A feature
            then stays near 0 until the noise is fine enough for it to carry information.

    Raises:
        ValueError: If ``base`` is not positive and finite, or ``octaves`` is empty or has a non-integer.

    Source: Kingma, Salimans, Poole & Ho 2021 (Variational Diffusion Models), section 5.1 and appendix C.
    """

    base: float
    octaves: tuple[int, ...] = (-1, 0)
    damped: bool = False

    def __post_init__(self) -> None:
        check_positive(base=self.base)
        if not len(self.octaves) or any(not float(n).is_integer() for n in self.octaves):
            raise ValueError(f"octaves must be one or more integers, got {self.octaves!r}; write octaves=(-1, 0).")

    @property
    def features_per_value(self) -> int:
        """Number of features per input value: the value, and a sine and a cosine per octave."""
        return 1 + 2 * len(self.octaves)

    def __call__(self, x: Tensor, log_snr: Tensor, dim: int = 1) -> Tensor:
        """Computes the features in at least float32: x first, then the sines, then the cosines.

        Args:
            x: Input, shape ``(B, *D)``.
            log_snr: Log-SNR of the input, nats, shape ``(B,)``; used only if ``damped``.
            dim: Axis along which the features are concatenated.

        Returns:
            As ``x``, with ``features_per_value`` times the length along ``dim``; half precision becomes float32.
        """
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        omegas = [2 * math.pi * self.base * 2.0**n for n in self.octaves]
        sines, cosines = [(omega * x).sin() for omega in omegas], [(omega * x).cos() for omega in omegas]
        if self.damped:
            variance = torch.sigmoid(-log_snr.to(x.dtype)).reshape(-1, *(1 for _ in x.shape[1:]))
            factors = [torch.exp(-0.5 * omega * omega * variance) for omega in omegas]
            sines = [factor * sine for factor, sine in zip(factors, sines, strict=True)]
            cosines = [factor * cosine for factor, cosine in zip(factors, cosines, strict=True)]
        return torch.cat([x, *sines, *cosines], dim)
