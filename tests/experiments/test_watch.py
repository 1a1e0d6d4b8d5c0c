"""``scoresde watch``: the page shows what the run's files hold, grows with them, and is served to this machine only."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from command_line import one_line, run
from report_results import page_of

from scoresde.data import Data, load_data
from scoresde.experiments import default_recipe
from scoresde.experiments.report.progress import progress_page, runs_in
from scoresde.experiments.report.server import PageServer
from scoresde.nn import MLP
from scoresde.training import Callback, CallbackState, Monitor, train


def watched(folder: Path, name: str, steps: int = 40) -> list[str]:
    """Trains with monitoring; returns the pages as they were after each monitoring."""
    data = load_data(name, n=60) if name == "ring" else load_data(name)
    data = Data(data.train[:64], data.test[:16], data.description)
    recipe = default_recipe(data.description)
    network = MLP(data.description.model_shape, width=8, depth=1)
    settings = replace(recipe.training, steps=steps, batch_size=8, warmup=2)
    pages = []

    def look(state: CallbackState) -> None:
        pages.append(progress_page(folder))

    monitor = Monitor(folder, data, samples=4)
    model = replace(recipe, network=network).build(data, 0)
    train(model, data, settings, run_dir=folder, callbacks=[Callback(20, monitor), Callback(20, look)], device="cpu")
    return pages


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("watch") / "ring"
    return folder, watched(folder, "ring")


@contextmanager
def served(page: object, keep: float = 0.0) -> Iterator[PageServer]:
    with PageServer(page, keep=keep) as server:  # pyright: ignore[reportArgumentType]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_page_grows_with_the_run(ring: tuple[Path, list[str]]) -> None:
    folder, pages = ring
    assert len(pages) == 2
    for page in pages:
        assert page.count('<figure id="samples">') == page.count('<figure id="noise">') == 1
    assert "ring, step 20" in pages[0]
    assert "ring, step 40" in pages[1]
    last = progress_page(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert f">{rows[-1]['loss']:.4f}</td>" in last
    assert f"step {rows[-1]['step']}, loss" in last
    assert "<td>finished</td>" in last
    levels = json.loads((folder / "loss_by_log_snr.jsonl").read_text().splitlines()[-1])
    assert f"step {levels['step']}" in last
    assert last.count("<td>step 40</td>") == len(levels["log_snr"])


def test_a_half_written_line_and_a_half_written_file_are_left_out(ring: tuple[Path, list[str]], tmp_path: Path) -> None:
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text((ring[0] / name).read_text())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "step-000000099.npz").write_bytes(b"PK")
    page = progress_page(tmp_path)
    assert '<figure id="loss">' in page
    assert "step 99" not in page
    assert "step 000000099" not in page
    assert '<figure id="samples">' not in page


def test_a_comparison_in_progress_shows_its_models_and_then_its_report(
    ring: tuple[Path, list[str]], tmp_path: Path
) -> None:
    for name in ("elbo-seed0", "simple-seed0"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        for file in ("config.json", "metrics.jsonl"):
            (folder / file).write_text((ring[0] / file).read_text())
    assert [each.name for each in runs_in(tmp_path)] == ["elbo-seed0", "simple-seed0"]
    page = progress_page(tmp_path)
    assert page.count('<p class="title">') == 2
    report = page_of(tmp_path, [2], None).read_text()
    assert progress_page(tmp_path) == report


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    for folder, match in ((tmp_path / "none", "does not exist; start one"), (tmp_path, "must hold a run")):
        with pytest.raises(FileNotFoundError, match=match):
            runs_in(folder)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NotADirectoryError, match=r"config\.json is a file; give the --out of train"):
        runs_in(tmp_path / "config.json")
    result = run("watch", tmp_path / "none")
    assert result.exit_code == 2
    assert "does not exist; start one: scoresde train --out" in one_line(result)


def test_the_server_listens_on_the_loopback_address_and_serves_one_page_to_its_own_name() -> None:
    with served(lambda: "the page") as server:
        assert server.server_address[0] == "127.0.0.1"
        with urllib.request.urlopen(server.address) as answer:
            assert answer.read() == b"the page"
        for path, host, status in (("", "elsewhere.example", 403), ("results.json", None, 404), ("../etc", None, 404)):
            request = urllib.request.Request(server.address + path, headers={} if host is None else {"Host": host})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request)
            assert refused.value.code == status
            refused.value.close()
        with pytest.raises(OSError, match="must be free, it is not"):
            PageServer(lambda: "", port=server.server_port)


def test_a_page_is_made_again_only_after_its_time() -> None:
    made = iter(range(100))
    with served(lambda: f"page {next(made)}", keep=60.0) as server:
        for _ in range(3):
            with urllib.request.urlopen(server.address) as answer:
                assert answer.read() == b"page 0"


def test_the_browser_replaces_the_content_when_there_is_news(
    browser: Browser, ring: tuple[Path, list[str]], tmp_path: Path
) -> None:
    rows = (ring[0] / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "config.json").write_text((ring[0] / "config.json").read_text())
    (tmp_path / "metrics.jsonl").write_text(rows[0])
    with served(lambda: progress_page(tmp_path, refresh=1.0)) as server:
        browser.open(server.address, width=420)
        assert browser.run("return document.querySelectorAll('[data-points] svg').length") == 1
        before = browser.run("return document.querySelector('main').dataset.version")
        (tmp_path / "metrics.jsonl").write_text("".join(rows))
        browser.wait_for(f"return document.querySelector('main').dataset.version !== {before!r}")
        assert browser.run("return document.getElementById('state-table').rows[1].cells[1].textContent") == "finished"
        assert browser.console_errors() == []
        assert browser.overflowing() == []
        assert browser.accessibility_faults() == []
    browser.wait_for("return document.getElementById('connection').textContent.startsWith('not connected')")


def test_values_of_a_table_are_drawn_as_a_histogram(ring: tuple[Path, list[str]], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((ring[0] / "config.json").read_text())
    (tmp_path / "samples").mkdir()
    np.savez(tmp_path / "samples" / "step-000000007.npz", x=np.random.default_rng(0).normal(size=(9, 5)))
    assert "step 7" in progress_page(tmp_path)
