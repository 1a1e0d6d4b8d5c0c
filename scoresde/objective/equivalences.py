r"""Losses of the literature in canonical form: equal weights $w(\ell)$ of the log-SNR $\ell$ are equal losses.

Every loss is $\tfrac12\int w(\ell)\,E\|\hat\varepsilon - \varepsilon\|^2\,d\ell$ with $w = \lambda\,p/\lambda_{ELBO}$
and $\lambda_{ELBO} = -\tfrac12\,d\ell/du$, where u is drawn from the density p (Kingma & Gao 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from scoresde._core import elementwise as ew
from scoresde._core.annotations import check_arguments
from scoresde._core.elementwise import Scalar
from scoresde.objective.weighting import (
    EDM,
    ELBO,
    P2,
    SNR,
    CustomWeighting,
    MinSNR,
    Regression,
    SigmoidWeighting,
    Simple,
    Weighting,
)
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.parameterization import X0, Eps, Parameterization, Score, V, Velocity
from scoresde.process.schedule import Cosine, LinearVP, Schedule, StraightPath

__all__ = ["Equivalence", "canonical", "equivalence_table", "equivalences"]


def canonical(
    weighting: Weighting,
    schedule: Schedule,
    *,
    parameterization: Parameterization | None = None,
    density: Callable[[Marginal], Scalar] | None = None,
) -> Callable[[Scalar], Scalar]:
    r"""The canonical weight $w(\ell) = \lambda\,p/\lambda_{ELBO}$ of the loss $E_{u \sim p}[\lambda\,\|error\|^2]$.

    Args:
        weighting: λ on the error.
        schedule: The clock on which u is drawn.
        parameterization: The target whose error is measured; default ε.
        density: p(u) relative to uniform u, as a function of the marginal; default 1.

    Returns:
        w, a function of log-SNR in nats (a number or a tensor within the clock's range).
    """
    check_arguments(canonical, locals())

    def weight(log_snr: Scalar) -> Scalar:
        tau = ou.tau_from_log_snr(log_snr)
        m = Marginal(tau, schedule.rate(schedule.u(tau)))
        value = weighting(m) * (1.0 if parameterization is None else Regression(parameterization)(m))
        return value * (1.0 if density is None else density(m)) / ELBO()(m)

    return weight


class Equivalence(NamedTuple):
    """One loss of the literature.

    Attributes:
        name: As the table prints it.
        weighting: λ on the error.
        schedule: The clock on which u is drawn.
        parameterization: The target whose error is measured.
        density: Of u, relative to uniform; None for uniform u.
    """

    name: str
    weighting: Weighting
    schedule: Schedule
    parameterization: Parameterization
    density: Callable[[Marginal], Scalar] | None = None

    def canonical(self) -> Callable[[Scalar], Scalar]:
        """The canonical weight of this loss, see `canonical`."""
        return canonical(self.weighting, self.schedule, parameterization=self.parameterization, density=self.density)


def equivalences() -> list[Equivalence]:
    """The literature's losses; those with the same canonical weight are the same loss."""
    vp, cosine = LinearVP(), Cosine()
    snr = CustomWeighting(lambda m: m.snr)
    half_pi = CustomWeighting(lambda m: 0.5 * math.pi * Simple()(m))
    return [
        Equivalence("DDPM simple: |eps|²", Simple(), vp, Eps()),
        Equivalence("Song: σ² |score|²", CustomWeighting(lambda m: m.sigma**2), vp, Score()),
        Equivalence("SNR |x0|²", snr, vp, X0()),
        Equivalence("α² |v|²", CustomWeighting(lambda m: m.alpha**2), vp, V()),
        Equivalence("SNR(power=1)", SNR(), vp, Eps()),
        Equivalence("MinSNR(gamma=inf)", MinSNR(math.inf), vp, Eps()),
        Equivalence("ELBO", ELBO(), vp, Eps()),
        Equivalence("Likelihood: ½ g² |score|²", CustomWeighting(lambda m: m.rate), vp, Score()),
        Equivalence("VDM: -½ dSNR/du |x0|²", CustomWeighting(lambda m: m.rate * m.snr / m.sigma**2), vp, X0()),
        Equivalence("1, u drawn ∝ λ_ELBO", Simple(), vp, Eps(), ELBO()),
        Equivalence("x0 regression", Simple(), vp, X0()),
        Equivalence("SNR(power=0)", SNR(0.0), vp, Eps()),
        Equivalence("v regression", Simple(), vp, V()),
        Equivalence("(SNR + 1) |x0|²", CustomWeighting(lambda m: m.snr + 1.0), vp, X0()),
        Equivalence("EDM's |F|², uniform u", Simple(), vp, V(1.0)),
        Equivalence("P2(k=1, gamma=1)", P2(), vp, Eps()),
        Equivalence("σ² |eps|²", CustomWeighting(lambda m: m.sigma**2), vp, Eps()),
        Equivalence("MinSNR(gamma=5)", MinSNR(), vp, Eps()),
        Equivalence("min(SNR, 5) |x0|²", CustomWeighting(lambda m: ew.clamp(m.snr, high=5.0)), vp, X0()),
        Equivalence("flow matching: |velocity|²", Simple(), StraightPath(), Velocity()),
        Equivalence("π/2 |v|², cosine clock", half_pi, Cosine(shift=1e-12), V()),
        Equivalence("EDM", EDM(), vp, Eps()),
        Equivalence("EDM on a cosine clock", EDM(), cosine, Eps()),
        Equivalence("SigmoidWeighting(bias=2)", SigmoidWeighting(), vp, Eps()),
    ]


def equivalence_table(log_snrs: tuple[float, ...] = (-6.0, -3.0, 0.0, 3.0, 6.0)) -> str:
    """The table of the literature's losses as text: w at a few log-SNRs, losses with the same w in one group.

    Args:
        log_snrs: Where w is printed, nats.
    """
    check_arguments(equivalence_table, locals())
    groups: list[tuple[list[float], list[str]]] = []
    for loss in equivalences():
        weight = loss.canonical()
        values = [float(weight(log_snr)) for log_snr in log_snrs]
        for group_values, names in groups:
            if all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(values, group_values, strict=True)):
                names.append(loss.name)
                break
        else:
            groups.append((values, [loss.name]))
    lines = [f"{'w at log-SNR =':46}" + "".join(f"{value:>11g}" for value in log_snrs)]
    for values, names in groups:
        lines.append("-" * len(lines[0]))
        columns = "".join(f"{value:>11.4g}" for value in values)
        lines.extend(f"{name:46}{columns if i == 0 else ''}" for i, name in enumerate(names))
    return "\n".join(lines)
