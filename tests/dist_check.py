"""The release files: sdist and wheel are built, installed into an empty environment, and run the README's lines there.

    make dist-check [PYTHON=python3.12] [ARGS="--extras all"] [ARGS=--full]

The wheel is built from the sdist, so that both are complete. Nothing of the source tree is on the environment's path.
``--full`` runs the README's lines as they stand, which takes a minute; otherwise they train for two steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What each extra must make possible, as a program.
EXTRAS = {
    "tensorboard": "from torch.utils.tensorboard import SummaryWriter",
    "parquet": """
import pyarrow, pyarrow.parquet, scoresde as sd
table = pyarrow.table({"a": [0.1 * i * i for i in range(40)], "b": [i % 3 for i in range(40)]})
pyarrow.parquet.write_table(table, "t.parquet")
assert len(sd.load_data("t.parquet").train) > 20
""",
    "datasets": "import datasets",
    "peft": """
import scoresde as sd
from scoresde.training import add_adapters
add_adapters(sd.MLP((2,), width=8, depth=1), 2)
""",
    "metrics": "from scoresde.metrics import EfficientNetLite0; EfficientNetLite0()",
    "diffusers": "import diffusers; from scoresde.bridges.diffusers import Scheduler",
    "onnx": """
import scoresde as sd
from scoresde.bridges.export import save_onnx
save_onnx(sd.ScoreModel(sd.MLP((2,), width=8, depth=1), sd.VPSDE(), event_shape=(2,)), "model.onnx")
""",
    "hub": "import huggingface_hub; from scoresde.bridges.hub import save_pretrained",
    # Last: a torchvision that does not fit this build of torch would stop others, which import it where it is present.
    "inception": """
from scoresde.metrics import Inception
try:
    Inception("absent.pth")
except FileNotFoundError:
    pass  # torch-fidelity is there; the weights are a download
except ImportError as error:
    assert "a torchvision built for this torch" in str(error), error
    print("not used: its error says that the torchvision of this index does not fit this torch")
""",
}


def run(*command: str | Path, cwd: Path | None = None, show: bool = False) -> str:
    """The output of a command; a failure ends the check with what it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    result = subprocess.run([*map(str, command)], cwd=cwd, env=environment, text=True, capture_output=True, check=False)
    if result.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}")
    if show:
        print(result.stdout.strip())
    return result.stdout


def build(out: Path) -> Path:
    """Builds the sdist from the tree and the wheel from the sdist; returns the wheel."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out, cwd=ROOT)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "tests/conftest.py",
        "docs/index.md",
        "Makefile",
    ):
        assert name in names, f"the sdist has no {name}"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, sdist)
    (wheel,) = out.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """The wheel holds the package as it stands in the tree, its type information and the license, and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ignored = ("__pycache__", ".pyc")
    tree = [path.relative_to(ROOT).as_posix() for path in (ROOT / "scoresde").rglob("*") if path.is_file()]
    missing = [name for name in tree if not any(part in name for part in ignored) and name not in names]
    assert not missing, f"the wheel lacks {missing}"
    assert {"scoresde/py.typed", "scoresde/__init__.pyi"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names), "the wheel has no license"
    strangers = [name for name in names if not name.startswith(("scoresde/", "scoresde-"))]
    assert not strangers, f"the wheel also holds {strangers}"


def readme_lines(full: bool) -> str:
    """The Python block of the README, with the replacements of `test_docs` unless ``full``."""
    sys.path.insert(0, str(ROOT / "tests"))
    from test_docs import FASTER, python_blocks

    source = python_blocks(ROOT / "README.md").strip()
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) <= 10, f"the README promises ten lines, it has {len(lines)}"
    for slow, fast in ({} if full else FASTER["README.md"]).items():
        source = source.replace(slow, fast)
    return source


def seconds(command: list[str | Path], cwd: Path) -> float:
    """The least wall time of three runs of a command."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run(*command, cwd=cwd)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Builds, installs and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the empty environment")
    parser.add_argument("--index", default="", help="options for pip, such as --extra-index-url=ADDRESS")
    parser.add_argument("--extras", default="", help="extras to try, separated by commas, or all")
    parser.add_argument("--full", action="store_true", help="run the README's lines as they stand")
    parser.add_argument("--newest", action="store_true", help="newest releases in place of constraints.txt")
    arguments = parser.parse_args()
    extras = list(EXTRAS) if arguments.extras == "all" else [name for name in arguments.extras.split(",") if name]

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        wheel = build(home / "dist")
        check_contents(wheel)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, complete, with py.typed")
        run(arguments.python, "-m", "venv", home / "env")
        python, empty = home / "env" / "bin" / "python", home / "empty"
        empty.mkdir()
        constraints = [] if arguments.newest else ["-c", str(ROOT / "constraints.txt")]
        install = [python, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check"]
        install += arguments.index.split()
        run(*install, *constraints, wheel)
        run(python, "-m", "pip", "check", "--disable-pip-version-check")
        about = "import sys, torch, scoresde as sd; print('Python', sys.version.split()[0], 'torch', torch.__version__)"
        run(python, "-c", f"{about}; assert 'env' in sd.__file__, sd.__file__", cwd=empty, show=True)
        run(python, "-c", readme_lines(arguments.full), cwd=empty, show=True)
        base = seconds([python, "-c", "pass"], empty)
        for name, command in (
            ("import scoresde", [python, "-c", "import scoresde"]),
            ("scoresde --help", [python.with_name("scoresde"), "--help"]),
        ):
            print(f"{name}: {seconds(command, empty) - base:.2f} s more than an empty program")
        for extra in extras:
            run(*install, *constraints, f"{wheel}[{extra}]")
            note = run(python, "-c", EXTRAS[extra], cwd=empty).strip()
            print(f"scoresde[{extra}]: installed, {note or 'used'}", flush=True)


if __name__ == "__main__":
    main()
