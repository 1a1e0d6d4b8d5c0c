"""Data: where they come from, what they are, and the one place where they are scaled."""

from __future__ import annotations

from .augment import Augment
from .dataset import Data
from .description import Description
from .files import load_file
from .huggingface import load_huggingface
from .idx import read_idx
from .images import load_images
from .sources import load
from .tables import load_table

__all__ = [
    "Augment",
    "Data",
    "Description",
    "load",
    "load_file",
    "load_huggingface",
    "load_images",
    "load_table",
    "read_idx",
]
