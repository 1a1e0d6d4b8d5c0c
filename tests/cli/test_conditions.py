"""Conditions on the command line: training, sampling, likelihoods, calibration, and starting from another run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import one_line, run
from PIL import Image

import scoresde as sd
from scoresde.cli.held_out import _codes_of_run
from scoresde.cli.parse_lists import parse_shares, split_names
from scoresde.cli.train_start import freeze_weights
from scoresde.data.conditions.kinds import ClassCondition, VectorCondition
from scoresde.nn import Classes, Tokens, Vector

QUICK = ("--steps", 4, "--batch-size", 16, "--monitor-every", 2, "--device", "cpu", "-q")
CITIES = ("Lima", "Oslo", "Rome")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, and a run on it that is conditioned on two of its columns."""
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    rows = ["age,city,income,visits"]
    rows += [f"{rng.integers(20, 70)},{CITIES[i % 3]},{rng.normal():.3f},{i % 7}" for i in range(60)]
    (folder / "people.csv").write_text("\n".join(rows))
    table, net = folder / "people.csv", "MLP(width=16, depth=1)"
    trained = run(
        "train", "--data", table, "--condition", "age,city", "--network", net, "--out", folder / "run", *QUICK
    )
    assert trained.exit_code == 0, trained.output
    randomize(folder / "run")
    return folder


def randomize(folder: Path) -> None:
    """Gives the newest model of a run weights that react to everything."""
    model = sd.load(folder)
    for index, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    meta = json.loads((sorted(folder.glob("checkpoint-*"))[-1] / "state.json").read_text())["meta"]
    sd.save(model, folder, meta={name: meta[name] for name in ("events", "step", "training")})


def test_columns_become_conditions_of_the_network_and_are_recorded(people):
    config = json.loads((people / "run" / "config.json").read_text())
    assert config["about"]["read"] == ["condition=age,city"]
    assert (
        "conditions={'age': Vector(size=1, null=True), 'city': Classes(count=3, null=True)}" in config["model"]["net"]
    )
    assert "'city': ClassCondition(count=3, names=('Lima', 'Oslo', 'Rome'))" in config["model"]["data"]
    assert len(list((people / "run" / "samples").glob("*"))) == 2
    description = sd.load(people / "run").data
    assert description == sd.load_data(people / "people.csv", condition=("age", "city")).description


def test_samples_are_drawn_under_values_in_the_units_of_the_data(people, tmp_path):
    drawn = {}
    for name, options in {
        "values": ("--condition", "age=35", "--condition", "city=Oslo"),
        "number": ("--condition", "age=35", "--condition", "city=1"),
        "none": (),
    }.items():
        settings = ("--sampler", "DDIM(steps=3)", "--seeds", "0-3", "--out", tmp_path / "x.npz", "-q")
        result = run("sample", people / "run", *settings, *options)
        assert result.exit_code == 0, result.output
        drawn[name] = np.load(tmp_path / "x.npz")["x"]
    model = sd.load(people / "run")
    assert model.data is not None
    cond = model.data.to_model_cond({"age": [35.0] * 4, "city": ["Oslo"] * 4})
    cond["age"] = cond["age"].float()
    expected = sd.sample(model, 4, sd.DDIM(steps=3), seeds=range(4), **cond).data.numpy()
    assert np.array_equal(drawn["values"], expected)
    assert np.array_equal(drawn["values"], drawn["number"])
    assert not np.array_equal(drawn["values"], drawn["none"])


