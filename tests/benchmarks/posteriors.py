"""Posterior benchmark: methods for x given y = A x + noise against exact posteriors, ours beside azula's.

    pip install -e '.[benchmark]' -c constraints.txt
    python tests/benchmarks/posteriors.py [--quick] [--problem A] [--ours] [--work 400]
    python tests/benchmarks/posteriors.py --draw  # writes the tables and the figure to docs/inverse-problems.md

Each method may do the same work per sample: an evaluation of the model and a product with its Jacobian count 1 each.
Columns: sliced W2 to exact sets over the floor, the mean distance of 20 pairs of independent exact sets of the same
size (1 is exact); total variation of the mode shares; work done; CPU seconds. Mean and standard error over five seeds,
each with its own observation. Results are written to runs/benchmarks/posteriors.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from posterior_race import from_azula, ours
from posterior_race.method import Method
from posterior_race.problems import PROBLEMS, Problem, problem

RESULTS = Path(__file__).parents[2] / "runs" / "benchmarks" / "posteriors.json"
SEEDS, COUNT, WORK = 5, 256, 400


def measure(method: Method, case: Problem, work: int, seed: int) -> dict[str, Any]:
    """One run of one method; a diverged one has no error."""
    row: dict[str, Any] = {"problem": case.name, "group": method.group, "method": method.name, "seed": seed}
    start = time.process_time()
    try:
        run = method.run(case, work, seed)
    except RuntimeError as failure:
        return {**row, "error": math.inf, "tv": 1.0, "work": work, "seconds": 0.0, "failure": str(failure)[:200]}
    row["seconds"] = time.process_time() - start
    finite = bool(run.x.isfinite().all())
    error = case.error(run.x) if finite else math.inf
    return {**row, "error": error, "tv": case.total_variation(run.x) if finite else 1.0, "work": run.work}


def summary(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Mean and standard error over the seeds of each method on one problem, best first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["problem"] == name:
            groups.setdefault((row["group"], row["method"]), []).append(row)
    table = []
    for (group, method), runs in groups.items():
        entry: dict[str, Any] = {"group": group, "method": method, "runs": len(runs)}
        for key in ("error", "tv", "work", "seconds"):
            values = [run[key] for run in runs]
            mean = sum(values) / len(values)
            spread = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
            entry[key] = mean
            entry[f"{key} se"] = math.sqrt(spread / len(values)) if math.isfinite(mean) else math.inf
        table.append(entry)
    return sorted(table, key=lambda entry: entry["error"])


def print_table(rows: list[dict[str, Any]], name: str) -> None:
    print(f"\nproblem {name}: sliced W2 / floor, total variation of mode shares, work, CPU seconds")
    for entry in summary(rows, name):
        print(
            f"  {entry['error']:7.2f} ±{entry['error se']:5.2f}  {entry['tv']:.3f} ±{entry['tv se']:.3f} "
            f"{entry['work']:6.0f} {entry['seconds']:6.1f}  {entry['group']:9s} {entry['method']}"
        )


def main() -> None:
    """Runs the methods, prints the tables and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Two seeds, problems A to C.")
    parser.add_argument("--ours", action="store_true", help="Without other libraries.")
    parser.add_argument("--draw", action="store_true", help="Only write the last run to the docs.")
    parser.add_argument("--problem", choices=PROBLEMS, action="append")
    parser.add_argument("--method", help="Only methods whose name contains this text.")
    parser.add_argument("--work", type=int, default=WORK)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    if options.draw:
        from posterior_race import report  # imports matplotlib

        report.document(json.loads(RESULTS.read_text())["rows"])
        return
    methods = [*ours.METHODS, *ours.PARTICLES, *([] if options.ours else from_azula.methods())]
    methods = [method for method in methods if not options.method or options.method in method.name]
    stored = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    names = options.problem or (PROBLEMS[:3] if options.quick else PROBLEMS)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        chosen = [method for method in methods if name in method.problems]
        replaced = {method.name for method in chosen}
        rows = [row for row in stored if not (row["problem"] == name and row["method"] in replaced)]
        for seed in range(2 if options.quick else options.seeds):
            case = problem(name, seed, COUNT)
            rows.extend(measure(method, case, options.work, seed) for method in chosen)
            RESULTS.write_text(json.dumps({"rows": rows}, indent=1))
        stored = rows
        print_table(rows, name)
    print(f"\nwrote {RESULTS.relative_to(RESULTS.parents[2])}, {len(stored)} rows")


if __name__ == "__main__":
    main()
