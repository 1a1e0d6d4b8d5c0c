"""Results as a comparison writes them, without training: numbers that are easy to find again, random arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scoresde.experiments.report.html import Report, write_report
from scoresde.experiments.results import read_results, write_results

SAMPLERS = ["DDPM(steps=10)", "ODE(method='dopri5')"]


def entry(value: float, stderr: float | None = 0.01) -> dict[str, Any]:
    return {"value": value, "stderr": stderr}


def bounds_of(ode: float, sign: float) -> list[dict[str, Any]]:
    """Two bounds, one .054 worse than the ODE and one on its other side by less than its error."""
    return [
        {
            **entry(ode + sign * over),
            "name": name,
            "settings": f"made like <{name}>",
            "draw_stderr": 0.0043,
            "over_ode": entry(sign * over, 0.006),
            "nfe": 64,
            "terms": {},
        }
        for name, over in (("continuous", 0.054), ("discrete, 7 steps", -0.008))
    ]


def difference(name: str, reference: str, value: float, half: float, over: str) -> dict[str, Any]:
    """A paired difference with an interval of this half width."""
    row = {"name": name, "reference": reference, "value": value, "low": value - half, "high": value + half}
    return {**row, "count": 360, "over": over}


def results_of(shape: list[int], bins: int | None, seeds: int = 1) -> dict[str, Any]:
    """Results as a comparison writes them, with numbers that are easy to find again."""
    levels = [4.0, 0.0, -4.0]
    runs = []
    for seed in range(seeds):
        for k, weighting in enumerate(["ELBO()", "Simple()"]):
            name = f"w{k}-seed{seed}"
            drawn = [
                {
                    "sampler": sampler,
                    "nfe": 10 + j,
                    "seconds": 1.5,
                    "array": f"{name}/s{j}",
                    "sliced_wasserstein": entry(0.1234 + 0.01 * j + seed),
                    "ratio": entry(1.05 + 0.1 * j),
                    "mmd": entry(0.0042),
                    "classifier": entry(0.61),
                    "copies": {"median_ratio": 0.97, "too_close": 0.012, "too_close_stderr": 0.01},
                }
                for j, sampler in enumerate(SAMPLERS)
            ]
            better = 1.0 if bins else -1.0
            scored = {"unit": "bits/dim" if bins else "nats", "value": 2.071 + 0.1 * k + 0.02 * seed, "stderr": 0.013}
            runs.append(
                {
                    "name": name,
                    "weighting": weighting,
                    "seed": seed,
                    "steps": 100,
                    "train_seconds": 12.3,
                    "parameters": 4321,
                    "history": [[20, 0.5 + k], [40, 0.31 + k], [60, 0.3 + k]],
                    "checkpoint": f"models/{name}/checkpoint-000002",
                    "likelihood": {**scored, "probe_stderr": 0.0007, "draw_stderr": 0.0019, "events": 360, "nfe": 92},
                    "bounds": bounds_of(scored["value"], better),
                    "error_by_noise": {"log_snr": levels, "error": [0.9, 0.3, 0.01], "stderr": [0.01, 0.01, 0.001]},
                    "samples": drawn,
                }
            )
    marks = {"sliced_wasserstein": entry(0.1), "mmd": entry(0.0), "classifier": entry(0.5)}
    forward = {
        "tau": [0.0, 0.7, 3.0],
        "alpha": [1.0, 0.5, 0.05],
        "sigma": [0.0, 0.87, 1.0],
        "log_snr": [None, -1.1, -6.0],
    }
    curve = {"log_snr": levels, "weight": [1.0, 0.5, 0.1]}
    differences = {
        "likelihood": [difference("Simple()", "ELBO()", 0.1, 0.04, "events")],
        "samples": [difference(SAMPLERS[1], SAMPLERS[0], 0.1, 0.2, "real data")],
    }
    return {
        "command": 'scoresde compare --data <digits> --sampler "DDPM(steps=10)"',
        "started": "2026-01-02 03:04:05 UTC",
        "seconds": {"training": 24.6, "total": 125.0},
        "computer": {
            "processor": "an abacus",
            "cores": 2,
            "workers": 1,
            "threads": 1,
            "device": "cpu",
            "system": "x",
            "peak_memory_gb": 0.5,
        },
        "versions": {"Python": "3.11", "torch": "2.9"},
        "data": {
            "name": "digits",
            "shape": shape,
            "model_shape": shape,
            "bins": bins,
            "train": 1437,
            "test": 360,
            "description": "…",
        },
        "process": "VPSDE()",
        "tau_max": 5.0,
        "tau_min": 1e-5,
        "parameterization": "V()",
        "network": "MLP()",
        "training": "Training()",
        "times": "Uniform()",
        "n": 360,
        "weightings": ["ELBO()", "Simple()"],
        "samplers": SAMPLERS,
        "seeds": list(range(seeds)),
        "floors": marks,
        "gaussian": {**marks, "classifier": entry(0.93), "ratio": entry(1.4), "copies": None},
        "baselines": [{"name": "each value's own histogram", "value": 2.43, "stderr": 0.01, "events": 360}],
        "forward": forward,
        "differences": differences,
        "weights": {"ELBO()": curve, "Simple()": None},
        "runs": runs,
    }


def arrays_of(results: dict[str, Any]) -> dict[str, np.ndarray]:
    draw, shape = np.random.default_rng(0), tuple(results["data"]["shape"])
    bins = results["data"]["bins"]

    def events(n: int) -> np.ndarray:
        return draw.integers(0, bins, (n, *shape)).astype(np.uint8) if bins else draw.normal(size=(n, *shape))

    found = {"forward": draw.normal(size=(3, 5, *shape)), "real": events(40)}
    for run in results["runs"]:
        for drawn in run["samples"]:
            found[drawn["array"]] = events(40)
            found[f"{drawn['array']}/trajectory_x"] = draw.normal(size=(7, 6, *shape))
            found[f"{drawn['array']}/trajectory_tau"] = np.linspace(3.0, 0.0, 7)
        found[f"{run['name']}/density/extent"] = np.asarray([-2.0, 2.0, -2.0, 2.0])
        found[f"{run['name']}/density/log_prob"] = draw.normal(size=(9, 9))
    return found


def report_of(folder: Path, shape: list[int], bins: int | None, seeds: int = 1) -> Path:
    """The page of such results."""
    results = results_of(shape, bins, seeds)
    write_results(folder, results, arrays_of(results))
    return write_report(folder)


def page_of(folder: Path, shape: list[int], bins: int | None) -> Path:
    """The page of such results alone, without its pictures as files."""
    results = results_of(shape, bins)
    write_results(folder, results, arrays_of(results))
    page = folder / "index.html"
    page.write_text(Report.of(read_results(folder)).page(), encoding="utf-8")
    return page
