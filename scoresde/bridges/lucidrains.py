r"""denoising-diffusion-pytorch (lucidrains): U-Nets inside ``GaussianDiffusion``, and its trainer's files.

A file ``model-<n>.pt`` holds ``model`` and ``ema.ema_model``, each a ``GaussianDiffusion`` with the network as its
``model`` and the schedule as buffers. The objective follows from the buffer ``loss_weight``: without min-SNR it is 1
for noise, the SNR for x_0 and SNR/(SNR + 1) for v. The network takes the step t = K u − 1; images in [0, 1] become
2x − 1.

Source: denoising_diffusion_pytorch.py of the package denoising-diffusion-pytorch, ``GaussianDiffusion``, ``Trainer``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.suggest import nearest
from scoresde.adapters import FromStep
from scoresde.bridges.conventions import (
    cosine_betas,
    data_finding,
    default_data,
    labeled,
    linear_betas,
    step_findings,
    step_grid,
)
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import Source, WeightFile, choose, fit, read_weight_file
from scoresde.data import Description
from scoresde.guidance import Clipping
from scoresde.model import ScoreModel
from scoresde.process.parameterization import X0, Eps, Parameterization, V
from scoresde.process.schedule import FromBetas, Schedule
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, DDPM, Sampler

__all__ = ["from_diffusion", "open_file", "recognize"]

_OBJECTIVES: dict[str, Parameterization] = {"pred_noise": Eps(), "pred_x0": X0(), "pred_v": V()}
_AVERAGES, _RAW = ("ema.ema_model.",), ("model.", "")
_FIRST, _LAST = "init_conv.weight", "final_conv.weight"


def recognize(file: WeightFile) -> bool:
    """Whether a file is a trainer's, or the state dict of a ``GaussianDiffusion``.

    Args:
        file: Its content; only names are read.
    """
    names = file.tensors
    prefixes = [p for p in (*_AVERAGES, *_RAW) if {f"{p}betas", f"{p}alphas_cumprod"} <= names.keys()]
    return any(name.startswith(f"{prefix}model.") for prefix in prefixes for name in names)


def open_file(
    path: Source,
    net: nn.Module,
    *,
    objective: str | None = None,
    sampling_timesteps: int | None = None,
    ddim_sampling_eta: float = 0.0,
    auto_normalize: bool = True,
    raw: bool = False,
    shape: tuple[int, ...] | None = None,
    data: Description | None = None,
) -> Opened:
    """Loads a trainer's file into a network; its averages are used where it has them.

    Args:
        path: A file ``model-<n>.pt``, or the state dict of a ``GaussianDiffusion``.
        net: The ``Unet``, or a ``GaussianDiffusion`` around it.
        objective: ``"pred_noise"``, ``"pred_x0"`` or ``"pred_v"``; default what the file's ``loss_weight`` states.
        sampling_timesteps, ddim_sampling_eta: Settings of its DDIM; without the first the sampler is the whole chain.
        auto_normalize: Whether images lie in [-1, 1] for the network; otherwise in [0, 1].
        raw: Take the weights as trained instead of their averages.
        shape: Shape of one event; default that of a ``GaussianDiffusion``.
        data: Description of the data; default images of bytes if the shape is known.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused, does not fit the network, is of a network with self-conditioning, or
            contradicts ``objective``.
    """
    check_arguments(open_file, locals())
    check_kind("net", net, nn.Module)
    inner = _inner(net)
    file = read_weight_file(path)
    tensors, finding = choose(file, inner, _AVERAGES, _RAW, "model.", raw)
    _refuse_self_conditioning(inner, tensors)
    fit(inner, tensors)
    learned = _LAST in tensors and tensors[_LAST].shape[0] == 2 * tensors[_FIRST].shape[1]
    shape = _shape(net) if shape is None else shape
    buffers = _buffers(file)
    return _opened(
        inner,
        buffers,
        [finding, *step_findings(file)],
        objective,
        sampling_timesteps,
        ddim_sampling_eta,
        auto_normalize,
        shape,
        data,
        learned,
    )


def from_diffusion(
    diffusion: nn.Module, *, shape: tuple[int, ...] | None = None, data: Description | None = None
) -> Opened:
    """The model of a ``GaussianDiffusion``, of which the objective, the buffers and the settings of DDIM are read.

    Args:
        diffusion: The object.
        shape: Shape of one event; default its channels and image size.
        data: Description of the data; default images of bytes if the shape is known.

    Raises:
        TypeError: If it is not a module.
        ValueError: If it lacks a buffer, or its network has self-conditioning.
    """
    check_kind("diffusion", diffusion, nn.Module)
    check_arguments(from_diffusion, locals())
    inner, buffers = _inner(diffusion), dict(diffusion.named_buffers(recurse=False))
    _refuse_self_conditioning(inner, inner.state_dict())
    shape = _shape(diffusion) if shape is None else shape
    steps = getattr(diffusion, "sampling_timesteps", None) if getattr(diffusion, "is_ddim_sampling", False) else None
    centered = getattr(getattr(diffusion, "normalize", None), "__name__", "") != "identity"
    objective, eta = getattr(diffusion, "objective", None), float(getattr(diffusion, "ddim_sampling_eta", 0.0))
    learned = getattr(inner, "out_dim", None) == 2 * getattr(inner, "channels", 0) != 0
    return _opened(inner, buffers, [], objective, steps, eta, centered, shape, data, learned)


def _inner(net: nn.Module) -> nn.Module:
    model = getattr(net, "model", None)
    return model if isinstance(model, nn.Module) and hasattr(net, "betas") else net


def _shape(net: nn.Module) -> tuple[int, ...] | None:
    """The event shape that a ``GaussianDiffusion`` states; a ``Unet`` states none."""
    channels, size, length = (getattr(net, name, None) for name in ("channels", "image_size", "seq_length"))
    axes = (length,) if length is not None else (size, size) if isinstance(size, int) else size
    return None if channels is None or axes is None else (int(channels), *map(int, axes))


def _described(shape: tuple[int, ...] | None, centered: bool) -> Description | None:
    """Images of bytes, or series of numbers in [0, 1], which have no bins."""
    if shape is None or len(shape) != 2:
        return default_data(shape, centered)
    return Description("series", shape, offset=0.5, scale=0.5) if centered else Description("series", shape)


def _buffers(file: WeightFile) -> dict[str, Tensor]:
    prefix = next(p for p in (*_AVERAGES, *_RAW) if any(name.startswith(f"{p}model.") for name in file.tensors))
    return {name.removeprefix(prefix): v for name, v in file.tensors.items() if name.startswith(prefix)}


def _refuse_self_conditioning(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    channels = [tensors[name].shape[axis] for name, axis in ((_FIRST, 1), (_LAST, 0)) if name in tensors]
    if getattr(net, "self_condition", False) or (len(channels) == 2 and channels[0] == 2 * channels[1]):
        raise ValueError(
            "a network is a function of its state, its time and conditions, got one with self-conditioning, which also "
            "takes its own previous estimate; train with self_condition=False, or sample it with its own package."
        )


def _opened(
    net: nn.Module,
    buffers: Mapping[str, Tensor],
    findings: list[Finding],
    objective: str | None,
    sampling_timesteps: int | None,
    eta: float,
    centered: bool,
    shape: tuple[int, ...] | None,
    data: Description | None,
    learned_variance: bool,
) -> Opened:
    clock, length = _clock(buffers, findings)
    target = _objective(buffers, objective, findings)
    described = data if data is not None else _described(shape, centered)
    sde = VPSDE(clock, tau_min=clock.knots(length)[1])
    model = ScoreModel(FromStep(labeled(net, findings), clock, length), sde, target, shape, described, learned_variance)
    sampler = _sampler(clock, length, sampling_timesteps, eta, learned_variance)
    findings += [
        Finding("range of the estimates", "x_0 clipped to [-1, 1]", "stated", "clip_denoised of its samplers"),
        Finding("sampler", repr(sampler), "stated" if sampling_timesteps else "assumed", "sampling_timesteps"),
        data_finding(described, data is not None, centered, "auto_normalize"),
    ]
    return Opened(model, "denoising-diffusion-pytorch", tuple(findings), Clipping(model), sampler)


def _clock(buffers: Mapping[str, Tensor], findings: list[Finding]) -> tuple[Schedule, int]:
    """The schedule in double precision where one of the package's rounds to the float32 buffer, else the buffer."""
    betas = buffers.get("betas")
    if betas is None or betas.ndim != 1:
        raise ValueError(f"a GaussianDiffusion has a buffer betas, got {sorted(buffers)[:8]}; pass its own state dict.")
    length = len(betas)
    for name, values in (
        ("linear", linear_betas(length)),
        ("cosine", cosine_betas(length)),
        ("sigmoid", _sigmoid_betas(length)),
    ):
        if torch.allclose(torch.tensor(values, dtype=torch.float64), betas.double(), rtol=3e-7, atol=1e-12):
            findings.append(Finding("clock", f"{name} betas, {length} steps", "derived", "equal to the buffer betas"))
            return FromBetas(tuple(values)), length
    findings.append(Finding("clock", f"{length} betas", "stated", "buffer betas, float32"))
    return FromBetas(tuple(betas.double().tolist())), length


