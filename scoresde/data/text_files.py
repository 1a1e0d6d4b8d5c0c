"""Data from a text: windows of its characters or bytes, as sequences of categories ``(length,)``.

The last part of the text is held out, so that no window of one part shares a character with a window of the other.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde._core.suggest import unknown_name
from scoresde.data.alphabets import Alphabet, Bytes, Characters, as_alphabet
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.tables.text_layout import splits_into_rows

__all__ = ["PREFIX", "holds_prose", "load_text"]

PREFIX = "text:"
"""Before a path, reads a file of any suffix as text."""

_TOKENS = ("characters", "bytes")
_HEAD = 1 << 16  # bytes that tell prose from a table
_OVERLAP = 8  # windows for training that hold each character


def load_text(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    length: int = 64,
    stride: int | None = None,
    tokens: str = "characters",
    alphabet: str | Sequence[str] | None = None,
    unknown: str | None = None,
    lower: bool = False,
    encoding: str = "utf-8",
    like: Description | None = None,
) -> Data:
    """Reads a text, gzipped or not, as windows of ``length`` characters: sequences of categories.

    The first part of the text is for training, the last one is held out. Windows for training overlap each other;
    those that are held out do not. What is left at the end of a part is not used.

    Args:
        path: The file; ``text:`` before it is ignored.
        seed: Not used: the end of the text is held out, because windows beside each other are alike.
        test_fraction: Fraction of the text that is held out.
        length: Characters of a window.
        stride: Characters between the beginnings of two windows for training; default an eighth of ``length``.
        tokens: ``"characters"``, or ``"bytes"`` of UTF-8, 256 classes for any text.
        alphabet: The characters that may occur, in the order of their classes. None finds them in the whole text.
        unknown: A character of ``alphabet`` that stands for those outside it; None refuses them.
        lower: Whether to turn capital letters into small ones.
        encoding: Of the file.
        like: Description of an earlier text, whose window, alphabet and tokens this one gets.

    Returns:
        Data in data units, ``uint8`` for up to 256 classes, with their alphabet in the description.

    Raises:
        FileNotFoundError, IsADirectoryError: If there is no such file.
        ValueError: If the file has another encoding, the text is too short for a window in each part, or a character
            is outside the alphabet; the message has the option that helps.

    Example:
        >>> import tempfile, scoresde as sd
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("the quick brown fox jumps over the lazy dog. " * 20)
        ...     file.flush()
        ...     data = sd.load_data(file.name, length=16)
        >>> data.train.shape, data.test.shape, data.description.classes
        (torch.Size([353, 16]), torch.Size([11, 16]), 28)
        >>> data.description.texts(data.train[:1])
        ['the quick brown ']
    """
    del seed
    check_arguments(load_text, {key: value for key, value in locals().items() if key != "alphabet"})
    path = Path(str(path).removeprefix(PREFIX))
    if like is not None:
        length, tokens = like.shape[0], "bytes" if isinstance(like.alphabet, Bytes) else "characters"
    if tokens not in _TOKENS:
        raise ValueError(unknown_name("tokens", tokens, _TOKENS))
    check_integer("length", length, 2)
    stride = max(1, length // _OVERLAP) if stride is None else stride
    check_integer("stride", stride)
    text = _read(path, encoding)
    text = text.lower() if lower else text
    stated = alphabet if like is None else like.alphabet
    codes, symbols = _codes(text, path, tokens, stated, unknown)
    train, test = _parts(codes, path, length, test_fraction)
    description = Description(path.stem, (length,), alphabet=symbols)
    held_out = test.unfold(0, length, length) if len(test) else test.reshape(0, length)
    return Data(train.unfold(0, length, stride), held_out, description)


def holds_prose(path: Path) -> bool:
    """Whether a ``.txt`` file holds a text rather than a table: mostly letters, which no delimiter splits alike."""
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
        head = head if len(head) < _HEAD // 2 else head[: head.rfind("\n") + 1] or head  # without a part of a line
    except (OSError, EOFError, zlib.error):
        return False  # the reader of tables says what is wrong
    visible = [character for character in head if not character.isspace()]
    letters = sum(character.isalpha() for character in visible)
    return 2 * letters > len(visible) and not splits_into_rows(head)


def _read(path: Path, encoding: str) -> str:
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            raw = file.read()
        return raw.decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"a text is one file, got the folder {path}; name a file in it.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a complete gzip file, got: {error}; pack it again.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be text in the encoding {encoding}, got the byte {raw[error.start]:#04x} at position "
            f"{error.start}; state its own, such as encoding=latin-1."
        ) from error
    except LookupError as error:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}; utf-8 is usual.") from error


def _codes(
    text: str, path: Path, tokens: str, alphabet: str | Sequence[str] | Alphabet | None, unknown: str | None
) -> tuple[Tensor, Alphabet]:
    """The codes of a text, ``(T,)``, and their alphabet."""
    if tokens == "bytes":
        if unknown is not None or (alphabet is not None and not isinstance(alphabet, Bytes)):
            raise ValueError('tokens="bytes" has an alphabet of its own, got alphabet= or unknown= too; leave it out.')
        return torch.from_numpy(Bytes().encode(text)), Bytes()
    if len(set(text)) < 2:
        raise ValueError(f"a text must have at least two different characters, {path} has {len(set(text))}.")
    symbols = Characters.of(text) if alphabet is None else as_alphabet(alphabet)
    if not isinstance(symbols, Characters):
        raise ValueError(f"the alphabet of a text must be characters, got {symbols.symbols[:3]}; pass one text.")
    if unknown is not None:
        if unknown not in symbols.symbols or alphabet is None:
            raise ValueError(
                f"unknown must be a character of alphabet=, got {unknown!r} with "
                f"{'no alphabet' if alphabet is None else repr(symbols.characters)}; add it there."
            )
        outside = set(text) - set(symbols.characters)
        text = text.translate({ord(character): unknown for character in outside})
    return torch.from_numpy(symbols.encode(text, f"the text {path}")), symbols


def _parts(codes: Tensor, path: Path, length: int, test_fraction: float) -> tuple[Tensor, Tensor]:
    """The codes for training and those that are held out, at least one window of each unless none is held out."""
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must lie in [0, 1), got {test_fraction}; 0.2 is usual.")
    held_out = math.ceil(test_fraction * len(codes))
    held_out = max(held_out, length) if held_out else 0
    train = len(codes) - held_out
    if train < length:
        raise ValueError(
            f"a text must hold a window of length={length} for training{' and one held out' if held_out else ''}, "
            f"{path} has {len(codes)} characters; lower length=, or take a longer text."
        )
    return codes[:train], codes[train:]
