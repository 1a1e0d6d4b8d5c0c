"""Tutorials as notebooks: plain text in docs/tutorials, run by Jupyter's kernel, kept in build/docs.

    python docs/_hooks/notebooks.py            # every tutorial that changed, or that ran with another library
    python docs/_hooks/notebooks.py your_table --jobs 1

A tutorial is a Python file in cells (jupytext's percent format). Its figures become inline SVG with the colors of the
page, and PNG in the downloadable notebook. A cell that draws a figure states in ``alt`` what the figure shows.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from results import KEPT, ROOT, digest

SOURCES, RESULTS = ROOT / "docs/tutorials", KEPT / "tutorials"
EFFORT = "SCORESDE_EFFORT"  # read by the tutorials: 1 is quick, 10 is ten times the training
SVG = "image/svg+xml"
LABEL = "label of the figure"
_START = 600  # seconds until a kernel answers

# Runs before the first cell. The library's own style, so that each color of a figure is one of the page's variables.
_SETUP = f"""
import io
import warnings
import matplotlib as mpl
from matplotlib.figure import Figure
from scoresde.plots.style import SERIES, figure_style, inline_svg

_style = figure_style("tutorial")
_style.__enter__()
mpl.rcParams.update({{"axes.prop_cycle": mpl.cycler(color=SERIES), "figure.constrained_layout.use": True,
                      "figure.figsize": (6.2, 3.6), "lines.markersize": 4.5}})

def _drawn(figure, include=None, exclude=None):
    png = io.BytesIO()
    figure.savefig(png, dpi=120, metadata={{"Software": None}})
    return {{"image/png": png.getvalue(), "{SVG}": inline_svg(figure, "{LABEL}")}}

warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, without widgets
_shell = get_ipython()
_shell.run_line_magic("matplotlib", "inline")
_shell.display_formatter.formatters["image/png"].type_printers.pop(Figure, None)
_shell.display_formatter.mimebundle_formatter.for_type(Figure, _drawn)
"""

_CLOCK = "import time; print(time.process_time())"


def names() -> list[str]:
    """Every tutorial; the navigation sets their order."""
    return sorted(path.stem for path in SOURCES.glob("*.py"))


def read(name: str) -> NotebookNode:
    """The notebook of a tutorial, without outputs."""
    notebook = jupytext.read(SOURCES / f"{name}.py")
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    return notebook


def title(notebook: NotebookNode) -> str:
    """The first heading of a notebook."""
    first = notebook.cells[0].source.splitlines()[0]
    if not first.startswith("# "):
        raise ValueError(f"a tutorial begins with '# Title', got {first!r}; write its title first.")
    return first[2:].strip()


def summary(notebook: NotebookNode) -> str:
    """The first paragraph of a notebook, as one line: what the reader will have at the end."""
    paragraphs = notebook.cells[0].source.split("\n\n")
    if len(paragraphs) < 2:
        raise ValueError(f"{title(notebook)!r} has no text below its title; say there what the reader will have.")
    return " ".join(paragraphs[1].split())


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _digest(notebook: NotebookNode) -> str:
    """What the outputs depend on: the code, not the text around it, and the effort."""
    code = [cell.source for cell in _code(notebook)]
    return digest(setting="\n".join([os.environ.get(EFFORT, "1"), _SETUP, *code]))


def executed(name: str) -> NotebookNode | None:
    """The notebook with the outputs of its last run; None if it did not run, or if code or library changed since."""
    notebook, path = read(name), RESULTS / f"{name}.ipynb"
    if not path.exists():
        return None
    stored = nbformat.read(path, as_version=4)
    about = stored.metadata.get("scoresde", {})
    if about.get("digest") != _digest(notebook):
        return None
    for cell, ran in zip(_code(notebook), _code(stored), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    notebook.metadata["scoresde"] = about
    return notebook


def execute(notebook: NotebookNode, threads: int = 1) -> float:
    """Runs every cell in a new kernel and an empty folder, and stores the outputs in place.

    Args:
        notebook: Without outputs.
        threads: Of the kernel.

    Returns:
        Seconds of CPU time.

    Raises:
        CellExecutionError: If a cell raises an error.
    """
    setup, clock = nbformat.v4.new_code_cell(_SETUP), nbformat.v4.new_code_cell(_CLOCK)
    cells = notebook.cells
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        for part in ("examples", "tests"):  # as in a clone
            Path(folder, part).symlink_to(ROOT / part)
        client = NotebookClient(
            notebook,
            timeout=None,  # a busy machine is slow
            startup_timeout=_START,
            resources={"metadata": {"path": folder}},
        )
        client.create_kernel_manager()
        if os.name == "posix":  # files in place of ports that every user of the machine could read
            client.km.transport, client.km.ip = "ipc", f"{sockets}/kernel"
        notebook.cells = [setup, *cells, clock]
        try:
            client.execute(env=environment)
        finally:
            notebook.cells = cells
    for number, cell in enumerate(_code(notebook), 1):
        cell.execution_count = number
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    return float(clock.outputs[0].text)


def run(name: str, threads: int = 1) -> float:
    """Executes a tutorial and stores it with its outputs; returns the seconds of CPU time."""
    notebook = read(name)
    before = _digest(notebook)
    seconds = execute(notebook, threads)
    _check_figures(name, notebook)
    notebook.metadata["scoresde"] = {
        "digest": before,
        "effort": os.environ.get(EFFORT, "1"),
        "seconds": round(seconds),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.ipynb"
    nbformat.write(notebook, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return seconds


def figures(notebook: NotebookNode) -> list[tuple[NotebookNode, str]]:
    """Every output that is a figure, with what the figure shows."""
    return [
        (output, cell.metadata.get("alt", ""))
        for cell in _code(notebook)
        for output in cell.outputs
        if SVG in output.get("data", {})
    ]


def _check_figures(name: str, notebook: NotebookNode) -> None:
    drawn = figures(notebook)
    if not drawn:
        raise ValueError(f"{name} draws no figure; a tutorial ends with one.")
    if not all(alt for _, alt in drawn):
        raise ValueError(f'a figure in {name} has no description; begin its cell with # %% alt="what it shows".')


def portable(notebook: NotebookNode) -> str:
    """The text of an ``.ipynb`` for download: figures as PNG alone, without what only the page needs."""
    copy = nbformat.from_dict(notebook)
    for output in (output for cell in _code(copy) for output in cell.outputs):
        output.get("data", {}).pop(SVG, None)
    copy.metadata.pop("scoresde", None)
    return nbformat.writes(copy)


def main() -> None:
    """Runs the tutorials that have no current outputs."""
    parser = argparse.ArgumentParser(description="Run the tutorials.")
    parser.add_argument("names", nargs="*", help="such as your_images; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="tutorials at a time, one thread each")
    arguments = parser.parse_args()
    chosen = [name for name in names() if not arguments.names or name in arguments.names]
    if unknown := set(arguments.names) - set(chosen):
        sys.exit(f"no tutorial {', '.join(sorted(unknown))}; there are {', '.join(names())}.")
    todo = [name for name in chosen if executed(name) is None]

    def attempt(name: str) -> str | None:
        try:
            print(f"{name}: {run(name):.0f} s of CPU time", flush=True)
        except CellExecutionError as error:
            return f"{name}: " + re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        return None

    with ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        failed = [text for text in pool.map(attempt, todo) if text]
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
