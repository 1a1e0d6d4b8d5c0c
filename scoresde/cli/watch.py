"""``scoresde watch``: the page of a run in progress, served to the browser on this machine."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["watch"]


def watch(
    run: Path = typer.Argument(..., help="Folder of a run or a comparison.", show_default=False),
    port: int = typer.Option(8765, "--port", min=0, max=65535, help="Port on this machine; 0 takes a free one."),
    refresh: float = typer.Option(10.0, "--refresh", min=1.0, help="Seconds between looks for news."),
) -> None:
    """Watch a run in progress in the browser.

    The page shows the training loss, the held-out loss by log-SNR and the latest samples, and looks for news by itself.
    For a comparison it shows all of its models, and the report when that is written. It is served on the loopback
    address: only this machine can open it. Ctrl-C ends the server; the run goes on.

    For example:

        scoresde watch runs/digits

        scoresde watch runs/demo --port 0
    """
    from scoresde.cli import console
    from scoresde.experiments.report.progress import progress_page, runs_in
    from scoresde.experiments.report.server import PageServer

    runs_in(run)
    with PageServer(lambda: progress_page(run, refresh), port, keep=refresh / 2) as server:
        console.print_done(f"{run} is at {server.address}; Ctrl-C ends this server, not the run")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
