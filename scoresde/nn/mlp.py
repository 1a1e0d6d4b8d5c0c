r"""Which network suits vectors and small events? A residual MLP that flattens its input.

Each block is $h \leftarrow h + W_2\,\mathrm{SiLU}(W_1(a \odot \mathrm{LN}(h) + b))$ with scale a (near 1)
and shift b from the noise level and label (FiLM); the residual branches and the output start at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._checks import check_fraction, check_input, check_positive, check_sizes
from scoresde.nn._layers import zeroed
from scoresde.nn.embeddings import Conditioning, FourierInput

__all__ = ["MLP"]


class _Block(nn.Module):
    """Residual block: LayerNorm with adaptive scale and shift, two layers, dropout between them."""

    def __init__(self, width: int, embedding_width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.film = nn.Linear(embedding_width, 2 * width)
        self.enter = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.leave = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding).chunk(2, 1)
        update = torch.addcmul(shift, F.layer_norm(h, (self.width,)), scale + 1)
        return h + self.leave(self.drop(F.silu(self.enter(update))))


@dataclass(eq=False, repr=False)
class MLP(nn.Module):
    """Residual MLP over the flattened event; gives 0 before training.

    Attributes:
        event_shape: Shape of one sample, of any rank; ``()`` for numbers, that is x of shape ``(B,)``.
        width: Width of the residual stream.
        depth: Number of residual blocks, two layers each.
        embedding_width: Length of the vector that carries noise level and label to the blocks.
        dropout: Probability in [0, 1) of dropping a hidden unit while training.
        fourier: Features joined to the input, or None.
        log_snr_range: Noise levels told apart, nats; beyond them the network sees the nearer end.
        num_classes: Number of labels ``cond`` may take, or None.
        null_class: Whether a null label exists besides (see `LabelEmbedding`), as guidance needs.
        outputs: Values per entry of the event; more than one add a last axis to the output (see `Pointwise`).

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Source: blocks as in He et al. 2016 (pre-activation); adaptive scale and shift as in Perez et al. 2018 (FiLM).
    """

    event_shape: tuple[int, ...]
    width: int = 256
    depth: int = 4
    embedding_width: int = 64
    dropout: float = 0.0
    fourier: FourierInput | None = None
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    num_classes: int | None = None
    null_class: bool = False
    outputs: int = 1

    def __post_init__(self) -> None:
        super().__init__()
        self.event_shape = check_sizes("event_shape", self.event_shape)
        for name in ("width", "depth", "embedding_width", "outputs"):
            check_positive(name, getattr(self, name), whole=True)
        check_fraction("dropout", self.dropout)
        size, width = math.prod(self.event_shape), self.width
        self.condition = Conditioning(self.embedding_width, self.log_snr_range, self.num_classes, self.null_class)
        self.log_snr_range = self.condition.noise.log_snr_range
        self.enter = nn.Linear(size * (1 if self.fourier is None else self.fourier.copies), width)
        self.blocks = nn.ModuleList(_Block(width, self.embedding_width, self.dropout) for _ in range(self.depth))
        self.norm = nn.LayerNorm(width)
        self.leave = zeroed(nn.Linear(width, size * self.outputs))

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", or None where none is trained."""
        return self.condition.null_label

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised state, shape ``(B, *event_shape)``.
            log_snr: Noise level in nats, shape ``(B,)``; infinities are allowed.
            cond: Labels, whole numbers of shape ``(B,)``, or None.

        Returns:
            Shape and dtype of ``x``, with a last axis for several ``outputs``; computed in the weights' dtype.

        Raises:
            ValueError, TypeError: If a shape or dtype does not fit, or a label on the CPU is out of range.
        """
        check_input(x, log_snr, self.event_shape)
        embedding = self.condition(log_snr, cond)
        h = x.reshape(len(x), math.prod(self.event_shape))
        h = h if self.fourier is None else self.fourier(h, log_snr.clamp(*self.log_snr_range))
        h = self.enter(h.to(self.enter.weight.dtype))
        for block in self.blocks:
            h = block(h, embedding)
        shape = x.shape if self.outputs == 1 else (*x.shape, self.outputs)
        return self.leave(F.silu(self.norm(h))).reshape(shape).to(x.dtype)
