"""The version of the site: in the foot of each page, and a choice of versions where sites of several are kept together.

`make docs-version VERSION=0.2` builds into ``site-versions/0.2`` and lists the folders beside it in ``versions.js``.
This is a script and not JSON, so that the choice also works in pages that are opened from a folder.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

import scoresde

VARIABLE = "SITE_VERSION"


def _order(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def write_versions(folder: Path) -> list[str]:
    """List the versions in a folder, the newest first, for the pages of all; its front page leads to the newest."""
    versions = sorted((path.parent.name for path in folder.glob("*/index.html")), key=_order, reverse=True)
    (folder / "versions.js").write_text(f"var siteVersions = {json.dumps(versions)};\n", encoding="utf-8")
    address = f"{versions[0]}/index.html"
    page = f"""<!doctype html>
<html lang="en">
<title>scoresde</title>
<meta http-equiv="refresh" content="0; url={address}">
<a href="{address}">scoresde {versions[0]}</a>
"""
    (folder / "index.html").write_text(page, encoding="utf-8")
    return versions


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """State the version."""
    config.copyright = f"scoresde {scoresde.__version__}"
    config.extra["site_version"] = os.environ.get(VARIABLE, "")
    return config


def on_post_build(config: MkDocsConfig) -> None:
    """Renew the list of versions."""
    if config.extra["site_version"]:
        write_versions(Path(config.site_dir).parent)
