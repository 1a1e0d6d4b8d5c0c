"""Is the UNet what its page says, on lines, pictures and volumes, in every layout, precision and way to save memory?"""

from __future__ import annotations

import itertools
import shutil
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from scoresde.nn import DiT, FourierInput, Pointwise, UNet
from scoresde.nn._attention import GridAttention, attend
from scoresde.nn._blocks import Block, convolution, halved, resized
from scoresde.nn.embeddings import Conditioning

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "heads": 2, "groups": 4}


def trained(net: nn.Module) -> None:
    """Leaves no weight at zero."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def double(net: nn.Module) -> None:
    """Leaves no weight at zero, in float64."""
    trained(net)
    net.double().eval()


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._seen:
                storage = tensor.untyped_storage()
                self._seen.add(storage)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return out

    def _freed(self, size: int) -> None:
        self.now -= size


@pytest.mark.parametrize("size", [(1,), (1, 1), (2, 3), (8, 13), (15, 17), (28, 28), (31,), (3, 1, 5)])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2, 2), (1, 1, 1, 1, 2)])
@pytest.mark.parametrize("inside", [False, True])
def test_a_unet_takes_any_size(size, multipliers, inside):
    net = UNet((1, *size), 8, multipliers, blocks=1, attention=(), groups=4, resample_in_blocks=inside)
    trained(net)
    x = torch.randn(1, 1, *size, requires_grad=True)
    out = net(x, torch.zeros(1))
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert out.shape == x.shape
    assert gradient.abs().min() > 0


@pytest.mark.parametrize(("axes", "size"), [(1, (9,)), (2, (8, 7)), (3, (5, 4, 6))])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_over_one_two_or_three_axes_is_torchs(axes, size, stride):
    layer: Any = convolution(axes, 2, 3, stride=stride).double()
    h = torch.randn(2, 2, *size, dtype=torch.float64)
    weight = layer.weight if axes > 1 else layer.weight.squeeze(2)
    expected = (F.conv1d, F.conv2d, F.conv3d)[axes - 1](h, weight, layer.bias, stride=stride, padding=1)
    torch.testing.assert_close(layer(h if axes > 1 else h.unsqueeze(2)).reshape(expected.shape), expected)
    assert tuple(expected.shape[2:]) == (size if stride == 1 else halved(size))


def test_a_grid_shrinks_by_means_and_grows_by_copies():
    h = torch.tensor([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [0.0, 2.0, 4.0]])[None, None]
    assert torch.equal(resized(h, (2, 2))[0, 0], torch.tensor([[3.5, 5.0], [1.0, 4.0]]))
    line = torch.tensor([[1.0, 2.0]])[None, None]
    assert torch.equal(resized(line, (1, 4))[0, 0], torch.tensor([[1.0, 1.0, 2.0, 2.0]]))
    assert torch.equal(resized(resized(line, (1, 4)), (1, 2)), line)
    volume = torch.randn(1, 2, 4, 2, 6)
    torch.testing.assert_close(resized(volume, (2, 1, 3)).mean((2, 3, 4)), volume.mean((2, 3, 4)))


def test_a_block_resamples_between_its_first_activation_and_convolution_and_beside_it():
    block: Any = Block(2, 8, 8, told=4, groups=2)
    double(block)
    h, told = torch.randn(2, 8, 6, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    inner = F.conv2d(F.avg_pool2d(F.silu(block.norm(h)), 2), block.enter.weight, block.enter.bias, padding=1)
    scale, shift = (told @ block.film.weight.T + block.film.bias).reshape(2, 2, 8, 1, 1).unbind(1)
    inner = F.silu(F.group_norm(inner, 2) * (1 + scale) + shift)
    expected = F.avg_pool2d(h, 2) + F.conv2d(inner, block.leave.weight, block.leave.bias, padding=1)
    torch.testing.assert_close(block(h, told, (3, 3)), expected, rtol=1e-10, atol=1e-12)


def test_attention_is_multi_head_attention_over_the_places():
    ours = GridAttention(8, heads=2, groups=2)
    double(ours)
    oracle = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64).eval()
    inner = ours.attention
    names = {"in_proj_weight": inner.enter.weight, "in_proj_bias": inner.enter.bias}
    names |= {"out_proj.weight": inner.leave.weight, "out_proj.bias": inner.leave.bias}
    h = torch.randn(3, 8, 4, 5, dtype=torch.float64)
    tokens = ours.norm(h).flatten(2).mT
    read, _ = functional_call(oracle, names, (tokens, tokens, tokens))
    for given in (h, h.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(ours(given), h + read.mT.reshape(h.shape), rtol=1e-10, atol=1e-12)


def test_a_head_width_stands_for_a_number_of_heads():
    net = UNet((1, 8, 8), 8, (1, 2), attention=(0, 1), head_width=4, groups=2)
    heads = [module.attention.heads for module in net.modules() if isinstance(module, GridAttention)]
    assert heads == [2, 2, 4, 4, 4, 4, 2, 2, 4]  # down, up, middle


@pytest.mark.parametrize("settings", [{}, {"fourier": FourierInput(1.0)}, {"resample_in_blocks": True}])
def test_the_layout_in_memory_changes_no_value(settings):
    net = UNet((2, 9, 10), **SMALL, **settings)
    double(net)
    x, log_snr = torch.randn(3, 2, 9, 10, dtype=torch.float64), torch.linspace(-6, 9, 3, dtype=torch.float64)
    out = net(x, log_snr)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last), log_snr), out, rtol=1e-10, atol=1e-12)
    net.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue] (missing in its stub)
    torch.testing.assert_close(net(x, log_snr), out, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 12), (1, 8, 8), (3, 4, 4, 4)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_channels_stay_last_in_memory_from_block_to_block_and_the_output_is_contiguous(shape, precision):
    net = UNet(shape, **SMALL, fourier=FourierInput(1.0))
    trained(net)
    layout, seen = torch.channels_last if len(shape) < 4 else torch.channels_last_3d, []
    for module in net.modules():
        if isinstance(module, (Block, nn.GroupNorm)):
            module.register_forward_hook(lambda m, i, out: seen.append(out.is_contiguous(memory_format=layout)))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        out = net(torch.randn(2, *shape), torch.zeros(2))
    assert out.is_contiguous()
    assert len(seen) > 10
    assert all(seen)


def test_a_noise_level_is_embedded_in_full_precision_under_autocast():
    told = Conditioning(16, num_classes=3)
    log_snr, cond = torch.tensor([5.0, 5.01, -3.0]), torch.tensor([0, 1, 2])
    expected = told(log_snr, cond)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.eye(3) @ torch.eye(3)).dtype == torch.bfloat16  # autocast is on
        inside = told(log_snr, cond)
    assert torch.equal(inside, expected)
    assert inside.dtype == torch.float32


def test_a_change_is_added_to_noise_level_and_label_by_one_linear_map():
    told: Any = Conditioning(8, num_classes=3, augment=9).double()
    log_snr, cond = torch.tensor([5.0, -3.0], dtype=torch.float64), torch.tensor([0, 2])
    change = torch.randn(2, 9, dtype=torch.float64)
    before = told.noise(log_snr) + told.label.table.weight[cond]
    torch.testing.assert_close(told(log_snr, cond, change), F.silu(before + change @ told.change.weight.T))
    assert torch.equal(told(log_snr, cond), F.silu(before))
    assert torch.equal(told(log_snr, cond, change.float()), told(log_snr, cond, change.float().double()))
    told(log_snr, cond).sum().backward()
    assert torch.equal(told.change.weight.grad, torch.zeros(8, 9, dtype=torch.float64))  # there, as processes need it


@pytest.mark.parametrize(
    "build",
    [
        lambda **s: UNet((2, 6, 8), **SMALL, **s),
        lambda **s: DiT((2, 6, 8), 2, 16, 2, 2, **s),
        lambda **s: Pointwise(UNet((2, 6, 8), **SMALL, outputs=3, **s), FourierInput(1.0), width=8),
    ],
    ids=["unet", "dit", "pointwise head"],
)
def test_a_network_that_is_told_changes_has_one_weight_more_and_is_the_same_without_them(build):
    plain, told = build(), build(augment=9)
    double(plain)
    missing = told.double().eval().load_state_dict(plain.state_dict(), strict=False)
    (name,) = missing.missing_keys
    assert name.endswith("condition.change.weight")
    assert not missing.unexpected_keys
    assert (plain.augment, told.augment) == (0, 9)
    x, log_snr = torch.randn(3, 2, 6, 8, dtype=torch.float64), torch.linspace(-6, 9, 3, dtype=torch.float64)
    change = torch.randn(3, 9, dtype=torch.float64)
    change[0] = 0
    out = plain(x, log_snr)
    assert torch.equal(told(x, log_snr), out)
    changed = told(x, log_snr, augment=change)
    torch.testing.assert_close(changed[:1], out[:1])
    assert ((changed - out).abs().amax((1, 2, 3))[1:] > 1e-3).all()
    with pytest.raises(ValueError, match=r"augment must have shape \(3, 0\), got \(3, 9\); build the network with it"):
        plain(x, log_snr, augment=change)
    with pytest.raises(ValueError, match=r"augment must have shape \(3, 9\), got \(3, 8\)"):
        told(x, log_snr, augment=change[:, :8])


@pytest.mark.parametrize("augment", [True, -1, 2.5])
def test_the_numbers_of_a_change_are_counted(augment):
    for network in (UNet, DiT):
        with pytest.raises(ValueError, match=f"augment must be a whole number > 0, got {augment}"):
            network((1, 8, 8), augment=augment)


def test_the_normalizations_statistics_are_those_of_full_precision_under_autocast():
    net: Any = UNet((1, 8, 8), **SMALL)
    norm, seen = net.down[0][0].adaptive, []
    h = (20 + torch.randn(4, 8, 8, 8)).bfloat16().to(memory_format=torch.channels_last)
    net.down[0][0].enter.register_forward_hook(lambda module, given, out: h)
    norm.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(4, 1, 8, 8), torch.zeros(4))
    expected = F.group_norm(h.double(), 4)
    assert (seen[0].double() - expected).abs().max() < 2**-8 * expected.abs().max()  # one rounding to bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_cpu_attention_in_half_precision_is_computed_in_full(dtype):
    query, key, value = torch.randn(3, 2, 2, 5, 4).to(dtype)
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend(query, key, value), expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda again: UNet((1, 16, 16), **SMALL, dropout=0.3, checkpoint=again),
        lambda again: UNet((1, 32), **SMALL, dropout=0.3, resample_in_blocks=True, checkpoint=again),
        lambda again: DiT((1, 16, 16), 2, 16, 4, 2, dropout=0.3, checkpoint=again),
    ],
    ids=["unet", "unet that resamples in blocks", "dit"],
)
def test_checkpointing_gives_the_same_gradients_and_takes_less_memory(build):
    nets, found = [build(again) for again in (False, True)], []
    trained(nets[0])
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(16, *nets[0].event_shape)
    for net in nets:
        torch.manual_seed(7)
        with Peak() as peak:
            net.train()(x, torch.linspace(-8, 8, 16)).square().mean().backward()
        found.append(([p.grad for p in net.parameters()], peak.most, torch.rand(())))
    (plain, much, after), (again, less, after_again) = found
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert torch.equal(after, after_again)  # the random numbers that follow are those of a plain step
    assert less < 0.6 * much


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_unet_gives_the_same_values_and_gradients():
    net, again = (UNet((1, 4, 4), 8, (1,), blocks=1, attention=(0,), groups=4, num_classes=3) for _ in range(2))
    trained(net)
    again.load_state_dict(net.state_dict())
    again.compile()
    x, log_snr, cond = torch.randn(3, 1, 4, 4), torch.linspace(-6, 9, 3), torch.tensor([0, 1, 2])
    outs = [each(x, log_snr, cond) for each in (net, again)]
    torch.testing.assert_close(outs[1], outs[0], rtol=1e-4, atol=1e-5)
    for out in outs:
        out.square().mean().backward()
    for a, b in itertools.zip_longest(net.parameters(), again.parameters()):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"event_shape": (1, 2, 2, 2, 2)}, r"event_shape must be \(channels, one to three sizes\), got .*; use MLP"),
        ({"event_shape": (64,)}, r"event_shape must be \(channels, one to three sizes\), got \(64,\); use MLP"),
        ({"multipliers": ()}, r"multipliers must name at least one level"),
        ({"channels": 12, "groups": 8}, r"channels must be a multiple of groups and larger, got channels=12"),
        ({"channels": 8, "groups": 8}, r"channels must be a multiple of groups and larger, got channels=8"),
        ({"channels": 1}, r"channels must be a multiple of groups and larger, got channels=1 and groups=1"),
        ({"attention": (3,)}, r"attention must name levels 0 \.\.\. 2, got 3"),
        ({"attention": (-1,)}, r"attention must name levels 0 \.\.\. 2, got -1"),
        ({"heads": 3}, r"heads must divide .* got heads=3 and width 64 at level 2"),
        ({"head_width": 48}, r"head_width must divide .* got head_width=48 and width 64 at level 2"),
        ({"head_width": 0}, r"head_width must be a whole number > 0, got 0"),
        ({"groups": 1.5}, r"groups must be a whole number > 0, got 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        UNet(**{"event_shape": (1, 8, 8), **settings})


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (24, 1), (32, 2), (48, 3), (56, 2), (64, 4), (128, 8)])
def test_groups_are_as_many_as_are_sixteen_wide(channels, groups):
    assert UNet((1, 4), channels, (1,), blocks=1, attention=()).norm.num_groups == groups
