r"""A pointwise output head: $y_i = f(\phi(x_i), c_i(x), \lambda)$ with one small network f for all entries i.

The inner network reads the whole event and returns a context vector $c_i$ per entry. The head f, shared by all
entries, combines the entry's own Fourier features $\phi(x_i)$, its context and the log-SNR $\lambda$. Near the data the
map is the same for all entries: it depends on the edges of quantization bins, for example. So it needs sharp features
rather than a wide network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.checks import check_integer
from scoresde.nn._initialization import zero_init
from scoresde.nn._network_wrapper import NetworkWrapper
from scoresde.nn.embeddings import Conditioning
from scoresde.nn.fourier_features import FourierInput

__all__ = ["Pointwise"]


@dataclass(eq=False, repr=False, init=False)
class Pointwise(NetworkWrapper):
    """Adds a head shared by all entries to an inner network with ``outputs`` > 1; returns 0 before training.

    Attributes:
        net: A network that returns ``(B, *D, outputs)``, such as ``MLP(..., outputs=16)``; it declares ``outputs``.
        fourier: Fourier features of each entry. For data of ``bins`` integer values on [-1, 1]:
            ``FourierInput(bins / 2, (0, 1, 2, 3), damped=True)``.
        width: Width of the head.
        embedding_width: Width of the head's log-SNR embedding.

    Raises:
        ValueError: If a setting is not positive, or ``net`` does not declare more than one output.
    """

    net: nn.Module
    fourier: FourierInput
    width: int = 48
    embedding_width: int = 64

    def __init__(self, net: nn.Module, fourier: FourierInput, width: int = 48, embedding_width: int = 64) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        self.net, self.fourier, self.width, self.embedding_width = net, fourier, width, embedding_width
        for name in ("width", "embedding_width"):
            check_integer(name, getattr(self, name))
        context_width = getattr(self.net, "outputs", 1)
        if context_width < 2:
            raise ValueError(
                f"net must have several outputs per entry, its context, got outputs={context_width}; build it with "
                "outputs=16, for example."
            )
        self.conditioning = Conditioning(self.embedding_width, self.log_snr_range, delta=self.delta)
        self.linear_in = nn.Linear(self.fourier.features_per_value + context_width, self.width)
        self.linear_hidden = nn.Linear(self.width, self.width)
        self.film = nn.Linear(self.embedding_width, 4 * self.width)
        self.linear_out = zero_init(nn.Linear(self.width, 1))

    @property
    def observed(self) -> bool:
        """Whether the inner network reads which entries of x are observed."""
        return bool(getattr(self.net, "observed", False))

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        *,
        augment: Tensor | None = None,
        observed: Tensor | None = None,
        delta: Tensor | None = None,
        **cond: Tensor | None,
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised state, shape ``(B, *D)``.
            log_snr: Log-SNR in nats, shape ``(B,)``; infinities are allowed.
            augment, observed: Passed to the inner network if not None.
            delta: Angle of the jump, radians, ``(B,)``, for the inner network and the head; None for no jump.
            **cond: Conditions of the inner network by name.

        Returns:
            Shape and dtype of ``x``; computed in the weights' dtype.

        Raises:
            ValueError, TypeError: As the inner network.
        """
        context = self._inner_output(x, log_snr, augment=augment, observed=observed, delta=delta, **cond)
        low, high = self.conditioning.log_snr_embedding.log_snr_range
        features = self.fourier(x.unsqueeze(-1), log_snr.clamp(low, high), dim=-1)
        h = self.linear_in(torch.cat([features.to(context.dtype), context], -1).to(self.linear_in.weight.dtype))
        per_sample = (x.shape[0], *(1 for _ in x.shape[1:]), self.width)
        film = [part.reshape(per_sample) for part in self.film(self.conditioning(log_snr, delta=delta)).chunk(4, 1)]
        h = F.silu(torch.addcmul(film[1], h, film[0] + 1))
        h = h + F.silu(torch.addcmul(film[3], self.linear_hidden(h), film[2] + 1))
        return self.linear_out(h).squeeze(-1).to(x.dtype)
