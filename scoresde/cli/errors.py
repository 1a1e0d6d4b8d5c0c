"""How does the command line fail? With one sentence on stderr: 2 for what was asked wrongly, 1 for what went wrong."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

__all__ = ["shown"]

_ASKED = (
    *(ValueError, TypeError, ImportError),  # the last of an extra that is not installed
    *(FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
)
_WENT = (RuntimeError, OSError, FloatingPointError, MemoryError)

_OPTIONS = {
    "resume=True": "--resume",
    "run_dir": "--out",
    "raise max_nfe, or set strict=False": "raise --max-nfe, or leave --strict out",
}
_OWN = {"compare": {"begin anew in another run_dir": "train anew by --fresh, or in another --out"}}


def shown(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with errors and warnings as sentences; a traceback too where ``SCORESDE_TRACEBACK`` is set.

    Args:
        command: A function of the package, whose errors say rule, what arrived and remedy.
    """

    @functools.wraps(command)
    def safely(*args: Any, **settings: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            try:
                return command(*args, **settings)
            except KeyboardInterrupt:
                _say("stopped", "stopped by you; what was saved is whole.")
                raise typer.Exit(130) from None
            except BrokenPipeError:  # who was to read has left, such as `head`; the interpreter must not write either
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(1) from None
            except (*_ASKED, *_WENT) as error:
                if os.environ.get("SCORESDE_TRACEBACK"):
                    raise
                _say("error", _in_options(_sentence(error), command.__name__) or type(error).__name__)
                raise typer.Exit(2 if isinstance(error, _ASKED) else 1) from None

    return safely


def _sentence(error: BaseException) -> str:
    """What an error says, without the system's numbers; the system's own names a file and no remedy."""
    text = re.sub(r"\[(Errno|WinError) \d+\] ", "", str(error))
    if isinstance(error, OSError) and error.errno and error.strerror == os.strerror(error.errno):
        return f"a file must be readable or writable, got: {text}; check its path, its rights and the space left."
    return text


def _in_options(text: str, command: str) -> str:
    """Remedies that name arguments of Python name the command's options instead."""
    for argument, option in {**_OWN.get(command, {}), **_OPTIONS}.items():
        text = text.replace(argument, option)
    return text


def _say(kind: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    color = "yellow" if kind == "warning" else "red"
    Console(stderr=True, soft_wrap=True).print(Text.assemble((f"{kind}: ", f"bold {color}"), text))


def _warn(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, UserWarning | RuntimeWarning) or not sys.warnoptions:
        _say("warning", str(message))
