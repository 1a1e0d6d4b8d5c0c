"""Conditions of networks: nulls, names, shapes, sets of tokens, coarser grids, and what a condition is worth."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, export
from torch.func import vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import scoresde as sd
from scoresde.nn import (
    MLP,
    Channels,
    Classes,
    Condition,
    Conditioning,
    DiT,
    GaussianSkip,
    Pointwise,
    QuantizedSkip,
    Tokens,
    UNet,
    Vector,
)
from scoresde.nn._attention import CrossAttention
from scoresde.storage import spec

CONDITIONS: dict[str, Condition] = {"label": Classes(3), "c": Vector(4), "text": Tokens(5), "low": Channels(2)}
SHAPE = (1, 8, 4)
FOURIER = sd.nn.FourierInput(1.0)
NETS: dict[str, Any] = {
    "MLP": lambda **s: MLP(SHAPE, 16, 1, 16, **s),
    "UNet": lambda **s: UNet(SHAPE, 8, (1, 2), blocks=1, groups=4, heads=2, **s),
    "DiT": lambda **s: DiT(SHAPE, 2, 16, 1, 2, **s),
    "Pointwise": lambda **s: Pointwise(MLP(SHAPE, 16, 1, 16, outputs=4, **s), FOURIER, 8, 8),
    "GaussianSkip": lambda **s: GaussianSkip(MLP(SHAPE, 16, 1, 16, **s)),
    "QuantizedSkip": lambda **s: QuantizedSkip(UNet(SHAPE, 8, (1, 2), blocks=1, groups=4, **s), 16),
}
every_net = pytest.mark.parametrize("build", NETS.values(), ids=NETS.keys())
every_condition = pytest.mark.parametrize("name", CONDITIONS)


def trained(net: nn.Module, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Any:
    """The network with random weights, none of them zero, as after training."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.to(dtype).eval()


