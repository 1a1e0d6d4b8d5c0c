"""A comparison stores numbers that match its arrays, resumes after an interruption, and overwrites no model."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from scoresde import experiments, metrics
from scoresde.cli import app
from scoresde.cli.plan_options import parse_plan_options
from scoresde.data import Data, Description, load_data
from scoresde.evaluation.baselines import baselines
from scoresde.evaluation.evaluate import evaluate
from scoresde.evaluation.ode_likelihood import EventLikelihoods, LikelihoodSettings
from scoresde.evaluation.sample_distances import METRICS, SampleDistances, comparable, gaussian_fit
from scoresde.evaluation.vlb import BoundSettings, decoding_time
from scoresde.experiments import examine, worker_pool
from scoresde.experiments.compare import compare
from scoresde.experiments.plan import Comparison, quick_settings
from scoresde.experiments.report_arrays import forward_frames
from scoresde.experiments.results import read_results
from scoresde.likelihood import ExactTrace, Hutchinson, TruncatedNormalDequantization
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.objective.weighting import ELBO, SNR, MinSNR, Simple
from scoresde.process.parameterization import V
from scoresde.process.schedule import Cosine, LinearVP
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, DDPM, ODE, EulerMaruyama
from scoresde.storage.environment import computer, cores
from scoresde.storage.setting_labels import short_text, slug
from scoresde.training import train
from scoresde.training.defaults import Recipe, default_recipe

DIGITS_PLAN = Comparison(
    samplers=(DDPM(steps=6), DDIM(steps=4)),
    n=40,
    scoring=LikelihoodSettings(trace=Hutchinson(probes=2), tol=1.0, limit=4, bounds=BoundSettings(8, steps=(4, 12))),
)
RING_PLAN = Comparison(
    weightings=(ELBO(),),
    samplers=(EulerMaruyama(steps=8), ODE(rtol=1e-1, atol=1e-1)),
    seeds=(0, 1),
    n=60,
    scoring=LikelihoodSettings(tol=1.0, limit=8),
)


def small_recipe(data: Data, steps: int = 8) -> Recipe:
    recipe = default_recipe(data.description)
    net = MLP(data.description.shape, width=16, depth=1)
    training = replace(recipe.training, steps=steps, batch_size=16, warmup=2)
    return Recipe(net, VPSDE(tau_min=1e-3), V(), training)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


@pytest.fixture(scope="module")
def ring() -> Data:
    return load_data("ring", n=400)


@pytest.fixture(scope="module")
def digits_folder(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    about = {"data": "digits", "split_seed": None}
    compare(digits, small_recipe(digits), DIGITS_PLAN, out=out, command="scoresde compare --data digits", about=about)
    return out


@pytest.fixture(scope="module")
def ring_folder(ring: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ring")
    compare(ring, small_recipe(ring), RING_PLAN, out=out)
    return out


def test_every_distance_in_the_results_is_that_of_the_stored_samples(digits: Data, digits_folder: Path) -> None:
    results = read_results(digits_folder)
    held_out = digits.description.to_model(digits.description.center(torch.from_numpy(results.arrays["real"])))
    assert torch.equal(torch.from_numpy(results.arrays["real"]), digits.test[:40])
    assert len(results.content["runs"]) == 2
    for run in results.content["runs"]:
        for drawn in run["samples"]:
            values = torch.from_numpy(results.arrays[drawn["array"]])
            x = digits.description.to_model(digits.description.center(values))
            distance = metrics.sliced_wasserstein(x, held_out, generator=torch.Generator().manual_seed(0)).value
            assert math.isclose(drawn["sliced_wasserstein"]["value"], distance, rel_tol=1e-6)
            assert math.isclose(drawn["mmd"]["value"], metrics.mmd(x, held_out).value, rel_tol=1e-6, abs_tol=1e-9)
            floor = results.content["floors"]["sliced_wasserstein"]
            assert math.isclose(drawn["ratio"]["value"], distance / floor["value"], rel_tol=1e-6)
            assert math.isclose(drawn["ratio"]["stderr"], floor["stderr"] / floor["value"], rel_tol=1e-12)


@pytest.fixture(scope="module")
def distances(digits: Data) -> SampleDistances:
    return SampleDistances(digits, 360)


def test_a_classifier_separates_a_gaussian_from_digits_but_not_real_digits(distances: SampleDistances) -> None:
    floor, gaussian = distances.floors["classifier"], distances.gaussian["classifier"]
    assert abs(floor["value"] - 0.5) < 3 * floor["stderr"]
    assert gaussian["value"] > 0.9
    assert distances.gaussian["mmd"]["value"] > 10 * distances.floors["mmd"]["stderr"]
    assert distances.gaussian["ratio"]["value"] > 1.15


def test_training_images_count_as_copies_and_held_out_images_do_not(distances: SampleDistances) -> None:
    copied = distances.measure(distances.train[:360])["copies"]
    assert copied["median_ratio"] < 1e-6
    assert copied["too_close"] == 1.0
    assert distances.measure(distances.held_out)["copies"]["median_ratio"] == 1.0


def test_samples_are_rounded_to_integer_values_before_they_are_measured(digits: Data) -> None:
    centers = digits.description.to_model(digits.description.center(digits.test[:7]))
    moved = centers + 0.4 * (2 / 17) * torch.sign(torch.randn(centers.shape))
    assert torch.equal(comparable(moved, digits.description), centers)


def test_results_record_command_settings_and_times(digits_folder: Path) -> None:
    content = read_results(digits_folder).content
    assert content["command"] == "scoresde compare --data digits"
    assert (content["data"]["train"], content["data"]["test"], content["n"]) == (1437, 360, 40)
    assert content["weightings"] == ["ELBO()", "Simple()"]
    assert content["samplers"] == ["DDPM(steps=6)", "DDIM(steps=4)"]
    assert [drawn["nfe"] for drawn in content["runs"][0]["samples"]] == [6, 4]
    stages = ("floors and Gaussian", "training", "likelihood", "error by noise level", "sampling", "measuring")
    assert sum(content["seconds"][stage] for stage in stages) <= content["seconds"]["total"]
    assert str(torch.__version__).startswith(content["versions"]["torch"])  # the package may leave out +cu124
    for run in content["runs"]:
        assert run["steps"] == 8
        assert (digits_folder / run["checkpoint"] / "state.json").is_file()
        assert run["likelihood"]["unit"] == "bits/dim"
        assert run["likelihood"]["events"] == 4
        assert run["likelihood"]["dequantization"] == "UniformDequantization()"
        names = ["continuous, dequantized", "continuous, decoder", "discrete, 4 steps", "discrete, 12 steps"]
        assert [bound["name"] for bound in run["bounds"]] == names


def test_results_and_models_record_the_source_of_the_data(digits_folder: Path) -> None:
    content = read_results(digits_folder).content
    assert content["data"]["source"] == {"data": "digits", "split_seed": None}
    for run in content["runs"]:
        config = json.loads((digits_folder / "models" / run["name"] / "config.json").read_text())
        assert config["about"] == content["data"]["source"]


def test_baselines_are_scored_on_the_same_events_as_models(digits: Data, digits_folder: Path) -> None:
    content = read_results(digits_folder).content
    assert {mark["events"] for mark in content["baselines"]} == {4} == {content["runs"][0]["likelihood"]["events"]}
    assert content["baselines"] == baselines(digits, 4)
    assert baselines(digits, None)[0]["events"] == 360


class ZeroVelocity(torch.nn.Module):
    """Predicts v = 0, which is exact for standard-normal data."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def exact_model(description: Description, tau_min: float = 1e-4) -> ScoreModel:
    return ScoreModel(ZeroVelocity(), VPSDE(Cosine(), tau_min=tau_min), V(), data=description)


