"""How does text become an object? By `scoresde.storage.spec`, from the package's own classes of the kind that is asked for."""

from __future__ import annotations

import dataclasses
import re
import tempfile
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scoresde.storage import spec

if TYPE_CHECKING:
    from scoresde.data import Data
    from scoresde.model import ScoreModel
    from scoresde.storage.checkpoint import Checkpoint

__all__ = [
    "chosen_device",
    "families",
    "known",
    "load_data",
    "load_model",
    "parse",
    "parse_network",
    "check_writable",
    "atomic_output",
]

_T = TypeVar("_T")


def check_writable(out: Path | None, option: str = "--out") -> None:
    """Makes the folder for an output, named by an option, and tries to write there, before any work is done.

    Raises:
        OSError: If there can be none, nothing can be written there, or the output is a folder itself.
    """
    if out is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise OSError(
            f"{option} needs a folder to write to, {out.parent} is none ({error.strerror}); choose another."
        ) from error
    if out.is_dir():
        raise IsADirectoryError(f"{option} must name a file, {out} is a folder; choose a name inside of it.")


@contextmanager
def atomic_output(out: Path) -> Iterator[Path]:
    """Where to write an output, in its folder: under its name once it is whole; what was there stays until then.

    Raises:
        OSError: If it cannot be written.
    """
    from scoresde._core.atomic import atomic_file

    try:
        with atomic_file(out) as part:
            yield part
    except OSError as error:
        raise OSError(
            f"{out} must be writable, got: {error.strerror or error}; free or choose another place. What was there is "
            "as it was."
        ) from error


def families() -> dict[str, type]:
    """Where a setting is written -> its base class; whatever inherits from the class is found."""
    from torch import nn

    from scoresde import data, likelihood, sampling
    from scoresde.objective import timesteps, weighting
    from scoresde.process import parameterization, schedule, sde

    return {
        "--sampler": sampling.Sampler,
        "  grid=": sampling.Grid,
        "--weighting": weighting.Weighting,
        "--timesteps": timesteps.Timesteps,
        "--schedule": schedule.Schedule,
        "--process": sde.SDE,
        "--parameterization": parameterization.Parameterization,
        "--network": nn.Module,
        "--augment": data.Augment,
        "--trace": likelihood.Trace,
        "--dequantization": likelihood.Dequantization,
    }


def _modules() -> tuple[types.ModuleType, ...]:
    from scoresde import data, likelihood, nn, sampling
    from scoresde.objective import timesteps, weighting
    from scoresde.process import parameterization, schedule, sde

    return sampling, weighting, timesteps, schedule, sde, parameterization, nn, likelihood, data


def known(kind: type | None = None) -> spec.Known:
    """The package's classes by name, of one kind or all; of the modules those that are whole networks."""
    from torch import nn

    found = spec.known_classes(*_modules(), kind=kind)
    if kind is not nn.Module:
        return found
    return {name: entry for name, entry in found.items() if isinstance(entry, type) and _is_network(entry)}


def _is_network(cls: type) -> bool:
    return hasattr(cls, "event_shape") or "event_shape" in {f.name for f in dataclasses.fields(cls)}


def parse(text: str, kind: type[_T]) -> _T:
    """The object that ``text`` writes.

    Args:
        text: As in Python, e.g. ``MinSNR(gamma=5)``; a bare name takes the defaults.
        kind: Its base class.

    Raises:
        ValueError, TypeError: If it is not a call of a class of that kind; names the nearest.
    """
    return spec.parse(text, known(), kind=kind)


def parse_network(text: str, shape: tuple[int, ...]) -> Any:
    """A network; where its ``event_shape`` is left out, or that of a network inside of it, it is the data's.

    Args:
        text: As in Python, e.g. ``MLP(width=128)``, ``QuantizedSkip(UNet())``.
        shape: Of the data's events.
    """
    from torch import nn

    if "event_shape" not in text:
        takes = [name for name, entry in known(nn.Module).items() if _takes_shape(entry)]
        given = f"event_shape={spec.to_text(shape)}"
        text = re.sub(
            rf"\b({'|'.join(takes)})\b(\s*\(\s*(?!\))|\s*\(\s*\))?",
            lambda m: f"{m[1]}({given}, " if m[2] and not m[2].rstrip().endswith(")") else f"{m[1]}({given})",
            text,
        )
    return parse(text, nn.Module)


def _takes_shape(entry: type | tuple[type, ...]) -> bool:
    return isinstance(entry, type) and any(f.name == "event_shape" for f in dataclasses.fields(entry))


def load_data(
    data: str,
    bins: int | None = None,
    test_fraction: float | None = None,
    split_seed: int | None = None,
    read: Sequence[str] = (),
) -> Data:
    """``data`` by name or path; ``bins`` is for files, ``read`` holds more options of the reader as ``name=value``.

    Raises:
        ValueError: If a text is not of that form, or the reader knows no such option.
    """
    from scoresde.data import load_data

    said: dict[str, Any] = {"seed": split_seed, "test_fraction": test_fraction, "bins": bins}
    settings = {name: value for name, value in said.items() if value is not None}
    for text in read:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals:
            raise ValueError(f"--read takes name=value, such as size=32, got {text!r}.")
        settings[name] = _literal(value)
    return load_data(data, **settings)


def _literal(text: str) -> Any:
    """A Python literal; what is none is a word."""
    try:
        return spec.parse(text, {})
    except (ValueError, TypeError):
        return text


def load_model(
    path: Path | Checkpoint, where: str | None, raw: bool = False, average: float | None = None
) -> ScoreModel:
    """A model from a run directory or a checkpoint (one that was loaded, too), on a device."""
    import torch

    from scoresde.storage.checkpoint import load

    target = chosen_device(where) or ("cuda" if torch.cuda.is_available() else "cpu")
    return load(path, raw=raw, average=average).to(target)


def chosen_device(name: str | None) -> str | None:
    """The device by name, or None where none was named.

    Raises:
        ValueError: If torch knows no such device, or it is not there.
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"a device must be one that torch can use here, got {name!r} ({line}); try cpu.") from None
    return name
