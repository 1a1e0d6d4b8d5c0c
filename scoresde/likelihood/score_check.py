"""The check that the field of a model is a score, without which it has no log-density."""

from __future__ import annotations

from collections.abc import Callable

from scoresde.model import Model, check_model
from scoresde.process.sde import SDE

__all__ = ["refuse_guided", "refuse_without_score"]


def refuse_without_score(function: Callable[..., object], model: Model) -> None:
    """Refuses a guided model whose field is not the score of the marginals of one process.

    Args:
        function: The function that was called.
        model: Its model.

    Raises:
        TypeError: If ``model`` is not a `Model`.
        ValueError: If it has a reason, see `Model.why_no_score`.
    """
    check_model(model)
    reason = model.why_no_score()
    if reason is not None:
        remedy = "pass the model without guidance, or with scale 1 at all times"
        if not isinstance(model.sde, SDE):
            remedy = "take continuous_vlb(), a bound on the log-probability"
        raise ValueError(
            f"{function.__name__} needs a model whose field is the score of a density, but {reason}; {remedy}."
        )


def refuse_guided(function: Callable[..., object], model: Model) -> None:
    """Refuses a guided model whose estimates are not those of one process; for categories, and for both kinds.

    Args:
        function: The function that was called.
        model: Its model.

    Raises:
        ValueError: If it has a reason, see `Model.why_guided`.
    """
    reason = model.why_guided()
    if reason is not None:
        raise ValueError(
            f"{function.__name__} needs a model of one process, but {reason}; pass the model without guidance."
        )
