"""Sampler benchmark on trained networks: error per network call of ours and of the released diffusers and azula.

    pip install -e '.[benchmark]' -c constraints.txt
    python tests/benchmarks/networks.py [--quick] [--network digits-v] [--calls 10,20]
    python tests/benchmarks/networks.py --ours        # only ours again, with the released ones of the last run
    python tests/benchmarks/networks.py --calibrated  # only the calibrated sampler, which is slow to fit
    python tests/benchmarks/networks.py --draw        # writes the figure and the table to docs/choosing/sampler.md

The networks are those of `race.networks`; those of `CHOSEN_ON` had a part in the choice of the default, those of
`JUDGED_ON` had none. A sampler's error is the root mean square over all elements of its end at ``tau_min`` against that
of the network's own fine solution from the same initial noises. The median is over the samples. The energy distance to
held-out data includes the network's error. Results are written to runs/benchmarks/networks.json. The networks are
trained at their first use (about 20 CPU minutes in all) and kept in runs/benchmarks/networks, as are the solutions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import geometric_mean

from race import network_rounds
from race.network_rounds import GROUPS, Result
from race.networks import CHOSEN_ON, JUDGED_ON
from race.peer import released
from race.problems import CACHE

CALLS, QUICK_CALLS = (5, 8, 10, 15, 20, 30, 50), (5, 10, 20)
FOLDER, RESULTS = CACHE / "networks", CACHE / "networks.json"
PROCESSES = 2


def stored(path: Path = RESULTS) -> dict[str, Result]:
    """Results of the last run by network; empty without one."""
    return json.loads(path.read_text()) if path.exists() else {}


def merged(old: Result | None, new: Result, groups: Sequence[str], calls: Sequence[int]) -> Result:
    """The new rows, and the old ones of other groups or numbers of calls."""
    kept = [row for row in old["rows"] if row["group"] not in groups or row["calls"] not in calls] if old else []
    return {**new, "rows": [*new["rows"], *kept]}


def print_table(result: Result) -> None:
    """Prints the best released sampler and ours at each number of calls, and the distances to held-out data."""
    (fine, fine_error), (floor, floor_error) = result["fine"], result["floor"]
    print(f"\n{result['network']}: fine solution known to {result['reference_error']:.1e}")
    print(f"  energy distance to held-out data {fine:.4f} ± {fine_error:.4f}; floor {floor:.4f} ± {floor_error:.4f}")
    for calls in sorted({row["calls"] for row in result["rows"]}):
        rows = sorted((row for row in result["rows"] if row["calls"] == calls), key=lambda row: row["error"])
        best = next((row for row in rows if row["group"] == "released"), None)
        print(f"  {calls} calls                       error  over best   median  distance")
        for row in ([best] if best else []) + [row for row in rows if row["group"] != "released"]:
            over = f"{row['error'] / best['error']:9.2f}" if best else 9 * " "
            print(
                f"    {row['sampler']:32.32s} {row['error']:8.2e} {over} {row['median']:8.2e} {row['distance'][0]:9.4f}"
            )


def ratios(results: dict[str, Result], sampler: str, calls: int) -> dict[str, float]:
    """Error of a sampler over that of the best released one, for each network that has both."""
    values = {}
    for name, result in results.items():
        rows = [row for row in result["rows"] if row["calls"] == calls]
        released_errors = [row["error"] for row in rows if row["group"] == "released"]
        ours = [row["error"] for row in rows if row["sampler"] == sampler and row["group"] != "released"]
        if released_errors and ours:
            values[name] = ours[0] / min(released_errors)
    return values


def print_summary(results: dict[str, Result]) -> None:
    """Prints the geometric mean and the largest of the `ratios`, for the networks chosen on and judged on."""
    rows = [row for result in results.values() for row in result["rows"]]
    counts = sorted({row["calls"] for row in rows})
    for title, names in (("chosen on", CHOSEN_ON), ("judged on", JUDGED_ON)):
        section = {name: results[name] for name in names if name in results}
        print(f"\n{title} {', '.join(section)}: error over the best released one, geometric mean / worst")
        print(" " * 25 + "".join(f"{f'{count} calls':>14s}" for count in counts))
        for sampler in dict.fromkeys(row["sampler"] for row in rows if row["group"] != "released"):
            cells = [list(ratios(section, sampler, count).values()) for count in counts]
            texts = [f"{geometric_mean(cell):6.2f} /{max(cell):6.2f}" if cell else "" for cell in cells]
            print(f"  {sampler:23.23s}" + "".join(f"{text:>14s}" for text in texts))


def document() -> None:
    """Writes the figure and the tables of the last run to the documentation."""
    from race import network_plot, plot  # imports matplotlib

    results, docs = stored(), CACHE.parents[1] / "docs"
    if not results:
        raise SystemExit("runs/benchmarks/networks.json is missing; run this without --draw first.")
    network_plot.draw(results, docs / "img" / "networks.png")
    plot.insert(docs / "choosing" / "sampler.md", "networks", network_plot.tables(results))
    print("wrote docs/img/networks.png and the tables of docs/choosing/sampler.md")


def main() -> None:
    """Runs the networks in two processes, prints the tables and writes the results after each network."""
    options = _options()
    if options.draw:
        document()
        return
    names = options.network or [*JUDGED_ON, *CHOSEN_ON]
    calls = options.calls or (QUICK_CALLS if options.quick else CALLS)
    groups = ["ours"] if options.ours else ["calibrated"] if options.calibrated else list(GROUPS[:2])
    for name in ("diffusers", "azula") if "released" in groups else ():
        released(name)
    settings = {"groups": groups, "finalists": 3 if options.quick else 8}
    with ProcessPoolExecutor(min(PROCESSES, len(names)), mp_context=get_context("spawn")) as pool:
        tasks = {pool.submit(network_rounds.run, name, calls, FOLDER, **settings): name for name in names}
        for task in as_completed(tasks):
            name, results = tasks[task], stored()
            results[name] = merged(results.get(name), task.result(), groups, calls)
            print_table(results[name])
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1))
    print_summary(stored())
    print(f"\nwrote {RESULTS.relative_to(CACHE.parents[1])}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=(*CHOSEN_ON, *JUDGED_ON), action="append")
    parser.add_argument("--calls", type=lambda text: tuple(sorted(int(c) for c in text.split(","))))
    parser.add_argument("--quick", action="store_true", help="Few numbers of calls, few finalists.")
    parser.add_argument("--draw", action="store_true", help="Only write the last run to the docs.")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--ours", action="store_true", help="Run ours only, with the others of the last run.")
    only.add_argument("--calibrated", action="store_true", help="Run the calibrated sampler only.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
