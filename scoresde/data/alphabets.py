"""Alphabets: what the classes 0 … C - 1 of a sequence stand for, and the text that a sequence of them writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.arrays import as_tensor

__all__ = ["Alphabet", "Bytes", "Characters", "ClassNames", "as_alphabet"]

_MOST_TEXT = 100_000  # characters of all classes; a checkpoint stores them in its description


class Alphabet(CheckedArguments, ABC):
    """What each class stands for. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """What each class stands for, C texts."""

    @property
    def count(self) -> int:
        """Number of classes C."""
        return len(self.symbols)

    @abstractmethod
    def encode(self, text: str, name: str = "the text") -> np.ndarray:
        """The codes of a text, ``(L,)``, ``uint8`` for up to 256 classes, else ``int64``.

        Args:
            text: A text.
            name: What it is, for the error.

        Raises:
            ValueError: If it holds a symbol that is none of the alphabet; names the first and its line.
        """

    @abstractmethod
    def decode(self, codes: np.ndarray) -> str:
        """The text that codes 0 … C - 1, ``(L,)``, write.

        Raises:
            ValueError: If they are no such integers, or have several axes.
        """


@dataclass(frozen=True)
class Characters(Alphabet):
    """Characters, one for each class; a text is their sequence.

    Args:
        characters: The characters, in the order of their codes.

    Raises:
        ValueError: If there are fewer than two, or one occurs twice.

    Example:
        >>> from scoresde.data import Characters
        >>> dna = Characters("ACGT")
        >>> dna.encode("GATTACA"), dna.decode(dna.encode("GATTACA"))
        (array([2, 0, 3, 3, 0, 1, 0], dtype=uint8), 'GATTACA')
    """

    characters: str

    def __post_init__(self) -> None:
        _check_symbols("characters", tuple(self.characters))

    @classmethod
    def of(cls, text: str) -> Characters:
        """The characters of a text, in the order of their code points.

        Raises:
            ValueError: If there are fewer than two different ones.
        """
        check_arguments(Characters.of, {"text": text})
        return cls("".join(sorted(set(text))))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The characters."""
        return tuple(self.characters)

    def encode(self, text: str, name: str = "the text") -> np.ndarray:
        """See `Alphabet.encode`."""
        check_arguments(Characters.encode, locals())
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        own = np.frombuffer(self.characters.encode("utf-32-le", "surrogatepass"), np.uint32)
        order = np.argsort(own)
        place = np.minimum(np.searchsorted(own[order], points), len(own) - 1)
        codes = order[place]
        unknown = np.flatnonzero(own[codes] != points)
        if len(unknown):
            first = int(unknown[0])
            raise ValueError(
                f"{name} must be written in the alphabet {_shortened(self.characters)}, got "
                f"{text[first]!r} in line {text.count(chr(10), 0, first) + 1} ({len(unknown)} characters outside it); "
                "leave such characters out, state one that stands for them (unknown=), or train with an alphabet= "
                "that has them."
            )
        return codes.astype(_code_type(self.count))

    def decode(self, codes: np.ndarray) -> str:
        """See `Alphabet.decode`."""
        codes = _integers(codes, self.count)
        return "".join(np.array(self.symbols)[codes].tolist())


@dataclass(frozen=True)
class Bytes(Alphabet):
    """The 256 bytes of UTF-8, for text of any characters."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The bytes as two hexadecimal digits."""
        return tuple(f"{byte:02x}" for byte in range(256))

    def encode(self, text: str, name: str = "the text") -> np.ndarray:
        """See `Alphabet.encode`; refuses nothing."""
        check_arguments(Bytes.encode, locals())
        return np.frombuffer(text.encode("utf-8"), np.uint8).copy()

    def decode(self, codes: np.ndarray) -> str:
        """See `Alphabet.decode`; bytes that are no UTF-8, as at the ends of a window, become U+FFFD."""
        codes = _integers(codes, self.count)
        return codes.astype(np.uint8).tobytes().decode("utf-8", "replace")


@dataclass(frozen=True)
class ClassNames(Alphabet):
    """Names of classes, such as ``("helix", "sheet", "coil")``; a text is a sequence of them with spaces between.

    Args:
        names: The names, in the order of their codes.

    Raises:
        ValueError: If there are fewer than two, one occurs twice, or one is empty or holds white space.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        _check_symbols("names", self.names)
        if bad := [name for name in self.names if name.split() != [name]]:
            raise ValueError(f"names must not be empty or hold white space, got {bad[0]!r}; write e.g. an underscore.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names."""
        return self.names

    def encode(self, text: str, name: str = "the text") -> np.ndarray:
        """See `Alphabet.encode`."""
        check_arguments(ClassNames.encode, locals())
        index, words = {name: i for i, name in enumerate(self.names)}, text.split()
        if unknown := [word for word in words if word not in index]:
            raise ValueError(
                f"{name} must hold names of classes, {_shortened(', '.join(self.names))}, got {unknown[0]!r} "
                f"({len(unknown)} words that are none); leave them out."
            )
        return np.array([index[word] for word in words], _code_type(self.count))

    def decode(self, codes: np.ndarray) -> str:
        """See `Alphabet.decode`."""
        codes = _integers(codes, self.count)
        return " ".join(self.names[code] for code in codes)


def as_alphabet(alphabet: str | Sequence[str] | Alphabet) -> Alphabet:
    """An alphabet as it is; a text as its characters; several texts as names, or as characters if each is one.

    Raises:
        TypeError: If ``alphabet`` is something else.
        ValueError: See `Characters` and `ClassNames`.
    """
    check_arguments(as_alphabet, locals())
    if isinstance(alphabet, Alphabet):
        return alphabet
    if isinstance(alphabet, str) or all(len(symbol) == 1 for symbol in alphabet):
        return Characters("".join(alphabet))
    return ClassNames(tuple(alphabet))


def _check_symbols(field: str, symbols: tuple[str, ...]) -> None:
    if len(symbols) < 2:
        raise ValueError(f"{field} must hold at least two classes, got {symbols!r}; a single one has nothing to learn.")
    if len(set(symbols)) < len(symbols):
        twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
        raise ValueError(f"{field} must be different, got {twice!r} twice; leave one out.")
    if sum(map(len, symbols)) > _MOST_TEXT:
        raise ValueError(
            f"{field} must have at most {_MOST_TEXT} characters in all, got {sum(map(len, symbols))}; a checkpoint "
            "stores them."
        )


def _integers(codes: np.ndarray, count: int) -> np.ndarray:
    tensor = as_tensor(codes, "codes")
    if tensor.is_meta or tensor.is_floating_point() or tensor.is_complex() or tensor.ndim != 1:
        raise ValueError(f"codes must be integers (L,), got {tensor.dtype}, shape {tuple(tensor.shape)}.")
    values = tensor.cpu().numpy().astype(np.int64)
    if len(values) and not 0 <= values.min() <= values.max() < count:
        raise ValueError(f"codes must lie in 0 … {count - 1}, got {values.min()} … {values.max()}.")
    return values


def _code_type(count: int) -> type:
    return np.uint8 if count <= 256 else np.int64


def _shortened(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:60]}… ({len(text)} characters)"
