r"""Few-step students of the Fashion-MNIST network: Fréchet and kernel distances at 1, 2 and 4 calls beside its teacher.

    python tests/benchmarks/fashion_students.py --calls 1
    python tests/benchmarks/fashion_students.py --distances

``--calls`` trains one student of the network in ``examples/fashion-mnist`` and stores its run. ``--distances`` draws
samples of the stored students, and of the teacher at 2, 4, 10, 25 and 50 calls, from the same noises; it prints their
distances to test images, with the floor of real images, and writes a sheet of samples.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import typer
from torch import Tensor

from scoresde.data import load_data
from scoresde.distillation import distill, load_student
from scoresde.metrics import EfficientNetLite0, features_of, image_distances
from scoresde.model import Model
from scoresde.plots.image_grid import tile_images
from scoresde.sampling import Adams, Jumps, Sampler, sample
from scoresde.storage.checkpoint import load
from scoresde.training import Training

TEACHER = Path(__file__).parents[2] / "examples" / "fashion-mnist"
OUT = Path("runs/benchmarks/fashion-students")
METRICS = ("frechet", "kernel")
TEACHER_CALLS, STUDENT_CALLS, SHOWN = (2, 4, 10, 25, 50), (1, 2, 4), 10


def train_student(calls: int, steps: int, trajectories: int, batch_size: int, precision: str) -> None:
    """Trains one student and stores its run and its cost."""
    settings = Training(steps, batch_size, lr=1e-3, betas=(0.9, 0.99), lr_end=0.0, ema=0.995, precision=precision)
    begin = time.process_time()
    result = distill(
        load(TEACHER),
        calls,
        trajectories=trajectories,
        training=settings,
        calibrated=False,
        noises=64,
        batch_size=128,
        run_dir=OUT / str(calls),
        resume=(OUT / str(calls) / "config.json").is_file(),
        save_every=250,
        progress=False,
        status=lambda text: print(f"{time.process_time() - begin:.0f} CPU s: {text}", flush=True),
    )
    cost = {"cpu_seconds": time.process_time() - begin, **result.record}
    (OUT / f"{calls}.json").write_text(json.dumps(cost, default=str))
    print(calls, result.comparison.student, result.comparison.medians, f"{cost['cpu_seconds']:.0f} CPU s")


def samplers() -> dict[str, tuple[Model, Sampler]]:
    """The stored students, and the teacher at several numbers of calls."""
    teacher = load(TEACHER)
    stored = [calls for calls in STUDENT_CALLS if (OUT / f"{calls}.json").is_file()]
    students: dict[str, tuple[Model, Sampler]] = {
        f"student, {calls}": (load_student(OUT / str(calls)), Jumps()) for calls in stored
    }
    return students | {f"teacher, {calls}": (teacher, Adams(calls)) for calls in TEACHER_CALLS}


def compare(count: int, precision: str) -> None:
    """Distances of all samplers to the test images; prints a table and writes a sheet."""
    data = load_data("fashion-mnist")
    network = EfficientNetLite0()
    real, rows = features_of(data.test[-2 * count :], network), []
    results: dict[str, Any] = {}
    for name, (model, sampler) in samplers().items():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            images = sample(model, count, sampler, seeds=range(count), batch_size=125).data
        rows.append(images[:SHOWN])
        features = features_of(images, network)
        measured = image_distances(features, real, metrics=METRICS, generator=torch.Generator().manual_seed(0))
        results[name] = {
            metric: [each.value.value, each.value.stderr, each.floor.value, each.floor.stderr]
            for metric, each in measured.items()
        }
        print(f"{name:12}", *(f"{m} {v[0]:.4g} ± {v[1]:.2g} (floor {v[2]:.4g})" for m, v in results[name].items()))
    sheet: Tensor = torch.cat(rows)
    plt.imsave(OUT / "sheet.png", tile_images(sheet.numpy(), data.description, columns=SHOWN))
    (OUT / "results.json").write_text(json.dumps(results, indent=1))


def main(
    calls: Annotated[int | None, typer.Option(help="Train the student of this many calls.")] = None,
    steps: Annotated[int, typer.Option(help="Updates of a student.")] = 1500,
    trajectories: Annotated[int, typer.Option(help="Trajectories of the teacher.")] = 4096,
    batch_size: Annotated[int, typer.Option(help="Trajectories of an update.")] = 64,
    distances: Annotated[bool, typer.Option(help="Compare the stored students with their teacher.")] = False,
    count: Annotated[int, typer.Option(help="Samples of each.")] = 2000,
    precision: Annotated[str, typer.Option(help="no or bf16; bf16 is slow on CPUs without its instructions.")] = "no",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Trains a student, or compares those that are stored."""
    torch.set_num_threads(threads)
    OUT.mkdir(parents=True, exist_ok=True)
    if calls is not None:
        train_student(calls, steps, trajectories, batch_size, precision)
    if distances:
        compare(count, precision)


if __name__ == "__main__":
    typer.run(main)
