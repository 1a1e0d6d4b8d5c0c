r"""Classifier guidance: $score + w\,\nabla_x\log p_\tau(y \mid x)$, with the gradient by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine
from scoresde.guidance._wrapper import Guide, Scales, between, check_scale_length, is_zero, reader_with
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["ClassifierGuidance"]


class ClassifierGuidance(Guide):
    r"""A model guided by the gradient of a log-probability: $score + w\,\nabla_x\log p_\tau(y \mid x)$.

    In the target of the network, $p\,x_0 + q\,\varepsilon$, the change is $-w\,(\sigma/\alpha)(\alpha q - \sigma p)$
    times the gradient. With w = 1 and the exact log-probability at every τ it is the exact conditional model. With
    another w it is no score of one process, see `CFG`. The gradient is also computed under ``torch.no_grad``.
    Where α = 0 the state holds no signal and is not guided.

    ``cost`` is that of the model; the classifier is another network and is not counted.

    Args:
        model: Unconditional, or with conditions of its own.
        log_prob_fn: ``log_prob_fn(x, tau, **cond) -> (B,)``, log-probability of what is wanted given the noisy state x
            at ``tau``, nats; it gets all conditions of the call. A module is evaluated in eval mode.
        scale: w, a number, or a tensor with one entry per sample, ``(B,)``.
        interval: OU times ``(tau_low, tau_high)`` outside of which the model is not guided; see `CFG`.
        names: Conditions that only ``log_prob_fn`` reads, and the model does not.

    Raises:
        TypeError: If ``model`` is not a `Model`, ``log_prob_fn`` no function or the scale no number.
        ValueError: If the interval is not one. When it is called: if ``log_prob_fn`` returns another shape.
        RuntimeError: When it is called, if its value does not depend on x.

    Example:
        >>> import torch
        >>> from scoresde import ClassifierGuidance, Gaussian
        >>> def log_prob_fn(x, tau):  # a half-line's log-probability, for illustration
        ...     return torch.nn.functional.logsigmoid(4.0 * x[:, 0])
        >>> guided = ClassifierGuidance(Gaussian(torch.zeros(1), 1.0), log_prob_fn, 1.0)
        >>> guided(torch.zeros(1, 1), 0.5).score
        tensor([[2.]])

    Source: Dhariwal & Nichol 2021, algorithm 2 and eq. 14; Song et al. 2021, section 5.
    """

    def __init__(
        self,
        model: Model,
        log_prob_fn: Callable[..., Tensor],
        scale: float | Tensor = 1.0,
        interval: tuple[float, float] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__(model, interval)
        check_arguments(ClassifierGuidance, locals())
        self.log_prob_fn, self.names = log_prob_fn, tuple(names)
        self._scales = Scales(model, {"scale": scale})

    @property
    def scale(self) -> float | Tensor:
        """The scale w."""
        return self._scales["scale"]

    @property
    def cost(self) -> int:
        """Network evaluations per call: those of the model."""
        return vars(self).get("_cost") or self.model.cost

    @cost.setter
    def cost(self, value: int) -> None:
        Model.cost.__set__(self, value)

    def cost_at(self, tau: Scalar) -> int:
        return vars(self).get("_cost") or self.model.cost_at(tau)

    def cond_reader(self) -> Callable[..., object]:
        return reader_with(super().cond_reader(), self.names)

    def why_guided(self) -> str | None:
        scale = self.scale
        if isinstance(scale, float) and (scale == 0.0 or (scale == 1.0 and self.interval is None)):
            return super().why_guided()
        return (
            "ClassifierGuidance has a scale other than 1 or an interval: its field is at each time the score of "
            "p(x) p(y | x)^w, and these densities are not the marginals of one process"
        )

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        prediction = self.model.predict(x, tau, **{n: value for n, value in cond.items() if n not in self.names})
        inside = self.guides_at(tau)
        scale = between(inside, self.scale, 0.0)
        check_scale_length(scale, x)
        if is_zero(scale) or (not isinstance(tau, Tensor) and ou.alpha(tau) == 0):
            return prediction
        gradient = self._gradient(x, tau, {name: value for name, value in cond.items() if name != "s"})
        factor = scale * _on_gradient(prediction, tau)
        out = combine(1.0, prediction.out, factor, gradient)
        return GaussianPrediction(prediction.x, tau, out, prediction.parameterization, prediction.mix)

    def _gradient(self, x: Tensor, tau: Scalar, cond: dict[str, object]) -> Tensor:
        """Gradient of the log-probability in x, ``(B, *D)``; differentiable itself where the caller needs that."""
        differentiable = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            if x.is_inference():
                x = x.clone()
            tau = tau.clone() if isinstance(tau, Tensor) and tau.is_inference() else tau
            cond = {n: v.clone() if isinstance(v, Tensor) and v.is_inference() else v for n, v in cond.items()}
            state = x if differentiable else x.detach().requires_grad_()
            value = self.log_prob_fn(state, tau, **cond)
            if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
                received = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"log_prob_fn must return one log-probability per sample, ({len(x)},), got {received}; pick the "
                    "entry of the class and sum over nothing else."
                )
            if not value.requires_grad:
                raise RuntimeError(
                    "log_prob_fn must depend on x by differentiable operations, got a value without a gradient; leave "
                    "out detach(), no_grad and argmax."
                )
            gradient = torch.autograd.grad(value.sum(), state, create_graph=differentiable)[0]
        return gradient if differentiable else gradient.detach()


def _on_gradient(prediction: Prediction, tau: Scalar) -> Scalar:
    """The factor of the gradient in the target; 0 where α = 0."""
    alpha, sigma = ou.alpha(tau), ou.sigma(tau)
    determinant = prediction.parameterization.determinant(tau)
    if not isinstance(alpha, Tensor):
        return -sigma / alpha * determinant
    inverse = torch.where(alpha > 0, torch.where(alpha > 0, alpha, 1.0).reciprocal(), 0.0)
    return -sigma * determinant * inverse