EXACT = LikelihoodSettings(trace=ExactTrace(), bounds=BoundSettings(64, steps=(60, 2000)))


def test_ode_and_continuous_bound_of_an_exact_model_give_log_p_in_data_units() -> None:
    model = exact_model(Description("normal", (3,), offset=1.0, scale=2.0))
    y = 1.0 + 2.0 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.distributions.Normal(1.0, 2.0).log_prob(y).sum(1)
    evaluation = evaluate(model, y, EXACT)
    assert torch.allclose(evaluation.ode.value, exact, atol=1e-3)
    assert bool(((evaluation.ode.low <= exact + 1e-3) & (exact - 1e-3 <= evaluation.ode.high)).all())
    names = ["continuous", "discrete, 60 steps", "discrete, 2000 steps"]
    assert [bound.name for bound in evaluation.bounds] == names
    for bound in (evaluation.bounds[0], evaluation.bounds[2]):
        z = (bound.value - exact).mean() / (bound.stderr.square().sum().sqrt() / 64)
        assert abs(z) < 4 or abs(float((bound.value - exact).mean())) < 0.01
    short, long = (float((exact - bound.value).mean()) for bound in evaluation.bounds[1:])
    assert short > 5 * abs(long)  # a bound on log p from below, the closer the longer the chain


