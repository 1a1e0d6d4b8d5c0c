r"""Latents of an autoencoder: $x = (z - shift)\,scaling$ in model units, and images from them.

`decode_latents` turns samples of a latent model into images, and `encode_images` images into latents. Both take the
autoencoder as the pipeline folder, as its own folder, or as the module:

    opened = open_folder(folder)
    images = decode_latents(folder, sample(opened.model, 4, Adams(steps=20), text=embeddings))
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde.bridges.diffusers.layout import current_names, folder_weights, weights_file
from scoresde.bridges.opened import Finding
from scoresde.bridges.weights import fit, read_json
from scoresde.data import Description
from scoresde.sampling import Samples

__all__ = ["decode_latents", "encode_images", "latent_description", "open_autoencoder"]

_CLASSES = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
_DEFAULT_SCALING = 0.18215
_FILES = ("vae/config.json", "vqvae/config.json", "config.json")


def latent_description(vae: Path, shape: tuple[int, ...]) -> tuple[Description, Finding]:
    """Description of the latents: ``offset`` is the shift, ``scale`` one over ``scaling_factor``.

    Args:
        vae: The autoencoder's folder.
        shape: Event shape of the latents.
    """
    config = read_json(vae / "config.json")
    scaling, shift = _scaling(config)
    stated = "stated" if "scaling_factor" in config else "assumed"
    why = "scaling_factor in vae/config.json" if stated == "stated" else "the default of diffusers' AutoencoderKL"
    value = f"latents, x = (z - {shift:g}) {scaling:g}"
    data = Description("latents", shape, offset=shift, scale=1.0 / scaling)
    return data, Finding("range of the data", value, stated, why)


def _scaling(config: Mapping[str, Any]) -> tuple[float, float]:
    return float(config.get("scaling_factor") or _DEFAULT_SCALING), float(config.get("shift_factor") or 0.0)


def open_autoencoder(path: str | os.PathLike[str], variant: str | None = None) -> nn.Module:
    """The autoencoder of a pipeline folder, or of its own folder, with its weights, in evaluation mode.

    Args:
        path: The folder.
        variant: Variant of the weights, e.g. ``"fp16"``.

    Raises:
        ImportError: If diffusers is not installed.
        FileNotFoundError: If the folder holds none.
        ValueError: If its class is not one of diffusers' image autoencoders.
    """
    check_arguments(open_autoencoder, locals())
    path = Path(path)
    folder = next((path / name for name in _FILES if (path / name).is_file()), None)
    if folder is None:
        raise FileNotFoundError(f"{path} must hold an autoencoder, in a folder vae or as config.json, got none.")
    config = read_json(folder)
    name = config.get("_class_name")
    if name not in _CLASSES:
        raise ValueError(f"an autoencoder must be one of {', '.join(_CLASSES)}, got {name!r}; pass the module itself.")
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(
            "an autoencoder is built by diffusers, which is not installed; pip install 'scoresde[diffusers]', or pass "
            "the module itself."
        ) from error
    tensors = folder_weights(weights_file(folder.parent, variant)[0])
    with torch.random.fork_rng(devices=[]):
        vae = getattr(diffusers, name).from_config(config)
    fit(vae, current_names(tensors, vae))
    return vae.eval()


@contextmanager
def _in_float32(vae: nn.Module) -> Iterator[Tensor]:
    """One parameter of the autoencoder, which computes in float32 where it is float16, whose range it leaves."""
    half = {parameter.dtype for parameter in vae.parameters()} == {torch.float16}
    if half:
        vae.float()
    try:
        yield next(vae.parameters())
    finally:
        if half:
            vae.half()


def decode_latents(vae: nn.Module | str | os.PathLike[str], samples: Samples | Tensor) -> Tensor:
    """Images of latents, as bytes.

    Args:
        vae: The autoencoder, or the folder that holds it.
        samples: Of a latent model, or latents z as the autoencoder takes them, ``(B, C, h, w)``.

    Returns:
        Images, ``(B, 3, H, W)`` uint8, on the device of the latents.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If an image has values that are not finite.
    """
    check_arguments(decode_latents, locals())
    module = vae if isinstance(vae, nn.Module) else open_autoencoder(vae)
    latents = samples.data if isinstance(samples, Samples) else samples
    with torch.no_grad(), _in_float32(module) as weight:
        images = module.decode(latents.to(weight), return_dict=False)[0]  # pyright: ignore[reportCallIssue]
    if not bool(images.isfinite().all()):
        raise ValueError(
            f"images must be finite, got {int((~images.isfinite()).sum())} values that are not, of latents with "
            f"{int((~latents.isfinite()).sum())}; check the samples, or decode in float32: vae.float()."
        )
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).to(latents.device)


def encode_images(vae: nn.Module | str | os.PathLike[str], images: Tensor) -> Tensor:
    """Latents z of images, the mean of the autoencoder's distribution; ``Description.to_model`` scales them.

    Args:
        vae: The autoencoder, or the folder that holds it.
        images: Bytes, ``(B, 3, H, W)`` uint8.

    Returns:
        ``(B, C, h, w)``, in the type of the autoencoder; float32 where that is float16.

    Raises:
        TypeError: If the images are not bytes.
    """
    check_arguments(encode_images, locals())
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be bytes, got {images.dtype}; pass values 0 … 255 as torch.uint8.")
    module = vae if isinstance(vae, nn.Module) else open_autoencoder(vae)
    with torch.no_grad(), _in_float32(module) as weight:
        encoded = module.encode(images.to(weight) / 127.5 - 1.0)  # pyright: ignore[reportCallIssue]
    distribution = getattr(encoded, "latent_dist", None)
    return encoded.latents if distribution is None else distribution.mean
