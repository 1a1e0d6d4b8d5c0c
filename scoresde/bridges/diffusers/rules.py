r"""Rules that make a `ScoreModel` of a diffusers network and its scheduler's settings.

| scheduler | process | time of the network | output |
|---|---|---|---|
| chain of betas | `VPSDE` on `FromBetas` | $t = K u - 1$ | epsilon is `Eps`, sample is `X0`, v_prediction is `V` |
| flow matching | `Flow` | $K\sigma$, σ the noise of the straight path | $\varepsilon - x_0$ is `Velocity` |
| EDM | `VE` | $\tfrac14\log\tilde\sigma$, input $\tilde x/\sqrt{\tilde\sigma^2 + \sigma_d^2}$ | epsilon is $-V(\sigma_d)$, v_prediction $V(\sigma_d)$ |
| ScoreSdeVe | `VE` | $\tilde\sigma$, input $\tilde x$ | the score in $\tilde x$: $-\tilde\sigma\,out$ is `Eps` |

Source: diffusers' schedulers (version 0.42), whose ``step`` states each rule.
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from scoresde._core.suggest import nearest
from scoresde.adapters import Adapter, FromSigma, FromStep, FromTime
from scoresde.bridges.diffusers.betas import beta_clock
from scoresde.bridges.diffusers.settings import BETA_CHAINS, EDM, FLOW, SchedulerSettings
from scoresde.bridges.opened import Finding
from scoresde.guidance import Clipping, DynamicThresholding
from scoresde.model import Model
from scoresde.process.parameterization import X0, Eps, Parameterization, V, Velocity
from scoresde.process.schedule import GeometricSigma, StraightPath
from scoresde.process.sde import SDE, VE, VPSDE, Flow

__all__ = ["Rules", "model_rules", "rounds_times", "steered_model"]


@dataclass(frozen=True, eq=False)
class Rules:
    """What a scheduler's settings say about the network.

    Attributes:
        kind: ``"chain"``, ``"flow"``, ``"edm"`` or ``"sde_ve"``.
        process: The forward process.
        parameterization: What the output estimates, after the adapter.
        adapter: The adapter around a network.
        findings: What is stated, derived and assumed.
        rounded: The adapter with which the scheduler samples, if it rounds the times of its noise levels; else None.
    """

    kind: str
    process: SDE
    parameterization: Parameterization
    adapter: Callable[[nn.Module], Adapter]
    findings: tuple[Finding, ...]
    rounded: Callable[[nn.Module], Adapter] | None = None


def model_rules(settings: SchedulerSettings) -> Rules:
    """The rules of a scheduler.

    Args:
        settings: The scheduler's.

    Raises:
        ValueError: If the scheduler, its betas or its prediction type are not known.
    """
    name = settings.class_name
    if settings["prediction_type"] == "flow_prediction" or settings["use_flow_sigmas"]:
        return _flow(settings)
    if name == "EulerDiscreteScheduler" and settings["timestep_type"] == "continuous":
        return _edm(settings, sigma_data=1.0)
    if name in BETA_CHAINS:
        return _chain(settings)
    if name in FLOW:
        return _flow(settings)
    if name in EDM:
        return _edm(settings, settings["sigma_data"])
    if name == "ScoreSdeVeScheduler":
        return _sde_ve(settings)
    known = (*BETA_CHAINS, *FLOW, *EDM, "ScoreSdeVeScheduler")
    raise ValueError(f"no rules are known for the scheduler {name!r}; {nearest(name, known)}")


def _chain(settings: SchedulerSettings) -> Rules:
    length, name = settings["num_train_timesteps"], settings.class_name
    clock = beta_clock(settings, _interpolation(settings))
    process = VPSDE(clock, tau_min=clock.knots(length)[1])
    kind = settings["prediction_type"]
    if name.startswith("Euler") and kind == "original_sample":
        kind = "sample"
    found = {"epsilon": Eps(), "sample": X0(), "v_prediction": V()}.get(kind)
    if found is None:
        raise ValueError(
            f"prediction_type must be epsilon, sample or v_prediction, got {kind!r} in {settings.file}; correct it."
        )
    betas = ("trained_betas", "beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
    rounds = rounds_times(settings)
    times = "integers, rounded; Opened.model takes fractions"
    return Rules(
        "chain",
        process,
        found,
        lambda net: FromStep(net, clock, length, rounding=bool(getattr(net, "time_is_integer", False))),
        (
            settings.finding("clock", clock, *betas, "rescale_betas_zero_snr"),
            settings.finding("prediction", found, "prediction_type"),
            *((Finding("times when sampling", times, "derived", name),) if rounds else ()),
        ),
        (lambda net: FromStep(net, clock, length, rounding=True)) if rounds else None,
    )


def rounds_times(settings: SchedulerSettings) -> bool:
    """Whether the scheduler rounds the times of noise levels that it chooses between those of its timesteps."""
    if settings.class_name == "UniPCMultistepScheduler":
        return bool(settings["use_karras_sigmas"]) and not settings["use_flow_sigmas"]
    chosen = settings["use_karras_sigmas"] or settings["use_lu_lambdas"]
    is_dpm = settings.class_name == "DPMSolverMultistepScheduler"
    return is_dpm and bool(chosen) and settings["beta_schedule"] != "squaredcos_cap_v2"


def _interpolation(settings: SchedulerSettings) -> str:
    """How the scheduler finds noise levels between two timesteps, or timesteps between two noise levels."""
    if any(settings[f"use_{name}"] for name in ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")):
        return "log_sigma"
    return "sigma" if settings.class_name.startswith(("Euler", "Heun", "LMS")) else "alpha_bar"


def _flow(settings: SchedulerSettings) -> Rules:
    length, shift = settings["num_train_timesteps"], settings["shift"]
    if settings.class_name not in FLOW:
        shift = settings["flow_shift"]
    last = shift / (length + shift - 1.0)
    process = Flow(tau_min=float(StraightPath().tau(last)))
    return Rules(
        "flow",
        process,
        Velocity(),
        lambda net: FromTime(net, process, float(length)),
        (
            settings.finding("clock", f"straight path, timestep {length} σ", "num_train_timesteps"),
            Finding("prediction", "Velocity()", "derived", f"{settings.class_name} steps by ε - x0"),
        ),
    )


def _edm(settings: SchedulerSettings, sigma_data: float) -> Rules:
    low, high, kind = settings["sigma_min"], settings["sigma_max"], settings["prediction_type"]
    if low is None or high is None:  # then Euler takes the ends of its chain of betas
        chain = beta_clock(settings)
        ends = (chain.knots(settings["num_train_timesteps"])[1], chain.tau_max)
        low, high = (given or math.sqrt(math.expm1(2 * tau)) for given, tau in zip((low, high), ends))
    signs = {"epsilon": "negative", "v_prediction": "unchanged"}
    if kind not in signs or (kind == "epsilon" and settings.class_name not in EDM):
        raise ValueError(f"prediction_type must be epsilon or v_prediction, got {kind!r} in {settings.file}.")
    clock = GeometricSigma(float(low), float(high))
    return Rules(
        "edm",
        VE(clock, tau_min=float(clock.tau(0.0))),
        V(float(sigma_data)),
        lambda net: FromSigma(net, float(sigma_data), "quarter log", signs[kind]),
        (
            settings.finding("clock", clock, "sigma_min", "sigma_max"),
            settings.finding("prediction", f"{'-' if kind == 'epsilon' else ''}V({sigma_data})", "prediction_type"),
        ),
    )


def _sde_ve(settings: SchedulerSettings) -> Rules:
    clock = GeometricSigma(float(settings["sigma_min"]), float(settings["sigma_max"]))
    return Rules(
        "sde_ve",
        VE(clock, tau_min=float(clock.tau(0.0))),
        Eps(),
        lambda net: FromSigma(net, output_form="score"),
        (
            settings.finding("clock", clock, "sigma_min", "sigma_max"),
            Finding("prediction", "Score of the state x/α", "derived", "ScoreSdeVeScheduler steps by the score"),
        ),
    )


def steered_model(model: Model, settings: SchedulerSettings, clipped_output: bool) -> tuple[Model, Finding | None]:
    """The model as the scheduler uses it: with its clipping, or its thresholding.

    Args:
        model: The network as a model.
        settings: The scheduler's.
        clipped_output: Of DDIM: whether the noise estimate follows from the clipped data estimate, see
            ``use_clipped_model_output`` of its ``step``.

    Returns:
        The wrapped model, or ``model`` itself, and a finding if it is wrapped.
    """
    keep = settings.class_name.startswith("DDIM") and not clipped_output
    suffix = ", with the noise estimate of the unclipped output" if keep else ""
    if settings["thresholding"]:
        ratio, largest = float(settings["dynamic_thresholding_ratio"]), float(settings["sample_max_value"])
        wrapped = DynamicThresholding(model, ratio, 1.0, max(largest, 1.0), keep)
        value = f"dynamic thresholding, quantile {ratio:g}, at most {largest:g}{suffix}"
        return wrapped, settings.finding("clipping", value, "thresholding", "sample_max_value")
    clips = settings.class_name.startswith(("DDIM", "DDPM", "Heun", "LCM", "TCD"))
    if clips and settings["clip_sample"]:
        bound = float(settings["clip_sample_range"])
        value = f"x0 to [{-bound:g}, {bound:g}]{suffix}"
        return Clipping(model, -bound, bound, keep), settings.finding("clipping", value, "clip_sample")
    return model, None
