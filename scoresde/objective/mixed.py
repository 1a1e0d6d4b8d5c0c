r"""The loss of events of numbers and categories: $\lambda\,\|\hat\varepsilon - \varepsilon\|^2$ plus the path KL.

Both are taken at one timestep, state and network call. With λ of `ELBO` their sum is the integrand of one bound on
$-\log p(x_0)$: numbers enter as densities, categories as probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scoresde._core.tensors import has_values, widest_dtype
from scoresde.model import Model
from scoresde.objective.base import Objective
from scoresde.objective.discrete import CrossEntropy, PathKL
from scoresde.objective.loss import check_weighting, output_error, weight_at
from scoresde.objective.timesteps import ImportanceTimesteps, TimestepDraw, Timesteps
from scoresde.objective.weighting import ELBO, Weighting
from scoresde.process.base import Marginal, Process
from scoresde.process.mixed import Mixed, MixedPrediction

__all__ = ["MixedLoss"]


@dataclass(frozen=True)
class MixedLoss(Objective):
    r"""$c\,(\lambda\,\|\hat\varepsilon - \varepsilon\|^2 + \lambda_c\,\ell(x_0))$ with ℓ the path KL of the categories.

    Args:
        weighting: λ of the numbers.
        timesteps: How u is drawn, for numbers and categories at once; c is the draw's correction.
        categorical: The loss of the categories with its own λ. Its timesteps are not used, so they must be those that
            it has by default.

    Raises:
        ValueError: If ``categorical`` states timesteps.

    Example:
        >>> import torch
        >>> from scoresde.nn import MLP, MixedNet
        >>> from scoresde.objective import MixedLoss
        >>> from scoresde.process import VPSDE, Categorical, Mixed
        >>> from scoresde import ScoreModel
        >>> net = MixedNet(MLP(MixedNet.inner_shape(2, (3,)), width=16), numbers=2, classes=(3,))
        >>> model = ScoreModel(net, Mixed(VPSDE(), Categorical((3,))))
        >>> MixedLoss()(model, torch.tensor([[0.3, -1.0, 2.0]])).shape
        torch.Size([1])

    Source: Sohl-Dickstein et al. 2015 (both kernels); Kingma et al. 2021 and Campbell et al. 2022 (the two terms).
    """

    process_kind: ClassVar[type[Process]] = Mixed

    weighting: Weighting = ELBO()
    timesteps: Timesteps = ImportanceTimesteps(ELBO())
    categorical: PathKL | CrossEntropy = PathKL()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.categorical.timesteps != type(self.categorical).timesteps:
            raise ValueError(
                f"numbers and categories have one timestep, so categorical must not state its own, got "
                f"{self.categorical}; state timesteps of MixedLoss."
            )

    def checked_events(self, model: Model, x0: Tensor, observed: Tensor | None) -> Tensor:
        assert isinstance(model.sde, Mixed)
        x0 = super().checked_events(model, x0, observed)
        codes = model.sde.split(x0 if observed is None else x0.where(observed, 0.0))[1]
        model.sde.categorical.check_codes(codes, "x0", model.sde.categorical.most_classes)
        return x0

    def at(
        self,
        model: Model,
        x0: Tensor,
        draw: TimestepDraw,
        noise: Tensor,
        *,
        observed: Tensor | None = None,
        **cond: object,
    ) -> Tensor:
        process = model.sde
        assert isinstance(process, Mixed)
        if has_values(x0):
            check_weighting(self.weighting, self.timesteps, process)
            check_weighting(self.categorical.weighting, self.timesteps, process)
        u = draw.u.clamp(max=self.categorical.last_u)
        m = Marginal(process.schedule._tau(u), process.schedule._rate(u), draw.s)
        if observed is not None:
            x0, cond = x0.where(observed, 0.0), {**cond, "observed": observed}
        x = process.perturb(x0, m.tau, noise)
        x = x if observed is None else x.where(observed, 0.0)
        prediction = model(x, m.tau, **cond)
        assert isinstance(prediction, MixedPrediction)
        (numbers, codes), eps = process.split(x0), process.split(noise)[0].to(x0.dtype)
        seen, known = (None, None) if observed is None else process.split(observed)
        error, factor = output_error(prediction.continuous, numbers, eps, m, seen)
        weight, wide = weight_at(self.weighting, m, u), widest_dtype(x0.device)
        total = weight * (factor * factor) * error.square().sum(1, dtype=wide)
        losses = self.categorical.entry_losses(prediction.categorical, codes, m)
        losses = losses if known is None else losses.where(known, 0.0)
        total = total + weight_at(self.categorical.weighting, m, u) * losses.flatten(1).sum(1, dtype=wide)
        return draw.correction * total
