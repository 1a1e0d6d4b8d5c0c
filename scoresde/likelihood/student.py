r"""Half the width of a confidence interval by Student's t: $t_{(1 + level)/2}(dof)\,stderr$."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.checks import check_level

__all__ = ["student_half_width"]


def student_half_width(stderr: Tensor, dof: Tensor, level: float) -> Tensor:
    """Half the width of a confidence interval by Student's t, the shape of ``stderr``; NaN if an input is NaN.

    Args:
        stderr: Standard errors.
        dof: Their degrees of freedom, the same shape.
        level: In (0, 1).

    Raises:
        ValueError: If the level is not in (0, 1).
    """
    from scipy import stats  # imported here because it takes a second

    check_level(level)
    return torch.as_tensor(stats.t.ppf(0.5 + level / 2, dof.cpu().numpy())).to(stderr) * stderr
