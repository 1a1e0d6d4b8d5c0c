"""Lists of integers and of classes, written as text such as ``"0-3,7"`` or ``"bag,coat"``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoresde.distillation import FlowMap
    from scoresde.model import ScoreModel

__all__ = ["parse_integers", "parse_labels"]


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


def parse_labels(text: str, model: ScoreModel | FlowMap) -> list[int]:
    """Class indices, e.g. of ``"0-3,bag"``: by name, or by index where no class name is itself a number.

    Raises:
        ValueError: If the network has no classes, or not one of these.
    """
    from scoresde._core.suggest import nearest
    from scoresde.data.tables.parse_columns import is_number

    count = getattr(model.net, "num_classes", None)
    if count is None:
        raise ValueError(
            f"--labels needs a network that was trained with classes, got {text!r} for one without; train it with "
            'num_classes, such as --network "UNet(num_classes=10, null_class=True)".'
        )
    names = () if model.data is None or model.data.labels is None else model.data.labels
    labels: list[int] = []
    for word in (part.strip() for part in text.split(",")):
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
            f"labels must be one of 0 ... {count - 1}, got {wrong[0]}; leave --labels out to sample without one."
        )
    return labels
