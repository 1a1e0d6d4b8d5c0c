r"""Networks of guided-diffusion and improved-diffusion (OpenAI): a DDPM chain, its respacing, learned variances.

A file, such as ``model250000.pt`` or ``ema_0.9999_250000.pt``, is a state dict; the settings are flags of the command
that trained it. The network takes the step t = K u − 1, perhaps rescaled to 1000/K of it, and the class as ``y``. It
returns the noise (or x_0), and with a learned variance a second half v of the channels, $mix = (v + 1)/2$.

Source: Nichol & Dhariwal 2021; Dhariwal & Nichol 2021; the repositories' ``script_util.py`` and ``respace.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.suggest import nearest
from scoresde.adapters import FromStep
from scoresde.bridges.conventions import cosine_betas, data_finding, default_data, labeled, linear_betas, step_grid
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import Source, WeightFile, choose, fit, read_weight_file
from scoresde.data import Description
from scoresde.guidance import Clipping
from scoresde.model import ScoreModel
from scoresde.process.parameterization import X0, Eps
from scoresde.process.schedule import FromBetas, LinearBetas, Schedule
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, DDPM, Sampler

__all__ = ["from_network", "open_file", "recognize", "respaced_steps"]

_SCHEDULES = ("linear", "cosine")
_FIRST, _LAST = "input_blocks.0.0.weight", "out.2.weight"


def recognize(file: WeightFile) -> bool:
    """Whether a file holds weights of the U-Net of both repositories.

    Args:
        file: Its content; only names are read.
    """
    return {"time_embed.0.weight", _FIRST, _LAST} <= {name.removeprefix("module.") for name in file.tensors}


def open_file(path: Source, net: nn.Module, **settings: object) -> Opened:
    """Loads a state dict into a network.

    Args:
        path: A file of weights, see `read_weights`; one named ``ema_*`` holds averages.
        net: The network that ``create_model(…)`` builds.
        **settings: As in `from_network`; ``learn_sigma`` is derived from the shapes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused, or does not fit the network.
    """
    check_arguments(open_file, locals())
    check_kind("net", net, nn.Module)
    file = read_weight_file(path)
    tensors, finding = choose(file, net, (), ("",))
    if file.path.name.startswith("ema_"):
        finding = Finding("weights", "exponential moving average", "stated", f"the name {file.path.name}")
    fit(net, tensors)
    derived, learn_sigma = _derived(tensors)
    opened = from_network(net, **{**learn_sigma, **settings})  # pyright: ignore[reportArgumentType]
    findings = (finding, *derived, *opened.findings)
    return replace(opened, findings=findings)


def from_network(
    net: nn.Module,
    *,
    noise_schedule: str = "linear",
    diffusion_steps: int = 1000,
    timestep_respacing: str | int | Sequence[int] = "",
    learn_sigma: bool = False,
    sigma_small: bool = False,
    predict_xstart: bool = False,
    rescale_timesteps: bool = False,
    shape: tuple[int, ...] | None = None,
    data: Description | None = None,
) -> Opened:
    """The model of a network. The settings have the names and defaults of guided-diffusion's flags.

    improved-diffusion's default of ``rescale_timesteps`` is True.

    Args:
        net: The network, ``net(x, t)`` or ``net(x, t, y=labels)``; its classes are the condition ``label``.
        noise_schedule: ``"linear"`` or ``"cosine"``.
        diffusion_steps: Length K of the chain.
        timestep_respacing: Steps of the sampler, as text or in Python: ``"250"``, ``250``, ``"10,10,20"``,
            ``(10, 10, 20)`` or ``"ddim25"``; empty for all.
        learn_sigma: Whether the output has twice the channels.
        sigma_small: Whether a fixed variance is that of the posterior; otherwise it is beta.
        predict_xstart: Whether the output is x_0; otherwise it is the noise.
        rescale_timesteps: Whether the network receives 1000/K of the step.
        shape: Shape of one event.
        data: Description of the data; default images of bytes in [-1, 1] if the shape is known.

    Returns:
        The model. ``steered`` clips x_0 to [-1, 1], as the repositories' samplers do by default.

    Raises:
        TypeError: If ``net`` is not a module.
        ValueError: If a setting is unknown or out of range.
    """
    check_kind("net", net, nn.Module)
    check_arguments(from_network, locals())
    check_integer("diffusion_steps", diffusion_steps)
    length = diffusion_steps
    clock = _clock(noise_schedule, length)
    scale = 1000 / length if rescale_timesteps else 1.0
    sde = VPSDE(clock, tau_min=clock.knots(length)[1])
    described = data if data is not None else default_data(shape)
    target = X0() if predict_xstart else Eps()
    classes: list[Finding] = []
    net = labeled(net, classes)
    model = ScoreModel(FromStep(net, clock, length, scale=scale), sde, target, shape, described, learn_sigma)
    variance = "learned" if learn_sigma else "beta_tilde" if sigma_small else "beta"
    respacing = _respacing_text(timestep_respacing)
    sampler = _sampler(clock, length, respacing, variance)
    flags = "the flags' default"
    findings = (
        *classes,
        Finding("clock", f"{noise_schedule} betas, {length} steps", "assumed", flags),
        Finding("prediction", repr(target), "assumed", flags),
        Finding("variance", variance, "derived" if learn_sigma else "assumed", "learn_sigma, sigma_small"),
        Finding("timesteps", f"0 … {length - 1}, times {scale:g}", "assumed", "rescale_timesteps"),
        Finding("sampler", repr(sampler), "assumed", f"timestep_respacing={respacing!r}"),
        Finding("clipping", "x_0 to [-1, 1]", "assumed", "clip_denoised of the sampling scripts"),
        data_finding(described, data is not None, True, "the repositories' data loader, k/127.5 − 1"),
    )
    return Opened(model, "guided-diffusion", findings, Clipping(model), sampler, _start(sampler))


def _respacing_text(respacing: str | int | Sequence[int]) -> str:
    """Numbers of steps as the text that the scripts take."""
    if isinstance(respacing, str):
        return respacing
    parts = respacing if isinstance(respacing, Sequence) else [respacing]
    for part in parts:
        check_integer("timestep_respacing", part)
    return ",".join(map(str, parts))


def respaced_steps(length: int, respacing: str) -> list[int]:
    """The steps of a chain that a respacing keeps, counted from 0, rising.

    Args:
        length: Length K of the chain.
        respacing: ``"a,b,c"``: so many steps in each of as many equal parts of the chain, evenly spaced with both ends;
            ``"ddimN"``: every i-th step from 0 for the integer i that gives N steps; empty: all.

    Raises:
        ValueError: If ``respacing`` has another form, a part has fewer steps than asked for, or no integer stride
            gives N.
    """
    check_arguments(respaced_steps, locals())
    check_integer("length", length)
    if not respacing:
        return list(range(length))
    remedy = 'write "250", "10,10,20" or "ddim25"'
    if respacing.startswith("ddim"):
        number = respacing.removeprefix("ddim")
        for stride in range(1, length):
            if number.isdigit() and len(range(0, length, stride)) == int(number):
                return list(range(0, length, stride))
        raise ValueError(
            f"a respacing ddimN needs an integer stride with N of {length} steps, got {respacing!r}; {remedy}."
        )
    parts = respacing.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise ValueError(f"a respacing is numbers of steps, got {respacing!r}; {remedy}.")
    kept, first = [], 0
    for index, count in enumerate(map(int, parts)):
        size = length // len(parts) + (index < length % len(parts))
        if not 1 <= count <= size:
            raise ValueError(f"a part of {size} steps has 1 … {size} of them, got {count} in {respacing!r}; {remedy}.")
        stride, place = (size - 1) / max(count - 1, 1), 0.0
        for _ in range(count):
            kept.append(first + round(place))
            place += stride  # summed as the repositories do, since it is then rounded
        first += size
    return kept


def _clock(schedule: str, length: int) -> Schedule:
    if schedule not in _SCHEDULES:
        raise ValueError(f"no noise_schedule is named {schedule!r}; {nearest(schedule, _SCHEDULES)}")
    if schedule == "cosine":
        return FromBetas(cosine_betas(length))
    return LinearBetas() if length == 1000 else FromBetas(linear_betas(length))


def _sampler(clock: Schedule, length: int, respacing: str, variance: str) -> Sampler:
    steps = respaced_steps(length, respacing)
    grid = step_grid(clock, length, steps)
    if respacing.startswith("ddim"):
        return DDIM(len(steps), grid)
    return DDPM(len(steps), grid, variance) if respacing else DDPM(length, rev_var=variance)


def _start(sampler: Sampler) -> float | None:
    taus = getattr(getattr(sampler, "grid", None), "taus", None)
    return None if taus is None else taus[0]


def _derived(tensors: Mapping[str, Tensor]) -> tuple[list[Finding], dict[str, object]]:
    """What the shapes of the weights state: twice the channels."""
    findings, settings = [], {}
    if _FIRST in tensors and _LAST in tensors:
        channels, outputs = tensors[_FIRST].shape[1], tensors[_LAST].shape[0]
        settings["learn_sigma"] = outputs == 2 * channels
        findings.append(Finding("channels", f"{channels} in, {outputs} out", "derived", f"shapes of {_FIRST}, {_LAST}"))
    return findings, settings
