r"""Embeddings of what a network is conditioned on: log-SNR, conditions, augmentation parameters, angle of a jump.

Log-SNR $\lambda$ is encoded by $\sin(\omega_j(\lambda - \lambda_{lo}))$ and $\cos(\omega_j(\lambda - \lambda_{lo}))$
with geometric periods $2\pi/\omega_j$; augmentation parameters by a linear map; the angle $\Delta$ of a jump by
$\sin j\Delta$ and $1 - \cos j\Delta$, which are 0 without a jump; conditions by the layers that they declare.
Frequencies are computed in each call, not stored as buffers: ``.to(torch.bfloat16)`` cannot round them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer, check_positive
from scoresde.nn._argument_checks import check_delta, check_interval
from scoresde.nn._condition_encoders import TokenPooling
from scoresde.nn._condition_inputs import check_declared, complete
from scoresde.nn._execution import full_precision
from scoresde.nn._initialization import zero_init
from scoresde.nn.conditions import Condition

__all__ = ["Conditioning", "JumpEmbedding", "LogSNREmbedding"]


@dataclass(eq=False, repr=False)
class LogSNREmbedding(CheckedArguments, nn.Module):
    r"""Sinusoidal embedding of log-SNR: sines and cosines at geometric periods, then two learned layers.

    The longest period is twice the range, so the slowest cosine alone is injective on it.
    **Saturates**: a log-SNR outside ``log_snr_range``, infinities included, is clamped to it. NaN stays NaN.

    Attributes:
        width: Width of the embedding.
        log_snr_range: Lowest and highest log-SNR that the embedding resolves, nats.
        periods: Number of sine-cosine pairs.
        shortest_period: Period of the fastest pair, nats. A shorter one resolves more and makes ODEs in time stiffer.

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
        check_integer("width", self.width)
        check_integer("periods", self.periods)
        check_positive(shortest_period=self.shortest_period)
        self.log_snr_range = check_interval("log_snr_range", self.log_snr_range)
        self.linear_in = nn.Linear(2 * self.periods, self.width)
        self.linear_out = nn.Linear(self.width, self.width)

    def features(self, log_snr: Tensor) -> Tensor:
        """The sines and cosines before the learned layers.

        Args:
            log_snr: Nats, shape ``(B,)``, any floating dtype.

        Returns:
            Shape ``(B, 2 * periods)``, in float32, or float64 when the weights are.
        """
        low, high = self.log_snr_range
        dtype = torch.promote_types(self.linear_in.weight.dtype, torch.float32)
        slowest, fastest = (math.log2(2 * math.pi / p) for p in (2 * (high - low), self.shortest_period))
        omega = torch.logspace(slowest, fastest, self.periods, base=2.0, dtype=dtype, device=log_snr.device)
        phase = torch.outer(log_snr.to(dtype).clamp(low, high) - low, omega)
        return torch.cat([phase.sin(), phase.cos()], 1)

    def forward(self, log_snr: Tensor) -> Tensor:
        """Embedding of shape ``(B, width)`` in the weights' dtype, for ``log_snr`` of shape ``(B,)``."""
        features = self.features(log_snr).to(self.linear_in.weight.dtype)
        return self.linear_out(F.silu(self.linear_in(features)))


@dataclass(eq=False, repr=False)
class JumpEmbedding(CheckedArguments, nn.Module):
    r"""Embedding of the angle Δ of a jump: $\sin j\Delta$ and $1 - \cos j\Delta$, then two learned layers; starts at 0.

    All features are 0 at Δ = 0, and the last layer starts at 0: a network that gets this embedding in addition to the
    others is unchanged until it is trained.

    Attributes:
        width: Width of the embedding.
        harmonics: Number of multiples j of Δ.

    Raises:
        ValueError: If a setting is not positive.
    """

    width: int
    harmonics: int = 12

    def __post_init__(self) -> None:
        super().__init__()
        check_integer("width", self.width)
        check_integer("harmonics", self.harmonics)
        self.linear_in = nn.Linear(2 * self.harmonics, self.width)
        self.linear_out = zero_init(nn.Linear(self.width, self.width))

    def forward(self, delta: Tensor) -> Tensor:
        """Embedding of shape ``(B, width)`` in the weights' dtype, for angles of shape ``(B,)``, radians."""
        dtype = torch.promote_types(self.linear_in.weight.dtype, torch.float32)
        multiples = torch.arange(1, self.harmonics + 1, dtype=dtype, device=delta.device)
        phase = torch.outer(delta.to(dtype), multiples)
        features = torch.cat([phase.sin(), 2.0 * (0.5 * phase).sin().square()], 1)
        return self.linear_out(F.silu(self.linear_in(features.to(self.linear_in.weight.dtype))))


