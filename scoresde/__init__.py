"""Diffusion models on one Ornstein–Uhlenbeck clock: DDPM, score SDEs and probability-flow ODEs are one object.

The names most used stand here; everything else is in the module that it belongs to. All are imported when they are
first asked for, so that ``import scoresde`` is quick.

    import scoresde

    model = scoresde.load("runs/digits")
    x = scoresde.sample(model, 64, scoresde.DDPM(steps=250)).data
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoresde.checkpoint import load_model as load
    from scoresde.checkpoint import save_model as save
    from scoresde.data import load as load_data
    from scoresde.guidance import Clipped, Thresholded
    from scoresde.likelihood import (
        Adaptive,
        Exact,
        Hutchinson,
        TorchDiffEq,
        bits_per_dim,
        continuous_bound,
        differentiable_log_prob,
        discrete_bound,
        importance_weights,
        log_prob,
        sample_log_prob,
    )
    from scoresde.loss import Loss
    from scoresde.model import Model, ScoreModel
    from scoresde.nn import MLP, Pointwise, UNet
    from scoresde.parameterization import X0, Eps, V
    from scoresde.sampler import DDIM, DDPM, ODE, EulerMaruyama, ExponentialSDE, RungeKutta, TorchSDE, sample
    from scoresde.schedule import Cosine, Linear, LinearBetas, LogLinear
    from scoresde.sde import VE, VPSDE, Flow, SubVP
    from scoresde.times import Importance, Knots, LogNormal, Stratified
    from scoresde.training import Training, train
    from scoresde.weighting import EDM, ELBO, MinSNR, Simple

    __version__: str

_HOMES = {
    "checkpoint": ("load = load_model", "save = save_model"),
    "data": ("load_data = load",),
    "guidance": ("Clipped", "Thresholded"),
    "likelihood": (
        "Adaptive",
        "Exact",
        "Hutchinson",
        "TorchDiffEq",
        "bits_per_dim",
        "continuous_bound",
        "differentiable_log_prob",
        "discrete_bound",
        "importance_weights",
        "log_prob",
        "sample_log_prob",
    ),
    "loss": ("Loss",),
    "model": ("Model", "ScoreModel"),
    "nn": ("MLP", "Pointwise", "UNet"),
    "parameterization": ("Eps", "V", "X0"),
    "sampler": ("DDIM", "DDPM", "ODE", "EulerMaruyama", "ExponentialSDE", "RungeKutta", "TorchSDE", "sample"),
    "schedule": ("Cosine", "Linear", "LinearBetas", "LogLinear"),
    "sde": ("VE", "VPSDE", "Flow", "SubVP"),
    "times": ("Importance", "Knots", "LogNormal", "Stratified"),
    "training": ("Training", "train"),
    "weighting": ("EDM", "ELBO", "MinSNR", "Simple"),
}
_MODULES = (*_HOMES, "analytic", "compare", "metrics", "ou", "report", "spec")
_NAMES = {
    name: (module, own or name)
    for module, entries in _HOMES.items()
    for name, _, own in (entry.partition(" = ") for entry in entries)
}

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "ELBO",
    "MLP",
    "ODE",
    "UNet",
    "VE",
    "VPSDE",
    "X0",
    "Clipped",
    "Cosine",
    "Eps",
    "EulerMaruyama",
    "Exact",
    "ExponentialSDE",
    "Flow",
    "Hutchinson",
    "Importance",
    "Knots",
    "Linear",
    "LinearBetas",
    "LogLinear",
    "LogNormal",
    "Loss",
    "MinSNR",
    "Model",
    "Pointwise",
    "RungeKutta",
    "ScoreModel",
    "Simple",
    "Stratified",
    "SubVP",
    "Thresholded",
    "TorchSDE",
    "Training",
    "V",
    "__version__",
    "bits_per_dim",
    "load",
    "load_data",
    "log_prob",
    "sample",
    "save",
    "train",
    "Adaptive",
    "TorchDiffEq",
    "continuous_bound",
    "differentiable_log_prob",
    "discrete_bound",
    "importance_weights",
    "sample_log_prob",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("scoresde")
        except PackageNotFoundError:
            return "0+unknown"
    if name in _NAMES:
        module, own = _NAMES[name]
        value = getattr(importlib.import_module(f"scoresde.{module}"), own)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"scoresde.{name}")
    raise AttributeError(f"module 'scoresde' has no attribute {name!r}; dir(scoresde) lists what there is")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
