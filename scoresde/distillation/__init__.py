"""Distillation: few-step students, models that jump along the probability flow in one to four network calls."""

from scoresde.distillation.average_velocity import AverageVelocity
from scoresde.distillation.comparison import StudentComparison
from scoresde.distillation.distill import Distillation, distill
from scoresde.distillation.flow_map import FlowMap
from scoresde.distillation.loss import JumpLoss
from scoresde.distillation.storage import load_student, save_student
from scoresde.distillation.targets import Eulerian, Semigroup, Target, Trajectory
from scoresde.distillation.teacher_last import TeacherLast

__all__ = [
    "AverageVelocity",
    "StudentComparison",
    "Distillation",
    "Eulerian",
    "FlowMap",
    "JumpLoss",
    "Semigroup",
    "Target",
    "TeacherLast",
    "Trajectory",
    "distill",
    "load_student",
    "save_student",
]
