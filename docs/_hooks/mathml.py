r"""Formulas become MathML when the site is built, so that the browser sets them with no script or font to load.

`pymdownx.arithmatex` marks the formulas, in pages and in docstrings alike; what it marks is translated here.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.+?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Translate every marked formula of a page."""
    content = _INLINE.sub(lambda found: convert(html.unescape(found[1])), content)
    return _DISPLAY.sub(lambda found: _scrolled(convert(html.unescape(found[1]), display="block")), content)


def _scrolled(formula: str) -> str:
    """A formula in a box of its own, which a narrow screen scrolls sideways."""
    return f'<div class="formula">{formula}</div>'
