r"""Settings as text: the Python call that makes an object, `MinSNR(gamma=5)`, with `parse(to_text(x), known) == x`.

A dataclass, a number, a string, `True`, `False`, `None`, `inf`, `nan`, and tuples, lists and dicts of these have a text
form, nested too. Text is parsed and never evaluated: only classes in `known` are called, and everything else
(operators, attributes, comprehensions ...) is refused. In JSON a setting is this text in a string.

Every init field is written, even if it equals its default, so that a later change of a default does not change a stored
run. `writer` makes the text, `reader` parses it, `classes` finds the known classes.
"""

from scoresde.storage.spec.classes import Known, known_classes
from scoresde.storage.spec.reader import parse
from scoresde.storage.spec.writer import MAX_DEPTH, MAX_LENGTH, to_text

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "Known", "known_classes", "parse", "to_text"]