@dataclass(eq=False, repr=False)
class Conditioning(CheckedArguments, nn.Module):
    """The conditioning vector of a network: SiLU of the sum of its embeddings, that of log-SNR first.

    Attributes:
        width: Width of the vector.
        log_snr_range: As in `LogSNREmbedding`.
        conditions: Conditions by name that enter through the vector: classes, vectors, and tokens, which are averaged
            (see `scoresde.nn.conditions`).
        augment: Number of augmentation parameters, all 0 for an unchanged event (Karras et al. 2022, app. F.2).
        delta: Whether the angle of a jump is read, as the networks of few-step students do (`JumpEmbedding`).

    Raises:
        ValueError: If an embedding refuses its settings, or a condition enters as channels.
        TypeError: If a condition is not a `Condition`.
    """

    width: int
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    augment: int = 0
    delta: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.conditions = check_declared(self.conditions)
        self.log_snr_embedding = LogSNREmbedding(self.width, self.log_snr_range)
        for name, condition in self.conditions.items():
            self.add_module(f"{name}_embedding", self._encoder(name, condition))
        check_integer("augment", self.augment, least=0)
        self.augment_embedding = nn.Linear(self.augment, self.width, bias=False) if self.augment else None
        self.jump_embedding = JumpEmbedding(self.width) if self.delta else None

    def _encoder(self, name: str, condition: Condition) -> nn.Module:
        if condition.enters == "channels":
            raise ValueError(
                f"{name} enters at the input of a network, not as a vector, got {condition}; leave it out."
            )
        encoder = condition.encoder(self.width)
        return TokenPooling(encoder, self.width) if condition.enters == "tokens" else encoder

    def forward(
        self,
        log_snr: Tensor,
        cond: Mapping[str, Tensor | None] | None = None,
        augment: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> Tensor:
        """Embeds log-SNR, conditions, augmentation parameters and the angle of a jump.

        Args:
            log_snr: Nats, shape ``(B,)``.
            cond: Conditions by name, one entry per sample. One that is left out, or None, is null.
            augment: Augmentation parameters, ``(B, augment)``. None means zeros: unchanged events.
            delta: Angle of the jump, radians, ``(B,)``. None means zeros: no jump.

        Returns:
            Shape ``(B, width)`` in the weights' dtype, also under autocast: log-SNR is never rounded to bfloat16.

        Raises:
            ValueError, TypeError: If an input is given to a network that reads none, or of other shape; if a condition
                is missing without a null, or not of its kind; if a label on the CPU is out of range.
        """
        return self.embed(log_snr, complete(self, self.conditions, cond or {}, log_snr), augment, delta)

    def embed(
        self, log_snr: Tensor, cond: Mapping[str, Tensor], augment: Tensor | None, delta: Tensor | None
    ) -> Tensor:
        """The same for conditions that are complete and checked; other ones are ignored."""
        expected = log_snr.shape[0], self.augment
        if augment is not None and tuple(augment.shape) != expected:
            raise ValueError(
                f"augment must have shape {expected}, got {tuple(augment.shape)}; build the network with it."
            )
        check_delta(delta, self.delta, log_snr.shape[0])
        with full_precision(log_snr):
            embedding = self.log_snr_embedding(log_snr)
            for name in self.conditions:
                embedding = embedding + self.get_submodule(f"{name}_embedding")(cond[name])
            if self.augment_embedding is not None:  # applied to zeros too, so that its weight always has a gradient
                parameters = log_snr.new_zeros(expected) if augment is None else augment
                embedding = embedding + self.augment_embedding(parameters.to(embedding.dtype))
            if self.jump_embedding is not None:
                embedding = embedding + self.jump_embedding(torch.zeros_like(log_snr) if delta is None else delta)
            return F.silu(embedding)
