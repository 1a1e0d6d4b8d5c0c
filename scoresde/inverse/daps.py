r"""Decoupled annealing: at each noise, x_0 from $N(x_0; \hat x_0, r^2 I)\,p(y \mid x_0)$, noised to the next time.

$\hat x_0$ is the end of the ODE from the state, and $r = \sigma/\alpha$.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_kind, check_positive
from scoresde._core.tensors import combine, has_values
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import LinearOperator
from scoresde.inverse._whitened import WhitenedObservation, whiten
from scoresde.inverse.base import PosteriorContext, PosteriorSampler
from scoresde.inverse.posterior_samples import PosteriorSamples, unweighted
from scoresde.inverse.twisted_smc import chain_times, noise_floor
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.sampling.base import SamplingContext, StepSampler, check_deterministic
from scoresde.sampling.grid import Grid, UniformLogSNR
from scoresde.sampling.probability_flow import DDIM

__all__ = ["DAPS"]


@dataclass(frozen=True)
class DAPS(PosteriorSampler):
    r"""Decoupled annealing posterior sampling, for any differentiable operator.

    For a linear operator x_0 is drawn exactly, without Langevin steps. For others it takes ``langevin_steps`` steps
    $x_0' = x_0 + \delta\,\nabla\log p + \sqrt{2\delta}\,z$ of $\delta = c/(1/r^2 + 1/\gamma)$ with c the
    ``langevin_step`` and γ the least noise variance, from a draw of $N(\hat x_0, r^2 I)$. They are stable if the
    operator's slope is below about $\sqrt{2/c}$.

    It is not exact, not even for Gaussian data: the covariance of x_0 given x_τ is not r² I.

    Args:
        steps: Number of noises.
        solver: A deterministic step sampler, for the ODE from each noise to the data. The network is evaluated as often
            as ``steps`` times its own calls.
        grid: Times of the noises; the last draw is at the last time above 0.
        langevin_steps: Number of Langevin steps at each noise, for operators that are not linear.
        langevin_step: Their size c, below 1.

    Raises:
        ValueError: If a number is out of range, or the solver draws noise. When sampling: as `TwistedSMC` for linear
            operators; for others if the noise is not a ``noise_std`` above 0.
        TypeError: If ``solver`` is not a StepSampler.

    Source: Zhang, Chu, Berner, Meng, Anandkumar & Song 2024, algorithm 1; the exact draw and the first state of the
    Langevin steps are ours.
    """

    steps: int = 50
    solver: StepSampler = field(default_factory=lambda: DDIM(5, UniformLogSNR()))
    grid: Grid = field(default_factory=UniformLogSNR)
    langevin_steps: int = 100
    langevin_step: float = 0.1

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_deterministic(self.solver, "DAPS")
        check_kind("grid", self.grid, Grid)
        check_integer("langevin_steps", self.langevin_steps)
        check_positive(langevin_step=self.langevin_step)
        if self.langevin_step >= 1:
            raise ValueError(f"langevin_step must be below 1, got {self.langevin_step!r}; 0.1 is usual.")

    def prepare(self, model: Model, observation: Observation, like: Tensor) -> WhitenedObservation | None:
        if isinstance(observation.operator, LinearOperator):
            return whiten(observation, like, "DAPS", noise_floor(chain_times(self.grid, model.sde, self.steps)[-2]))
        std = observation.noise_std
        if std is None or (has_values(std) and not bool((std > 0).all())):
            raise ValueError(
                f"the Langevin steps of DAPS for {type(observation.operator).__name__}, which is not linear, need a "
                "noise_std above 0; state the noise of the measurement."
            )
        return None

    def run(self, context: PosteriorContext) -> PosteriorSamples:
        draw = self._langevin if context.prepared is None else _exact
        taus, x, x0 = chain_times(self.grid, context.model.sde, self.steps), context.prior(), context.like
        solver = self.solver.for_model(context.model)
        for tau, s in pairwise(taus):
            x0 = draw(context, self._solve(context, solver, x, tau), noise_floor(tau))
            if s > 0:
                x = combine(float(ou.alpha(s)), x0, float(ou.sigma(s)), context.normal(x0))
        return unweighted(x0, context.nfe, context.model.data)

    def _solve(self, context: PosteriorContext, solver: StepSampler, x: Tensor, tau: float) -> Tensor:
        """The end of the ODE from the state at ``tau``, or the data estimate at ``tau_min``."""
        shape = x.shape

        def predict(x: Tensor, tau: float) -> Prediction:
            return context.predict(x.reshape(shape), tau)

        if tau <= context.model.sde.tau_min * (1 + 1e-9):
            return predict(x, tau).x0.reshape(shape)
        sampling = SamplingContext(predict, context.model.sde, context.noise, tau)
        end, _ = solver.run(x.flatten(0, 1), sampling)
        return end.reshape(shape)

    def _langevin(self, context: PosteriorContext, x0_hat: Tensor, r: float) -> Tensor:
        """Draws of x_0 by Langevin steps on N(x_0; x0_hat, r² I) p(y | x_0)."""
        index = context.index.repeat_interleave(x0_hat.shape[1])
        observation = context.observation
        operator, y = observation.of_batch(x0_hat.flatten(0, 1), None if observation.count is None else index)
        assert observation.noise_std is not None
        variance = observation.noise_std.to(x0_hat).square()
        delta = self.langevin_step / (1.0 / variance.min() + 1.0 / r**2)
        x0 = x0_hat + r * context.normal(x0_hat)
        for _ in range(self.langevin_steps):
            with torch.enable_grad():
                flat = x0.flatten(0, 1).detach().requires_grad_()
                energy = ((y.to(x0) - operator.apply(flat)).square() / variance).sum() * 0.5
                (gradient,) = torch.autograd.grad(energy, flat)
            slope = gradient.reshape(x0.shape) + (x0 - x0_hat) / r**2
            x0 = x0 - delta * slope + (2.0 * delta).sqrt() * context.normal(x0)
        return x0


def _exact(context: PosteriorContext, x0_hat: Tensor, r: float) -> Tensor:
    """Draws of x_0 of $N(x_0; x0_hat, r^2 I)$ given a linear observation, by conditioning a draw of both."""
    observation: WhitenedObservation = context.prepared.at(context.index)
    flat = x0_hat.flatten(2)
    flat = flat + r * context.normal(flat)
    residual = observation.residual(flat)
    gains = observation.gains
    correction = r**2 * gains / (1.0 + r**2 * gains.square()) * (residual - context.normal(residual))
    return (flat + observation.lift(correction)).reshape(x0_hat.shape)
