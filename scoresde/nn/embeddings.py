r"""How does a network read its noise level, its label and the fine digits of its input?

The noise level arrives as log-SNR $\lambda$ and is read through $\sin(\omega_j(\lambda - \lambda_{lo}))$ and
$\cos(\omega_j(\lambda - \lambda_{lo}))$ with geometric periods $2\pi/\omega_j$; a label is looked up in a table; the
input may be joined by $\sin(2\pi f x)$ and $\cos(2\pi f x)$, which make quantization levels visible.
Frequencies are Python floats, not buffers: ``.to(torch.bfloat16)`` or ``.to_empty()`` cannot spoil them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._checks import check_label, check_positive, check_range
from scoresde.nn._layers import full_precision

__all__ = ["Conditioning", "FourierInput", "LabelEmbedding", "LogSNREmbedding"]


@dataclass(frozen=True)
class FourierInput:
    r"""Joins the input with $\sin(2\pi f x)$ and $\cos(2\pi f x)$ at $f = \mathrm{base} \cdot 2^n$, n in ``octaves``.

    Data of ``bins`` levels that fill [-1, 1] have bins of width ``2 / bins``: ``base=bins / 2`` gives the top default
    octave exactly that period. The features of Kingma et al. (n = 7, 8 for 8-bit pictures) are ``base=128``.

    Attributes:
        base: Base frequency f in cycles per unit of x, > 0.
        octaves: Powers of two by which ``base`` is multiplied; whole numbers, negative ones allowed.
        damped: Multiplies each feature by $e^{-(2\pi f\sigma)^2/2}$, its mean over noise of scale $\sigma$: a feature
            that the noise would turn into noise is off until the noise is fine enough for it.

    Raises:
        ValueError: If ``base`` is not positive and finite, or ``octaves`` is empty or not whole.

    Source: Kingma, Salimans, Poole & Ho 2021 (Variational Diffusion Models), section 5.1 and appendix C.
    """

    base: float
    octaves: tuple[int, ...] = (-1, 0)
    damped: bool = False

    def __post_init__(self) -> None:
        check_positive("base", self.base)
        if not self.octaves or any(n != int(n) for n in self.octaves):
            raise ValueError(f"octaves must be one or more whole numbers, got {self.octaves!r}; write octaves=(-1, 0).")

    @property
    def copies(self) -> int:
        """How many values one input value becomes: itself, and a sine and a cosine per octave."""
        return 1 + 2 * len(self.octaves)

    def __call__(self, x: Tensor, log_snr: Tensor, dim: int = 1) -> Tensor:
        """Features in at least float32, x first, then the sines, then the cosines.

        Args:
            x: Input, shape ``(B, *D)``.
            log_snr: Its noise level, nats, shape ``(B,)``; without effect unless ``damped``.
            dim: Axis along which the features are joined.

        Returns:
            As ``x``, with ``copies`` times the length along ``dim``; half precision becomes float32.
        """
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        omegas = [2 * math.pi * self.base * 2.0**n for n in self.octaves]
        sines, cosines = [(omega * x).sin() for omega in omegas], [(omega * x).cos() for omega in omegas]
        if self.damped:
            variance = torch.sigmoid(-log_snr.to(x.dtype)).reshape(-1, *(1 for _ in x.shape[1:]))
            kept = [torch.exp(-0.5 * omega * omega * variance) for omega in omegas]
            sines = [keep * sine for keep, sine in zip(kept, sines, strict=True)]
            cosines = [keep * cosine for keep, cosine in zip(kept, cosines, strict=True)]
        return torch.cat([x, *sines, *cosines], dim)


@dataclass(eq=False, repr=False)
class LogSNREmbedding(nn.Module):
    r"""Sines and cosines of log-SNR at geometric periods, then two learned layers.

    The longest period is twice the range, so that one cosine alone tells every level from every other.
    **Saturates**: a log-SNR outside ``log_snr_range`` is read as the nearer end, infinities included. NaN stays NaN.

    Attributes:
        width: Length of the embedding.
        log_snr_range: Lowest and highest log-SNR told apart, nats.
        periods: How many sine-cosine pairs.
        shortest_period: Period of the fastest pair, nats. Shorter ones resolve more and make ODEs in time stiffer.

    Raises:
        ValueError: If a setting is not positive, or the range is not finite and increasing.

    Source: Vaswani et al. 2017, section 3.5; on log-SNR in place of a step index, Kingma et al. 2021.
    """

    width: int = 128
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    periods: int = 32
    shortest_period: float = 2.0

    def __post_init__(self) -> None:
        super().__init__()
        check_positive("width", self.width, whole=True)
        check_positive("periods", self.periods, whole=True)
        check_positive("shortest_period", self.shortest_period)
        self.log_snr_range = check_range("log_snr_range", self.log_snr_range)
        self.enter = nn.Linear(2 * self.periods, self.width)
        self.leave = nn.Linear(self.width, self.width)

    def features(self, log_snr: Tensor) -> Tensor:
        """The sines and cosines before the learned layers.

        Args:
            log_snr: Nats, shape ``(B,)``, any floating dtype.

        Returns:
            Shape ``(B, 2 * periods)``, in float32, or float64 when the weights are.
        """
        low, high = self.log_snr_range
        dtype = torch.promote_types(self.enter.weight.dtype, torch.float32)
        slowest, fastest = (math.log2(2 * math.pi / p) for p in (2 * (high - low), self.shortest_period))
        omega = torch.logspace(slowest, fastest, self.periods, base=2.0, dtype=dtype, device=log_snr.device)
        phase = torch.outer(log_snr.to(dtype).clamp(low, high) - low, omega)
        return torch.cat([phase.sin(), phase.cos()], 1)

    def forward(self, log_snr: Tensor) -> Tensor:
        """Embedding of shape ``(B, width)`` in the weights' dtype, for ``log_snr`` of shape ``(B,)``."""
        features = self.features(log_snr).to(self.enter.weight.dtype)
        return self.leave(F.silu(self.enter(features)))


