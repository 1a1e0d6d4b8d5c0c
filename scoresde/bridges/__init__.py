"""Bridges: models of other code bases in, models and samplers of this package out; one module per origin.

`load` opens any of them in one line, `open_model` also says what was found and what was assumed, `save_opened` writes a
run. `diffusers` has the way out to its pipelines, `export` to torch.export and ONNX, `hub` to Hugging Face's hub, and
`k_diffusion_sampler` to loops in the style of k-diffusion. No module imports the other package before it is needed.
"""

from scoresde.bridges import (
    azula,
    diffusers,
    edm,
    export,
    guided_diffusion,
    hub,
    k_diffusion,
    k_diffusion_sampler,
    lucidrains,
    score_sde,
)
from scoresde.bridges.load import ORIGINS, load, open_model
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.saving import save_opened

__all__ = [
    "ORIGINS",
    "Finding",
    "Opened",
    "azula",
    "diffusers",
    "edm",
    "export",
    "guided_diffusion",
    "hub",
    "k_diffusion",
    "k_diffusion_sampler",
    "load",
    "lucidrains",
    "open_model",
    "save_opened",
    "score_sde",
]
