"""``scoresde compare`` scores a table in which most rows are equal: two columns that are 0 in 80 % of the rows."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path


def row() -> str:
    """Normal numbers with probability 0.2, else zeros."""
    if random.random() >= 0.2:
        return "0,0\n"
    return f"{round(random.gauss(0, 1), 3)},{round(random.gauss(0, 1), 3)}\n"


folder = Path(tempfile.mkdtemp())
random.seed(0)
(folder / "z.csv").write_text("gain,loss\n" + "".join(row() for _ in range(600)))
options = ("--quick", "-q", "--workers", "1", "--weighting", "ELBO()", "--sampler", "DDIM(steps=4)", "--no-bounds")
result = subprocess.run(
    [sys.executable, "-m", "scoresde", "compare", "--data", "z.csv", *options, "--limit", "5", "--out", "c"],
    cwd=folder,
    env={**os.environ, "OMP_NUM_THREADS": "1"},
    capture_output=True,
    text=True,
    check=False,
)
print((result.stdout + result.stderr)[-300:])
sys.exit(1 if result.returncode else 0)
