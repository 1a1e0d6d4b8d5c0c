"""The report of a comparison: `write_report` turns stored results into a web page, a Markdown file and PNG figures.

`summary` holds the rows of the tables and `report_tables` their columns; `charts` and the `parts` for each form of data
draw the figures as `pictures`; `page` renders the templates, which hold the text. Apart from means over seeds and
statistics of the stored samples the report computes nothing: every number comes from ``results.json``.
"""

from __future__ import annotations

from scoresde.experiments.report.html import write_report
from scoresde.experiments.report.summary import Summary

__all__ = ["Summary", "write_report"]
