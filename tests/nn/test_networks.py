"""Contract of all networks: values, gradients, dtypes, execution modes and shapes that the package relies on."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import scoresde.nn
from scoresde.nn import MLP, Classes, DiT, FourierInput, LogSNREmbedding, Pointwise, UNet
from scoresde.storage import spec

FOURIER = FourierInput(base=1.0)
DAMPED = FourierInput(base=1.0, damped=True)
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "heads": 2, "groups": 4}
NETS = {
    "mlp of scalars": lambda **s: MLP((), width=16, depth=2, **s),
    "mlp of vectors": lambda **s: MLP((3,), width=16, depth=2, **s),
    "mlp of matrices": lambda **s: MLP((2, 5), width=16, depth=1, fourier=FOURIER, **s),
    "unet": lambda **s: UNet((1, 8, 8), **{**SMALL, **s}),
    "unet of odd size": lambda **s: UNet((3, 9, 11), **{**SMALL, "multipliers": (1, 2, 1), "fourier": FOURIER, **s}),
    "pointwise head": lambda **s: Pointwise(MLP((2, 3), width=16, depth=1, outputs=4, **s), DAMPED, width=8),
    "pointwise head on a unet": lambda **s: Pointwise(UNet((1, 8, 8), **{**SMALL, "outputs": 3, **s}), DAMPED, width=8),
    "unet of series": lambda **s: UNet((2, 11), **{**SMALL, "multipliers": (1, 2, 2), **s}),
    "unet of volumes": lambda **s: UNet((1, 3, 4, 5), **{**SMALL, "attention": (0,), "head_width": 4, **s}),
    "unet that resamples in blocks": lambda **s: UNet((1, 7, 5), **{**SMALL, "resample_in_blocks": True, **s}),
    "dit": lambda **s: DiT((2, 8, 8), 2, width=16, depth=2, heads=2, **s),
    "dit of series of odd length": lambda **s: DiT((1, 7), 3, width=16, depth=1, heads=2, fourier=FOURIER, **s),
    "dit of volumes": lambda **s: DiT((1, 3, 4, 5), 2, width=24, depth=1, heads=2, **s),
    "pointwise head on a dit": lambda **s: Pointwise(
        DiT((2, 5, 4), 2, 16, 1, 2, **{"outputs": 3, **s}), DAMPED, width=8
    ),
    "unet without attention": lambda **s: UNet((2, 8, 9), **{**SMALL, "attention": (), "blocks": 2, **s}),
}
Net = TypeVar("Net", bound=nn.Module)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # in torch's jvp
every_net = pytest.mark.parametrize("build", NETS.values(), ids=NETS.keys())


def trained(net: Net, dtype: torch.dtype = torch.float64) -> Net:
    """The network with random weights, none of them zero, as after training."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.to(dtype).eval()


def batch(
    net: MLP | UNet | DiT | Pointwise, size: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    return torch.randn(size, *(net.event_shape or ()), dtype=dtype), torch.linspace(-6.0, 12.0, size, dtype=dtype)


@every_net
def test_an_untrained_network_gives_zero(build):
    net = build()
    x, log_snr = batch(net, dtype=torch.float32)
    assert torch.equal(net(x, log_snr), torch.zeros_like(x))


@every_net
def test_every_parameter_receives_a_gradient_once_no_weight_is_zero(build):
    net = trained(build(conditions={"label": Classes(3, null=False)}))
    x, log_snr = batch(net)
    (net(x, log_snr, label=torch.tensor([0, 1, 2, 1])) * torch.randn_like(x)).sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    assert idle == []


@every_net
def test_a_network_is_rebuilt_from_its_text_form(build):
    net = build(conditions={"label": Classes(3, null=False)}, dropout=0.25)
    text = spec.to_text(net)
    rebuilt = spec.parse(text, spec.known_classes(scoresde.nn), kind=nn.Module)
    assert spec.to_text(rebuilt) == text
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}


@every_net
def test_every_input_value_reaches_the_output(build):
    net = trained(build())
    x, log_snr = batch(net, 2)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, log_snr).square().sum(), x)
    assert gradient.abs().min() > 0


@every_net
def test_forward_products_match_finite_differences_and_reverse_products(build):
    net = trained(build())
    x, log_snr = batch(net, 2)
    v, w = torch.randn_like(x), torch.randn_like(x)
    step = 1e-5
    with sdpa_kernel(SDPBackend.MATH):
        out, forward = jvp(lambda x: net(x, log_snr), (x,), (v,))[:2]
    difference = (net(x + step * v, log_snr) - net(x - step * v, log_snr)) / (2 * step)
    torch.testing.assert_close(out, net(x, log_snr), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward, difference, rtol=1e-5, atol=1e-6)
    leaf = x.clone().requires_grad_()
    (reverse,) = torch.autograd.grad(net(leaf, log_snr), leaf, w)
    torch.testing.assert_close((w * forward).sum(), (reverse * v).sum(), rtol=1e-10, atol=1e-12)


