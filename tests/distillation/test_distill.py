"""Tests of distillation: the loss and its targets in closed form, trained students, run directories."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as sd
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.distillation import (
    Eulerian,
    FlowMap,
    JumpLoss,
    Semigroup,
    Target,
    TeacherLast,
    Trajectory,
    distill,
    load_student,
    save_student,
)
from scoresde.distillation.grids import jump_times, nodes_between
from scoresde.distillation.trajectories import grid_through, solve
from scoresde.guidance import Clipping
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import Adams, Jumps, Moments, sample
from scoresde.storage.checkpoint import read_checkpoint
from scoresde.training import Training

D = torch.float64
NODES = (3.0, 1.5, 0.8, 0.3, 0.01)
TARGETS: list[Target] = [Trajectory(), Eulerian(), Eulerian(2), Semigroup()]
_SHORT = Training(steps=100, batch_size=128, lr=3e-3, lr_end=0.0, ema=0.95)
FEW: dict[str, Any] = {"trajectories": 32, "noises": 16, "calibrated": False, "progress": False}


def _mixture() -> GaussianMixture:
    """Two components in one dimension."""
    return GaussianMixture(torch.tensor([1.0, 2.0]), torch.tensor([[-1.0], [0.8]]), torch.tensor([0.1, 0.2]))


def _exact_student(mean: Tensor, variances: Tensor) -> FlowMap:
    """A student whose base map is the flow of its teacher, N(mean, variances)."""
    moments = Moments(mean, torch.eye(len(mean)), variances)
    student = FlowMap.new(Gaussian(mean, variances), moments=moments, net=MLP((len(mean),), 4, 1, delta=True))
    return student.double().eval()


def _gaussian_trajectories(teacher: Gaussian, generator: torch.Generator, n: int = 16) -> Tensor:
    """Closed form: every state is the same multiple of the standard deviation; with the velocities there."""
    z = torch.randn(n, 3, generator=generator, dtype=D)
    states = []
    for tau in NODES:
        std = (ou.alpha_bar(tau) * teacher.variances[0] + ou.sigma(tau) ** 2).sqrt()
        states.append(ou.alpha(tau) * teacher.means[0] + std * z)
    return torch.stack([*states, *(teacher(x, tau).v for x, tau in zip(states, NODES))], 1)


# --- the loss and its targets ---


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("every", [None, 2])
def test_the_exact_flow_map_has_no_loss(target: Target, every: int | None, generator: torch.Generator) -> None:
    mean, variances = torch.tensor([1.0, 0.0, -1.0], dtype=D), torch.tensor([0.1, 1.0, 3.0], dtype=D)
    student, teacher = _exact_student(mean, variances), Gaussian(mean, variances)
    trajectories = _gaussian_trajectories(teacher, generator)
    losses = JumpLoss(NODES, every, target)(student.model, trajectories if every is None else trajectories[:, :5])
    assert losses.shape == (16,)
    assert float(losses.detach().max()) < 1e-9


def test_the_loss_is_the_squared_error_of_the_average_velocity(generator: torch.Generator) -> None:
    taus = (2.0, 0.5)
    student = FlowMap.new(ScoreModel(MLP((3,), 4, 1), VPSDE(), V(), (3,)))  # a new network: w = 0
    states = torch.randn(7, 2, 3, generator=generator)
    delta = ou.angle(2.0) - ou.angle(0.5)
    w = (math.cos(delta) * states[:, 0] - states[:, 1]) / math.sin(delta)
    losses = JumpLoss(taus, 1, robust=math.inf)(student.model, states)
    torch.testing.assert_close(losses, w.double().square().sum(1), rtol=1e-5, atol=1e-6)
    floored = JumpLoss(taus, 1, floor=0.9, robust=math.inf)(student.model, states)
    expected = w.double().square().sum(1) * (math.sin(delta) / 0.9) ** 2
    torch.testing.assert_close(floored, expected, rtol=1e-5, atol=1e-6)


def test_the_loss_of_large_errors_is_proportional_to_them(generator: torch.Generator) -> None:
    student = FlowMap.new(ScoreModel(MLP((3,), 4, 1), VPSDE(), V(), (3,)))
    states = torch.randn(7, 2, 3, generator=generator)
    square = JumpLoss((2.0, 0.5), 1, robust=math.inf)(student.model, states)
    for robust in (0.03, 1.0, 100.0):
        c = robust * math.sqrt(3)
        expected = 2 * c * ((square + c * c).sqrt() - c)
        torch.testing.assert_close(JumpLoss((2.0, 0.5), 1, robust=robust)(student.model, states), expected)


def test_on_the_diagonal_the_loss_is_the_squared_error_of_the_velocity(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = FlowMap.new(ScoreModel(MLP((3,), 4, 1), VPSDE(), V(), (3,)))
    trajectories = torch.randn(7, 10, 3, generator=generator)
    node = torch.arange(7) % 4
    monkeypatch.setattr(JumpLoss, "_pairs", lambda self, size, device: (node, node))
    expected = trajectories[torch.arange(7), 5 + node].double().square().sum(1)
    torch.testing.assert_close(JumpLoss(NODES, robust=math.inf)(student.model, trajectories), expected)


def test_jumps_between_any_nodes_cover_ends_and_diagonal() -> None:
    i, j = JumpLoss(NODES)._pairs(4000, torch.device("cpu"))
    assert bool(((i >= 0) & (i < 4) & (i <= j) & (j <= 4)).all())
    for name, share, expected in (
        ("diagonal", i == j, 1 / 4),
        ("from noise", i == 0, 1 / 4 + 3 / 4 / 4),
    ):
        error = 4 * math.sqrt(expected * (1 - expected) / 4000)
        assert abs(float(share.double().mean()) - expected) < error, name
    assert len({(int(a), int(b)) for a, b in zip(i, j)}) == 4 + 10  # every pair, and every diagonal but the last


def test_fixed_jumps_are_trained_equally_often() -> None:
    i, j = JumpLoss(NODES, 2)._pairs(8, torch.device("cpu"))
    assert sorted(i.tolist()) == [0] * 4 + [2] * 4
    assert (j - i).tolist() == [2] * 8
    i, j = JumpLoss(NODES, 2, Eulerian())._pairs(400, torch.device("cpu"))
    assert set(zip(i.tolist(), j.tolist())) == {(0, 2), (1, 2), (2, 4), (3, 4)}


def test_targets_are_what_their_formulas_say(generator: torch.Generator) -> None:
    states = torch.randn(2, 5, 3, generator=generator, dtype=D)
    i, j = torch.tensor([0, 3]), torch.tensor([4, 4])

    def jump(x: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        return 2.0 * x + (10 * begin + end).unsqueeze(1)

    def row(target: Target) -> Tensor:
        return target.end(jump, states, i, j)

    torch.testing.assert_close(row(Trajectory()), states[:, 4])
    torch.testing.assert_close(row(Eulerian())[0], 2 * states[0, 1] + 14)
    torch.testing.assert_close(row(Eulerian(3))[0], 2 * states[0, 3] + 34)
    torch.testing.assert_close(row(Semigroup())[0], 2 * (2 * states[0, 0] + 2) + 24)
    for target in TARGETS:  # no node between 3 and 4
        torch.testing.assert_close(row(target)[1], states[1, 4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"taus": (1.0,)}, "taus must be two falling times or more"),
        ({"taus": (0.1, 1.0)}, "taus must be two falling times or more"),
        ({"taus": NODES, "every": 3}, "every must divide the 4 intervals"),
        ({"taus": NODES, "floor": 0.0}, "floor must be a positive"),
        ({"taus": NODES, "robust": 0.0}, "robust must be positive"),
    ],
)
def test_wrong_settings_of_the_loss_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JumpLoss(**settings)


# --- the teacher's trajectories ---


def test_trajectories_of_a_gaussian_are_its_closed_form(generator: torch.Generator) -> None:
    mean, variances = torch.tensor([1.0, 0.0, -1.0], dtype=D), torch.tensor([0.1, 1.0, 3.0], dtype=D)
    teacher = Gaussian(mean, variances)
    expected = _gaussian_trajectories(teacher, generator)
    got, calls = solve(
        teacher, expected[:, 0], NODES, Adams(64, predictor_order=4, corrector_order=4), {}, velocities=True
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert calls == 64 + Adams(64, predictor_order=4, corrector_order=4).start_calls + 5


def test_in_one_dimension_a_trajectory_is_the_monotone_rearrangement(generator: torch.Generator) -> None:
    mixture = _mixture().double()
    start, end = 3.0, 0.01
    x = mixture.sample(50, start, generator)
    states, _ = solve(mixture, x, (start, end), Adams(100, predictor_order=4, corrector_order=4), {})

    def cdf(x: Tensor, tau: float) -> Tensor:
        std = (ou.alpha_bar(tau) * mixture.variances + ou.sigma(tau) ** 2).sqrt()[:, 0]
        z = (x - ou.alpha(tau) * mixture.means[:, 0]) / std
        return (mixture.log_weights.exp() * torch.special.ndtr(z)).sum(1)

    torch.testing.assert_close(cdf(states[:, 1], end), cdf(x, start), rtol=0, atol=1e-6)


def test_the_grid_of_a_trajectory_contains_its_nodes() -> None:
    taus = nodes_between(jump_times(VPSDE(), 3), 4)
    times = grid_through(Gaussian(torch.zeros(2), 1.0), taus, Adams(30))
    assert len(times) == 31
    assert set(taus) <= set(times)
    assert all(tau > s for tau, s in zip(times, times[1:]))


@pytest.mark.parametrize("sde", [VPSDE(), VE(), VPSDE(tau_min=0.5)], ids=repr)
@pytest.mark.parametrize("calls", [1, 2, 4, 9])
def test_the_times_of_jumps_fall_from_the_first_to_the_last(sde: Any, calls: int) -> None:
    times = jump_times(sde, calls)
    assert len(times) == calls + 1
    assert (times[0], times[-1]) == (sde.tau_max, sde.tau_min)
    assert all(tau > s for tau, s in zip(times, times[1:]))
    with pytest.raises(ValueError, match="taus must be 3 times from tau_max"):
        jump_times(sde, 2, (1.0, 0.5))


# --- trained students ---


@pytest.fixture(scope="module")
def trained() -> dict[int | None, Any]:
    """Students of a 1-D mixture: of one, of two and of any jumps."""
    model = _mixture()
    settings = Training(steps=250, batch_size=256, lr=3e-3, betas=(0.9, 0.99), lr_end=0.0, ema=0.98)
    options: dict[str, Any] = {"trajectories": 4096, "noises": 512, "calibrated": False, "progress": False}
    net = {calls: MLP((1,), 64, 2, delta=True) for calls in (1, 2, None)}
    return {calls: distill(model, calls, training=settings, net=net[calls], **options) for calls in (1, 2, None)}


def test_a_trained_student_is_near_the_monotone_rearrangement(trained: dict[int | None, Any]) -> None:
    moments = Moments(torch.tensor([0.2]), torch.eye(1), torch.tensor([0.8867]))
    base = FlowMap.new(_mixture(), moments=moments)
    x = torch.linspace(-2.5, 2.5, 101).unsqueeze(1)
    for calls in (1, 2):
        student = trained[calls].student
        end = sample(student, 101, Jumps(), init=x).x
        assert bool((end.diff(dim=0) > -0.02).all())  # nowhere falling
        assert trained[calls].comparison.student[calls] < 0.03
    untrained = sample(base, 101, Jumps(1), init=x).x
    assert float((untrained - end).square().mean().sqrt()) > 0.2


def test_a_student_of_any_jumps_gets_no_worse_with_calls(trained: dict[int | None, Any]) -> None:
    errors = trained[None].comparison.student
    assert sorted(errors) == [1, 2, 4, 8]
    assert errors[1] < 0.06
    for fewer, more in ((1, 2), (2, 4), (4, 8)):
        assert errors[more] < max(1.1 * errors[fewer], 0.015)  # 0.015 is what this short training leaves


def test_a_student_of_any_jumps_keeps_its_teachers_velocity(trained: dict[int | None, Any]) -> None:
    student = trained[None].student
    model = _mixture()
    ours, theirs = (sample(each, 200, Adams(20), seeds=range(200)).x for each in (student, model))
    assert float((ours - theirs).square().mean().sqrt()) < 0.1
    log_prob = sd.log_prob(student, theirs[:20], seeds=range(20)).log_prob
    assert float((log_prob - model.log_prob(theirs[:20]).double()).abs().median()) < 0.2


def test_the_better_of_student_and_calibrated_teacher_is_chosen(capsys: Any) -> None:
    model, said = Gaussian(torch.ones(2), 0.3), []
    settings = Training(steps=1, batch_size=4, lr=1e-9)
    options: dict[str, Any] = {"training": settings, "trajectories": 4096, "noises": 64, "progress": False}
    moments = Moments(torch.ones(2), torch.eye(2), torch.full((2,), 0.3))
    exact = distill(model, 2, base=moments, status=said.append, **options).comparison
    assert exact.student[2] < 1e-3
    mixture = GaussianMixture.ring().float()
    alone = distill(mixture, 1, **{**options, "training": _SHORT, "trajectories": 2048}).comparison
    assert alone.model is not mixture
    assert alone.sampler == Jumps()
    assert alone.student[1] < alone.calibrated[1]
    poor = distill(model, 2, base=False, **options).comparison
    assert poor.model is model
    assert poor.calibration is not None
    assert poor.sampler == poor.calibration.sampler
    assert poor.calibrated[2] < poor.student[2]
    assert any("student" in line and "calibrated teacher" in line and "held-out" in line for line in said)


def test_the_last_call_can_be_the_teachers() -> None:
    ring = GaussianMixture.ring(sde=VPSDE(tau_min=1e-4)).float()
    result = distill(ring, 2, last_call=True, training=_SHORT, **{**FEW, "trajectories": 2048})
    model, student = result.comparison.model, result.student
    assert isinstance(model, TeacherLast)
    assert student.jump_times is not None
    (_, middle), end = student.jump_times, ring.sde.tau_min
    assert middle > end
    samples = sample(model, 200, Jumps(), seeds=range(200), trajectory=True)
    assert samples.nfe == 2
    assert samples.trajectory is not None
    x, delta = samples.trajectory[1], ou.angle(middle) - ou.angle(end)
    expected = math.cos(delta) * x - math.sin(delta) * ring(x, middle).v
    torch.testing.assert_close(samples.x, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="last_call=True needs a fixed number of calls, 2 or more, got calls=1"):
        distill(ring, 1, last_call=True, **FEW)
    with pytest.raises(ValueError, match="student of fixed jumps that end above tau_min"):
        TeacherLast(FlowMap.new(ring), ring)
    with pytest.raises(ValueError, match="no velocity of its own"):
        sample(model, 2, Adams(4))


def test_a_guided_teacher_needs_a_network_and_is_distilled() -> None:
    teacher = Clipping(Gaussian(torch.ones(2), 0.3), 0.5, 1.5)
    result = distill(teacher, 1, training=Training(steps=2, batch_size=8), net=MLP((2,), 8, 1, delta=True), **FEW)
    assert result.student.jump_times == (teacher.sde.tau_max, teacher.sde.tau_min)


def test_a_teacher_with_labels_is_distilled_with_labels() -> None:
    net = MLP((2,), 8, 1, conditions={"label": Classes(3)})
    teacher = ScoreModel(net, VPSDE(), V(), (2,))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1
    result = distill(teacher, 1, training=Training(steps=2, batch_size=8, condition_dropout=0.0), **FEW)
    labels = torch.tensor([0, 1, 2, 3])
    assert sample(result.student, 4, Jumps(), label=labels, seeds=range(4)).x.shape == (4, 2)


# --- run directories ---


def _run(folder: Path | None, calls: int | None, steps: int = 6, **options: Any) -> Any:
    net = MLP((2,), 8, 1)
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter += 0.01 * (i + 1)
    settings = Training(steps=steps, batch_size=8, warmup=2)
    teacher = ScoreModel(net, VPSDE(), V(), (2,))
    return distill(teacher, calls, training=settings, run_dir=folder, about={"teacher": "runs/a"}, **FEW, **options)


def test_a_run_depends_on_its_seed_and_leaves_the_global_random_state_alone() -> None:
    def weights(seed: int) -> list[Tensor]:
        training = Training(steps=2, batch_size=8, seed=seed)
        return list(distill(Gaussian(torch.ones(2), 0.3), 1, training=training, **FEW).student.parameters())

    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert all(map(torch.equal, first, weights(0)))
    assert not all(map(torch.equal, first, weights(1)))


@pytest.mark.parametrize("calls", [2, None])
def test_a_student_is_loaded_from_its_run_directory(tmp_path: Path, calls: int | None) -> None:
    torch.manual_seed(0)
    result = _run(tmp_path / "run", calls)
    student = load_student(tmp_path / "run")
    assert student.jump_times == result.student.jump_times
    ours, theirs = (sample(each, 5, Jumps(), seeds=range(5)).x for each in (student, result.student))
    assert torch.equal(ours, theirs)
    about = json.loads((tmp_path / "run/config.json").read_text())["about"]
    assert about["teacher"] == "runs/a"
    record = about["distillation"]
    assert len(record["teacher_sha256"]) == 64
    assert record["trajectories"] == 32
    assert record["calls_per_trajectory"] >= 16
    assert read_checkpoint(tmp_path / "run").meta["objective"].startswith("JumpLoss(taus=(")
    save_student(student, tmp_path / "copy")
    assert torch.equal(sample(load_student(tmp_path / "copy"), 5, Jumps(), seeds=range(5)).x, ours)


def test_a_student_with_a_last_call_of_its_teacher_is_loaded_with_it(tmp_path: Path) -> None:
    ring = GaussianMixture.ring(sde=VPSDE(tau_min=1e-4)).float()
    settings = {"training": Training(steps=2, batch_size=8), "run_dir": tmp_path / "run", **FEW}
    result = distill(ring, 2, last_call=True, **settings)
    record = json.loads((tmp_path / "run/config.json").read_text())["about"]["distillation"]
    assert record["last_call"] is True
    loaded = load_student(tmp_path / "run", teacher=ring)
    assert isinstance(loaded, TeacherLast)
    samples = [sample(each, 5, Jumps(), seeds=range(5)) for each in (loaded, result.comparison.model)]
    assert torch.equal(samples[0].x, samples[1].x)
    assert samples[0].tau == ring.sde.tau_min
    alone = sample(load_student(tmp_path / "run"), 5, Jumps(), seeds=range(5))
    assert alone.tau > ring.sde.tau_min
    with pytest.raises(ValueError, match="the teacher must be the one of the run"):
        load_student(tmp_path / "run", teacher=GaussianMixture.ring(3, sde=VPSDE(tau_min=1e-4)).float())
    whole = distill(ring, 1, **{**settings, "run_dir": tmp_path / "whole"})
    assert whole.record["last_call"] is False
    with pytest.raises(ValueError, match="student of fixed jumps that end above tau_min"):
        load_student(tmp_path / "whole", teacher=ring)


def test_a_student_is_no_ordinary_model_for_load(tmp_path: Path) -> None:
    _run(tmp_path / "run", 1)
    with pytest.raises(ValueError, match="holds a few-step student; load it by scoresde.distillation.load_student"):
        sd.load(tmp_path / "run")


class _StopError(Exception):
    pass


def test_a_resumed_distillation_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    def stop(state: Any) -> None:
        if state.step == 4:
            raise _StopError

    torch.manual_seed(0)
    whole = _run(tmp_path / "whole", 2)
    torch.manual_seed(0)
    with pytest.raises(_StopError):
        _run(tmp_path / "cut", 2, callbacks=[sd.Callback(2, stop)], save_every=2)
    torch.manual_seed(0)
    resumed = _run(tmp_path / "cut", 2, resume=True)
    for ours, theirs in zip(resumed.student.parameters(), whole.student.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(FileExistsError, match="a new run needs a directory without checkpoints"):
        _run(tmp_path / "cut", 2)


def test_a_resumed_run_with_another_target_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _run(tmp_path / "run", 2, target=Eulerian())
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="objective"):
        _run(tmp_path / "run", 2, resume=True, target=Semigroup())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": Training(loss=sd.Loss(sd.ELBO()))}, "has a loss of its own"),
        ({"trajectories": 0}, "trajectories must be a positive integer"),
        ({"calls": None, "taus": (1.0, 0.5)}, "taus are the times of fixed jumps"),
        ({"solver": sd.DDPM(10)}, "distill needs a deterministic sampler"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distill(Gaussian(torch.zeros(2), 0.5), **{"calls": 1, **options})


def test_settings_are_dataclasses_with_a_text_form() -> None:
    from scoresde.storage import spec

    loss = JumpLoss(NODES, 2, Eulerian(3))
    known = {cls.__name__: cls for cls in (JumpLoss, Eulerian)}
    assert spec.parse(spec.to_text(loss), known) == loss
    assert dataclasses.replace(loss, target=Trajectory()) != loss
