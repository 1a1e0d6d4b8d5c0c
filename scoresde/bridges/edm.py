r"""EDM and EDM2: denoisers $D(\tilde x, \tilde\sigma)$, $\tilde x = x/\alpha$, and their raw networks F.

=================  =================  ======================  ====================  ==========================
preconditioning    $c_{in}$           $c_{noise}$             $D$                   F as a parameterization
=================  =================  ======================  ====================  ==========================
``"edm"``          1/√(σ_d² + σ̃²)     ¼ log σ̃                 c_skip x̃ + c_out F    −V(σ_d)
``"vp"``           1/√(1 + σ̃²)        999 u(σ̃), linear VP     x̃ − σ̃ F               Eps
``"ve"``           1                  log ½σ̃                  x̃ + σ̃ F               −Eps
``"iddpm"``        1/√(1 + σ̃²)        the step, cosine        x̃ − σ̃ F               Eps
=================  =================  ======================  ====================  ==========================

Their files are pickles with code; export the state dict of ``ema`` once, as the refusal of a ``.pkl`` says.

Source: Karras et al. 2022, table 1; Karras et al. 2024 (EDM2), whose networks keep the first row.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_kind, check_positive
from scoresde.adapters import Adapter, FromSigma, FromStep, FromTime, OneHot
from scoresde.bridges.conventions import data_finding, default_data, karras_grid
from scoresde.bridges.edm_form import checked_form, form_of, limited, number
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import Source, WeightFile, choose, fit, read_weight_file
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process.parameterization import X0, Eps, Parameterization, V
from scoresde.process.schedule import Cosine, FromBetas, GeometricSigma, LinearVP
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import Heun

__all__ = ["from_network", "open_file", "recognize"]


def recognize(file: WeightFile) -> bool:
    """Whether a file holds weights of EDM's or EDM2's networks, exported from ``ema`` or its ``model``.

    Args:
        file: Its content; only names are read.
    """
    plain = {name.removeprefix("model.") for name in file.tensors}
    return {"map_layer0.weight", "map_layer1.weight"} <= plain or "emb_noise.weight" in plain or "out_gain" in plain


def open_file(path: Source, net: nn.Module, **settings: object) -> Opened:
    """Loads an exported state dict into a network of EDM or EDM2.

    Args:
        path: A file of weights, see `read_weights`: the state dict of ``ema``, or of ``ema.model``.
        net: The network: the preconditioned one, or its ``model`` with ``form="raw"``.
        **settings: As in `from_network`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused, or does not fit the network.
    """
    check_arguments(open_file, locals())
    check_kind("net", net, nn.Module)
    file = read_weight_file(path)
    given = settings.get("form")
    form, _ = form_of(net, given if isinstance(given, str) else None)
    inner = "model." if form == "raw" and _all_in_model(file.tensors) else ""
    tensors, finding = choose(file, net, ("ema.",), ("net.", ""), inner)
    fit(net, tensors)
    opened = from_network(net, **settings)  # pyright: ignore[reportArgumentType]
    return replace(opened, findings=(finding, *opened.findings))


def _all_in_model(tensors: Collection[str]) -> bool:
    """Whether the names are those of a preconditioned network, whose own network is ``model``."""
    return any(name.startswith("model.") for name in tensors)


def from_network(
    net: nn.Module,
    *,
    form: str | None = None,
    preconditioning: str | None = None,
    sigma_data: float | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    steps: int = 18,
    classes: int | None = None,
    learned_variance: bool = False,
    shape: tuple[int, ...] | None = None,
    data: Description | None = None,
) -> Opened:
    r"""The model of a network of EDM or EDM2.

    Args:
        net: ``net(x̃, σ̃)``, the preconditioned denoiser; or the raw network, ``net(c_in x̃, c_noise)``.
        form: ``"denoiser"`` or ``"raw"``; default what the network's second argument says, ``sigma`` or
            ``noise_labels``, or else the names of its weights, which begin with ``model.`` in a denoiser.
        preconditioning: Of a raw network: ``"edm"`` (also EDM2; the default), ``"vp"``, ``"ve"`` or ``"iddpm"``.
        sigma_data: $\sigma_d$ of a raw network with EDM's preconditioning; default that of the network, else 0.5.
        sigma_min, sigma_max, rho, steps: The sampler's levels; also the range of the process. The network's own
            ``sigma_min`` and ``sigma_max``, or those of the preconditioning, limit it.
        classes: Number of classes; default the network's ``label_dim``, else 0. With classes the model takes ``label``,
            integers of which ``classes`` is null.
        learned_variance: Whether a raw network has twice the channels, as ``"iddpm"`` networks may.
        shape: Shape of one event; default that of the network's ``img_channels`` and ``img_resolution``.
        data: Description of the data; default images of bytes in [-1, 1] if the shape is known.

    Returns:
        The model, with Heun's method on ``steps`` levels as the sampler.

    Raises:
        TypeError: If ``net`` is not a module, or its ``sigma_data`` is not a number.
        ValueError: If a setting is unknown, out of range, or contradicts the network.

    Example:
        >>> import torch
        >>> from scoresde.bridges import edm
        >>> class Denoiser(torch.nn.Module):
        ...     def forward(self, x, sigma, class_labels=None):  # exact for normal data of variance 1/4
        ...         return x / (1 + 4 * sigma.reshape(-1, 1) ** 2)
        >>> opened = edm.from_network(Denoiser(), shape=(3,))
        >>> opened.sampler.steps, round(float(opened.model(torch.ones(1, 3), 0.5).x0[0, 0]), 4)
        (18, 0.2094)
    """
    check_kind("net", net, nn.Module)
    check_arguments(from_network, locals())
    check_positive(sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
    findings = [Finding("origin", "EDM", "stated", "the function called")]
    form, preconditioning = checked_form(net, form, preconditioning, findings)
    sigma_min, sigma_max = limited(net, form, preconditioning, sigma_min, sigma_max, findings)
    sigma_data = _sigma_data(net, sigma_data, form, preconditioning, findings)
    count = _stated(net, "label_dim", classes, 0, "classes", findings)
    inner = OneHot(net, count) if count else net
    adapter, target = _adapter(inner, form, preconditioning, sigma_data)
    sde = VE(GeometricSigma(sigma_min, sigma_max), tau_min=0.5 * math.log1p(sigma_min**2))
    findings += [
        Finding("prediction", f"{target} of {'D' if form == 'denoiser' else preconditioning}", "derived", form),
        Finding("clock", f"σ̃ from {sigma_min:g} to {sigma_max:g}", "assumed", "the sampler of EDM's repository"),
        Finding("sampler", f"Heun, {steps} levels, rho = {rho:g}", "assumed", "the sampler of EDM's repository"),
    ]
    shape = _shape(net, shape)
    described = data if data is not None else default_data(shape)
    findings.append(data_finding(described, data is not None, True, "EDM's data loader, k/127.5 − 1"))
    model = ScoreModel(adapter, sde, target, shape, described, learned_variance)
    return Opened(model, "EDM", tuple(findings), sampler=Heun(steps, karras_grid(steps, sigma_min, sigma_max, rho)))


def _adapter(net: nn.Module, form: str, preconditioning: str, sigma_data: float) -> tuple[Adapter, Parameterization]:
    if form == "denoiser":
        return FromSigma(net), X0()
    if preconditioning == "edm":
        return FromSigma(net, sigma_data, "quarter log", "negative"), V(sigma_data)
    if preconditioning == "ve":
        return FromSigma(net, None, "log half", "negative"), Eps()
    if preconditioning == "vp":
        return FromTime(net, VPSDE(LinearVP(0.1, 20.0)), 999.0), Eps()
    return FromStep(net, FromBetas(tuple(Cosine().to_betas(1000))), 1000, rounding=True), Eps()


def _sigma_data(net: nn.Module, given: float | None, form: str, preconditioning: str, findings: list[Finding]) -> float:
    if form == "denoiser" or preconditioning != "edm":
        return 0.5
    own = getattr(net, "sigma_data", None)
    value = given if given is not None else 0.5 if own is None else number("sigma_data", own)
    why = "argument" if given is not None else "attribute of the network" if own is not None else "EDM's default"
    findings.append(Finding("sigma_data", f"{value:g}", "assumed" if given is own is None else "stated", why))
    check_positive(sigma_data=value)
    return value


def _stated(net: nn.Module, attribute: str, given: int | None, default: int, name: str, findings: list[Finding]) -> int:
    own = getattr(net, attribute, None)
    value = given if given is not None else int(own) if isinstance(own, (int, Tensor)) else default
    source = "stated" if given is not None or own is not None else "assumed"
    why = "argument" if given is not None else f"attribute {attribute} of the network" if own is not None else "default"
    findings.append(Finding(name, str(value), source, why))
    return value


def _shape(net: nn.Module, given: tuple[int, ...] | None) -> tuple[int, ...] | None:
    channels, size = getattr(net, "img_channels", None), getattr(net, "img_resolution", None)
    if given is not None or channels is None or size is None:
        return given
    return int(channels), int(size), int(size)