def test_bits_of_integer_values_under_an_exact_model_have_their_closed_form() -> None:
    offset, scale = 4.0, 1.5
    about = Description("integers", (2,), bins=8, offset=offset, scale=scale)
    values = torch.arange(64).reshape(32, 2) % 8
    evaluation = evaluate(exact_model(about), values, replace(EXACT, draws=16))
    assert evaluation.ode.unit == "bits/dim"
    off = (values + 0.5 - offset) / scale
    exact_dequantized = 0.5 * (off.square() + 1 / 12 / scale**2) + 0.5 * math.log(2 * math.pi) + math.log(scale)
    exact_dequantized = exact_dequantized.double().mean(1) / math.log(2)
    drawn = float(evaluation.ode.draw_stderr.square().sum().sqrt()) / 32
    assert abs(float((evaluation.ode.value - exact_dequantized).mean())) < 4 * drawn < 0.06
    dequantized, decoded, short, long = evaluation.bounds
    error = float(dequantized.stderr.square().sum().sqrt()) / 32
    assert abs(float((dequantized.value - exact_dequantized).mean())) < 4 * error < 0.2
    normal, edges = torch.distributions.Normal(0.0, 1.0), torch.arange(9) - offset
    mass = normal.cdf(edges[1:].double() / scale) - normal.cdf(edges[:-1].double() / scale)
    mass[0], mass[-1] = normal.cdf(edges[1].double() / scale), normal.cdf(-edges[-2].double() / scale)
    exact_bits = -mass.log2()[values].mean(1)
    excess = [float((bound.value - exact_bits).mean()) for bound in (decoded, short, long)]
    errors = [float(bound.stderr.square().sum().sqrt()) / 32 for bound in (decoded, short, long)]
    assert all(over > -4 * error for over, error in zip(excess, errors, strict=True))
    assert excess[0] < 0.4
    assert abs(excess[2] - excess[0]) < 4 * math.hypot(errors[0], errors[2]) < 0.5 < excess[1]


def test_a_decoder_starts_where_the_noise_is_a_third_of_a_bin_but_not_below_tau_min() -> None:
    wide, narrow = Description("w", (1, 4, 4), bins=17), Description("n", (3,), bins=256, scale=(128.0, 64.0, 32.0))
    tau = decoding_time(exact_model(wide, 1e-5))
    assert math.isclose(math.sqrt(math.expm1(2 * tau)), 2 / 17 / 3, rel_tol=1e-9)
    assert math.isclose(math.sqrt(math.expm1(2 * decoding_time(exact_model(narrow, 1e-7)))), 1 / 128 / 3, rel_tol=1e-9)
    assert decoding_time(exact_model(wide, 1e-2)) == 1e-2


