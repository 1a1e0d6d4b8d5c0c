"""Bridge to diffusers: it opens pipeline and model folders, saves models, and puts samplers into pipelines.

`open_folder` makes a `ScoreModel` of a folder, with the scheduler's own sampler; `decode_latents` makes images of the
samples of a latent model. `Scheduler` puts a sampler into a pipeline, and `save` writes a model as a pipeline folder.
"""

from scoresde.bridges.diffusers.folder import open_folder
from scoresde.bridges.diffusers.latents import decode_latents, encode_images, open_autoencoder
from scoresde.bridges.diffusers.layout import recognize
from scoresde.bridges.diffusers.save import save
from scoresde.bridges.diffusers.scheduler import Scheduler

__all__ = ["Scheduler", "decode_latents", "encode_images", "open_autoencoder", "open_folder", "recognize", "save"]
