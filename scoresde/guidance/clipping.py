r"""How is a model's answer steered? By wrapping it: a guidance is a model again, whose data estimate is another.

From the steered $\hat x_0$ all else follows: $\hat\varepsilon = (x - \alpha\hat x_0)/\sigma$, score and v. Here it is
kept in the data's range, in model units (`Description.to_model`), which in every view are the coordinates at τ = 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import expand
from scoresde.model import Model, check_model, event_size
from scoresde.process.parameterization import X0, Prediction

__all__ = ["Clipping", "Guided", "DynamicThresholding"]


class Guided(Model, ABC):
    """A model with another data estimate; process, event shape, data and conditioning are the wrapped model's.

    A learned variance (``mix``) is passed on as it is. A subclass gives `steer`.

    Args:
        model: The wrapped model.

    Raises:
        TypeError: If ``model`` is none.
    """

    def __init__(self, model: Model) -> None:
        check_model(model)
        super().__init__()
        self.model = model
        self.sde, self.event_shape, self.data = model.sde, model.event_shape, model.data

    @abstractmethod
    def steer(self, x0: Tensor) -> Tensor:
        """The data estimate to go on with, ``(B, *D)``, from the model's, ``(B, *D)``; both in model units."""

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        """As the call, for checked arguments: one call of the model."""
        found = self.model.predict(x, tau, **cond)
        return Prediction(x, tau, self.steer(found.x0), X0(), found.mix)


class Clipping(Guided):
    r"""$\hat x_0$ clipped element by element; its gradient is 0 where it was clipped.

    The posterior mean of data in the range lies in it, so an exact model stays as it is (but for rounding, which in
    $\hat\varepsilon$ is that of $\hat x_0$ over σ); a network's error is cut where it cannot be right.

    Args:
        model: The wrapped model.
        low, high: The range in model units; infinite where there is no bound.

    Raises:
        ValueError: If ``low`` is not below ``high``.

    Source: Ho, Jain & Abbeel 2020 (their code's ``clip_denoised``).
    """

    def __init__(self, model: Model, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(model)
        if not low < high:
            raise ValueError(f"low must lie below high, got low = {low!r} and high = {high!r}.")
        self.low, self.high = float(low), float(high)

    def steer(self, x0: Tensor) -> Tensor:
        """See the class."""
        return x0.clamp(self.low, self.high)


class DynamicThresholding(Guided):
    r"""Dynamic thresholding: $\hat x_0$ clipped to $[-q, q]$ and scaled by bound/q, with q not below ``bound``.

    q is a quantile of $|\hat x_0|$ over the elements of each sample for itself, linearly interpolated. Elements then do
    not stick to the bound under strong guidance. For data that fill [-bound, bound], as images do; not for latents.

    Args:
        model: The wrapped model.
        quantile: In [0, 1]; 1 only scales.
        bound: Half width of the data's range in model units.

    Raises:
        ValueError: If ``quantile`` is outside [0, 1], or ``bound`` not positive and finite.

    Source: Saharia et al. 2022 (Imagen), section 2.3.
    """

    def __init__(self, model: Model, quantile: float = 0.995, bound: float = 1.0) -> None:
        super().__init__(model)
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], got {quantile!r}; 0.995 is usual.")
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite, got {bound!r}; 1 for images in [-1, 1].")
        self.quantile, self.bound = float(quantile), float(bound)

    def steer(self, x0: Tensor) -> Tensor:
        """See the class."""
        size = event_size(x0)
        if size == 0 or len(x0) == 0:
            return x0
        rank = self.quantile * (size - 1)
        above = size - math.floor(rank)
        # not torch.quantile, which refuses large inputs; only what lies above is sorted
        largest = x0.abs().reshape(len(x0), size).topk(above, 1).values
        low, high = largest[:, above - 1], largest[:, max(above - 2, 0)]
        limit = low.lerp(high, rank - math.floor(rank)).clamp(min=self.bound)
        limit = expand(limit, x0)
        assert isinstance(limit, Tensor)  # per-sample coefficients stay a tensor
        return x0.clamp(-limit, limit) * (self.bound / limit)
