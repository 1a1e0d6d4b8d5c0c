"""Data sets: readers of files, toys and Hugging Face, the split into train and test, and the description of the data.

`Description` is the only place where data are scaled.
"""

from __future__ import annotations

from scoresde.data.alphabets import Alphabet, Bytes, Characters, ClassNames
from scoresde.data.augment import Augment
from scoresde.data.conditions import (
    ClassCondition,
    ConditionKind,
    ImageCondition,
    TokenCondition,
    VectorCondition,
)
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.huggingface import load_huggingface
from scoresde.data.idx_files import read_idx
from scoresde.data.image_folder import load_images
from scoresde.data.numpy_files import load_file
from scoresde.data.sources import load_data
from scoresde.data.tables.frames import load_frame
from scoresde.data.tables.table_files import load_table
from scoresde.data.text_files import load_text

__all__ = [
    "Alphabet",
    "Augment",
    "Bytes",
    "Characters",
    "ClassCondition",
    "ClassNames",
    "ConditionKind",
    "Data",
    "Description",
    "ImageCondition",
    "TokenCondition",
    "VectorCondition",
    "load_data",
    "load_file",
    "load_frame",
    "load_huggingface",
    "load_images",
    "load_table",
    "load_text",
    "read_idx",
]
