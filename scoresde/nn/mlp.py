r"""A residual multilayer perceptron (MLP) over the flattened event, for vectors and small events.

Each block is $h \leftarrow h + W_2\,\mathrm{SiLU}(W_1(a \odot \mathrm{LN}(h) + b))$. The embedding of log-SNR and
conditions gives the scale a (near 1) and the shift b (FiLM). Residual branches and the output layer start at zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer
from scoresde.nn._argument_checks import check_input, check_probability, check_sizes
from scoresde.nn._condition_inputs import ChannelInputs, check_declared, complete, entering
from scoresde.nn._former_settings import FormerClasses
from scoresde.nn._initialization import zero_init
from scoresde.nn.conditions import Condition
from scoresde.nn.embeddings import Conditioning
from scoresde.nn.fourier_features import FourierInput

__all__ = ["MLP"]


class _Block(nn.Module):
    """Residual block: LayerNorm with adaptive scale and shift, two layers, dropout between them."""

    def __init__(self, width: int, embedding_width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.film = nn.Linear(embedding_width, 2 * width)
        self.linear_in = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.linear_out = zero_init(nn.Linear(width, width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding).chunk(2, 1)
        update = torch.addcmul(shift, F.layer_norm(h, (self.width,)), scale + 1)
        return h + self.linear_out(self.dropout(F.silu(self.linear_in(update))))


@dataclass(eq=False, repr=False)
class MLP(FormerClasses, CheckedArguments, nn.Module):
    """Residual MLP over the flattened event, conditioned on log-SNR and named inputs; returns 0 before training.

    Attributes:
        event_shape: Shape of one sample, of any rank; ``()`` for scalar data, i.e. x of shape ``(B,)``.
        width: Width of the residual stream.
        depth: Number of residual blocks of two layers each.
        embedding_width: Width of the conditioning vector (log-SNR and conditions).
        dropout: Probability in [0, 1) of dropping a hidden unit in training.
        fourier: Fourier features appended to the input, or None.
        log_snr_range: Range of log-SNR that the network resolves, nats; values outside are clamped to it.
        conditions: The network's further inputs by name, ``{"label": Classes(10)}``, see `scoresde.nn.conditions`.
            Tokens enter by the mean of a function of each; channels are flattened and concatenated to the input.
        outputs: Values per entry of the event; more than one add a last axis to the output (see `Pointwise`).
        observed: Whether the network reads which entries of x are observed, as data with missing values need.
        delta: Whether the network reads the angle of a jump, as few-step students do (`scoresde.distillation`).

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:
        >>> import torch
        >>> from scoresde import MLP
        >>> MLP((3,), width=32, depth=2)(torch.randn(4, 3), log_snr=torch.zeros(4)).shape
        torch.Size([4, 3])

    Source: He et al. 2016 (pre-activation residual blocks); Perez et al. 2018 (FiLM: adaptive scale and shift).
    """

    event_shape: tuple[int, ...]
    width: int = 256
    depth: int = 4
    embedding_width: int = 64
    dropout: float = 0.0
    fourier: FourierInput | None = None
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    conditions: Mapping[str, Condition] = field(default_factory=dict, metadata={"write": "if set"})
    outputs: int = 1
    observed: bool = field(default=False, metadata={"write": "if set"})
    delta: bool = field(default=False, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        super().__init__()
        self.event_shape = check_sizes("event_shape", self.event_shape)
        for name in ("width", "depth", "embedding_width", "outputs"):
            check_integer(name, getattr(self, name))
        check_probability("dropout", self.dropout)
        size, width = math.prod(self.event_shape), self.width
        self.conditions = check_declared(self.conditions)
        self.channel_inputs = ChannelInputs(self.conditions, self.event_shape)
        inputs = size * ((1 if self.fourier is None else self.fourier.features_per_value) + bool(self.observed))
        inputs += self.channel_inputs.features * math.prod(self.event_shape[1:])
        embedded = entering(self.conditions, "vector", "tokens")
        self.conditioning = Conditioning(self.embedding_width, self.log_snr_range, embedded, delta=self.delta)
        self.log_snr_range = self.conditioning.log_snr_embedding.log_snr_range
        self.linear_in = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(_Block(width, self.embedding_width, self.dropout) for _ in range(self.depth))
        self.norm = nn.LayerNorm(width)
        self.linear_out = zero_init(nn.Linear(width, size * self.outputs))

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        *,
        observed: Tensor | None = None,
        delta: Tensor | None = None,
        **cond: Tensor | None,
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised state, shape ``(B, *event_shape)``.
            log_snr: Log-SNR in nats, shape ``(B,)``; infinities are allowed.
            observed: Whether each entry of ``x`` is observed, the shape of ``x``, bool or 0 and 1; None means that all
                are. ``x`` should be 0 in the others.
            delta: Angle of the jump, radians, ``(B,)``, or None for no jump.
            **cond: Conditions by name, one entry per sample; one that is left out, or None, is null.

        Returns:
            Shape and dtype of ``x``, with a last axis for several ``outputs``; computed in the weights' dtype.

        Raises:
            ValueError, TypeError: If a shape or dtype does not fit, or a label on the CPU is out of range.
        """
        check_input(x, log_snr, self.event_shape)
        values = complete(self, self.conditions, cond, log_snr, self.event_shape)
        embedding = self.conditioning.embed(log_snr, values, None, delta)
        h = x.reshape(x.shape[0], math.prod(self.event_shape))
        h = h if self.fourier is None else self.fourier(h, log_snr.clamp(*self.log_snr_range))
        h = h.to(self.linear_in.weight.dtype)
        if self.observed or observed is not None:
            h = torch.cat([h, self._missing(x, observed).to(h.dtype)], 1)
        if self.channel_inputs.features:
            h = torch.cat([h, self.channel_inputs(values).to(h.dtype).flatten(1)], 1)
        h = self.linear_in(h)
        for block in self.blocks:
            h = block(h, embedding)
        shape = x.shape if self.outputs == 1 else (*x.shape, self.outputs)
        return self.linear_out(F.silu(self.norm(h))).reshape(shape).to(x.dtype)

    def _missing(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """1 where an entry of ``x`` is missing, else 0, ``(B, size)``."""
        if not self.observed:
            raise ValueError("observed must be None for this network, got a mask; build it as MLP(..., observed=True).")
        if observed is None:
            return x.new_zeros(x.shape[0], math.prod(self.event_shape))
        if observed.shape != x.shape:
            raise ValueError(f"observed must have the shape of x, {tuple(x.shape)}, got {tuple(observed.shape)}.")
        return 1 - observed.to(x.dtype).reshape(x.shape[0], math.prod(self.event_shape))
