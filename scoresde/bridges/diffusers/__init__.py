"""diffusers: its pipeline and model folders in.

`open_folder` makes a `ScoreModel` of a folder, with the scheduler's own sampler; `decode_latents` makes images of the
samples of a latent model.
"""

from scoresde.bridges.diffusers.folder import open_folder
from scoresde.bridges.diffusers.latents import decode_latents, encode_images, open_autoencoder
from scoresde.bridges.diffusers.layout import recognize

__all__ = ["decode_latents", "encode_images", "open_autoencoder", "open_folder", "recognize"]
