"""Data: where they come from, what they are, and the one place where they are scaled."""

from __future__ import annotations

from scoresde.data.arrays import load_file
from scoresde.data.augment import Augment
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.huggingface import load_huggingface
from scoresde.data.idx import read_idx
from scoresde.data.image_folder import load_images
from scoresde.data.sources import load_data
from scoresde.data.tables import load_table

__all__ = [
    "Augment",
    "Data",
    "Description",
    "load_data",
    "load_file",
    "load_huggingface",
    "load_images",
    "load_table",
    "read_idx",
]
