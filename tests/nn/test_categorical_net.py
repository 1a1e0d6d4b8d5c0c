"""The network of codes: the encoding of its input, shapes, gradients, exact codes, and its text form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import scoresde.nn
from scoresde.nn import MLP, CategoricalNet, Classes, DiT, UNet
from scoresde.storage import spec

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "groups": 4}
CASES = {
    "mlp of sequences": ((5,), 3, False, lambda shape, **s: MLP(shape, width=16, depth=1, **s)),
    "mlp of images with a mask": ((2, 3, 4), 3, True, lambda shape, **s: MLP(shape, width=16, depth=1, **s)),
    "dit of sequences": ((8,), 5, True, lambda shape, **s: DiT(shape, 2, width=16, depth=1, heads=2, **s)),
    "unet of binary images": ((1, 8, 8), 2, False, lambda shape, **s: UNet(shape, **SMALL, **s)),
    "unet of images of two channels": ((2, 8, 8), 3, True, lambda shape, **s: UNet(shape, **SMALL, **s)),
}
every_case = pytest.mark.parametrize(("event", "classes", "mask", "build"), CASES.values(), ids=CASES.keys())


def made(event, classes, mask, build, **settings) -> CategoricalNet:
    inner = build(CategoricalNet.inner_shape(event, classes, mask), **settings)
    return CategoricalNet(inner, event, classes, mask)


def trained(net: CategoricalNet) -> CategoricalNet:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.double().eval()


def codes(event, states: int, n: int = 4) -> Tensor:
    return torch.randint(0, states, (n, *event), generator=torch.Generator().manual_seed(1)).double()


@every_case
def test_an_untrained_network_returns_zero_logits(event, classes, mask, build):
    out = made(event, classes, mask, build)(codes(event, classes + mask).float(), torch.zeros(4))
    assert torch.equal(out, torch.zeros(4, *event, classes))


@every_case
def test_every_entry_reaches_the_logits_and_every_parameter_a_gradient(event, classes, mask, build):
    net = trained(made(event, classes, mask, build))
    x, log_snr = codes(event, classes + mask), torch.linspace(-6, 9, 4).double()
    out = net(x, log_snr)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9] == []
    for index in range(x[0].numel()):
        changed = x.clone().flatten(1)
        changed[:, index] = (changed[:, index] + 1) % (classes + mask)
        assert (net(changed.reshape(x.shape), log_snr) - out).abs().max() > 1e-7


@every_case
def test_a_sample_does_not_depend_on_its_batch(event, classes, mask, build):
    net = trained(made(event, classes, mask, build))
    x, log_snr, order = codes(event, classes + mask), torch.linspace(-6, 9, 4).double(), torch.tensor([2, 0, 3, 1])
    assert torch.allclose(net(x[order], log_snr[order]), net(x, log_snr)[order], rtol=1e-10, atol=1e-12)
    assert net(x[:0], log_snr[:0]).shape == (0, *event, classes)


@every_case
def test_a_network_is_rebuilt_from_its_text_form(event, classes, mask, build):
    text = spec.to_text(made(event, classes, mask, build, conditions={"label": Classes(3)}))
    rebuilt = spec.parse(text, spec.known_classes(scoresde.nn), kind=nn.Module)
    assert spec.to_text(rebuilt) == text


class _Recorder(nn.Module):
    x: Tensor

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        self.x = x
        return x


def test_the_input_is_one_indicator_per_state_of_mean_0_and_variance_1():
    inner = _Recorder()
    net = CategoricalNet(inner, (4,), 3, mask=True)
    out = net(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.zeros(1))
    assert inner.x.shape == (1, 4, 4)  # states are channels
    assert torch.allclose(inner.x.mean(-1), torch.zeros(1, 4), atol=1e-6)
    assert torch.allclose(inner.x.var(-1, unbiased=False), torch.ones(1, 4), atol=1e-5)
    assert inner.x.argmax(1).tolist() == [[0, 1, 2, 3]]
    assert out.argmax(-1)[0, :3].tolist() == [0, 1, 2]  # and channels are classes again


def test_the_channels_of_an_image_keep_their_own_states():
    inner = _Recorder()
    net = CategoricalNet(inner, (2, 3, 3), 3)
    x = codes((2, 3, 3), 3).float()
    assert torch.equal(net(x, torch.zeros(4)).argmax(-1).float(), x)
    assert inner.x.shape == (4, 6, 3, 3)


def test_an_inner_network_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"inner network must have the event shape \(4, 5\).*and a mask.*inner_shape"):
        CategoricalNet(MLP((3, 5), 8, 1), (5,), 3, mask=True)
    with pytest.raises(ValueError, match="classes must be"):
        CategoricalNet(MLP((1, 5), 8, 1), (5,), 1)
