"""Classifier-free guidance of networks: the formula, nulls, batches, counts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conditional_gaussians import NULL, ConditionalGaussians, conditional_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.analytic import Gaussian
from scoresde.distillation import FlowMap
from scoresde.guidance import CFG, Autoguidance, Clipping, Composed
from scoresde.likelihood import continuous_vlb, differentiable_log_prob, discrete_vlb, log_prob, sample_log_prob
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.process.parameterization import V
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import DDIM, DDPM, ODE, Adams, EulerMaruyama, Heun, Jumps, calibrate, sample

LABELS = torch.tensor([0, 1, 2, 1, 0])
ENTRY = {"label": NULL}
THREE: Any = (0.2, 0.3, 0.4)


def points(generator: torch.Generator, rows: int = 5) -> Tensor:
    return torch.randn(rows, 2, generator=generator, dtype=torch.float64)


def null_labels(rows: int = 5) -> Tensor:
    return torch.full((rows,), NULL)


# --- the formula ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    "tau", [0.4, torch.tensor(0.4), torch.tensor([0.01, 0.4, 1.0, 2.0, 4.0])], ids=["float", "0-d", "B"]
)
def test_every_estimate_is_the_combination_of_two_models(tau: Any, batched: bool, generator: torch.Generator) -> None:
    model, x = conditional_model(), points(generator)
    guided = CFG(model, 2.5, ENTRY, batched=batched)(x, tau, label=LABELS)
    conditional, null = model(x, tau, label=LABELS), model(x, tau, label=null_labels())
    for member in ("eps", "x0", "v", "score"):
        c, u = getattr(conditional, member), getattr(null, member)
        torch.testing.assert_close(getattr(guided, member), u + 2.5 * (c - u), rtol=1e-12, atol=1e-12)


def test_one_call_evaluates_both_models_or_two_calls_do(generator: torch.Generator) -> None:
    for batched, rows in ((True, [10]), (False, [5, 5])):
        model = conditional_model()
        CFG(model, 2.5, ENTRY, batched=batched)(points(generator), 0.4, label=LABELS)
        assert isinstance(model.net, ConditionalGaussians)
        assert model.net.rows == rows
        assert sum(model.net.labels, []) == [0, 1, 2, 1, 0, 3, 3, 3, 3, 3]  # noqa: RUF017


@pytest.mark.parametrize("sampler", [DDPM(20), Adams(steps=8), Heun(8)], ids=lambda s: type(s).__name__)
def test_scales_one_and_zero_are_the_conditional_and_the_null_model(sampler: Any) -> None:
    model = conditional_model()
    for scale, labels in ((1.0, LABELS), (0.0, null_labels())):
        guided = sample(CFG(model, scale, ENTRY), 5, sampler, seeds=range(5), label=LABELS, dtype=torch.float64)
        alone = sample(model, 5, sampler, seeds=range(5), label=labels, dtype=torch.float64)
        assert torch.equal(guided.x, alone.x)
        assert guided.nfe == alone.nfe


def test_a_negative_condition_takes_the_place_of_the_null(generator: torch.Generator) -> None:
    model, x = conditional_model(), points(generator)
    guided = CFG(model, 3.0, ENTRY, negative={"label": 2})(x, 0.4, label=LABELS).eps
    away = model(x, 0.4, label=torch.full((5,), 2)).eps
    torch.testing.assert_close(guided, away + 3.0 * (model(x, 0.4, label=LABELS).eps - away), rtol=1e-12, atol=1e-12)


def test_conditions_that_are_not_named_stay_on_both_sides(generator: torch.Generator) -> None:
    model, x, style = conditional_model(), points(generator), torch.tensor([2, 2, 1, 0, 0])
    both = {"label": NULL, "style": NULL}
    null = {"all": null_labels(), "label": style}
    conditional = model(x, 0.4, label=LABELS, style=style).eps
    for names, kept in ((None, null["all"]), (["label"], style)):
        guided = CFG(model, 3.0, both, names=names)(x, 0.4, label=LABELS, style=style).eps
        other = model(x, 0.4, label=null_labels(), style=kept).eps
        torch.testing.assert_close(guided, other + 3.0 * (conditional - other), rtol=1e-12, atol=1e-12)


def test_a_null_of_several_values_is_repeated_for_every_sample(generator: torch.Generator) -> None:
    class Text(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, text: Tensor) -> Tensor:
            return x * text.sum((1, 2))[:, None]

    model, x = ScoreModel(Text(), VPSDE(), V(), (2,)), points(generator)
    text, empty = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64), torch.full((3, 4), 0.25)
    guided = CFG(model, 2.0, null={"text": empty})(x, 0.4, text=text).out
    torch.testing.assert_close(guided, x * (2 * text.sum((1, 2)) - 3.0)[:, None], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"text must have one entry of shape \(3, 4\) here, got \(1, 3, 4\)"):
        CFG(model, 2.0, null={"text": empty[None]})(x, 0.4, text=text)


def test_the_models_own_null_is_the_default(generator: torch.Generator) -> None:
    model = ScoreModel(MLP((2,), 8, 1, 8, conditions={"label": Classes(3)}), VPSDE(), V(), (2,)).double()
    x = points(generator)
    guided = CFG(Clipping(model, -9.0, 9.0), 2.0)(x, 0.4, label=LABELS).x0
    conditional, null = (Clipping(model, -9.0, 9.0)(x, 0.4, label=labels).x0 for labels in (LABELS, null_labels()))
    torch.testing.assert_close(guided, 2 * conditional - null, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescaling_gives_the_spread_of_the_conditional_output(rescale: float, generator: torch.Generator) -> None:
    model, x = conditional_model(), points(generator)
    plain = CFG(model, 4.0, ENTRY)(x, 0.4, label=LABELS).out
    rescaled = CFG(model, 4.0, ENTRY, rescale=rescale)(x, 0.4, label=LABELS).out
    wanted = model(x, 0.4, label=LABELS).out.std(1, keepdim=True)
    expected = rescale * plain * wanted / plain.std(1, keepdim=True) + (1 - rescale) * plain
    torch.testing.assert_close(rescaled, expected, rtol=1e-12, atol=1e-12)
    if rescale == 1.0:
        torch.testing.assert_close(rescaled.std(1, keepdim=True), wanted, rtol=1e-12, atol=1e-12)


def test_a_learned_variance_is_that_of_the_conditional_model(generator: torch.Generator) -> None:
    class TwoOutputs(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
            return torch.stack([x, torch.tanh(x + label[:, None])], -1)

    model, x = ScoreModel(TwoOutputs(), VPSDE(), V(), (2,), learned_variance=True), points(generator)
    for batched in (True, False):
        guided = CFG(model, 2.0, ENTRY, batched=batched)
        mix, expected = guided(x, 0.4, label=LABELS).mix, model(x, 0.4, label=LABELS).mix
        assert mix is not None
        assert expected is not None
        torch.testing.assert_close(mix, expected, rtol=0, atol=0)
        assert sample(guided, 5, DDPM(3, rev_var="learned"), label=LABELS).x.shape == (5, 2)


# --- composition ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
def test_a_composition_adds_the_difference_of_each_condition(batched: bool, generator: torch.Generator) -> None:
    model, x, style = conditional_model(), points(generator), torch.tensor([2, 2, 1, 0, 0])
    scales = {"label": 2.0, "style": torch.tensor([0.0, 0.5, 1.0, -1.0, 3.0])}
    composed = Composed(model, scales, null={"label": NULL, "style": NULL}, batched=batched)
    none = model(x, 0.4, label=null_labels(), style=null_labels()).eps
    first = model(x, 0.4, label=LABELS, style=null_labels()).eps
    second = model(x, 0.4, label=null_labels(), style=style).eps
    expected = none + 2.0 * (first - none) + scales["style"][:, None] * (second - none)
    torch.testing.assert_close(composed(x, 0.4, label=LABELS, style=style).eps, expected, rtol=1e-12, atol=1e-12)
    assert composed.cost == 3


def test_two_conditions_of_one_name_are_composed_by_aliases(generator: torch.Generator) -> None:
    model, x, second = conditional_model(), points(generator), torch.tensor([2, 2, 1, 0, 0])
    composed = Composed(model, {"label": 1.5, "second": 2.0}, reads={"second": "label"}, null=ENTRY)
    none = model(x, 0.4, label=null_labels()).eps
    terms = [model(x, 0.4, label=labels).eps - none for labels in (LABELS, second)]
    guided = composed(x, 0.4, label=LABELS, second=second).eps
    torch.testing.assert_close(guided, none + 1.5 * terms[0] + 2.0 * terms[1], rtol=1e-12, atol=1e-12)
    drawn = sample(composed, 5, DDIM(4), label=LABELS, second=second, dtype=torch.float64)
    assert drawn.nfe == 12
    with pytest.raises(TypeError, match=r"'third' is neither an option nor read by the network"):
        sample(composed, 5, DDIM(4), label=LABELS, second=second, third=second)
    with pytest.raises(ValueError, match=r"needs each of its conditions, label, second, got no tensor for second"):
        sample(composed, 5, DDIM(4), label=LABELS)


def test_a_composition_of_one_condition_is_classifier_free_guidance_and_a_scale_of_zero_costs_nothing() -> None:
    model, x = conditional_model(), points(torch.Generator().manual_seed(0))
    guided = CFG(model, 2.5, ENTRY, interval=(0.1, 1.0), names=["label"])
    composed = Composed(model, {"label": 2.5, "style": 0.0}, null=ENTRY | {"style": NULL}, interval=(0.1, 1.0))
    style = torch.zeros(5, dtype=torch.int64)
    for tau in (0.05, 0.4, torch.tensor([0.05, 0.2, 0.4, 2.0, 4.0])):
        one = guided(x, tau, label=LABELS, style=null_labels()).v
        if isinstance(tau, float) and tau > 0.1:
            torch.testing.assert_close(composed(x, tau, label=LABELS, style=style).v, one, rtol=1e-12, atol=1e-12)
    assert [composed.cost_at(tau) for tau in (0.05, 0.4)] == [3, 2]
    assert composed.cost == 3


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: Clipping(m, -9.0, 9.0)], ids=["guided", "clipped"])
@pytest.mark.parametrize("interval", [None, (0.2, 1.5)], ids=str)
def test_the_count_is_that_of_the_evaluated_rows(wrap: Any, interval: Any) -> None:
    for sampler in (Adams(steps=10), Heun(10), DDPM(30), EulerMaruyama(10)):
        model = conditional_model()
        guided = wrap(CFG(model, 3.0, ENTRY, interval=interval))
        drawn = sample(guided, 5, sampler, seeds=range(5), label=LABELS, denoise=True, dtype=torch.float64)
        assert isinstance(model.net, ConditionalGaussians)
        assert 5 * drawn.nfe == sum(model.net.rows)
        calls = len(model.net.rows)
        assert drawn.nfe == 2 * calls if interval is None else calls < drawn.nfe < 2 * calls


def test_an_adaptive_solver_counts_both_models_at_every_time() -> None:
    model = conditional_model()
    guided = CFG(model, 3.0, ENTRY, interval=(0.2, 1.5))
    drawn = sample(guided, 5, ODE(rtol=1e-3, atol=1e-3), seeds=range(5), label=LABELS, dtype=torch.float64)
    assert isinstance(model.net, ConditionalGaussians)
    assert 5 * drawn.nfe == sum(model.net.rows)


def test_costs_follow_the_scale_and_can_be_stated() -> None:
    model = conditional_model()
    costs = {scale: CFG(model, scale, ENTRY).cost for scale in (0.0, 1.0, 3.0)}
    assert costs == {0.0: 1, 1.0: 1, 3.0: 2}
    assert CFG(model, torch.ones(3), ENTRY).cost == 2
    inner = CFG(model, 3.0, ENTRY, interval=(0.2, 1.5))
    outer = Autoguidance(inner, inner, 2.0)
    assert [outer.cost_at(0.5), outer.cost_at(0.1), outer.cost] == [4, 2, 4]
    inner.cost = 7
    assert [inner.cost, inner.cost_at(0.1), outer.cost] == [7, 7, 14]


def test_a_wrapper_that_states_its_cost_has_it_at_every_time() -> None:
    class Twice(Clipping):
        @property
        def cost(self) -> int:
            return 2 * self.model.cost

    wrapped = Twice(CFG(conditional_model(), 3.0, ENTRY, interval=(0.2, 1.5)))
    assert [wrapped.cost_at(tau) for tau in (0.1, 0.5)] == [4, 4]
    assert sample(wrapped, 5, DDIM(3), label=LABELS).nfe == 12


def test_a_network_error_in_an_interval_names_the_call() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
            return torch.where(log_snr[:, None] > 1.0, torch.nan, x)

    guided = CFG(ScoreModel(Broken(), VPSDE(), V(), (2,)), 3.0, ENTRY, interval=(0.2, 1.5))
    with pytest.raises(RuntimeError, match=r"but call 1\d, at tau = 0\.\d+, gave NaN or infinity"):
        sample(guided, 5, DDIM(20), label=LABELS)


# --- with the rest of the library -------------------------------------------------------------------------------------


def test_a_sample_depends_on_its_seed_and_condition_and_not_on_its_batch() -> None:
    guided = CFG(conditional_model(), 3.0, ENTRY)
    together = sample(guided, 5, DDPM(20), seeds=range(5), label=LABELS, dtype=torch.float64).x
    split = sample(guided, 5, DDPM(20), seeds=range(5), label=LABELS, dtype=torch.float64, batch_size=2).x
    torch.testing.assert_close(split, together, rtol=1e-10, atol=1e-10)


def test_calibration_runs_on_a_guided_model_and_lowers_its_error(generator: torch.Generator) -> None:
    guided = CFG(conditional_model(), 2.0, ENTRY)
    labels = torch.arange(64) % 3
    every = torch.arange(128) % 3
    fit = calibrate(guided, Adams(steps=4), noises=64, search=8, generator=generator, label=every)
    reference = sample(guided, 64, Heun(200), seeds=range(64), label=labels, dtype=torch.float64).x
    errors = [
        float((sample(guided, 64, s, seeds=range(64), label=labels, dtype=torch.float64).x - reference).square().mean())
        for s in (Adams(steps=4), fit.sampler)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_a_guided_student_jumps() -> None:
    student = FlowMap.new(
        ScoreModel(MLP((2,), 8, 1, 8, conditions={"label": Classes(3)}, delta=True), VPSDE(), V(), (2,))
    )
    guided = CFG(student, 2.0, {"label": NULL})
    drawn = sample(guided, 5, Jumps(2), seeds=range(5), label=LABELS)
    conditional, null = (
        sample(student, 5, Jumps(1), seeds=range(5), label=labels).x for labels in (LABELS, null_labels())
    )
    assert drawn.nfe == 4
    one = sample(guided, 5, Jumps(1), seeds=range(5), label=LABELS).x
    torch.testing.assert_close(one, 2 * conditional - null, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_sampling_reads_no_tensor_values(device: str) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(MLP((3,), 8, 1, 8, conditions={"label": Classes(3)}), VPSDE(), V(), (3,))
        labels = torch.zeros(4, dtype=torch.int64)
        for guided in (
            CFG(model, 3.0, interval=(0.2, 1.5), rescale=0.5),
            CFG(model, torch.ones(4), null={"label": 3}),
            Autoguidance(model, model, 2.0, interval=(0.2, 1.5)),
            Composed(model, {"label": 2.0, "b": torch.ones(4)}, reads={"b": "label"}),
        ):
            cond: dict[str, Any] = {"label": labels} | ({"b": labels} if isinstance(guided, Composed) else {})
            for sampler in (DDPM(3), Adams(steps=3), Heun(3)):
                assert sample(guided, 4, sampler, device=device, **cond).x.shape == (4, 3)
            assert guided(torch.zeros(4, 3), torch.zeros(4).add(0.5), **cond).v.shape == (4, 3)


@pytest.mark.parametrize("event", [(), (3,), (2, 3), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_events_of_any_shape_and_batches_of_zero_and_one_work(event: tuple[int, ...], n: int) -> None:
    class AnyShape(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
            return x * (1.0 + label.reshape(-1, *[1] * (x.ndim - 1)))

    model = ScoreModel(AnyShape(), VPSDE(), V(), event)
    x, labels = torch.ones(n, *event), torch.arange(n)
    out = CFG(model, 2.0, ENTRY)(x, 0.5, label=labels).out
    expected = (2.0 * labels - 2.0).reshape(-1, *[1] * len(event)).expand(n, *event)
    torch.testing.assert_close(out, expected.contiguous(), rtol=0, atol=0)


def test_a_model_in_half_precision_and_a_state_in_double_give_a_double(generator: torch.Generator) -> None:
    model = ScoreModel(MLP((2,), 8, 1, 8, conditions={"label": Classes(3)}).bfloat16(), VPSDE(), V(), (2,))
    assert (
        CFG(model, torch.tensor([1.0, 2.0, 3.0, 1.0, 0.0]))(points(generator), 0.4, label=LABELS).out.dtype
        == torch.float64
    )


# --- what is no score -------------------------------------------------------------------------------------------------


def test_log_densities_of_guided_models_are_refused_with_the_reason(generator: torch.Generator) -> None:
    x = points(generator)
    guided = Clipping(CFG(conditional_model(), 3.0, ENTRY), -9.0, 9.0)
    message = (
        r"needs a model whose field is the score of a density, but CFG is guided.*not the marginals of one process"
    )
    for call in (
        lambda: log_prob(guided, x, label=LABELS),
        lambda: differentiable_log_prob(guided, x, label=LABELS),
        lambda: sample_log_prob(guided, 5, label=LABELS),
        lambda: continuous_vlb(guided, x, evaluations=16, label=LABELS),
        lambda: discrete_vlb(guided, x, 5, label=LABELS),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_log_densities_at_scale_one_and_zero_are_those_of_the_two_models(generator: torch.Generator) -> None:
    model, x = conditional_model(), points(generator)
    for scale, labels in ((1.0, LABELS), (0.0, null_labels())):
        guided = log_prob(CFG(model, scale, ENTRY), x, label=LABELS).log_prob
        torch.testing.assert_close(guided, log_prob(model, x, label=labels).log_prob, rtol=0, atol=0)
    reasons = [
        CFG(model, 1.0, ENTRY, interval=(0.1, 1.0)).why_no_score(),
        CFG(model, 0.0, ENTRY, interval=(0.1, 1.0)).why_no_score(),
        CFG(model, torch.ones(2), ENTRY).why_no_score(),
        Composed(model, {"label": 1.0}).why_no_score(),
        Composed(model, {"label": 1.0, "style": 1.0}).why_no_score(),
    ]
    assert [reason is None for reason in reasons] == [True, False, False, True, False]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_call_without_a_condition_or_a_null_is_refused() -> None:
    model = ScoreModel(MLP((2,), 8, 1, 8), VPSDE(), V(), (2,))
    with pytest.raises(ValueError, match="classifier-free guidance needs a condition to strengthen, got none"):
        sample(CFG(model, 3.0), 5, DDIM(3))
    with pytest.raises(ValueError, match="classifier-free guidance needs a condition to strengthen, got label"):
        sample(CFG(conditional_model(), 3.0, ENTRY, names=["text"]), 5, DDIM(3), label=LABELS)
    with pytest.raises(ValueError, match=r"guidance needs a null for label, and ConditionalGaussians declares no"):
        sample(CFG(conditional_model(), 3.0), 5, DDIM(3), label=LABELS)
    no_null = ScoreModel(MLP((2,), 8, 1, 8, conditions={"label": Classes(3, null=False)}), VPSDE(), V(), (2,))
    with pytest.raises(ValueError, match=r"label must have a null, got Classes\(count=3, null=False\)"):
        sample(CFG(no_null, 3.0), 5, DDIM(3), label=LABELS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: CFG(m, float("nan")), r"scale must be finite, got nan; 1\.0 is the conditional model itself"),
        (
            lambda m: CFG(m, torch.ones(2, 2)),
            r"scale must have shape \(\) or \(B,\), one entry per sample, got \(2, 2\)",
        ),
        (lambda m: CFG(m, torch.tensor([1.0, float("inf")])), r"scale must be finite, got inf at index \(1,\)"),
        (lambda m: CFG(m, 3.0, interval=(1.5, 0.2)), r"interval must be \(tau_low, tau_high\).*got \(1\.5, 0\.2\)"),
        (lambda m: CFG(m, 3.0, interval=THREE), r"interval must be"),
        (lambda m: CFG(m, 3.0, interval=(50, 60)), r"begin before the process ends, at tau = .*got \(50, 60\)"),
        (lambda m: CFG(m, 3.0, rescale=1.5), r"rescale must lie in \[0, 1\], got 1\.5"),
        (lambda m: Composed(m, {}), r"Composed needs the scale of each condition, got none"),
        (lambda m: Composed(m, {"a": 1.0}, reads={"b": "a"}), r"reads must name conditions with a scale, a, got b"),
        (
            lambda m: Autoguidance(m, ScoreModel(MLP((2,)), VE(), V(), (2,)), 2.0),
            r"the weaker model must have the process and the events of the model, got VE",
        ),
        (
            lambda m: Autoguidance(m, Gaussian(torch.zeros(3), 1.0), 2.0),
            r"the weaker model must have the process and the events of the model, got .*\(3,\)",
        ),
    ],
)
def test_invalid_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(conditional_model())


def test_values_of_another_kind_are_refused() -> None:
    network: Any = ConditionalGaussians()
    with pytest.raises(TypeError, match=r"model must be a Model, got ConditionalGaussians; wrap a network"):
        CFG(network, 3.0)
    with pytest.raises(TypeError, match=r"scale must be a number"):
        CFG(conditional_model(), "3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"scale must be a number or a floating tensor.*got torch\.int64"):
        CFG(conditional_model(), torch.tensor([3]))


def test_rescaling_events_of_one_element_is_refused() -> None:
    exact = Gaussian(torch.zeros(1), 1.0)
    guided = Autoguidance(exact, exact, 3.0)
    guided.rescale = 0.5
    with pytest.raises(ValueError, match=r"rescale needs events of several elements"):
        guided(torch.zeros(4, 1), 0.5)


def test_scales_that_sum_to_one_up_to_rounding_leave_the_null_out() -> None:
    for first in (0.7, 0.9, 1.0 / 3.0):
        composed = Composed(conditional_model(), {"label": first, "second": 1.0 - first}, reads={"second": "label"})
        assert composed.cost == 2
