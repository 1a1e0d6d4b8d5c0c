"""Folders in the navigation: an entry that ends in "/" stands for the pages of this folder, by name.

A page ``index.md`` comes first. A folder without pages leaves no entry.
"""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files


def _pages(folder: str, files: Files) -> list[str]:
    paths = [file.src_uri for file in files.documentation_pages() if file.src_uri.startswith(folder)]
    return sorted(paths, key=lambda path: (path != f"{folder}index.md", path))


def expanded(items: list[Any], files: Files) -> list[Any]:
    """A navigation whose folders are replaced by their pages; an entry of one page has no list below it."""
    result: list[Any] = []
    for item in items:
        title, value = next(iter(item.items())) if isinstance(item, dict) else (None, item)
        if isinstance(value, list):
            result.append({title: expanded(value, files)})
        elif not isinstance(value, str) or not value.endswith("/"):
            result.append(item)
        elif pages := _pages(value, files):
            if title is None:
                result.extend(pages)
            else:
                result.append({title: pages[0] if len(pages) == 1 else pages})
    return result


@event_priority(-50)  # after the hooks that add pages
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the folders of the navigation by their pages."""
    config.nav = expanded(config.nav or [], files)
    return files
