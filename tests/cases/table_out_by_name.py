"""A table goes in by name and comes out by name: a .csv of samples with column names and decoded categories."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder."""
    return subprocess.run(
        [sys.executable, "-m", "scoresde", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


random.seed(0)
rows = [f"{random.randint(20, 80)},{random.choice(['nurse', 'clerk'])},{random.choice('ab')}\n" for _ in range(200)]
(folder / "t.csv").write_text("age,job,y\n" + "".join(rows))
read = ("--read", "label=y", "--read", "categories=('job',)")
trained = run("train", "--data", "t.csv", *read, "--steps", "5", "--monitor-every", "1000", "-q", "--out", "r")
assert trained.returncode == 0, trained.stderr
sampled = run("sample", "r", "-n", "8", "--sampler", "MixedSampler(DDIM(steps=4))", "-q", "--out", "s.csv")
if sampled.returncode:
    print("FAIL:", sampled.stderr.strip())
    sys.exit(1)
text = (folder / "s.csv").read_text()
print(text)
sys.exit(0 if "job" in text and ("nurse" in text or "clerk" in text) else 1)
