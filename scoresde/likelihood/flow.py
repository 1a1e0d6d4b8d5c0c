r"""How is the flow followed from the data to the prior? $dx/d\phi = v$ and $d\ell/d\phi = \nabla\cdot v/d$.

torchdiffeq solves it, from the angle of ``tau_min`` to that of the end of the clock. ℓ is what log p gathers on the
way, in nats per dimension, so that one tolerance means the same for x and for ℓ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchdiffeq import odeint

from scoresde import ou
from scoresde._tensor import Scalar
from scoresde.likelihood.trace import QuadraticForms, Trace
from scoresde.model import Model
from scoresde.spec import nearest

__all__ = ["METHODS", "Flow", "Solver"]

METHODS = ("dopri5", "bosh3", "dopri8", "adaptive_heun")

_LAST = 17.0  # a clock that ends later is read here: alpha = 4e-8, which still tells x0 from eps in float64


@dataclass(eq=False)
class Flow:
    """The right-hand side on rows [x, mean ℓ, ℓ of each estimate], ``(B, d + 1 + Q)``. It counts, and finds faults.

    Attributes:
        model: Answers with v.
        cond: Passed to the network.
        trace: How the divergence is estimated.
        directions: ``(P, B, *D)``.
        forms: How the Jacobian products are computed.
        max_nfe: Evaluations before it gives up.
        first: Index of the first sample, for errors.
        nfe: Evaluations so far.
        strict: Looks at every value (a replay after a failure), not only at the end.
    """

    model: Model
    cond: dict[str, object]
    trace: Trace
    directions: Tensor
    forms: QuadraticForms
    max_nfe: int
    first: int = 0
    nfe: int = 0
    strict: bool = False
    phi: Tensor = field(default_factory=lambda: torch.tensor(math.nan))

    def tau(self) -> Scalar:
        """Where it stands, OU time: a float on the CPU, elsewhere a tensor; inside the clock whatever the rounding."""
        low, high = self.model.sde.tau_min, min(self.model.sde.tau_max, _LAST)
        if self.phi.device.type == "cpu":
            return min(max(float(ou.tau_from_angle(self.phi.item())), low), high)
        return torch.as_tensor(ou.tau_from_angle(self.phi)).clamp(low, high)

    def __call__(self, phi: Tensor, y: Tensor) -> Tensor:
        """The slope dy/dφ, as ``y``."""
        self.phi, self.nfe = phi, self.nfe + 1
        if self.nfe > self.max_nfe:
            raise RuntimeError(
                f"the solver has not arrived after max_nfe = {self.max_nfe} evaluations, but stands at tau = "
                f"{float(self.tau()):.4g}; loosen rtol and atol, or raise max_nfe."
            )
        tau, shape = self.tau(), self.directions.shape[1:]
        size = math.prod(shape[1:])
        x = y[:, :size].reshape(shape)
        v, forms = self.forms(lambda x: self.model(x, tau, **self.cond).v, x, self.directions)
        estimates = self.trace.estimates(forms).T / size
        slope = torch.cat([v.reshape(len(y), size), estimates.mean(1, keepdim=True), estimates], 1)
        if self.strict:
            self._refuse(slope)
        return slope

    def _refuse(self, slope: Tensor) -> None:
        rows = (~torch.isfinite(slope).all(1)).nonzero().flatten() + self.first
        if len(rows):
            shown = ", ".join(map(str, rows[:8].tolist())) + (" …" if len(rows) > 8 else "")
            raise RuntimeError(
                f"the network, or its derivative, is NaN or infinite in evaluation {self.nfe} at tau = "
                f"{float(self.tau()):.6g} for the samples [{shown}]; look at its inputs there, or train it at that tau."
            )


@dataclass(frozen=True)
class Solver:
    """An adaptive method of torchdiffeq. The batch shares its steps, which are as small as the worst sample needs.

    The error of a step is the largest, over the samples, of the root mean square over x and of the error in the mean ℓ,
    each in units of its tolerance. So every sample meets the tolerance by itself; its value still moves with its
    neighbours, within the tolerance. The ℓ of single probes, from which only a standard error is made, set no step.

    Attributes:
        method: One of `METHODS`.
        rtol, atol: Relative and absolute tolerance of a step, for x and for ℓ (nats per dimension).
        max_nfe: Evaluations before it gives up.

    Raises:
        ValueError: If the method is unknown or a tolerance not positive.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"no method is named {self.method!r}; {nearest(str(self.method), METHODS)}")
        for name in ("rtol", "atol"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)!r}.")

    def solve(self, flow: Flow, x: Tensor, observe: Callable[[float], None] | None = None) -> tuple[Tensor, Tensor]:
        """Follows the flow from ``tau_min`` to the end of the clock.

        Args:
            flow: The right-hand side.
            x: ``(B, *D)``, canonical coordinates.
            observe: Called with the share of the way done, after each step.

        Returns:
            The state there, ``(B, *D)``, and what each estimate gathered, ``(Q, B)``, nats.

        Raises:
            RuntimeError: If a value is not finite (names τ and samples), the step underflows, or ``max_nfe`` is hit.
        """
        size = math.prod(x.shape[1:])
        estimates = len(flow.trace.estimates(flow.directions.new_empty(len(flow.directions), 0)))
        y = torch.cat([x.reshape(len(x), size), x.new_zeros(len(x), 1 + estimates)], 1)
        end = self._run(flow, y, observe)
        if end is None or not bool(torch.isfinite(end).all()):
            flow.nfe, flow.strict = 0, True
            self._run(flow, y, None)
            raise RuntimeError(
                f"the step of {self.method} underflowed at tau = {float(flow.tau()):.4g} after {flow.nfe} evaluations "
                f"with rtol={self.rtol:g} and atol={self.atol:g}; loosen them, or give the network more precision."
            )
        return end[:, :size].reshape(x.shape), size * end[:, size + 1 :].T

    def _run(self, flow: Flow, y: Tensor, observe: Callable[[float], None] | None) -> Tensor | None:
        """The rows at the end, or None where the step underflowed (which is also how torchdiffeq meets a NaN)."""
        sde, size = flow.model.sde, math.prod(flow.directions.shape[2:])
        start, end = float(ou.angle(sde.tau_min)), float(ou.angle(sde.tau_max))

        def slope(phi: Tensor, rows: Tensor) -> Tensor:
            return flow(phi, rows)

        if observe is not None:  # torchdiffeq looks for a callback of this name
            slope.callback_accept_step = lambda phi, _, step: observe(float(phi + step - start) / (end - start))
        times = torch.tensor([start, end], dtype=y.dtype, device=y.device)
        options = {
            "norm": lambda error: _worst_sample(error, size),
            "dtype": y.dtype,
            "step_t": times[1:],  # without it the last step overshoots the clock and is interpolated
        }
        try:
            out = odeint(slope, y, times, rtol=self.rtol, atol=self.atol, method=self.method, options=options)
            assert isinstance(out, Tensor)
            return out[-1]
        except AssertionError as error:
            if "underflow" in str(error) or "non-finite" in str(error):
                return None
            raise


def _worst_sample(error: Tensor, size: int) -> Tensor:
    return torch.maximum(error[:, :size].square().mean(1).sqrt(), error[:, size].abs()).max()
