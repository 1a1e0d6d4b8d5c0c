"""Posterior benchmark: methods for x given y = A x + noise against exact posteriors, ours beside azula's and deepinv's.

    pip install -e '.[benchmark]' -c constraints.txt  # and, for its methods, deepinv, which needs torchvision
    python tests/benchmarks/posteriors.py [--problem A] [--seed 0] [--method MMPS] [--quick] [--ours] [--again]
    python tests/benchmarks/posteriors.py --draw  # writes the tables and the figure to the documentation

Each method may do the same work per sample: an evaluation of the model and a product with its Jacobian count 1 each.
Columns: sliced W2 to exact sets over the floor, the mean distance of 20 pairs of independent exact sets of the same
size (1 is exact); total variation of the mode shares; work done; CPU seconds. Mean and standard error over five seeds,
each with its own observation.

The runs of one problem and seed are one file of runs/benchmarks/posteriors, written after each run. Runs that are there
are not repeated without ``--again``, so that a part can be stopped at any time, and parts can run at the same time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from posterior_race import from_azula, from_deepinv, observed, ours
from posterior_race.method import Method
from posterior_race.problems import PROBLEMS, Problem, problem

RESULTS = Path(__file__).parents[2] / "runs" / "benchmarks" / "posteriors"
SEEDS, WORK = 5, 400

Row = dict[str, Any]


def measure(method: Method, case: Problem, work: int) -> Row:
    """One run of one method; a diverged one has no error."""
    row: Row = {"problem": case.name, "seed": case.seed, "group": method.group, "method": method.name}
    row |= {"count": case.count}
    start = time.process_time()
    try:
        run = method.run(case, work, case.seed)
    except RuntimeError as failure:
        return {**row, "error": math.inf, "tv": 1.0, "work": work, "seconds": 0.0, "failure": str(failure)[:200]}
    row["seconds"] = time.process_time() - start
    finite = bool(run.x.isfinite().all())
    error = case.error(run.x) if finite else math.inf
    return {**row, "error": error, "tv": case.total_variation(run.x) if finite else 1.0, "work": run.work}


def run_part(name: str, seed: int, methods: list[Method], work: int, again: bool) -> None:
    """Runs the methods on one problem and seed, and adds them to its file."""
    path = RESULTS / f"{name}-{seed}.json"
    case = problem(name, seed)
    for method in methods:
        key = method.group, method.name
        if name not in method.problems or (not again and key in {(row["group"], row["method"]) for row in _rows(path)}):
            continue
        row = measure(method, case, work)
        rows = [*(other for other in _rows(path) if (other["group"], other["method"]) != key), row]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"{name} {seed} {row['error']:7.2f} {row['tv']:.3f} {row['seconds']:6.1f} s  {method}", flush=True)


def _rows(path: Path) -> list[Row]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def stored() -> list[Row]:
    """All runs so far."""
    return [row for path in sorted(RESULTS.glob("*.json")) for row in _rows(path)]


def summary(rows: list[Row], name: str) -> list[Row]:
    """Mean and standard error over the seeds of each method on one problem, best first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["problem"] == name:
            groups.setdefault((row["group"], row["method"]), []).append(row)
    table = []
    for (group, method), runs in groups.items():
        entry: Row = {"group": group, "method": method, "runs": len(runs)}
        for key in ("error", "tv", "work", "seconds"):
            values = [run[key] for run in runs]
            mean = sum(values) / len(values)
            spread = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
            entry[key] = mean
            entry[f"{key} se"] = math.sqrt(spread / len(values)) if math.isfinite(mean) else math.inf
        table.append(entry)
    return sorted(table, key=lambda entry: entry["error"])


def print_table(rows: list[Row], name: str) -> None:
    print(f"\nproblem {name}: sliced W2 / floor, total variation of mode shares, work, CPU seconds, runs")
    for entry in summary(rows, name):
        print(
            f"  {entry['error']:7.2f} ±{entry['error se']:5.2f}  {entry['tv']:.3f} ±{entry['tv se']:.3f} "
            f"{entry['work']:6.0f} {entry['seconds']:6.1f} {entry['runs']:2d}  {entry['group']:9s} {entry['method']}"
        )


def main() -> None:
    """Runs the methods and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Two seeds, problems A to C.")
    parser.add_argument("--ours", action="store_true", help="Without other libraries.")
    parser.add_argument("--draw", action="store_true", help="Only write the stored runs to the documentation.")
    parser.add_argument("--problem", choices=PROBLEMS, action="append", help="Default: all.")
    parser.add_argument("--seed", type=int, action="append", help="Default: 0 to 4.")
    parser.add_argument("--method", help="Only methods whose group or name contains this text.")
    parser.add_argument("--again", action="store_true", help="Repeats runs that are stored.")
    parser.add_argument("--work", type=int, default=WORK)
    options = parser.parse_args()
    if options.draw:
        from posterior_race import report  # imports matplotlib

        report.document(stored())
        return
    peers = [] if options.ours else [*from_azula.methods(), *from_deepinv.methods()]
    methods = [*ours.METHODS, *observed.METHODS, *peers]
    methods = [method for method in methods if not options.method or options.method in str(method)]
    names = options.problem or (PROBLEMS[:3] if options.quick else PROBLEMS)
    for seed in options.seed or range(2 if options.quick else SEEDS):
        for name in names:
            run_part(name, seed, methods, options.work, options.again)
    for name in names:
        print_table(stored(), name)


if __name__ == "__main__":
    main()