def test_the_summary_holds_means_over_events_and_the_error_of_the_paired_difference(digits: Data) -> None:
    model = small_recipe(digits).build(digits)
    evaluation = evaluate(model, digits.test, replace(DIGITS_PLAN.scoring, draws=2, limit=6))
    summary = evaluation.to_json()
    ode, bound = summary["likelihood"], summary["bounds"][1]
    assert math.isclose(ode["value"], float(evaluation.ode.value.mean()), rel_tol=1e-12)
    assert math.isclose(ode["stderr"], float(evaluation.ode.value.std()) / math.sqrt(6), rel_tol=1e-12)
    assert math.isclose(ode["draw_stderr"], float(evaluation.ode.draw_stderr.square().sum().sqrt()) / 6, rel_tol=1e-12)
    assert ode["budget"].keys() == {"trace", "solver", "quadrature", "prior", "truncation", "dequantization"}
    assert math.isclose(ode["probe_stderr"] * 64 * math.log(2) * math.sqrt(6), ode["budget"]["trace"], rel_tol=0.1)
    difference = evaluation.bounds[1].value - evaluation.ode.value
    assert math.isclose(bound["over_ode"]["value"], float(difference.mean()), rel_tol=1e-12)
    assert math.isclose(bound["over_ode"]["stderr"], float(difference.std()) / math.sqrt(6), rel_tol=1e-12)
    assert math.isclose(bound["value"], sum(bound["terms"].values()) / 64 / math.log(2), rel_tol=1e-9)
    assert (ode["settings"], bound["settings"]) == (
        "UniformDequantization(), 2 draws, Hutchinson(probes=2)",
        "RoundedDecoder() at sigma/alpha = 0.0447",
    )
    assert summary == evaluate(model, digits.test, replace(DIGITS_PLAN.scoring, draws=2, limit=6)).to_json()
    other = evaluate(model, digits.test, replace(DIGITS_PLAN.scoring, draws=2, limit=6, seed=1)).to_json()
    assert all(a["value"] != b["value"] for a, b in zip(summary["bounds"], other["bounds"], strict=True))


def test_events_on_which_the_solver_fails_are_counted_and_left_out_or_refused(ring: Data) -> None:
    model = small_recipe(ring).build(ring)
    settings = LikelihoodSettings(tol=0.01, limit=3, max_nfe=8, bounds=BoundSettings(8, steps=()))
    evaluation = evaluate(model, ring.test, settings)
    summary = evaluation.to_json()["likelihood"]
    assert (summary["events"], summary["lost"]) == (0, {"MAX_NFE": 3})
    assert bool(evaluation.ode.value.isnan().all())
    assert math.isnan(evaluation.to_json()["bounds"][0]["over_ode"]["value"])
    with pytest.raises(RuntimeError, match="every sample must arrive"):
        evaluate(model, ring.test, replace(settings, strict=True))


def test_means_are_over_the_events_whose_solver_finished() -> None:
    each = torch.tensor([1.0, math.nan, 3.0], dtype=torch.float64)
    sizes = torch.tensor([0.3, math.nan, 0.4], dtype=torch.float64)
    counts, status = torch.tensor([5, 9, 6]), torch.tensor([0, 1, 0])
    budget = {"trace": sizes}
    summary = EventLikelihoods(
        "made up", "nats", each, each, each, sizes, sizes, budget, status, counts, counts, 2
    ).to_json()
    assert (summary["value"], summary["stderr"], summary["events"], summary["nfe"]) == (2.0, 1.0, 2, 9)
    assert summary["lost"] == {"MAX_NFE": 1}
    assert math.isclose(summary["draw_stderr"], 0.25)
    assert math.isclose(summary["budget"]["trace"], 0.35)


def test_ode_and_bound_use_the_same_dequantization(digits: Data) -> None:
    model = small_recipe(digits).build(digits)
    dequantization = TruncatedNormalDequantization(std=0.2)
    summary = evaluate(model, digits.test, replace(DIGITS_PLAN.scoring, dequantization=dequantization)).to_json()
    assert summary["likelihood"]["settings"].startswith("TruncatedNormalDequantization(std=0.2), 1 draw,")
    assert summary["bounds"][0]["settings"] == "TruncatedNormalDequantization(std=0.2)"
    # 64 values' mean log q, of a normal distribution whose ends beyond 2.5 standard deviations are cut off
    inside = math.erf(2.5 / math.sqrt(2))
    square = 1.0 - 5.0 * math.exp(-0.5 * 2.5**2) / math.sqrt(2 * math.pi) / inside
    log_q = 64 * (-0.5 * square - math.log(0.2 * math.sqrt(2 * math.pi) * inside))
    log_det = float(digits.description.log_det(torch.zeros(1, 1, 8, 8)))
    assert abs(summary["bounds"][0]["terms"]["dequantization"] + log_det - log_q) < 6.0
    assert summary["likelihood"]["draw_stderr"] is None


@pytest.mark.parametrize("evaluations", [0, 12, -8])
def test_bounds_of_impossible_settings_are_refused(evaluations: int) -> None:
    with pytest.raises(ValueError, match="must be a positive multiple of 8"):
        BoundSettings(evaluations)
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        BoundSettings(8, steps=(0,))


