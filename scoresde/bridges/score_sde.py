r"""score_sde_pytorch (Song et al.): networks of the VP, sub-VP and VE SDEs, and its checkpoints.

=========  ============================  ===================================  ======================
process    label, continuous             label, discrete with N steps         output
=========  ============================  ===================================  ======================
VP         999 t                         t(N − 1) on `LinearBetas`            ε
sub-VP     999 t                         refused: no such clock               ε
VE         σ̃(t)                          place in the falling table of σ̃       score in x̃
=========  ============================  ===================================  ======================

A checkpoint ``checkpoints/checkpoint_<n>.pth`` holds ``model`` (with the prefix ``module.``), ``ema`` (a list of
averages in the order of the parameters that require a gradient), ``optimizer`` and ``step``; the settings are Python
files.

Source: Song et al. 2021, appendices B–C and G; the repository's ``models/utils.py`` and ``sde_lib.py``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from torch import nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_kind
from scoresde._core.suggest import nearest
from scoresde.adapters import Adapter, FromSigma, FromSigmaTable, FromStep, FromTime
from scoresde.bridges.conventions import byte_images, data_finding, step_findings
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import Source, WeightFile, choose, fit, read_weight_file
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process.parameterization import Eps
from scoresde.process.schedule import GeometricSigma, LinearBetas, LinearVP, SubVPClock
from scoresde.process.sde import SDE, VE, VPSDE, SubVP
from scoresde.sampling import DDPM, ODE, Sampler

__all__ = ["from_network", "open_file", "recognize"]

_PROCESSES = ("vp", "subvp", "ve")
_AVERAGES, _RAW = ("ema.shadow_params.",), ("model.", "")


def recognize(file: WeightFile) -> bool:
    """Whether a file is a checkpoint: it holds the weights ``model.*`` and the list ``ema.shadow_params``.

    Args:
        file: Its content; only names are read.
    """
    return "ema.shadow_params.0" in file.tensors and any(name.startswith("model.") for name in file.tensors)


def open_file(path: Source, net: nn.Module, *, raw: bool = False, **settings: object) -> Opened:
    """Loads a checkpoint into a network; the averages are used where the file has them.

    Args:
        path: A checkpoint, or a run folder, of which the last checkpoint in ``checkpoints`` is taken.
        net: The network that ``create_model(config)`` builds.
        raw: Take the weights as trained instead of their averages.
        **settings: As in `from_network`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused, or does not fit the network.
    """
    check_arguments(open_file, locals())
    check_kind("net", net, nn.Module)
    file = path if isinstance(path, WeightFile) else read_weight_file(_checkpoint(Path(path)))
    tensors, finding = choose(file, net, _AVERAGES, _RAW, want_raw=raw)
    fit(net, tensors)
    opened = from_network(net, **settings)  # pyright: ignore[reportArgumentType]
    return replace(opened, findings=(finding, *step_findings(file), *opened.findings))


def from_network(
    net: nn.Module,
    *,
    process: str = "vp",
    continuous: bool = True,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    sigma_min: float = 0.01,
    sigma_max: float = 50.0,
    steps: int = 1000,
    centered: bool | None = None,
    shape: tuple[int, ...] | None = None,
    data: Description | None = None,
) -> Opened:
    r"""The model of a network of score_sde_pytorch. Every setting is one of its config, with the repository's default.

    Args:
        net: The network, ``net(x̃, labels)``.
        process: ``"vp"``, ``"subvp"`` or ``"ve"`` (``training.sde``).
        continuous: Whether it was trained at continuous times (``training.continuous``).
        beta_min, beta_max: Song's $\beta_0$ and $\beta_1$ of VP and sub-VP.
        sigma_min, sigma_max: Levels of VE.
        steps: N, the number of discrete steps.
        centered: Whether images lie in [-1, 1] (``data.centered``); default True, but False for VE.
        shape: Shape of one event.
        data: Description of the data; default images of bytes if the shape is known.

    Returns:
        The model. Its sampler is the probability-flow ODE; for discrete VP it is the ancestral chain.

    Raises:
        TypeError: If ``net`` is not a module.
        ValueError: If a setting is unknown or out of range, or sub-VP is not continuous.
    """
    check_kind("net", net, nn.Module)
    check_arguments(from_network, locals())
    if process not in _PROCESSES:
        raise ValueError(f"no process is named {process!r}; {nearest(process, _PROCESSES)}")
    if process == "ve":
        adapter, sde, sampler = _exploding(net, continuous, sigma_min, sigma_max, steps)
    else:
        adapter, sde, sampler = _preserving(net, process, continuous, beta_min, beta_max, steps)
    in_center = process != "ve" if centered is None else centered
    described = data if data is not None or shape is None else byte_images(shape, in_center)
    source = "the repository's configs"
    findings = (
        Finding("process", process, "assumed" if process == "vp" else "stated", source),
        Finding("clock", repr(sde.schedule), "assumed", source),
        Finding("label", f"{'continuous' if continuous else 'discrete'}, {type(adapter).__name__}", "assumed", source),
        Finding("prediction", "score in x̃" if process == "ve" else "noise", "derived", "models/utils.py, get_score_fn"),
        data_finding(described, data is not None, in_center, f"data.centered of its {process} configs"),
    )
    model = ScoreModel(adapter, sde, Eps(), shape, described)
    return Opened(model, "score_sde", findings, sampler=sampler)


def _exploding(
    net: nn.Module, continuous: bool, sigma_min: float, sigma_max: float, steps: int
) -> tuple[Adapter, SDE, Sampler]:
    clock = GeometricSigma(sigma_min, sigma_max)
    sde = VE(clock, tau_min=0.5 * math.log1p(sigma_min**2))
    if continuous:
        return FromSigma(net, output_form="score"), sde, ODE()
    ratio = sigma_max / sigma_min
    falling = tuple(sigma_max * ratio ** (-i / (steps - 1)) for i in range(steps))
    return FromSigmaTable(net, falling, rounding=True, scaled=False, score_output=True), sde, ODE()


def _preserving(
    net: nn.Module, process: str, continuous: bool, beta_min: float, beta_max: float, steps: int
) -> tuple[Adapter, SDE, Sampler]:
    if not continuous:
        if process == "subvp":
            raise ValueError("sub-VP has no discrete steps in score_sde_pytorch; leave out continuous=False.")
        betas = LinearBetas(beta_min / steps, beta_max / steps, steps)
        sde = VPSDE(betas, tau_min=betas.knots(steps)[1])
        return FromStep(net, betas, steps), sde, DDPM(steps, rev_var="beta")
    song = LinearVP(beta_min, beta_max)
    clock = song if process == "vp" else SubVPClock(song)
    tau_min = float(clock.tau(1e-3))  # sampling_eps of the repository
    sde = VPSDE(clock, tau_min) if process == "vp" else SubVP(clock, tau_min)
    return FromTime(net, sde, 999.0), sde, ODE()


def _checkpoint(path: Path) -> Path:
    """The file itself, or the last checkpoint of a run folder."""
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if not folder.is_dir():
        return path
    numbered = [(int(n), file) for file in folder.glob("checkpoint_*.pth") if (n := file.stem[11:]).isdigit()]
    if not numbered:
        raise ValueError(f"{path} must hold files checkpoint_<n>.pth, got none; pass a checkpoint.")
    return max(numbered)[1]