def _sigmoid_betas(length: int) -> tuple[float, ...]:
    r"""Betas of $\bar\alpha$ falling as $-\mathrm{sigmoid}$ on [-3, 3], each at most .999; its ends in float32."""
    a = torch.linspace(0, length, length + 1, dtype=torch.float64) / length * 6 - 3
    first, last = torch.tensor(-3.0).sigmoid(), torch.tensor(3.0).sigmoid()
    bars = (last - a.sigmoid()) / (last - first)
    bars = bars / bars[0]
    return tuple((1 - bars[1:] / bars[:-1]).clamp(0, 0.999).tolist())


def _objective(buffers: Mapping[str, Tensor], given: str | None, findings: list[Finding]) -> Parameterization:
    """The parameterization, from the argument or from the loss's weight at SNR 1/3, which min-SNR does not clip."""
    if given is not None and given not in _OBJECTIVES:
        raise ValueError(f"no objective is named {given!r}; {nearest(given, _OBJECTIVES)}")
    weight, bars = buffers.get("loss_weight"), buffers.get("alphas_cumprod")
    derived = None
    if weight is not None and bars is not None and weight.shape == bars.shape:
        index = int((bars.double() - 0.25).abs().argmin())
        bar = float(bars[index])
        expected = {"pred_noise": 1.0, "pred_x0": bar / (1 - bar), "pred_v": bar}
        derived = next((k for k, v in expected.items() if abs(float(weight[index]) - v) < 1e-3 * v), None)
    if given is not None and derived is not None and given != derived:
        raise ValueError(
            f"the buffer loss_weight is that of {derived!r}, got objective={given!r}; leave objective out."
        )
    if (objective := given or derived) is None:
        raise ValueError(f"the file does not state the objective; pass objective= one of {', '.join(_OBJECTIVES)}.")
    source = "derived" if derived is not None else "stated"
    findings.append(Finding("prediction", objective, source, "buffer loss_weight" if derived else "argument"))
    return _OBJECTIVES[objective]


def _sampler(clock: Schedule, length: int, steps: int | None, eta: float, learned_variance: bool) -> Sampler:
    if steps is None or steps == length:
        return DDPM(length, rev_var="learned" if learned_variance else "beta_tilde")
    check_integer("sampling_timesteps", steps, 1, length)
    times = torch.linspace(-1, length - 1, steps + 1).int().tolist()
    return DDIM(steps, step_grid(clock, length, times[1:]), eta)
