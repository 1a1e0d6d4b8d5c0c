"""``scoresde edit``: an image or another event, noised and sampled again, beside the original."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import typer

from scoresde.cli import options
from scoresde.cli.guidance_options import GuidanceOptions
from scoresde.cli.model_options import ModelOptions

__all__ = ["edit"]


def edit(
    checkpoint: options.Checkpoint,
    image: options.Image,
    strength: float = typer.Option(
        0.5, "--strength", help="How much changes, in (0, 1]: noise up to the schedule's time at u = this number."
    ),
    n: int = typer.Option(8, "-n", "--number", min=1, help="Number of edits."),
    keep: Path = typer.Option(
        None,
        "--keep",
        help="An image that is white, or a .npy file that is true, where the original is kept exactly.",
        show_default=False,
    ),
    sampler: options.Sampler = None,
    label: options.Label = None,
    condition: options.Condition = [],
    out: Path = typer.Option(
        None,
        "--out",
        help=".png: the original and its edits on one sheet; .npz: numbers in data units.",
        show_default=False,
    ),
    seed: options.Seed = 0,
    *,
    guidance: GuidanceOptions,
    weights: ModelOptions,
) -> None:
    """Edit an image: noise it, and let the model sample from there.

    A small strength changes details, a large one keeps only the coarse layout. Series, volumes and other data are given
    as .npy and written as .npz.

    For example:

        scoresde edit runs/digits image.png --strength 0.4 --out edits.png

        scoresde edit runs/digits image.png --strength 0.8 --keep kept.png -n 4 --out edits.png

        scoresde edit runs/classes image.png --strength 0.7 -n 10 --label 0-9 --guidance 2 --out edits.png

        scoresde edit runs/series days.npy --strength 0.5 -n 4 --out edits.npz
    """
    from scoresde.cli.edited_output import check_sheet, check_shows, seeds_from, write_sheet
    from scoresde.cli.image_inputs import read_events, read_white
    from scoresde.cli.loading import as_score_model
    from scoresde.cli.outputs import check_writable
    from scoresde.cli.parsing import parse
    from scoresde.sampling import Sampler

    check_sheet(out)
    check_writable(out)
    modules = weights.modules(checkpoint)
    chosen = None if sampler is None else parse(sampler, Sampler, modules)

    from scoresde.cli import console
    from scoresde.cli.given_conditions import given_conditions, repeated, warn_of_nulls
    from scoresde.inverse import edit as edit_events
    from scoresde.inverse.edit import default_sampler
    from scoresde.storage.setting_labels import short_text

    model = as_score_model(weights.load(checkpoint, modules))
    check_shows(out, model)
    used = default_sampler(model) if chosen is None else chosen
    given = given_conditions(model, label, condition)
    warn_of_nulls(model, given)
    guided = guidance.guided(model, bool(given), partial(weights.load_average, checkpoint, modules))
    events, mask = read_events(image, model), None if keep is None else read_white(keep, model)
    originals = events.repeat_interleave(n, 0)
    kept = None if mask is None else mask.expand_as(events).repeat_interleave(n, 0)
    cond: dict[str, Any] = dict(repeated(given, len(originals), of_each=n))
    seeds = seeds_from(seed, len(originals))
    result = edit_events(guided, originals, strength=strength, sampler=used, mask=kept, seeds=seeds, **cond)
    after = result.data.unflatten(0, (len(events), n)).cpu()
    changed = float((after != events.unsqueeze(1)).double().mean())
    console.print_settings(
        {
            "strength": f"{strength:g}, tau = {result.tau:.4g}",
            "sampler": short_text(used),
            "network calls": str(result.nfe),
            "changed": f"{100 * changed:.3g} % of the values",
        }
        | guidance.summary()
    )
    write_sheet(out, events, after, model.data, None if mask is None else (~mask).expand_as(events), "edits")