@every_net
def test_vmapped_forward_products_over_probes_match_one_at_a_time(build):
    net = trained(build())
    x, log_snr = batch(net, 2)
    probes = torch.randn(3, *x.shape, dtype=x.dtype)

    def product(probe: Tensor) -> Tensor:
        return jvp(lambda x: net(x, log_snr), (x,), (probe,))[1]

    with sdpa_kernel(SDPBackend.MATH):
        together, alone = vmap(product)(probes), torch.stack([product(probe) for probe in probes])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@every_net
def test_a_sample_does_not_depend_on_its_batch(build):
    net = trained(build(conditions={"label": Classes(5, null=False)}))
    x, log_snr = batch(net, 5)
    label, order = torch.arange(5), torch.tensor([3, 0, 4, 1, 2])
    out = net(x, log_snr, label=label)
    torch.testing.assert_close(net(x[order], log_snr[order], label=label[order]), out[order], rtol=1e-10, atol=1e-12)
    alone = torch.cat([net(x[i : i + 1], log_snr[i : i + 1], label=label[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(alone, out, rtol=1e-10, atol=1e-12)
    with sdpa_kernel(SDPBackend.MATH):
        mapped = vmap(lambda x, log_snr, label: net(x[None], log_snr[None], label=label[None])[0])(x, log_snr, label)
    torch.testing.assert_close(mapped, out, rtol=1e-10, atol=1e-12)


@every_net
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(build):
    net = build().train()
    x, log_snr = batch(net, 0, torch.float32)
    out = net(x, log_snr)
    out.sum().backward()
    assert out.shape == x.shape
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())


@every_net
def test_dropout_acts_in_training_mode_and_only_there(build):
    net = trained(build(dropout=0.5))
    x, log_snr = batch(net)
    assert torch.equal(net(x, log_snr), net(x, log_snr))
    net.train()
    assert not torch.equal(net(x, log_snr), net(x, log_snr))


@every_net
def test_noise_level_and_label_affect_the_output(build):
    net = trained(build(conditions={"label": Classes(2, null=False)}))
    x, log_snr = batch(net)
    zeros, ones = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    out = net(x, log_snr, label=zeros)
    assert ((net(x, log_snr + 1, label=zeros) - out).abs() > 1e-6).any()
    assert ((net(x, log_snr, label=ones) - out).abs() > 1e-6).any()


@every_net
def test_log_snr_outside_the_range_is_clamped_to_it(build):
    net = trained(build(log_snr_range=(-8.0, 9.0)))
    x, _ = batch(net, 2)
    out = net(x, torch.tensor([-8.0, 9.0], dtype=x.dtype))
    for low, high in [(-math.inf, math.inf), (-8.1, 9.1)]:
        assert torch.equal(net(x, torch.tensor([low, high], dtype=x.dtype)), out)
    assert ((net(x, torch.tensor([-7.0, 8.0], dtype=x.dtype)) - out).abs() > 1e-6).any()


@every_net
def test_a_half_precision_network_keeps_the_dtype_of_x_and_stays_near_the_exact_one(build):
    net = trained(build(), torch.float32)
    x, log_snr = batch(net)
    exact = net(x.float(), log_snr).double()
    half = copy.deepcopy(net).to(torch.bfloat16)(x, log_snr)
    assert half.dtype == torch.float64
    assert (half - exact).norm() < 0.05 * exact.norm()  # bfloat16 rounds to 2^-9 = .002, a few dozen times over
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x.float(), log_snr)
    assert mixed.dtype == torch.float32
    assert (mixed.double() - exact).norm() < 0.05 * exact.norm()


@every_net
def test_weights_made_on_the_meta_device_compute_the_same_once_loaded(build):
    net = trained(build(), torch.float32)
    x, log_snr = batch(net, dtype=torch.float32)
    with torch.device("meta"):
        empty = build()
    empty.to_empty(device="cpu").load_state_dict(net.state_dict())
    assert torch.equal(empty.eval()(x, log_snr), net(x, log_snr))
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


@every_net
def test_the_network_runs_on_fake_tensors(build):
    with FakeTensorMode(), torch.device("meta"):
        net = build(conditions={"label": Classes(2)})
        x, log_snr = batch(net, dtype=torch.float32)
        for label in (None, torch.ones(4, dtype=torch.long)):
            out = net(x, log_snr, label=label)
            out.sum().backward()
            assert out.shape == x.shape


@every_net
def test_the_fields_rebuild_the_network(build):
    net = build(conditions={"label": Classes(2, null=False)})
    rebuilt = type(net)(**{field.name: getattr(net, field.name) for field in dataclasses.fields(net)})
    shapes = [{name: p.shape for name, p in n.named_parameters()} for n in (net, rebuilt)]
    assert shapes[0] == shapes[1]


def test_a_pointwise_head_on_a_network_of_one_output_is_refused():
    with pytest.raises(ValueError, match="several outputs per entry, its context, got outputs=1"):
        Pointwise(MLP((3,)), FOURIER)


def test_a_missing_label_means_the_null_label_if_there_is_one():
    net = trained(MLP((3,), width=8, conditions={"label": Classes(4)}))
    x, log_snr = batch(net)
    assert torch.equal(net(x, log_snr), net(x, log_snr, label=torch.full((4,), 4)))
    assert not torch.equal(net(x, log_snr), net(x, log_snr, label=torch.full((4,), 3)))


@every_net
def test_a_wrong_event_shape_is_refused_and_never_broadcast(build):
    net = build()
    log_snr = torch.zeros(4)
    for shape in [(4, *net.event_shape, 1), (4, 1, *net.event_shape), (4, *(n + 1 for n in net.event_shape), 2), ()]:
        with pytest.raises(ValueError, match=r"x must have shape \(B,.*\), got \(.*\); give the batch first"):
            net(torch.zeros(shape), log_snr)


@every_net
@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (5,)])
def test_anything_but_one_log_snr_per_sample_is_refused(build, shape):
    net = build()
    with pytest.raises(ValueError, match=r"log_snr must have shape \(4,\), got \(.*\); pass one value per sample"):
        net(torch.zeros(4, *net.event_shape), torch.zeros(shape))


