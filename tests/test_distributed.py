"""Rows among several processes: each row is computed once, and the gathered results are those of one process."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from scoresde.cli import app
from scoresde.cli.likelihood_batches import evaluate_in_processes
from scoresde.data import load_data
from scoresde.distributed import Rank, process_group
from scoresde.evaluation.evaluate import evaluate
from scoresde.evaluation.ode_likelihood import LikelihoodSettings
from scoresde.evaluation.vlb import BoundSettings
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.sde import VPSDE
from scoresde.training.batches import derive

COUNTS = (1, 2, 3, 7)
CPU = torch.device("cpu")

# Both commands in each process of the launcher, then gathering of rows that some processes do not have.
PROGRAM = """
import sys
from pathlib import Path

import torch

from scoresde.cli import app
from scoresde.distributed import process_group

torch.set_num_threads(1)
run, out = sys.argv[1], Path(sys.argv[2])
for arguments in SAMPLE, LIKELIHOOD:
    app([argument.format(run=run, out=out) for argument in arguments], standalone_mode=False)
with process_group() as rank:
    for n in 0, 1, 8:
        rows = rank.rows(n)
        gathered = rank.gather(torch.arange(rows.start, rows.stop, dtype=torch.float64).expand(2, -1).T)
        assert gathered is None if not rank.main else gathered[:, 1].tolist() == list(range(n)), gathered
    # results without rows may have any shape, also in the main process
    gathered = rank.gather(torch.ones(3, 4) if rank.index == rank.count - 1 else torch.empty(0))
    assert gathered is None if not rank.main else gathered.shape == (3, 4), gathered
    for local in torch.zeros(1, *(1 for _ in range(1 + rank.index))), torch.zeros(1, 1 + rank.index):
        try:
            rank.gather(local)
        except ValueError as error:
            (out / f"error-{rank.index}").write_text(str(error))
        else:
            raise AssertionError("rows of different shapes were gathered")
"""
SAMPLE = ("sample", "{run}", "--seeds", "3-9", "--sampler", "DDPM(steps=3)", "--batch-size", "3", "--trajectory")
LIKELIHOOD = ("likelihood", "{run}", "--limit", "7", "--nodes", "8", "--batch-size", "4", "--draws", "2", "--bound")
SAMPLE = (*SAMPLE, "--out", "{out}/x.npz", "-q")
LIKELIHOOD = (*LIKELIHOOD, "--steps", "4", "--evaluations", "8", "--out", "{out}/values.csv", "-q")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("size", [None, 1, 3, 64])
def test_each_row_belongs_to_one_process_with_its_whole_batch_in_the_order_of_processes(count, size):
    for n in range(30):
        ranges = [Rank(index, count, CPU).rows(n, size) for index in range(count)]
        assert [row for rows in ranges for row in rows] == list(range(n))
        assert all(rows.start % (size or 1) == 0 or not rows for rows in ranges)
        batches = [-(-len(rows) // (size or 1)) for rows in ranges]
        assert max(batches) - min(batches) <= 1
        assert n == 0 or ranges[0]


def test_an_invalid_batch_size_or_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        Rank(0, 1, CPU).rows(4, 0)
    with pytest.raises(ValueError, match=r"n must be an integer of at least 0, got -1"):
        Rank(0, 1, CPU).rows(-1)


def test_a_single_process_has_all_rows_and_gathers_its_results(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    x = torch.arange(6.0).reshape(3, 2)
    with process_group() as rank:
        assert rank.main
        assert rank.rows(3) == range(3)
        gathered = rank.gather(x)
        assert gathered is not None
        assert torch.equal(gathered, x)


def test_likelihoods_of_batches_are_concatenated_and_each_batch_has_its_seed():
    data, net = load_data("digits"), MLP((1, 8, 8), width=8, depth=1)
    torch.nn.init.normal_(net.linear_out.weight, std=0.1)  # the initial weight is 0, and so is every error
    model = ScoreModel(net, VPSDE(), data=data.description)
    settings = LikelihoodSettings(batch_size=3, nodes=8, draws=2, seed=5, bounds=BoundSettings(8, (4,)))
    first, merged = (
        evaluate(model, data.test[:3], settings),
        evaluate_in_processes(Rank(0, 1, CPU), model, data.test[:5], settings, None),
    )
    assert merged is not None
    for field in dataclasses.fields(first.ode):
        a, b = getattr(first.ode, field.name), getattr(merged.ode, field.name)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b[:3]), field.name
            assert a.dtype == b.dtype
            assert len(b) == 5
        elif field.name != "budget":
            assert a == b, field.name
    assert all(torch.equal(value, merged.ode.budget[name][:3]) for name, value in first.ode.budget.items())
    rest = evaluate(model, data.test[3:5], dataclasses.replace(settings, seed=derive(5, 3)))
    assert torch.equal(rest.ode.value, merged.ode.value[3:])
    for a, b, both in zip(first.bounds, rest.bounds, merged.bounds, strict=True):
        assert torch.equal(torch.cat([a.value, b.value]), both.value)
        assert torch.equal(torch.cat([a.stderr, b.stderr]), both.stderr)
        assert both.terms == pytest.approx({name: (3 * a.terms[name] + 2 * b.terms[name]) / 5 for name in a.terms})


@pytest.mark.slow
def test_three_processes_write_the_samples_and_likelihoods_of_one_process_bit_for_bit_and_once(tmp_path):
    run, one, three = (tmp_path / name for name in ("run", "one", "three"))
    train = ("train", "--data", "digits", "--out", run, "--network", "MLP(width=16, depth=1)", "--steps", 4, "-q")
    for arguments in (train, SAMPLE, LIKELIHOOD):
        arguments = [str(argument).format(run=run, out=one) for argument in arguments]
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
        assert result.exit_code == 0, result.output
    three.mkdir()
    (tmp_path / "program.py").write_text(
        PROGRAM.replace("SAMPLE", repr(SAMPLE)).replace("LIKELIHOOD", repr(LIKELIHOOD))
    )
    output = launch(3, str(tmp_path / "program.py"), str(run), str(three))
    assert output.count("samples in") == output.count("7 lines in") == 1
    assert output.count("there are 2 batches of 4 events for 3 processes") == 1
    with np.load(one / "x.npz") as a, np.load(three / "x.npz") as b:
        assert a["x"].shape == (7, 1, 8, 8)
        assert a["trajectory"].shape == (4, 7, 1, 8, 8)
        assert all(np.array_equal(a[name], b[name]) for name in ("x", "trajectory", "taus", "tau", "nfe"))
    assert (one / "values.csv").read_text() == (three / "values.csv").read_text()
    for index in range(3):
        error = (three / f"error-{index}").read_text()
        assert error.startswith("rows must have one shape in every process, got (1,) and (2,) and (3,)")


def launch(processes: int, *arguments: str) -> str:
    """Output of the processes of the launcher."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(processes), "--main_process_port", str(port), "--mixed_precision", "no"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"}
    command += ["--dynamo_backend", "no", *arguments]
    result = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr
