r"""`AverageVelocity`: a network of the average velocity w of a jump, $X = \cos\Delta\,x - \sin\Delta\,w$.

Without a jump (Δ = 0) w is the velocity v of the probability-flow ODE in the angle, so the network then estimates v.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde._core.tensors import combine
from scoresde.distillation.gaussian_map import JumpCoefficients, axis_terms, coefficients
from scoresde.nn._execution import full_precision
from scoresde.nn._network_wrapper import NetworkWrapper
from scoresde.process import ou
from scoresde.process.outputs import split_learned_variance
from scoresde.process.parameterization import Parameterization, V
from scoresde.process.prediction import GaussianPrediction
from scoresde.sampling import Moments

__all__ = ["AverageVelocity"]


@dataclass(eq=False, repr=False, init=False)
class AverageVelocity(NetworkWrapper):
    r"""The average velocity of jumps, from a network that reads the angle Δ of a jump; see `FlowMap`.

    With a base map (``axes``) the map of a Gaussian of the data's mean m and covariance C is exact without training,
    and the network states the rest. With $S^2 = \alpha^2 C + \sigma^2 I$ and the Gaussian's average velocity $w_G$
    (`gaussian_map`), a network of the teacher's target gives
    $w = w_G + S_\psi S_\phi^{-1}(\hat v - v_G)$; a new network, of ``parameterization=None``, gives
    $w = w_G + S_\psi\,out$.

    A target that determines v poorly at high noise, as ε does, multiplies errors of the output by $1/\det$ there (see
    `scoresde.process.parameterization`). With ``damping`` κ the factor is $(\det \pm \kappa^2)/(\det^2 + \kappa^2)$,
    with the sign of det: unchanged where $|\det|$ is 1 or far above κ, and at most about 1/κ. A student then starts
    near the base map at high noise, and as its teacher elsewhere.

    Attributes:
        net: A network with ``delta=True``, or one whose ``forward`` reads the keyword ``delta``.
        parameterization: The target of the teacher whose network it continues. None: its output is w itself, with a
            base map $S_\psi^{-1}(w - w_G)$.
        taus: OU times of the jumps that the network is trained for; empty for jumps between any two times.
        axes: Number of principal axes of the base map's covariance; None for no base map. `fit` sets their values.
        learned_variance: As in `ScoreModel`; the variance is not used.
        damping: κ; 0 for the teacher's v itself.

    Raises:
        ValueError: If ``taus`` do not fall, or ``damping`` is not in [0, 1e6].
    """

    net: nn.Module
    parameterization: Parameterization | None = None
    taus: tuple[float, ...] = ()
    axes: int | None = None
    learned_variance: bool = field(default=False, metadata={"write": "if set"})
    damping: float = field(default=0.0, metadata={"write": "if set"})

    def __init__(
        self,
        net: nn.Module,
        parameterization: Parameterization | None = None,
        taus: tuple[float, ...] = (),
        axes: int | None = None,
        learned_variance: bool = False,
        damping: float = 0.0,
    ) -> None:
        super().__init__()
        check_arguments(AverageVelocity, locals())
        if len(taus) == 1 or any(tau <= s or s < 0 for tau, s in zip(taus, taus[1:])):
            raise ValueError(f"taus must fall, from the start to the end of sampling, got {taus!r}; or leave them out.")
        if not 0 <= damping <= 1e6:
            raise ValueError(f"damping must lie in [0, 1e6], got {damping!r}; 0.3 is usual, 0 leaves it out.")
        self.net, self.parameterization, self.damping = net, parameterization, float(damping)
        self.taus, self.axes, self.learned_variance = tuple(float(tau) for tau in taus), axes, learned_variance
        self._is_output = axes is None and parameterization in (None, V()) and not learned_variance
        if axes is not None:
            check_integer("axes", axes, 0)
            size = _event_size(net)
            self.register_buffer("mean", torch.zeros(size))
            self.register_buffer("basis", torch.zeros(size, axes))
            self.register_buffer("variances", torch.ones(axes))
            self.register_buffer("rest", torch.ones(()))
            self.mean: Tensor
            self.basis: Tensor
            self.variances: Tensor
            self.rest: Tensor

    def fit(self, moments: Moments) -> AverageVelocity:
        """Sets the base map's mean and covariance.

        Raises:
            ValueError: If the network has no base map, or one of another size.
        """
        if self.axes != len(moments.variances) or moments.mean.numel() != len(self.mean):
            raise ValueError(
                f"moments must have the {self.axes} axes of the base map, got {moments}; build the network with axes="
                f"{len(moments.variances)}."
            )
        self.mean.copy_(moments.mean.reshape(-1))
        self.basis.copy_(moments.axes)
        self.variances.copy_(moments.variances)
        self.rest.fill_(moments.rest)
        return self

    def forward(self, x: Tensor, log_snr: Tensor, delta: Tensor | None = None, **cond: Tensor) -> Tensor:
        """The average velocity.

        Args:
            x: State at the start of the jump, ``(B, *D)``.
            log_snr: Log-SNR there, nats, ``(B,)``.
            delta: Angle of the jump, radians, ``(B,)``; None for 0, where the average velocity is v.
            **cond: Passed to the network.

        Returns:
            Shape and dtype of ``x``.
        """
        if delta is not None:
            cond["delta"] = delta
        out = self.net(x, log_snr, **cond)
        if self._is_output:
            return out
        if self.learned_variance:
            out = split_learned_variance(out, x)[0]
        with full_precision(x):
            wide = torch.promote_types(x.dtype, torch.float32)
            state, out = x.to(wide), out.to(wide)
            if self.parameterization is not None:
                out = self._velocity(state, out, ou.tau_from_log_snr(log_snr.to(wide)), self.parameterization)
            w = out if self.axes is None else self._with_base(state, out, log_snr, delta)
        return w.to(x.dtype)

    def _velocity(self, x: Tensor, out: Tensor, tau: Tensor, parameterization: Parameterization) -> Tensor:
        """v from the teacher's target, with damping."""
        if self.damping == 0:
            return GaussianPrediction(x, tau, out, parameterization).v
        p, q = parameterization.coefficients(tau)
        alpha, sigma, square = ou.alpha(tau), ou.sigma(tau), self.damping**2
        det = alpha * q - sigma * p
        factor = (det + square * torch.sign(det)) / (det * det + square)
        return combine(factor, out, -factor * (alpha * p + sigma * q), x)

    def _with_base(self, x: Tensor, out: Tensor, log_snr: Tensor, delta: Tensor | None) -> Tensor:
        """The average velocity from the network's part of it and the base map."""
        c, flat = coefficients(log_snr, delta, x.dtype), out.reshape(len(x), -1)
        mean, basis = self.mean.to(x.dtype), self.basis.to(x.dtype)
        centered = x.reshape(len(x), -1) - c.alpha * mean
        on_x, on_out = self._terms(c, self.variances.to(x.dtype))
        rest_x, rest_out = self._terms(c, self.rest.to(x.dtype))
        if self.parameterization is not None:
            flat = flat + c.sigma * mean  # v - v_G = this - G centered, which is part of `on_x`
        inner = (centered @ basis) * (on_x - rest_x) + (flat @ basis) * (on_out - rest_out)
        w = rest_x * centered + rest_out * flat + inner @ basis.mT - c.sigma * mean
        return w.reshape(x.shape)

    def _terms(self, c: JumpCoefficients, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of the centered state and of the network's part along axes of these variances."""
        slope, start_slope, end, ratio = axis_terms(c, variance)
        if self.parameterization is None:
            return slope, end
        return slope - ratio * start_slope, ratio


def _event_size(net: nn.Module) -> int:
    """Number of elements of an event of the network."""
    shape = getattr(net, "event_shape", None)
    if shape is None:
        raise ValueError("a base map needs a network that declares its event_shape; set it, or leave the map out.")
    return int(torch.Size(shape).numel())
