"""What CI computed for the documentation: where it is kept, and whether it is current."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build/docs"


def digest(*own: Path, setting: str = "") -> str:
    """What a result depends on: its own files, a setting, and the library."""
    sha = hashlib.sha256(setting.encode())
    for path in (*own, *sorted((ROOT / "scoresde").rglob("*.py"))):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def must_be_complete() -> bool:
    """Whether a page without results is an error, as in `make docs`, or a preview."""
    return os.environ.get("SCORESDE_DOCS") == "complete"
