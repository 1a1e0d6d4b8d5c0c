"""Groups of options of models: the weights of a run, and the parts of a new model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.cli.overrides import Overrides
    from scoresde.cli.parsing import Modules
    from scoresde.distillation import FlowMap
    from scoresde.model import ScoreModel
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["ModelOptions", "RecipeOptions"]

_MODEL = "Model"


@dataclass(frozen=True)
class ModelOptions:
    """Which weights of a run are used, on which device, and where the classes of its model are."""

    raw: options.Raw = False
    average: Annotated[
        float | None,
        typer.Option(
            "--average",
            help="Use an average of this relative length, in (0, 0.2887]; needs a run trained with --lengths.",
            show_default=False,
        ),
    ] = None
    imports: options.Imports = field(default_factory=list)
    device: options.Device = None

    def modules(self, checkpoint: Path) -> Modules:
        """The user's own modules: those that the run records, then those of ``--import``."""
        from scoresde.cli.recorded_config import import_recorded

        return import_recorded(checkpoint, self.imports)

    def load(self, run: Path | Checkpoint, modules: Modules, device: str | None = None) -> ScoreModel | FlowMap:
        """The model of a run; ``device`` is where it goes without ``--device``, by default a GPU if there is one."""
        from scoresde.cli.loading import load_model
        from scoresde.cli.parsing import known

        return load_model(run, self.device or device, self.raw, self.average, known(modules=modules))

    def load_average(
        self, run: Path | Checkpoint, modules: Modules, length: float, device: str | None = None
    ) -> ScoreModel | FlowMap:
        """The model of a run with its average of a relative length, whatever the options say of the weights."""
        return replace(self, raw=False, average=length).load(run, modules, device)


@dataclass(frozen=True)
class RecipeOptions:
    """The parts of a model, as text; what is not given has a default that suits the data."""

    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help='E.g. "MLP(width=128)" or "UNet()"; default: one that suits the data.',
            rich_help_panel=_MODEL,
        ),
    ] = None
    schedule: Annotated[
        str | None, typer.Option("--schedule", help='Noise schedule, e.g. "Cosine()".', rich_help_panel=_MODEL)
    ] = None
    process: Annotated[
        str | None,
        typer.Option(
            "--process",
            help='Forward process, e.g. "VPSDE(tau_min=1e-4)", "VE()", "Flow()" or, of categories, "Categorical(27)".',
            rich_help_panel=_MODEL,
        ),
    ] = None
    parameterization: Annotated[
        str | None,
        typer.Option(
            "--parameterization",
            help='What the network predicts: "V()", "Eps()", "X0()" …',
            rich_help_panel=_MODEL,
        ),
    ] = None
    timesteps: Annotated[
        str | None,
        typer.Option(
            "--timesteps",
            help='Distribution of the timesteps in training, e.g. "StratifiedTimesteps()".',
            rich_help_panel=_MODEL,
        ),
    ] = None

    def overrides(self, modules: Modules, loss: str | None = None, weighting: str | None = None) -> Overrides:
        """The parts as objects, with a loss and a weighting; see `parse_overrides`."""
        from scoresde.cli.overrides import parse_overrides

        return parse_overrides(**vars(self), loss=loss, weighting=weighting, modules=modules)
