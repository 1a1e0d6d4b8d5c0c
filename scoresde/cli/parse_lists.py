"""Lists of integers and of classes, written as text such as ``"0-3,7"`` or ``"bag,coat"``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.distillation import FlowMap
    from scoresde.model import ScoreModel

__all__ = ["one_label", "parse_integers", "parse_labels", "parse_shares", "split_names"]


def parse_integers(text: str, name: str = "seeds") -> list[int]:
    """Integers and increasing ranges, e.g. ``"0-3,7"`` as [0, 1, 2, 3, 7].

    Args:
        text: The list.
        name: What the integers are, for the error text.

    Raises:
        ValueError: If the text has another form.
    """
    integers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            values = range(int(first), int(last if dash else first) + 1)
            if not values:
                raise ValueError
            integers += values
    except ValueError:
        raise ValueError(
            f'{name} are integers and increasing ranges, such as "0-63" or "3,5,8", got {text!r}.'
        ) from None
    return integers


def parse_shares(text: str | None) -> float | dict[str, float] | None:
    """A number, or one by name: ``"0.1"``, ``"text=0.1,label=0"``; None for None.

    Raises:
        ValueError: If the text has another form.
    """
    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        pairs = [part.partition("=") for part in text.split(",")]
        return {name.strip(): float(share) for name, _, share in pairs}
    except ValueError:
        raise ValueError(f'--condition-dropout takes 0.1, or "text=0.1,label=0.2", got {text!r}.') from None


def one_label(text: str, model: ScoreModel | FlowMap, count: int) -> Tensor:
    """One class, by number or name, as the label of ``count`` events, ``(count,)`` int64.

    Raises:
        ValueError: If it is not one class of the network.
    """
    import torch

    labels = parse_labels(text, model)
    if len(labels) != 1:
        raise ValueError(f"--label is one class, under which all events are scored, got {text!r}; name one.")
    return torch.full((count,), labels[0])


def split_names(text: str, names: Sequence[str]) -> list[str]:
    """The parts of a text between commas; a name that has commas itself is one part, the longest such name counts."""
    parts, words = text.split(","), []
    while parts:
        lengths = range(len(parts), 1, -1)
        length = next((n for n in lengths if ",".join(parts[:n]).strip() in names), 1)
        words.append(",".join(parts[:length]).strip())
        parts = parts[length:]
    return words


def parse_labels(text: str, model: ScoreModel | FlowMap) -> list[int]:
    """Class indices, e.g. of ``"0-3,bag"``: by name, or by index where no class name is itself a number.

    Raises:
        ValueError: If the network has no classes, or not one of these.
    """
    from scoresde._core.suggest import nearest
    from scoresde.data.tables.parse_columns import is_number
    from scoresde.nn import Classes

    condition = (getattr(model.net, "conditions", None) or {}).get("label")
    if not isinstance(condition, Classes):
        raise ValueError(
            f"--label needs a network that was trained with classes, got {text!r} for one without; train it with "
            "--condition label."
        )
    count = condition.count
    names = () if model.data is None or model.data.labels is None else model.data.labels
    labels: list[int] = []
    for word in split_names(text, names):
        splits = [(word[:i], word[i + 1 :]) for i, letter in enumerate(word) if letter == "-"]
        ranges = [(names.index(a), names.index(b)) for a, b in splits if a in names and b in names]
        if word in names:
            labels.append(names.index(word))
        elif ranges and ranges[0][0] <= ranges[0][1]:
            labels += range(ranges[0][0], ranges[0][1] + 1)
        elif names and (not word.replace("-", "").isdigit() or any(map(is_number, names))):
            raise ValueError(f"no class is named {word!r}; {nearest(word, names)}")
        else:
            labels += parse_integers(word, "labels")
    if wrong := [label for label in labels if label >= count]:
        raise ValueError(
            f"labels must be one of 0 ... {count - 1}, got {wrong[0]}; leave --label out to sample without one."
        )
    return labels
