r"""Exact models of categories: mixtures of products, of which tables of states and Bernoulli mixtures are cases.

A component k has the probabilities $p_{kic}$ of class c at entry i. At OU time $\tau$ these become
$\bar\alpha p_{kic} + (1 - \bar\alpha)\pi_c$. So
$p(x_0 \mid x_\tau)$ is exact at every time, and so are the reverse rates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_finite, check_integer, check_tensor
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import as_time, expand
from scoresde.analytic.covariances import check_floating
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.codes import draw_codes, one_hot
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction

__all__ = ["BernoulliMixture", "CategoricalMixture", "DiscreteTable"]


class CategoricalMixture(Model):
    """Exact model of a mixture of K products of categorical distributions.

    Args:
        weights: ``(K,)``, positive; normalized to sum 1.
        probs: Probabilities of each class at each entry, ``(K, *D, C)``, which sum to 1; their type is the model's.
        process: The process of C classes, or of C at most in an entry; default ``Categorical(C)``.

    Raises:
        TypeError: If ``probs`` is not a floating tensor.
        ValueError: If the shapes or classes do not fit, a weight is not positive, or probabilities do not sum to 1.

    Example:
        >>> import torch
        >>> from scoresde.analytic import CategoricalMixture
        >>> coin = CategoricalMixture(torch.ones(1), torch.tensor([[[0.2, 0.8]]]))
        >>> coin.log_prob(torch.tensor([[1.0]])).exp()
        tensor([0.8000])
    """

    sde: DiscreteProcess
    log_weights: Tensor
    class_probs: Tensor

    def __init__(self, weights: Tensor, probs: Tensor, process: DiscreteProcess | None = None) -> None:
        super().__init__()
        check_arguments(CategoricalMixture, locals())
        check_tensor("probs", probs)
        if not probs.is_floating_point() or probs.ndim < 2:
            raise TypeError(f"probs must be a floating tensor (K, *D, C), got {probs.dtype} {tuple(probs.shape)}.")
        check_finite(probs, "probs")
        process = Categorical(probs.shape[-1]) if process is None else process
        if weights.shape != probs.shape[:1] or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {len(probs)} positive numbers, got {weights.tolist()}.")
        if process.most_classes != probs.shape[-1]:
            raise ValueError(
                f"probs must have one entry for each of the {process.most_classes} classes of the process on their "
                f"last axis, got {probs.shape[-1]}."
            )
        valid = process.valid_classes(probs)
        if valid is not None and (len(valid) != probs.shape[-2] or bool((probs > 0).masked_fill(valid, False).any())):
            raise ValueError(
                f"probs must be 0 at classes that an entry does not have, and have {len(valid)} entries, got the shape "
                f"{tuple(probs.shape)} for classes {process.classes}."
            )
        if not bool((probs >= 0).all()) or float((probs.sum(-1) - 1).abs().max()) > 1e-5:
            raise ValueError("probs must be at least 0 and sum to 1 over the classes; divide them by their sum.")
        self.sde = process
        self.event_shape = tuple(probs.shape[1:-1])
        self.register_buffer("log_weights", (weights.to(probs) / weights.to(probs).sum()).log())
        self.register_buffer("class_probs", probs.reshape(len(probs), -1, probs.shape[-1]))

    def _entry_probs(self, x: Tensor, tau: Scalar) -> Tensor:
        """q_k(x_i) at ``tau`` of each component and entry of x, ``(B, K, d)``."""
        x = (x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)).to(self.class_probs)
        padded = F.pad(self.class_probs, (0, self.sde.states - self.sde.most_classes))
        own = torch.einsum("bis,kis->bki", one_hot(x, self.sde.states), padded)
        keep, redraw = (expand(c, own) for c in (ou.alpha_bar(tau), ou.beta(tau, 0.0)))
        return keep * own + redraw * self.sde.noise_at(x).squeeze(-1).unsqueeze(1)

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> DiscretePrediction:
        """The exact probabilities of each entry's x_0 given the whole state x.

        Other entries that are impossible together, which a chain of few steps can draw, are ignored.
        """
        if cond:
            raise TypeError(f"an exact model reads no conditioning, got {', '.join(cond)}; leave it out.")
        return self.given_component(x, tau)

    def given_component(self, x: Tensor, tau: Scalar, log_likelihood: Tensor | None = None) -> DiscretePrediction:
        """The exact probabilities of x_0 given x and what else is known of the component.

        Args:
            x: ``(B, *D)``.
            tau: OU time, a number or ``(B,)``.
            log_likelihood: Log-likelihood of each component by other evidence, ``(B, K)``; None for no other.
        """
        log_q = self._entry_probs(x, tau).log()
        total = self.log_weights[:, None] + log_q.sum(-1, keepdim=True)
        total = total if log_likelihood is None else total + log_likelihood.to(total).unsqueeze(-1)
        others = torch.where(log_q > -math.inf, total - log_q, -math.inf)  # what the entries except i say of k
        others = torch.where(others.amax(1, keepdim=True) > -math.inf, others, self.log_weights[:, None])
        weights = torch.softmax(others, 1)
        evidence = torch.einsum("bki,kic->bic", weights, self.class_probs).log()
        evidence = evidence.reshape(*x.shape, self.sde.most_classes).to(x.dtype)
        return DiscretePrediction(x, tau, evidence, self.sde, evidence)

    def log_prob(self, x: ArrayLike, tau: Scalar = 0.0) -> Tensor:
        """Exact log-probability of x_τ, nats; -inf where it is impossible.

        Args:
            x: Codes, ``(B, *D)``.
            tau: OU time up to the end of the clock, a number or ``(B,)``; 0 for the distribution of the data.

        Returns:
            ``(B,)`` in the type of the model.

        Raises:
            ValueError: If ``x`` holds no codes or has another shape, or ``tau`` is out of range.
        """
        x = self.sde.checked_state(as_input(self, x, "x"))
        self._check_event(x)
        tau = as_time(tau, high=self.sde.tau_max * (1 + 1e-6))
        return torch.logsumexp(self.log_weights + self._entry_probs(x, tau).log().sum(-1), 1)

    def sample(self, n: int, tau: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Draws exact samples of x_τ.

        Args:
            n: Number of samples.
            tau: OU time up to the end of the clock; 0 for the distribution of the data.
            generator: Source of randomness; None means torch's global one.

        Returns:
            Codes ``(n, *D)`` in the type of the model.
        """
        check_arguments(CategoricalMixture.sample, locals())
        check_integer("n", n, 0)
        noise = Noise(generator)
        component = torch.multinomial(self.log_weights.exp(), max(n, 1), replacement=True, generator=generator)[:n]
        codes = self.draw(component, noise)
        return self.sde.perturb(codes, tau, self.sde.draw_noise(codes, noise))

    def draw(self, component: Tensor, noise: Noise) -> Tensor:
        """Codes of given components at τ = 0, ``(n,)`` -> ``(n, *D)``."""
        probs = self.class_probs[component]
        codes = draw_codes(probs, noise.uniform(probs[..., 0])).to(probs)
        return codes.reshape(len(component), *(self.event_shape or ()))


