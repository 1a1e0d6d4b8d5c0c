"""Pictures of the examples for the gallery: each example runs with small settings, in its own folder of build/docs.

python docs/_hooks/example_pictures.py                # every example that changed, or whose library did
python docs/_hooks/example_pictures.py editing
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from results import KEPT, ROOT, digest

EXAMPLES = ROOT / "examples"
LONGEST = ("swap_weighting", "unclip", "fashion_mnist", "guided_digits", "distillation", "likelihood_finetune")
"""Those of a minute or more, which start first, so that no process waits for the other at the end."""


def names() -> list[str]:
    """Every example."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py"))


def source(name: str) -> Path:
    """The file of an example."""
    return EXAMPLES / f"{name}.py"


def summary(name: str) -> str:
    """The first paragraph of an example's docstring: what its picture shows."""
    text = ast.get_docstring(ast.parse(source(name).read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"examples/{name}.py has no docstring; say in its first sentence what it shows.")
    return " ".join(text.split("\n\n")[0].split())


def picture(name: str) -> Path | None:
    """The picture named as the example, else its first one; None if it did not run, or if anything changed since."""
    folder = KEPT / "examples" / name
    stamp = folder / "digest"
    if not stamp.exists() or stamp.read_text() != _digest(name):
        return None
    pictures = sorted(folder.glob("*.png"), key=lambda path: (path.stem != name, path.name))
    return pictures[0] if pictures else None


def run(name: str) -> float:
    """Runs an example with small settings; returns the seconds.

    Raises:
        RuntimeError: If it fails, or writes no picture.
    """
    folder, before = KEPT / "examples" / name, _digest(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(source(name)), "--quick", "--out", str(folder)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"examples/{name}.py --quick failed:\n{done.stdout}{done.stderr}")
    if not any(folder.glob("*.png")):
        raise RuntimeError(f"examples/{name}.py --quick wrote no picture to --out; save one as {name}.png.")
    (folder / "digest").write_text(before)
    return time.perf_counter() - began


def _digest(name: str) -> str:
    return digest(*sorted(EXAMPLES.glob("*.py")), EXAMPLES / "figures.mplstyle", setting=name)


def main() -> None:
    """Runs the examples that have no current picture."""
    parser = argparse.ArgumentParser(description="Run the examples with small settings.")
    parser.add_argument("names", nargs="*", help="such as editing; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="examples at a time, one thread each")
    arguments = parser.parse_args()
    chosen = arguments.names or names()
    if unknown := set(chosen) - set(names()):
        sys.exit(f"no example {', '.join(sorted(unknown))}; there are {', '.join(names())}.")

    def attempt(name: str) -> str | None:
        try:
            print(f"examples/{name}.py --quick: {run(name):.0f} s", flush=True)
        except RuntimeError as error:
            return str(error)
        return None

    todo = sorted((name for name in chosen if picture(name) is None), key=lambda name: name not in LONGEST)
    with ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        failed = [text for text in pool.map(attempt, todo) if text]
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
