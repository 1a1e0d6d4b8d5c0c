r"""Denoisers of azula with their schedules, as objects, and files of their weights.

A ``KarrasDenoiser`` around a backbone b is $\hat x_0 = \alpha x - \sigma v$ with $v = -b(x, \log\tilde\sigma)$ in our
coordinates, a ``SimpleDenoiser`` is $\hat x_0 = b(x, \log\tilde\sigma)$: both depend on the noise level alone, whatever
the schedule. Any other denoiser is called with its own time, see `FromSchedule`. Its schedules start and end at finite
noise levels, which become the ends of the process.

Source: azula's ``denoise.py`` and ``noise.py`` (Rozet), version 0.11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer, check_kind
from scoresde.adapters import Adapter, FromSchedule, FromSigma
from scoresde.bridges.conventions import data_finding
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import Source, choose, fit, read_weight_file
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process import ou
from scoresde.process.parameterization import X0, Parameterization, V
from scoresde.process.schedule import GeometricSigma, LogLinear
from scoresde.process.sde import SDE, VE, VPSDE
from scoresde.sampling import DDIM, ExplicitGrid

__all__ = ["from_denoiser", "open_file", "time_grid"]

_STEPS = 64  # azula's default

AzulaSchedule = Callable[[Tensor], tuple[Tensor, Tensor]]


def open_file(
    path: Source,
    denoiser: nn.Module,
    *,
    shape: tuple[int, ...] | None = None,
    data: Description | None = None,
) -> Opened:
    """Loads a state dict into a denoiser, or into its backbone.

    Args:
        path: A file of weights, see `read_weights`, of the denoiser or of its backbone.
        denoiser: The denoiser, with its schedule.
        shape, data: As in `from_denoiser`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused, or does not fit the denoiser.
    """
    check_arguments(open_file, locals())
    check_kind("denoiser", denoiser, nn.Module)
    file = read_weight_file(path)
    backbone = getattr(denoiser, "backbone", None)
    whole = any(".backbone." in f".{name}" for name in file.tensors) or not isinstance(backbone, nn.Module)
    tensors, finding = choose(file, denoiser, ("ema.",), ("denoiser.", ""), "")
    fit(denoiser if whole else backbone, tensors)  # pyright: ignore[reportArgumentType]
    opened = from_denoiser(denoiser, shape=shape, data=data)
    return replace(opened, findings=(finding, *opened.findings))


def from_denoiser(
    denoiser: nn.Module, *, shape: tuple[int, ...] | None = None, data: Description | None = None
) -> Opened:
    """The model of a denoiser.

    Args:
        denoiser: A denoiser of azula, with a member ``schedule``.
        shape: Shape of one event.
        data: Description of the data, whose model units are those of the denoiser.

    Returns:
        The model, with DDIM on 64 even steps of the denoiser's time as the sampler.

    Raises:
        TypeError: If ``denoiser`` is not a module, or has no member ``schedule``.
        ValueError: If the noise level of the schedule does not rise from a positive to a finite one.

    Example:
        >>> import torch
        >>> from scoresde.bridges import azula
        >>> class Schedule:
        ...     def __call__(self, t):
        ...         return 1 - 0.999 * t, 0.001 + 0.999 * t
        >>> class KarrasDenoiser(torch.nn.Module):  # stands for azula's class of this name
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.backbone, self.schedule = Backbone(), Schedule()
        >>> class Backbone(torch.nn.Module):
        ...     def forward(self, x, log_sigma):  # exact for standard-normal data
        ...         return torch.zeros_like(x)
        >>> model = azula.from_denoiser(KarrasDenoiser(), shape=(2,)).model
        >>> model(torch.ones(1, 2), 0.5).score
        tensor([[-1., -1.]])
    """
    check_kind("denoiser", denoiser, nn.Module)
    check_arguments(from_denoiser, locals())
    adapter, target = _adapter(denoiser)
    schedule: Any = denoiser.schedule
    sde = _process(schedule)
    model = ScoreModel(adapter, sde, target, shape, data)
    findings = (
        Finding("denoiser", type(denoiser).__name__, "stated", "class of the object"),
        Finding("prediction", repr(target), "derived", "class of the denoiser"),
        Finding("clock", f"the noise levels of {type(schedule).__name__}", "stated", "member schedule"),
        data_finding(data, data is not None, True, "azula's tutorials"),
        Finding("sampler", f"DDIM, {_STEPS} even steps of t", "assumed", "default of azula's samplers"),
    )
    return Opened(model, "azula", findings, sampler=DDIM(_STEPS, time_grid(schedule, _STEPS)))


def time_grid(schedule: AzulaSchedule, steps: int, start: float = 1.0, stop: float = 0.0) -> ExplicitGrid:
    r"""Even times of a schedule of azula as OU times, $\tau = \tfrac12\log(1 + \tilde\sigma^2/\tilde\alpha^2)$.

    Args:
        schedule: The schedule.
        steps: Number of steps.
        start, stop: First and last time of azula's sampler, 0 <= stop < start <= 1.

    Raises:
        ValueError: If ``steps`` is not a positive integer, or the times are out of range.
    """
    check_arguments(time_grid, locals())
    check_integer("steps", steps)
    if not 0 <= stop < start <= 1:
        raise ValueError(f"azula's times lie in [0, 1] and fall, got start = {start!r} and stop = {stop!r}.")
    # as azula's samplers: float32 times
    times = torch.linspace(start, stop, steps + 1).double()
    return ExplicitGrid(tuple(float(ou.tau_from_log_snr(value)) for value in _log_snr(schedule, times)))


def _log_snr(schedule: AzulaSchedule, times: Tensor) -> list[float]:
    try:
        alpha, sigma = schedule(times)
        return (2.0 * (torch.log(alpha) - torch.log(sigma))).expand(times.shape).tolist()
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"schedule must be a schedule of azula, which maps times to (alpha, sigma), got {type(schedule).__name__}: "
            f"{error}"
        ) from error


def _process(schedule: AzulaSchedule) -> SDE:
    high, low = _log_snr(schedule, torch.tensor([0.0, 1.0], dtype=torch.float64))
    if not -40 < low < high < 40:
        raise ValueError(
            "the noise level of a schedule must rise from a positive to a finite one, got log-SNR "
            f"{high:.4g} … {low:.4g}; choose other ends of the schedule."
        )
    tau_min = float(ou.tau_from_log_snr(high))
    if type(schedule).__name__ == "VESchedule":
        ends = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))[1].tolist()
        return VE(GeometricSigma(*ends), tau_min)
    return VPSDE(LogLinear(high, low), tau_min)


def _adapter(denoiser: nn.Module) -> tuple[Adapter, Parameterization]:
    names, backbone = {cls.__name__ for cls in type(denoiser).__mro__}, getattr(denoiser, "backbone", None)
    if not callable(getattr(denoiser, "schedule", None)):
        raise TypeError(f"a denoiser of azula has a member `schedule`, got {type(denoiser).__name__} without one.")
    if isinstance(backbone, nn.Module) and "KarrasDenoiser" in names:
        return FromSigma(backbone, 1.0, "log", "negative"), V()
    if isinstance(backbone, nn.Module) and "SimpleDenoiser" in names:
        return FromSigma(backbone, 1.0, "log"), X0()
    return FromSchedule(denoiser), X0()
