"""Calls of the whole public API, each with valid arguments that are cheap, made afresh for every call."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import inspect
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digit_network import DigitNetwork
from PIL import Image
from safetensors.torch import save_file
from subclasses import concrete
from torch import Tensor

import scoresde as sd
from scoresde import (
    adapters,
    analytic,
    bridges,
    data,
    distillation,
    evaluation,
    guidance,
    inverse,
    likelihood,
    metrics,
    objective,
    plots,
    process,
    sampling,
    training,
)
from scoresde._core.noise import Noise
from scoresde.bridges import azula, edm, guided_diffusion, k_diffusion, score_sde, weights
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import Mask
from scoresde.model import ScoreModel
from scoresde.process import sde
from scoresde.storage import checkpoint, spec

__all__ = ["CALLS"]

Arguments = Callable[[], dict[str, Any]]
CALLS: dict[str, tuple[Callable[..., Any], Arguments]] = {}
"""By name: the function and what makes its keyword arguments."""


def x(rows: int = 6, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, 2, generator=generator(), dtype=kind)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def integers(rows: int = 6) -> Tensor:
    return torch.arange(2 * rows).reshape(rows, 2) % 8


BINNED = data.Description("bins", (2,), bins=8)


def new_model(description: data.Description | None = None, classes: int | None = None) -> ScoreModel:
    conditions = {} if classes is None else {"label": sd.nn.Classes(classes)}
    net = sd.MLP((2,), 4, 1, 4, conditions=conditions)
    return ScoreModel(net, sd.VPSDE(), sd.V(), (2,), description)


model = functools.cache(new_model)


def codes(rows: int = 6) -> Tensor:
    """Codes of three classes, which are also states of an absorbing process."""
    return (torch.arange(2 * rows).reshape(rows, 2) % 3).float()


def categorical_model(kernel: str = "uniform") -> ScoreModel:
    mask = kernel == "absorbing"
    net = sd.nn.CategoricalNet(sd.MLP(sd.nn.CategoricalNet.inner_shape((2,), 3, mask), 4, 1, 4), (2,), 3, mask)
    return ScoreModel(net, process.Categorical(3, kernel))


def table(categories: process.DiscreteProcess | None = None) -> analytic.DiscreteTable:
    return analytic.DiscreteTable(codes(4), process=categories or process.Categorical(3))


MIXED = process.Mixed(sd.VPSDE(), process.Categorical((3,)))


def mixed_mixture(**given: Any) -> analytic.MixedMixture:
    """An exact model of one number and one category."""
    settings = {
        "weights": torch.ones(2),
        "means": torch.tensor([[-1.0], [1.0]]),
        "variances": torch.full((2, 1), 0.1),
        "probs": torch.full((2, 1, 3), 1 / 3),
        "process": MIXED,
    }
    return analytic.MixedMixture(**{**settings, **given})


def mixed(rows: int = 6) -> Tensor:
    """Events of one number and one category."""
    return torch.stack([x(rows)[:, 0], torch.arange(rows) % 3.0], 1)


def mixed_model() -> ScoreModel:
    net = sd.nn.MixedNet(sd.MLP(sd.nn.MixedNet.inner_shape(1, (3,)), 4, 1, 4), 1, (3,))
    return ScoreModel(net, MIXED)


def sampled(sampler: Any) -> Tensor:
    exact: sd.Model = sd.Gaussian(torch.zeros(2), 0.5)
    if isinstance(sampler, sampling.Jumps):
        exact = new_student()
    if sampler.process_kind is process.DiscreteProcess:
        exact = analytic.DiscreteTable(torch.tensor([[0, 1], [1, 1]]))
    if sampler.process_kind is process.Mixed:
        exact = mixed_mixture()
    return sd.sample(exact, 2, sampler, generator=generator()).x


def new_student() -> distillation.FlowMap:
    return distillation.FlowMap.new(sd.Gaussian(torch.zeros(2), 0.5), net=sd.MLP((2,), 4, 1, 4, delta=True))


def targeted(target: Any) -> Tensor:
    loss = distillation.JumpLoss((2.0, 1.0, 0.5, 0.1), 3, target)
    return loss(new_student().model, torch.stack([x()] * 4, 1)).detach()


def weighed(weighting: Any) -> Tensor:
    if isinstance(weighting, objective.DiscreteVLB):
        return sd.Loss(weighting, sd.DiscreteTimesteps(8))(model(), x(), generator=generator()).detach()
    return sd.Loss(weighting)(model(), x(), generator=generator()).detach()


def timed(timesteps: Any) -> Tensor:
    return sd.Loss(sd.ELBO(), timesteps)(model(), x(), generator=generator()).detach()


def scheduled(schedule: Any) -> list[Any]:
    return [schedule.tau(0.3), schedule.u(schedule.tau(0.7)), schedule.rate(0.4)]


def processed(process: Any) -> Any:
    return process.perturb(x(), torch.full((6,), 0.3), x())


def parameterized(parameterization: Any) -> Any:
    return process.GaussianPrediction(x(), 0.3, x(), parameterization).eps


def scored(**options: Any) -> Any:
    return sd.log_prob(
        sd.Gaussian(torch.zeros(2), 0.5), x(2), nodes=8, generator=generator(), strict=True, **options
    ).log_prob


def decoded(decoder: Any) -> Any:
    return sd.discrete_vlb(model(BINNED), integers(2), 2, decoder=decoder, generator=generator()).nats


def dequantized(dequantization: Any) -> Any:
    options = {"dequantization": dequantization, "nodes": 8, "generator": generator()}
    return sd.bits_per_dim(model(BINNED), integers(2), solver=sd.AdaptiveSolver(1.0), **options).bits


def observation() -> Observation:
    return Observation(Mask(torch.tensor([True, False])), torch.zeros(2), noise_std=0.5)


def posterior_sampled(method: Any) -> Tensor:
    return sd.sample_posterior(model(), observation(), 2, method, generator=generator()).x


def twisted(twist: Any) -> Tensor:
    return posterior_sampled(inverse.TwistedSMC(2, 4, twist))


def noisy(noise: Any) -> Tensor:
    return sampled(sampling.SASolver(2, noise=noise))


def corrected(corrector: Any) -> Tensor:
    return sampled(sampling.PredictorCorrector(2, corrector=corrector))


def seen(**fields: Any) -> guidance.Observation:
    settings: dict[str, Any] = {"operator": sd.Mask(torch.tensor([True, False])), "y": torch.ones(2), "noise_std": 0.5}
    return sd.Observation(**settings | fields)


def steered(method: Any) -> Tensor:
    return sd.Posterior(sd.Gaussian(torch.zeros(2), 0.5), seen(), method)(x(), 0.3).x0


def observed(kind: type, shape: tuple[int, ...]) -> Callable[..., Tensor]:
    return lambda **a: kind(**a)(torch.ones(3, *shape))


def evaluated(net: Any) -> Tensor:
    shape = net.event_shape
    cond = {"label": torch.zeros(2, dtype=torch.int64)} if net.conditions else {}
    return net(torch.zeros(2, *shape), torch.zeros(2), **cond).detach()


def built(cls: type, use: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(**fields: Any) -> Any:
        return use(cls(**fields))

    return call


REQUIRED: dict[str, Arguments] = {
    "CustomWeighting": lambda: {"function": lambda m: 1.0 + 0 * m.snr},
    "FromBetas": lambda: {"betas": (0.1, 0.2, 0.3)},
    "ExplicitGrid": lambda: {"taus": (sd.VPSDE().tau_max, 0.5, 0.1)},
    "TruncatedNormalDequantization": lambda: {"std": 0.3},
    "VariationalDequantization": lambda: {"description": BINNED, "width": 4, "generator": generator()},
    "Whitened": lambda: {"sampler": sd.DDIM(2), "moments": sd.Moments(torch.zeros(2), torch.eye(2), torch.ones(2))},
}
FAMILIES: dict[type, Callable[[Any], Any]] = {
    objective.Weighting: weighed,
    objective.Timesteps: timed,
    process.Schedule: scheduled,
    sde.SDE: processed,
    process.Parameterization: parameterized,
    sampling.Sampler: sampled,
    sampling.Grid: lambda grid: sampled(sd.DDIM(2, grid)),
    sampling.NoiseFunction: noisy,
    sampling.Corrector: corrected,
    likelihood.Trace: lambda trace: scored(trace=trace),
    likelihood.Solver: lambda solver: scored(solver=solver),
    likelihood.Decoder: decoded,
    likelihood.Dequantization: dequantized,
    distillation.Target: targeted,
    guidance.PosteriorMethod: steered,
    inverse.PosteriorSampler: posterior_sampled,
    inverse.Twist: twisted,
}


def default_fields(cls: type) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.init and field.default is not dataclasses.MISSING:
            fields[field.name] = field.default
        elif field.init and field.default_factory is not dataclasses.MISSING:
            fields[field.name] = field.default_factory()
    if "steps" in fields and issubclass(cls, (sampling.Sampler, inverse.PosteriorSampler)):
        fields["steps"] = 2
    if "particles" in fields:
        fields |= {"particles": 4} | ({"paths": 2} if "paths" in fields else {})
    return fields


def _families() -> Iterator[tuple[str, Callable[..., Any], Arguments]]:
    for base, use in FAMILIES.items():
        for cls in concrete(base):
            if cls.__name__ in REQUIRED:
                arguments = REQUIRED[cls.__name__]
            else:
                arguments = functools.partial(default_fields, cls)
            yield cls.__name__, built(cls, use), arguments


for name, function, arguments in _families():
    CALLS[name] = function, arguments


def call(call_name: str, function: Callable[..., Any], /, **arguments: Callable[[], Any]) -> None:
    CALLS[call_name] = function, lambda: {key: make() for key, make in arguments.items()}


def v(value: Any) -> Callable[[], Any]:
    """A function that returns a value which no call changes."""
    return lambda: value


# --- models --------------------------------------------------------------------------------------------------------

EVENTS = {"model": model, "x": x}
GENERATOR = {"generator": generator}
SEEDS = {"seeds": lambda: range(6)}
TINY_SOLVER = {"solver": v(sd.AdaptiveSolver(1.0)), "nodes": v(8)}

call("Gaussian", lambda **a: sd.Gaussian(**a)(x(), 0.3).eps, mean=lambda: torch.zeros(2), cov=v(1.0), sde=sd.VPSDE)
call(
    "GaussianMixture",
    lambda **a: sd.GaussianMixture(**a)(x(), 0.3).eps,
    weights=lambda: torch.ones(3),
    means=lambda: x(3),
    covs=lambda: torch.ones(3),
    sde=sd.VPSDE,
)
call(
    "GaussianMixture.ring",
    lambda **a: sd.GaussianMixture.ring(**a)(x(), 0.3).eps,
    modes=v(3),
    radius=v(1.0),
    std=v(0.1),
    unit=v(True),
    sde=sd.VPSDE,
)
call("KernelDensity", lambda **a: sd.KernelDensity(**a)(x(), 0.3).eps, data=x, bandwidth=v(0.3), sde=sd.VPSDE)
call(
    "DiscreteTable",
    lambda **a: analytic.DiscreteTable(**a)(codes(), 0.3).probs,
    states=lambda: codes(4).long(),
    weights=lambda: torch.ones(4),
    process=lambda: process.Categorical(3),
    dtype=v(torch.float64),
)
call(
    "CategoricalMixture",
    lambda **a: analytic.CategoricalMixture(**a)(codes(), 0.3).probs,
    weights=lambda: torch.ones(2),
    probs=lambda: torch.full((2, 2, 3), 1 / 3),
    process=lambda: process.Categorical(3),
)
call(
    "BernoulliMixture",
    lambda **a: analytic.BernoulliMixture(**a)(codes() % 2, 0.3).probs,
    weights=lambda: torch.ones(2),
    probs=lambda: torch.full((2, 2), 0.25),
    process=process.Binomial,
)
call(
    "MixedMixture",
    lambda **a: mixed_mixture(**a)(mixed(), 0.3).x0,
    weights=lambda: torch.ones(2),
    means=lambda: torch.tensor([[-1.0], [1.0]]),
    variances=lambda: torch.full((2, 1), 0.1),
    probs=lambda: torch.full((2, 1, 3), 1 / 3),
    process=v(MIXED),
)
call("MixedMixture.log_prob", lambda **a: mixed_mixture().log_prob(**a), x=mixed, tau=v(0.3))
call("MixedMixture.sample", lambda **a: mixed_mixture().sample(**a), n=v(3), tau=v(0.3), generator=generator)
call("CategoricalMixture.log_prob", lambda **a: table().log_prob(**a), x=codes, tau=v(0.3))
call("CategoricalMixture.sample", lambda **a: table().sample(**a), n=v(3), tau=v(0.3), generator=generator)
call("Gaussian.log_prob", lambda **a: sd.Gaussian(torch.zeros(2), 1.0).log_prob(**a), x=x, tau=v(0.3))
call(
    "Gaussian.sample", lambda **a: sd.Gaussian(torch.zeros(2), 1.0).sample(**a), n=v(3), tau=v(0.3), generator=generator
)
call(
    "ScoreModel",
    lambda **a: sd.ScoreModel(**a)(x(), 0.3).eps.detach(),
    net=lambda: sd.MLP((2,), 4, 1, 4),
    sde=sd.VPSDE,
    parameterization=sd.V,
    event_shape=v((2,)),
    data=v(None),
    learned_variance=v(False),
)
call(
    "Model call",
    lambda model, **a: model(**a).score.detach() if isinstance(model, sd.Model) else None,
    model=model,
    x=x,
    tau=v(0.3),
)
call(
    "Model call with labels",
    lambda **a: model(None, 3)(**a).score.detach(),
    x=x,
    tau=lambda: torch.full((6,), 0.3),
    label=lambda: torch.arange(6) % 3,
)
call(
    "Gaussian.given",
    lambda **a: sd.Gaussian(torch.zeros(2), 1.0).given(**a)[1],
    observation=lambda: torch.ones(1, 2),
    y=lambda: torch.ones(1),
    noise_cov=lambda: torch.eye(1),
    index=v(None),
)
call("Gaussian.given observation", lambda **a: sd.Gaussian(torch.zeros(2), 1.0).given(**a)[1], observation=seen)
call(
    "Observation",
    lambda **a: sd.Gaussian(torch.zeros(2), 1.0).given(sd.Observation(**a))[1],
    operator=lambda: sd.Mask(torch.tensor([True, False])),
    y=lambda: torch.ones(2),
    noise_std=v(0.5),
    noise_cov=v(None),
)
call(
    "Posterior",
    lambda **a: sd.Posterior(**a)(x(), 0.3).x0.detach(),
    model=model,
    observation=seen,
    method=sd.MMPS,
)
call(
    "Posterior of several",
    lambda **a: sd.Posterior(model(), seen(y=torch.ones(3, 2)))(x(), 0.3, **a).x0.detach(),
    observation=lambda: torch.arange(6) % 3,
)
call("Mask", observed(sd.Mask, (2,)), observed=lambda: torch.tensor([True, False]), per_observation=v(False))
call("Matrix", observed(sd.Matrix, (2,)), matrix=lambda: torch.ones(3, 2), event_shape=v((2,)))
call("AveragePool", observed(sd.AveragePool, (1, 4, 4)), event_shape=v((1, 4, 4)), factor=v(2))
call("Blur", observed(sd.Blur, (1, 5)), kernel=lambda: torch.ones(3) / 3, event_shape=v((1, 5)))
call(
    "FourierMask",
    observed(sd.FourierMask, (1, 4, 4)),
    observed=lambda: torch.ones(4, 4, dtype=torch.bool),
    event_shape=v((1, 4, 4)),
)
call("ParallelBeam", observed(sd.ParallelBeam, (1, 4, 4)), angles=v((0.0, 0.5)), event_shape=v((1, 4, 4)))
call("Function", observed(sd.Function, (2,)), function=v(torch.sin), event_shape=v((2,)), output_shape=v((2,)))
call(
    "Clipping",
    lambda **a: sd.Clipping(**a)(x(), 0.3).v.detach(),
    model=model,
    low=v(-1.0),
    high=v(1.0),
    keep_eps=v(True),
)
CONDITIONED: dict[str, Any] = {"x": x, "tau": v(0.3), "label": lambda: torch.arange(6) % 3}
call(
    "CFG",
    lambda **a: sd.CFG(**a)(x(), 0.3, label=torch.arange(6) % 3).x0.detach(),
    model=lambda: model(None, 3),
    scale=v(3.0),
    null=v(None),
    interval=v((0.1, 1.0)),
    rescale=v(0.5),
    negative=v({"label": 1}),
    names=v(None),
    batched=v(True),
)
call("Model call, guided", lambda **a: sd.CFG(model(None, 3), 3.0)(**a).x0.detach(), **CONDITIONED)
call(
    "Autoguidance",
    lambda **a: sd.Autoguidance(**a)(x(), 0.3).x0.detach(),
    model=model,
    weaker=lambda: new_model(),
    scale=v(2.0),
    interval=v(None),
    conditional=v(True),
)
call(
    "ClassifierGuidance",
    lambda **a: sd.ClassifierGuidance(**a)(x(), 0.3).x0.detach(),
    model=model,
    log_prob_fn=v(lambda x, tau: -x.square().sum(1)),
    scale=v(2.0),
    interval=v(None),
    names=v(()),
)
call(
    "Composed",
    lambda **a: sd.Composed(**a)(x(), 0.3, label=torch.arange(6) % 3, b=torch.zeros(6).long()).x0.detach(),
    model=lambda: model(None, 3),
    scale=v({"label": 2.0, "b": 1.0}),
    reads=v({"b": "label"}),
    null=v(None),
    interval=v(None),
    batched=v(True),
)


def guided() -> sd.Autoguidance:
    return sd.Autoguidance(sd.Gaussian(torch.ones(2), 0.5), sd.Gaussian(torch.zeros(2), 1.0), 2.0, conditional=False)


call(
    "Tilted",
    lambda **a: sd.Tilted(**a).sample(guided(), 4, generator=generator()).x,
    sampler=lambda: sampling.ExponentialSDE(2),
    threshold=v(0.5),
)
call(
    "Tilted.sample",
    lambda **a: sd.Tilted(sampling.ExponentialSDE(2)).sample(**a),
    model=guided,
    particles=v(4),
    populations=v(2),
    seeds=v(None),
    dtype=v(torch.float64),
    device=v("cpu"),
    **GENERATOR,
)
call(
    "TiltedSamples.draw",
    lambda **a: sd.Tilted(sampling.ExponentialSDE(2)).sample(guided(), 4, seeds=[0]).draw(**a),
    **GENERATOR,
)
call(
    "DynamicThresholding",
    lambda **a: sd.DynamicThresholding(**a)(x(), 0.3).x0.detach(),
    model=model,
    quantile=v(0.9),
    bound=v(1.0),
    largest=v(2.0),
    keep_eps=v(False),
)

# --- networks ------------------------------------------------------------------------------------------------------

call(
    "MLP",
    built(sd.MLP, evaluated),
    event_shape=v((2,)),
    width=v(4),
    depth=v(1),
    embedding_width=v(4),
    dropout=v(0.0),
    fourier=v(None),
    log_snr_range=v((-20.0, 20.0)),
    conditions=v({}),
    outputs=v(1),
    observed=v(False),
    delta=v(False),
)
call(
    "UNet",
    built(sd.UNet, evaluated),
    event_shape=v((1, 4, 4)),
    channels=v(4),
    multipliers=v((1, 2)),
    blocks=v(1),
    attention=v((1,)),
    heads=v(1),
    head_width=v(None),
    resample_in_blocks=v(False),
    dropout=v(0.0),
    groups=v(None),
    fourier=v(None),
    log_snr_range=v((-20.0, 20.0)),
    conditions=lambda: {"label": sd.nn.Classes(2)},
    outputs=v(1),
    checkpoint=v(False),
    augment=v(0),
)
call(
    "DiT",
    built(sd.DiT, evaluated),
    event_shape=v((1, 4, 4)),
    patch=v(2),
    width=v(8),
    depth=v(1),
    heads=v(1),
    dropout=v(0.0),
    fourier=v(None),
    log_snr_range=v((-20.0, 20.0)),
    conditions=lambda: {"label": sd.nn.Classes(2)},
    outputs=v(1),
    checkpoint=v(False),
    augment=v(0),
)
call(
    "FourierInput",
    lambda **a: sd.nn.FourierInput(**a)(x(), torch.zeros(6)),
    base=v(1.0),
    octaves=v((0, 1)),
    damped=v(True),
)
call(
    "Pointwise",
    lambda **a: sd.Pointwise(**a)(x(), torch.zeros(6)).detach(),
    net=lambda: sd.MLP((2,), 4, 1, 4, outputs=4),
    fourier=lambda: sd.nn.FourierInput(1.0),
    width=v(4),
    embedding_width=v(4),
)
call(
    "QuantizedSkip",
    lambda **a: sd.QuantizedSkip(**a)(x(), torch.zeros(6)).detach(),
    net=lambda: sd.MLP((2,), 4, 1, 4),
    bins=v(8),
    low=v(-1.0),
    high=v(1.0),
)
call(
    "QuantizedSkip.fit", lambda **a: sd.QuantizedSkip(sd.MLP((2,), 4, 1, 4), 8).fit(**a).log_histogram, values=integers
)
call(
    "GaussianSkip",
    lambda **a: sd.GaussianSkip(**a)(x(), torch.zeros(6)).detach(),
    net=lambda: sd.MLP((2,), 4, 1, 4, conditions={"c": sd.nn.Vector(3)}),
    condition=v("c"),
    estimate=v(None),
)
call(
    "GaussianSkip.fit",
    lambda **a: sd.GaussianSkip(sd.MLP((2,), 4, 1, 4, conditions={"c": sd.nn.Vector(3)}), "c").fit(**a).weight,
    x0=x,
    cond=lambda: {"c": torch.linspace(-1.0, 1.0, 18).reshape(6, 3)},
    penalty=v(0.1),
    folds=v(2),
)
for each, kind in {"MLP": sd.MLP, "UNet": sd.UNet, "DiT": sd.DiT}.items():
    small: dict[str, Any] = {
        "MLP": {"width": 4, "depth": 1},
        "UNet": {"channels": 4, "multipliers": (1,), "blocks": 1, "heads": 1},
        "DiT": {"width": 8, "depth": 1, "heads": 1},
    }[each]
    net = functools.cache(
        lambda kind=kind, small=small: kind((1, 4, 4), conditions={"label": sd.nn.Classes(3)}, **small)
    )
    call(
        f"{each} call",
        lambda net=net, **a: net()(**a).detach(),
        x=lambda: torch.zeros(2, 1, 4, 4),
        log_snr=lambda: torch.zeros(2),
        label=lambda: torch.tensor([0, 2]),
    )
call(
    "LogSNREmbedding",
    lambda **a: sd.nn.LogSNREmbedding(**a)(torch.zeros(2)).detach(),
    width=v(4),
    log_snr_range=v((-9.0, 9.0)),
    periods=v(4),
    shortest_period=v(2.0),
)
call(
    "LabelEmbedding",
    lambda **a: sd.nn.LabelEmbedding(**a)(torch.zeros(2, dtype=torch.int64)).detach(),
    width=v(4),
    count=v(3),
    null=v(True),
)
call(
    "Conditioning",
    lambda **a: sd.nn.Conditioning(**a)(torch.zeros(2)).detach(),
    width=v(4),
    log_snr_range=v((-9.0, 9.0)),
    conditions=lambda: {"label": sd.nn.Classes(3)},
    augment=v(2),
    delta=v(True),
)
call(
    "CategoricalNet",
    lambda **a: sd.nn.CategoricalNet(**a)(codes(), torch.zeros(6)).detach(),
    net=lambda: sd.MLP(sd.nn.CategoricalNet.inner_shape((2,), 3), 4, 1, 4),
    event_shape=v((2,)),
    classes=v(3),
    mask=v(False),
)
call(
    "MixedNet",
    lambda **a: sd.nn.MixedNet(**a)(mixed(), torch.zeros(6)).detach(),
    net=lambda: sd.MLP(sd.nn.MixedNet.inner_shape(1, (3,)), 4, 1, 4),
    numbers=v(1),
    classes=v((3,)),
    mask=v(False),
)
for name, size in {
    "Classes": "count",
    "Vector": "size",
    "Tokens": "size",
    "Channels": "channels",
    "Known": "channels",
}.items():
    call(name, getattr(sd.nn, name), **{size: v(3)}, null=v(True))
call("JumpEmbedding", lambda **a: sd.nn.JumpEmbedding(**a)(torch.ones(2)).detach(), width=v(4), harmonics=v(3))

# --- process -------------------------------------------------------------------------------------------------------

for each in ("tau", "u", "rate"):
    call(
        f"Schedule.{each}",
        lambda each=each, **a: getattr(sd.LinearVP(), each)(**a),
        **{"tau" if each == "u" else "u": v(0.3)},
    )
call("SDE.perturb", sd.VPSDE().perturb, x0=x, tau=v(0.3), noise=x)
call("SDE.posterior", lambda **a: sd.VPSDE().posterior(**a)[0], x=x, x0=x, tau=v(0.3), s=v(0.1))
call("SDE.prior_log_prob", sd.VPSDE().prior_log_prob, z=x)

call(
    "Categorical",
    lambda **a: process.Categorical(**a).transition(codes(), 0.3),
    classes=v(3),
    kernel=v("uniform"),
    schedule=process.LinearAlphaBar,
    tau_min=v(1e-5),
)
call(
    "Binomial",
    lambda **a: process.Binomial(**a).transition(codes() % 2, 0.3),
    schedule=process.LinearAlphaBar,
    tau_min=v(1e-5),
)
THREE = process.Categorical(3)
call("DiscreteProcess.transition", THREE.transition, x=codes, tau=v(0.3), s=v(0.1))
call("DiscreteProcess.posterior", THREE.posterior, x=codes, x0=codes, tau=v(0.3), s=v(0.1))
call("DiscreteProcess.perturb", THREE.perturb, x0=codes, tau=v(0.3), noise=lambda: torch.full((6, 2), 0.5))
call("DiscreteProcess.prior_log_prob", THREE.prior_log_prob, z=codes)
call(
    "Logits",
    lambda **a: ScoreModel(categorical_model().net, THREE, process.Logits(**a))(codes(), 0.3).probs.detach(),
    residual=v(True),
)
call(
    "Mixed",
    lambda **a: process.Mixed(**a).perturb(mixed(), 0.3, torch.full((6, 2), 0.5)),
    continuous=sd.VPSDE,
    categorical=lambda: process.Categorical((3,)),
)
call("Mixed.perturb", MIXED.perturb, x0=mixed, tau=v(0.3), noise=lambda: torch.full((6, 2), 0.5))
call("Mixed.prior_log_prob", MIXED.prior_log_prob, z=mixed)
call(
    "MixedOutput",
    lambda **a: ScoreModel(mixed_model().net, MIXED, process.MixedOutput(**a))(mixed(), 0.3).x0.detach(),
    continuous=sd.V,
    categorical=process.Logits,
)
call("mixed model", lambda **a: mixed_model()(**a).x0.detach(), x=mixed, tau=v(0.3))
call("discrete model", lambda **a: categorical_model()(**a).rates.detach(), x=codes, tau=v(0.3))

# --- objective -----------------------------------------------------------------------------------------------------

for each in ("PathKL", "CrossEntropy", "ChainKL"):
    chain = each == "ChainKL"
    call(
        each,
        lambda each=each, **a: getattr(objective, each)(**a)(categorical_model(), codes(), generator()).detach(),
        weighting=objective.Simple,
        timesteps=(lambda: sd.DiscreteTimesteps(8)) if chain else sd.StratifiedTimesteps,
    )
call(
    "MixedLoss",
    lambda **a: objective.MixedLoss(**a)(mixed_model(), mixed(), generator()).detach(),
    weighting=sd.ELBO,
    timesteps=sd.StratifiedTimesteps,
    categorical=objective.PathKL,
)
call("MixedLoss call", lambda **a: objective.MixedLoss()(**a).detach(), model=mixed_model, x0=mixed, **GENERATOR)
call(
    "PathKL call",
    lambda **a: objective.PathKL()(**a).detach(),
    model=categorical_model,
    x0=codes,
    **GENERATOR,
)
call("discrete_equivalence_table", objective.discrete_equivalence_table, log_snrs=v((-6.0, 0.0)))
call(
    "Loss",
    lambda **a: sd.Loss(**a)(model(), x(), generator=generator()).detach(),
    weighting=sd.ELBO,
    timesteps=sd.StratifiedTimesteps,
    hybrid=v(0.0),
)
call("Loss call", lambda **a: sd.Loss()(**a).detach(), model=model, x0=x, **GENERATOR)
call(
    "canonical",
    lambda **a: objective.canonical(**a)(0.5),
    weighting=sd.ELBO,
    schedule=sd.LinearVP,
    parameterization=sd.V,
)
call("equivalence_table", objective.equivalence_table, log_snrs=v((-6.0, 0.0)))

# --- sampling ------------------------------------------------------------------------------------------------------

call(
    "sample",
    sd.sample,
    model=model,
    shape=v(6),
    sampler=lambda: sd.DDIM(2),
    generator=generator,
    seeds=v(None),
    start=v(0.5),
    init=x,
    denoise=v(True),
    batch_size=v(4),
    device=v("cpu"),
    dtype=v(torch.float32),
    trajectory=v(True),
    previews=v(True),
    coupled=v(False),
    progress=v(False),
    observe=v(None),
)
call(
    "sample by seeds",
    sd.sample,
    model=lambda: model(None, 3),
    shape=v((6, 2)),
    sampler=lambda: sd.DDPM(2),
    seeds=lambda: range(6),
    coupled=v(True),
    label=lambda: torch.arange(6) % 3,
)
call(
    "calibrate",
    sd.calibrate,
    model=model,
    sampler=lambda: sd.Adams(2),
    steps=v(2),
    shape=v((2,)),
    noises=v(4),
    iterations=v(1),
    search=v(0),
    pool=v(1),
    whiten=v(False),
    batch_size=v(4),
    generator=generator,
    dtype=v(torch.float32),
    progress=v(False),
)
call(
    "optimal_variance", sampling.optimal_variance, model=model, x0=x, points=v(3), generator=generator, batch_size=v(4)
)
call(
    "Moments",
    lambda **a: sd.Moments(**a),
    mean=lambda: torch.zeros(2),
    axes=lambda: torch.eye(2),
    variances=lambda: torch.ones(2),
    rest=v(0.0),
)
call("VirtualBrownianTree", lambda **a: sampling.VirtualBrownianTree(**a).increment(0.1, 0.4), like=x, seeds=v(3))
call(
    "OptimalVariance",
    lambda **a: sampled(sd.DDPM(2, rev_var=sampling.OptimalVariance(**a))),
    log_snr=v((-5.0, 5.0)),
    unexplained=v((0.9, 0.1)),
)

# --- inverse ------------------------------------------------------------------------------------------------------

call(
    "sample_posterior",
    sd.sample_posterior,
    model=model,
    observation=observation,
    n=v(2),
    method=lambda: sd.TwistedSMC(2, 4),
    generator=generator,
    seeds=v(None),
    batch_size=v(1),
    device=v("cpu"),
    dtype=v(torch.float64),
    progress=v(False),
)
call(
    "PosteriorSamples.draw",
    lambda **a: sd.sample_posterior(model(), observation(), method=sd.TwistedSMC(2, 4), seeds=[0]).draw(**a).x,
    n=v(3),
    seed=v(1),
)

# --- likelihood ----------------------------------------------------------------------------------------------------

call(
    "log_prob",
    lambda **a: sd.log_prob(**a).log_prob,
    **EVENTS,
    trace=sd.ExactTrace,
    **TINY_SOLVER,
    prior_log_prob=v(None),
    **GENERATOR,
    batch_size=v(4),
    strict=v(False),
    progress=v(False),
)
call(
    "log_prob by seeds",
    lambda **a: sd.log_prob(**a).log_prob,
    model=lambda: model(None, 3),
    x=x,
    trace=lambda: sd.Hutchinson(1),
    **TINY_SOLVER,
    **SEEDS,
    label=lambda: torch.arange(6) % 3,
)
call(
    "differentiable_log_prob",
    lambda **a: sd.differentiable_log_prob(**a).detach(),
    **EVENTS,
    adjoint=v(True),
    probes=v(None),
    solver=lambda: sd.TorchDiffEq(rtol=0.1, atol=0.1),
    prior_log_prob=v(None),
    **GENERATOR,
)
call(
    "sample_log_prob",
    lambda **a: sd.sample_log_prob(**a).scored.log_prob,
    model=model,
    shape=v(3),
    sampler=lambda: sd.AdaptiveSolver(1.0),
    trace=sd.ExactTrace,
    nodes=v(8),
    **GENERATOR,
    batch_size=v(2),
    strict=v(False),
)
call(
    "bits_per_dim",
    lambda **a: sd.bits_per_dim(**a).bits,
    model=lambda: model(BINNED),
    values=integers,
    draws=v(1),
    dequantization=v(None),
    trace=sd.ExactTrace,
    **TINY_SOLVER,
    prior_log_prob=v(None),
    **GENERATOR,
    batch_size=v(4),
    strict=v(False),
    progress=v(False),
)
call(
    "continuous_vlb of categories",
    lambda **a: sd.continuous_vlb(**a).nats,
    model=categorical_model,
    data=lambda: codes(3),
    evaluations=v(8),
    replicates=v(2),
    generator=generator,
)
call(
    "discrete_vlb of categories",
    lambda **a: sd.discrete_vlb(**a).nats,
    model=lambda: categorical_model("absorbing"),
    data=lambda: codes(3).long(),
    steps=v(3),
    draws=v(1),
    generator=generator,
)
call(
    "importance_weighted_vlb of categories",
    lambda **a: sd.likelihood.importance_weighted_vlb(**a).nats,
    model=categorical_model,
    data=lambda: codes(3),
    steps=v(2),
    trajectories=v(2),
    generator=generator,
)
call(
    "continuous_vlb",
    sd.continuous_vlb,
    model=lambda: model(BINNED),
    data=integers,
    decoder=v(None),
    decode_at=v(None),
    dequantization=v(None),
    evaluations=v(8),
    replicates=v(2),
    timesteps=v(None),
    profile=v(None),
    prior_log_prob=v(None),
    **GENERATOR,
    batch_size=v(4),
    progress=v(False),
)
call(
    "discrete_vlb",
    sd.discrete_vlb,
    model=lambda: model(BINNED),
    data=integers,
    steps=v(4),
    grid=v(None),
    rev_var=v("beta"),
    decoder=v(None),
    draws=v(1),
    terms=v(None),
    replicates=v(2),
    profile=v(None),
    prior_log_prob=v(None),
    **GENERATOR,
    batch_size=v(4),
    progress=v(False),
)
call(
    "importance_weighted_vlb",
    sd.importance_weighted_vlb,
    model=model,
    data=x,
    steps=v(3),
    trajectories=v(2),
    grid=v(None),
    rev_var=v("beta"),
    decoder=v(None),
    prior_log_prob=v(None),
    **GENERATOR,
    batch_size=v(4),
    progress=v(False),
)
call(
    "measure_error_profile",
    likelihood.measure_error_profile,
    model=model,
    x0=x,
    points=v(3),
    **GENERATOR,
    batch_size=v(4),
)
call(
    "fit_variational",
    lambda **a: likelihood.fit_variational(**a).draw(integers(), Noise(generator()))[0].detach(),
    model=lambda: model(BINNED),
    values=integers,
    steps=v(1),
    batch_size=v(4),
    width=v(4),
    rate=v(0.01),
    profile=v(None),
    **GENERATOR,
)
call(
    "class_posterior",
    lambda **a: likelihood.class_posterior(**a).log_prob,
    model=lambda: model(None, 3),
    x=lambda: x(2),
    classes=v(2),
    prior=v(None),
    condition=v("label"),
    trace=v(None),
    replicates=v(1),
    solver=v(None),
    nodes=v(8),
    **GENERATOR,
    batch_size=v(4),
    strict=v(False),
    progress=v(False),
)
SCORED = functools.cache(lambda: sd.log_prob(sd.Gaussian(torch.zeros(2), 1.0), x(), nodes=8))
call("importance_weights", sd.importance_weights, log_target=lambda: torch.zeros(6), scored=SCORED)
call("LogProb.interval", lambda **a: SCORED().interval(**a), level=v(0.9))

# --- data ----------------------------------------------------------------------------------------------------------

call(
    "Description",
    lambda **a: (lambda d: d.to_data(d.to_model(x())))(data.Description(**a)),
    name=v("a"),
    shape=v((2,)),
    bins=v(None),
    low=v(-9.0),
    high=v(9.0),
    offset=v(0.0),
    scale=v(1.0),
    conditions=lambda: {"label": data.ClassCondition(2, ("a", "b"))},
)
for each, values in {"to_model": x, "to_data": x, "validate": x}.items():
    call(
        f"Description.{each}",
        lambda each=each, **a: getattr(data.Description("a", (2,)), each)(**a),
        **{"x" if each == "to_data" else "y": values},
    )


def tokens() -> Tensor:
    return torch.tensor([[0, 3, 2], [1, 1, 0]])


KINDS: dict[str, data.ConditionKind] = {
    "label": data.ClassCondition(3, ("a", "b", "c")),
    "place": data.VectorCondition(2),
    "text": data.TokenCondition(2),
    "low": data.ImageCondition((1, 4, 4), 8),
}
call(
    "Description.to_model_cond",
    lambda **a: list(data.Description("a", (2,), conditions=KINDS).to_model_cond(**a).values()),
    cond=lambda: {"label": ["a", "c"], "place": x(), "text": torch.zeros(2, 3, 2), "low": torch.zeros(1, 1, 4, 4)},
)
call("ClassCondition", data.ClassCondition, count=v(2), names=v(("a", "b")))
call("VectorCondition", data.VectorCondition, size=v(2), offset=v((0.0, 1.0)), scale=v(2.0))
call("TokenCondition", data.TokenCondition, size=v(2), offset=v(0.0), scale=v(2.0))
call("ImageCondition", data.ImageCondition, shape=v((1, 4, 4)), bins=v(None), offset=v(0.0), scale=v(2.0))
GENES = data.Description("genes", (3,), alphabet=data.Characters("ACGT"))
call(
    "Description of categories",
    lambda **a: data.Description("a", (3,), **a).to_model(tokens()),
    classes=v(4),
    alphabet=lambda: data.Characters("ACGT"),
)
call(
    "Description.texts",
    lambda **a: torch.tensor([len(text) for text in GENES.texts(**a)]),
    y=lambda: codes()[:, [0, 1, 0]].long(),
)
call("Characters", lambda **a: data.Characters(**a).encode("ABBA"), characters=v("AB"))
call("Characters.of", lambda **a: data.Characters.of(**a).encode("BA"), text=v("ABBA"))
call("Characters.encode", data.Characters("AB").encode, text=v("ABBA"), name=v("a text"))
call("Characters.decode", data.Characters("AB").decode, codes=lambda: np.array([0, 1]))
call("Bytes.encode", data.Bytes().encode, text=v("ABBA"), name=v("a text"))
call("Bytes.decode", data.Bytes().decode, codes=lambda: np.array([65, 66]))
call("ClassNames", lambda **a: data.ClassNames(**a).encode("a b"), names=v(("a", "b")))
call("ClassNames.encode", data.ClassNames(("a", "b")).encode, text=v("a b"), name=v("a text"))
call("ClassNames.decode", data.ClassNames(("a", "b")).decode, codes=lambda: np.array([0, 1]))
call("Description.dequantize", BINNED.dequantize, values=integers, generator=generator)
call("Description.center", BINNED.center, values=integers)
call("Description.bits_per_dim", BINNED.bits_per_dim, log_prob=lambda: torch.zeros(3))
call(
    "Data",
    lambda **a: data.Data(**a),
    train=x,
    test=x,
    description=lambda: data.Description("a", (2,)),
    train_cond=lambda: {"label": torch.zeros(6, dtype=torch.int64)},
    test_cond=lambda: {"label": torch.ones(6, dtype=torch.int64)},
    columns=v(None),
    categories=dict,
)
call("load_data", lambda **a: sd.load_data(**a).train, source=v("moons"), seed=v(0), test_fraction=v(0.2), n=v(10))
call(
    "Augment",
    lambda **a: data.Augment(**a).transform(torch.zeros(2, 1, 4, 4), torch.zeros(2, 9)) if False else data.Augment(**a),
    p=v(0.1),
    mirror=v(True),
    flip=v(True),
    scale=v(0.2),
    rotate=v(1.0),
    stretch=v(0.2),
    translate=v(0.1),
)


@functools.cache
def folder() -> Path:
    """A folder for the files that calls read, removed at the end of the process."""
    path = Path(tempfile.mkdtemp(prefix="scoresde-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def array_file() -> str:
    path = folder() / "events.npy"
    np.save(path, np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32))
    return str(path)


def table_file() -> str:
    rows = [f"{0.1 + 0.37 * i},{i % 4},{'xyz'[i % 3]}" for i in range(24)]
    path = folder() / "table.csv"
    path.write_text("\n".join(["a,b,c", *rows]))
    return str(path)


def image_folder() -> str:
    for i in range(6):
        label = folder() / "images" / "ab"[i % 2]
        label.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(label / f"{i}.png")
    return str(folder() / "images")


def options_of(function: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: v(p.default) for p in parameters if p.default is not p.empty}


def text_file() -> str:
    path = folder() / "prose.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 9)
    return str(path)


READERS: tuple[tuple[Callable[..., data.Data], Callable[[], str]], ...] = (
    (data.load_file, array_file),
    (data.load_table, table_file),
    (data.load_images, image_folder),
    (data.load_text, text_file),
)
for reader, source in READERS:
    call(
        reader.__name__,
        lambda reader=reader, **a: reader(**a).train,
        path=source,
        **options_of(reader),
    )

# --- editing, latents and imputation -------------------------------------------------------------------------------


def half_seen() -> Tensor:
    return torch.tensor([True, False])


def with_nan() -> Tensor:
    return x().where(torch.tensor([True, False]), torch.nan)


SAMPLED = {"sampler": lambda: sd.DDIM(2), **GENERATOR, "batch_size": v(4)}
call("edit", lambda **a: sd.edit(**a).data, **EVENTS, tau=v(0.5), mask=half_seen, denoise=v(False), **SAMPLED)
call("edit by strength", lambda **a: sd.edit(**a, sampler=sd.DDIM(2)).data, **EVENTS, strength=v(0.4), **SEEDS)
call("edit integers", lambda **a: sd.edit(model(BINNED), tau=0.5, sampler=sd.DDIM(2), **a).data, x=integers, **SEEDS)
call("encode", sd.encode, **EVENTS, solver=lambda: sd.AdaptiveSolver(1.0), batch_size=v(4))
call("decode", sd.decode, model=model, z=x, solver=lambda: sd.AdaptiveSolver(1.0), batch_size=v(4))
call(
    "interpolate",
    lambda **a: sd.interpolate(**a).data,
    model=model,
    a=x,
    b=lambda: x() + 0.3,
    n=v(3),
    solver=lambda: sd.AdaptiveSolver(1.0),
    batch_size=v(4),
)
CONDITIONED = {"method": lambda: sd.guidance.MMPS(1), **SAMPLED, "draws": v(2)}
call("inpaint", lambda **a: sd.inpaint(**a).data, **EVENTS, mask=half_seen, noise_std=v(0.1), **CONDITIONED)
call("inpaint with seeds", lambda **a: sd.inpaint(model(), x(), half_seen(), sampler=sd.DDIM(2), **a).data, **SEEDS)
call("impute", lambda **a: sd.impute(**a).data, model=model, table=with_nan, noise_std=v(0.1), **CONDITIONED)
call("Imputed.interval", lambda **a: imputed().interval(**a)[0], level=v(0.3))
call("Imputed.columns", lambda **a: imputed().columns(**a), draw=v(1))
call("Imputed.frame", lambda **a: imputed().frame(**a).to_numpy(), draw=v(1))
call(
    "Replacement",
    lambda **a: sd.inverse.Replacement(**a)(x(), 0.3).x0.detach(),
    model=model,
    x0=x,
    known=lambda: half_seen().expand(6, 2),
)


@functools.cache
def imputed() -> sd.inverse.Imputed:
    return sd.impute(model(), with_nan(), 2, sd.guidance.MMPS(1), sd.DDIM(2), generator=generator())


# --- metrics -------------------------------------------------------------------------------------------------------

TWO = {"x": lambda: x(12), "y": lambda: x(12) + 0.1}
call("sliced_wasserstein", metrics.sliced_wasserstein, **TWO, projections=v(4), order=v(2), **GENERATOR)
call("mmd", metrics.mmd, **TWO, bandwidths=v((0.5, 1.0)))
call("energy_distance", metrics.energy_distance, **TWO)
call("kernel_distance", metrics.kernel_distance, **TWO, size=v(6), subsets=v(2), **GENERATOR)
call("frechet_distance", lambda **a: metrics.frechet_distance(**a).value, **TWO)
call(
    "frechet_infinity",
    lambda **a: metrics.frechet_infinity(**a).value,
    x=lambda: x(40),
    y=lambda: x(40),
    halvings=v(2),
    **GENERATOR,
)
call("precision_recall", metrics.precision_recall, **TWO, k=v(2))
call("density_coverage", metrics.density_coverage, **TWO, k=v(2))
call("nearest_neighbors", metrics.nearest_neighbors, x=x, reference=lambda: x(7))
call("copies", metrics.copies, samples=x, train=lambda: x(7), held_out=lambda: x(60) + 0.1)
CATEGORICAL = {"categorical": v((False, True))}
call("column_distances", metrics.column_distances, **TWO, **CATEGORICAL)
call("association_matrix", metrics.association_matrix, x=x, **CATEGORICAL)
call("classifier_auc", metrics.classifier_auc, **TWO, **CATEGORICAL, classifier=v(None), folds=v(2), seed=v(0))
call(
    "copied_rows",
    lambda **a: metrics.copied_rows(**a).nearer_train.value,
    samples=x,
    train=lambda: x(7),
    held_out=lambda: x(8) + 0.1,
    **CATEGORICAL,
    seed=v(0),
)
call("classifier_two_sample", metrics.classifier_two_sample, **TWO, classifier=v(None), folds=v(2), seed=v(0))
call(
    "floor",
    lambda **a: metrics.floor(**a).value,
    metric=v(metrics.energy_distance),
    real=lambda: x(12),
    held_out=lambda: x(12),
    draws=v(2),
    **GENERATOR,
)
call(
    "features_of",
    metrics.features_of,
    images=lambda: torch.zeros(4, 3, 4, 4),
    network=v(lambda images: images.reshape(len(images), -1)),
    batch=v(2),
)
call(
    "image_distances",
    metrics.image_distances,
    samples=lambda: metrics.Features(x(40), x(40)),
    real=lambda: metrics.Features(x(40), x(40)),
    metrics=v(("frechet",)),
    splits=v(2),
    **GENERATOR,
)

# --- distillation ---------------------------------------------------------------------------------------------------

call(
    "FlowMap",
    lambda **a: distillation.FlowMap(**a)(x(), 1.0, s=0.1).v.detach(),
    model=lambda: new_student().model,
)
call(
    "FlowMap.new",
    lambda **a: distillation.FlowMap.new(**a)(x(), sd.VPSDE().tau_max, s=0.1).v.detach(),
    model=model,
    taus=v((sd.VPSDE().tau_max, 0.1)),
    moments=lambda: sd.Moments(torch.zeros(2), torch.eye(2), torch.ones(2)),
    net=v(None),
    damping=v(0.3),
)
call("FlowMap call", lambda **a: new_student()(**a).v.detach(), x=x, tau=v(0.5), s=v(0.1))
call(
    "AverageVelocity",
    lambda **a: distillation.AverageVelocity(**a)(x(), torch.zeros(6), torch.ones(6)).detach(),
    net=lambda: sd.MLP((2,), 4, 1, 4, delta=True),
    parameterization=sd.V,
    taus=v((1.0, 0.1)),
    axes=v(2),
    learned_variance=v(False),
    damping=v(0.3),
)
call(
    "JumpLoss",
    lambda **a: distillation.JumpLoss(**a)(new_student().model, torch.stack([x()] * 6, 1)).detach(),
    taus=v((1.0, 0.5, 0.1)),
    every=v(2),
    target=distillation.Trajectory,
    floor=v(0.05),
    robust=v(0.03),
)
call(
    "distill",
    lambda **a: distillation.distill(**a).comparison.student[1],
    model=lambda: sd.Gaussian(torch.zeros(2), 0.5),
    calls=v(1),
    target=distillation.Trajectory,
    last_call=v(False),
    taus=v((sd.VPSDE().tau_max, 0.1)),
    base=v(True),
    net=lambda: sd.MLP((2,), 4, 1, 4, delta=True),
    trajectories=v(16),
    solver=lambda: sd.DDIM(2),
    training=lambda: sd.Training(steps=1, batch_size=4),
    calibrated=v(False),
    noises=v(8),
    batch_size=v(8),
    run_dir=v(None),
    resume=v(False),
    save_every=v(1000),
    callbacks=v(()),
    about=v(None),
    progress=v(False),
    status=v(None),
    device=v("cpu"),
)


def early_student() -> distillation.FlowMap:
    net = sd.MLP((2,), 4, 1, 4, delta=True)
    return distillation.FlowMap.new(sd.Gaussian(torch.zeros(2), 0.5), net=net, taus=(sd.VPSDE().tau_max, 0.1))


call(
    "TeacherLast",
    lambda **a: sd.sample(distillation.TeacherLast(**a), 3, sampling.Jumps(), generator=generator()).x,
    student=early_student,
    teacher=lambda: sd.Gaussian(torch.zeros(2), 0.5),
)


def saved_student() -> str:
    distillation.save_student(new_student(), folder() / "student")
    return str(folder() / "student")


call(
    "save_student",
    distillation.save_student,
    student=new_student,
    path=v("saved"),
    keep=v(2),
)
call(
    "load_student",
    lambda **a: distillation.load_student(**a)(x(), 1.0, s=0.1).v.detach(),
    path=saved_student,
    teacher=v(None),
    known=v(None),
    raw=v(False),
)

# --- training and storage ------------------------------------------------------------------------------------------


def few(**fields: Any) -> Any:
    settings = sd.Training(**fields)
    settings = dataclasses.replace(settings, steps=min(settings.steps, 2), minutes=None)
    return sd.train(new_model(), x(), settings, progress=False).history


call(
    "Training",
    few,
    **{field.name: v(getattr(sd.Training(), field.name)) for field in dataclasses.fields(sd.Training)}
    | {"batch_size": v(4)},
)
call(
    "train",
    lambda **a: sd.train(**a).history,
    model=new_model,
    data=x,
    settings=lambda: sd.Training(steps=1, batch_size=4),
    run_dir=v(None),
    resume=v(False),
    save_every=v(1000),
    snapshot_every=v(None),
    keep=v(2),
    callbacks=v(()),
    trackers=v(()),
    about=v(None),
    progress=v(False),
    device=v("cpu"),
)
call(
    "Callback",
    lambda **a: (
        sd.train(
            new_model(), x(), sd.Training(steps=1, batch_size=4), callbacks=[sd.Callback(**a)], progress=False
        ).history
    ),
    steps=v(1),
    call=v(lambda state: None),
)
call(
    "loss_by_log_snr",
    training.loss_by_log_snr,
    model=model,
    x0=x,
    levels=v(3),
    loss=sd.Loss,
    repeats=v(1),
    batch_size=v(4),
    **GENERATOR,
)
call("save", sd.save, model=model, path=v("saved"), ema=v(None), tensors=v(None), meta=v(None), keep=v(2))


def saved() -> str:
    sd.save(model(), folder() / "loaded")
    return str(folder() / "loaded")


call(
    "load",
    sd.load,
    path=saved,
    net=v(None),
    known=v(None),
    raw=v(False),
    average=v(None),
    parameterization=v(None),
    sde=v(None),
    data=v(None),
)
call(
    "start_from",
    lambda **a: checkpoint.start_from(**a).copied,
    model=new_model,
    run=saved,
    raw=v(False),
)
call("read_checkpoint", checkpoint.read_checkpoint, path=saved)
call("latest_checkpoint", checkpoint.latest_checkpoint, run=saved)
call(
    "spec.parse",
    spec.parse,
    text=v("MinSNR(gamma=5.0)"),
    known=lambda: spec.known_classes(objective),
    kind=v(objective.Weighting),
)
call("spec.to_text", spec.to_text, obj=sd.MinSNR)

# --- evaluation and plots ------------------------------------------------------------------------------------------

call(
    "LikelihoodSettings",
    lambda **a: evaluation.LikelihoodSettings(**a),
    **{
        field.name: v(getattr(evaluation.LikelihoodSettings(), field.name))
        for field in dataclasses.fields(evaluation.LikelihoodSettings)
    },
)
call(
    "evaluate",
    lambda **a: evaluation.evaluate(**a).ode.value,
    model=lambda: model(data.Description("a", (2,))),
    events=x,
    settings=lambda: evaluation.LikelihoodSettings(tol=1.0, nodes=8),
    progress=v(False),
    announce=v(None),
    cond=v(None),
)
call("gaussian_fit", lambda **a: evaluation.gaussian_fit(**a).means, x=x)
call(
    "verify",
    lambda **a: evaluation.verify(**a).error,
    model=model,
    data=lambda: x(64),
    units=v("data"),
    cond=v(None),
    others=v(None),
    peer=v(None),
    limit=v(32),
    seed=v(0),
)
call(
    "Verification",
    lambda **a: str(evaluation.Verification(**a)),
    checks=lambda: (evaluation.Check("output", "passed", "Every alternative is worse."),),
    events=v(64),
    log_snr=v((0.0,)),
    error=v((0.1,)),
    linear_error=v((0.2,)),
    seconds=v(1.0),
)
call("error_by_noise", evaluation.error_by_noise, model=model, held_out=x, levels=v(3), seed=v(0))
call(
    "before_and_after",
    plots.before_and_after,
    before=lambda: torch.zeros(2, 1, 4, 4).numpy(),
    after=lambda: torch.zeros(2, 3, 1, 4, 4).numpy(),
    description=v(None),
    hidden=lambda: np.zeros((2, 1, 4, 4), bool),
)
call("is_strip", lambda **a: torch.tensor(plots.is_strip(**a)), shape=v((3,)))
call("class_colors", plots.class_colors, classes=v(4))
call("strips", plots.strips, x=lambda: tokens().numpy(), classes=v(4), gap=v(2))
call(
    "tile_images",
    plots.tile_images,
    x=lambda: torch.zeros(4, 1, 4, 4).numpy(),
    description=v(None),
    rows=v(2),
    columns=v(2),
)

# --- bridges -------------------------------------------------------------------------------------------------------


class PeerNetwork(torch.nn.Module):
    """A network of another code base: it takes a state, one more argument, and labels."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, outputs)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return self.layer(x) * torch.cos(t.float()).reshape(-1, 1)


