"""Which options do several commands share?"""

from __future__ import annotations

import typer

__all__ = [
    "AVERAGE",
    "BINS",
    "BOUND",
    "DATA",
    "DEQUANTIZATION",
    "DEVICE",
    "DRAWS",
    "EVALUATIONS",
    "MAX_NFE",
    "NETWORK",
    "NODES",
    "PARAMETERIZATION",
    "PROCESS",
    "QUIET",
    "READ",
    "SCHEDULE",
    "SPLIT",
    "STDERR",
    "STEPS",
    "STRICT",
    "TEST",
    "TIMESTEPS",
    "TOLERANCE",
    "TRACE",
]

_MODEL = "Model"
_DATA = "Data"
_NUMBER = "The number and its error"
_BOUNDS = "Bounds beside it"

AVERAGE = typer.Option(
    None,
    "--average",
    help="Relative length, in (0, .2887], of another average, of a run with --lengths.",
    show_default=False,
)

DATA = typer.Option(
    ...,
    "--data",
    help="digits, fashion-mnist, a toy such as ring, a folder of pictures, hf:NAME, or a .npy, .csv or .parquet file.",
    show_default=False,
    rich_help_panel=_DATA,
)
BINS = typer.Option(None, "--bins", help="A file's values are levels 0 … bins-1.", rich_help_panel=_DATA)
READ = typer.Option(
    [],
    "--read",
    metavar="NAME=VALUE",
    help="What else reading needs, e.g. size=32 for a folder, label=kind for a table; once for each.",
    rich_help_panel=_DATA,
)
TEST = typer.Option(
    None, "--test-fraction", help="Share that is held out of data without a split; default 0.2.", rich_help_panel=_DATA
)
SPLIT = typer.Option(None, "--split-seed", help="Which events are held out; default 0.", rich_help_panel=_DATA)

NETWORK = typer.Option(
    None, "--network", help='E.g. "MLP(width=128)", "UNet()"; default: one that suits the data.', rich_help_panel=_MODEL
)
SCHEDULE = typer.Option(None, "--schedule", help='The clock, e.g. "Cosine()".', rich_help_panel=_MODEL)
PROCESS = typer.Option(None, "--process", help='E.g. "VPSDE(tau_min=1e-4)", "VE()", "Flow()".', rich_help_panel=_MODEL)
PARAMETERIZATION = typer.Option(
    None, "--parameterization", help='What the network says: "V()", "Eps()", "X0()" …', rich_help_panel=_MODEL
)
TIMESTEPS = typer.Option(
    None, "--timesteps", help='How times are drawn in training, e.g. "StratifiedTimesteps()".', rich_help_panel=_MODEL
)

DEVICE = typer.Option(None, "--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one.")
QUIET = typer.Option(False, "--quiet", "-q", help="No progress bars.")

TRACE = typer.Option(
    None,
    "--trace",
    help='Of the divergence: "ExactTrace()", "Hutchinson(probes=8)"; default exact up to 16 dimensions.',
    rich_help_panel=_NUMBER,
)
STDERR = typer.Option(
    None, "--stderr", help="Standard error of the trace per event, nats: probes are added.", rich_help_panel=_NUMBER
)
NODES = typer.Option(40, "--nodes", help="Where along the path the divergence is looked at.", rich_help_panel=_NUMBER)
TOLERANCE = typer.Option(
    0.1, "--tolerance", help="Of a step of the path, in units of the noise's scale.", rich_help_panel=_NUMBER
)
MAX_NFE = typer.Option(
    10_000, "--max-nfe", help="Network calls on one path before it is given up.", rich_help_panel=_NUMBER
)
STRICT = typer.Option(
    False, "--strict", help="Fail if an event is given up, instead of leaving it out.", rich_help_panel=_NUMBER
)
DRAWS = typer.Option(
    None, "--draws", help="Dequantization draws per event, for levels; default 1.", rich_help_panel=_NUMBER
)
DEQUANTIZATION = typer.Option(
    None,
    "--dequantization",
    help='Where in its cell a level lies: "Uniform()" (default, but for LevelSkip), "TruncatedNormalDequantization(std=0.1)".',
    rich_help_panel=_NUMBER,
)
BOUND = typer.Option(
    False, "--bound", help="Also the bounds in continuous time and along a chain.", rich_help_panel=_BOUNDS
)
STEPS = typer.Option(
    None, "--steps", help="Steps of the chain; once for each; default 100 and 1000.", rich_help_panel=_BOUNDS
)
EVALUATIONS = typer.Option(
    None,
    "--evaluations",
    help="Network calls per event and bound, a multiple of 8; default 64.",
    rich_help_panel=_BOUNDS,
)
