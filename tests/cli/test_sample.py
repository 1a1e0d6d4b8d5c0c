"""``scoresde sample`` and ``scoresde calibrate``: seeds, labels, calibrated samplers and output files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import NET, one_line, run
from PIL import Image

import scoresde
from scoresde.cli.parse_lists import parse_integers, parse_labels
from scoresde.data import ClassCondition, Description
from scoresde.nn import Classes
from scoresde.sampling import DDIM, Adams, Calibration, ExplicitGrid, UniformAngle, Whitened
from scoresde.storage.checkpoint import load_calibration, save, save_calibration


def test_a_model_is_trained_sampled_and_scored(digits: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "new" / "x.npz"
    result = run("sample", digits, "-n", 5, "--sampler", "DDIM(steps=3)", "--out", drawn, "-q")
    assert result.exit_code == 0, result.output
    with np.load(drawn) as file:
        assert file["x"].shape == (5, 1, 8, 8)
        assert file["x"].dtype == np.uint8
        assert file["x"].max() <= 16
        assert int(file["nfe"]) == 3


def test_a_png_holds_one_image_per_sample(digits: Path, tmp_path: Path) -> None:
    result = run("sample", digits, "-n", 4, "--sampler", "DDIM(steps=2)", "--out", tmp_path / "grid.png", "-q")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.size == (2 * 304 + 3, 2 * 304 + 3)  # 8 pixels, each enlarged to 38


def test_with_seeds_a_sample_does_not_depend_on_the_others(digits: Path, tmp_path: Path) -> None:
    trajectories = {}
    for name, seeds in (("all", "0-3"), ("one", "2")):
        out = tmp_path / f"{name}.npz"
        arguments = ("--sampler", "EulerMaruyama(steps=4)", "--seeds", seeds, "--trajectory", "--out", out, "-q")
        assert run("sample", digits, *arguments).exit_code == 0
        with np.load(out) as file:
            trajectories[name] = file["trajectory"]
    assert trajectories["all"].shape == (5, 4, 1, 8, 8)
    assert np.allclose(trajectories["all"][:, 2], trajectories["one"][:, 0], atol=1e-6)


def test_labels_are_assigned_in_turn_and_change_the_samples(tmp_path: Path) -> None:
    net = scoresde.MLP((1, 8, 8), width=8, depth=1, conditions={"label": Classes(10, null=False)})
    for index, parameter in enumerate(net.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    about = dataclasses.replace(
        scoresde.load_data("digits").description,
        conditions={"label": ClassCondition(10, ("T-shirt", "bag", *"cdefghij"))},
    )
    model = scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=about)
    save(model, tmp_path / "classes")
    arguments = ("sample", tmp_path / "classes", "--seeds", "5,5,5,5,5", "--sampler", "DDIM(steps=3)", "-q")
    result = run(*arguments, "--label", "3,T-shirt,0-1", "--out", tmp_path / "x.npz")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "x.npz") as file:
        drawn = file["x"]
    cond = torch.tensor([3, 0, 0, 1, 3])
    expected = scoresde.sample(model.eval(), 5, scoresde.DDIM(steps=3), seeds=[5] * 5, label=cond).data
    assert np.allclose(drawn, expected.numpy())
    assert not np.allclose(drawn[0], drawn[1])
    assert np.allclose(drawn[0], drawn[4])
    for labels, wrong in (
        ("T-shrt", "no class is named 'T-shrt'; did you mean T-shirt?"),
        ("8-10", "labels must be one of 0 ... 9, got 10"),
        ("4-x", "no class is named '4-x'"),
    ):
        refused = run(*arguments, "--label", labels)
        assert refused.exit_code == 2
        assert wrong in one_line(refused)


def test_class_names_that_are_numbers_are_names() -> None:
    net = scoresde.MLP((3,), width=8, depth=1, conditions={"label": Classes(4, null=False)})

    def asked(text: str, names: tuple[str, ...] | None) -> list[int]:
        about = Description("few", (3,), conditions={"label": ClassCondition(4, names)})
        return parse_labels(text, scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=about))

    assert asked("1,2-4", ("1", "2", "3", "4")) == [0, 1, 2, 3]
    assert asked("2", ("1.0", "2", "3", "4")) == [1]
    assert asked("a-b-c,0", ("a-b", "c", "d", "e")) == [0, 1, 0]
    assert asked("1-2", None) == [1, 2]
    for text in ("0", "5", "4-1", "1-5"):
        with pytest.raises(ValueError, match=f"no class is named '{text}'"):
            asked(text, ("1", "2", "3", "4"))
    with pytest.raises(ValueError, match="increasing ranges"):
        asked("3-1", None)


def test_labels_for_a_network_without_classes_are_refused(digits: Path) -> None:
    refused = run("sample", digits, "-n", 2, "--label", "3", "-q")
    assert refused.exit_code == 2
    assert "needs a network that was trained with classes, got '3'" in one_line(refused)


def test_the_same_seed_gives_the_same_samples_and_another_does_not(digits: Path, tmp_path: Path) -> None:
    drawn = []
    for seed in (1, 1, 2):
        arguments = ("-n", 3, "--sampler", "DDPM(steps=3)", "--seed", seed, "--out", tmp_path / "x.npz", "-q")
        assert run("sample", digits, *arguments).exit_code == 0
        with np.load(tmp_path / "x.npz") as file:
            drawn.append(file["x"])
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_a_calibrated_sampler_is_used_with_the_weights_it_was_fitted_to(tmp_path: Path) -> None:
    out, drawn = tmp_path / "ring", tmp_path / "x.npz"
    common = ("--data", "ring", "--out", out, "--network", NET, "--batch-size", 64, "-q")
    assert run("train", *common, "--steps", 60).exit_code == 0
    use = ("sample", out, "-n", 4, "--sampler", "DDIM(steps=4)", "--calibrated", "--out", drawn, "-q")
    assert "there must be calibrations in" in one_line(run(*use))
    fitted = run(
        "calibrate", out, "--sampler", "DDIM()", "--steps", 4, "--noises", 16, "--iterations", 3, "--batch-size", 5
    )
    assert fitted.exit_code == 0, fitted.output
    [entry] = json.loads((out / "calibrated.json").read_text())["calibrations"]
    ratio = entry["error"] / entry["original_error"]
    errors = f"{entry['original_error']:.3g} {entry['error']:.3g} {ratio:.2f} {entry['fit_error']:.3g}"
    assert f"DDIM(steps=4) {errors}" in one_line(fitted)
    assert f"network evaluations {entry['evaluations']}, fitted to 16 noises" in one_line(fitted)
    assert f"scoresde sample {out} --sampler 'DDIM(steps=4)' --calibrated" in one_line(fitted)
    assert run(*use, "--trajectory").exit_code == 0
    assert entry["moments"] is not None
    calibrated = load_calibration(out, DDIM(steps=4)).sampler
    assert isinstance(calibrated, Whitened)
    assert isinstance(calibrated.sampler.grid, ExplicitGrid)
    taus = calibrated.sampler.grid.taus
    with np.load(drawn) as file:
        assert file["taus"].tolist() == [taus[0], *taus[2:]]  # what comes before a call is part of its step
    assert "DDIM(steps=4), calibrated" in one_line(run(*use))
    assert run(*use, "--raw").exit_code == 2
    model = scoresde.load(out)
    next(model.net.parameters()).data.add_(1.0)
    scoresde.save(model, out)
    stale = run(*use)
    assert stale.exit_code == 2
    assert "a calibration is used with the weights that it was fitted to" in one_line(stale)
    assert "--calibrated needs a step sampler of a Gaussian process, such as Adams(steps=10), got ODE" in one_line(
        run(*use[:5], "ODE()", *use[6:])
    )


def test_several_numbers_of_steps_are_calibrated_in_one_command(tmp_path: Path) -> None:
    out = tmp_path / "ring"
    common = ("--data", "ring", "--out", out, "--network", NET, "--batch-size", 64, "-q")
    assert run("train", *common, "--steps", 60).exit_code == 0
    fitted = run("calibrate", out, "--steps", "2-3", "--noises", 16, "--iterations", 1)
    assert fitted.exit_code == 0, fitted.output
    assert "calibrating" in fitted.output
    for steps in (2, 3):
        calibration = load_calibration(out, Adams(steps))
        assert f"Adams(steps={steps}) {calibration.original_error:.3g} {calibration.error:.3g}" in one_line(fitted)
    assert "2 of 2 fits are better than the original sampler" in one_line(fitted)
    quiet = run("calibrate", out, "--steps", 2, "--noises", 16, "--iterations", 1, "-q")
    assert "calibrating" not in quiet.output
    refused = run("calibrate", out, "--steps", "5,x")
    assert refused.exit_code == 2
    assert "steps are integers and increasing ranges" in one_line(refused)


def test_a_hint_names_the_calibration_or_how_to_make_one_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    run_dir = tmp_path / "run"
    model = scoresde.ScoreModel(scoresde.MLP((2,), width=8, depth=1), scoresde.VPSDE(tau_min=1e-3), event_shape=(2,))
    save(model, run_dir)

    def drawn(sampler: str, *options: str) -> str:
        result = run("sample", run_dir, "-n", 2, "--sampler", sampler, *options)
        assert result.exit_code == 0, result.output
        return one_line(result)

    assert "scoresde calibrate" not in drawn("Adams(steps=3)")
    monkeypatch.setattr("scoresde._core.progress.interactive", lambda: True)
    make = f"scoresde calibrate {run_dir} --sampler 'Adams(steps=3)'"
    assert f"for smaller errors at the same network calls: {make}" in drawn("Adams(steps=3)")
    for sampler, *options in (
        ("DDPM(steps=3)",),
        ("ODE(rtol=1.0, atol=1.0)",),
        ("Adams(steps=40)",),
        ("Adams(steps=3)", "-q"),
    ):
        assert "scoresde calibrate" not in drawn(sampler, *options)
    original, fitted = Adams(3), DDIM(3, UniformAngle())
    save_calibration(run_dir, Calibration(fitted, original, 0.125, 0.5, 0.1, 16, 100))
    use = f"scoresde sample {run_dir} --sampler 'Adams(steps=3)' --calibrated"
    assert f"its calibration has 0.25 times the error: {use}" in drawn("Adams(steps=3)")
    assert "times the error" not in drawn("Adams(steps=3)", "--calibrated")
    save_calibration(run_dir, Calibration(original, original, 0.5, 0.5, 0.5, 16, 100))
    assert "calibrat" not in drawn("Adams(steps=3)")  # nothing better was found


def test_points_cannot_be_written_as_an_image_and_no_file_is_left(tmp_path: Path) -> None:
    out = tmp_path / "run"
    common = ("--data", "ring", "--network", NET, "--steps", 1, "--batch-size", 4, "-q")
    assert run("train", *common, "--out", out).exit_code == 0
    result = run("sample", out, "-n", 2, "--sampler", "DDIM(steps=2)", "--out", tmp_path / "x.png", "-q")
    assert result.exit_code == 2
    assert "write them as .npz" in one_line(result)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(("text", "integers"), [("3", [3]), ("0-2", [0, 1, 2]), ("5, 1-2", [5, 1, 2])])
def test_seeds_are_numbers_and_ranges(text: str, integers: list[int]) -> None:
    assert parse_integers(text) == integers


def test_seeds_of_other_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds are integers and increasing ranges"):
        parse_integers("1..4")
