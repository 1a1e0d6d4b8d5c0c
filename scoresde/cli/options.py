"""Options that several commands share."""

from __future__ import annotations

import typer

__all__ = [
    "AVERAGE",
    "BINS",
    "BOUND",
    "CHECKPOINT",
    "CLASSES",
    "CONDITION",
    "DATA",
    "DEQUANTIZATION",
    "DEVICE",
    "DRAWS",
    "EVALUATIONS",
    "IMPORT",
    "MAX_NFE",
    "METHOD",
    "NETWORK",
    "NODES",
    "PARAMETERIZATION",
    "PROCESS",
    "QUIET",
    "RAW",
    "READ",
    "SAMPLER",
    "SCHEDULE",
    "SEED",
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
_LIKELIHOOD = "Likelihood and its error"
_BOUNDS = "Variational bounds"

CHECKPOINT = typer.Argument(..., help="A run directory (its newest checkpoint is used), or one checkpoint.")
RAW = typer.Option(False, "--raw", help="Use the trained weights instead of their moving average (EMA).")
AVERAGE = typer.Option(
    None,
    "--average",
    help="Use an average of this relative length, in (0, 0.2887]; needs a run trained with --lengths.",
    show_default=False,
)
IMPORT = typer.Option(
    [],
    "--import",
    metavar="MODULE",
    help="Import a Python module of yours, whose classes can then be written like those of scoresde; repeatable.",
    show_default=False,
)

DATA = typer.Option(
    ...,
    "--data",
    help="digits, fashion-mnist, a toy such as ring, a folder of images, hf:NAME, or a file: .npy, .csv, .parquet …",
    show_default=False,
    rich_help_panel=_DATA,
)
BINS = typer.Option(
    None, "--bins", help="The values in a file are integers 0 … bins-1 (8-bit images: 256).", rich_help_panel=_DATA
)
CLASSES = typer.Option(
    None,
    "--classes",
    help="The values in a file are categories 0 … classes-1, without an order (bits: 2).",
    rich_help_panel=_DATA,
)
READ = typer.Option(
    [],
    "--read",
    metavar="NAME=VALUE",
    help="Option of the data reader, e.g. size=32 for a folder of images, label=kind or columns=age,income for a "
    "table; repeatable. scoresde info --data lists them all.",
    show_default=False,
    rich_help_panel=_DATA,
)
CONDITION = typer.Option(
    None,
    "--condition",
    help="What the model is conditioned on: label for the classes of the data, names of entries of a .npz file, of "
    "columns of a table, or a second folder of images with the same file names; separated by commas.",
    show_default=False,
    rich_help_panel=_DATA,
)
TEST = typer.Option(
    None,
    "--test-fraction",
    help="Fraction of the events that is held out, for data without a test part; default 0.2.",
    rich_help_panel=_DATA,
)
MOST_SEED = 2**63 - 1
"""The largest seed, see `scoresde._core.checks.check_seed`."""

SPLIT = typer.Option(
    None, "--split-seed", min=0, help="Random seed of the choice of held-out events; default 0.", rich_help_panel=_DATA
)

NETWORK = typer.Option(
    None,
    "--network",
    help='E.g. "MLP(width=128)" or "UNet()"; default: one that suits the data.',
    rich_help_panel=_MODEL,
)
SCHEDULE = typer.Option(None, "--schedule", help='Noise schedule, e.g. "Cosine()".', rich_help_panel=_MODEL)
PROCESS = typer.Option(
    None,
    "--process",
    help='Forward process, e.g. "VPSDE(tau_min=1e-4)", "VE()", "Flow()" or, of categories, "Categorical(27)".',
    rich_help_panel=_MODEL,
)
PARAMETERIZATION = typer.Option(
    None, "--parameterization", help='What the network predicts: "V()", "Eps()", "X0()" …', rich_help_panel=_MODEL
)
TIMESTEPS = typer.Option(
    None,
    "--timesteps",
    help='Distribution of the timesteps in training, e.g. "StratifiedTimesteps()".',
    rich_help_panel=_MODEL,
)

SAMPLER = typer.Option(
    None, "--sampler", help='E.g. "DDIM(steps=50)", "Adams(steps=40)"; default as in Python.', show_default=False
)
METHOD = typer.Option(
    None,
    "--method",
    help='How the model is conditioned on what is known: "MMPS(iterations=10)", "PiGDM()", "TwistedSMC()" …',
    show_default=False,
)
SEED = typer.Option(0, "--seed", min=0, max=MOST_SEED, help="Random seed.")

DEVICE = typer.Option(None, "--device", help="cpu, cuda, cuda:1 …; default: a GPU if there is one.")
QUIET = typer.Option(False, "--quiet", "-q", help="Show no progress bars.")

TRACE = typer.Option(
    None,
    "--trace",
    help='Divergence of the ODE: "ExactTrace()" or "Hutchinson(probes=8)"; default: exact up to 16 dimensions.',
    rich_help_panel=_LIKELIHOOD,
)
STDERR = typer.Option(
    None,
    "--stderr",
    help="Requested standard error of the random trace per event, nats; probes are added until it is met.",
    rich_help_panel=_LIKELIHOOD,
)
NODES = typer.Option(
    40, "--nodes", help="Quadrature nodes at which the divergence is evaluated.", rich_help_panel=_LIKELIHOOD
)
TOLERANCE = typer.Option(
    0.1,
    "--tolerance",
    help="Error tolerance of one step of the ODE solver, in units of the noise scale.",
    rich_help_panel=_LIKELIHOOD,
)
MAX_NFE = typer.Option(
    10_000,
    "--max-nfe",
    help="Maximal number of network calls of the ODE solver per event.",
    rich_help_panel=_LIKELIHOOD,
)
STRICT = typer.Option(
    False,
    "--strict",
    help="Fail if the solver reaches --max-nfe for an event, instead of leaving that event out.",
    rich_help_panel=_LIKELIHOOD,
)
DRAWS = typer.Option(
    None,
    "--draws",
    help="Random dequantizations per event, for integer data; default 1.",
    rich_help_panel=_LIKELIHOOD,
)
DEQUANTIZATION = typer.Option(
    None,
    "--dequantization",
    help='Distribution inside a bin, for integer data, e.g. "TruncatedNormalDequantization(std=0.1)"; default: '
    "uniform, or what suits the network.",
    rich_help_panel=_LIKELIHOOD,
)
BOUND = typer.Option(
    False,
    "--bound",
    help="Also compute variational bounds, in continuous time and for chains of steps.",
    rich_help_panel=_BOUNDS,
)
STEPS = typer.Option(
    None,
    "--steps",
    help="Number of steps of a chain; repeatable; default 100 and 1000.",
    show_default=False,
    rich_help_panel=_BOUNDS,
)
EVALUATIONS = typer.Option(
    None,
    "--evaluations",
    help="Network calls per event and bound, a multiple of 8; default 64.",
    rich_help_panel=_BOUNDS,
)
