r"""`FromStep`: a network that takes DDPM's step, $t = K\,u(\tau) + offset$."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.tensors import widest_dtype
from scoresde.adapters.base import Adapter
from scoresde.process import ou
from scoresde.process.schedule import Schedule

__all__ = ["FromStep"]

_SNAP = 2e-3  # float32 log-SNR determines t to about 1e-4; what is nearer to an integer is meant to be that integer


@dataclass(eq=False, repr=False, init=False)
class FromStep(Adapter):
    r"""Calls ``net(x, t)`` with the step $t = K\,u(\tau) + offset$ of a DDPM chain of length K.

    With the default offset -1 knot k of the chain, at $\tau_k$, is step k - 1, as most code bases count. Below the
    first knot, where such a network was never trained, it receives the first step; set ``tau_min=clock.knots(K)[1]``
    so that this does not happen.

    Args:
        net: The network; returns a tensor, a tuple whose first entry is one, or an object with a member ``sample``.
        clock: The schedule of the chain, e.g. ``FromBetas(betas)``.
        steps: Length K of the chain; default that of ``clock``, 1000 for clocks without steps.
        offset: Step of u = 0.
        rounding: Whether the network takes integers (int64). Otherwise it receives the fraction, in float32; times
            within 2e-3 of an integer are that integer. Rounding makes the network piecewise constant in time.
        scale: Factor of the step, e.g. ``1000 / K`` where steps are rescaled; such a network takes fractions.

    Raises:
        TypeError: If ``net`` is not a module or ``clock`` not a Schedule.
        ValueError: If ``steps`` is not a positive integer, or ``scale`` is not 1 with ``rounding``.

    Example:
        >>> import torch
        >>> from scoresde import Eps, LinearBetas, ScoreModel, VPSDE
        >>> from scoresde.adapters import FromStep
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x, t):
        ...         return x * t.reshape(-1, 1) / 1000
        >>> clock = LinearBetas()
        >>> process = VPSDE(clock, tau_min=clock.knots(1000)[1])
        >>> model = ScoreModel(FromStep(Net(), clock, 1000), process, Eps(), event_shape=(2,))
        >>> model(torch.ones(1, 2), clock.tau(0.5)).eps
        tensor([[0.4990, 0.4990]])
    """

    net: nn.Module
    clock: Schedule
    steps: int = 1000
    offset: float = -1.0
    rounding: bool = False
    scale: float = 1.0

    def __init__(
        self,
        net: nn.Module,
        clock: Schedule,
        steps: int | None = None,
        offset: float = -1.0,
        rounding: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__(net)
        check_kind("clock", clock, Schedule)
        if steps is None:  # of a chain of 100 betas a network knows 100 steps
            steps = int(getattr(clock, "steps", 1000))
        check_integer("steps", steps)
        if rounding and scale != 1:
            raise ValueError(f"a network that takes rescaled steps takes fractions, got scale={scale} and rounding.")
        self.clock, self.steps, self.offset, self.rounding, self.scale = clock, steps, offset, rounding, scale

    def inputs(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        tau = ou.tau_from_log_snr(log_snr.to(widest_dtype(log_snr.device)))
        t = ew.clamp(self.clock.u(tau) * self.steps + self.offset, low=1.0 + self.offset)
        assert isinstance(t, Tensor)
        nearest = t.round()
        if self.rounding:
            return x, nearest.long()
        t = nearest.where((t - nearest).abs() < _SNAP, t)
        return x, (t * self.scale).float()
