"""Inverse problems, editing and imputation: what needs an observation and a sampler."""

from __future__ import annotations

from scoresde.inverse.base import PosteriorContext, PosteriorSampler
from scoresde.inverse.bridge_smc import BridgeSMC
from scoresde.inverse.daps import DAPS
from scoresde.inverse.edit import Edited, edit
from scoresde.inverse.fps_smc import FPSSMC
from scoresde.inverse.impute import Imputed, impute
from scoresde.inverse.inpaint import Inpainted, inpaint
from scoresde.inverse.interpolate import LatentPath, interpolate
from scoresde.inverse.isotropic_twist import IsotropicTwist
from scoresde.inverse.jacobian_twist import JacobianTwist
from scoresde.inverse.latent import decode, encode
from scoresde.inverse.posterior_samples import PosteriorSamples
from scoresde.inverse.repaint import RePaint
from scoresde.inverse.replacement import Replacement
from scoresde.inverse.sample_posterior import sample_posterior
from scoresde.inverse.tilted import Tilted
from scoresde.inverse.tilted_samples import TiltedSamples
from scoresde.inverse.twisted_smc import TwistedSMC
from scoresde.inverse.twists import Twist

__all__ = [
    "DAPS",
    "Edited",
    "FPSSMC",
    "Imputed",
    "Inpainted",
    "IsotropicTwist",
    "JacobianTwist",
    "LatentPath",
    "PosteriorContext",
    "PosteriorSampler",
    "PosteriorSamples",
    "RePaint",
    "Replacement",
    "BridgeSMC",
    "Tilted",
    "TiltedSamples",
    "Twist",
    "TwistedSMC",
    "decode",
    "edit",
    "encode",
    "impute",
    "inpaint",
    "interpolate",
    "sample_posterior",
]
