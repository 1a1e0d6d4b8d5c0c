r"""`TeacherLast`: a student whose last call is its teacher's: a DDIM step from a small angle to the end of sampling.

Near the data the teacher's step is nearly exact, so it brings samples that a student left beside a mode back into it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde.distillation.flow_map import FlowMap
from scoresde.model import Model, check_model
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["TeacherLast"]


class TeacherLast(Model):
    """The jumps of a student of fixed jumps, which end before the data, and one step of its teacher.

    Args:
        student: Trained for jumps from ``tau_max`` to a small τ above ``tau_min``.
        teacher: Its teacher.

    Raises:
        TypeError: If an argument has another class.
        ValueError: If the student has no fixed jumps, or they end at ``tau_min``.
    """

    def __init__(self, student: FlowMap, teacher: Model) -> None:
        super().__init__()
        check_kind("student", student, FlowMap)
        check_model(teacher)
        times, end = student.jump_times or (), teacher.sde.tau_min
        if not times or times[-1] <= end:
            raise ValueError(
                f"a last call of the teacher needs a student of fixed jumps that end above tau_min = {end:.6g}, got "
                f"jumps between {times}; train one by distill(model, calls=2, last_call=True)."
            )
        self.student, self.teacher = student, teacher
        self.sde, self.event_shape, self.data = teacher.sde, teacher.event_shape, teacher.data
        self.jump_times = (*times, end)
        self.cost = max(student.cost, teacher.cost)
        self._last = times[-1]

    def null_cond(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.teacher.null_cond(cond)

    def predict(self, x: Tensor, tau: Scalar, *, s: Scalar | None = None, **cond: object) -> Prediction:
        """The student's prediction of a jump; of the last jump the teacher's at ``tau``, with w = v."""
        if isinstance(tau, float) and s is not None and math.isclose(tau, self._last, rel_tol=1e-6):
            return GaussianPrediction(x, tau, self.teacher.predict(x, tau, **cond).v, V())
        return self.student.predict(x, tau, s=s, **cond)