def state(generator: torch.Generator, size: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(size, *SHAPE, generator=generator, dtype=dtype), torch.linspace(-4.0, 8.0, size, dtype=dtype)


def given(generator: torch.Generator, size: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator, dtype=dtype)

    return {"label": torch.arange(size) % 3, "c": normal(4), "text": normal(3, 5), "low": normal(2, 4, 2)}


@every_net
@every_condition
def test_a_null_entry_equals_a_condition_that_is_left_out(build: Any, name: str, generator: torch.Generator) -> None:
    net, cond = trained(build(conditions=CONDITIONS), generator), given(generator)
    x, log_snr = state(generator)
    null = cond | {name: CONDITIONS[name].null_like(cond[name])}
    without = {key: value for key, value in cond.items() if key != name}
    out = net(x, log_snr, **without)
    assert torch.equal(net(x, log_snr, **null), out)
    assert torch.equal(net(x, log_snr, **without, **{name: None}), out)
    assert (net(x, log_snr, **cond) - out).abs().amax((1, 2, 3)).min() > 1e-6


@every_net
@every_condition
def test_a_batch_with_some_null_entries_equals_its_samples_alone(
    build: Any, name: str, generator: torch.Generator
) -> None:
    net, cond = trained(build(conditions=CONDITIONS), generator), given(generator)
    x, log_snr = state(generator)
    null = torch.tensor([False, True, True, False]).reshape(-1, *(1 for _ in cond[name].shape[1:]))
    mixed = cond | {name: torch.where(null, CONDITIONS[name].null_like(cond[name]), cond[name])}
    out = net(x, log_snr, **mixed)
    for i, without in enumerate(null.flatten().tolist()):
        one = {key: value[i : i + 1] for key, value in cond.items() if not (without and key == name)}
        torch.testing.assert_close(net(x[i : i + 1], log_snr[i : i + 1], **one), out[i : i + 1], rtol=1e-10, atol=1e-12)


@every_net
@every_condition
def test_the_learned_null_gets_its_gradient_from_null_samples_alone_and_no_gradient_is_nan(
    build: Any, name: str, generator: torch.Generator
) -> None:
    net = trained(build(conditions={name: CONDITIONS[name]}), generator)
    x, log_snr = state(generator)
    cond = given(generator)[name]
    encoder: Any = next(module for module in net.modules() if hasattr(module, "null") and isinstance(module, nn.Module))
    null = encoder.table.weight if name == "label" else encoder.null

    def gradient(value: Tensor, rows: slice) -> Tensor:
        net.zero_grad()
        net(x, log_snr, **{name: value})[rows].square().sum().backward()
        assert not any(p.grad.isnan().any() for p in net.parameters() if p.grad is not None)
        return null.grad[3] if name == "label" else null.grad

    assert not gradient(cond, slice(0, 4)).any()
    mixed = torch.cat([cond[:2], CONDITIONS[name].null_like(cond[2:])])
    assert not gradient(mixed, slice(0, 2)).any()
    assert gradient(mixed, slice(2, 4)).abs().min() > 1e-9
    if name != "label":
        leaf = mixed.clone().requires_grad_()
        (by_value,) = torch.autograd.grad(net(x, log_snr, **{name: leaf}).square().sum(), leaf)
        assert by_value[:2].abs().min() > 0
        assert not by_value[2:].any()


@every_net
def test_every_parameter_has_a_gradient_also_where_all_conditions_are_left_out(
    build: Any, generator: torch.Generator
) -> None:
    net = trained(build(conditions=CONDITIONS), generator)
    x, log_snr = state(generator)
    net(x, log_snr).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []  # distributed training needs them all


@pytest.mark.parametrize("kind", ["UNet", "DiT"])
def test_tokens_have_no_effect_before_training_so_that_a_network_may_get_them_later(
    kind: str, generator: torch.Generator
) -> None:
    net = NETS[kind](conditions={"text": Tokens(5)}).double()
    x, log_snr = state(generator)
    trained(net.conv_out if kind == "UNet" else net.linear_out, generator)
    out = net(x, log_snr)
    assert out.abs().max() > 0.01
    assert torch.equal(net(x, log_snr, text=given(generator)["text"]), out)


@every_net
def test_the_order_of_tokens_does_not_matter_and_absent_ones_are_not_read(
    build: Any, generator: torch.Generator
) -> None:
    net = trained(build(conditions={"text": Tokens(5)}), generator)
    x, log_snr = state(generator)
    text = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    out = net(x, log_snr, text=text)
    torch.testing.assert_close(net(x, log_snr, text=text[:, [2, 0, 1]]), out, rtol=1e-10, atol=1e-12)
    padded = torch.cat([text[:, :1], torch.full((4, 2, 5), math.nan).double(), text[:, 1:]], 1)
    torch.testing.assert_close(net(x, log_snr, text=padded), out, rtol=1e-10, atol=1e-12)
    assert (net(x, log_snr, text=text[:, :2]) - out).abs().amax((1, 2, 3)).min() > 1e-6
    assert torch.equal(net(x, log_snr, text=text[:, :0]), net(x, log_snr))  # no token is null


def test_cross_attention_is_the_softmax_of_products_over_the_tokens_that_are_present(
    generator: torch.Generator,
) -> None:
    attention = trained(CrossAttention(8, 6, 2), generator)
    positions = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    tokens = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    present = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0]], dtype=torch.bool)
    query, key_value = attention.query(positions), attention.key_value(tokens)
    expected = torch.zeros(3, 5, 8, dtype=torch.float64)
    for b in range(3):
        for head in range(2):
            q, k, v = (
                part[..., 4 * head : 4 * head + 4] for part in (query[b], key_value[b, :, :8], key_value[b, :, 8:])
            )
            rows = present[b].nonzero().flatten()
            weights = (q @ k[rows].T / 2.0).exp()
            expected[b, :, 4 * head : 4 * head + 4] = weights @ v[rows] / weights.sum(1, keepdim=True)
    torch.testing.assert_close(attention(positions, (tokens, present)), attention.out_proj(expected))