def test_a_file_has_one_row_for_all_samples_or_one_for_each(people, tmp_path):
    ages = np.array([20.0, 60.0, 40.0])
    np.savez(tmp_path / "c.npz", age=ages, city=np.array(["Rome"]))
    common = ("--sampler", "DDIM(steps=2)", "--out", tmp_path / "x.npz", "-q")
    result = run("sample", people / "run", "--condition", tmp_path / "c.npz", "--seed", 3, *common)
    assert result.exit_code == 0, result.output
    assert len(np.load(tmp_path / "x.npz")["x"]) == 3
    refused = run("sample", people / "run", "-n", 5, "--condition", tmp_path / "c.npz", *common)
    assert refused.exit_code == 2
    assert "'age' has 3 rows for 5 samples; pass -n 3" in one_line(refused)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("agee=3", "unknown condition of the network 'agee'; did you mean age?"),
        ("city=Bern", "no class of condition 'city' is named 'Bern'"),
        ("age=1,2", "'age' must have shape (N, 1), got (1, 2)"),
        ("nothing.npz", "there is no file nothing.npz"),
        ("age=old", "takes numbers, such as age=1.5, got 'old'"),
        ("age=2020-01-01", "takes numbers, such as age=1.5, got '2020-01-01'"),
        ("age", "takes a .npz file with arrays named as the conditions, or name=value"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(people, entry, message):
    refused = run("sample", people / "run", "-n", 2, "--condition", entry, "-q")
    assert refused.exit_code == 2
    assert message in one_line(refused)


def test_a_missing_class_column_is_answered_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line of prose. " * 40)
    text = ("--data", f"text:{tmp_path / 'a.txt'}", "--read", "length=8")
    refused = run("train", *text, "--condition", "label", "--out", tmp_path / "x", *QUICK)
    assert refused.exit_code == 2
    assert "name their column by --read label=…" in one_line(refused)


def test_known_entries_are_no_condition_of_a_sample(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i / 7},{i * i / 3}\n" for i in range(60)))
    net = ("--network", "MLP(width=8, depth=1)", "--condition", "known")
    trained = run("train", "--data", tmp_path / "t.csv", *net, "--out", tmp_path / "run", *QUICK)
    assert trained.exit_code == 0, trained.output
    refused = run("sample", tmp_path / "run", "--condition", "known=1,2")
    assert "use scoresde impute or scoresde inpaint" in one_line(refused)


def test_names_of_columns_and_dates_are_written_as_in_the_table(tmp_path: Path) -> None:
    cities = ('"Rome, IT"', "Oslo")
    lines = [f"2024-01-{1 + i % 9:02d},{150 + i % 30},{cities[i % 2]},{i / 7}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["joined,height cm,city,x", *lines]))
    net = ("--network", "MLP(width=8, depth=1)", "--condition", "joined,height cm,city")
    trained = run("train", "--data", tmp_path / "t.csv", *net, "--out", tmp_path / "run", *QUICK)
    assert trained.exit_code == 0, trained.output
    randomize(tmp_path / "run")
    written = ("joined=2024-01-05", "height cm=160", "city=Rome, IT,Oslo")
    options = [word for entry in written for word in ("--condition", entry)]
    options += ["--sampler", "DDIM(steps=3)", "--seeds", "0-3", "--out", str(tmp_path / "x.npz")]
    sampled = run("sample", tmp_path / "run", *options)
    assert sampled.exit_code == 0, one_line(sampled)
    model = sd.load(tmp_path / "run")
    assert model.data is not None
    cond = model.data.to_model_cond(
        {"joined": [19727.0] * 4, "height_cm": [160.0] * 4, "city": ["Rome, IT", "Oslo"] * 2}
    )
    cond = {name: value.float() if value.is_floating_point() else value for name, value in cond.items()}
    assert np.array_equal(
        np.load(tmp_path / "x.npz")["x"], sd.sample(model, 4, sd.DDIM(steps=3), seeds=range(4), **cond).data.numpy()
    )


def test_a_name_with_commas_is_one_class() -> None:
    names = ("a, b", "a", "b", "a, b, c")
    assert split_names("a, b", names) == ["a, b"]
    assert split_names("b,a, b, c,a , b", names) == ["b", "a, b, c", "a", "b"]
    assert split_names("0-3, 7", ()) == ["0-3", "7"]


def test_a_condition_is_given_once(people):
    refused = run("sample", people / "run", "-n", 2, "--condition", "age=3", "--condition", "age=4", "-q")
    assert "each condition is given once, got 'age' twice" in one_line(refused)


def test_likelihoods_are_those_given_the_conditions_of_the_events(people, tmp_path):
    out = tmp_path / "l.csv"
    result = run("likelihood", people / "run", "--limit", 5, "--out", out, "--bound", "--steps", 4, "--evaluations", 8)
    assert result.exit_code == 0, result.output
    assert "given age, city" in one_line(result)
    values = [float(line.split(",")[1]) for line in out.read_text().splitlines()[1:]]
    data = sd.load_data(people / "people.csv", condition=("age", "city"))
    model = sd.load(people / "run")
    settings = sd.evaluation.LikelihoodSettings(limit=5)
    given = sd.evaluation.evaluate(model, data.test, settings, cond=data.test_cond).ode.value
    np.testing.assert_allclose(values, given.numpy(), rtol=1e-4)
    with pytest.raises(ValueError, match="'age' needs it in the data, they have none"):
        sd.evaluation.evaluate(model, data.test, settings)
    other = {**data.test_cond, "age": data.test_cond["age"] + 20}
    assert not torch.allclose(
        sd.evaluation.evaluate(model, data.test, settings, cond=other).ode.value, given, atol=1e-3
    )


def test_calibration_uses_the_conditions_of_the_data(people):
    result = run("calibrate", people / "run", "--sampler", "Adams(steps=3)", "--noises", 16, "-q", "--device", "cpu")
    assert result.exit_code == 0, result.output


def test_a_run_with_conditions_is_resumed_and_repeated(people, tmp_path):
    out = tmp_path / "again"
    first = run("train", "--config", people / "run", "--out", out, "--steps", 2, "--monitor-every", 0, "-q")
    assert first.exit_code == 0, first.output
    more = run("train", "--resume", "--out", out, "--steps", 2, "--monitor-every", 0, "-q")
    assert more.exit_code == 0, more.output
    refused = run("train", "--config", people / "run", "--condition", "visits", "--out", tmp_path / "b", "-q")
    assert refused.exit_code == 2
    assert "does not read 'visits'; start a new run from its weights by --from" in one_line(refused)


def test_labels_are_read_if_they_are_asked_for(tmp_path):
    result = run("train", "--data", "ring", "--condition", "label", "--out", tmp_path / "ring", *QUICK)
    assert result.exit_code == 0, result.output
    assert sd.load(tmp_path / "ring").net.conditions == {"label": Classes(8)}
    plain = run("train", "--data", "ring", "--out", tmp_path / "plain", *QUICK)
    assert plain.exit_code == 0, plain.output
    assert sd.load(tmp_path / "plain").net.conditions == {}
    for_one_class = run("likelihood", tmp_path / "ring", "--label", 3, "--limit", 3, "-q")
    assert for_one_class.exit_code == 0, for_one_class.output
    refused = run("train", "--data", "ring", "--condition", "text", "--out", tmp_path / "no", *QUICK)
    assert "ring has no conditions but its labels, got --condition text" in one_line(refused)


def test_classes_of_other_data_are_those_of_the_run_by_their_names(tmp_path):
    rng = np.random.default_rng(0)

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(folder / f"{i}.png")

    for name in ("cat", "dog"):
        write(tmp_path / "pets" / name)
    write(tmp_path / "dogs" / "dog")
    write(tmp_path / "birds" / "bird")
    net = ("--network", "MLP(width=16, depth=1)")
    trained = run("train", "--data", tmp_path / "pets", "--condition", "label", *net, "--out", tmp_path / "run", *QUICK)
    assert trained.exit_code == 0, trained.output
    randomize(tmp_path / "run")

    def scores(*arguments: str | Path | int) -> str:
        values = tmp_path / "values.csv"
        result = run("likelihood", tmp_path / "run", *arguments, "--limit", 3, "--out", values, "-q")
        assert result.exit_code == 0, result.output
        return values.read_text()

    by_name, first, second = (
        scores("--data", tmp_path / "dogs", *label) for label in ((), ("--label", 0), ("--label", 1))
    )
    assert by_name == second != first
    refused = run("likelihood", tmp_path / "run", "--data", tmp_path / "birds", "-q")
    assert "classes must be those of the run, cat, dog; got bird." in one_line(refused)


def test_codes_of_every_condition_of_classes_are_those_of_the_run_by_name() -> None:
    known, codes = ClassCondition(3, ("a", "b", "c")), torch.tensor([0, 1, 0])
    assert _codes_of_run(codes, "kind", ClassCondition(2, ("c", "b")), known).tolist() == [2, 1, 2]
    assert _codes_of_run(codes, "kind", ClassCondition(2), known).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="classes of 'kind' must be those of the run, a, b, c; got d"):
        _codes_of_run(codes, "kind", ClassCondition(2, ("d", "b")), known)


def test_a_network_that_is_named_gets_the_conditions_unless_it_states_its_own(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(40, 2)), text=rng.normal(size=(40, 5, 3)), z=rng.normal(size=40))
    data = ("--data", tmp_path / "a.npz", "--condition", "text,z")
    for name, network, expected in (
        ("given", "MLP(width=8, depth=1)", {"text": Tokens(3), "z": Vector(1)}),
        ("own", "MLP(width=8, depth=1, conditions={'z': Vector(1, null=False)})", {"z": Vector(1, null=False)}),
    ):
        result = run("train", *data, "--network", network, "--out", tmp_path / name, *QUICK)
        assert result.exit_code == 0, result.output
        assert sd.load(tmp_path / name).net.conditions == expected


