"""How does a comparison look? `write` turns its folder into a page, a Markdown file and PNGs; only this package draws.

`story` says what the numbers are called and how they are rounded, `charts` draws, `ink` holds colours and type, `tiles`
lays pictures side by side, and the templates hold the words. Nothing is computed that ``results.json`` does not say.
"""

from __future__ import annotations

from scoresde.report.histogram import save_histogram
from scoresde.report.page import write
from scoresde.report.story import tell
from scoresde.report.tiles import picture, save_picture

__all__ = ["picture", "save_histogram", "save_picture", "tell", "write"]
