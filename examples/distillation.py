r"""Few-step students: error, lost samples and cost at one, two and four network calls, beside the teacher's samplers.

    python examples/distillation.py
    python examples/distillation.py --run runs/demo/models/simple-seed0
    python examples/distillation.py --draw

Students of 1, 2 and 4 fixed jumps are trained on two exact models: a ring of eight Gaussians, and a mixture of ten
Gaussians in 64 dimensions; with ``--run`` also of a trained network. The error is the root mean square to the end of
the teacher's probability-flow ODE from the same noises, and its median over the samples. A sample is lost if it lies
outside the 99.99 % ellipsoid of every component. A student costs the network calls of its trajectories, and the
teacher's forward and backward passes of its training, a pass of both counted as three calls.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from scipy.stats import chi2
from torch import Tensor

from scoresde.analytic import GaussianMixture
from scoresde.distillation import distill
from scoresde.distillation.defaults import default_training
from scoresde.metrics import energy_distance
from scoresde.model import Model, ScoreModel
from scoresde.plots import tile_images
from scoresde.process.schedule import LinearVP
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, Adams, Jumps, Sampler, StepSampler, UniformAngle, sample
from scoresde.storage.checkpoint import load

CALLS, SHOWN, FINE = (1, 2, 4), (1, 2, 4, 20), 200
CLOCK = LinearVP(beta_min=0.1, beta_max=20.0)
SECONDS = {"ring": 60.0, "mixture": 75.0}
"""Time of the training of one student of an exact model, on one core that is otherwise idle."""


def ring() -> GaussianMixture:
    """Eight Gaussians of standard deviation 0.1 on a circle of radius 1, scaled to unit variance."""
    return GaussianMixture.ring(sde=_sde()).float()


def mixture() -> GaussianMixture:
    """64-D, ten components: means N(0, I), 64 standard deviations each, log-uniform in 0.03 … 1; unit variance."""
    rng = np.random.default_rng(64)
    means = torch.from_numpy(rng.standard_normal((10, 64)))
    stds = torch.from_numpy(np.exp(rng.uniform(math.log(0.03), 0.0, (10, 64))))
    scale = (means.var(0, correction=0) + stds.square().mean(0)).mean().sqrt()
    return GaussianMixture(torch.ones(10), means / scale, (stds / scale) ** 2, _sde()).float()


def _sde() -> VPSDE:
    return VPSDE(CLOCK, tau_min=float(CLOCK.tau(1e-3)))


def lost_share(model: Model, x: Tensor) -> float | None:
    """Share of samples outside the 99.99 % ellipsoid of every component; None for a model without components."""
    if not isinstance(model, GaussianMixture):
        return None
    distance = ((x.unsqueeze(1) - model.means).square() / model.variances).sum(2).amin(1)
    return float((distance > float(chi2.ppf(0.9999, x.shape[1]))).double().mean())


def measure(model: Model, ends: dict[str, Any], sampled: Model, sampler: Sampler) -> dict[str, Any]:
    """Errors, lost share and energy distance of one sampler, from the common noises."""
    x = sample(sampled, tuple(ends["noise"].shape), sampler, init=ends["noise"], batch_size=512).x
    square = (x - ends["truth"]).double().flatten(1).square().mean(1)
    reference = ends["data"]
    return {
        "rms": float(square.mean().sqrt()),
        "median": float(square.sqrt().median()),
        "lost": lost_share(model, x),
        "energy": float(energy_distance(x.flatten(1), reference.flatten(1))),
        "x": x[:512].tolist() if x[0].numel() < 3 else x[:16].tolist(),
    }


def examine(name: str, model: Model, data: Tensor, steps: int | None, quick: bool) -> dict[str, Any]:
    """All students and samplers of one model."""
    count = 64 if quick else 2048
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, *(model.event_shape or ()), generator=generator)
    fine = Adams(FINE, predictor_order=2, corrector_order=3)
    truth = sample(model, tuple(noise.shape), fine, init=noise, batch_size=512).x
    ends = {"noise": noise, "truth": truth, "data": data[:count]}
    rows: dict[str, Any] = {"ODE": measure(model, ends, model, fine)}
    others: list[StepSampler] = [Adams(20), *(DDIM(n, UniformAngle()) for n in (*CALLS, 8, 20))]
    rows |= {f"{type(s).__name__} {s.steps}": measure(model, ends, model, s) for s in others}
    for calls in CALLS:
        rows |= _student(name, model, ends, calls, steps, quick)
    return rows


def _student(
    name: str, model: Model, ends: dict[str, Any], calls: int, steps: int | None, quick: bool
) -> dict[str, Any]:
    settings = default_training(new=not isinstance(model, ScoreModel))
    if steps is not None:
        settings = settings.fitted(steps)
    few: dict[str, Any] = {"trajectories": 256, "noises": 64, "calibrated": calls == 2} if quick else {}
    begin = time.process_time()
    said = lambda text: print(f"{name}, {calls} calls, {time.process_time() - begin:.0f} CPU s: {text}", flush=True)  # noqa: E731
    if not isinstance(model, ScoreModel):
        few = {"solver": Adams(20), "batch_size": 8192, **few}
    result = distill(model, calls, training=settings, progress=False, status=said, **few)
    record, comparison = result.record, result.comparison
    trained = 3 * settings.batch_size * result.training.step  # one student pass forward and back is three calls
    row = measure(model, ends, result.student, Jumps(calls))
    row["cost"] = record["trajectories"] * record["calls_per_trajectory"] + trained
    row["cpu_seconds"] = time.process_time() - begin
    rows = {f"student {calls}": row}
    if comparison.calibration is not None:
        rows[f"calibrated {calls}"] = measure(model, ends, model, comparison.calibration.sampler)
    for key, each in rows.items():
        print(key, {k: v for k, v in each.items() if k != "x"}, flush=True)
    return rows


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """The figure: errors against calls for each model, and below them samples at 1, 2, 4 and 20 calls."""
    style = Path(__file__).with_name("figures.mplstyle")
    with plt.style.context(style):
        columns = max(4, len(results))
        figure = plt.figure(figsize=(2.5 * columns, 5.2 + 2.4 * ("digits" in results)))
        grid = figure.add_gridspec(
            2 + ("digits" in results), 4, height_ratios=[1.15, 1, 1][: 2 + ("digits" in results)]
        )
        top = grid[0, :].subgridspec(1, len(results), wspace=0.3)
        for i, (name, rows) in enumerate(results.items()):
            _draw_errors(figure.add_subplot(top[0, i]), name, rows, legend=i == 0)
        for row, name in enumerate([name for name in ("ring", "digits") if name in results]):
            for column, calls in enumerate(SHOWN):
                _draw_samples(figure.add_subplot(grid[1 + row, column]), name, results[name], calls)
        figure.savefig(path)
        plt.close(figure)


def _draw_errors(axes: Any, name: str, rows: dict[str, Any], legend: bool) -> None:
    for color, (label, marker) in enumerate((("DDIM", "s"), ("calibrated", "^"), ("student", "o"))):
        points = [(int(key.split()[1]), row["rms"]) for key, row in rows.items() if key.split()[0] == label]
        if points:
            text = {"DDIM": "DDIM in the angle", "calibrated": "calibrated teacher"}.get(label, label)
            axes.loglog(*zip(*sorted(points)), marker=marker, color=f"C{color}", label=text)
    axes.set_xticks([1, 2, 4, 8, 20], ["1", "2", "4", "8", "20"])
    axes.minorticks_off()
    axes.set(title=name, xlabel="network calls", ylabel="rms error" if legend else "", xlim=(0.9, 22))
    if legend:
        axes.legend(loc="upper right", fontsize="small")


def _draw_samples(axes: Any, name: str, rows: dict[str, Any], calls: int) -> None:
    key = f"student {calls}" if f"student {calls}" in rows else f"Adams {calls}"
    axes.set(
        xticks=[], yticks=[], title=f"{'student' if 'student' in key else 'teacher'}, {calls} call{'s' * (calls > 1)}"
    )
    if key not in rows:
        return
    x = np.array(rows[key]["x"], dtype=np.float32)
    if name == "ring":
        axes.scatter(x[:, 0], x[:, 1], s=2)
        axes.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
    else:
        axes.imshow(tile_images(x.clip(-1.0, 1.0), None, 4, 4), cmap="gray")


def table(results: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of every row."""
    lines = [
        "| model | sampler, calls | rms | median | lost | energy distance | teacher calls, CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        for key, row in rows.items():
            lost = "" if row["lost"] is None else f"{100 * row['lost']:.1f} %"
            cost = f"{row['cost'] / 1e6:.1f} million, {row['cpu_seconds']:.0f}" if "cost" in row else ""
            lines.append(
                f"| {name} | {key} | {row['rms']:.3g} | {row['median']:.2g} | {lost} | {row['energy']:.5f} | {cost} |"
            )
    return "\n".join(lines)


def main(
    run: Annotated[
        Path | None, typer.Option(help="Run directory of a trained network, of which students are trained too.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="ring, mixture or digits: only this one is computed.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each student; default those of distill.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the figure and the results.")] = Path(
        "runs/examples/distillation"
    ),
    drawn: Annotated[bool, typer.Option("--draw", help="Draws from stored results.")] = False,
    quick: Annotated[bool, typer.Option(help="The ring alone, with little training.")] = False,
) -> None:
    """Trains the students, prints the table and draws the figure."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {"ring": ring, "mixture": mixture}
    out.mkdir(parents=True, exist_ok=True)
    few = 100 if quick else steps
    for name, make in models.items():
        if not drawn and only in (None, name) and not (quick and name == "mixture"):
            model = make()
            data = model.sample(4096, generator=torch.Generator().manual_seed(2))
            (out / f"{name}.json").write_text(json.dumps(examine(name, model, data, few, quick)))
    if run is not None and not drawn and only in (None, "digits"):
        model = load(run)
        assert model.data is not None
        from scoresde.data import load_data

        events = load_data(model.data.name)
        data = model.data.to_model(model.data.center(torch.cat([events.train, events.test]))).float()
        (out / "digits.json").write_text(json.dumps(examine("digits", model, data, few, quick)))
    results = {
        p.stem: json.loads(p.read_text()) for p in sorted(out.glob("*.json"), key=lambda p: "rmd".find(p.stem[0]))
    }
    print(table(results))
    draw(results, out / "distillation.png")


if __name__ == "__main__":
    typer.run(main)
