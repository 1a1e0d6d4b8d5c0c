r"""Guided models that clip the data estimate $\hat x_0$ of a wrapped model to the range of the data.

The other estimates follow from the clipped $\hat x_0$: $\hat\varepsilon = (x - \alpha\hat x_0)/\sigma$, score and v.
With ``keep_eps`` the noise estimate stays that of the wrapped model, see `ClippedPrediction`. The range is in model
units (`Description.to_model`), which in every view are the coordinates at τ = 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_positive
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine, event_size, expand
from scoresde.model import Model, check_model
from scoresde.process import ou
from scoresde.process.parameterization import X0
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["ClippedPrediction", "Clipping", "Guided", "DynamicThresholding"]


class ClippedPrediction(GaussianPrediction):
    r"""A clipped $\hat x_0$ beside the noise estimate of the unclipped prediction; together they do not give x.

    The score is $-\hat\varepsilon/\sigma$ and v is $\alpha\hat\varepsilon - \sigma\hat x_0$. A step of `DDIM`, which
    rotates $(\hat x_0, \hat\varepsilon)$, leads to $\alpha_s\hat x_0 + \sigma_s\hat\varepsilon$. A step of `DDPM` uses
    x and $\hat x_0$ alone, so there is no difference there.

    Args:
        prediction: The unclipped prediction.
        x0: The clipped data estimate, ``(B, *D)``.
    """

    def __init__(self, prediction: Prediction, x0: Tensor) -> None:
        super().__init__(prediction.x, prediction.tau, x0, X0(), prediction.mix)
        self.unclipped = prediction

    def coefficients(self, member: str) -> tuple[Scalar, Scalar]:
        if member == "x0":
            return 1.0, 0.0
        raise ValueError(
            f"with keep_eps, {member} is no combination of x and one output, which this sampler needs; take DDIM or "
            "DDPM, or leave keep_eps out."
        )

    def _estimate(self, member: str) -> Tensor:
        if member in ("eps", "score"):
            return getattr(self.unclipped, member)
        if member == "x0":
            return self.out
        return combine(ou.alpha(self.tau), self.eps, -ou.sigma(self.tau), self.out)

    def step(self, on_x: Scalar, weight: Scalar, member: str) -> Tensor:
        """``on_x * x + weight * member``; with ``"v"`` for x what the two estimates give, a rotation of the pair."""
        if member != "v":
            return combine(on_x, self.x, weight, getattr(self, member))
        alpha, sigma = ou.alpha(self.tau), ou.sigma(self.tau)
        return combine(on_x * alpha - weight * sigma, self.out, on_x * sigma + weight * alpha, self.eps)


class Guided(Model, ABC):
    """A wrapped model with a changed data estimate. Subclasses define `steer`.

    Process, event shape, data description and conditioning are those of the wrapped model. A learned variance
    (``mix``) is passed on unchanged.

    Args:
        model: The wrapped model.
        keep_eps: Keeps the noise estimate of the wrapped model, see `ClippedPrediction`.

    Raises:
        TypeError: If ``model`` is not a `Model`.
    """

    def __init__(self, model: Model, keep_eps: bool = False) -> None:
        check_model(model)
        super().__init__()
        self.model, self.keep_eps = model, keep_eps
        self.sde, self.event_shape, self.data = model.sde, model.event_shape, model.data

    @abstractmethod
    def steer(self, x0: Tensor) -> Tensor:
        """Changes the data estimate.

        Args:
            x0: Data estimate of the wrapped model, ``(B, *D)``, in model units.

        Returns:
            Changed data estimate, ``(B, *D)``, in model units.
        """

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        prediction = self.model.predict(x, tau, **cond)
        x0 = self.steer(prediction.x0)
        return (
            ClippedPrediction(prediction, x0) if self.keep_eps else GaussianPrediction(x, tau, x0, X0(), prediction.mix)
        )


class Clipping(Guided):
    r"""$\hat x_0$ clipped elementwise to [low, high]; the gradient of clipped elements is 0.

    The posterior mean of data in the range lies in the range. Clipping therefore leaves an exact model unchanged up to
    rounding and only removes errors of a network. The rounding error of $\hat\varepsilon$ is that of $\hat x_0$ over σ.

    Args:
        model: The wrapped model.
        low, high: Range in model units; infinite for no bound.
        keep_eps: Keeps the noise estimate of the wrapped model, see `ClippedPrediction`.

    Raises:
        TypeError: If ``model`` is not a `Model`.
        ValueError: If ``low`` is not below ``high``.

    Source: Ho, Jain & Abbeel 2020 (their code's ``clip_denoised``); ``keep_eps`` is what diffusers' DDIM does.
    """

    def __init__(self, model: Model, low: float = -1.0, high: float = 1.0, keep_eps: bool = False) -> None:
        super().__init__(model, keep_eps)
        check_arguments(Clipping, locals())
        if not low < high:
            raise ValueError(f"low must lie below high, got low = {low!r} and high = {high!r}.")
        self.low, self.high = float(low), float(high)

    def steer(self, x0: Tensor) -> Tensor:
        return x0.clamp(self.low, self.high)


class DynamicThresholding(Guided):
    r"""Dynamic thresholding: $\hat x_0$ clipped to $[-q, q]$ and scaled by bound/q, with q not below ``bound``.

    q is a quantile of $|\hat x_0|$ over the elements of one sample, linearly interpolated. It keeps elements from
    saturating at the bound under strong guidance. Suited to data that fill [-bound, bound], such as images; not to
    latents.

    Args:
        model: The wrapped model.
        quantile: In [0, 1]; 1 scales without clipping.
        bound: Half the width of the range in model units; 1 for images in [-1, 1].
        largest: Largest q.
        keep_eps: Keeps the noise estimate of the wrapped model, see `ClippedPrediction`.

    Raises:
        TypeError: If ``model`` is not a `Model`.
        ValueError: If ``quantile`` is outside [0, 1], ``bound`` is not positive and finite, or ``largest`` is below it.

    Source: Saharia et al. 2022 (Imagen), section 2.3; ``largest`` is diffusers' ``sample_max_value``.
    """

    def __init__(
        self,
        model: Model,
        quantile: float = 0.995,
        bound: float = 1.0,
        largest: float = math.inf,
        keep_eps: bool = False,
    ) -> None:
        super().__init__(model, keep_eps)
        check_arguments(DynamicThresholding, locals())
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], got {quantile!r}; 0.995 is usual.")
        check_positive(bound=bound)
        if not largest >= bound:
            raise ValueError(f"largest must be at least the bound, {bound!r}, got {largest!r}; inf is no limit.")
        self.quantile, self.bound, self.largest = float(quantile), float(bound), float(largest)

    def steer(self, x0: Tensor) -> Tensor:
        size = event_size(x0)
        if size == 0 or len(x0) == 0:
            return x0
        rank = self.quantile * (size - 1)
        count = size - math.floor(rank)
        # torch.quantile refuses large inputs and sorts all elements; topk sorts only those above the quantile
        largest = x0.abs().reshape(len(x0), size).topk(count, 1).values
        low, high = largest[:, count - 1], largest[:, max(count - 2, 0)]
        threshold = low.lerp(high, rank - math.floor(rank)).clamp(self.bound, self.largest)
        threshold = expand(threshold, x0)
        assert isinstance(threshold, Tensor)  # per-sample coefficients stay a tensor
        return x0.clamp(-threshold, threshold) * (self.bound / threshold)