def test_a_null_token_set_enters_an_mlp_as_the_function_of_one_learned_token(generator: torch.Generator) -> None:
    conditioning = trained(Conditioning(8, conditions={"text": Tokens(5)}), generator)
    log_snr = torch.zeros(2).double()
    text = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    text[1] = math.nan
    pooling = conditioning.get_submodule("text_embedding")
    mean = pooling.linear_out(F.silu(pooling.encoder.linear(text[0]))).mean(0)
    null = pooling.linear_out(F.silu(pooling.encoder.null))
    expected = F.silu(conditioning.log_snr_embedding(log_snr) + torch.stack([mean, null]))
    torch.testing.assert_close(conditioning(log_snr, {"text": text}), expected)


@every_net
@pytest.mark.parametrize("sizes", [(8, 4), (4, 2), (2, 4), (1, 1)])
def test_channels_of_a_coarser_grid_are_repeated(
    build: Any, sizes: tuple[int, int], generator: torch.Generator
) -> None:
    net = trained(build(conditions={"low": Channels(2)}), generator)
    x, log_snr = state(generator)
    low = torch.randn(4, 2, *sizes, generator=generator, dtype=torch.float64)
    repeated = torch.kron(low, torch.ones(1, 1, 8 // sizes[0], 4 // sizes[1], dtype=torch.float64))
    assert torch.equal(net(x, log_snr, low=low), net(x, log_snr, low=repeated))


def test_channels_of_series_and_volumes_are_repeated_and_a_null_is_announced(generator: torch.Generator) -> None:
    for shape, sizes in (((1, 9), (3,)), ((2, 4, 6, 3), (2, 3, 1))):
        encoder = trained(Channels(2).encoder(), generator)
        low = torch.randn(3, 2, *sizes, generator=generator, dtype=torch.float64)
        low[1] = math.nan
        out = encoder(low, shape[1:])
        factor = torch.ones(1, 1, *(n // m for n, m in zip(shape[1:], sizes)), dtype=torch.float64)
        assert torch.equal(out[::2, :2], torch.kron(low[::2], factor))
        assert torch.equal(
            out[:, 2], torch.tensor([1.0, 0.0, 1.0]).double().reshape(3, *(1 for _ in sizes)).expand(3, *shape[1:])
        )
        assert torch.equal(out[1, :2], encoder.null.reshape(2, *(1 for _ in sizes)).expand(2, *shape[1:]))


@pytest.mark.parametrize(("value", "condition"), [("c", Vector(4)), ("text", Tokens(5)), ("low", Channels(2))])
@pytest.mark.parametrize("null", [False, True])
def test_an_entry_that_is_nan_in_part_or_has_no_null_gives_nan_in_its_sample_alone(
    value: str, condition: Condition, null: bool, generator: torch.Generator
) -> None:
    condition = type(condition)(*(next(iter(vars(condition).values())), null))
    x, log_snr = state(generator)
    for build in NETS.values():
        net, cond = trained(build(conditions={value: condition}), generator), given(generator)[value]
        cond[2] = math.nan
        if null:
            cond[2].view(-1)[0] = 1.0
        out = net(x, log_snr, **{value: cond}).flatten(1)
        assert out.isnan().any(1).tolist() == [False, False, True, False]


@every_net
def test_conditions_survive_the_text_form_and_are_not_written_if_there_are_none(build: Any) -> None:
    known = spec.known_classes(sd.nn)
    net = build(conditions={"label": Classes(10), "text": Tokens(7, null=False)})
    text = spec.to_text(net)
    assert "conditions={'label': Classes(count=10, null=True), 'text': Tokens(size=7, null=False)}" in text
    rebuilt = spec.parse(text, known, kind=nn.Module)
    assert rebuilt.conditions == net.conditions
    assert spec.to_text(rebuilt) == text
    assert "conditions" not in spec.to_text(build())


def test_a_network_is_written_on_the_command_line_with_its_conditions() -> None:
    from scoresde.cli.parsing import parse_network

    net = parse_network("QuantizedSkip(UNet(conditions={'label': Classes(10), 'low': Channels(3)}))", (3, 8, 8))
    assert net.conditions == {"label": Classes(10), "low": Channels(3)}
    with pytest.raises(
        TypeError, match=r"conditions must be a Condition, got 10; choose from: Channels, Classes, Known, Tokens"
    ):
        parse_network("UNet(conditions={'label': 10})", (3, 8, 8))
    with pytest.raises(ValueError, match="UNet has no field 'num_classes'"):
        parse_network("UNet(num_classes=10)", (3, 8, 8))


@pytest.mark.parametrize("kind", ["MLP", "UNet", "DiT"])
def test_stored_texts_of_earlier_networks_of_classes_are_read(kind: str) -> None:
    known, settings = spec.known_classes(sd.nn), "event_shape=(1, 8, 4), num_classes={}, null_class={}"
    for count, null, expected in (
        (None, False, {}),
        (4, True, {"label": Classes(4)}),
        (4, False, {"label": Classes(4, False)}),
    ):
        text = f"{kind}({settings.format(count, null)})"
        assert spec.parse(text, known, kind=nn.Module, stored=True).conditions == expected
        with pytest.raises(ValueError, match="has no field 'num_classes'"):
            spec.parse(text, known, kind=nn.Module)


@every_net
def test_networks_with_conditions_run_on_fake_tensors(build: Any) -> None:
    with FakeTensorMode(), torch.device("meta"):
        net = build(conditions=CONDITIONS)
        x, log_snr = torch.randn(4, *SHAPE), torch.linspace(-4.0, 8.0, 4)
        cond = {"label": torch.ones(4, dtype=torch.long), "c": torch.randn(4, 4), "text": torch.randn(4, 3, 5)}
        for chosen in ({}, cond, cond | {"low": torch.randn(4, 2, 4, 2)}):
            out = net(x, log_snr, **chosen)
            out.sum().backward()
            assert out.shape == x.shape


@every_net
def test_a_network_in_bfloat16_or_under_autocast_stays_near_the_exact_one(
    build: Any, generator: torch.Generator
) -> None:
    net = trained(build(conditions=CONDITIONS), generator, torch.float32)
    x, log_snr = state(generator, dtype=torch.float32)
    cond = given(generator, dtype=torch.float32)
    cond["c"][1], cond["text"][2], cond["low"][3] = (math.nan,) * 3
    exact = net(x, log_snr, **cond)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x, log_snr, **cond)
    half = net.to(torch.bfloat16)(x, log_snr, **cond)
    for out in (mixed, half):
        assert out.dtype == torch.float32
        assert (out - exact).norm() < 0.05 * exact.norm()


@every_net
def test_a_network_with_conditions_may_be_mapped_over_samples(build: Any, generator: torch.Generator) -> None:
    net, cond = trained(build(conditions=CONDITIONS), generator), given(generator)
    x, log_snr = state(generator)
    cond["c"][1], cond["text"][2], cond["low"][3] = (math.nan,) * 3

    def one(x: Tensor, log_snr: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return net(x[None], log_snr[None], **{name: value[None] for name, value in cond.items()})[0]

    with sdpa_kernel(SDPBackend.MATH):
        mapped = vmap(one)(x, log_snr, cond)
    torch.testing.assert_close(mapped, net(x, log_snr, **cond), rtol=1e-10, atol=1e-12)


def test_checkpointed_blocks_with_conditions_have_the_same_gradients(generator: torch.Generator) -> None:
    x, log_snr = state(generator)
    cond = given(generator)
    for kind in ("UNet", "DiT"):
        net = trained(NETS[kind](conditions=CONDITIONS), generator).train()
        gradients = []
        for net.checkpoint in (False, True):
            net.zero_grad()
            net(x, log_snr, **cond).square().sum().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-14)


@pytest.mark.cuda
@every_net
def test_the_gpu_agrees_with_the_cpu_on_conditions_without_synchronizing(
    build: Any, generator: torch.Generator
) -> None:
    net, cond = trained(build(conditions=CONDITIONS), generator), given(generator)
    x, log_snr = state(generator)
    cond["c"][1], cond["text"][2], cond["low"][3] = (math.nan,) * 3
    expected = net(x, log_snr, **cond)
    net, x, log_snr = net.cuda(), x.cuda(), log_snr.cuda()
    cond = {name: value.cuda() for name, value in cond.items()}
    net(x, log_snr, **cond)  # libraries may synchronize at their first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = net(x, log_snr, **cond)
        out.sum().backward()
        net(x, log_snr).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-8, atol=1e-10)


class Named(nn.Module):
    """A network with its conditions as named arguments: torch.export takes dynamic shapes of those alone."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor, c: Tensor, text: Tensor, low: Tensor) -> Tensor:
        return self.net(x, log_snr, label=label, c=c, text=text, low=low)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.export
@pytest.mark.parametrize("kind", ["MLP", "UNet", "DiT"])
def test_an_exported_network_with_conditions_gives_its_values_at_any_batch_size(
    kind: str, generator: torch.Generator
) -> None:
    module = Named(trained(NETS[kind](conditions=CONDITIONS), generator, torch.float32)).eval()
    batch = {0: Dim("batch")}
    inputs = {
        size: (*state(generator, size, torch.float32), *given(generator, size, torch.float32).values())
        for size in (1, 3, 5)
    }
    shapes = dict.fromkeys(("x", "log_snr", *CONDITIONS), batch)
    exported = export(module, inputs[3], dynamic_shapes=shapes, strict=False).module()
    for arguments in inputs.values():
        arguments[3][0] = math.nan
        with torch.no_grad():
            torch.testing.assert_close(exported(*arguments), module(*arguments), rtol=1e-5, atol=1e-6)


def test_a_student_reads_the_conditions_of_its_teacher(generator: torch.Generator) -> None:
    from scoresde.distillation import FlowMap

    teacher = sd.ScoreModel(trained(NETS["UNet"](conditions=CONDITIONS), generator), sd.VPSDE(), event_shape=SHAPE)
    student, cond = FlowMap.new(teacher), given(generator)
    x = state(generator)[0]
    torch.testing.assert_close(student(x, 1.0, s=0.1, **cond).v, teacher(x, 1.0, **cond).v)
    null = student.null_cond(cond)
    torch.testing.assert_close(student(x, 1.0, s=0.1, **null).v, teacher(x, 1.0).v)
    with pytest.raises(TypeError, match=r"'lable' is neither .* did you mean label\?"):
        sd.sample(student, 4, sd.sampling.Jumps(2), lable=cond["label"])


@pytest.mark.parametrize(
    ("condition", "value", "error", "match"),
    [
        (Vector(4), torch.zeros(2, 4).long(), TypeError, r"c must be floating, got torch.int64; call \.float"),
        (Vector(4), torch.zeros(2, 3), ValueError, r"c must have shape \(2, 4\), got \(2, 3\); pass one vector"),
        (Vector(4), torch.zeros(4), ValueError, r"c must have shape \(2, 4\), got \(4,\)"),
        (Vector(4), 3.0, TypeError, r"c must be a tensor, got 3.0"),
        (Tokens(4), torch.zeros(2, 4), ValueError, r"c must have shape \(2, n, 4\), got \(2, 4\); pass n to"),
        (Tokens(4, null=False), torch.zeros(2, 0, 4), ValueError, r"with n > 0, got \(2, 0, 4\); without a null"),
        (Channels(2), torch.zeros(2, 2, 3, 4), ValueError, r"shape \(2, 2, 8, 4\), got \(2, 2, 3, 4\); a coarser"),
        (Channels(2), torch.zeros(2, 2, 16, 8), ValueError, r"got \(2, 2, 16, 8\); a coarser grid needs sizes"),
        (Channels(2), torch.zeros(2, 1, 8, 4), ValueError, r"shape \(2, 2, 8, 4\), got \(2, 1, 8, 4\)"),
        (Classes(4), torch.zeros(2).bool(), TypeError, r"c must hold integers, got torch.bool"),
        (Classes(4), torch.tensor([0, 5]), ValueError, r"in 0 \.\.\. 4, got 0 \.\.\. 5; .* the null label is 4"),
        (Vector(4, null=False), None, ValueError, r"c must be given, because Vector\(size=4, null=False\) has no null"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_its_condition_is_refused(
    condition: Condition, value: Any, error: type[Exception], match: str
) -> None:
    for build in NETS.values():
        with pytest.raises(error, match=match):
            build(conditions={"c": condition})(torch.zeros(2, *SHAPE), torch.zeros(2), c=value)


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: MLP((2,), conditions={"x": Vector(2)}), ValueError, r"a name of Python, .*x, log_snr, .* got 'x'"),
        (lambda: UNet(SHAPE, conditions={"a b": Vector(2)}), ValueError, r"must be a name of Python, .* got 'a b'"),
        (lambda: DiT(SHAPE, conditions={"label": 10}), TypeError, r"conditions\['label'\] must be a Condition, got 10"),  # type: ignore[dict-item]
        (lambda: MLP((2,), conditions={"low": Channels(1)}), ValueError, r"needs an event of channels on a grid, got"),
        (lambda: UNet(SHAPE, attention=(), conditions={"text": Tokens(2)}), ValueError, r"tokens enter by attention"),
        (lambda: Conditioning(8, conditions={"low": Channels(1)}), ValueError, r"low enters at the input of a network"),
        (lambda: Vector(0), ValueError, r"size must be a positive integer, got 0"),
        (lambda: Channels(1.5), ValueError, r"channels must be a positive integer, got 1.5"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_conditions_that_do_not_fit_a_network_are_refused(build: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        build()


def test_a_model_gives_the_null_entries_of_its_conditions(generator: torch.Generator) -> None:
    net = NETS["UNet"](conditions=CONDITIONS | {"must": Vector(2, null=False)}, augment=9)
    model = sd.ScoreModel(net, sd.VPSDE(), event_shape=SHAPE)
    cond = given(generator) | {"augment": torch.ones(4, 9)}
    for wrapped in (model, sd.Clipping(model), sd.ScoreModel(QuantizedSkip(net, 16), sd.VPSDE(), event_shape=SHAPE)):
        null = wrapped.null_cond(cond)
        assert {name: value.shape for name, value in null.items()} == {
            name: value.shape for name, value in cond.items()
        }
        assert null["label"].tolist() == [3] * 4
        assert all(null[name].isnan().all() for name in ("c", "text", "low"))
        assert torch.equal(null["augment"], cond["augment"])
        with pytest.raises(
            ValueError, match=r"must must have a null, got Vector\(size=2, null=False\); build and train"
        ):
            wrapped.null_cond({"must": torch.zeros(4, 2)})
        with pytest.raises(ValueError, match=r"guidance needs a null for lable, and .* did you mean label"):
            wrapped.null_cond({"lable": torch.zeros(4)})
    exact = sd.Gaussian(torch.zeros(2), 1.0)
    assert exact.null_cond({}) == {}
    with pytest.raises(ValueError, match="guidance needs a null for label, and Gaussian declares no such condition"):
        exact.null_cond({"label": torch.zeros(4)})


def test_samplers_and_likelihoods_refuse_a_condition_that_the_network_does_not_declare() -> None:
    model = sd.ScoreModel(
        MLP((2,), 8, 1, conditions={"label": Classes(3), "text": Tokens(5)}), sd.VPSDE(), event_shape=(2,)
    )
    labels = torch.zeros(4, dtype=torch.long)
    for steered in (model, sd.Clipping(model)):
        with pytest.raises(TypeError, match=r"'lable' is neither .* did you mean label\?.* network: label, text\."):
            sd.sample(steered, 4, sd.DDIM(2), lable=labels)
        with pytest.raises(TypeError, match=r"'cond' is neither an option nor read by the network"):
            sd.log_prob(steered, torch.zeros(4, 2), cond=labels)
    assert sd.sample(model, 4, sd.DDIM(2), label=labels).labels is labels
    with pytest.raises(TypeError, match="MLP reads no condition 'lable'; did you mean label"):
        model(torch.zeros(4, 2), 0.5, lable=labels)


def test_a_network_of_ones_own_may_declare_its_conditions(generator: torch.Generator) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conditions = {"c": Vector(2)}

        def forward(self, x: Tensor, log_snr: Tensor, c: Tensor) -> Tensor:
            return torch.where(c.isnan(), 0.0, c)

    model = sd.ScoreModel(Own(), sd.VPSDE(), sd.X0(), event_shape=(2,))
    c = torch.randn(4, 2, generator=generator)
    assert torch.equal(model(torch.zeros(4, 2), 0.5, c=c).x0, c)
    assert not model(torch.zeros(4, 2), 0.5, **model.null_cond({"c": c})).x0.any()


def posterior_mean(x: Tensor, tau: float, mean: Tensor | float, variance: float) -> Tensor:
    """E[x_0 | x] for x_0 ~ N(mean, variance)."""
    alpha, sigma2 = math.exp(-tau), -math.expm1(-2 * tau)
    return mean + alpha * variance / (alpha**2 * variance + sigma2) * (x - alpha * mean)


@pytest.mark.slow
def test_an_mlp_learns_the_posterior_mean_given_a_vector_and_without_it(generator: torch.Generator) -> None:
    slope, variance = torch.tensor([1.2, -0.7]), 0.16
    model = sd.ScoreModel(MLP((1,), 64, 2, 32, conditions={"c": Vector(2)}), sd.VPSDE(sd.Cosine()), sd.V(), (1,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, 800)

    def pair(size: int) -> tuple[Tensor, Tensor]:
        c = torch.randn(size, 2, generator=generator)
        return c, (c @ slope + variance**0.5 * torch.randn(size, generator=generator)).unsqueeze(1)

    for _ in range(800):
        c, x0 = pair(256)
        c = torch.where(torch.rand(256, 1, generator=generator) < 0.3, math.nan, c)
        optimizer.zero_grad()
        sd.Loss()(model, x0, generator, c=c).mean().backward()
        optimizer.step()
        decay.step()

    c, x0 = pair(4000)
    for tau in (0.3, 1.0, 2.0):
        x = model.sde.perturb(x0, tau, torch.randn(4000, 1, generator=generator))
        with torch.no_grad():
            given_c, without = model.eval()(x, tau, c=c).x0, model(x, tau).x0
        exact = posterior_mean(x, tau, (c @ slope).unsqueeze(1), variance)
        marginal = posterior_mean(x, tau, 0.0, float(slope.square().sum()) + variance)
        distance = (exact - marginal).square().mean().sqrt()  # 0.7, 1.2 and 1.4
        assert (given_c - exact).square().mean().sqrt() < 0.25 * distance
        assert (without - marginal).square().mean().sqrt() < 0.25 * distance
        assert (given_c - x0).square().mean() < 0.3 * (without - x0).square().mean()


def test_a_wrapper_reads_what_the_network_inside_it_reads() -> None:
    class Own(nn.Module):
        outputs = 3

        def forward(self, x: Tensor, log_snr: Tensor, weather: Tensor) -> Tensor:
            return (x + weather).unsqueeze(-1).expand(*x.shape, 3)

    model = sd.ScoreModel(QuantizedSkip(Own(), 4), sd.VPSDE(), event_shape=(2,))
    assert sd.sample(model, 4, sd.DDIM(2), weather=torch.zeros(4, 2)).x.shape == (4, 2)
    with pytest.raises(TypeError, match=r"'wether' is neither an option nor read by the network"):
        sd.sample(model, 4, sd.DDIM(2), wether=torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"guidance needs a null for weather, and QuantizedSkip declares no"):
        model.null_cond({"weather": torch.zeros(4, 2)})


@pytest.mark.parametrize("name", ["type", "items", "forward", "tau", "class"])
def test_a_name_that_a_call_or_a_module_has_already_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"must be a name of Python, .* got '{name}'"):
        UNet((1, 8, 8), channels=16, multipliers=(1,), attention=(), conditions={name: Channels(1)})
