r"""Samples of the tilted density $\prod_j p_j^{c_j}/Z$ of linear guidance, by sequential Monte Carlo.

Guided states follow a reverse process with the score $\bar s = \sum_j c_j s_j$, which alone does not lead to the tilted
density. With weights that follow, in reverse time r,

$$\frac{d\log w}{dr} = -\sum_j c_j\,|s_j - \bar s|^2,\qquad w(w - 1)\,|s_{cond} - s_{null}|^2\ \text{for two terms},$$

their weighted distribution at each τ is $\prod_j p_{j,\tau}^{c_j}$ up to its normalizing constant. This holds for the
reverse SDE, for the probability-flow ODE, and with any amount of noise between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.call_inputs import check_model_device, check_per_sample, cond_inputs, empty_state
from scoresde._core.checks import check_device, check_integer, check_kind, check_seeds
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import has_values, sum_event, widest_dtype
from scoresde.guidance import Combination
from scoresde.inverse._particles import Population, resample, take_memory, take_particles
from scoresde.inverse.tilted_samples import TiltedSamples
from scoresde.model import check_model, evaluating, refuse_unknown
from scoresde.process import ou
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling import Eta, SASolver, StepSampler

__all__ = ["Tilted"]


def _default_sampler() -> StepSampler:
    return SASolver(400, predictor_order=2, corrector_order=2, noise=Eta(2.0))


@dataclass(frozen=True)
class Tilted(CheckedArguments):
    r"""Sequential Monte Carlo for the tilted density of `CFG`, `Autoguidance` or `Composed`.

    For two terms the tilted density is $p_{cond}^w\,p_{null}^{1-w}/Z$. The result tends to it as particles and steps
    grow. The weights are integrated by the trapezoidal rule in τ from the estimates that the steps need anyway, so a
    particle costs what a guided sample costs, and one evaluation at the end.

    Args:
        sampler: The steps of the particles. The default adds four times the noise of the reverse SDE (``Eta(2.0)``),
            which keeps the particles nearer to the tilted density, so that the weights vary much less.
        threshold: A population is resampled where its effective sample size is below this fraction of its particles;
            0 never, 1 at every step.

    Raises:
        ValueError: If the threshold is outside [0, 1].
        TypeError: If the sampler is no `StepSampler`.

    Example:
        >>> import torch
        >>> from scoresde import Autoguidance, Gaussian
        >>> from scoresde.inverse import Tilted
        >>> of_class, of_all = Gaussian(torch.tensor([1.5]), 0.25), Gaussian(torch.tensor([0.0]), 1.0)
        >>> guided = Autoguidance(of_class, of_all, 2.0, conditional=False)
        >>> samples = Tilted().sample(guided, particles=4000, seeds=[0])
        >>> abs(samples.mean().item() - 12 / 7) < 0.02  # the mean of p_class^2 / p_all
        True

    Source: Skreta et al. 2025, "Feynman-Kac correctors in diffusion", proposition 3.1 for classifier-free guidance.
    Here the rate is written for any number of terms and amount of noise; the weights are integrated by the trapezoidal
    rule and not by Euler's; more noise than the reverse SDE's is added; resampling is adaptive over the whole clock; Z
    and its error are returned.
    """

    sampler: StepSampler = field(default_factory=_default_sampler)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_kind("sampler", self.sampler, StepSampler)
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {self.threshold!r}; 0.5 is usual.")

    def sample(
        self,
        model: Combination,
        particles: int,
        populations: int = 1,
        *,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **cond: Tensor,
    ) -> TiltedSamples:
        """Samples the tilted density of a guided model, in eval mode and without gradients.

        Args:
            model: Guided by scales that are numbers, at all times and without rescaling.
            particles: Number K of particles of one population.
            populations: Number P of populations, which are independent.
            generator: Source of all randomness; default a new one, seeded from the global one.
            seeds: One integer per population instead; a population then does not depend on the others.
            dtype, device: As for `sample`.
            **cond: Conditions of the call, one entry per population, ``(P, …)``.

        Raises:
            TypeError: If ``model`` is not guided by a combination, or the network does not read a keyword.
            ValueError: If a number is not positive, or the model has an interval, a rescaling or a scale per sample.
            RuntimeError: If the result is not finite.
        """
        check_model(model)
        check_arguments(Tilted.sample, locals())
        refuse_unknown(self.sample, model, cond)
        check_integer("particles", particles)
        check_integer("populations", populations)
        _check_combination(model)
        seeds = None if seeds is None else check_seeds(seeds, populations)
        cond = cond_inputs(model, cond)
        check_per_sample(cond, populations, "population")
        like = empty_state(model, dtype, check_device(device)).new_empty(
            (populations, particles, *(model.event_shape or ()))
        )
        check_model_device(model, like)
        if generator is None and seeds is None and has_values(like):
            generator = torch.Generator(like.device).manual_seed(int(torch.randint(2**62, ())))
        cond = {name: value.to(like.device).repeat_interleave(particles, 0) for name, value in cond.items()}
        with torch.no_grad(), evaluating(model):
            run = ParticleRun(self, model, like, Noise(generator, seeds), cond)
            return run.finish(run.states())


def _check_combination(model: object) -> None:
    if not isinstance(model, Combination):
        raise TypeError(
            f"Tilted needs a model guided by a combination of models, got {type(model).__name__}; pass CFG(…), "
            "Autoguidance(…) or Composed(…) itself."
        )
    if model.interval is not None or model.rescale or not all(isinstance(c, float) for c in model.coefficients):
        raise ValueError(
            "Tilted needs scales that are numbers, at all times and without rescaling, for which the tilted density "
            f"is defined, got {type(model).__name__} with coefficients {model.coefficients}, interval "
            f"{model.interval} and rescale {model.rescale}."
        )


class ParticleRun:
    """One run of the particles; ``like`` is ``(P, K, *D)``."""

    def __init__(self, tilted: Tilted, model: Combination, like: Tensor, noise: Noise, cond: dict[str, Any]) -> None:
        self.sampler, self.threshold, self.model = tilted.sampler.for_model(model), tilted.threshold, model
        self.like, self.noise, self.cond, self.nfe = like, noise, cond, 0
        self.coefficients = [float(c) for c in model.coefficients]
        self.terms = [j for j, c in enumerate(self.coefficients) if c != 0.0]
        self.population = Population.new(like.shape[0], like.shape[1], like.device)

    def states(self) -> Tensor:
        """Runs the steps; returns the last states, ``(P * K, *D)``."""
        sampler, sde = self.sampler, self.model.sde
        taus = self.taus = sampler.grid.times(sde, sampler.steps, sde.tau_max)
        x, rate = sde.prior(self.like, self.noise).flatten(0, 1), None
        memory: Any = None
        for i, (tau, s) in enumerate(zip(taus, taus[1:])):
            prediction, new_rate = self._evaluate(x, tau)
            if rate is not None:
                self._weigh(0.5 * (rate + new_rate), taus[i - 1] - tau)
            self.population, parents = resample(self.population, self._uniform(), self.threshold)
            x, rate = take_particles(x, parents), take_particles(new_rate, parents)
            known = _taken(prediction, x, parents)
            memory = take_memory(memory, parents)
            x, memory = sampler.step(_KnownFirst(self, known), x, tau, s, self._normal, memory)
        if taus[-1] > 0 and rate is not None:
            rate = 0.5 * (rate + self._evaluate(x, taus[-1])[1])
        if rate is not None:
            self._weigh(rate, taus[-2] - taus[-1])
        return x

    def _normal(self) -> Tensor:
        return self.noise.normal(self.like).flatten(0, 1)

    def _uniform(self) -> Tensor:
        """One number per population; drawn at every step, so that later numbers do not depend on the decision."""
        kind = {"dtype": widest_dtype(self.like.device), "device": self.like.device}
        return self.noise.uniform(torch.empty(len(self.like), 1, **kind)).flatten()

    def _weigh(self, rate: Tensor, length: float) -> None:
        self.population = self.population.weighted(rate.reshape(self.like.shape[:2]) * length)

    def _evaluate(self, x: Tensor, tau: float) -> tuple[Prediction, Tensor]:
        """The guided prediction, and the rate of the log-weights, ``(P * K,)``."""
        self.nfe += self.model.cost_at(tau)
        predictions = self.model.estimates(x, tau, self.cond, self.terms)
        if len(predictions) == 1:
            return predictions[0], torch.zeros(len(x), dtype=widest_dtype(x.device), device=x.device)
        weights = [self.coefficients[j] for j in self.terms]
        guided = self.model.combined(weights, predictions)
        rates = [-c * sum_event((p.eps - guided.eps).square()) for c, p in zip(weights, predictions)]
        return guided, torch.stack(rates).sum(0).to(x.device) / ou.sigma(tau) ** 2

    def finish(self, x: Tensor) -> TiltedSamples:
        """The result, after a check that it is finite."""
        sde, population, tau = self.model.sde, self.population, self.taus[-1]
        finite = torch.isfinite(x).all() & torch.isfinite(population.log_weights).all()
        if has_values(x) and not bool(finite):
            raise RuntimeError(
                f"particles and weights must be finite, but {self.sampler} or the network gave NaN or infinity; sample "
                "the guided model by `sample` with the same sampler, whose error names the network call."
            )
        return TiltedSamples(
            x.reshape(self.like.shape) * float(sde.scale(tau)),
            torch.log_softmax(population.log_weights, 1),
            population.effective_sample_size(),
            population.log_normalizing_constant(),
            population.stderr(),
            tau,
            self.nfe,
            self.model.data,
        )


class _KnownFirst:
    """The guided network call of one step, whose first call at the start of the step is known."""

    def __init__(self, run: ParticleRun, known: Prediction) -> None:
        self.run, self.known = run, known

    def __call__(self, x: Tensor, tau: Scalar) -> Prediction:
        if x is self.known.x and tau is self.known.tau:
            return self.known
        self.run.nfe += self.run.model.cost_at(tau)
        return self.run.model.predict(x, tau, **self.run.cond)


def _taken(prediction: Prediction, x: Tensor, parents: Tensor) -> Prediction:
    """The predictions of the parents at their states ``x``."""
    mix = None if prediction.mix is None else take_particles(prediction.mix, parents)
    out = take_particles(prediction.out, parents)
    return GaussianPrediction(x, prediction.tau, out, prediction.parameterization, mix)
