"""Options of ``scoresde likelihood``: the ODE's likelihood and its error, and variational bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from scoresde.cli.parsing import Modules
    from scoresde.data import Description
    from scoresde.evaluation import BoundSettings, LikelihoodSettings
    from scoresde.likelihood import Trace

__all__ = ["BoundOptions", "ODEOptions", "check_options"]

_ODE = "Likelihood and its error"
_BOUNDS = "Variational bounds"


@dataclass(frozen=True)
class BoundOptions:
    """Which variational bounds are computed."""

    bound: Annotated[
        bool,
        typer.Option(
            "--bound",
            help="Also compute variational bounds, in continuous time and for chains of steps.",
            rich_help_panel=_BOUNDS,
        ),
    ] = False
    steps: Annotated[
        list[int] | None,
        typer.Option(
            "--steps",
            help="Number of steps of a chain; repeatable; default 100 and 1000.",
            show_default=False,
            rich_help_panel=_BOUNDS,
        ),
    ] = None
    evaluations: Annotated[
        int | None,
        typer.Option(
            "--evaluations",
            help="Network calls per event and bound, a multiple of 8; default 64.",
            rich_help_panel=_BOUNDS,
        ),
    ] = None

    def settings(self) -> BoundSettings | None:
        """The settings of the bounds; None without ``--bound``.

        Raises:
            ValueError: If there are settings without ``--bound``, or they are out of range.
        """
        values = {"--steps": self.steps or None, "--evaluations": self.evaluations}
        names = [name for name, value in values.items() if value is not None]
        if names and not self.bound:
            raise ValueError(f"{' and '.join(names)} are settings of the bounds, which are not requested; add --bound.")
        if not self.bound:
            return None
        from scoresde.evaluation import BoundSettings

        settings = BoundSettings() if self.evaluations is None else BoundSettings(self.evaluations)
        return replace(settings, steps=tuple(self.steps)) if self.steps else settings


@dataclass(frozen=True)
class ODEOptions:
    """How the likelihood of the probability-flow ODE is computed, and how accurately."""

    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            help='Divergence of the ODE: "ExactTrace()" or "Hutchinson(probes=8)"; default: exact up to 16 dimensions.',
            rich_help_panel=_ODE,
        ),
    ] = None
    stderr: Annotated[
        float | None,
        typer.Option(
            "--stderr",
            help="Requested standard error of the random trace per event, nats; probes are added until it is met.",
            rich_help_panel=_ODE,
        ),
    ] = None
    nodes: Annotated[
        int,
        typer.Option("--nodes", help="Quadrature nodes at which the divergence is evaluated.", rich_help_panel=_ODE),
    ] = 40
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            help="Error tolerance of one step of the ODE solver, in units of the noise scale.",
            rich_help_panel=_ODE,
        ),
    ] = 0.1
    max_nfe: Annotated[
        int,
        typer.Option(
            "--max-nfe", help="Maximal number of network calls of the ODE solver per event.", rich_help_panel=_ODE
        ),
    ] = 10_000
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail if the solver reaches --max-nfe for an event, instead of leaving that event out.",
            rich_help_panel=_ODE,
        ),
    ] = False
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            help="Random dequantizations per event, for integer data; default 1.",
            rich_help_panel=_ODE,
        ),
    ] = None
    dequantization: Annotated[
        str | None,
        typer.Option(
            "--dequantization",
            help='Distribution inside a bin, for integer data, e.g. "TruncatedNormalDequantization(std=0.1)"; default: '
            "uniform, or what suits the network.",
            rich_help_panel=_ODE,
        ),
    ] = None

    def settings(
        self, modules: Modules, bounds: BoundSettings | None, seed: int, batch_size: int
    ) -> LikelihoodSettings:
        """The settings of the likelihood; without ``--trace``, the one that `for_data` chooses is missing.

        Args:
            modules: The user's own modules.
            bounds: Of the variational bounds; None for none.
            seed, batch_size: Of the evaluation.

        Raises:
            ValueError, TypeError: If a text cannot be read, or a standard error is requested of an exact trace.
        """
        from scoresde.cli.parsing import parse
        from scoresde.likelihood import Dequantization

        text, trace = self.dequantization, self._trace(modules)
        dequantization = None if text is None else parse(text, Dequantization, modules)
        from scoresde.evaluation import LikelihoodSettings  # takes longer than the answer to a typo

        return LikelihoodSettings(
            trace,
            self.tolerance,
            batch_size=batch_size,
            seed=seed,
            draws=1 if self.draws is None else self.draws,
            nodes=self.nodes,
            dequantization=dequantization,
            max_nfe=self.max_nfe,
            strict=self.strict,
            bounds=bounds,
        )

    def _trace(self, modules: Modules) -> Trace | None:
        from scoresde.cli.parsing import parse
        from scoresde.likelihood import Hutchinson, Trace

        if self.trace is None:
            return None
        trace = parse(self.trace, Trace, modules)
        if self.stderr is None:
            return trace
        if isinstance(trace, Hutchinson):
            return replace(trace, stderr=self.stderr)
        raise ValueError(
            f"--stderr needs random probes, got --trace {self.trace!r}, which has no error; leave one of them out."
        )

    def for_data(self, settings: LikelihoodSettings, description: Description) -> LikelihoodSettings:
        """The settings with a trace that suits the dimension, and the requested standard error if it is random."""
        from scoresde.likelihood import Hutchinson
        from scoresde.likelihood.ode.trace import default_trace

        if settings.trace is not None:
            return settings
        trace = default_trace(description.model_dims)
        if self.stderr is not None and isinstance(trace, Hutchinson):
            trace = replace(trace, stderr=self.stderr)
        return replace(settings, trace=trace)


def check_options(description: Description, ode: ODEOptions, bounds: BoundOptions, bins: int | None) -> None:
    """Refuses options that the data do not have, and other bins than those of training.

    Args:
        description: Of the data.
        ode, bounds: The options.
        bins: Of ``--bins``.

    Raises:
        ValueError: Names the options.
    """
    of_ode = {name: getattr(ode, name) for name in ("trace", "stderr", "draws", "dequantization")} | {"bins": bins}
    if description.classes is not None:
        if given := _given(of_ode):
            raise ValueError(
                f"{description.name!r} holds categories, whose likelihood has bounds and no probability-flow ODE, got "
                f"{given} out. --bound adds the bounds of chains, and with it --evaluations 256 makes all more exact."
            )
    elif description.codes:
        if given := _given({**of_ode, "steps": bounds.steps}):
            raise ValueError(
                f"{description.name!r} holds numbers and categories, whose likelihood has a bound in continuous time "
                f"and no probability-flow ODE, got {given} out, or train on one-hot categories: --read one_hot=true. "
                "--bound --evaluations 256 makes the bound more exact."
            )
    elif description.bins is None and (ode.dequantization is not None or ode.draws is not None):
        raise ValueError(
            "bits per dimension need quantized data with their bins and scale, and only integer values are "
            f"dequantized, got {description.name!r} with bins=None; train on integers (a file with --bins 256), or "
            "leave --draws and --dequantization out to get nats."
        )
    elif bins is not None and bins != description.bins:
        raise ValueError(
            f"--bins must be those that the model was trained with, {description.bins}, got {bins}; bins are set in "
            f"training: scoresde train --bins {bins}."
        )


def _given(options: Mapping[str, Any]) -> str:
    """The options that were given, and that they are to be left out; empty for none."""
    names = [f"--{name}" for name, value in options.items() if value not in (None, [])]
    return f"{', '.join(names)}; leave {'it' if len(names) == 1 else 'them'}" if names else ""
