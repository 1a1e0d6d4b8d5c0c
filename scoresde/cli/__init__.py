"""The command line: ``scoresde train | sample | calibrate | likelihood | verify | compare | info``.

Each command has a file of its own and only chooses objects of the package; nothing is computed here. `options` holds
the options that several commands share, and `parsing` turns text into objects. `loading` reads data and models,
`outputs` writes files, and `errors` turns exceptions into one sentence. A command imports the package's heavy parts
when it runs, after it has checked its options, so that help and error messages come fast.
"""

from __future__ import annotations

from scoresde.cli.app import app

__all__ = ["app"]