def test_inputs_and_labels_of_the_wrong_dtype_or_shape_are_refused():
    net = MLP((3,), width=4)
    labeled = MLP((3,), width=4, conditions={"label": Classes(2, null=False)})
    x, log_snr = torch.zeros(4, 3), torch.zeros(4)
    with pytest.raises(TypeError, match="must be floating, got torch.int64"):
        net(x.long(), log_snr)
    with pytest.raises(TypeError, match="MLP reads no condition 'label'; build it with conditions={'label': …}"):
        net(x, log_snr, label=torch.zeros(4, dtype=torch.long))
    with pytest.raises(TypeError, match="MLP reads no condition 'lable'; did you mean label"):
        labeled(x, log_snr, lable=torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"label must be given, because Classes\(count=2, null=False\) has no null"):
        labeled(x, log_snr)
    with pytest.raises(TypeError, match="label must hold integers, got torch.float32"):
        labeled(x, log_snr, label=torch.zeros(4))
    with pytest.raises(ValueError, match=r"label must have shape \(4,\), got \(4, 1\); pass one label per sample"):
        labeled(x, log_snr, label=torch.zeros(4, 1, dtype=torch.long))


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: MLP((3,), width=0), ValueError, r"width must be a positive integer, got 0"),
        (lambda: MLP((3,), depth=2.0), ValueError, r"depth must be a positive integer, got 2.0"),  # type: ignore[arg-type]
        (lambda: MLP((3,), dropout=1.0), ValueError, r"dropout must lie in \[0, 1\), got 1.0; use 0"),
        (lambda: MLP((3, -1)), ValueError, r"each entry of event_shape must be a positive integer, got -1"),
        (lambda: MLP(3), TypeError, r"event_shape must be a tuple of integers, got 3; write \(3,\)"),  # type: ignore[arg-type]
        (lambda: MLP((3,), log_snr_range=(5.0, -5.0)), ValueError, r"low < high, got \(5.0, -5.0\)"),
        (lambda: Classes(0), ValueError, r"count must be a positive integer, got 0"),
        (lambda: FourierInput(0.0), ValueError, r"base must be a positive finite number, got 0.0"),
        (lambda: FourierInput(1.0, ()), ValueError, r"octaves must be one or more integers, got \(\)"),
        (lambda: LogSNREmbedding(periods=0), ValueError, r"periods must be a positive integer"),
    ],
)
def test_invalid_settings_are_refused(build, error, match):
    with pytest.raises(error, match=match):
        build()


@pytest.mark.cuda
@every_net
def test_the_gpu_agrees_with_the_cpu_without_synchronizing(build):
    net = trained(build(conditions={"label": Classes(3, null=False)}))
    x, log_snr = batch(net)
    label = torch.tensor([0, 1, 2, 1])
    expected = net(x, log_snr, label=label)
    net, x, log_snr, label = net.cuda(), x.cuda(), log_snr.cuda(), label.cuda()
    net(x, log_snr, label=label)  # libraries may synchronize at their first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = net(x, log_snr, label=label)
        out.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-8, atol=1e-10)
