"""The recipe of a training run, from the options of ``scoresde train``, and the model that it builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoresde.cli.overrides import Overrides
    from scoresde.cli.parsing import Modules
    from scoresde.data import Data
    from scoresde.model import ScoreModel
    from scoresde.training.defaults import Recipe

__all__ = ["build_model", "training_recipe", "with_kinds_of"]


def training_recipe(
    data: Data,
    old: dict[str, Any] | None,
    overrides: Overrides,
    training: dict[str, Any],
    hybrid: float | None,
    modules: Modules,
    resume: bool,
    conditions: Sequence[str] | None = None,
    begun: Mapping[str, Any] | None = None,
    stated: bool = False,
) -> Recipe:
    """The default recipe for the data, or that of an earlier run, with the options in it.

    Args:
        data: What is trained on.
        old: The ``config.json`` of an earlier run, or None.
        overrides: Parts of the model.
        training: Fields of `Training`; None keeps the default, or what the earlier run had.
        hybrid: Weight of the loss of the reverse variance, or None.
        modules: The user's own modules.
        conditions: Names of the conditions of a new network; None takes all of the data but class labels.
        begun: The record of a start from the weights of the earlier run, whose network then gets the conditions that it
            lacks; empty or None for another run.
        stated: Whether the user names the conditions.
        resume: Whether the earlier run is continued. Otherwise it is repeated with the number of steps that it had,
            also if this number came from a time.

    Raises:
        ValueError: If an earlier run is named and parts of the model too.
    """
    from scoresde.cli.recorded_config import recorded_recipe
    from scoresde.objective.loss import Loss

    if old is None:
        recipe = overrides.recipe(data.description, len(data.train), conditions, **training)
    elif overrides.options:
        raise ValueError(
            f"--config, or --resume without --data, takes the model of the earlier run, got "
            f"{', '.join(overrides.options)} too; leave one of them out."
        )
    else:
        recipe = recorded_recipe(old, modules)
        if begun and not resume:
            recipe = _with_further_conditions(recipe, data, conditions)
        elif stated:
            _check_conditions(recipe, conditions)
        changes = {name: value for name, value in training.items() if value is not None}
        if not resume or "steps" in changes:
            changes.setdefault("minutes", None)
        recipe = replace(recipe, training=replace(recipe.training, **changes))
    if hybrid is None:
        return recipe
    if not isinstance(recipe.training.loss, Loss):
        raise ValueError(
            f"--hybrid learns the variance of a Gaussian step, got {type(recipe.training.loss).__name__}, a loss of "
            "categories; leave it out."
        )
    loss = replace(recipe.training.loss, hybrid=hybrid)
    return replace(recipe, training=replace(recipe.training, loss=loss))


def _with_further_conditions(recipe: Recipe, data: Data, names: Sequence[str] | None) -> Recipe:
    """The recipe of an earlier run for other data, with a network that also reads conditions that it did not."""
    from scoresde.training.condition_checks import all_conditions
    from scoresde.training.condition_defaults import chosen_conditions, network_conditions
    from scoresde.training.defaults import innermost, with_conditions

    shape = getattr(recipe.network, "event_shape", None)
    if shape is not None and tuple(shape) != data.description.model_shape:
        raise ValueError(
            f"--from takes a model of the data's shape, {data.description.model_shape}, got one of {tuple(shape)}; "
            "read the data in that shape, or start without --from."
        )
    own = all_conditions(recipe.network)
    inner = getattr(innermost(recipe.network), "event_shape", None)
    declared = network_conditions(data.description, chosen_conditions(data.description, names), inner)
    new = {name: condition for name, condition in declared.items() if name not in own}
    return with_conditions(recipe, {**own, **new}) if new else recipe


def with_kinds_of(old: Mapping[str, Any], data: Data) -> Data:
    """The data with the run's own description of the conditions that both have, and its scaling of integer values.

    Args:
        old: The ``config.json`` of the run from whose weights a training starts.
        data: What is trained on.

    Raises:
        ValueError: If a condition has classes of other names, or another number of them: the embeddings of the run
            would belong to other classes. If the run's data are integers and these are others.
    """
    import scoresde.data
    from scoresde.cli.console import classes_text, same_classes
    from scoresde.data import Description
    from scoresde.data.conditions.kinds import ClassCondition, VectorCondition
    from scoresde.storage import spec

    text = (old.get("model") or {}).get("data") or "None"
    if text == "None":
        return data
    before = spec.parse(text, spec.known_classes(scoresde.data), kind=Description, stored=True)
    kinds = dict(data.description.conditions)
    for name in before.conditions.keys() & kinds.keys():
        kind, own = before.conditions[name], kinds[name]
        if isinstance(kind, ClassCondition) and kind != own:
            raise ValueError(
                f"condition {name!r} must have the classes of the run, {kind.describe()}, got "
                f"{own.describe()}; use the same classes, or give the condition another name."
            )
        if isinstance(kind, VectorCondition) and isinstance(own, VectorCondition) and kind.size == own.size:
            kind = kind.spanning(own)
        kinds[name] = kind
    description = replace(data.description, conditions=kinds)
    if not same_classes(before, description):
        raise ValueError(
            f"the run's data are {classes_text(before)}, those of {description.name!r} are "
            f"{classes_text(description)}; train on the same classes, or start without --from."
        )
    if before.bins is not None:
        if description.bins != before.bins:
            got = "continuous values" if description.bins is None else f"integers 0 … {description.bins - 1}"
            raise ValueError(
                f"the run's data are integers 0 … {before.bins - 1}, whose scaling its weights have learned, "
                f"got {got}; train on the same values, with --bins {before.bins}, or start without --from."
            )
        description = replace(description, offset=before.offset, scale=before.scale)
    return replace(data, description=description)


def _check_conditions(recipe: Recipe, names: Sequence[str] | None) -> None:
    from scoresde.training.condition_checks import all_conditions

    own = all_conditions(recipe.network)
    if further := [name for name in names or () if name not in own]:
        raise ValueError(
            f"--config, or --resume, takes the model of the earlier run, which does not read {further[0]!r}; start a "
            "new run from its weights by --from."
        )


def build_model(recipe: Recipe, data: Data) -> ScoreModel:
    """The recipe's model with new weights; it has a learned variance if the loss asks for one."""
    from scoresde.model import ScoreModel
    from scoresde.objective.loss import Loss

    model = recipe.build(data, recipe.training.seed)
    loss = recipe.training.loss
    learned = isinstance(loss, Loss) and loss.hybrid > 0
    return ScoreModel(model.net, model.sde, model.parameterization, model.event_shape, model.data, learned)
