r"""Units of distances: model units, in which a category is the indicators of its classes.

A code has no distance to another, so the categories of a table are one-hot entries of variance 1 on average, as a
Gaussian process takes them, and those of other data are indicators; bits are one number.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from scoresde.data import Description
from scoresde.evaluation.model_units import in_model_units

__all__ = ["from_distance_units", "in_distance_units", "one_hot_description"]

_MOST = 1 << 14  # indicators of an event: a Gaussian of them has a covariance of two gigabytes


def one_hot_description(description: Description) -> Description:
    """The description of a table with one-hot categories in place of codes; any other as it is."""
    if description.encoding is None or not description.encoding.codes:
        return description
    return replace(description, encoding=replace(description.encoding, codes=False))


def in_distance_units(y: Tensor, description: Description) -> Tensor:
    """Data in units of distances, without random numbers: integer values become the centers of their bins.

    Args:
        y: Data units, ``(n, *D)``.
        description: Description of the data.

    Returns:
        Model units, ``(n, *E)``; of C > 2 classes indicators, ``(n, *D, C)``.

    Raises:
        ValueError: If events have too many indicators.
    """
    if description.classes is None:
        return in_model_units(one_hot_description(description), y)
    if description.classes == 2:
        return y.to(torch.get_default_dtype())
    if description.dims * description.classes > _MOST:
        raise ValueError(
            f"distances between categories need events of at most {_MOST} indicators, got {description.dims} entries "
            f"of {description.classes} classes; compare bounds: scoresde likelihood RUN --bound."
        )
    return F.one_hot(y.long(), description.classes).to(torch.get_default_dtype())


def from_distance_units(x: Tensor, description: Description) -> Tensor:
    """The data that are nearest to points in units of distances, ``(n, *E)`` to data units ``(n, *D)``."""
    if description.classes is None:
        return one_hot_description(description).to_data(x)
    return (x > 0.5).long() if description.classes == 2 else x.argmax(-1)
