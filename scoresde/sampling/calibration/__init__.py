"""Calibration of samplers: times, orders and data moments fitted to a model by `calibrate`."""

from scoresde.sampling.calibration.calibrate import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