class DiscreteTable(CategoricalMixture):
    """Exact model of an explicit distribution over states: each state is one component.

    Args:
        states: The states of positive probability, codes ``(K, *D)``.
        weights: Their probabilities, ``(K,)``, positive; normalized to sum 1. Default: equal.
        process: The process; default ``Categorical`` of as many classes as the largest code needs.
        dtype: Type of the model.

    Raises:
        ValueError: If the shapes do not fit, an entry is not a code, or a weight is not positive.

    Example:
        >>> import torch
        >>> from scoresde.analytic import DiscreteTable
        >>> table = DiscreteTable(torch.tensor([[0, 0], [1, 1]]))
        >>> table.log_prob(torch.tensor([[0.0, 0.0], [0.0, 1.0]])).exp()
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        states: Tensor,
        weights: Tensor | None = None,
        process: DiscreteProcess | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        check_arguments(DiscreteTable, locals())
        if not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating type, got {dtype}; float32 or float64 are usual.")
        states = states.to(dtype)
        process = Categorical(max(2, int(states.max()) + 1)) if process is None else process
        process.check_codes(states, "states", process.most_classes)
        weights = torch.ones(len(states), dtype=dtype, device=states.device) if weights is None else weights
        super().__init__(weights, one_hot(states, process.most_classes), process)


class BernoulliMixture(CategoricalMixture):
    """Exact model of a mixture of K products of Bernoulli distributions, for bits.

    Args:
        weights: ``(K,)``, positive; normalized to sum 1.
        probs: Probabilities of a 1, ``(K, *D)``, in [0, 1]; their type is the model's.
        process: The process of two classes; default `Binomial`.

    Raises:
        TypeError, ValueError: As `CategoricalMixture`.
    """

    def __init__(self, weights: Tensor, probs: Tensor, process: DiscreteProcess | None = None) -> None:
        check_arguments(BernoulliMixture, locals())
        super().__init__(weights, _two_classes(probs), Binomial() if process is None else process)


def _two_classes(probs: Tensor) -> Tensor:
    """Probabilities of 0 and 1, ``(K, *D, 2)``."""
    check_floating("probs", probs)
    return torch.stack([1 - probs, probs], -1)