@dataclass(eq=False, repr=False)
class LabelEmbedding(nn.Module):
    """A learned vector per class, and one more for "no label" if guidance is to be used.

    Attributes:
        width: Length of the embedding.
        num_classes: Number of classes; labels are 0 ... ``num_classes - 1``.
        null_class: Whether there is a null label. It is ``num_classes``: to train it, replace some labels by it.

    Raises:
        ValueError: If a setting is not positive.

    Source: Ho & Salimans 2022 (classifier-free guidance), for the null label.
    """

    width: int
    num_classes: int
    null_class: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        check_positive("width", self.width, whole=True)
        check_positive("num_classes", self.num_classes, whole=True)
        self.table = nn.Embedding(self.num_classes + bool(self.null_class), self.width)
        nn.init.normal_(self.table.weight, std=0.02)

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", or None where none is trained."""
        return self.num_classes if self.null_class else None

    def forward(self, cond: Tensor) -> Tensor:
        """Looks the labels up.

        Args:
            cond: Labels, whole numbers of shape ``(B,)``.

        Returns:
            Shape ``(B, width)``.

        Raises:
            ValueError: If a label is out of range and ``cond`` is on the CPU. On a GPU the look-up itself stops the
                program with a device-side assertion; checking first would make every step wait for the device.
        """
        try:
            return self.table(cond)
        except IndexError as error:
            raise ValueError(
                f"labels must lie in 0 ... {self.table.num_embeddings - 1}, got {int(cond.min())} ... "
                f"{int(cond.max())}; num_classes is {self.num_classes} and "
                f"{'the null label is ' + str(self.null_label) if self.null_class else 'there is no null label'}."
            ) from error


@dataclass(eq=False, repr=False)
class Conditioning(nn.Module):
    """Everything a network is told besides its input, as one activated vector: SiLU(log-SNR + label + change).

    Attributes:
        width: Length of the vector.
        log_snr_range: As in `LogSNREmbedding`.
        num_classes, null_class: As in `LabelEmbedding`; ``num_classes=None`` for a network without labels.
        augment: How many numbers tell a change of the event, zeros for none (Karras et al. 2022, app. F.2).

    Raises:
        ValueError: If a setting is refused by the parts, or there is a null class but no classes.
    """

    width: int
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    num_classes: int | None = None
    null_class: bool = False
    augment: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        if self.null_class and self.num_classes is None:
            raise ValueError("null_class needs classes, got num_classes=None; state num_classes, or drop null_class.")
        self.noise = LogSNREmbedding(self.width, self.log_snr_range)
        self.label = None if self.num_classes is None else LabelEmbedding(self.width, self.num_classes, self.null_class)
        check_positive("augment", self.augment or 1, whole=True)
        self.change = nn.Linear(self.augment, self.width, bias=False) if self.augment else None

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", or None where none is trained."""
        return None if self.label is None else self.label.null_label

    def forward(self, log_snr: Tensor, cond: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Embeds noise levels, labels and changes.

        Args:
            log_snr: Nats, shape ``(B,)``.
            cond: Labels of shape ``(B,)``. None means the null label, where there is one.
            augment: Changes, ``(B, augment)``. None means zeros: as it is.

        Returns:
            Shape ``(B, width)`` in the weights' dtype, also under autocast: a noise level is never rounded to bfloat16.

        Raises:
            ValueError, TypeError: If ``cond`` or ``augment`` is given to a network that reads none, or of other shape;
                if ``cond`` is missing where there is no null label, not whole, or out of range (`LabelEmbedding`).
        """
        if cond is None and self.null_label is not None:
            cond = torch.full(log_snr.shape, self.null_label, dtype=torch.long, device=log_snr.device)
        check_label(cond, self.num_classes, len(log_snr))
        want = len(log_snr), self.augment
        if augment is not None and tuple(augment.shape) != want:
            raise ValueError(f"augment must have shape {want}, got {tuple(augment.shape)}; build the network with it.")
        with full_precision(log_snr):
            embedding = self.noise(log_snr) if self.label is None else self.noise(log_snr) + self.label(cond)
            if self.change is not None:  # zeros are read too, so that its weight always has a gradient
                told = log_snr.new_zeros(want) if augment is None else augment
                embedding = embedding + self.change(told.to(embedding.dtype))
            return F.silu(embedding)
