r"""Losses of processes of categories: the path KL, the chain's KL, and the weighted cross-entropy.

With $r_j$ the reverse rate to state j given $x_0$, and $\hat r_j$ the model's, the bound on $-\log p(x_0)$ in
continuous time is $\int d\tau\,E\sum_{j \neq x}(\hat r_j - r_j\log\hat r_j + r_j\log r_j - r_j)$. The chain's bound
tends to it as K grows, at first order. With the absorbing kernel only masked entries count, and the integrand is
$\tfrac{2\bar\alpha}{1 - \bar\alpha}$ times the cross-entropy: the bound is the same on every clock.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import has_values, widest_dtype
from scoresde.model import Model
from scoresde.objective.base import Objective
from scoresde.objective.loss import check_weighting, weight_at
from scoresde.objective.timesteps import DiscreteTimesteps, StratifiedTimesteps, TimestepDraw, Timesteps
from scoresde.objective.weighting import Simple, Weighting
from scoresde.process import ou
from scoresde.process.base import Marginal, Process
from scoresde.process.codes import at_codes, one_hot, over_states
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction

__all__ = ["ChainKL", "CrossEntropy", "PathKL", "chain_kl", "cross_entropy", "path_kl"]


def cross_entropy(prediction: DiscretePrediction, x0: Tensor) -> Tensor:
    r"""$-\log p(x_0 \mid x_\tau)$ of each entry, nats, ``(B, *D)``; 0 at unmasked entries of an absorbing process.

    Args:
        prediction: Of a process of categories.
        x0: Codes of the data, ``(B, *D)``.
    """
    return -at_codes(prediction.logits, x0)


def path_kl(prediction: DiscretePrediction, x0: Tensor) -> Tensor:
    r"""$\sum_{j \neq x}(\hat r_j - r_j\log\hat r_j + r_j\log r_j - r_j)$ of each entry, nats per unit of $\tau$.

    Args:
        prediction: Of a process of categories.
        x0: Codes of the data, ``(B, *D)``.

    Returns:
        ``(B, *D)``, at least 0.

    Source: Campbell et al. 2022, proposition 2; Lou, Meng & Ermon 2024 (score entropy).
    """
    process, tau = prediction.process, prediction.tau
    target = process.conditional_rates(prediction.x, x0, tau)
    possible = target > 0
    difference = _rate_errors(prediction, x0)
    z = difference / torch.where(possible, target, 1.0)
    near = z.abs() < 0.5  # there a difference of logarithms would cancel, as it does where hardly any signal is left
    ratio = torch.where(near, 1.0, prediction.rates).log() - torch.where(near | ~possible, 1.0, target).log()
    log_ratio = torch.where(near, torch.log1p(torch.where(near, z, 0.0)), ratio)
    return torch.where(possible, target * (z - log_ratio), difference).sum(-1)


def _rate_errors(prediction: DiscretePrediction, x0: Tensor) -> Tensor:
    r"""$\hat r_j - r_j$ without cancellation, per unit of $\tau$; 0 to ``x`` itself, ``(B, *D, S)``.

    With $q_x = \bar\alpha + (1 - \bar\alpha)\pi_x$ it is
    $2\bar\alpha\big((p_j - \delta_{j x_0})/(1 - \bar\alpha) + \pi_j(\delta_{x x_0} - p_x)/q_x\big)$.
    """
    process, x, states = prediction.process, prediction.x, prediction.process.states
    keep, noise = over_states(ou.alpha_bar(prediction.tau), x), over_states(ou.beta(prediction.tau, 0.0), x)
    redraw = process.noise_at(x)
    errors = F.pad(prediction.probs, (0, states - process.most_classes)) - one_hot(x0, states)
    own = at_codes(errors, x).unsqueeze(-1)
    each = errors / noise - process.noise_probs(x) * own / (keep + noise * redraw)
    return 2.0 * keep * each * (redraw > 0).to(x.dtype) * (1.0 - one_hot(x, states))


def chain_kl(prediction: DiscretePrediction, x0: Tensor, s: Scalar) -> Tensor:
    r"""$KL(q(x_s \mid x_\tau, x_0)\,\|\,p(x_s \mid x_\tau))$ of each entry, nats, ``(B, *D)``.

    A step to $s = 0$ gives $-\log p(x_0 \mid x_\tau)$, the chain's last term.

    Args:
        prediction: Of a process of categories.
        x0: Codes of the data, ``(B, *D)``.
        s: End of the step, ``0 <= s < tau``, a number or ``(B,)``.

    Source: Sohl-Dickstein et al. 2015, eq. 14; Austin et al. 2021 (D3PM), eq. 1.
    """
    target = prediction.process._posterior(prediction.x, x0, prediction.tau, s)
    possible, probs = target > 0, prediction.step_probs(s)
    ratio = torch.where(possible, target, 1.0).log() - torch.where(possible, probs, 1.0).log()
    return (target * ratio).sum(-1)


class _CategoricalObjective(Objective):
    """A loss that is a sum over entries of a function of the prediction and $x_0$."""

    process_kind: ClassVar[type[Process]] = DiscreteProcess

    last_u: ClassVar[float] = 1.0
    """The largest clock value at which the loss is evaluated."""

    def checked_events(self, model: Model, x0: Tensor, observed: Tensor | None) -> Tensor:
        assert isinstance(model.sde, DiscreteProcess)
        x0 = x0 if x0.is_floating_point() else x0.to(torch.get_default_dtype())
        known = x0 if observed is None else x0.where(observed, 0.0)
        model.sde.check_codes(known, "x0", model.sde.most_classes)
        return x0

    @abstractmethod
    def entry_losses(self, prediction: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
        """The loss of each entry before λ, ``(B, *D)``, at the times of ``m``."""

    def at(
        self,
        model: Model,
        x0: Tensor,
        draw: TimestepDraw,
        noise: Tensor,
        *,
        observed: Tensor | None = None,
        **cond: object,
    ) -> Tensor:
        if has_values(x0):
            check_weighting(self.weighting, self.timesteps, model.sde)
        u = draw.u.clamp(max=self.last_u)
        m = Marginal(model.sde.schedule._tau(u), model.sde.schedule._rate(u), draw.s)
        if observed is not None:
            x0, cond = x0.where(observed, 0.0), {**cond, "observed": observed}
        x = model.sde.perturb(x0, m.tau, noise)
        prediction = model(x, m.tau, **cond)
        assert isinstance(prediction, DiscretePrediction)
        losses = self.entry_losses(prediction, x0, m)
        losses = losses if observed is None else losses.where(observed, 0.0)
        total = losses.flatten(1).sum(1, dtype=widest_dtype(x0.device))
        return draw.correction * weight_at(self.weighting, m, draw.u) * total


@dataclass(frozen=True)
class PathKL(_CategoricalObjective):
    r"""The bound on $-\log p(x_0)$ in continuous time, at one random timestep: λ times the rate of the path KL in u.

    With the default λ = 1 its expectation, with the terms at the ends of the clock, is the bound, nats.

    Args:
        weighting: λ, beside the bound's own weight.
        timesteps: How u is drawn.

    Example:
        >>> import torch
        >>> from scoresde.analytic import DiscreteTable
        >>> from scoresde.objective import PathKL
        >>> table = DiscreteTable(torch.tensor([[0, 0], [1, 1]]))
        >>> PathKL()(table, table.sample(8)).shape
        torch.Size([8])

    Source: Campbell et al. 2022; Lou, Meng & Ermon 2024 (SEDD); Sahoo et al. 2024 (MDLM, absorbing).
    """

    last_u: ClassVar[float] = 1.0 - 2.0**-30  # where no signal remains, dτ/du is infinite and the path KL 0

    weighting: Weighting = Simple()
    timesteps: Timesteps = StratifiedTimesteps()

    def entry_losses(self, prediction: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
        rate = torch.as_tensor(m.rate).to(x0).reshape(-1, *(1 for _ in x0.shape[1:]))
        return rate * path_kl(prediction, x0)


@dataclass(frozen=True)
class CrossEntropy(_CategoricalObjective):
    r"""$-\lambda\log p(x_0 \mid x_\tau)$, summed over the entries, nats.

    Args:
        weighting: λ.
        timesteps: How u is drawn.

    Source: Austin et al. 2021 (D3PM), eq. 5, its auxiliary loss; Chang et al. 2022 (MaskGIT).
    """

    weighting: Weighting = Simple()
    timesteps: Timesteps = StratifiedTimesteps()

    def entry_losses(self, prediction: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
        return cross_entropy(prediction, x0)


@dataclass(frozen=True)
class ChainKL(_CategoricalObjective):
    r"""The bound of a chain of K steps, at one random step: λ K $KL(q(x_s \mid x_\tau, x_0)\,\|\,p(x_s \mid x_\tau))$.

    With the default λ = 1 its expectation, with the prior's term, is the chain's bound on $-\log P(x_0)$, nats.

    Args:
        weighting: λ, beside the bound's own weight.
        timesteps: The chain's knots.

    Raises:
        ValueError: If the timesteps are not a chain's.

    Source: Sohl-Dickstein et al. 2015; Austin et al. 2021 (D3PM).
    """

    weighting: Weighting = Simple()
    timesteps: Timesteps = DiscreteTimesteps()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timesteps.chain is None:
            raise ValueError(
                f"ChainKL needs the steps of a chain, got timesteps={self.timesteps}; use DiscreteTimesteps(steps), or "
                "PathKL() in continuous time."
            )

    def entry_losses(self, prediction: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
        assert self.timesteps.chain is not None
        assert m.s is not None
        return self.timesteps.chain.count * chain_kl(prediction, x0, m.s)
