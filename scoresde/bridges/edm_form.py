r"""The form of a network of EDM and its noise levels: denoiser or raw, and $\tilde\sigma$ from least to most.

A raw network was trained on the levels of its preconditioning: VP on those of $u$ in [1e-5, 1], VE on .02 … 100, iDDPM
on those of its steps; EDM's are not limited.

Source: Karras et al. 2022, table 1, and the constructors of the preconditionings in EDM's repository.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection

from torch import Tensor, nn

from scoresde._core.suggest import nearest
from scoresde.bridges.opened import Finding
from scoresde.process.schedule import Cosine, FromBetas

__all__ = ["checked_form", "form_of", "limited", "number"]

_FORMS = ("denoiser", "raw")
_PRECONDITIONINGS = ("edm", "vp", "ve", "iddpm")


def number(name: str, value: object) -> float:
    """A number that is an attribute of the network."""
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    raise TypeError(f"the network's {name} must be a number, got {value!r}; correct it, or pass {name}=….")


def form_of(net: nn.Module, given: str | None) -> tuple[str, Finding]:
    """The form of a network, and how it is known."""
    if given is not None and given not in _FORMS:
        raise ValueError(f"no form is named {given!r}; {nearest(given, _FORMS)}")
    second = next(iter(list(inspect.signature(net.forward).parameters)[1:2]), "")
    names = set(net.state_dict())
    derived, why = None, f"second argument {second}"
    if second in ("sigma", "noise_labels"):
        derived = "denoiser" if second == "sigma" else "raw"
    elif names and _all_of_model(names):
        derived, why = "denoiser", "names that begin with model."
    elif names & {"map_layer0.weight", "emb_noise.weight"}:
        derived, why = "raw", "names without model."
    if given is not None and derived is not None and given != derived:
        raise ValueError(f"the network is of the form {derived!r} ({why}), got form={given!r}; leave form out.")
    if given is not None:
        return given, Finding("form", given, "stated", "argument")
    return derived or "denoiser", Finding("form", derived or "denoiser", "derived" if derived else "assumed", why)


def _all_of_model(names: Collection[str]) -> bool:
    return {"model.map_layer0.weight", "model.emb_noise.weight"} & set(names) != set()


def checked_form(
    net: nn.Module, form: str | None, preconditioning: str | None, findings: list[Finding]
) -> tuple[str, str]:
    """The form and the preconditioning of a network; contradictions are refused."""
    if preconditioning is not None and preconditioning not in _PRECONDITIONINGS:
        raise ValueError(
            f"no preconditioning is named {preconditioning!r}; {nearest(preconditioning, _PRECONDITIONINGS)}"
        )
    form, finding = form_of(net, form)
    findings.append(finding)
    if form == "denoiser" and preconditioning is not None:
        raise ValueError(
            f"a denoiser contains its preconditioning, got preconditioning={preconditioning!r}; leave it out, or pass "
            "the raw network."
        )
    if form == "raw":
        source, why = ("assumed", "EDM's default") if preconditioning is None else ("stated", "argument")
        findings.append(Finding("preconditioning", preconditioning or "edm", source, why))
    return form, preconditioning or "edm"


def limited(
    net: nn.Module, form: str, preconditioning: str, low: float, high: float, findings: list[Finding]
) -> tuple[float, float]:
    """The levels within those of the network, or of the preconditioning."""
    least, most = _limits(preconditioning) if form == "raw" else (0.0, math.inf)
    least = max(least, number("sigma_min", getattr(net, "sigma_min", 0.0)))
    most = min(most, number("sigma_max", getattr(net, "sigma_max", math.inf)))
    if not max(low, least) < min(high, most):
        raise ValueError(
            f"sigma_min must be below sigma_max, got {low:g} … {high:g}, and the network's {least:g} … {most:g}; pass "
            "levels inside."
        )
    if low < least or high > most:
        why = "sigma_min and sigma_max of the network or its preconditioning"
        findings.append(Finding("limits of σ̃", f"{least:g} … {most:g}", "derived", why))
    return max(low, least), min(high, most)


def _limits(preconditioning: str) -> tuple[float, float]:
    """Levels that the networks of a preconditioning were trained on; EDM's own are not limited."""
    if preconditioning == "vp":
        least, most = (math.sqrt(math.expm1(0.5 * 19.9 * u * u + 0.1 * u)) for u in (1e-5, 1.0))
        return least, most
    if preconditioning == "ve":
        return 0.02, 100.0
    if preconditioning == "iddpm":
        knots = FromBetas(tuple(Cosine().to_betas(1000))).knots(1000)
        return math.sqrt(math.expm1(2 * knots[1])), math.sqrt(math.expm1(2 * knots[1000]))
    return 0.0, math.inf
