r"""Classifier-free guidance: $\varepsilon = \varepsilon_{null} + w(\varepsilon_{cond} - \varepsilon_{null})$.

At each time it is the score of $p_{cond}^w\,p_{null}^{1-w}$. These densities are not the marginals of one process, so
for w other than 0 and 1 the samples follow neither the tilted density of the data nor one that is the same for two
samplers; `scoresde.inverse.Tilted` samples the tilted density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.elementwise import Scalar
from scoresde.guidance._wrapper import Entries
from scoresde.guidance.combination import Extrapolation, predict_together
from scoresde.model import Model
from scoresde.process.prediction import Prediction

__all__ = ["CFG"]

_SHARED = ("s", "observation")  # the end of a jump, the index of a `Posterior`: no conditions to strengthen


class CFG(Extrapolation):
    r"""Classifier-free guidance of a model with conditions.

    $\varepsilon = \varepsilon_{null} + w(\varepsilon_{cond} - \varepsilon_{null})$. With w = 1 it is the conditional
    model and with w = 0 the null model, and costs one evaluation. A learned variance (``mix``) is that of the
    conditional model.

    Args:
        model: Trained with its conditions and their null.
        scale: w, a number, or a tensor with one entry per sample, ``(B,)``.
        null: The null entry of conditions, by name, without a batch axis, such as ``{"label": 1000}``; for networks of
            other libraries. Default: the null with which the model was trained, see `Model.null_cond`.
        interval: OU times ``(tau_low, tau_high)`` outside of which the conditional model alone is used. With a number
            for τ the null model is then not evaluated; with a tensor both are, and the scale is 1 outside.
        rescale: φ in [0, 1]: the network's target is multiplied by $1 - \phi + \phi\,std_{cond}/std$, with the standard
            deviations over the elements of one sample. It counteracts the too large contrast of strong guidance.
        negative: Entries of conditions from which the guidance leads away, by name, in place of their null.
        names: Conditions that the guidance strengthens; the others are the same in both models. Default all.
        batched: One network call for a batch of twice the size; False makes two calls, at half the memory.

    Raises:
        TypeError: If ``model`` is not a `Model`, or the scale no number.
        ValueError: If a setting is out of range. When it is called: if it gets no condition, or the model has no null
            for one of them.

    Example:
        >>> import torch
        >>> from scoresde import CFG, MLP, VPSDE, Adams, ScoreModel, sample
        >>> from scoresde.nn import Classes
        >>> model = ScoreModel(MLP((2,), width=16, conditions={"label": Classes(3)}), VPSDE(), event_shape=(2,))
        >>> samples = sample(CFG(model, 3.0), 4, Adams(steps=10), label=torch.tensor([0, 1, 2, 2]))
        >>> samples.nfe
        20

    Source: Ho & Salimans 2022, with w = 1 + their w; Kynkäänniemi et al. 2024 (interval); Lin et al. 2024, section 3.4
    (rescale).
    """

    def __init__(
        self,
        model: Model,
        scale: float | Tensor,
        null: Mapping[str, Any] | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        negative: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
        batched: bool = True,
    ) -> None:
        super().__init__(model, interval, scale)
        check_arguments(CFG, locals())
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must lie in [0, 1], got {rescale!r}; 0.7 is usual, 0 leaves it out.")
        self._other = Entries(model, {**(null or {}), **(negative or {})})
        self.rescale, self.batched = float(rescale), batched
        self.names = None if names is None else tuple(names)

    @property
    def models(self) -> list[Model]:
        return [self.model, self.model]

    def estimates(self, x: Tensor, tau: Scalar, cond: Mapping[str, object], terms: list[int]) -> list[Prediction]:
        conditions = [cond if term == 0 else {**cond, **self._others(cond)} for term in terms]
        return predict_together(self.model, x, tau, conditions, self.batched)

    def _others(self, cond: Mapping[str, object]) -> dict[str, Tensor]:
        """The conditions that the guidance leads away from, one entry per sample."""
        guided = {name: value for name, value in cond.items() if isinstance(value, Tensor) and name not in _SHARED}
        if self.names is not None:
            guided = {name: value for name, value in guided.items() if name in self.names}
        if not guided:
            raise ValueError(
                f"classifier-free guidance needs a condition to strengthen, got {', '.join(cond) or 'none'}; pass it "
                "with the call, for example sample(CFG(model, 3.0), n, sampler, label=labels)."
            )
        given = {name: self._other.like(name, value) for name, value in guided.items() if name in self._other.names}
        rest = {name: value for name, value in guided.items() if name not in given}
        return given | (self.model.null_cond(rest) if rest else {})