class PeerDenoiser(PeerNetwork):
    """A denoiser with a schedule."""

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - 0.99 * t, 0.01 + 0.99 * t

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Any:
        return types.SimpleNamespace(mean=super().forward(x, t))


def adapted(adapter: torch.nn.Module, target: Any = None) -> Tensor:
    return sd.ScoreModel(adapter, sd.VPSDE(), target or sd.Eps(), (2,))(x(), 0.3).eps.detach()


def opened(origin: Any) -> Tensor:
    return origin.model(x(), 0.3).x0.detach()


def settings_of(function: Callable[..., Any], **given: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """The arguments given, and every other one of a function at its default."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: v(p.default) for p in parameters if p.default is not p.empty}
    return defaults | given


call(
    "FromSigmaTable",
    lambda **a: adapted(adapters.FromSigmaTable(**a)),
    net=PeerNetwork,
    sigmas=v((0.1, 1.0, 10.0)),
    rounding=v(True),
    scaled=v(False),
    score_output=v(True),
)
call(
    "OneHot",
    lambda **a: adapted(adapters.FromSigma(adapters.OneHot(**a))),
    net=PeerNetwork,
    count=v(3),
    keyword=v("class_labels"),
)
call(
    "Label",
    lambda **a: adapted(adapters.FromSigma(adapters.Label(**a))),
    net=PeerNetwork,
    count=v(3),
    keyword=v("class_labels"),
    null=v(True),
    drop=v(""),
)
call("FromSchedule", lambda **a: adapted(adapters.FromSchedule(**a), sd.X0()), net=PeerDenoiser)
SHAPED: dict[str, Callable[[], Any]] = {"shape": v((2,))}
call(
    "edm.from_network",
    lambda **a: opened(edm.from_network(**a)),
    **settings_of(edm.from_network, net=PeerNetwork, **SHAPED),
)
call(
    "score_sde.from_network",
    lambda **a: opened(score_sde.from_network(**a)),
    **settings_of(score_sde.from_network, net=PeerNetwork, steps=v(20), **SHAPED),
)
call(
    "guided_diffusion.from_network",
    lambda **a: opened(guided_diffusion.from_network(**a)),
    **settings_of(guided_diffusion.from_network, net=PeerNetwork, diffusion_steps=v(40), **SHAPED),
)
call("respaced_steps", guided_diffusion.respaced_steps, length=v(10), respacing=v("2,3"))
call(
    "k_diffusion.from_network",
    lambda **a: opened(k_diffusion.from_network(**a)),
    net=PeerNetwork,
    config=v({"model": {"sigma_data": 0.5}}),
    data=lambda: data.Description("a", (2,)),
)
call(
    "k_diffusion.from_wrapper",
    lambda **a: opened(k_diffusion.from_wrapper(**a)),
    **settings_of(k_diffusion.from_wrapper, wrapper=PeerNetwork, **SHAPED),
)
call(
    "azula.from_denoiser",
    lambda **a: opened(azula.from_denoiser(**a)),
    **settings_of(azula.from_denoiser, denoiser=PeerDenoiser, **SHAPED),
)
call(
    "open_model",
    lambda **a: bridges.open_model(**a).model(torch.zeros(2, 1, 8, 8), 0.3).x0.detach(),
    path=lambda: Path(__file__).parent / "bridges" / "models" / "k_diffusion" / "own.safetensors",
    net=lambda: DigitNetwork(scale=0.25),
    origin=v(None),
    bins=v(17),
)
call("time_grid", azula.time_grid, schedule=lambda: PeerDenoiser().schedule, steps=v(3), start=v(1.0), stop=v(0.0))


@functools.cache
def weights_file() -> Path:
    path = Path(tempfile.mkdtemp()) / "weights.safetensors"
    atexit.register(shutil.rmtree, path.parent)
    save_file({name: value.contiguous() for name, value in PeerNetwork().state_dict().items()}, path)
    return path


call("read_weights", weights.read_weights, path=weights_file)
call("read_weight_file", lambda **a: weights.read_weight_file(**a).tensors, path=weights_file)
call("fit", weights.fit, net=PeerNetwork, tensors=lambda: PeerNetwork().state_dict(), wrappers=v(("module.",)))
call("without_wrappers", weights.without_wrappers, tensors=lambda: {"module.a": x()}, wrappers=v(("module.",)))
