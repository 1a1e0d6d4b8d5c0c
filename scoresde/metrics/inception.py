"""Inception features of FID and KID as papers report them, computed by torch-fidelity from the weights of 2015.

The weights are on no package index, and this module does not download them: get them once from `WEIGHTS_URL`.

Source: Szegedy et al. 2016 (Inception v3); Heusel et al. 2017 (FID); torch-fidelity.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from scoresde._core.annotations import CheckedArguments
from scoresde.metrics.features import Features, rgb
from scoresde.metrics.torch_archive import read_tensors

__all__ = ["WEIGHTS_URL", "Inception"]

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""Address of the weights (about 90 MB)."""


class Inception(CheckedArguments, nn.Module):
    """The 2048 features of FID and KID, computed by torch-fidelity; images are resized to 299 as in TensorFlow 1.

    torch-fidelity unpickles the file of weights. Therefore this class first reads the file without unpickling, and
    passes a file that it has written itself to torch-fidelity.

    Args:
        weights: The file from `WEIGHTS_URL`; ``None`` looks in the download folder of ``torch.hub``.

    Raises:
        ImportError: If torch-fidelity, or the torchvision it imports, is not installed or does not fit this torch.
        FileNotFoundError: If there is no file of weights.
        ValueError: If the file does not hold these weights.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        try:
            extractor = import_module("torch_fidelity.feature_extractor_inceptionv3")
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
            raise ImportError(
                f"Inception needs torch-fidelity and a torchvision built for this torch, got: {error}; install "
                "scoresde[inception], both from the index of torch, or use EfficientNetLite0."
            ) from error
        default = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_URL.rpartition("/")[2]
        path = default if weights is None else Path(weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"Inception's weights must be a file, got none at {path}. Download {WEIGHTS_URL} to {default}, or pass "
                "its path; without access to it, use EfficientNetLite0, whose weights are in a package."
            )
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "weights.pth"
            torch.save(read_tensors(path), copy)
            try:
                self.network: nn.Module = extractor.FeatureExtractorInceptionV3("inception", ["2048"], str(copy))
            except RuntimeError as error:
                raise ValueError(f"{path} must hold the weights from {WEIGHTS_URL}, got: {error}") from error

    def forward(self, images: Tensor) -> Features:
        """The pooled features, both for moments and for points.

        Args:
            images: uint8, ``(n, 1 or 3, H, W)``, values 0 … 255.

        Returns:
            float32, ``(n, 2048)``. A Fréchet distance needs more images than that in each set.

        Raises:
            TypeError, ValueError: As for `EfficientNetLite0`.
        """
        (features,) = self.network(rgb(images).to(next(self.network.parameters()).device))
        return Features(features, features)
