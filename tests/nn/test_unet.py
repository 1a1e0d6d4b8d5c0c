"""UNet on series, images and volumes: blocks, memory layouts, precision and activation checkpointing."""

from __future__ import annotations

import importlib
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

from scoresde.nn import Channels, Classes, DiT, FourierInput, Pointwise, UNet
from scoresde.nn._attention import SpatialAttention, scaled_dot_product
from scoresde.nn._unet_blocks import ResidualBlock, convolution, from_patches, half_size, resample, to_patches
from scoresde.nn.embeddings import Conditioning
from scoresde.storage.spec import to_text

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "heads": 2, "groups": 4}


def perturb(net: nn.Module) -> None:
    """Moves every weight away from zero."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def perturb_in_float64(net: nn.Module) -> None:
    """Moves every weight away from zero; float64, evaluation mode."""
    perturb(net)
    net.double().eval()


class PeakMemory(TorchDispatchMode):
    """Peak number of bytes in tensors created inside."""

    def __init__(self) -> None:
        super().__init__()
        self.current = self.maximum = 0
        self._storages: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._storages:
                storage = tensor.untyped_storage()
                self._storages.add(storage)
                self.current += storage.nbytes()
                self.maximum = max(self.maximum, self.current)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return out

    def _freed(self, size: int) -> None:
        self.current -= size


@pytest.mark.parametrize("size", [(1,), (1, 1), (2, 3), (8, 13), (15, 17), (28, 28), (31,), (3, 1, 5)])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2, 2), (1, 1, 1, 1, 2)])
@pytest.mark.parametrize("inside", [False, True])
def test_a_unet_accepts_any_size(size, multipliers, inside):
    net = UNet((1, *size), 8, multipliers, blocks=1, attention=(), groups=4, resample_in_blocks=inside)
    perturb(net)
    x = torch.randn(1, 1, *size, requires_grad=True)
    out = net(x, torch.zeros(1))
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert out.shape == x.shape
    assert gradient.abs().min() > 0


@pytest.mark.parametrize(("axes", "size"), [(1, (9,)), (2, (8, 7)), (3, (5, 4, 6))])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_over_one_two_or_three_axes_is_that_of_torch(axes, size, stride):
    layer: Any = convolution(axes, 2, 3, stride=stride).double()
    h = torch.randn(2, 2, *size, dtype=torch.float64)
    weight = layer.weight if axes > 1 else layer.weight.squeeze(2)
    expected = (F.conv1d, F.conv2d, F.conv3d)[axes - 1](h, weight, layer.bias, stride=stride, padding=1)
    torch.testing.assert_close(layer(h if axes > 1 else h.unsqueeze(2)).reshape(expected.shape), expected)
    assert tuple(expected.shape[2:]) == (size if stride == 1 else half_size(size))


def test_resampling_is_means_downwards_and_nearest_neighbors_upwards():
    h = torch.tensor([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [0.0, 2.0, 4.0]])[None, None]
    assert torch.equal(resample(h, (2, 2))[0, 0], torch.tensor([[3.5, 5.0], [1.0, 4.0]]))
    series = torch.tensor([[1.0, 2.0]])[None, None]
    assert torch.equal(resample(series, (1, 4))[0, 0], torch.tensor([[1.0, 1.0, 2.0, 2.0]]))
    assert torch.equal(resample(resample(series, (1, 4)), (1, 2)), series)
    volume = torch.randn(1, 2, 4, 2, 6)
    torch.testing.assert_close(resample(volume, (2, 1, 3)).mean((2, 3, 4)), volume.mean((2, 3, 4)))


def test_a_block_resamples_between_its_first_activation_and_convolution_and_in_its_shortcut():
    block: Any = ResidualBlock(2, 8, 8, embedding_width=4, groups=2)
    perturb_in_float64(block)
    h, embedding = torch.randn(2, 8, 6, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    hidden = F.conv2d(F.avg_pool2d(F.silu(block.norm_in(h)), 2), block.conv_in.weight, block.conv_in.bias, padding=1)
    scale, shift = (embedding @ block.film.weight.T + block.film.bias).reshape(2, 2, 8, 1, 1).unbind(1)
    hidden = F.silu(F.group_norm(hidden, 2) * (1 + scale) + shift)
    expected = F.avg_pool2d(h, 2) + F.conv2d(hidden, block.conv_out.weight, block.conv_out.bias, padding=1)
    torch.testing.assert_close(block(h, embedding, (3, 3)), expected, rtol=1e-10, atol=1e-12)


def test_spatial_attention_is_multi_head_attention_over_the_positions():
    ours = SpatialAttention(8, heads=2, groups=2)
    perturb_in_float64(ours)
    oracle = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64).eval()
    attention = ours.attention
    names = {"in_proj_weight": attention.qkv.weight, "in_proj_bias": attention.qkv.bias}
    names |= {"out_proj.weight": attention.out_proj.weight, "out_proj.bias": attention.out_proj.bias}
    h = torch.randn(3, 8, 4, 5, dtype=torch.float64)
    tokens = ours.norm(h).flatten(2).mT
    update, _ = functional_call(oracle, names, (tokens, tokens, tokens))
    for layout in (h, h.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(ours(layout), h + update.mT.reshape(h.shape), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(8,), (4, 8), (4, 6, 8)], ids=["series", "image", "volume"])
def test_patches_are_channels_and_come_apart_again(size):
    x = torch.randn(2, 3, *size)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 3 * 2 ** len(size), *(n // 2 for n in size))
    torch.testing.assert_close(from_patches(patches, 2), x, rtol=0, atol=0)
    corner = x[(..., *(slice(1, None, 2) for _ in size))]  # the last value of every patch
    torch.testing.assert_close(patches[:, 2 ** len(size) - 1 :: 2 ** len(size)], corner, rtol=0, atol=0)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_unet_with_patches_is_the_unet_of_the_coarser_grid_with_more_channels(outputs):
    net = UNet((3, 8, 12), patch=2, outputs=outputs, **SMALL)
    inner = UNet((12, 4, 6), outputs=outputs, **SMALL)
    perturb_in_float64(net)
    inner.double().eval().load_state_dict(net.state_dict())
    x, log_snr = torch.randn(2, 3, 8, 12, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    expected = inner(F.pixel_unshuffle(x, 2), log_snr)
    if outputs > 1:
        expected = expected.movedim(-1, 2).flatten(1, 2)
    expected = F.pixel_shuffle(expected, 2)
    if outputs > 1:
        expected = expected.unflatten(1, (3, outputs)).movedim(2, -1)
    torch.testing.assert_close(net(x, log_snr), expected)


def test_channels_of_a_condition_enter_patch_by_patch():
    net = UNet((1, 4, 4), patch=2, conditions={"small": Channels(2)}, **SMALL)
    perturb_in_float64(net)
    x, log_snr = torch.randn(1, 1, 4, 4, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    coarse = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    repeated = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert net.get_parameter("conv_in.weight").shape[1] == 4 * (
        1 + 2 + 1
    )  # the last one says whether the condition is given
    torch.testing.assert_close(net(x, log_snr, small=coarse), net(x, log_snr, small=repeated))
    assert not torch.allclose(net(x, log_snr, small=coarse), net(x, log_snr, small=coarse + 1))


def test_a_head_width_determines_the_number_of_heads():
    net = UNet((1, 8, 8), 8, (1, 2), attention=(0, 1), head_width=4, groups=2)
    heads = [module.attention.heads for module in net.modules() if isinstance(module, SpatialAttention)]
    assert heads == [2, 2, 4, 4, 4, 4, 2, 2, 4]  # down, up, middle


@pytest.mark.parametrize("settings", [{}, {"fourier": FourierInput(1.0)}, {"resample_in_blocks": True}])
def test_the_memory_layout_changes_no_value(settings):
    net = UNet((2, 9, 10), **SMALL, **settings)
    perturb_in_float64(net)
    x, log_snr = torch.randn(3, 2, 9, 10, dtype=torch.float64), torch.linspace(-6, 9, 3, dtype=torch.float64)
    out = net(x, log_snr)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last), log_snr), out, rtol=1e-10, atol=1e-12)
    net.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue] (missing in its stub)
    torch.testing.assert_close(net(x, log_snr), out, rtol=1e-10, atol=1e-12)


def _keeps_channels_last_in_bfloat16(axes: int) -> bool:
    """Whether torch's own convolution does, which depends on the processor's instructions."""
    layout = torch.channels_last if axes < 3 else torch.channels_last_3d
    kind = nn.Conv2d if axes < 3 else nn.Conv3d
    conv = kind(8, 8, 3, padding=1).to(dtype=torch.bfloat16, memory_format=layout)  # pyright: ignore[reportCallIssue]
    x = torch.zeros(2, 8, *(4 for _ in range(max(axes, 2))), dtype=torch.bfloat16).to(memory_format=layout)
    return conv(x).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", [(2, 12), (1, 8, 8), (3, 4, 4, 4)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_channels_stay_last_in_memory_from_block_to_block_and_the_output_is_contiguous(shape, precision):
    if precision == torch.bfloat16 and not _keeps_channels_last_in_bfloat16(len(shape) - 1):
        pytest.skip("torch's bfloat16 convolution does not keep channels last on this processor")
    net = UNet(shape, **SMALL, fourier=FourierInput(1.0))
    perturb(net)
    layout, is_layout = torch.channels_last if len(shape) < 4 else torch.channels_last_3d, []
    for module in net.modules():
        if isinstance(module, (ResidualBlock, nn.GroupNorm)):
            module.register_forward_hook(lambda m, i, out: is_layout.append(out.is_contiguous(memory_format=layout)))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        out = net(torch.randn(2, *shape), torch.zeros(2))
    assert out.is_contiguous()
    assert len(is_layout) > 10
    assert all(is_layout)


def test_log_snr_is_embedded_in_full_precision_under_autocast():
    conditioning = Conditioning(16, conditions={"label": Classes(3, null=False)})
    log_snr, cond = torch.tensor([5.0, 5.01, -3.0]), {"label": torch.tensor([0, 1, 2])}
    expected = conditioning(log_snr, cond)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.eye(3) @ torch.eye(3)).dtype == torch.bfloat16  # autocast is on
        embedding = conditioning(log_snr, cond)
    assert torch.equal(embedding, expected)
    assert embedding.dtype == torch.float32


def test_augmentation_parameters_add_a_linear_map_to_the_embedding():
    conditioning: Any = Conditioning(8, conditions={"label": Classes(3, null=False)}, augment=9).double()
    log_snr, cond = torch.tensor([5.0, -3.0], dtype=torch.float64), {"label": torch.tensor([0, 2])}
    parameters = torch.randn(2, 9, dtype=torch.float64)
    without = conditioning.log_snr_embedding(log_snr) + conditioning.label_embedding.table.weight[cond["label"]]
    weight = conditioning.augment_embedding.weight
    torch.testing.assert_close(conditioning(log_snr, cond, parameters), F.silu(without + parameters @ weight.T))
    assert torch.equal(conditioning(log_snr, cond), F.silu(without))
    single = parameters.float()
    assert torch.equal(conditioning(log_snr, cond, single), conditioning(log_snr, cond, single.double()))
    conditioning(log_snr, cond).sum().backward()
    assert torch.equal(weight.grad, torch.zeros(8, 9, dtype=torch.float64))  # not None: distributed training needs it


@pytest.mark.parametrize(
    "build",
    [
        lambda **s: UNet((2, 6, 8), **SMALL, **s),
        lambda **s: DiT((2, 6, 8), 2, 16, 2, 2, **s),
        lambda **s: Pointwise(UNet((2, 6, 8), **SMALL, outputs=3, **s), FourierInput(1.0), width=8),
    ],
    ids=["unet", "dit", "pointwise head"],
)
def test_augmentation_adds_one_weight_and_does_not_change_the_output_without_it(build):
    plain, augmented = build(), build(augment=9)
    perturb_in_float64(plain)
    missing = augmented.double().eval().load_state_dict(plain.state_dict(), strict=False)
    (name,) = missing.missing_keys
    assert name.endswith("conditioning.augment_embedding.weight")
    assert not missing.unexpected_keys
    assert (plain.augment, augmented.augment) == (0, 9)
    x, log_snr = torch.randn(3, 2, 6, 8, dtype=torch.float64), torch.linspace(-6, 9, 3, dtype=torch.float64)
    parameters = torch.randn(3, 9, dtype=torch.float64)
    parameters[0] = 0
    out = plain(x, log_snr)
    assert torch.equal(augmented(x, log_snr), out)
    changed = augmented(x, log_snr, augment=parameters)
    torch.testing.assert_close(changed[:1], out[:1])
    assert ((changed - out).abs().amax((1, 2, 3))[1:] > 1e-3).all()
    with pytest.raises(ValueError, match=r"augment must have shape \(3, 0\), got \(3, 9\); build the network with it"):
        plain(x, log_snr, augment=parameters)
    with pytest.raises(ValueError, match=r"augment must have shape \(3, 9\), got \(3, 8\)"):
        augmented(x, log_snr, augment=parameters[:, :8])


@pytest.mark.parametrize("augment", [True, -1, 2.5])
def test_the_number_of_augmentation_parameters_is_an_integer(augment):
    for network in (UNet, DiT):
        with pytest.raises((TypeError, ValueError), match=f"augment must be an integer.*, got {augment}"):
            network((1, 8, 8), augment=augment)


def test_normalization_statistics_have_full_precision_under_autocast():
    net: Any = UNet((1, 8, 8), **SMALL)
    norm, outputs = net.down_blocks[0][0].norm_out, []
    h = (20 + torch.randn(4, 8, 8, 8)).bfloat16().to(memory_format=torch.channels_last)
    net.down_blocks[0][0].conv_in.register_forward_hook(lambda module, inputs, out: h)
    norm.register_forward_hook(lambda module, inputs, out: outputs.append(out))
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(4, 1, 8, 8), torch.zeros(4))
    expected = F.group_norm(h.double(), 4)
    assert (outputs[0].double() - expected).abs().max() < 2**-8 * expected.abs().max()  # one rounding to bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_cpu_half_precision_attention_is_computed_in_float32(dtype):
    query, key, value = torch.randn(3, 2, 2, 5, 4).to(dtype)
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scaled_dot_product(query, key, value), expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda checkpoint: UNet((1, 16, 16), **SMALL, dropout=0.3, checkpoint=checkpoint),
        lambda checkpoint: UNet((1, 32), **SMALL, dropout=0.3, resample_in_blocks=True, checkpoint=checkpoint),
        lambda checkpoint: DiT((1, 16, 16), 2, 16, 4, 2, dropout=0.3, checkpoint=checkpoint),
    ],
    ids=["unet", "unet that resamples in blocks", "dit"],
)
def test_checkpointing_gives_the_same_gradients_and_takes_less_memory(build):
    nets, runs = [build(checkpoint) for checkpoint in (False, True)], []
    perturb(nets[0])
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(16, *nets[0].event_shape)
    for net in nets:
        torch.manual_seed(7)
        with PeakMemory() as peak:
            net.train()(x, torch.linspace(-8, 8, 16)).square().mean().backward()
        runs.append(([p.grad for p in net.parameters()], peak.maximum, torch.rand(())))
    (plain, plain_memory, plain_next), (checkpointed, memory, next_random) = runs
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))
    assert torch.equal(plain_next, next_random)  # the random numbers that follow are those of a plain step
    assert memory < 0.6 * plain_memory


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch's code for this capability does not compile"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_unet_gives_the_same_values_and_gradients(tmp_path, monkeypatch):
    inductor: Any = importlib.import_module("torch._inductor.config")
    # kernels that another process compiled for other instructions must not be found
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inductor, "compile_threads", 1)  # two graphs need no pool of processes
    net, compiled = (
        UNet((1, 4, 4), 8, (1,), blocks=1, attention=(0,), groups=4, conditions={"label": Classes(3, null=False)})
        for _ in range(2)
    )
    perturb(net)
    compiled.load_state_dict(net.state_dict())
    compiled.compile()
    x, log_snr, label = torch.randn(3, 1, 4, 4), torch.linspace(-6, 9, 3), torch.tensor([0, 1, 2])
    outs = [each(x, log_snr, label=label) for each in (net, compiled)]
    torch.testing.assert_close(outs[1], outs[0], rtol=1e-4, atol=1e-5)
    for out in outs:
        out.square().mean().backward()
    for a, b in itertools.zip_longest(net.parameters(), compiled.parameters()):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"event_shape": (1, 2, 2, 2, 2)}, r"event_shape must be \(channels, one to three sizes\), got .*; use MLP"),
        ({"event_shape": (64,)}, r"event_shape must be \(channels, one to three sizes\), got \(64,\); use MLP"),
        ({"multipliers": ()}, r"multipliers must have at least one entry"),
        ({"channels": 12, "groups": 8}, r"channels must be a multiple of groups and larger, got channels=12"),
        ({"channels": 8, "groups": 8}, r"channels must be a multiple of groups and larger, got channels=8"),
        ({"channels": 1}, r"channels must be a multiple of groups and larger, got channels=1 and groups=1"),
        ({"attention": (3,)}, r"attention must name resolutions 0 \.\.\. 2, got 3"),
        ({"attention": (-1,)}, r"attention must name resolutions 0 \.\.\. 2, got -1"),
        ({"heads": 3}, r"heads must divide .* got heads=3 and 64 channels at resolution 2"),
        ({"head_width": 48}, r"head_width must divide .* got head_width=48 and 64 channels at resolution 2"),
        ({"head_width": 0}, r"head_width must be a positive integer, got 0"),
        ({"groups": 1.5}, r"groups must be a positive integer, got 1.5"),
        ({"patch": 3}, r"patch must divide each size of the event, got patch=3 and sizes \(8, 8\)"),
        ({"patch": 0}, r"patch must be a positive integer, got 0"),
    ],
)
def test_invalid_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        UNet(**{"event_shape": (1, 8, 8), **settings})


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (24, 1), (32, 2), (48, 3), (56, 2), (64, 4), (128, 8)])
def test_the_default_groups_have_at_least_sixteen_channels(channels, groups):
    assert UNet((1, 4), channels, (1,), blocks=1, attention=()).norm_out.num_groups == groups


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2), (1, 2, 2, 2)])
def test_by_default_the_coarsest_resolution_attends(multipliers):
    net = UNet((1, 8, 8), multipliers=multipliers)
    assert net.attention == (len(multipliers) - 1,)
    assert f"attention=({len(multipliers) - 1},)" in to_text(net)
    same = UNet((1, 8, 8), multipliers=multipliers, attention=(len(multipliers) - 1,))
    assert {name: p.shape for name, p in net.named_parameters()} == {
        name: p.shape for name, p in same.named_parameters()
    }
    assert net(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape == (2, 1, 8, 8)
