"""`Received`: a model whose network is called elsewhere; its outputs are passed in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.elementwise import Scalar
from scoresde.adapters import Adapter, FromSigma, FromStep, FromTime
from scoresde.bridges.diffusers.rules import Rules
from scoresde.model import Model
from scoresde.process import VPSDE, Flow, Parameterization, ou
from scoresde.process.outputs import split_learned_variance
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.sde import SDE

__all__ = ["Received"]


class _Elsewhere(nn.Module):
    """Stands for a network that is called elsewhere; the rules read whether it takes integer timesteps only."""

    def __init__(self, time_is_integer: bool) -> None:
        super().__init__()
        self.time_is_integer = time_is_integer


class Received(Model):
    """A model that has the output of its network only while one is passed in.

    Args:
        adapter: Converts states and times to those of the network; its ``net`` is not called.
        sde: The process.
        parameterization: The target of the network.
        event_shape: Shape of one sample, for samplers whose grids depend on it; None if unknown.
    """

    def __init__(
        self,
        adapter: Adapter,
        sde: SDE,
        parameterization: Parameterization,
        event_shape: tuple[int, ...] | None,
    ) -> None:
        super().__init__()
        self.adapter, self.sde, self.parameterization, self.event_shape = adapter, sde, parameterization, event_shape
        self.out: Tensor | None = None
        scales = isinstance(adapter, FromSigma) and adapter.sigma_data is not None
        self._view = FromSigma(nn.Identity()) if scales else adapter
        self._plain_output = type(adapter).output is Adapter.output or (
            isinstance(adapter, FromSigma) and adapter.output_form == "unchanged"
        )

    @classmethod
    def of(cls, rules: Rules, rounding: bool, event_shape: tuple[int, ...] | None) -> Received:
        """The model that a scheduler of diffusers is written for.

        Args:
            rules: What the scheduler says about its network.
            rounding: Whether the network takes integer timesteps only.
            event_shape: Shape of one sample; None if unknown.
        """
        return cls(rules.adapter(_Elsewhere(rounding)), rules.process, rules.parameterization, event_shape)

    def amplifies_at_noise(self) -> bool:
        return abs(float(self.parameterization.determinant(self.sde.tau_max))) < 0.1

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        out, mix = self.out, None
        assert out is not None
        if out.dtype != x.dtype:
            out = out.to(x.dtype)
        if out.shape != x.shape:
            out, mix = split_learned_variance(out, x)
        if not self._plain_output:
            out = self.adapter.output(out, self._log_snr(float(tau), len(x), x.device))
        return GaussianPrediction(x, tau, out, self.parameterization, mix)

    def network_times(self, taus: list[float]) -> Tensor:
        """The times as the network takes them, ``(n,)``."""
        log_snr = torch.tensor([ou.log_snr(tau) for tau in taus], dtype=torch.float32)
        return self.adapter.inputs(torch.zeros(len(taus), 1), log_snr)[1]

    @property
    def scales_input(self) -> bool:
        """Whether the network takes the state in other coordinates than the pipeline shows."""
        return self._view is not self.adapter

    def tau_of(self, timestep: float) -> float:
        """OU time of a time as the network takes it."""
        adapter, t = self.adapter, float(timestep)
        if isinstance(adapter, FromStep):
            return float(adapter.clock.tau((t - adapter.offset) / adapter.steps))
        if isinstance(adapter, FromTime):
            return float(adapter.sde.schedule.tau(t / adapter.scale))
        assert isinstance(adapter, FromSigma)
        return ou.tau_from_log_snr(-8.0 * t if adapter.level == "quarter log" else -2.0 * math.log(t))

    def checked_tau(self, timestep: float) -> float:
        """`tau_of` a timestep within the clock.

        Raises:
            ValueError: If it is not above 0 and not beyond the end.
        """
        adapter, t = self.adapter, float(timestep)
        if isinstance(adapter, FromSigma):
            return self.tau_of(t)
        assert isinstance(adapter, (FromStep, FromTime))
        low, span = (adapter.offset, adapter.steps) if isinstance(adapter, FromStep) else (0.0, adapter.scale)
        high = low + span
        if not low < t <= high:
            raise ValueError(
                f"a timestep must lie in ({low:g}, {high:g}] with this scheduler, got {t:g}; pass times of the "
                "chain, or num_inference_steps alone."
            )
        return self.tau_of(t)

    def taus_of_sigmas(self, sigmas: Sequence[float], config: Mapping[str, Any], mu: float | None) -> list[float]:
        r"""OU times of noise levels: σ/α, or the σ of a flow, shifted as its scheduler does.

        $\sigma' = m\sigma/(1 + (m - 1)\sigma)$ with m = ``shift``, or where the shift is dynamic $m = e^{mu}$, or
        m = ``mu`` if it is linear.
        """
        if not isinstance(self.sde, Flow):
            return [0.5 * math.log1p(float(sigma) ** 2) for sigma in sigmas if sigma > 0]
        if config.get("use_dynamic_shifting"):
            if mu is None:
                raise ValueError("sigmas with use_dynamic_shifting need mu, got None; pass mu=, or leave sigmas out.")
            shift = math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
        else:
            shift = float(config.get("shift", config.get("flow_shift", 1.0)))
        shifted = [shift * float(sigma) / (1.0 + (shift - 1.0) * float(sigma)) for sigma in sigmas if sigma > 0]
        return [float(self.sde.schedule.tau(u)) for u in shifted]

    def network_input(self, x: Tensor, tau: float) -> Tensor:
        """The state as the network takes it, ``(B, *D)``."""
        return x if isinstance(self.sde, VPSDE) else self._inputs(self.adapter, x, tau)

    def shown(self, x: Tensor, tau: float) -> Tensor:
        """The state in the coordinates of the pipeline, ``(B, *D)``."""
        if isinstance(self.sde, VPSDE):
            return x
        return x if tau == 0 else self._inputs(self._view, x, tau)

    def state(self, shown: Tensor, tau: float) -> Tensor:
        """The state in x of one in the coordinates of the pipeline, ``(B, *D)``."""
        return shown if isinstance(self.sde, VPSDE) else shown / float(self.sde.scale(min(tau, 300.0)))

    def _inputs(self, adapter: Adapter, x: Tensor, tau: float) -> Tensor:
        return adapter.inputs(x, self._log_snr(tau, len(x), x.device))[0]

    def _log_snr(self, tau: float, rows: int, device: torch.device) -> Tensor:
        return torch.full((rows,), ou.log_snr(tau), dtype=torch.float32, device=device)
