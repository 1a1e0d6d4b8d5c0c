"""What `verify` finds: planted mistakes, false alarms on networks that are used rightly, and its time.

    python tests/benchmarks/verification.py mistakes
    python tests/benchmarks/verification.py alarms --seeds 20
    python tests/benchmarks/verification.py time

`mistakes` and `alarms` print Markdown tables, one line as soon as it is known. The networks of `alarms` are those of
the tests (emoji, in the forms of other code bases) and of the sampler benchmark (`race.networks`), as far as they are
stored in runs/benchmarks/networks.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from emoji_networks import held_out
from planted_mistakes import MISTAKES
from race.networks import CHOSEN_ON, JUDGED_ON
from race.networks import trained as race_network
from race.problems import CACHE

import scoresde as sd

FROM_RACE = [name for name in (*CHOSEN_ON, *JUDGED_ON) if name != "fashion-v"]


def mistakes(names: list[str]) -> None:
    """One line per mistake: what the check that names it says, and whether the right use passes."""
    print("| mistake | outcome | what was found | right use |")
    print("|---|---|---|---|")
    for name, make in MISTAKES.items():
        if names and name not in names:
            continue
        case = make()
        result = sd.verify(case.wrong, case.data, **case.options)
        right = sd.verify(case.right, case.right_data or case.data, **case.right_options)
        named = [check for check in result.failed if check.name in case.finds]
        related = [check for check in result.checks if check.name in case.finds]
        shown = (named or related or [result.checks[0]])[0]
        outcome = "found" if named else shown.outcome
        alarm = "; ".join(check.sentence for check in right.failed) or "no alarm"
        print(f"| {name} | {outcome} | {shown.name}: {shown.sentence} | {alarm} |", flush=True)


def right_uses(names: list[str]) -> Iterator[tuple[str, sd.Model, Any, dict[str, Any]]]:
    """Name, model, data and options of networks that are used as they were trained."""
    for name in FROM_RACE:
        if (not names or name in names) and (CACHE / "networks" / f"{name}.safetensors").exists():
            found = race_network(name)
            yield name, found.model, found.held_out, {"units": "model"}
    kinds = {
        "emoji eps": "sign flipped",
        "emoji eps of a step": "step too late by one",
        "emoji v of a step, cosine": "linear for cosine betas",
        "emoji class-conditional v": "transposed labels",
        "emoji flow": "shifted flow time",
        "emoji EDM": "wrong sigma_data",
        "emoji denoiser of x / alpha": "VP for VE",
        "emoji eps, in [0, 1]": "[-1, 1] for [0, 1]",
        "emoji latents": "missing scaling_factor",
        "emoji averaged against raw weights": "averaged weights not applied",
    }
    for name, mistake in kinds.items():
        if not names or name in names:
            case = MISTAKES[mistake]()
            yield name, case.right, case.right_data or held_out(), dict(case.right_options)


def alarms(names: list[str], seeds: range) -> None:
    """One line per network: failed and undecidable checks over all seeds."""
    print("| network | seeds | false alarms | undecidable in | seconds |")
    print("|---|---:|---:|---|---:|")
    for name, model, data, options in right_uses(names):
        failed, open_, begin = [], Counter(), time.process_time()
        for seed in seeds:
            result = sd.verify(model, data, seed=seed, **options)
            failed += [f"seed {seed}, {check.name}: {check.sentence}" for check in result.failed]
            open_.update(check.name for check in result.checks if check.outcome == "undecidable")
        undecidable = ", ".join(f"{check} {count}" for check, count in open_.items()) or "none"
        seconds = (time.process_time() - begin) / len(seeds)
        print(f"| {name} | {len(seeds)} | {len(failed)} | {undecidable} | {seconds:.1f} |", flush=True)
        for line in failed:
            print(f"  {line}", flush=True)


def seconds_of_a_large_network(threads: int) -> None:
    """Time of one call for a network of a million weights on the emoji."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = sd.UNet((3, 16, 16), 32, (1, 2, 2), blocks=1)
    model = sd.ScoreModel(net, sd.VPSDE(), sd.V(), data=held_out().description)
    begin = time.process_time()
    result = sd.verify(model, held_out())
    size = sum(parameter.numel() for parameter in net.parameters())
    print(f"{size:,} weights, {threads} threads: {result.seconds:.1f} s ({time.process_time() - begin:.1f} s of CPU)")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mistakes", "alarms", "time"])
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_intermixed_args()
    if options.what == "mistakes":
        mistakes(options.names)
    elif options.what == "alarms":
        alarms(options.names, range(options.first, options.first + options.seeds))
    else:
        seconds_of_a_large_network(options.threads)


if __name__ == "__main__":
    main()
