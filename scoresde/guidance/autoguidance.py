r"""Guidance by a weaker model: $\varepsilon = \varepsilon_{weak} + w(\varepsilon_{model} - \varepsilon_{weak})$."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.elementwise import Scalar
from scoresde.guidance.combination import Extrapolation
from scoresde.model import Model, check_model
from scoresde.process.prediction import Prediction

__all__ = ["Autoguidance"]


class Autoguidance(Extrapolation):
    r"""A model guided away from a weaker one: $\varepsilon_{weak} + w(\varepsilon_{model} - \varepsilon_{weak})$.

    The weaker model makes the same errors, larger. It is a smaller or less trained one, for example an earlier or
    shorter average of the same run: ``load(run, average=0.02)``. Guided by an unconditional model, with
    ``conditional=False``, it is classifier-free guidance with two models.

    Args:
        model: The model.
        weaker: Another model of the same process and events.
        scale: w, a number, or a tensor with one entry per sample, ``(B,)``. With w = 1 it is the model itself, with
            w = 0 the weaker one; both then cost one evaluation.
        interval: OU times ``(tau_low, tau_high)`` outside of which the model alone is used; see `CFG`.
        conditional: Whether the weaker model gets the conditions of the call.

    Raises:
        TypeError: If an argument is not a `Model`, or the scale no number.
        ValueError: If the two models differ in process or events, or the interval is not one.

    Example:
        >>> import torch
        >>> from scoresde import Adams, Autoguidance, Gaussian, sample
        >>> of_class, of_all = Gaussian(torch.tensor([1.5]), 0.25), Gaussian(torch.tensor([0.0]), 1.0)
        >>> guided = Autoguidance(of_class, of_all, 2.0, conditional=False)
        >>> sample(guided, 4, Adams(steps=10), seeds=range(4)).nfe
        20

    Source: Karras et al. 2024, "Guiding a diffusion model with a bad version of itself", eq. 3.
    """

    def __init__(
        self,
        model: Model,
        weaker: Model,
        scale: float | Tensor,
        interval: tuple[float, float] | None = None,
        conditional: bool = True,
    ) -> None:
        super().__init__(model, interval, scale)
        check_model(weaker)
        check_arguments(Autoguidance, locals())
        if weaker.sde != model.sde or weaker.event_shape != model.event_shape:
            raise ValueError(
                "the weaker model must have the process and the events of the model, got "
                f"{weaker.sde} with {weaker.event_shape} instead of {model.sde} with {model.event_shape}."
            )
        self.weaker, self.conditional = weaker, conditional

    @property
    def models(self) -> list[Model]:
        return [self.model, self.weaker]

    def estimates(self, x: Tensor, tau: Scalar, cond: Mapping[str, object], terms: list[int]) -> list[Prediction]:
        step_end = {"s": cond["s"]} if "s" in cond else {}
        conditions = [cond, cond if self.conditional else step_end]
        return [self.models[term].predict(x, tau, **conditions[term]) for term in terms]
