"""Peers of the comparison of families: VAE, GAN, flow and continuous normalizing flow, each a loss and its samples."""

from __future__ import annotations

import copy
import importlib
import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.likelihood import TorchDiffEq, differentiable_log_prob, log_prob
from scoresde.metrics import sliced_wasserstein
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import VPSDE, Cosine, V
from scoresde.sampling import ODE, sample

__all__ = ["CNF", "GAN", "VAE", "Flow", "Peer"]


class Peer(nn.Module):
    """A model that is trained by its loss; its samples and densities are those of standardized values.

    Args:
        size: Values of an event.
    """

    rate, batch, betas = 1e-3, 256, (0.9, 0.999)

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def groups(self) -> list[list[nn.Parameter]]:
        """Weights with an optimizer each; ``losses`` has a loss for each."""
        return [list(self.parameters())]

    @abstractmethod
    def losses(self, x: Tensor) -> list[Callable[[], Tensor]]:
        """The loss of each group on a batch, evaluated in turn."""

    def log_prob(self, x: Tensor) -> Tensor | None:
        """Log-density, nats ``(B,)``, or None for a model without one."""
        return None

    def test_log_prob(self, x: Tensor) -> Tensor | None:
        """The same, more precise, for the test part."""
        return self.log_prob(x)

    @abstractmethod
    def draw(self, count: int) -> Tensor:
        """Samples, ``(count, size)``."""

    def score(self, x: Tensor) -> float:
        """Of validation rows, the higher the better."""
        log_probs = self.log_prob(x)
        if log_probs is not None:
            return float(log_probs.mean())
        return -float(sliced_wasserstein(self.draw(len(x)), x, generator=torch.Generator().manual_seed(0)))


def layers(*widths: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """A perceptron."""
    parts = [p for a, b in zip(widths, widths[1:]) for p in (nn.Linear(a, b), activation())]
    return nn.Sequential(*parts[:-1])


class VAE(Peer):
    """Encoder and decoder with diagonal Gaussians."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.latent = min(16, 2 * size)
        self.encoder = layers(size, 256, 256, 2 * self.latent)
        self.decoder = layers(self.latent, 256, 256, 2 * size)

    def _terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log q(z | x) at one random z."""
        mean, log_std = self.encoder(x).chunk(2, -1)
        z = mean + log_std.exp() * torch.randn_like(mean)
        q = torch.distributions.Normal(mean, log_std.exp()).log_prob(z).sum(-1)
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        return self._decoded(z).log_prob(x).sum(-1) + prior, q

    def _decoded(self, z: Tensor) -> torch.distributions.Normal:
        mean, log_std = self.decoder(z).chunk(2, -1)
        return torch.distributions.Normal(mean, log_std.clamp(min=-6.0).exp())

    def losses(self, x: Tensor) -> list[Callable[[], Tensor]]:
        joint, q = self._terms(x)
        return [lambda: (q - joint).mean()]

    def log_prob(self, x: Tensor, draws: int = 20) -> Tensor:
        each = [joint - q for joint, q in (self._terms(x) for _ in range(draws))]
        return torch.stack(each).double().logsumexp(0) - math.log(draws)

    def test_log_prob(self, x: Tensor) -> Tensor:
        return self.log_prob(x, draws=500)

    def draw(self, count: int) -> Tensor:
        return self._decoded(torch.randn(count, self.latent)).sample()


class GAN(Peer):
    """Generator and discriminator."""

    rate, betas, penalty = 5e-4, (0.5, 0.99), 0.1

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.latent = min(32, 4 * size)
        self.generator = layers(self.latent, 256, 256, size)
        self.discriminator = layers(size, 256, 256, 1, activation=nn.LeakyReLU)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    def groups(self) -> list[list[nn.Parameter]]:
        return [list(self.discriminator.parameters()), list(self.generator.parameters())]

    def losses(self, x: Tensor) -> list[Callable[[], Tensor]]:
        def discriminate() -> Tensor:
            real = x.detach().requires_grad_()
            logits = self.discriminator(real)
            slope = torch.autograd.grad(logits.sum(), real, create_graph=True)[0]
            fake = self.discriminator(self._generated(self.generator, len(x)).detach())
            return (F.softplus(-logits) + F.softplus(fake)).mean() + self.penalty * slope.square().sum(1).mean()

        def generate() -> Tensor:
            for slow, fast in zip(self.average.parameters(), self.generator.parameters()):
                slow.lerp_(fast.detach(), 0.005)
            return F.softplus(-self.discriminator(self._generated(self.generator, len(x)))).mean()

        return [discriminate, generate]

    def _generated(self, generator: nn.Module, count: int) -> Tensor:
        return generator(torch.randn(count, self.latent))

    def draw(self, count: int) -> Tensor:
        return self._generated(self.average, count)


class Flow(Peer):
    """zuko's neural spline flow."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.flow = importlib.import_module("zuko").flows.NSF(size, transforms=5, hidden_features=(128, 128))

    def losses(self, x: Tensor) -> list[Callable[[], Tensor]]:
        return [lambda: -self.log_prob(x).mean()]

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x)

    def draw(self, count: int) -> Tensor:
        return self.flow().sample((count,))


class CNF(Peer):
    """A field from data to noise, which no process constrains."""

    rate = 2e-3

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.model = ScoreModel(MLP((size,), width=128, depth=2), VPSDE(Cosine()), V())

    def losses(self, x: Tensor) -> list[Callable[[], Tensor]]:
        return [lambda: -self.log_prob(x).mean()]

    def log_prob(self, x: Tensor) -> Tensor:
        return differentiable_log_prob(self.model, x, adjoint=False, solver=TorchDiffEq(rtol=1e-3, atol=1e-3))

    def test_log_prob(self, x: Tensor) -> Tensor:
        return log_prob(self.model, x, seeds=range(len(x)), strict=True).log_prob

    def draw(self, count: int) -> Tensor:
        return sample(self.model, count, ODE(rtol=1e-4, atol=1e-4), generator=torch.Generator().manual_seed(0)).x
