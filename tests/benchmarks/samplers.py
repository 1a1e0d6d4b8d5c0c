"""Whose sampler is best per network call? Ours beside the released diffusers and azula, in one run, on exact laws.

    pip install -e '.[benchmark]' -c constraints.txt
    python tests/benchmarks/samplers.py [--quick] [--stochastic] [--problem ring] [--calls 10,20]
    python tests/benchmarks/samplers.py --ours    # ours again, beside the peers of the last run
    python tests/benchmarks/samplers.py --seed 7  # from other draws than the race's own
    python tests/benchmarks/samplers.py --draw    # the last runs into docs/samplers.md: its picture and tables

Deterministic: root mean square over all elements at u = 1e-3 against DOP853 at 1e-12 from the same 512 draws, float64.
Stochastic: within-component standard deviation over the truth's at u = 1e-3. "lent" marks a peer's sampler on a
spacing that its library does not ship. Everything goes to runs/benchmarks/*.json.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from race import heats
from race.entry import released
from race.problems import CACHE, NOISE_SEED, PROBLEMS

CALLS, NOISY_CALLS = (5, 8, 10, 15, 20, 30, 50, 100), (20, 50)


def _finalists(rows: list[heats.Row], problem: str, calls: int) -> list[heats.Row]:
    return [r for r in rows if (r["problem"], r["calls"], r["final"]) == (problem, calls, True)]


def table(rows: list[heats.Row], problem: str, calls: int) -> None:
    """Ours, each over the best peer on its own spacings, then the best peers."""
    found = sorted(_finalists(rows, problem, calls), key=lambda r: r["error"])
    print(f"\n{problem}, {calls} calls")
    best = [next((r for r in found if not r["ours"] and r["lent"] == lent), None) for lent in (False, True)]
    for label, row in zip(("best peer", "best peer, lent spacing"), best):
        if row is not None:
            print(f"  {label:23s} {row['error']:8.2e}         {row['entrant']}")
    for row in found:
        if row["ours"]:
            ratio = f"{row['error'] / best[0]['error']:6.2f}" if best[0] else 6 * " "
            print(f"  {'ours':23s} {row['error']:8.2e} {ratio}  {row['entrant']}")


def noisy_table(rows: list[heats.Row], problem: str, calls: int) -> None:
    """Ours, then the best peers; the mean over the components, then the component farthest off."""
    found = sorted(_finalists(rows, problem, calls), key=lambda r: (not r["ours"], r["lent"], abs(r["ratio"] - 1)))
    print(f"\n{problem}, {calls} calls: standard deviation over the truth's, mean and worst component")
    for row in found:
        who = "ours" if row["ours"] else "peer, lent spacing" if row["lent"] else "peer"
        print(f"  {who:18s} {row['ratio']:.3f} {row['worst']:.3f}  {row['entrant']}")


def kept(path: Path, problems: list[str], calls: tuple[int, ...]) -> list[heats.Row]:
    """The last run's rows but for ours of the same problems and numbers of calls."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text())["rows"]
    return [row for row in rows if not (row["ours"] and row["problem"] in problems and row["calls"] in calls)]


def document() -> None:
    """The documentation's picture and tables, of the last runs."""
    from race import picture  # loads matplotlib

    docs, found = CACHE.parents[1] / "docs", {}
    for name in ("results", "stochastic"):
        path = CACHE / f"{name}.json"
        found[name] = json.loads(path.read_text())["rows"] if path.exists() else []
    if not any(row["ours"] for row in found["results"]):
        raise SystemExit("there must be a finished run in runs/benchmarks, got none; run this without --draw first.")
    picture.draw(found["results"], docs / "img" / "samplers.png")
    picture.insert(docs / "samplers.md", "race", picture.tables(found["results"]))
    if any(row["ours"] for row in found["stochastic"]):
        picture.insert(docs / "samplers.md", "noise", picture.noisy_table(found["stochastic"]))
    print("docs/img/samplers.png and the tables of docs/samplers.md")


def main() -> None:
    """Runs both problems side by side, prints the tables and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few numbers of calls, one finalist")
    parser.add_argument("--ours", action="store_true", help="ours alone, beside the peers of the last run")
    parser.add_argument("--draw", action="store_true", help="only puts the last runs into the docs")
    parser.add_argument("--stochastic", action="store_true", help="samplers that draw noise, instead")
    parser.add_argument("--seed", type=int, default=NOISE_SEED, help="of the draws that all start from")
    parser.add_argument("--problem", choices=tuple(PROBLEMS), action="append")
    parser.add_argument("--calls", type=lambda text: tuple(int(c) for c in text.split(",")))
    options = parser.parse_args()
    if options.draw:
        document()
        return
    if options.stochastic and options.seed != NOISE_SEED:
        parser.error("--seed is for the draws of the deterministic race")
    for name in () if options.ours else ("diffusers", "azula"):
        released(name)
    problems = options.problem or list(PROBLEMS)
    calls = options.calls or (NOISY_CALLS if options.stochastic else (5, 10, 20) if options.quick else CALLS)
    race = heats.stochastic if options.stochastic else heats.deterministic
    settings = {"calls": calls, "peers": not options.ours, **({"finalists": 1} if options.quick else {})}
    other = "" if options.seed == NOISE_SEED else f"-seed{options.seed}"
    if other:
        settings["seed"] = options.seed
    path = CACHE / ("stochastic.json" if options.stochastic else f"results{other}.json")
    with ProcessPoolExecutor(len(problems), mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(partial(race, **settings), problems))
    rows = [row for part in parts for row in part]
    if options.ours:
        rows += kept(path, problems, calls)
    for problem in problems:
        for count in calls:
            (noisy_table if options.stochastic else table)(rows, problem, count)
    CACHE.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows}, indent=1))
    print(f"\n{path.relative_to(CACHE.parents[1])}: {len(rows)} rows")


if __name__ == "__main__":
    main()
