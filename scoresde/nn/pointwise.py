"""How does a network see the whole event and the fine digits of each entry? A context per entry, one shared head.

The inner network reads the event and gives each entry a vector of context; a small network, the same for all entries,
turns (the entry's own features, its context, the noise level) into the entry's output. What happens near the data (the
edges of quantization bins, say) is alike for all entries and needs no wide network, only sharp features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._checks import check_positive
from scoresde.nn._layers import zeroed
from scoresde.nn._wrapper import NetworkWrapper
from scoresde.nn.embeddings import Conditioning, FourierInput

__all__ = ["Pointwise"]


@dataclass(eq=False, repr=False, init=False)
class Pointwise(NetworkWrapper):
    """Gives an inner network with ``outputs=context`` a head that is shared by all entries; gives 0 before training.

    Attributes:
        net: A network that returns ``(B, *D, context)``, such as ``MLP(..., outputs=16)``; it states its ``outputs``.
        fourier: Features of each entry by itself. For data of ``bins`` levels on [-1, 1]:
            ``FourierInput(bins / 2, (0, 1, 2, 3), damped=True)``.
        width: Width of the head.
        embedding_width: Length of the vector that carries the noise level to the head.

    Raises:
        ValueError: If a setting is not positive, or ``net`` does not state more than one output.
    """

    net: nn.Module
    fourier: FourierInput
    width: int = 48
    embedding_width: int = 64

    def __init__(self, net: nn.Module, fourier: FourierInput, width: int = 48, embedding_width: int = 64) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        self.net, self.fourier, self.width, self.embedding_width = net, fourier, width, embedding_width
        for name in ("width", "embedding_width"):
            check_positive(name, getattr(self, name), whole=True)
        context = getattr(self.net, "outputs", 1)
        if context < 2:
            raise ValueError(
                f"net must state several outputs, its context, got outputs={context}; build it with 16, say."
            )
        self.condition = Conditioning(self.embedding_width, self.log_snr_range)
        self.enter = nn.Linear(self.fourier.copies + context, self.width)
        self.middle = nn.Linear(self.width, self.width)
        self.film = nn.Linear(self.embedding_width, 4 * self.width)
        self.leave = zeroed(nn.Linear(self.width, 1))

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised state, shape ``(B, *D)``.
            log_snr: Noise level in nats, shape ``(B,)``; infinities are allowed.
            cond, augment: Passed to the inner network, where they are not None.

        Returns:
            Shape and dtype of ``x``; computed in the weights' dtype.

        Raises:
            ValueError, TypeError: As the inner network.
        """
        context = self._inner(x, log_snr, cond, augment)
        low, high = self.condition.noise.log_snr_range
        own = self.fourier(x.unsqueeze(-1), log_snr.clamp(low, high), dim=-1)
        h = self.enter(torch.cat([own.to(context.dtype), context], -1).to(self.enter.weight.dtype))
        per_sample = (len(x), *(1 for _ in x.shape[1:]), self.width)
        film = [part.reshape(per_sample) for part in self.film(self.condition(log_snr)).chunk(4, 1)]
        h = F.silu(torch.addcmul(film[1], h, film[0] + 1))
        h = h + F.silu(torch.addcmul(film[3], self.middle(h), film[2] + 1))
        return self.leave(h).squeeze(-1).to(x.dtype)
