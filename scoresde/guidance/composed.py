r"""Composition of conditions: $\varepsilon = \varepsilon_{null} + \sum_i w_i(\varepsilon_i - \varepsilon_{null})$."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.elementwise import Scalar
from scoresde.guidance._wrapper import Entries, Scales, reader_with
from scoresde.guidance.combination import Combination, predict_together
from scoresde.model import Model
from scoresde.process.prediction import Prediction

__all__ = ["Composed"]


class Composed(Combination):
    r"""Several conditions, each with a scale: $\varepsilon_{null} + \sum_i w_i(\varepsilon_i - \varepsilon_{null})$.

    In term i condition i is set and the other ones are null. At each time it is the score of
    $p_{null}\prod_i(p_i/p_{null})^{w_i}$: with $w_i = 1$ that of all conditions together if they are independent given
    the noisy state. A negative scale leads away from a condition. A condition with the scale 0 costs nothing.

    Args:
        model: Trained with these conditions, and their null.
        scale: The scale of each condition, by the keyword of the call: a number, or a tensor ``(B,)``. Other keywords
            of the call are the same in all terms.
        reads: The network's name of a keyword, where it is another one. Two keywords may have the same, such as
            ``{"second": "label"}`` for two classes at once.
        null: The null entry of conditions, by the network's name; see `CFG`.
        interval: OU times ``(tau_low, tau_high)`` outside of which all scales are 1.
        batched: One network call for all terms; False makes one call for each.

    Raises:
        TypeError: If ``model`` is not a `Model`, or a scale no number.
        ValueError: If there is no scale. When it is called: if one of the conditions is missing, or the model has no
            null for one.

    Example:
        >>> import torch
        >>> from scoresde import MLP, VPSDE, Adams, Composed, ScoreModel, sample
        >>> from scoresde.nn import Classes
        >>> model = ScoreModel(MLP((2,), width=16, conditions={"label": Classes(3)}), VPSDE(), event_shape=(2,))
        >>> both = Composed(model, {"label": 2.0, "second": 1.0}, reads={"second": "label"})
        >>> first, second = torch.tensor([0, 0]), torch.tensor([1, 2])
        >>> sample(both, 2, Adams(steps=10), label=first, second=second).nfe
        30

    Source: Liu et al. 2022, "Compositional visual generation with composable diffusion models", eq. 12.
    """

    def __init__(
        self,
        model: Model,
        scale: Mapping[str, float | Tensor],
        reads: Mapping[str, str] | None = None,
        null: Mapping[str, Any] | None = None,
        interval: tuple[float, float] | None = None,
        batched: bool = True,
    ) -> None:
        super().__init__(model, interval)
        check_arguments(Composed, locals())
        if not scale:
            raise ValueError("Composed needs the scale of each condition, got none; write {'label': 2.0, 'text': 1.0}.")
        self._keywords, self._reads = tuple(scale), dict(reads or {})
        if unknown := sorted(set(self._reads) - set(scale)):
            raise ValueError(f"reads must name conditions with a scale, {', '.join(scale)}, got {', '.join(unknown)}.")
        self._scales, self._null, self.batched = Scales(model, scale), Entries(model, null or {}), batched

    def cond_reader(self) -> Callable[..., object]:
        return reader_with(super().cond_reader(), self._keywords)

    @property
    def scale(self) -> dict[str, float | Tensor]:
        """The scale of each condition."""
        return {keyword: self._scales[keyword] for keyword in self._keywords}

    @property
    def coefficients(self) -> list[Scalar]:
        scales = [self._scales[keyword] for keyword in self._keywords]
        rest: Scalar = 1.0
        for scale in scales:
            rest = rest - scale
        if isinstance(rest, float) and abs(rest) < 1e-12:  # scales such as 0.7 and 0.3: the null is not evaluated
            rest = 0.0
        return [*scales, rest]

    @property
    def unguided(self) -> list[float]:
        count = len(self._keywords)
        return [1.0] * count + [1.0 - count]

    @property
    def models(self) -> list[Model]:
        return [self.model] * (len(self._keywords) + 1)

    def estimates(self, x: Tensor, tau: Scalar, cond: Mapping[str, object], terms: list[int]) -> list[Prediction]:
        shared = {name: value for name, value in cond.items() if name not in self._keywords}
        given = {keyword: self._condition(keyword, cond) for keyword in self._keywords}
        nulls = self._nulls({self._reads.get(keyword, keyword): value for keyword, value in given.items()})
        conditions: list[dict[str, object]] = []
        for term in terms:
            conditions.append({**shared, **nulls})
            if term < len(self._keywords):
                keyword = self._keywords[term]
                conditions[-1][self._reads.get(keyword, keyword)] = given[keyword]
        return predict_together(self.model, x, tau, conditions, self.batched)

    def _condition(self, keyword: str, cond: Mapping[str, object]) -> Tensor:
        value = cond.get(keyword)
        if not isinstance(value, Tensor):
            raise ValueError(
                f"Composed needs each of its conditions, {', '.join(self._keywords)}, got no tensor for {keyword}; "
                "pass one entry per sample."
            )
        return value

    def _nulls(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        given = {name: self._null.like(name, value) for name, value in values.items() if name in self._null.names}
        rest = {name: value for name, value in values.items() if name not in given}
        return given | (self.model.null_cond(rest) if rest else {})
