"""Exact models of categories on small state spaces, and their bounds by enumeration and quadrature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoresde.analytic import BernoulliMixture, CategoricalMixture, DiscreteTable
from scoresde.objective.discrete import chain_kl
from scoresde.process import ou
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.schedule import LinearVP

__all__ = ["HEARTBEAT", "MODELS", "Entries", "enumerated_chain", "expectation", "integral_over_the_clock", "nodes"]

D = torch.float64
HEARTBEAT = torch.stack([(torch.arange(20) % 5 == phase).to(D) for phase in range(5)])
"""Sohl-Dickstein's 20 bits with a pulse every fifth, in 5 phases."""

Entries = Callable[[DiscretePrediction, Tensor], Tensor]
"""A loss of each entry, ``(B, *D)``, from the prediction and the data."""


def _tables() -> dict[str, CategoricalMixture]:
    states = torch.tensor([[0, 1, 2], [1, 1, 0], [0, 0, 0], [1, 2, 2]])
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=D)
    bits = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
    probs = torch.tensor([[0.1, 0.8, 0.6], [0.9, 0.3, 0.2]], dtype=D)
    return {
        "binomial table": DiscreteTable(bits, weights[:3], Binomial()),
        "Bernoulli mixture": BernoulliMixture(weights[:2], probs),
        "uniform": DiscreteTable(states, weights, Categorical(3)),
        "uniform, finite clock": DiscreteTable(states, weights, Categorical(3, schedule=LinearVP())),
        "absorbing": DiscreteTable(states, weights, Categorical(3, "absorbing")),
        "one entry": CategoricalMixture(torch.ones(1, dtype=D), torch.tensor([[[0.2, 0.5, 0.3]]], dtype=D)),
    }


MODELS = _tables()


def expectation(model: CategoricalMixture, x0: Tensor, tau: float, loss: Entries) -> Tensor:
    """E[loss] over all x_τ given the data ``(1, d)``, summed over the entries, by enumeration, ``()``."""
    process = model.sde
    states = torch.tensor(list(itertools.product(range(process.states), repeat=x0.shape[1])), dtype=D)
    kernel = process.transition(x0, tau)[0]  # (d, S)
    weight = torch.stack([kernel[i, states[:, i].long()] for i in range(x0.shape[1])]).prod(0)
    states, weight = states[weight > 0], weight[weight > 0]
    prediction = model(states, tau)
    assert isinstance(prediction, DiscretePrediction)
    return weight @ loss(prediction, x0.expand_as(states)).sum(-1)


def nodes(process: DiscreteProcess, step: float = 1 / 16, reach: float = 3.6) -> list[tuple[float, float]]:
    """Times and weights dτ of the tanh-sinh rule in ᾱ, from τ = 0 to the end of the clock."""
    span, result = float(ou.beta(process.tau_max, 0.0)), []
    for i in range(-round(reach / step), round(reach / step) + 1):
        t = i * step
        share = 1.0 / (1.0 + math.exp(-math.pi * math.sinh(t)))
        rest = 1.0 / (1.0 + math.exp(math.pi * math.sinh(t)))
        gone = span * share
        kept = (1.0 - span) + span * rest
        if kept > 0 and gone > 0:
            tau = -0.5 * math.log1p(-gone) if gone < 0.5 else -0.5 * math.log(kept)
            result.append((tau, step * span * share * rest * math.pi * math.cosh(t) / (2.0 * kept)))
    return result


def integral_over_the_clock(model: CategoricalMixture, x0: Tensor, loss: Entries) -> Tensor:
    """∫ dτ E[loss] of one point ``(1, d)`` from τ = 0 to the end of the clock, ``()``."""
    return torch.stack([dt * expectation(model, x0, tau, loss) for tau, dt in nodes(model.sde)]).sum()


def enumerated_chain(model: CategoricalMixture, x0: Tensor, knots: list[float]) -> Tensor:
    """The sum of the KL terms of a chain with the knots 0 = t_0 < … < t_K, for one point ``(1, d)``, ``()``."""
    steps = zip(knots, knots[1:], strict=False)
    terms = [expectation(model, x0, tau, lambda p, x, s=s: chain_kl(p, x, s)) for s, tau in steps]
    return torch.stack(terms).sum()
