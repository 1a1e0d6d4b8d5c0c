r"""Predictions of processes of categories: probabilities of $x_0$, reverse steps and reverse rates from logits.

With $w_c = p(x_0 = c \mid x)/q(x \mid c)$, $W = \sum_c w_c$, $b = \bar\alpha_\tau/\bar\alpha_s$ and the transition
$t_j = b\,\delta_{jx} + (1 - b)\,\pi_x$, the reverse step averaged over $x_0$ is
$p(x_s = j \mid x) = t_j\,(\bar\alpha_s w_j + (1 - \bar\alpha_s)\,\pi_j W)$, and the reverse rate to $j \neq x$ is
$2\pi_x\,(\bar\alpha w_j + (1 - \bar\alpha)\,\pi_j W)$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from scoresde._core.elementwise import Scalar
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.codes import one_hot, over_states
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.parameterization import NetworkOutput
from scoresde.process.prediction import Prediction, cached_estimate

__all__ = ["DiscretePrediction", "Logits"]


@dataclass(frozen=True)
class Logits(NetworkOutput):
    r"""Logits of $x_0$, ``(B, *D, C)``, of a `DiscreteProcess`.

    Args:
        residual: The output is added to $\log q(x_\tau \mid x_0)$, so the network learns what the other entries say
            of an entry, and an output of 0 is Bayes' rule for uniform $x_0$. False: the output alone gives the
            probabilities. Unmasked entries of an absorbing process are known in both cases.
    """

    process_kind: ClassVar[type[Process]] = DiscreteProcess

    residual: bool = True

    def prediction(
        self, process: Process, x: Tensor, tau: Scalar, out: Tensor, mix: Tensor | None = None
    ) -> DiscretePrediction:
        assert isinstance(process, DiscreteProcess)
        evidence = out if self.residual else out - process.log_likelihood(x, tau)
        return DiscretePrediction(x, tau, out, process, evidence)

    def output_shape(self, process: Process, x: Tensor) -> tuple[int, ...]:
        assert isinstance(process, DiscreteProcess)
        return (*x.shape, process.most_classes)


class DiscretePrediction(Prediction):
    r"""Probabilities of $x_0$ and of the reverse process; each estimate is computed once, on first access.

    Args:
        x: Codes of states, ``(B, *D)``.
        tau: OU time of ``x``, a positive number or ``(B,)``.
        out: Output of the network, ``(B, *D, C)``.
        process: The forward process.
        evidence: $\log p(x_0 = c \mid x) - \log q(x \mid c)$ up to a constant per entry: what the other entries say,
            ``(B, *D, C)``. Not read at unmasked entries of an absorbing process.
    """

    def __init__(self, x: Tensor, tau: Scalar, out: Tensor, process: DiscreteProcess, evidence: Tensor) -> None:
        super().__init__(x, tau, out)
        self.process = process
        self._evidence = evidence

    @cached_estimate
    def evidence(self) -> Tensor:
        """See the class; -inf at classes that an entry does not have, ``(B, *D, C)``."""
        evidence, classes = self._evidence, self.process.most_classes
        valid = self.process.valid_classes(evidence)
        if valid is not None:
            evidence = evidence.masked_fill(~valid, -math.inf)
        if self.process.kernel != "absorbing":
            return evidence
        hot = self.hot[..., :classes]
        known = torch.where(hot > 0, 0.0, -math.inf).to(evidence.dtype)
        return torch.where((self.x < classes).unsqueeze(-1), known, evidence)

    @cached_estimate
    def _joint(self) -> Tensor:
        return self.evidence + self.log_likelihood

    @cached_estimate
    def log_likelihood(self) -> Tensor:
        r"""$\log q(x \mid c)$ of each class, nats, ``(B, *D, C)``."""
        return self.process.log_likelihood(self.x, self.tau, self.hot)

    def with_evidence(self, evidence: Tensor) -> DiscretePrediction:
        """A prediction at the same state from another ``evidence``, ``(B, *D, C)``; keeps what only the state gives."""
        changed = DiscretePrediction(self.x, self.tau, self.out, self.process, evidence)
        vars(changed).update((name, vars(self)[name]) for name in ("hot", "log_likelihood") if name in vars(self))
        return changed

    @cached_estimate
    def logits(self) -> Tensor:
        """Normalized log-probabilities of x_0 by class, nats, ``(B, *D, C)``; -inf where a class is impossible."""
        return F.log_softmax(self._joint, -1)

    @cached_estimate
    def probs(self) -> Tensor:
        """Probabilities of x_0 by class, ``(B, *D, C)``."""
        if self.process.kernel == "absorbing":
            return F.softmax(self.evidence, -1)  # the mask is as probable given any class
        return F.softmax(self._joint, -1)

    @cached_estimate
    def x0(self) -> Tensor:
        """The most probable class of each entry, codes in the type of ``x``, ``(B, *D)``."""
        return self._joint.argmax(-1).to(self.x.dtype)

    @cached_estimate
    def _ratios(self) -> Tensor:
        """p(x_0 = c | x) / q(x | c) of each state, 0 for the mask, ``(B, *D, S)``."""
        ratios = (self.evidence - torch.logsumexp(self._joint, -1, keepdim=True)).exp()
        return F.pad(ratios, (0, self.process.states - self.process.most_classes))

    def _marginal(self, s: Scalar) -> Tensor:
        """Σ_c p(c | x) q(x_s = j | c) / q(x | c), ``(B, *D, S)``."""
        w, noise = self._ratios, self.process.noise_probs(self.x)
        spread = over_states(ou.beta(s, 0.0), self.x) * noise * w.sum(-1, keepdim=True)
        return over_states(ou.alpha_bar(s), self.x) * w + spread

    def step_probs(self, s: Scalar) -> Tensor:
        r"""$p(x_s = j \mid x_\tau)$, the posterior averaged over $x_0$, ``(B, *D, S)``.

        Args:
            s: OU time with ``0 <= s < tau``, a number or ``(B,)``.

        Source: Austin et al. 2021 (D3PM), eq. 4.
        """
        weights = self.step_weights(s)
        return weights / weights.sum(-1, keepdim=True)

    def step_weights(self, s: Scalar) -> Tensor:
        """`step_probs` up to a factor per entry, from which codes can be drawn, in fewer operations."""
        if not isinstance(self.tau, Tensor) and not isinstance(s, Tensor):
            if self.process.kernel == "absorbing":
                return self._unmasking_probs(s)
            if isinstance(self.process.classes, int):
                share, b = 1.0 / self.process.classes, ou.alpha_bar(self.tau - s)
                at_s = self._weights.mul(ou.alpha_bar(s)).add(ou.beta(s, 0.0) * share)
                return at_s * self.hot.mul(b).add((1.0 - b) * share)
        return self.process._to_state(self.x, self.tau, s) * self._marginal(s)

    def _unmasking_probs(self, s: float) -> Tensor:
        noise, left = ou.beta(self.tau, 0.0), ou.beta(s, 0.0)
        stay = float(left / noise)
        probs = F.pad(self.unknown_probs * (1.0 - stay), (0, 1), value=stay)
        hot = self.x.unsqueeze(-1) == torch.arange(self.process.states, dtype=self.x.dtype, device=self.x.device)
        return torch.where(hot[..., -1:], probs, hot)

    @cached_estimate
    def unknown_probs(self) -> Tensor:
        """`probs` where the state does not show x_0: at all entries, or at the masked ones of the absorbing kernel.

        Other entries hold any numbers.
        """
        if self.process.kernel != "absorbing" or not isinstance(self.process.classes, int):
            return self.probs
        return F.softmax(self._evidence, -1)

    @cached_estimate
    def rates(self) -> Tensor:
        r"""Reverse rates from ``x`` to each state, per unit of $\tau$; 0 to ``x`` itself, ``(B, *D, S)``.

        Source: Campbell et al. 2022, proposition 1.
        """
        leave = 1.0 - self.hot
        classes, uniform = self.process.classes, self.process.kernel == "uniform"
        if isinstance(self.tau, Tensor) or not uniform or not isinstance(classes, int):
            return 2.0 * self.process.noise_at(self.x) * self._marginal(self.tau) * leave
        keep, noise, share = ou.alpha_bar(self.tau), ou.beta(self.tau, 0.0), 1.0 / classes
        marginal = self._weights.mul(keep).add(noise * share)
        own = (marginal * self.hot).sum(-1, keepdim=True)
        return marginal / own * leave.mul(2.0 * share)

    @cached_estimate
    def hot(self) -> Tensor:
        """Indicators of the states ``x``, ``(B, *D, S)``."""
        return one_hot(self.x, self.process.states)

    @cached_estimate
    def _weights(self) -> Tensor:
        """w up to a factor per entry, with the sum 1, ``(B, *D, C)``."""
        return F.softmax(self.evidence, -1)
