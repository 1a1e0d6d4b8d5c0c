"""How is a sampler fitted to a model? By `calibrate`: several ways, their times by descent and search, from noises."""

from scoresde.sampling.calibration.calibrate import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
