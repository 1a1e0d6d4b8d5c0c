"""Error messages of the command line: one sentence on stderr; exit code 2 for wrong usage, 1 for a failure."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import typer

__all__ = ["report_errors"]

_USAGE_ERRORS = (
    *(ValueError, TypeError, ImportError),  # ImportError: an optional package that is not installed
    *(FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
)
_FAILURES = (RuntimeError, OSError, FloatingPointError, MemoryError)

_Remedies = Mapping[str, str | Callable[[re.Match[str]], str]]

_REMEDIES: _Remedies = {
    r"pass label=…": "pass --label 3",
    r"(?<=has no null; )pass (\w+)=…": r"pass --condition \1=VALUE",
    r"resume=True": "--resume",
    r"run_dir": "--out",
    r"raise max_nfe, or set strict=False": "raise --max-nfe, or leave --strict out",
    r"set dequantize=False, or --centers": "leave --dequantize out",
    r"kinds=\{(['\"].*?'\w+')\}": lambda match: f'--read "kinds={_pairs(match[1])}"',
    r"\(seed=, test_fraction=\)": "(--split-seed, --test-fraction)",
    r"\(seed=\)": "(--split-seed)",
    r"""(?<![-\w"'])(missing|missing_texts|header|delimiter|encoding|decimal)=(?!\)|True)""": r"--read \1=",
    r"pass size=(?=\d)": "pass --read size=",
    r", channels=3 or 1 to": ", --read channels=3 or 1 to",
    r"""(?<![-\w"'])(categories|columns|label|kinds|per_feature)=(?!\))""": r"--read \1=",
    r"""(?<![-\w"'])\(condition=(\w+)\)""": r"(--condition \1)",
    r"""(?<![-\w"'])condition=(?=[.,;])""": "--condition",
    r"""(?<![-\w"'])condition=(?!\))""": "--condition ",
    r"Pass your own class as known=\{.*?\}": "Name the module of your own class by --import",
}
"""Pattern of a remedy in Python to the remedy on the command line."""

_COMMAND_REMEDIES: Mapping[str, _Remedies] = {
    "compare": {r"start a new run in another run_dir": "train again by --fresh, or in another --out"}
}


def report_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with exceptions and warnings printed as sentences; ``SCORESDE_TRACEBACK=1`` shows the traceback.

    Args:
        command: A function of the package. Its errors state the rule, what arrived and the remedy.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **settings: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_print_warning, command.__name__)
            try:
                return command(*args, **settings)
            except (typer.Exit, typer.Abort):  # RuntimeErrors that carry the exit status; the reason has been printed
                raise
            except KeyboardInterrupt:
                _print_message("stopped", "interrupted by Ctrl-C; every file that was saved is complete.")
                raise typer.Exit(130) from None
            except BrokenPipeError:  # the reader, such as `head`, has closed the pipe; Python must not write to it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(1) from None
            except (*_USAGE_ERRORS, *_FAILURES) as error:
                if os.environ.get("SCORESDE_TRACEBACK"):
                    raise
                _print_message("error", _with_options(_sentence(error), command.__name__) or type(error).__name__)
                raise typer.Exit(2 if isinstance(error, _USAGE_ERRORS) else 1) from None

    return wrapped


def _sentence(error: BaseException) -> str:
    """The text of an error without the system's error numbers; a bare system error gets a remedy."""
    text = re.sub(r"\[(Errno|WinError) \d+\] ", "", str(error))
    if isinstance(error, OSError) and error.errno and error.strerror == os.strerror(error.errno):
        return f"a file must be readable or writable, got: {text}; check its path, its permissions and the free space."
    return text


def _with_options(text: str, command: str) -> str:
    """The text with the command's options in place of the Python arguments that its remedy names."""
    for pattern, remedy in {**_COMMAND_REMEDIES.get(command, {}), **_REMEDIES}.items():
        text = re.sub(pattern, remedy, text)
    return text


def _pairs(text: str) -> str:
    """Pairs as Python writes them, ``'zip': 'category'``, as ``zip=category``."""
    return ",".join(f"{name}={kind}" for _, name, kind in re.findall(r"""(['"])(.*?)\1: '(\w+)'""", text))


def _print_message(kind: str, text: str) -> None:
    color = typer.colors.YELLOW if kind == "warning" else typer.colors.RED
    typer.echo(typer.style(f"{kind}: ", fg=color, bold=True) + text, err=True)


def _print_warning(command: str, message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, UserWarning | RuntimeWarning) or not sys.warnoptions:
        _print_message("warning", _with_options(str(message), command))
