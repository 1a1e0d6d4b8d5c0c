"""The report of a comparison: `write_report` turns stored results into a web page, a Markdown file and PNG figures.

`summary` holds the rows of the tables, `charts` and `images` draw the figures, `html` renders the templates, which hold
the text. The report computes nothing but means over seeds; every number comes from ``results.json``.
"""

from __future__ import annotations

from scoresde.experiments.report.html import write_report
from scoresde.experiments.report.summary import Summary

__all__ = ["Summary", "write_report"]
