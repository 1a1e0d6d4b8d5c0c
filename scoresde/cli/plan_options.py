"""Options of ``scoresde compare`` that change the plan of the comparison; everything else keeps its default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scoresde.cli.parsing import Modules, parse

if TYPE_CHECKING:
    from scoresde.experiments.plan import Comparison
    from scoresde.likelihood import Trace
    from scoresde.objective.weighting import Weighting
    from scoresde.sampling import Sampler

__all__ = ["PlanOptions", "parse_plan_options"]


@dataclass(frozen=True)
class PlanOptions:
    """Parts of a plan that options replace; None and empty keep the plan's own.

    Attributes:
        weightings, samplers: Replace those of the plan.
        calibrated: True adds a calibrated row for each sampler that draws no noise; False removes the calibrated rows;
            None keeps those of the plan, where ``samplers`` does not replace it.
        seeds: Number of seeds.
        n: Number of samples per sampler.
        limit: Number of scored events.
        trace: Of the likelihood.
        bounds: Whether bounds are computed.
    """

    weightings: tuple[Weighting, ...] = ()
    samplers: tuple[Sampler, ...] = ()
    calibrated: bool | None = None
    seeds: int = 1
    n: int | None = None
    limit: int | None = None
    trace: Trace | None = None
    bounds: bool = True

    def plan(self, default: Comparison) -> Comparison:
        """The default plan with these parts in it.

        Raises:
            ValueError: If ``calibrated`` is true and no sampler can be calibrated, or the plan is not valid.
        """
        scoring = default.scoring if self.bounds else replace(default.scoring, bounds=None)
        if self.limit is not None:
            scoring = replace(scoring, limit=self.limit)
        if self.trace is not None:
            scoring = replace(scoring, trace=self.trace)
        return replace(
            default,
            weightings=self.weightings or default.weightings,
            samplers=self._samplers(self.samplers or default.samplers),
            seeds=tuple(range(self.seeds)),
            n=self.n,
            scoring=scoring,
        )

    def _samplers(self, samplers: Sequence[Any]) -> tuple[Any, ...]:
        from scoresde.experiments.plan import Calibrated
        from scoresde.sampling import StepSampler

        if self.calibrated is None:
            return tuple(samplers)
        plain = [sampler for sampler in samplers if not isinstance(sampler, Calibrated)]
        if not self.calibrated:
            return tuple(plain)
        steps = [s for s in plain if isinstance(s, StepSampler) and not s.stochastic and s.order is not None]
        if not steps:
            raise ValueError(
                "--calibrated needs a step sampler that draws no noise, got "
                f'{", ".join(type(sampler).__name__ for sampler in plain)}; add --sampler "Adams(steps=20)".'
            )
        fitted = {entry.sampler: entry for entry in samplers if isinstance(entry, Calibrated)}
        rows = []
        for sampler in plain:
            rows += [sampler, fitted.get(sampler) or Calibrated(sampler)] if sampler in steps else [sampler]
        return tuple(rows)


def parse_plan_options(
    weightings: Sequence[str] | None = None,
    samplers: Sequence[str] | None = None,
    trace: str | None = None,
    modules: Modules = (),
    **options: Any,
) -> PlanOptions:
    """The options as objects.

    Args:
        weightings, samplers, trace: Texts; None where an option is not given.
        modules: The user's own modules.
        **options: Other fields of `PlanOptions`.

    Raises:
        ValueError, TypeError: If a text cannot be read, or there is no seed.
    """
    from scoresde.likelihood import Trace
    from scoresde.objective.weighting import Weighting
    from scoresde.sampling import Sampler

    if options.get("seeds", 1) < 1:
        raise ValueError(f"--seeds must be at least 1, got {options['seeds']}.")
    return PlanOptions(
        weightings=tuple(parse(text, Weighting, modules) for text in weightings or ()),
        samplers=tuple(parse(text, Sampler, modules) for text in samplers or ()),
        trace=None if trace is None else parse(trace, Trace, modules),
        **options,
    )
