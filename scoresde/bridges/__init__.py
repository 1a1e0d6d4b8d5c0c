"""Bridges: models of other code bases in, models and samplers of this package out; one module per origin.

`load` opens any of them in one line, `open_model` also says what was found and what was assumed, `save_opened` writes a
run. No module imports the other package before it is needed.
"""

from scoresde.bridges.load import ORIGINS, load, open_model
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.saving import save_opened

__all__ = ["ORIGINS", "Finding", "Opened", "load", "open_model", "save_opened"]
