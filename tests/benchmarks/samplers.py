"""Sampler benchmark: error per network call of our samplers and of the released diffusers and azula, on exact models.

    pip install -e '.[benchmark]' -c constraints.txt
    python tests/benchmarks/samplers.py [--quick] [--stochastic] [--problem ring] [--calls 10,20]
    python tests/benchmarks/samplers.py --ours    # only ours again, with the peers of the last run
    python tests/benchmarks/samplers.py --seed 7  # from other initial noises
    python tests/benchmarks/samplers.py --draw    # writes the figure and tables to docs/choosing/sampler.md

Deterministic samplers: root mean square error over all elements at u = 1e-3 against DOP853 at 1e-12, from the same 512
draws, float64. Stochastic samplers: standard deviation within a component at u = 1e-3 over the exact one. A "custom
spacing" is one that the peer's library does not ship. Results are written to runs/benchmarks/*.json.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from race import rounds
from race.peer import released
from race.problems import CACHE, NOISE_SEED, PROBLEMS

CALLS, STOCHASTIC_CALLS = (5, 8, 10, 15, 20, 30, 50, 100), (20, 50)


def _finalists(rows: list[rounds.Row], problem: str, calls: int) -> list[rounds.Row]:
    return [r for r in rows if (r["problem"], r["calls"], r["final"]) == (problem, calls, True)]


def print_table(rows: list[rounds.Row], problem: str, calls: int) -> None:
    """Prints the best peers, then ours, each relative to the best peer with a shipped spacing."""
    ranked = sorted(_finalists(rows, problem, calls), key=lambda r: r["error"])
    print(f"\n{problem}, {calls} calls")
    best = [
        next((r for r in ranked if not r["ours"] and r["custom_spacing"] == custom), None) for custom in (False, True)
    ]
    for label, row in zip(("best peer", "best peer, custom spacing"), best):
        if row is not None:
            print(f"  {label:25s} {row['error']:8.2e}         {row['sampler']}")
    for row in ranked:
        if row["ours"]:
            ratio = f"{row['error'] / best[0]['error']:6.2f}" if best[0] else 6 * " "
            print(f"  {'ours':25s} {row['error']:8.2e} {ratio}  {row['sampler']}")


def print_stochastic_table(rows: list[rounds.Row], problem: str, calls: int) -> None:
    """Prints ours, then the best peers: the mean ratio over the components, and the ratio farthest from 1."""
    ranked = sorted(
        _finalists(rows, problem, calls), key=lambda r: (not r["ours"], r["custom_spacing"], abs(r["ratio"] - 1))
    )
    print(f"\n{problem}, {calls} calls: standard deviation over the exact one, mean and worst component")
    for row in ranked:
        label = "ours" if row["ours"] else "peer, custom spacing" if row["custom_spacing"] else "peer"
        print(f"  {label:20s} {row['ratio']:.3f} {row['worst']:.3f}  {row['sampler']}")


def stored_rows(path: Path, problems: list[str], calls: tuple[int, ...]) -> list[rounds.Row]:
    """Rows of the last run, except ours for these problems and numbers of calls."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text())["rows"]
    return [row for row in rows if not (row["ours"] and row["problem"] in problems and row["calls"] in calls)]


def document() -> None:
    """Writes the figure and the tables of the last runs to the documentation."""
    from race import plot  # imports matplotlib

    docs, results = CACHE.parents[1] / "docs", {}
    for name in ("results", "stochastic"):
        path = CACHE / f"{name}.json"
        results[name] = json.loads(path.read_text())["rows"] if path.exists() else []
    if not any(row["ours"] for row in results["results"]):
        raise SystemExit("runs/benchmarks has no finished run; run this without --draw first.")
    plot.draw(results["results"], docs / "img" / "samplers.png")
    plot.insert(docs / "choosing" / "sampler.md", "race", plot.tables(results["results"]))
    if any(row["ours"] for row in results["stochastic"]):
        plot.insert(docs / "choosing" / "sampler.md", "noise", plot.stochastic_table(results["stochastic"]))
    print("wrote docs/img/samplers.png and the tables of docs/choosing/sampler.md")


def main() -> None:
    """Runs both problems in parallel, prints the tables and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Few numbers of calls, one finalist.")
    parser.add_argument("--ours", action="store_true", help="Run ours only, with the peers of the last run.")
    parser.add_argument("--draw", action="store_true", help="Only write the last runs to the docs.")
    parser.add_argument("--stochastic", action="store_true", help="Stochastic samplers instead of deterministic ones.")
    parser.add_argument("--seed", type=int, default=NOISE_SEED, help="Random seed of the initial noises.")
    parser.add_argument("--problem", choices=tuple(PROBLEMS), action="append")
    parser.add_argument("--calls", type=lambda text: tuple(int(c) for c in text.split(",")))
    options = parser.parse_args()
    if options.draw:
        document()
        return
    if options.stochastic and options.seed != NOISE_SEED:
        parser.error("--seed applies to deterministic samplers only")
    for name in () if options.ours else ("diffusers", "azula"):
        released(name)
    problems = options.problem or list(PROBLEMS)
    calls = options.calls or (STOCHASTIC_CALLS if options.stochastic else (5, 10, 20) if options.quick else CALLS)
    run = rounds.stochastic if options.stochastic else rounds.deterministic
    settings = {"calls": calls, "peers": not options.ours, **({"finalists": 1} if options.quick else {})}
    suffix = "" if options.seed == NOISE_SEED else f"-seed{options.seed}"
    if suffix:
        settings["seed"] = options.seed
    path = CACHE / ("stochastic.json" if options.stochastic else f"results{suffix}.json")
    with ProcessPoolExecutor(len(problems), mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(partial(run, **settings), problems))
    rows = [row for part in parts for row in part]
    if options.ours:
        rows += stored_rows(path, problems, calls)
    for problem in problems:
        for count in calls:
            (print_stochastic_table if options.stochastic else print_table)(rows, problem, count)
    CACHE.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows}, indent=1))
    print(f"\nwrote {path.relative_to(CACHE.parents[1])}, {len(rows)} rows")


if __name__ == "__main__":
    main()
