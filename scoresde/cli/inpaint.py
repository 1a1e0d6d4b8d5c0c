"""``scoresde inpaint``: the masked part of an image or another event, drawn given the rest, beside the original."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import typer

from scoresde.cli import options
from scoresde.cli.guidance_options import GuidanceOptions
from scoresde.cli.model_options import ModelOptions

__all__ = ["inpaint"]


def inpaint(
    checkpoint: options.Checkpoint,
    image: options.Image,
    mask: Path = typer.Argument(
        None,
        help="An image: white where pixels are redrawn, black where they are kept; or a .npy file, true where entries "
        "are redrawn. Entries that are NaN are always drawn, so events that have some need no mask.",
        show_default=False,
    ),
    n: int = typer.Option(8, "-n", "--number", min=1, help="Number of draws."),
    keep_white: bool = typer.Option(False, "--keep-white", help="The mask is white, or true, where pixels are kept."),
    method: options.Method = None,
    sampler: options.Sampler = None,
    label: options.Label = None,
    condition: options.Condition = [],
    noise: float = typer.Option(
        0.0, "--noise", min=0.0, help="Standard deviation of noise in kept entries, data units."
    ),
    out: Path = typer.Option(
        None,
        "--out",
        help=".png: the original, what was seen of it, and the draws on one sheet; .npz: numbers in data units.",
        show_default=False,
    ),
    seed: options.Seed = 0,
    *,
    guidance: GuidanceOptions,
    weights: ModelOptions,
) -> None:
    """Draw the masked part of an image given the rest.

    Series, volumes and other data are given as .npy and written as .npz. So the future of a series is drawn given its
    past: write NaN for the future, or pass a mask.

    For example:

        scoresde inpaint runs/digits image.png mask.png --out draws.png

        scoresde inpaint runs/digits image.png mask.png -n 16 --method "MMPS(iterations=10)" --out draws.npz

        scoresde inpaint runs/classes image.png mask.png --label 3 --guidance 2 --out draws.png

        scoresde inpaint runs/series past.npy -n 20 --out futures.npz
    """
    from scoresde.cli.edited_output import check_sheet, check_shows, seeds_from, write_sheet
    from scoresde.cli.image_inputs import read_events, read_white, split_missing, without_missing
    from scoresde.cli.loading import as_score_model
    from scoresde.cli.outputs import check_writable
    from scoresde.cli.parsing import parse
    from scoresde.cli.posterior_options import parse_method
    from scoresde.sampling import Sampler

    check_sheet(out)
    check_writable(out)
    modules = weights.modules(checkpoint)
    chosen = None if sampler is None else parse(sampler, Sampler, modules)
    conditioning = None if method is None else parse_method(method, modules)

    from scoresde.cli import console
    from scoresde.cli.given_conditions import given_conditions, repeated, warn_of_nulls
    from scoresde.inverse import inpaint as inpaint_events

    model = as_score_model(weights.load(checkpoint, modules))
    check_shows(out, model)
    given = given_conditions(model, label, condition)
    warn_of_nulls(model, given)
    guided = guidance.guided(model, bool(given), partial(weights.load_average, checkpoint, modules))
    before = read_events(image, model)
    if mask is None:
        events, drawn = split_missing(before, model, image)
    else:
        white = read_white(mask, model)
        drawn = (~white if keep_white else white) | before.isnan()
        events = without_missing(before, model)
    seen = ~drawn
    cond: dict[str, Any] = dict(repeated(given, len(events)))
    seeds = seeds_from(seed, len(events))
    result = inpaint_events(guided, events, seen, conditioning, chosen, draws=n, noise_std=noise, seeds=seeds, **cond)
    share = float(drawn.double().mean())
    arrays = image.suffix.lower() == ".npy"
    where = f"where the mask is {'black' if keep_white else 'white'}" if mask is not None else "those that are NaN"
    console.print_settings(
        {
            "redrawn": f"{100 * share:.3g} % of the {'entries' if arrays else 'pixels'}, {where}",
            "network calls": str(result.nfe),
        }
        | guidance.summary()
    )
    shown = events if out is not None and out.suffix.lower() == ".png" else before  # a picture has no NaN
    write_sheet(out, shown, result.data, model.data, drawn.expand_as(events), "draws")
