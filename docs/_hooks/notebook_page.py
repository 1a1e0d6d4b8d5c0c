"""The Markdown of a tutorial: its text, its code, and what its cells printed and drew."""

from __future__ import annotations

import html
import re
from typing import Any

import notebooks
from nbformat import NotebookNode

_NOT_RUN = """
!!! note "Without outputs"
    This page was built without running its notebook. `make docs` runs it.
"""


def page(name: str, notebook: NotebookNode, *, ran: bool) -> str:
    """The Markdown of a tutorial."""
    parts = [_front(notebook)]
    figures = 0
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            if number == 0:
                parts.append(_downloads(name, notebook) + ("" if ran else _NOT_RUN))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in _joined_streams(cell.outputs):
            is_figure = notebooks.SVG in output.get("data", {})
            figures += is_figure
            parts.append(_figure(output, cell.metadata.get("alt", ""), figures) if is_figure else _text(output))
    return "\n\n".join(part for part in parts if part) + "\n"


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with what was printed in several parts as one."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1] = NotebookNode(joined[-1] | {"text": _joined(joined[-1].text) + _joined(output.text)})
        else:
            joined.append(output)
    return joined


def _front(notebook: NotebookNode) -> str:
    """Front matter: the description that search engines show."""
    plain = re.sub(r"[*`$]|\[(.*?)\]\(.*?\)", r"\1", notebooks.summary(notebook))
    return f"---\ndescription: >-\n  {plain}\n---"


def _downloads(name: str, notebook: NotebookNode) -> str:
    about = notebook.metadata.get("scoresde", {})
    ran = f" The outputs took {about['seconds']} s of one CPU core." if about else ""
    return (
        f'<p class="sd-downloads" markdown>[Notebook]({name}.ipynb){{ download="{name}.ipynb" }} · '
        f'[Python file]({name}.py){{ download="{name}.py" }}{ran}</p>'
    )


def _figure(output: NotebookNode, alt: str, number: int) -> str:
    """The figure as inline SVG in the colors of the page, described for screen readers."""
    svg = own_ids(_joined(output.data[notebooks.SVG]), f"fig{number}-")
    svg = svg.replace(notebooks.LABEL, html.escape(alt), 1)
    return f'<figure class="sd-figure" data-search-exclude>\n{re.sub(chr(10) + "+", chr(10), svg)}\n</figure>'


def own_ids(svg: str, prefix: str) -> str:
    """Identifiers that no other figure of the page has."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)


def _text(output: NotebookNode) -> str:
    """What a cell printed or returned; a table of pandas as a table."""
    if output.output_type == "error":
        raise ValueError(f"a tutorial stored an error: {output.ename}: {output.evalue}")
    data: dict[str, Any] = output.get("data", {})
    if "text/html" in data and "<table" in (table := _joined(data["text/html"])):
        table = re.sub(r"<style.*?</style>|\s*\n\s*", "", table, flags=re.DOTALL).replace(' border="1"', "")
        return f'<div class="sd-table">{table}</div>'
    text = output.text if output.output_type == "stream" else data.get("text/plain", "")
    text = _joined(text).rstrip()
    return f'<pre class="sd-output"><samp>{html.escape(text)}</samp></pre>' if text else ""


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
