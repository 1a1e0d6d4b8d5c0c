"""Tutorial pages: each notebook of docs/tutorials with the text and the figures that its last run produced.

`make docs` runs the notebooks first (docs/_hooks/notebooks.py). Without a current run a page shows the code and says
so, unless ``SCORESDE_DOCS=complete``.
"""

from __future__ import annotations

import notebooks
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from notebook_page import page
from results import must_be_complete

_log = get_plugin_logger("tutorials")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """One page and one download for each notebook; its Python file stays a download too."""
    for name in notebooks.names():
        done = notebooks.executed(name)
        if done is None:
            if must_be_complete():
                raise PluginError(f"{name} has not run since it or the library changed; run make tutorials.")
            _log.info("%s is shown without outputs; make tutorials runs it", name)
        notebook = done or notebooks.read(name)
        files.append(File.generated(config, f"tutorials/{name}.md", content=page(name, notebook, ran=done is not None)))
        files.append(File.generated(config, f"tutorials/{name}.ipynb", content=notebooks.portable(notebook)))
    return files
