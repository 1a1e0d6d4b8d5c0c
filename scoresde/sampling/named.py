"""Multistep samplers of the literature under their published names, as settings of `Multistep`.

All solve the linear part and integrate the polynomial exactly. The exceptions are methods of order 2 that, as
published, use the polynomial's value in the middle of the step. All start as `multistep` describes, not by a warm-up of
lower orders.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from scoresde.process.schedule import LinearVP, Schedule
from scoresde.sampling.exponential import Interpolation
from scoresde.sampling.grid import DenseEnds, Grid, Karras
from scoresde.sampling.multistep import Multistep
from scoresde.sampling.noise_function import Eta, ExtendedNoise, NoiseFunction

__all__ = ["DEIS", "ERSDE", "DPMSolverPP", "SASolver", "SDEDPMSolverPP", "UniPC"]


@dataclass(frozen=True)
class DEIS(Multistep):
    """tAB-DEIS: the noise estimate as a polynomial in the clock's u; with ``variable="rho"`` it is ρAB.

    Args:
        steps, grid: See `Multistep`.
        solver_order: Number of predictions in use; the paper's number plus 1.
        variable: A clock, for its u (default Song's linear one), or ``"rho"``.

    Source: Zhang & Chen 2023 (DEIS), section 3 and table 2.
    """

    solver_order: int = 3
    variable: str | Schedule = LinearVP()

    @cached_property
    def interpolation(self) -> Interpolation:
        return Interpolation("eps", self.variable)

    @property
    def predictor(self) -> int:
        return self.solver_order


@dataclass(frozen=True)
class DPMSolverPP(Multistep):
    r"""DPM-Solver++(2M) and (3M): the data estimate as a polynomial in log-SNR.

    At order 2 the polynomial's value in the middle of the step is used for the whole step, as in the paper. At order 3
    the integral is exact; the published formula has half of its last term, and is of second order.

    Args:
        steps, grid: See `Multistep`; the paper's grid is `UniformLogSNR`.
        solver_order: Number of predictions in use; 1 is DDIM.

    Source: Lu et al. 2023 (DPM-Solver++), algorithm 2.
    """

    solver_order: int = 2

    @cached_property
    def interpolation(self) -> Interpolation:
        return Interpolation("x0", "log_snr", midpoint=self.solver_order == 2)

    @property
    def predictor(self) -> int:
        return self.solver_order


@dataclass(frozen=True)
class UniPC(Multistep):
    r"""UniPC-p: a predictor through p predictions and a corrector through p + 1, which needs no network call.

    The paper's free function B(h) cancels where its equations are solved exactly, as they are here by default. It
    matters only in the factor one half that the paper uses for p ≤ 2.

    Args:
        steps: See `Multistep`.
        grid: The times of the steps. None selects `DenseEnds` for ``"x0"`` and `Karras` for ``"eps"``: the error of
            ``"eps"`` grows by $1/\alpha$ toward the noise, so long first steps diverge.
        solver_order: p; the order reached is p + 1.
        prediction: ``"x0"`` or ``"eps"``.
        as_published: Starts with steps of lower order, and uses the factor one half with $B(h) = e^h - 1$: the value of
            a polynomial through two predictions in the middle of the step. Up to p = 2 this is ``bh2`` of the authors'
            code and of diffusers, and of order 2.

    Source: Zhao et al. 2023 (UniPC), algorithms 1–2.
    """

    grid: Grid = None  # pyright: ignore[reportAssignmentType] -- resolved in __post_init__
    solver_order: int = 3
    prediction: str = "x0"
    as_published: bool = field(default=False, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        if self.grid is None:
            object.__setattr__(self, "grid", Karras() if self.prediction == "eps" else DenseEnds())
        super().__post_init__()

    @cached_property
    def interpolation(self) -> Interpolation:
        return Interpolation(self.prediction, "log_snr", midpoint=self.as_published)

    @property
    def restarts(self) -> bool:
        """Whether early steps start again from the first state."""
        return not self.as_published

    @property
    def predictor(self) -> int:
        return self.solver_order

    @property
    def corrector(self) -> int:
        """p + 1."""
        return self.solver_order + 1


@dataclass(frozen=True)
class SASolver(Multistep):
    """SA-Solver: stochastic Adams, predictor and corrector, the data estimate as a polynomial in log-SNR.

    Args:
        steps, grid: See `Multistep`.
        predictor_order: Number of predictions that the predictor uses.
        corrector_order: Number of predictions that the corrector uses, the new one among them; 0 for no corrector.
        noise: The paper's τ(t): `Eta`, constant on an interval of ρ.

    Source: Xue et al. 2023 (SA-Solver), algorithm 1.
    """

    predictor_order: int = 3
    corrector_order: int = 3
    noise: NoiseFunction = Eta()

    @cached_property
    def interpolation(self) -> Interpolation:
        return Interpolation("x0", "log_snr", self.noise)

    @property
    def predictor(self) -> int:
        return self.predictor_order

    @property
    def corrector(self) -> int:
        """``corrector_order``."""
        return self.corrector_order


@dataclass(frozen=True)
class SDEDPMSolverPP(Multistep):
    r"""SDE-DPM-Solver++ 1, (2M) and 3M: the reverse SDE, the data estimate as a polynomial in log-SNR.

    Order 1 is the DDPM chain with $\tilde\beta$ on any grid.

    Args:
        steps, grid: See `Multistep`.
        solver_order: Number of predictions in use.

    Source: Lu et al. 2023 (DPM-Solver++), section 6 and appendix; order 3 as in Gonzalez et al. 2023 (SEEDS).
    """

    solver_order: int = 2

    @cached_property
    def interpolation(self) -> Interpolation:
        return Interpolation("x0", "log_snr", Eta(1.0), midpoint=self.solver_order == 2)

    @property
    def predictor(self) -> int:
        return self.solver_order


@dataclass(frozen=True)
class ERSDE(Multistep):
    """ER-SDE-Solver: the reverse SDE with any noise function, the data estimate as a polynomial in ρ.

    Args:
        steps, grid: See `Multistep`.
        solver_order: Number of predictions in use.
        noise: Noise function; default the paper's last.

    Source: Cui et al. 2023 (ER-SDE-Solver), algorithm 1.
    """

    solver_order: int = 3
    noise: NoiseFunction = ExtendedNoise()

    @cached_property
    def interpolation(self) -> Interpolation:
        return Interpolation("x0", "rho", self.noise)

    @property
    def predictor(self) -> int:
        return self.solver_order
