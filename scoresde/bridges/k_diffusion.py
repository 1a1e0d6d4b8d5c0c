r"""k-diffusion: its wrappers of networks, and networks of its own with their JSON configuration.

==============================  ====================================  ======================
wrapper                         the network receives                  its output
==============================  ====================================  ======================
``DiscreteEpsDDPMDenoiser``     x, t interpolated in log σ̃            ε
``DiscreteVDDPMDenoiser``       x, t interpolated in log σ̃            v
``VDenoiser``                   x, (2/π) atan σ̃                       v
``layers.Denoiser``             x̃/√(σ_d² + σ̃²), σ̃                     −V(σ_d)
any other                       it is called itself, D(x̃, σ̃)           x_0
==============================  ====================================  ======================

A checkpoint holds ``model``, ``model_ema`` and ``config``; a file for inference is a safetensors file of the averages
with the configuration as text in its header.

Source: k-diffusion's ``external.py``, ``layers.py`` and ``config.py`` (Crowson et al.).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_kind, check_positive
from scoresde.adapters import FromSigma, FromSigmaTable
from scoresde.bridges.conventions import data_finding, default_data, karras_grid, labeled, step_findings
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import Source, WeightFile, choose, fit, read_json, read_weight_file
from scoresde.bridges.weights.files import parse_json
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process.parameterization import X0, Eps, V
from scoresde.process.schedule import FromBetas, GeometricSigma
from scoresde.process.sde import SDE, VE, VPSDE
from scoresde.sampling import DPMSolverPP

__all__ = ["from_network", "from_wrapper", "open_file", "recognize"]

_STEPS = 50  # levels of the sampler of its training script


def recognize(file: WeightFile) -> bool:
    """Whether a file is a checkpoint or a file for inference: averages ``model_ema``, or a configuration as text.

    Args:
        file: Its content; only names are read.
    """
    if any(name.startswith("model_ema.") for name in file.tensors):
        return any(name.startswith("config.model.") for name in file.values)
    return isinstance(text := file.values.get("config"), str) and '"model"' in text


def open_file(
    path: Source,
    net: nn.Module,
    config: str | os.PathLike[str] | None = None,
    data: Description | None = None,
    raw: bool = False,
) -> Opened:
    """Loads a checkpoint or a file for inference into a network.

    Args:
        path: The file; its averages are used where it has them.
        net: The network that ``make_model(config)`` builds.
        config: The JSON configuration, where the file does not hold it.
        data: Description of the data; default images of bytes in [-1, 1].
        raw: Take the weights as trained instead of their averages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused, does not fit the network, no configuration is found, or it has no raw
            weights although they are asked for.
    """
    check_arguments(open_file, locals())
    check_kind("net", net, nn.Module)
    file = read_weight_file(path)
    settings = _configuration(file, config)
    tensors, finding = choose(file, net, ("model_ema.",), ("model.",) if raw else ("model.", ""), want_raw=raw)
    if "config" in file.values:
        finding = Finding("weights", "exponential moving average", "assumed", "a file for inference holds averages")
    fit(net, tensors)
    opened = from_network(net, settings, data)
    return replace(opened, findings=(finding, *step_findings(file), *opened.findings))


def from_network(net: nn.Module, config: Mapping[str, Any], data: Description | None = None) -> Opened:
    r"""The model of a network that is called as ``net(c_in x̃, σ̃)`` and returns $-V(\sigma_d)$.

    Args:
        net: The network that ``make_model(config)`` builds.
        config: Its configuration; of ``config["model"]`` it reads ``sigma_data`` (default 1), ``sigma_min``,
            ``sigma_max``, ``input_size`` and ``input_channels``.
        data: Description of the data; default images of bytes in [-1, 1] if the size is stated.

    Returns:
        The model, with DPM-Solver++(2M) on 50 levels of Karras's grid.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If ``config`` has no object ``model``, or a level is not positive.
    """
    check_kind("net", net, nn.Module)
    check_arguments(from_network, locals())
    settings = config.get("model")
    if not isinstance(settings, Mapping):
        raise ValueError(f"a configuration of k-diffusion has an object `model`, got {sorted(config)[:8]}.")
    findings: list[Finding] = []

    def number(name: str, default: float) -> float:
        value = settings.get(name, default)
        check_positive(**{name: value})
        source = "stated" if name in settings else "assumed"
        findings.append(Finding(name, f"{value:g}", source, f"config.model.{name}" if name in settings else "default"))
        return float(value)

    sigma_data, low, high = number("sigma_data", 1.0), number("sigma_min", 0.01), number("sigma_max", 80.0)
    size, channels = settings.get("input_size"), settings.get("input_channels")
    shape = (int(channels), *map(int, size)) if isinstance(size, (list, tuple)) and channels else None
    findings.append(Finding("prediction", f"-V(sigma_data={sigma_data:g})", "derived", "layers.Denoiser"))
    adapter = FromSigma(labeled(net, findings), sigma_data, "sigma", "negative")
    return _opened(adapter, V(sigma_data), _exploding(low, high), (low, high), shape, data, findings)


def from_wrapper(
    wrapper: nn.Module,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    shape: tuple[int, ...] | None = None,
    data: Description | None = None,
) -> Opened:
    """The model of a network inside one of k-diffusion's wrappers.

    Args:
        wrapper: ``VDenoiser``, ``DiscreteEpsDDPMDenoiser``, ``OpenAIDenoiser``, ``DiscreteVDDPMDenoiser``,
            ``layers.Denoiser``, or any other denoiser that is called as ``wrapper(x̃, σ̃)``.
        sigma_min, sigma_max: Levels of the process; default those of the wrapper's table, else 0.01 and 80.
        shape: Shape of one event.
        data: Description of the data; default images of bytes in [-1, 1] if the shape is known.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If a level is not positive, or differs from those of the wrapper's table.
    """
    check_kind("wrapper", wrapper, nn.Module)
    check_arguments(from_wrapper, locals())
    names = {cls.__name__ for cls in type(wrapper).__mro__}
    inner = getattr(wrapper, "inner_model", None)
    findings = [Finding("wrapper", type(wrapper).__name__, "stated", "class of the object")]
    table = getattr(wrapper, "sigmas", None)
    if isinstance(inner, nn.Module) and isinstance(table, Tensor) and names & _DISCRETE.keys() and not names & _OTHER:
        if sigma_min is not None or sigma_max is not None:
            raise ValueError("the levels of this wrapper are those of its table; leave out sigma_min and sigma_max.")
        return _from_table(wrapper, inner, table, shape, data, findings)
    low, high = 0.01 if sigma_min is None else sigma_min, 80.0 if sigma_max is None else sigma_max
    check_positive(sigma_min=low, sigma_max=high)
    source = "stated" if sigma_min is not None and sigma_max is not None else "assumed"
    findings.append(Finding("levels", f"{low:g} … {high:g}", source, "arguments or the configurations' usual values"))
    inner = labeled(inner, findings) if isinstance(inner, nn.Module) and names & {"VDenoiser", "Denoiser"} else inner
    if isinstance(inner, nn.Module) and "VDenoiser" in names:
        adapter, target = FromSigma(inner, 1.0, "angle"), V()
    elif isinstance(inner, nn.Module) and "Denoiser" in names:
        sigma_data = float(wrapper.sigma_data)  # pyright: ignore[reportArgumentType]
        adapter, target = FromSigma(inner, sigma_data, "sigma", "negative"), V(sigma_data)
    else:
        adapter, target = FromSigma(wrapper), X0()
    findings.append(Finding("prediction", repr(target), "derived", "class of the wrapper"))
    return _opened(adapter, target, _exploding(low, high), (low, high), shape, data, findings)


_DISCRETE = {"DiscreteEpsDDPMDenoiser": Eps(), "DiscreteVDDPMDenoiser": V()}
_OTHER = {"CompVisDenoiser", "CompVisVDenoiser"}  # they call another method of the network than its forward


def _from_table(
    wrapper: nn.Module,
    inner: nn.Module,
    table: Tensor,
    shape: tuple[int, ...] | None,
    data: Description | None,
    findings: list[Finding],
) -> Opened:
    target = next(_DISCRETE[cls.__name__] for cls in type(wrapper).__mro__ if cls.__name__ in _DISCRETE)
    sigmas = tuple(table.double().tolist())
    taus = [0.0, *(0.5 * math.log1p(sigma**2) for sigma in sigmas)]
    clock = FromBetas(tuple(-math.expm1(2 * (s - tau)) for s, tau in zip(taus, taus[1:])))
    rounding, learned = bool(getattr(wrapper, "quantize", False)), bool(getattr(wrapper, "has_learned_sigmas", False))
    findings += [
        Finding("clock", f"{len(sigmas)} levels, {sigmas[0]:.4g} … {sigmas[-1]:.4g}", "stated", "buffer sigmas"),
        Finding("prediction", repr(target), "derived", "class of the wrapper"),
        Finding("timesteps", "integers" if rounding else "fractions", "stated", "quantize"),
    ]
    adapter, sde = (
        FromSigmaTable(labeled(inner, findings), sigmas, rounding),
        VPSDE(clock, tau_min=clock.knots(len(sigmas))[1]),
    )
    return _opened(adapter, target, sde, (sigmas[0], sigmas[-1]), shape, data, findings, learned)


def _opened(
    adapter: nn.Module,
    target: Any,
    sde: SDE,
    levels: tuple[float, float],
    shape: tuple[int, ...] | None,
    data: Description | None,
    findings: list[Finding],
    learned_variance: bool = False,
) -> Opened:
    described = data if data is not None else default_data(shape)
    findings.append(data_finding(described, data is not None, True, "k-diffusion's data transforms"))
    findings.append(Finding("sampler", f"DPM-Solver++(2M), {_STEPS} levels", "assumed", "its training script"))
    model = ScoreModel(adapter, sde, target, shape, described, learned_variance)
    sampler = DPMSolverPP(_STEPS, karras_grid(_STEPS, *levels))
    return Opened(model, "k-diffusion", tuple(findings), sampler=sampler)


def _exploding(low: float, high: float) -> VE:
    return VE(GeometricSigma(low, high), tau_min=0.5 * math.log1p(low**2))


def _configuration(file: WeightFile, config: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The configuration from the argument, from the header of a safetensors file, or from a checkpoint."""
    if config is not None:
        return read_json(Path(config))
    if isinstance(text := file.values.get("config"), str):
        return parse_json(text.encode(), f"the configuration in {file.path}")
    prefix = "config.model."
    model: dict[str, Any] = {k.removeprefix(prefix): v for k, v in file.values.items() if k.startswith(prefix)}
    if not model:
        raise ValueError(f"{file.path} holds no configuration; pass config=… with the JSON file of the training.")
    axes = sorted(name for name in model if name.startswith("input_size."))
    return {"model": model | ({"input_size": [model[name] for name in axes]} if axes else {})}
