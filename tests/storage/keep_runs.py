"""Small stored runs of a release, which every later version must open. Run once for a release, never to repair a test.

    python tests/storage/keep_runs.py 0.1

Two runs: points with classes, averages of several lengths and a calibrated sampler; and a table with columns of several
kinds. `expected.json` has what they gave when they were written. `test_stored_runs.py` opens them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import scoresde as sd
from scoresde.nn import Classes, FourierInput
from scoresde.sampling import Adams
from scoresde.storage.checkpoint import save_calibration
from scoresde.training.defaults import default_recipe

HOME = Path(__file__).parent / "runs"
TABLE = "\n".join(["pay,visits,city,since", *(f"{0.5 * i**2 % 97:.2f},{i % 5},{'ABC'[i % 3]},2026-01-{i % 28 + 1:02}"
                                               for i in range(60))])  # fmt: skip


def outputs(model: sd.ScoreModel, cond: dict[str, Any]) -> dict[str, Any]:
    """Numbers of a model that depend on its weights, its process, its output and its data's description."""
    assert model.event_shape is not None
    shape = model.event_shape
    x = torch.linspace(-1.5, 1.5, 3 * torch.Size(shape).numel()).reshape(3, *shape)
    prediction = model(x, 0.3, **cond)
    samples = sd.sample(model, 3, Adams(steps=6), seeds=[0, 1, 2], **cond)
    return {
        "eps": prediction.eps.tolist(),
        "samples": samples.x.tolist(),
        "data": torch.as_tensor(samples.data).tolist(),
        "log_prob": sd.log_prob(model, x, trace=sd.ExactTrace(), **cond).log_prob.tolist(),
    }


def conditions(name: str) -> dict[str, Any]:
    """What the model of a run is given."""
    return {"label": torch.tensor([0, 3, 7])} if name == "points" else {}


def keep_points(run: Path) -> None:
    """An `MLP` with a class, trained for some steps, with averages and a calibrated sampler."""
    ring = sd.load_data("ring", n=200)
    net = sd.MLP((2,), width=8, depth=1, embedding_width=8, conditions={"label": Classes(8)})
    model = sd.ScoreModel(net, sd.VPSDE(sd.Cosine(), tau_min=1e-4), sd.V(), data=ring.description)
    settings = sd.Training(steps=30, batch_size=16, lr=1e-2, warmup=0, ema=0.9, lengths=(0.05, 0.1))
    sd.train(model, ring, settings, run_dir=run, save_every=30)
    generator = torch.Generator().manual_seed(0)
    save_calibration(run, sd.calibrate(sd.load(run), Adams(steps=4), noises=32, generator=generator))


def keep_table(run: Path) -> None:
    """The default model of a table, made small."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_text(TABLE)
        data = sd.load_data(path)
    recipe = default_recipe(data.description, rows=len(data.train))
    inner = sd.MLP(data.description.model_shape, width=8, depth=1, embedding_width=8, outputs=2)
    net = sd.Pointwise(inner, FourierInput(0.5, (0, 1), damped=True), width=8, embedding_width=8)
    model = sd.ScoreModel(net, recipe.sde, recipe.parameterization, data=data.description)
    settings = sd.Training(steps=30, batch_size=16, lr=1e-2, warmup=0, ema=0.9, loss=recipe.training.loss)
    sd.train(model, data, settings, run_dir=run, save_every=30)


def main() -> None:
    """Writes the runs of one release and what they give."""
    torch.manual_seed(0)
    folder = HOME / sys.argv[1]
    expected = {}
    for name, keep in (("points", keep_points), ("table", keep_table)):
        keep(folder / name)
        expected[name] = outputs(sd.load(folder / name), conditions(name))
        for unneeded in [*(folder / name).rglob("*.lock"), *(folder / name / "checkpoint-000001").glob("*")]:
            unneeded.unlink()
        (folder / name / "checkpoint-000001").rmdir()  # before the first update
        for snapshot in sorted((folder / name / "averages").glob("*"))[:-3]:
            shutil.rmtree(snapshot)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