def test_weightings_of_a_seed_share_initial_weights_and_seeds_do_not(digits: Data) -> None:
    recipe = small_recipe(digits)
    first, again, other = (recipe.build(digits, seed) for seed in (0, 0, 1))
    weights = [next(model.parameters()) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_building_a_model_leaves_the_global_random_state_alone(digits: Data) -> None:
    before = torch.get_rng_state()
    default_recipe(digits.description).build(digits)
    assert torch.equal(before, torch.get_rng_state())


def test_a_second_run_trains_nothing_and_gives_the_same_results(
    digits: Data, digits_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(digits_folder, tmp_path / "digits"))
    before = read_results(folder)
    newest = {p: p.stat().st_mtime_ns for p in folder.glob("models/*/checkpoint-*")}
    compare(digits, small_recipe(digits), DIGITS_PLAN, out=folder, command="scoresde compare --data digits")
    after = read_results(folder)
    for old, new in zip(before.content["runs"], after.content["runs"], strict=True):
        assert old["train_seconds"] == new["train_seconds"]
        assert old["likelihood"] == new["likelihood"]
        assert old["bounds"] == new["bounds"]
        assert old["error_by_noise"] == new["error_by_noise"]
        assert [d["mmd"] for d in old["samples"]] == [d["mmd"] for d in new["samples"]]
    assert all(np.array_equal(before.arrays[name], after.arrays[name]) for name in before.arrays)
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("models/*/checkpoint-*") if p in newest}
    assert kept.items() <= newest.items()


