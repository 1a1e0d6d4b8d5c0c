"""Tests of flow maps before training: their start as the teacher's DDIM, and the closed forms of the base map."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.distillation import AverageVelocity, FlowMap
from scoresde.guidance import Clipping
from scoresde.likelihood import log_prob
from scoresde.model import ScoreModel, gaussian_process
from scoresde.nn import MLP, Classes, DiT, FourierInput, Pointwise, QuantizedSkip, UNet
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, Score, V, Velocity
from scoresde.process.schedule import Cosine
from scoresde.process.sde import SDE, VE, VPSDE
from scoresde.sampling import DDIM, Adams, Jumps, Moments, UniformAngle, Whitened, sample
from scoresde.sampling.whitened import WhitenedCoordinates

D = torch.float64
TAUS = [(5.0, 1.0), (1.0, 0.2), (0.2, 0.01)]


def _perturbed(net: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


def _teacher(generator: torch.Generator, parameterization: Parameterization, **settings: Any) -> ScoreModel:
    net = _perturbed(MLP((3,), 16, 2, **settings), generator)
    return ScoreModel(net, VPSDE(Cosine()), parameterization, (3,)).double().eval()


def _moments(generator: torch.Generator, size: int = 3, rank: int | None = None) -> Moments:
    axes = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=D)).Q[:, :rank]
    variances = torch.randn(axes.shape[1], generator=generator, dtype=D).exp()
    return Moments(torch.randn(size, generator=generator, dtype=D), axes, variances, 0.6)


def _x(generator: torch.Generator, n: int = 6, size: int = 3) -> Tensor:
    return torch.randn(n, size, generator=generator, dtype=D)


def _jump(student: FlowMap, x: Tensor, tau: float, s: float, **cond: Tensor) -> Tensor:
    delta = ou.angle(tau) - ou.angle(s)
    return math.cos(delta) * x - math.sin(delta) * student(x, tau, s=s, **cond).v


def _base(moments: Moments, sde: SDE | None = None) -> FlowMap:
    """A student of which the base map is all: its network is 0."""
    size = moments.mean.numel()
    model = Gaussian(torch.zeros(size, dtype=D), 1.0, sde)
    return FlowMap.new(model, moments=moments, net=MLP((size,), 4, 1, delta=True)).double().eval()


# --- the start of a student ---


@pytest.mark.parametrize("parameterization", [V(), V(0.5), Eps(), X0(), Score(), Velocity()], ids=repr)
def test_a_new_student_is_its_teachers_ddim_in_the_angle(
    parameterization: Parameterization, generator: torch.Generator
) -> None:
    teacher, x = _teacher(generator, parameterization), _x(generator)
    student = FlowMap.new(teacher)
    grid = UniformAngle()
    with_jumps = sample(student, 6, Jumps(5, grid), init=x, start=1.0).x
    with_steps = sample(teacher, 6, DDIM(5, grid), init=x, start=1.0).x
    torch.testing.assert_close(with_jumps, with_steps, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(student(x, 0.7).v, teacher(x, 0.7).v, rtol=1e-6, atol=1e-6)


QUANTIZED = QuantizedSkip(UNet((1, 4, 4), 16, (1,), 1, outputs=3), bins=8)
NETWORKS: list[nn.Module] = [
    UNet((1, 4, 4), 16, (1, 2), 1, dropout=0.1, augment=9),
    DiT((1, 4, 4), width=16, depth=1, heads=2),
    Pointwise(MLP((1, 4, 4), 16, 1, outputs=4, dropout=0.2), FourierInput(4.0)),
    QUANTIZED.fit(torch.arange(64) % 7),
]


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: type(net).__name__)
def test_a_student_takes_over_the_weights_of_every_network_of_the_package(
    net: nn.Module, generator: torch.Generator
) -> None:
    teacher = ScoreModel(_perturbed(net, generator), VPSDE(), V(), (1, 4, 4)).eval()
    student, x = FlowMap.new(teacher), torch.randn(2, 1, 4, 4, generator=generator)
    torch.testing.assert_close(student(x, 1.0, s=0.1).v, teacher(x, 1.0).v, rtol=1e-6, atol=1e-6)
    assert all(layer.p == 0 for layer in student.modules() if isinstance(layer, nn.Dropout))


def test_the_angle_of_a_jump_changes_every_network_once_its_weights_are_not_zero(generator: torch.Generator) -> None:
    for net in NETWORKS:
        student = FlowMap.new(ScoreModel(_perturbed(net, generator), VPSDE(), V(), (1, 4, 4)))
        _perturbed(student, generator)
        x = torch.randn(2, 1, 4, 4, generator=generator)
        difference = student(x, 1.0, s=0.1).v - student(x, 1.0, s=0.5).v
        assert float(difference.detach().abs().max()) > 1e-4, type(net).__name__
        zero = student.model(x, 1.0, delta=torch.zeros(2)).v
        torch.testing.assert_close(student(x, 1.0).v, zero, rtol=0, atol=0)


def test_a_student_reads_the_labels_of_its_teacher(generator: torch.Generator) -> None:
    teacher = _teacher(generator, V(), conditions={"label": Classes(4)})
    student, x, labels = FlowMap.new(teacher), _x(generator), torch.arange(6) % 5
    result = sample(student, 6, Jumps(3, UniformAngle()), label=labels, seeds=range(6))
    expected = sample(teacher, 6, DDIM(3, UniformAngle()), label=labels, seeds=range(6))
    torch.testing.assert_close(result.x, expected.x, rtol=1e-6, atol=1e-6)
    difference = student(x, 1.0, s=0.1, label=labels).v - student(x, 1.0, s=0.1).v
    assert float(difference.detach().abs().max()) > 1e-3


def test_a_student_of_a_network_with_a_learned_variance_uses_the_first_output(generator: torch.Generator) -> None:
    net = _perturbed(MLP((3,), 16, 1, outputs=2), generator)
    teacher = ScoreModel(net, VPSDE(), Eps(), (3,), learned_variance=True).double().eval()
    x = _x(generator)
    torch.testing.assert_close(FlowMap.new(teacher)(x, 1.0, s=0.1).v, teacher(x, 1.0).v, rtol=1e-6, atol=1e-6)


def test_damping_bounds_the_factor_of_the_teachers_output(generator: torch.Generator) -> None:
    teacher, x = _teacher(generator, Eps()), _x(generator)
    student = FlowMap.new(teacher, damping=0.3)
    noise, data = 4.0, 1e-3
    excess = teacher(x, noise).eps - ou.sigma(noise) * x  # v times α
    alpha = ou.alpha(noise)
    expected = excess * (alpha + 0.09) / (alpha**2 + 0.09)
    torch.testing.assert_close(student(x, noise).v, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(student(x, data).v, teacher(x, data).v, rtol=1e-3, atol=1e-3)
    for parameterization in (V(), X0()):  # |det| = 1 at high noise
        student = FlowMap.new(other := _teacher(generator, parameterization), damping=0.3)
        torch.testing.assert_close(student(x, noise).v, other(x, noise).v, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("parameterization", [V(), Eps()], ids=repr)
def test_with_a_base_map_a_student_starts_with_the_velocity_in_whitened_coordinates(
    parameterization: Parameterization, generator: torch.Generator
) -> None:
    teacher, moments, x = _teacher(generator, parameterization), _moments(generator, rank=2), _x(generator)
    student, coordinates = FlowMap.new(teacher, moments=moments).double(), WhitenedCoordinates(moments, x)
    for tau, s in TAUS:
        y = coordinates.whiten(x, tau)
        w = coordinates.predict(teacher.predict, 1e3, y, tau).v
        delta = ou.angle(tau) - ou.angle(s)
        expected = coordinates.unwhiten(y - math.sin(delta) * w, s)
        torch.testing.assert_close(_jump(student, x, tau, s), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(student(x, tau).v, teacher(x, tau).v, rtol=1e-6, atol=1e-6)


def test_many_jumps_of_a_new_student_are_whitened_sampling(generator: torch.Generator) -> None:
    teacher, moments = _teacher(generator, V()), _moments(generator)
    student, x = FlowMap.new(teacher, moments=moments).double(), _x(generator)
    base, taus = _base(moments, gaussian_process(teacher)), UniformAngle().times(teacher.sde, 100)
    whitened = Whitened(Adams(100, UniformAngle(), predictor_order=1, corrector_order=0, prediction="v"), moments)
    expected = sample(teacher, 6, whitened, init=x).x
    x = _jump(base, x, taus[0], taus[1])  # Whitened makes no network call in its first step
    for tau, s in zip(taus[1:], taus[2:]):
        x = _jump(student, x, tau, s)
    torch.testing.assert_close(x, expected, rtol=0, atol=5e-4)  # the sines of the steps are their angles to 4e-5


# --- closed forms ---


def test_the_base_map_is_the_flow_of_a_gaussian(generator: torch.Generator) -> None:
    moments, x = _moments(generator), _x(generator)
    student, axes = _base(moments), moments.axes
    for tau, s in TAUS:
        v_tau, v_s = (ou.alpha_bar(t) * moments.variances + ou.sigma(t) ** 2 for t in (tau, s))
        centered = (x - ou.alpha(tau) * moments.mean) @ axes
        expected = ou.alpha(s) * moments.mean + (centered * (v_s / v_tau).sqrt()) @ axes.mT
        torch.testing.assert_close(_jump(student, x, tau, s), expected, rtol=1e-6, atol=1e-6)


def test_the_average_velocity_of_unit_gaussians_is_minus_the_tangent_of_half_the_angle(
    generator: torch.Generator,
) -> None:
    unit = Moments(torch.zeros(3, dtype=D), torch.eye(3, dtype=D), torch.ones(3, dtype=D))
    student, x = _base(unit), _x(generator)
    for tau, s in TAUS:
        expected = -math.tan(0.5 * (ou.angle(tau) - ou.angle(s))) * x
        torch.testing.assert_close(student(x, tau, s=s).v, expected, rtol=1e-6, atol=1e-7)


def test_a_point_mass_is_reached_in_one_jump(generator: torch.Generator) -> None:
    point, x = torch.tensor([1.0, -2.0, 0.3], dtype=D), _x(generator)
    student = _base(Moments(point, torch.eye(3, dtype=D), torch.zeros(3, dtype=D)))
    torch.testing.assert_close(_jump(student, x, 5.0, 0.0), point.expand(6, 3), rtol=0, atol=2e-6)
    teacher = Gaussian(point, 0.0)  # DDIM, with which every student of a network starts, is exact there too
    delta = ou.angle(5.0) - ou.angle(1e-4)
    expected = ou.alpha(1e-4) * point + ou.sigma(1e-4) / ou.sigma(5.0) * (x - ou.alpha(5.0) * point)
    ddim = math.cos(delta) * x - math.sin(delta) * teacher(x, 5.0).v
    torch.testing.assert_close(ddim, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(_jump(student, x, 5.0, 1e-4), expected, rtol=0, atol=2e-6)


def test_two_jumps_of_the_base_map_are_one(generator: torch.Generator) -> None:
    student, x = _base(_moments(generator, rank=1)), _x(generator)
    in_two = _jump(student, _jump(student, x, 5.0, 0.7), 0.7, 0.01)
    torch.testing.assert_close(in_two, _jump(student, x, 5.0, 0.01), rtol=1e-6, atol=1e-6)


def test_the_base_map_changes_variables_between_the_densities_of_the_flow(generator: torch.Generator) -> None:
    mean, factor = torch.randn(3, generator=generator, dtype=D), torch.randn(3, 3, generator=generator, dtype=D)
    model = Gaussian(mean, factor @ factor.mT)
    variances, axes = torch.linalg.eigh(factor @ factor.mT)
    student = _base(Moments(mean, axes, variances))
    for x in _x(generator, 3):
        for tau, s in TAUS:
            jacobian = torch.autograd.functional.jacobian(lambda x, t=tau, s=s: _jump(student, x[None], t, s)[0], x)
            end = _jump(student, x[None], tau, s)
            change = torch.linalg.slogdet(jacobian)[1]
            torch.testing.assert_close(
                model.log_prob(end, s)[0] + change, model.log_prob(x[None], tau)[0], rtol=1e-5, atol=1e-5
            )


def test_on_the_diagonal_the_base_map_has_the_velocity_of_the_gaussian(generator: torch.Generator) -> None:
    mean, x = torch.randn(3, generator=generator, dtype=D), _x(generator)
    variances = torch.tensor([0.1, 1.0, 4.0], dtype=D)
    student = _base(Moments(mean, torch.eye(3, dtype=D), variances))
    for tau in (4.0, 0.5, 0.01):
        torch.testing.assert_close(student(x, tau).v, Gaussian(mean, variances)(x, tau).v, rtol=1e-6, atol=1e-6)


def test_a_preview_of_a_jump_is_the_data_estimate_with_which_it_was_made(generator: torch.Generator) -> None:
    student = FlowMap.new(_teacher(generator, V()))
    result = sample(student, 4, Jumps(3), seeds=range(4), previews=True, trajectory=True)
    assert result.previews is not None
    assert result.trajectory is not None
    assert result.taus is not None
    assert (result.nfe, len(result.taus)) == (3, 4)
    for k, (tau, s) in enumerate(zip(result.taus, result.taus[1:])):
        x, x0 = result.trajectory[k], result.previews[k]
        eps = (x - ou.alpha(tau) * x0) / ou.sigma(tau)
        torch.testing.assert_close(ou.alpha(s) * x0 + ou.sigma(s) * eps, result.trajectory[k + 1], rtol=1e-5, atol=1e-5)


# --- where a student can be used ---


def test_a_student_of_any_jumps_serves_ordinary_samplers_and_likelihoods(generator: torch.Generator) -> None:
    teacher = _teacher(generator, V())
    student = FlowMap.new(teacher)
    ours, theirs = (sample(model, 3, Adams(6), seeds=range(3)).x for model in (student, teacher))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    x = _x(generator, 2)
    ours, theirs = (log_prob(model, x, seeds=range(2)).log_prob for model in (student, teacher))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def _fixed(generator: torch.Generator) -> FlowMap:
    return FlowMap.new(_teacher(generator, V()), taus=(VPSDE(Cosine()).tau_max, 0.5, 1e-5))


def test_a_student_of_fixed_jumps_refuses_what_needs_its_velocity(generator: torch.Generator) -> None:
    student = _fixed(generator)
    reason = "trained for 2 fixed jumps and has no velocity.*use its teacher.*calls=None"
    assert sample(student, 2, Jumps()).nfe == 2
    for call in (
        lambda: student(_x(generator), 0.5),
        lambda: sample(student, 2, DDIM(5)),
        lambda: sample(student, 2, Jumps(), denoise=True),
        lambda: log_prob(student, _x(generator, 2)),
        lambda: sample(Clipping(student), 2, DDIM(5)),
    ):
        with pytest.raises(ValueError, match=reason):
            call()


def test_a_student_of_fixed_jumps_takes_no_others(generator: torch.Generator) -> None:
    student = _fixed(generator)
    with pytest.raises(ValueError, match="trained for jumps between .*0.5.*got one from tau = 1 to s = 0.5"):
        student(_x(generator), 1.0, s=0.5)
    with pytest.raises(ValueError, match="calls must be 2, for which this student was trained, got 3"):
        sample(student, 2, Jumps(3))
    with pytest.raises(ValueError, match="first jump begins at tau = .*got start = 1"):
        sample(student, 2, Jumps(), start=1.0, init=_x(generator, 2))


def test_jumps_need_a_student(generator: torch.Generator) -> None:
    for model in (_teacher(generator, V()), Clipping(FlowMap.new(_teacher(generator, V()))), GaussianMixture.ring()):
        with pytest.raises(TypeError, match="Jumps needs a few-step student.*distill"):
            sample(model, 2, Jumps(2))


def test_a_jump_ends_at_an_earlier_time(generator: torch.Generator) -> None:
    student = FlowMap.new(_teacher(generator, V()))
    with pytest.raises(ValueError, match="s <= tau, got tau = 0.1 and s = 0.5"):
        student(_x(generator), 0.1, s=0.5)
    with pytest.raises(ValueError, match="s must lie in"):
        student(_x(generator), 0.1, s=-0.5)


def test_times_may_be_tensors(generator: torch.Generator) -> None:
    student, x = FlowMap.new(_teacher(generator, V()), moments=_moments(generator)).double(), _x(generator, 2)
    _perturbed(student, generator)
    both = student(x, torch.tensor([1.0, 0.5]), s=torch.tensor([0.1, 0.2])).v
    each = [student(x[i : i + 1], tau, s=s).v for i, (tau, s) in enumerate([(1.0, 0.1), (0.5, 0.2)])]
    torch.testing.assert_close(both, torch.cat(each), rtol=1e-5, atol=1e-6)


class _Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.linear(x)


class _ForeignOfJumps(_Foreign):
    def forward(self, x: Tensor, log_snr: Tensor, delta: Tensor | None = None) -> Tensor:
        return self.linear(x) if delta is None else self.linear(x) + delta.unsqueeze(1)


def test_a_foreign_network_must_read_the_angle_of_a_jump(generator: torch.Generator) -> None:
    with pytest.raises(TypeError, match="the keyword delta, got _Foreign, which does not; write a forward.*net=UNet"):
        FlowMap.new(ScoreModel(_Foreign(), VPSDE(), V(), (3,)))
    with pytest.raises(TypeError, match="the keyword delta, got MLP"):
        FlowMap.new(GaussianMixture.ring(), net=MLP((2,), 4, 1))
    teacher, x = ScoreModel(_ForeignOfJumps(), VPSDE(), V(), (3,)), torch.randn(2, 3, generator=generator)
    student = FlowMap.new(teacher)
    expected = teacher(x, 1.0).v + ou.angle(1.0) - ou.angle(0.1)
    torch.testing.assert_close(student(x, 1.0, s=0.1).v, expected, rtol=1e-6, atol=1e-6)


def test_a_network_that_reads_no_jumps_refuses_angles(generator: torch.Generator) -> None:
    net, x = MLP((3,), 4, 1), torch.randn(2, 3, generator=generator)
    with pytest.raises(ValueError, match="delta must be None.*delta=True"):
        net(x, torch.zeros(2), delta=torch.zeros(2))
    with pytest.raises(ValueError, match=r"delta must be floating of shape \(2,\)"):
        MLP((3,), 4, 1, delta=True)(x, torch.zeros(2), delta=torch.zeros(2, 1))


def test_wrong_students_are_refused(generator: torch.Generator) -> None:
    teacher = _teacher(generator, V())
    with pytest.raises(TypeError, match="FlowMap needs a ScoreModel of an AverageVelocity, got ScoreModel"):
        FlowMap(teacher)
    with pytest.raises(TypeError, match="network of a FlowMap states v"):
        FlowMap(ScoreModel(AverageVelocity(MLP((3,), 4, 1, delta=True)), VPSDE(), Eps(), (3,)))
    with pytest.raises(ValueError, match="taus must fall"):
        FlowMap.new(teacher, taus=(0.1, 0.5))
    with pytest.raises(ValueError, match="each of taus must lie in"):
        FlowMap.new(teacher, taus=(1e9, 0.5))
    with pytest.raises(ValueError, match="moments must have the 3 axes of the base map"):
        AverageVelocity(MLP((3,), 4, 1, delta=True), axes=3).fit(_moments(generator, 2))


# --- tensors without values ---


@pytest.mark.parametrize("base", [False, True])
def test_a_student_runs_on_tensors_without_values(base: bool) -> None:
    with FakeTensorMode(), torch.device("meta"):
        net = AverageVelocity(MLP((3,), 8, 1, delta=True), axes=2 if base else None)
        student = FlowMap(ScoreModel(net, VE(), V(), (3,)))
        result = sample(student, 4, Jumps(3), device="meta", batch_size=3, trajectory=True, previews=True)
    assert result.x.shape == (4, 3)
    assert result.x.device.type == "meta"