def test_a_run_starts_from_the_weights_of_another_one(people, tmp_path):
    out = tmp_path / "from"
    result = run(
        "train", "--from", people / "run", "--condition", "age,city,visits", "--data", people / "people.csv",
        "--read", "columns=income,visits", "--out", out, *QUICK,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "'visits' is named twice" in one_line(result)
    table = people / "more.csv"
    lines = (people / "people.csv").read_text().splitlines()
    rng = np.random.default_rng(1)
    table.write_text("\n".join([lines[0] + ",height", *(f"{line},{rng.normal():.3f}" for line in lines[1:])]))
    start = ("train", "--from", people / "run", "--data", table, "--condition", "age,city,height")
    result = run(*start, "--freeze", "blocks.*", "--steps", 0, "--monitor-every", 0, "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    text = one_line(result)
    assert "new, with initial weights: conditioning.height_embedding" in text
    assert "weights are not trained: blocks.0.film.weight" in text
    before, after = sd.load(people / "run").net.state_dict(), sd.load(out, raw=True).net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    about = json.loads((out / "config.json").read_text())["about"]
    assert (about["from"], about["freeze"]) == (str(people / "run"), ["blocks.*"])
    more = run("train", "--config", out, "--out", tmp_path / "n", "--steps", 1, "--monitor-every", 0, "-q")
    assert more.exit_code == 0, more.output
    refused = run("train", "--from", people / "run", "--resume", "--out", out, "-q")
    assert refused.exit_code == 2
    assert "--from starts a new run, got --resume too" in one_line(refused)


def test_frozen_weights_do_not_change_and_resumed_runs_freeze_the_same(people, tmp_path):
    out, quiet = tmp_path / "frozen", ("--monitor-every", 0, "--device", "cpu", "-q")
    table = people / "people.csv"
    arguments = ("--freeze", "blocks.*", "--batch-size", 8, "--lr-end", 1, "--save-every", 2)
    first = run("train", "--from", people / "run", "--data", table, "--out", out, "--steps", 2, *arguments, *quiet)
    assert first.exit_code == 0, first.output
    assert run("train", "--resume", "--out", out, "--steps", 4, *quiet).exit_code == 0
    before, after = sd.load(people / "run").net.state_dict(), sd.load(out, raw=True).net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("blocks.") for name in changed)
    refused = run("train", "--resume", "--out", out, "--freeze", "*", *quiet)
    assert "--resume trains the same weights as before, got --freeze" in one_line(refused)


def test_patterns_that_freeze_nothing_or_everything_are_refused():
    net = sd.MLP((2,), width=8, depth=1)
    with pytest.raises(ValueError, match=r"'block.*' matches no weight; did you mean blocks.\*"):
        freeze_weights(net, ["block.*"])
    with pytest.raises(ValueError, match="matches all"):
        freeze_weights(net, ["*"])


def test_shares_are_a_number_or_one_by_name():
    assert (parse_shares("0.2"), parse_shares("text=0.1, label=0"), parse_shares(None)) == (
        0.2,
        {"text": 0.1, "label": 0.0},
        None,
    )
    with pytest.raises(ValueError, match="--condition-dropout takes"):
        parse_shares("text=a")


def test_a_student_is_trained_under_the_conditions_of_the_training_events(people, tmp_path):
    few = ("--trajectories", 32, "--batch-size", 16, "--steps", 2, "--no-calibrated", "--device", "cpu", "-q")
    result = run("distill", people / "run", "--calls", 1, "--solver", "DDIM(steps=4)", "--out", tmp_path / "s", *few)
    assert result.exit_code == 0, result.output
    settings = ("--condition", "age=35", "--condition", "city=Rome", "-n", 2, "-q")
    assert run("sample", tmp_path / "s", *settings).exit_code == 0


def vector(model: sd.Model, name: str) -> VectorCondition:
    kind = None if model.data is None else model.data.conditions[name]
    assert isinstance(kind, VectorCondition)
    return kind


@pytest.mark.filterwarnings("default:condition 'temp' is 8")
def test_a_start_with_other_classes_is_refused_and_scaling_is_that_of_the_run(tmp_path: Path) -> None:
    def table(name: str, colors: tuple[str, ...], shift: float) -> Path:
        rows = [f"{i % 7},{colors[i % len(colors)]},{i % 5 + shift}" for i in range(60)]
        path = tmp_path / name
        path.write_text("\n".join(["value,color,temp", *rows]))
        return path

    small = ("--steps", 2, "--batch-size", 8, "--network", "MLP(width=8, depth=1)", "--quiet")
    first, others = (
        table("first.csv", ("blue", "green", "red"), 20.0),
        table("others.csv", ("amber", "red", "tan"), 20.0),
    )
    warmer, out = table("warmer.csv", ("blue", "green", "red"), 80.0), tmp_path / "run"
    assert run("train", "--data", first, "--condition", "color,temp", "--out", out, *small).exit_code == 0
    again = run(
        "train", "--from", out, "--data", others, "--condition", "color,temp", "--out", tmp_path / "a", "--steps", 2
    )
    assert "condition 'color' must have the classes of the run" in one_line(again)
    started = run(
        "train", "--from", out, "--data", warmer, "--condition", "color,temp", "--out", tmp_path / "b", "--steps", 2
    )
    assert started.exit_code == 0, started.output
    before, after = (vector(sd.load(path), "temp") for path in (out, tmp_path / "b"))
    assert (after.offset, after.scale) == (before.offset, before.scale)
    assert (before.low, before.high) == ((20.0,), (24.0,))
    assert (after.low, after.high) == ((20.0,), (84.0,))  # of what the network was trained on, in both runs
    far = "condition 'temp' is 84, far from the 20 to 24 of the train part"
    words = ("-n", 2, "--sampler", "DDIM(steps=2)", "--condition", "temp=84")
    assert far in " ".join(run("sample", out, *words).stderr.split())
    assert "far from" not in run("sample", tmp_path / "b", *words).stderr
    scored = run("likelihood", out, "--data", warmer, "--part", "all", "--limit", 5)
    assert "condition 'temp' is 80, far from" in " ".join(scored.stderr.split())
