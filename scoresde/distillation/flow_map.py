r"""`FlowMap`: a model of the jumps of the probability flow, $X(x; \phi \to \psi) = \cos\Delta\,x - \sin\Delta\,w$.

φ = atan(σ/α) is the angle of the start, ψ of the end, $\Delta = \phi - \psi$. The average velocity w depends on both.
On the diagonal, ψ = φ, it is the velocity v of the ODE $dx/d\phi = v$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.elementwise import Scalar
from scoresde._core.peer_keywords import network_reader
from scoresde._core.tensors import as_time, expand
from scoresde.distillation.average_velocity import AverageVelocity
from scoresde.distillation.jump_networks import new_network, no_jumps, reads_jumps, with_jumps
from scoresde.model import Model, ScoreModel, check_model, gaussian_output
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.prediction import Prediction
from scoresde.sampling import Moments

__all__ = ["FlowMap"]


class FlowMap(Model):
    r"""A few-step student: a model that also takes the end of a step, ``student(x, tau, s=…)``.

    The prediction's ``v`` is then the average velocity w of the jump from ``tau`` to ``s``, and its ``x0`` the data
    estimate for which $X = \alpha_s\hat x_0 + \sigma_s\hat\varepsilon$. Without ``s`` the prediction is that of the
    diagonal, as of any model, so ordinary samplers work. A student that was trained for fixed jumps has no diagonal:
    other samplers, likelihoods and guided models are refused.

    Make one by `FlowMap.new`, train it by `distill`, and sample it by ``sample(student, 64, Jumps(2))``.

    Args:
        model: A model of an `AverageVelocity`, with `V` as its parameterization.

    Raises:
        TypeError: If ``model`` is not a `ScoreModel` of such a network.

    Example:
        >>> import torch
        >>> from scoresde import MLP, V, VPSDE, ScoreModel
        >>> from scoresde.distillation import FlowMap
        >>> teacher = ScoreModel(MLP((2,), width=16, depth=1), VPSDE(), V(), (2,))
        >>> student = FlowMap.new(teacher)
        >>> student(torch.randn(5, 2), tau=1.0, s=0.1).v.shape
        torch.Size([5, 2])

    Source: Boffi, Albergo & Vanden-Eijnden 2025 (flow maps); Kim et al. 2024 (CTM), whose jump to s is that of DDIM.
    """

    def __init__(self, model: ScoreModel) -> None:
        super().__init__()
        check_model(model)
        if not (isinstance(model, ScoreModel) and isinstance(model.net, AverageVelocity)):
            raise TypeError(
                f"a FlowMap needs a ScoreModel of an AverageVelocity, got {type(model).__name__}; make a student of a "
                "model by FlowMap.new(model)."
            )
        if model.parameterization != V():
            raise TypeError(f"the network of a FlowMap states v, got {model.parameterization}; write V().")
        self.model = model
        self.sde, self.event_shape, self.data = model.sde, model.event_shape, model.data
        self.jump_times = model.net.taus

    @classmethod
    def new(
        cls,
        model: Model,
        *,
        taus: Sequence[float] = (),
        moments: Moments | None = None,
        net: nn.Module | None = None,
        damping: float = 0.0,
    ) -> FlowMap:
        r"""An untrained student of a model.

        A student of a `ScoreModel` has its network and weights, with the angle Δ of the jump as another input of weight
        zero. So every jump is at first the teacher's DDIM step, $\cos\Delta\,x - \sin\Delta\,v$. A network of another
        kind, and a student of an exact or guided model, starts with average velocity 0: without a base map as
        $X = \cos\Delta\,x$, with one as the map of a Gaussian.

        Args:
            model: The teacher.
            taus: OU times of the jumps that it will be trained for, falling from ``tau_max``; empty for any jumps.
            moments: Mean and covariance of the data, for a base map that is exact for Gaussian data.
            net: A new network with ``delta=True``, in place of the teacher's. Default for an exact or guided model: an
                `MLP` of width 128 or 256.
            damping: See `AverageVelocity`; with another value than 0, a student of a target such as ε does not start
                as its teacher at high noise, where such a target determines v poorly.

        Raises:
            TypeError: If ``model`` is not a `Model`, or the network does not read the angle of a jump.
            ValueError: If ``taus`` do not fall or leave the clock, or the moments do not fit.
        """
        check_model(model)
        check_arguments(cls.new, locals())
        for tau in taus:
            as_time(tau, "each of taus", high=model.sde.tau_max * (1 + 1e-6))
        parameterization, learned_variance = None, False
        if net is None and isinstance(model, ScoreModel):
            net = with_jumps(model.net)
            parameterization, learned_variance = gaussian_output(model), model.learned_variance
        elif net is None:
            net = new_network(model)
        elif not reads_jumps(net):
            raise no_jumps(net)
        axes = None if moments is None else len(moments.variances)
        velocity = AverageVelocity(net, parameterization, tuple(taus), axes, learned_variance, damping)
        weight = next(net.parameters(), None)
        if moments is not None:
            velocity.fit(moments)
        if weight is not None:
            velocity = velocity.to(weight.device)
        return cls(ScoreModel(velocity, model.sde, V(), model.event_shape, model.data)).train(model.training)

    @property
    def net(self) -> AverageVelocity:
        """The network of the average velocity."""
        net = self.model.net
        assert isinstance(net, AverageVelocity)
        return net

    def cond_reader(self) -> Callable[..., object]:
        return network_reader(self.net)

    def forward(self, x: ArrayLike, tau: Scalar | ArrayLike, *, s: Scalar | None = None, **cond: object) -> Prediction:
        """The prediction of the jump from ``tau`` to ``s``; without ``s`` that of the diagonal.

        Args:
            x: State in x at ``tau``, floating, ``(B, *D)``.
            tau: OU time in (0, tau_max], a number or a tensor of shape ``()`` or ``(B,)``.
            s: OU time of the jump's end, in [0, tau], as ``tau``.
            **cond: Passed to the network.

        Raises:
            ValueError: As `Model`; if ``s`` is after ``tau``; if the student was not trained for this jump, or for the
                diagonal.
            TypeError: As `Model`.
        """
        x, tau, inputs = self._checked_inputs(x, tau, cond)
        if s is None:
            return self.diagonal().predict(x, tau, **inputs)
        s = as_time(s, "s", high=self.sde.tau_max * (1 + 1e-6))
        expand(s, x, "s")  # checks its shape
        if not isinstance(s, Tensor) and not isinstance(tau, Tensor) and s > tau:
            raise ValueError(
                f"a jump ends at an earlier time, s <= tau, got tau = {tau:g} and s = {s:g}; exchange them."
            )
        return self.predict(x, tau, s=s, **inputs)

    def predict(self, x: Tensor, tau: Scalar, *, s: Scalar | None = None, **cond: object) -> Prediction:
        if s is None:
            return self.diagonal().predict(x, tau, **cond)
        if isinstance(tau, Tensor) or isinstance(s, Tensor):
            delta = (ou.angle(tau) - ou.angle(s)) * torch.ones(len(x), device=x.device)
            return self.model.predict(x, tau, delta=delta.to(torch.float32), **cond)
        if self.jump_times:
            self._check_jump(tau, s)
        delta = torch.full((x.shape[0],), _angle_between(tau, s), dtype=torch.float32, device=x.device)
        return self.model.predict(x, tau, delta=delta, **cond)

    def diagonal(self) -> ScoreModel:
        """The student as a model of the velocity v, for what needs one: likelihoods, guidance, posterior methods.

        Raises:
            ValueError: If the student was trained for fixed jumps alone.
        """
        if self.jump_times:
            raise ValueError(
                f"this student was trained for {len(self.jump_times) - 1} fixed jumps and has no velocity of its own, "
                "which other samplers, likelihoods, guidance and posterior methods need; use its teacher, or distill a "
                "student of any jumps by calls=None."
            )
        return self.model

    def _check_jump(self, tau: float, s: float) -> None:
        """Refuses jumps other than those trained for; times given as tensors are not read."""
        times = self.jump_times or ()
        for begin, end in zip(times, times[1:]):
            if math.isclose(tau, begin, rel_tol=1e-6) and math.isclose(s, end, rel_tol=1e-6, abs_tol=1e-12):
                return
        raise ValueError(
            f"this student was trained for jumps between {', '.join(f'{time:.6g}' for time in times)}, got one from "
            f"tau = {tau:.6g} to s = {s:.6g}; sample it by Jumps(), or distill a student of any jumps by calls=None."
        )


@lru_cache(maxsize=4096)
def _angle_between(tau: float, s: float) -> float:
    """The angle of a jump, cached for the loops of samplers."""
    return ou.angle(tau) - ou.angle(s)
