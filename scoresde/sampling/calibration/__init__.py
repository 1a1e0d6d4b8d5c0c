"""Calibration of samplers: times, orders and data moments fitted to a model by `calibrate`."""

from scoresde.sampling.calibration.calibrate import calibrate
from scoresde.sampling.calibration.calibration import Calibration

__all__ = ["Calibration", "calibrate"]
