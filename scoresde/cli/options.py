"""Which options do several commands share?"""

from __future__ import annotations

import typer

__all__ = [
    "BINS",
    "DATA",
    "DEVICE",
    "NETWORK",
    "PARAMETERIZATION",
    "PROCESS",
    "QUIET",
    "SCHEDULE",
    "SPLIT",
    "TEST",
    "TIMES",
]

_MODEL = "Model"
_DATA = "Data"

DATA = typer.Option(
    ...,
    "--data",
    help="digits, mnist, fashion-mnist, a toy such as ring or moons, or a .npy/.npz file of any shape.",
    show_default=False,
    rich_help_panel=_DATA,
)
BINS = typer.Option(None, "--bins", help="A file's values are levels 0 … bins-1.", rich_help_panel=_DATA)
TEST = typer.Option(
    0.2, "--test-fraction", help="Share that is held out of data without a split.", rich_help_panel=_DATA
)
SPLIT = typer.Option(0, "--split-seed", help="Which events are held out.", rich_help_panel=_DATA)

NETWORK = typer.Option(
    None, "--network", help='E.g. "MLP(width=128)", "UNet()"; default: one that suits the data.', rich_help_panel=_MODEL
)
SCHEDULE = typer.Option(None, "--schedule", help='The clock, e.g. "Cosine()".', rich_help_panel=_MODEL)
PROCESS = typer.Option(None, "--process", help='E.g. "VPSDE(tau_min=1e-4)", "VE()", "Flow()".', rich_help_panel=_MODEL)
PARAMETERIZATION = typer.Option(
    None, "--parameterization", help='What the network says: "V()", "Eps()", "X0()" …', rich_help_panel=_MODEL
)
TIMES = typer.Option(
    None, "--times", help='How times are drawn in training, e.g. "Stratified()".', rich_help_panel=_MODEL
)

DEVICE = typer.Option(None, "--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one.")
QUIET = typer.Option(False, "--quiet", "-q", help="No progress bars.")