def test_an_interrupted_training_keeps_its_seconds_and_sampling_uses_the_batch_size_of_scoring(
    ring: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(RING_PLAN, seeds=(0,), scoring=LikelihoodSettings(tol=1.0, limit=8, batch_size=32))
    clock, heard, sizes = tmp_path / "models" / "elbo-seed0" / "seconds.json", [], []

    def stop(text: str) -> None:
        heard.append(text)
        if "step 4 of 8" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(ring, small_recipe(ring), plan, out=tmp_path, status=stop)
    before = json.loads(clock.read_text())
    sample = examine.sample
    monkeypatch.setattr(examine, "sample", lambda *a, **k: sizes.append(k["batch_size"]) or sample(*a, **k))
    compare(
        ring,
        small_recipe(ring),
        plan,
        out=tmp_path,
        status=lambda text: None if "step 4" in text else heard.append(text),
    )
    assert read_results(tmp_path).content["runs"][0]["train_seconds"] > before > 0
    assert sizes == [32, 32]
    assert any(text.endswith("by the probability-flow ODE") for text in heard)


def test_fresh_removes_models_only_after_all_checks(ring: Data, tmp_path: Path) -> None:
    plan, old = replace(RING_PLAN, seeds=(0,)), tmp_path / "models" / "elbo-seed0" / "checkpoint-000001" / "mine"
    old.mkdir(parents=True)
    with pytest.raises(ValueError, match="n must lie in 5 … 80"):
        compare(ring, small_recipe(ring, steps=1), replace(plan, n=81), out=tmp_path, fresh=True)
    assert old.is_dir()
    compare(ring, small_recipe(ring, steps=1), plan, out=tmp_path, fresh=True)
    assert not old.exists()


TWO_MODELS = """
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from scoresde.experiments import Comparison, Recipe, compare, default_recipe
from scoresde.data import load_data
from scoresde.nn import MLP

out = Path(sys.argv[1])


def note(text):
    (out / "workers").mkdir(exist_ok=True)
    (out / "workers" / str(os.getpid())).touch()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are begun without one
    ring = load_data("ring", n=400)
    recipe = default_recipe(ring.description)
    settings = replace(recipe.training, steps=10**5, batch_size=16)
    recipe = replace(recipe, network=MLP((2,), width=16, depth=1), training=settings)
    compare(ring, recipe, Comparison(n=60), out=out, workers=2, status=note)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.is_file() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def until(true: Callable[[], bool], seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_save_and_end_with_the_process_that_started_them(number: int, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_MODELS)
    command = [sys.executable, str(script), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    metrics = [tmp_path / "models" / name / "metrics.jsonl" for name in ("elbo-seed0", "simple-seed0")]
    try:
        assert until(lambda: all(path.is_file() and path.stat().st_size for path in metrics))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        workers = [int(path.name) for path in (tmp_path / "workers").iterdir() if int(path.name) != process.pid]
        assert len(workers) == 2
        assert until(lambda: not any(map(alive, workers)), 60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    assert "Process Spawn" not in stderr
    for path in metrics:
        saved = json.loads((max(path.parent.glob("checkpoint-*")) / "state.json").read_text())["meta"]["step"]
        assert saved >= json.loads(path.read_text().splitlines()[-1])["step"]


@pytest.mark.slow
def test_a_model_that_fails_ends_the_others_at_once(ring: Data, tmp_path: Path) -> None:
    both = replace(RING_PLAN, weightings=(ELBO(), Simple()), seeds=(0,))
    compare(ring, small_recipe(ring, steps=1), replace(both, weightings=(Simple(),)), out=tmp_path)
    with pytest.raises(ValueError, match="steps = 1, asked for is 1000000"):
        compare(ring, small_recipe(ring, steps=10**6), both, out=tmp_path, workers=2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One torch thread, as each of two workers has on two cores; sums of several threads are rounded differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_models_trained_in_parallel_equal_those_trained_in_sequence(
    ring: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "cores", lambda workers: 1)
    plan = replace(RING_PLAN, weightings=(ELBO(), Simple()), seeds=(0,))
    for workers in (1, 2):
        compare(ring, small_recipe(ring, steps=2), plan, out=tmp_path / str(workers), workers=workers)
    one, two = (read_results(tmp_path / name) for name in ("1", "2"))
    assert [run["likelihood"] for run in one.content["runs"]] == [run["likelihood"] for run in two.content["runs"]]
    assert one.arrays.keys() == two.arrays.keys()
    assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)
    assert two.content["computer"]["workers"] == 2


def test_models_of_other_settings_are_refused_and_never_overwritten(digits: Data, digits_folder: Path) -> None:
    before = {p: p.read_bytes() for p in digits_folder.glob("models/*/checkpoint-*/state.json")}
    with pytest.raises(ValueError, match="steps = 8, asked for is 9"):
        compare(digits, small_recipe(digits, steps=9), DIGITS_PLAN, out=digits_folder)
    assert before == {p: p.read_bytes() for p in digits_folder.glob("models/*/checkpoint-*/state.json")}


def test_remove_models_removes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "models" / "elbo-seed0" / "checkpoint-000001").mkdir(parents=True)
    (tmp_path / "models" / "mine").mkdir()
    (tmp_path / "models" / "notes-seed1").mkdir()
    (tmp_path / "results.json").write_text("{}")
    experiments.remove_models(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
    assert left == {"models", "models/mine", "models/notes-seed1", "results.json"}


def test_different_settings_have_different_file_names_or_are_refused() -> None:
    assert slug(SNR(power=-0.5)) == "snr-power-minus-0-5"
    assert slug(SNR(power=0.5)) == "snr-power-0-5"
    assert slug(ODE(method="dopri5", rtol=1e-6)) == "ode-method-dopri5-rtol-1e-06"
    with pytest.raises(ValueError, match="weightings must differ in letters or digits"):
        Comparison(weightings=(SNR(power=1e16), SNR(power=1e-16)))


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert (cores(), cores(2), cores(4)) == (3, 1, 1)
    assert computer(workers=3)["cores"] == 3


def test_options_replace_the_quick_plan() -> None:
    quick = quick_settings(default_recipe(Description("plane", (2,))), Comparison())[1]
    plan = parse_plan_options(None, ["DDPM(steps=3)"], n=30, limit=7, bounds=False).plan(quick)
    assert (plan.n, plan.scoring.limit, plan.scoring.bounds, plan.samplers) == (30, 7, None, (DDPM(steps=3),))
    plan = parse_plan_options().plan(quick)
    assert (plan.n, plan.scoring, plan.samplers) == (None, quick.scoring, quick.samplers)


def test_a_quick_comparison_of_few_data_runs_and_its_models_record_the_split(tmp_path: Path) -> None:
    events = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    np.save(tmp_path / "few.npy", events)
    data = ["--data", str(tmp_path / "few.npy"), "--split-seed", "3", "--test-fraction", "0.3"]
    options = ["--weighting", "Simple()", "--sampler", "DDIM(steps=2)", "--no-bounds", "--steps", "70", "-q"]
    runner, out = CliRunner(), tmp_path / "out"
    result = runner.invoke(app, ["compare", *data, *options, "--quick", "--network", "MLP(width=8)", "--out", str(out)])
    assert result.exit_code == 0, result.output
    content = read_results(out).content
    assert (content["n"], content["runs"][0]["steps"], content["runs"][0]["likelihood"]["events"]) == (30, 70, 24)
    about = json.loads((out / "models" / "simple-seed0" / "config.json").read_text())["about"]
    assert (about["data"], about["split_seed"], about["test_fraction"]) == (str(tmp_path / "few.npy"), 3, 0.3)
    scored = runner.invoke(app, ["likelihood", str(out / "models" / "simple-seed0"), "-q"])
    assert scored.exit_code == 0, scored.output
    assert "30 events" in scored.output


def test_a_limit_of_zero_events_is_refused() -> None:
    with pytest.raises(ValueError, match="limit must be at least 1"):
        LikelihoodSettings(limit=0)
    result = CliRunner().invoke(app, ["compare", "--data", "ring", "--out", "x", "--limit", "0"])
    assert result.exit_code == 2


def test_points_in_the_plane_have_trajectories_and_a_density(ring_folder: Path) -> None:
    results = read_results(ring_folder)
    run = results.content["runs"][0]
    for drawn in run["samples"]:
        taus, x = results.arrays[f"{drawn['array']}/trajectory_tau"], results.arrays[f"{drawn['array']}/trajectory_x"]
        assert x.shape == (len(taus), 40, 2)
        assert np.all(np.diff(taus) < 0)
    starts = [results.arrays[f"{drawn['array']}/trajectory_x"][0] for drawn in run["samples"]]
    assert np.array_equal(*starts)
    mass = results.arrays[f"{run['name']}/density/mass"]
    assert 0.2 < mass < 1.05  # a hardly trained model is wider than the grid, but no density exceeds 1
    assert run["likelihood"]["unit"] == "nats"
    assert [r["seed"] for r in results.content["runs"]] == [0, 1]


def test_frames_of_the_forward_process_have_its_means_variances_and_correlation() -> None:
    sde, x0 = VPSDE(LinearVP()), torch.full((20_000, 1), 2.0)
    labels, states = forward_frames(sde, x0, frames=5)
    assert labels["tau"][0] == 0.0
    for i, (alpha, sigma) in enumerate(zip(labels["alpha"], labels["sigma"], strict=True)):
        assert math.isclose(alpha**2 + sigma**2, 1.0, rel_tol=1e-12)
        error = 5 * max(sigma, 1e-6) / math.sqrt(len(x0))
        assert abs(states[i].mean() - 2 * alpha) < error
        assert abs(states[i].std() - sigma) < error
    # a path, not independent draws: corr(x_s, x_tau) given x0 is exp(-(tau - s)) sigma_s / sigma_tau
    correlation = np.corrcoef(states[2][:, 0], states[3][:, 0])[0, 1]
    tau, s = labels["tau"][3], labels["tau"][2]
    assert abs(correlation - math.exp(s - tau) * labels["sigma"][2] / labels["sigma"][3]) < 0.03


def test_baselines_are_the_histogram_and_the_gaussian_of_closed_form() -> None:
    train = torch.tensor([[0], [0], [0], [1]], dtype=torch.uint8)
    data = Data(train, torch.tensor([[0], [1]], dtype=torch.uint8), Description("two", (1,), bins=2))
    histogram = baselines(data, 2)[0]
    assert math.isclose(histogram["value"], -0.5 * (math.log2(4 / 6) + math.log2(2 / 6)), rel_tol=1e-12)
    x = torch.randn(5000, 2, dtype=torch.float64) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    fit = gaussian_fit(x)
    normal = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0))
    assert torch.allclose(fit.log_prob(x[:9]), normal.log_prob(x[:9]), atol=1e-9)


def test_a_gaussian_without_a_density_and_tables_too_large_are_left_out() -> None:
    flat = torch.cat([torch.randn(40, 2), torch.zeros(40, 1)], 1)
    assert baselines(Data(flat, flat[:5], Description("flat", (3,))), 5) == []
    few = torch.randn(3, 6)
    assert baselines(Data(few, few, Description("few", (6,))), 3) == []
    deep = torch.arange(2000).reshape(2, 1000)
    entries = baselines(Data(deep, deep, Description("deep", (1000,), bins=1 << 17)), 2)
    assert [entry["name"] for entry in entries] == []


def test_the_histogram_of_each_coordinate_is_that_of_counting(generator: torch.Generator) -> None:
    values = torch.randint(5, (300, 2, 3), generator=generator)
    [histogram, _] = baselines(Data(values[:250], values[250:], Description("x", (2, 3), bins=5)), 50)
    counts = torch.stack([(values[:250] == k).sum(0) for k in range(5)]) + 1.0
    bits = -(counts / counts.sum(0)).log2().gather(0, values[250:])
    assert math.isclose(histogram["value"], float(bits.mean()), rel_tol=1e-6)


def test_a_network_of_other_classes_than_the_data_is_refused_before_it_is_trained(ring: Data, tmp_path: Path) -> None:
    recipe = replace(
        default_recipe(ring.description),
        network=MLP((2,), width=8, depth=1, conditions={"label": Classes(7, null=False)}),
    )
    with pytest.raises(ValueError, match="'label' has 8 classes in the data, the network Classes"):
        compare(ring, recipe, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (DDPM(steps=1000), "DDPM(steps=1000)"),
        (ODE(), "ODE(method='dopri5')"),
        (MinSNR(), "MinSNR()"),
        (MinSNR(3.0), "MinSNR(gamma=3.0)"),
        (VPSDE(Cosine()), "VPSDE(schedule=Cosine(steps=1000))"),
        (MLP((2,), width=8), "MLP(event_shape=(2,), width=8)"),
    ],
)
def test_a_short_text_leaves_out_defaults(setting: object, text: str) -> None:
    assert short_text(setting) == text


@pytest.mark.parametrize(
    "description",
    [
        Description("digits", (1, 8, 8), bins=17),
        Description("images", (3, 16, 16), bins=256),
        Description("plane", (2,)),
        Description("series", (3, 20)),
        Description("numbers", ()),
        Description("volume", (1, 4, 4, 4)),
    ],
)
def test_every_shape_of_data_has_a_default_recipe(description: Description) -> None:
    generator = torch.Generator().manual_seed(0)
    events = torch.randn(2, *description.shape, generator=generator)
    if description.bins is not None:
        events = torch.randint(0, description.bins, events.shape, generator=generator, dtype=torch.uint8)
    data = Data(events, events, description)
    recipe = default_recipe(description)
    model = recipe.build(data)
    assert model(torch.randn(3, *description.shape), 0.5).v.shape == (3, *description.shape)
    settings = replace(recipe.training, steps=1, batch_size=2, loss=replace(recipe.training.loss, weighting=Simple()))
    assert train(model, data, settings).step == 1


def test_results_are_json_without_nan_and_foreign_files_are_refused(digits_folder: Path, tmp_path: Path) -> None:
    json.loads((digits_folder / "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    with pytest.raises(FileNotFoundError, match="holds results.json and arrays.npz"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"format": "other", "version": 1}')
    np.savez(tmp_path / "arrays.npz", x=np.zeros(1))
    with pytest.raises(ValueError, match="must be the results of a comparison"):
        read_results(tmp_path)


def test_empty_plans_and_repeated_entries_are_refused() -> None:
    with pytest.raises(ValueError, match="weightings must be one or more, each given once"):
        Comparison(weightings=(Simple(), Simple()))
    with pytest.raises(ValueError, match="samplers must be one or more"):
        Comparison(samplers=())


def test_more_samples_than_held_out_events_are_refused(ring: Data) -> None:
    with pytest.raises(ValueError, match="n must lie in 5 … 80"):
        SampleDistances(ring, 81)


def test_every_distance_of_the_tables_is_measured(digits_folder: Path) -> None:
    content = read_results(digits_folder).content
    for entry in (content["floors"], content["gaussian"], *content["runs"][0]["samples"]):
        assert set(METRICS) <= entry.keys()
