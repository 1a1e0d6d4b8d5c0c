r"""Terms of a chain's bound for categories: $KL(q(x_T \mid x_0)\,\|\,\pi)$, $L_{k-1}$ and $-\log p(x_0 \mid x_\tau)$.

$L_{k-1} = KL(q(x_s \mid x_\tau, x_0)\,\|\,p(x_s \mid x_\tau))$ is a sum over the entries. The reverse step to
$\tau = 0$ is $p(x_0 \mid x_\tau)$ itself, so the chain needs no decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.checks import check_event_shape
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.likelihood.bounds.chain_terms import ChainTerms
from scoresde.model import Model
from scoresde.objective.discrete import chain_kl, cross_entropy
from scoresde.process import ou
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.sampling import Grid

__all__ = ["CategoricalChain", "categorical_process", "check_codes_of_data", "predict_categories", "prior_kl"]


def categorical_process(model: Model) -> DiscreteProcess:
    """The process of a model of categories, after a check that the bound is finite.

    Raises:
        ValueError: If the kernel is absorbing and the clock ends with some signal left.
    """
    process = model.sde
    assert isinstance(process, DiscreteProcess)
    keep = float(ou.alpha_bar(process.tau_max))
    if process.kernel == "absorbing" and keep > 0:
        raise ValueError(
            "the prior of the absorbing kernel is the mask in every entry, but at the end of the clock an entry is "
            f"kept with probability {keep:.3g}, so the bound is infinite; use a clock that ends without signal, such "
            f"as LinearAlphaBar(), instead of {process.schedule}."
        )
    return process


def check_codes_of_data(model: Model, data: Tensor) -> None:
    """Refuses data that are not codes of classes, or have another event shape than the model.

    Raises:
        TypeError: If they are complex.
        ValueError: Names the first entry that is not the code of a class.
    """
    process = model.sde
    assert isinstance(process, DiscreteProcess)
    check_event_shape(data, model.event_shape, "data")
    if data.is_complex():
        raise TypeError(f"data must hold codes of classes, got {data.dtype}.")
    process.check_codes(data.to(widest_dtype(data.device)), "data", process.most_classes)


def predict_categories(model: Model, x: Tensor, tau: Scalar, cond: dict[str, object]) -> DiscretePrediction:
    """A model's prediction, as that of a process of categories."""
    prediction = model(x, tau, **cond)
    assert isinstance(prediction, DiscretePrediction)
    return prediction


def prior_kl(process: DiscreteProcess, x0: Tensor) -> Tensor:
    r"""$KL(q(x_T \mid x_0)\,\|\,\pi)$ at the end of the clock, ``(B,)`` float64, nats; 0 if no signal remains there.

    Args:
        process: If absorbing, with a clock that ends without signal.
        x0: Codes of the data, ``(B, *D)``.
    """
    if not float(ou.alpha_bar(process.tau_max)):
        return sum_event(torch.zeros_like(x0))
    end, noise = process.transition(x0, process.tau_max), process.noise_probs(x0).expand(*x0.shape, process.states)
    possible = end > 0
    return sum_event((end * (torch.where(possible, end, 1.0).log() - torch.where(possible, noise, 1.0).log())).sum(-1))


@dataclass(frozen=True, eq=False)
class CategoricalChain(ChainTerms):
    """A reverse chain over codes of categories.

    Attributes:
        model: Of a process of categories.
        knots: OU times of the steps; the first is 0, or a later one at which the network decodes.
    """

    model: Model
    knots: tuple[float, ...]

    @classmethod
    def of(cls, model: Model, data: Tensor, steps: int, grid: Grid) -> CategoricalChain:
        """The chain for these data, after checks."""
        process = categorical_process(model)
        check_codes_of_data(model, data)
        return cls(model, tuple(grid.times(process, steps)[::-1]))

    @cached_property
    def process(self) -> DiscreteProcess:
        """The forward process."""
        assert isinstance(self.model.sde, DiscreteProcess)
        return self.model.sde

    @property
    def first(self) -> int:
        return 2 if self.knots[0] == 0.0 else 1

    @property
    def decoder_calls(self) -> int:
        return 1

    def sizes(self) -> list[float]:
        r"""Decrease of $\bar\alpha$ in each step."""
        kept = [float(ou.alpha_bar(tau)) for tau in self.knots[self.first - 1 :]]
        floor = 1e-3 * (kept[0] - kept[-1]) / max(len(kept) - 1, 1)
        return [max(a - b, floor) for a, b in zip(kept, kept[1:])]

    def initial_state(self, data: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        return data.to(widest_dtype(data.device)), {}

    def draw_noise(self, x: Tensor, noise: Noise) -> Tensor:
        return self.process.draw_noise(x, noise)

    def kl(self, x: Tensor, k: Tensor, z: Tensor, cond: dict[str, object]) -> Tensor:
        knots = self._knots.to(k.device)
        tau, s = knots[k], knots[k - 1]
        state = self.process.perturb(x, tau, z)
        return sum_event(chain_kl(predict_categories(self.model, state, tau, cond), x, s))

    @cached_property
    def _knots(self) -> Tensor:
        return torch.tensor(self.knots, dtype=torch.float64)

    def perturb(self, x: Tensor, tau: float, noise: Noise) -> Tensor:
        return self.process.perturb(x, tau, self.draw_noise(x, noise))

    def reconstruction(self, data: Tensor, x: Tensor, first_state: Tensor, cond: dict[str, object]) -> Tensor:
        return sum_event(cross_entropy(predict_categories(self.model, first_state, self.decoding_tau, cond), x))

    def prior(self, x: Tensor, noise: Noise) -> Tensor:
        return prior_kl(self.process, x)
