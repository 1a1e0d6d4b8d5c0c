"""Which features do papers print FID and KID with? Those of the Inception network of 2015, through torch-fidelity.

Its weights come from no package index and are not fetched here: download them once, from `WEIGHTS_URL`.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from scoresde.metrics.features import Features, rgb
from scoresde.metrics.torch_archive import read_tensors

__all__ = ["WEIGHTS_URL", "Inception"]

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""Where the weights (about 90 MB) can be had."""


class Inception(nn.Module):
    """The 2048 features of FID and KID, computed by torch-fidelity; images are resized to 299 as in TensorFlow 1.

    torch-fidelity unpickles the file it is given. So the file is read here without unpickling, and torch-fidelity is
    given what we wrote ourselves.

    Args:
        weights: The file from `WEIGHTS_URL`; ``None`` looks where torch keeps downloads (``torch.hub``).

    Raises:
        ImportError: If torch-fidelity, or the torchvision it imports, is not installed or does not fit this torch.
        FileNotFoundError: If there are no weights.
        ValueError: If the file is another.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        try:
            extractor = import_module("torch_fidelity.feature_extractor_inceptionv3")
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
            raise ImportError(
                f"Inception needs torch-fidelity and a torchvision built for this torch, got: {error}; install "
                "scoresde[inception], both from the index that torch came from, or use EfficientNetLite0."
            ) from error
        kept = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_URL.rpartition("/")[2]
        path = kept if weights is None else Path(weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"Inception's weights must be a file, got none at {path}. Download {WEIGHTS_URL} to {kept}, or pass "
                "its place; where that cannot be had, EfficientNetLite0 brings its weights."
            )
        with tempfile.TemporaryDirectory() as folder:
            ours = Path(folder) / "weights.pth"
            torch.save(read_tensors(path), ours)
            try:
                self.network: nn.Module = extractor.FeatureExtractorInceptionV3("inception", ["2048"], str(ours))
            except RuntimeError as error:
                raise ValueError(f"{path} must hold the weights from {WEIGHTS_URL}, got: {error}") from error

    def forward(self, images: Tensor) -> Features:
        """The pooled features, for moments and points alike.

        Args:
            images: uint8, ``(n, 1 or 3, H, W)``, levels 0 … 255.

        Returns:
            float32, ``(n, 2048)``: a Fréchet distance wants more images than that on either side.

        Raises:
            TypeError, ValueError: As for `EfficientNetLite0`.
        """
        (found,) = self.network(rgb(images).to(next(self.network.parameters()).device))
        return Features(found, found)
