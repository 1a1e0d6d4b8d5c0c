"""What can be done without writing Python? `scoresde train | sample | calibrate | likelihood | compare | info`.

Thin: every choice is an object of the package.

`options` holds what several commands share, `objects` turns text into objects, `failures` shows errors as sentences;
each command has a file of its own. The package's heavy parts are imported when a command runs, so that help is quick.
"""

from __future__ import annotations

from scoresde.cli.app import app

__all__ = ["app"]
