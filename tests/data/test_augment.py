"""Non-leaky augmentation: the affine maps, their parameters, the identity at zeros, and training with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

import scoresde.objective.loss
import scoresde.objective.timesteps
import scoresde.objective.weighting
import scoresde.training
from scoresde import data
from scoresde.data import Augment, Data, Description
from scoresde.guidance.clipping import Clipping
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes, UNet
from scoresde.process.parameterization import X0
from scoresde.process.sde import VPSDE
from scoresde.storage import checkpoint, spec
from scoresde.training import Callback, Training, train
from scoresde.training.batches import Batches

OFF = {"p": 0.0, "mirror": False}
ALL = Augment(p=1.0)
CPU = torch.device("cpu")


def parameters(**values: float) -> torch.Tensor:
    names = ("mirror", "flip", "z", "cos", "sin", "c", "s", "tx", "ty")
    return torch.tensor([[values.get(name, 0.0) for name in names]])


def blob(center: np.ndarray, inverse: np.ndarray, height: int, width: int) -> torch.Tensor:
    """A smooth bump of width 4 pixels around ``(3, -2)``, transformed by the affine map with that inverse and shift."""
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    p = np.stack([x, y], axis=-1) - center
    q = p @ inverse.T - np.array([3.0, -2.0])
    return torch.from_numpy(np.exp(-0.5 * (q**2).sum(-1) / 16)).float()[None, None]


def test_nine_zeros_change_no_bit(generator):
    x = torch.randn(3, 2, 6, 5, generator=generator)
    assert torch.equal(Augment.transform(x, torch.zeros(3, 9)), x)
    same, drawn = Augment(**OFF)(x, generator)
    assert torch.equal(same, x)
    assert torch.equal(drawn, torch.zeros(3, 9))


def test_mirror_and_flip_are_exact(generator):
    x = torch.randn(1, 2, 6, 5, generator=generator)
    assert torch.equal(Augment.transform(x, parameters(mirror=1)), x.flip(3))
    assert torch.equal(Augment.transform(x, parameters(flip=1)), x.flip(2))
    assert torch.equal(Augment.transform(x, parameters(mirror=1, flip=1)), x.flip(2, 3))


def test_a_quarter_turn_moves_pixels_from_the_right_to_the_bottom(generator):
    x = torch.randn(1, 2, 6, 6, generator=generator)
    rotated = Augment.transform(x, parameters(cos=-1, sin=1))
    torch.testing.assert_close(rotated, x.rot90(-1, (2, 3)), rtol=0, atol=1e-4)


def test_a_shift_by_whole_pixels_fills_the_gap_by_reflection(generator):
    x = torch.randn(1, 1, 4, 8, generator=generator)
    moved = Augment.transform(x, parameters(tx=1 / 8, ty=-1 / 4))
    torch.testing.assert_close(moved[..., :3, 1:], x[..., 1:, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[..., :3, 0], x[..., 1:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_transformation_is_the_affine_map_of_its_parameters(seed):
    """Against matrix exponentials: the stretch is exp(ln 2 (r cos 2b, r sin 2b; r sin 2b, -r cos 2b))."""
    rng = np.random.default_rng(seed)
    height, width = 64, 80
    z, c, s = rng.uniform(-0.3, 0.3, 3)
    a = rng.uniform(-math.pi, math.pi)
    shift = rng.uniform(-0.1, 0.1, 2)
    stretch = scipy.linalg.expm(math.log(2) * np.array([[c, s], [s, -c]]))
    forward = 2**z * stretch @ scipy.linalg.expm(np.array([[0, -a], [a, 0]]))
    drawn = parameters(z=z, cos=math.cos(a) - 1, sin=math.sin(a), c=c, s=s, tx=shift[0], ty=shift[1])
    before = blob(np.zeros(2), np.eye(2), height, width)
    expected = blob(shift * [width, height], np.linalg.inv(forward), height, width)
    transformed = Augment.transform(before, drawn)
    assert (transformed - expected).abs().max() < 0.02
    assert (before - expected).abs().max() > 0.2  # it moved


def test_the_returned_parameters_reproduce_the_transformation(generator):
    x = torch.randn(16, 1, 8, 8, generator=generator)
    transformed, drawn = ALL(x, generator)
    assert torch.equal(transformed, Augment.transform(x, drawn))
    assert drawn.shape == (16, Augment.dims)


def test_parameters_have_the_stated_distribution(generator):
    n = 40_000
    drawn = Augment(p=0.25, scale=0.3, rotate=1.0, stretch=0.1, translate=0.2).draw(n, generator).double()
    bound = 4 / math.sqrt(n)  # at least four standard errors of each mean below
    frequency = (drawn != 0).double().mean(0)
    expected = torch.tensor([0.5, 0.125, *[0.25] * 7], dtype=torch.float64)
    assert (frequency - expected).abs().max() < bound / 2
    z, tx, ty = (drawn[:, i][drawn[:, i] != 0] for i in (2, 7, 8))
    for values, std in ((z, 0.3), (tx, 0.2), (ty, 0.2)):
        assert values.std().item() == pytest.approx(std, rel=0.05)
    angle = torch.atan2(drawn[:, 4], drawn[:, 3] + 1)
    assert angle.abs().max() <= 1.0 + 1e-6
    assert angle.pow(2).mean().item() == pytest.approx(0.25 / 3, rel=0.05)
    torch.testing.assert_close((drawn[:, 3] + 1) ** 2 + drawn[:, 4] ** 2, torch.ones(n).double(), rtol=0, atol=1e-5)
    assert drawn[:, 5:7].pow(2).sum(1).mean().item() == pytest.approx(0.25 * 0.1**2, rel=0.06)
    chosen = drawn[:, [2, 3, 5, 7]] != 0  # each is chosen independently
    assert chosen.all(1).double().mean().item() == pytest.approx(0.25**4, abs=0.002)


def test_the_generator_alone_determines_the_transformation(generator):
    x = torch.randn(8, 1, 6, 6, generator=generator)
    before = torch.get_rng_state()
    first, repeated, other = (ALL(x, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_transformation_does_not_depend_on_the_rest_of_the_batch(generator):
    x = torch.randn(5, 2, 6, 6, generator=generator)
    transformed, drawn = ALL(x, generator)
    torch.testing.assert_close(Augment.transform(x[2:3], drawn[2:3]), transformed[2:3], rtol=0, atol=1e-6)


def test_double_precision_and_empty_batches_are_supported():
    transformed, drawn = ALL(torch.zeros(0, 1, 4, 4, dtype=torch.float64))
    assert (transformed.shape, transformed.dtype, drawn.shape) == ((0, 1, 4, 4), torch.float64, (0, 9))


def test_augmentation_reads_no_device_value():
    with torch.device("meta"):
        transformed, drawn = ALL(torch.zeros(2, 1, 4, 4))
    assert (transformed.shape, drawn.shape) == ((2, 1, 4, 4), (2, 9))


def test_it_has_a_text_form():
    augment = Augment(p=0.3, flip=False)
    assert spec.parse(spec.to_text(augment), {"Augment": Augment}) == augment


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"p": 1.5}, r"p must lie in \[0, 1\], got 1.5; 0 switches it off"),
        ({"rotate": -1.0}, r"rotate must lie in \[0, 3.142\]"),
        ({"scale": math.nan}, r"scale must lie in \[0, 2\], got nan"),
    ],
)
def test_strengths_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Augment(**fields)


@pytest.mark.parametrize("x", [torch.zeros(2, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)])
def test_anything_but_a_batch_of_floating_images_is_refused(x):
    with pytest.raises(ValueError, match=r"images must be floating \(B, C, H, W\)"):
        Augment()(x)


TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "groups": 2}
DESCRIPTION = Description("images", (1, 4, 6), bins=5)


def images(n: int = 12) -> Data:
    values = torch.randint(5, (n, 1, 4, 6), generator=torch.Generator().manual_seed(0))
    return Data(values, values[:0], DESCRIPTION, {"label": torch.arange(n) % 2})


def augmented_model(**options) -> ScoreModel:
    """The same model in every call, with no weight at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ScoreModel(UNet((1, 4, 6), **TINY, augment=Augment.dims, **options), VPSDE())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("dequantize", [True, False])
def test_a_batch_is_augmented_in_model_units_from_the_seed_of_its_shard(dequantize):
    settings = Training(batch_size=8, seed=2, dequantize=dequantize)
    plain, augmented = (
        Batches(
            augmented_model(conditions={"label": Classes(2, null=False)}),
            images(),
            Training(**{**vars(settings), "augment": augment}),
            CPU,
            2,
        )
        for augment in (None, ALL)
    )
    with torch.random.fork_rng(devices=[]):
        for step, shard in ((0, 0), (0, 1), (3, 1)):
            before, cond = plain.draw(step, shard)
            drawn = ALL.draw(4)  # the global state is as dequantization left it
            x0, conditions = augmented.draw(step, shard)
            assert torch.equal(conditions["augment"], drawn)
            assert torch.equal(x0, Augment.transform(before, drawn))
            assert not torch.equal(x0, before)
            assert torch.equal(conditions["label"], cond["label"])
            assert set(cond) == {"label"}


class Constant(torch.nn.Module):
    """Predicts one image, plus a correction for mirrored images."""

    augment = Augment.dims

    def __init__(self) -> None:
        super().__init__()
        self.image, self.correction = (torch.nn.Parameter(torch.zeros(1, 2, 2)) for _ in range(2))

    def forward(self, x, log_snr, augment=None):
        mirror = x.new_zeros(len(x)) if augment is None else augment[:, 0]
        return self.image + mirror.reshape(-1, 1, 1, 1) * self.correction


def test_a_network_with_augmentation_parameters_learns_the_untransformed_images():
    """Without the parameters, the loss is minimal at the mean of an image and its mirror image."""
    image = torch.tensor([[[0.9, -0.4], [0.1, 0.6]]])
    model = ScoreModel(Constant(), VPSDE(), X0())
    settings = Training(steps=300, batch_size=16, lr=0.05, lr_end=0.0, warmup=0, ema=None, augment=Augment(p=0.0))
    train(model, image.expand(16, 1, 2, 2), settings)
    x, mirrored = torch.zeros(1, 1, 2, 2), parameters(mirror=1)
    torch.testing.assert_close(model(x, 0.5).x0[0], image, rtol=0, atol=0.01)
    torch.testing.assert_close(model(x, 0.5, augment=mirrored).x0[0], image.flip(2), rtol=0, atol=0.01)


def test_guidance_passes_augmentation_parameters_on(generator):
    model = augmented_model().eval()
    x, drawn = torch.randn(3, 1, 4, 6, generator=generator), ALL.draw(3, generator)
    x0 = model(x, 0.2, augment=drawn).x0
    assert torch.equal(Clipping(model, -0.1, 0.1)(x, 0.2, augment=drawn).x0, x0.clamp(-0.1, 0.1))
    assert not torch.equal(x0, model(x, 0.2).x0)


def test_an_interrupted_and_resumed_run_with_augmentation_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path):
    settings = Training(steps=6, batch_size=4, warmup=2, accumulate=2, augment=Augment(p=0.5))

    def stop(state) -> None:
        raise KeyboardInterrupt

    whole = train(augmented_model(dropout=0.3), images(), settings)
    with pytest.raises(KeyboardInterrupt):
        train(
            augmented_model(dropout=0.3),
            images(),
            settings,
            run_dir=tmp_path,
            save_every=2,
            callbacks=[Callback(3, stop)],
        )
    resumed = train(augmented_model(dropout=0.3), images(), settings, run_dir=tmp_path, resume=True)
    expected, weights = (torch.cat([p.flatten() for p in run.model.parameters()]) for run in (whole, resumed))
    assert torch.equal(weights, expected)
    assert checkpoint.load(tmp_path).net.augment == Augment.dims
    with pytest.raises(ValueError, match=r"augment = Augment\(p=0.5.*asked for is None"):
        train(
            augmented_model(dropout=0.3),
            images(),
            Training(**{**vars(settings), "augment": None}),
            run_dir=tmp_path,
            resume=True,
        )


def test_settings_with_augmentation_have_a_text_form():
    settings = Training(augment=Augment(p=0.3, flip=False))
    known = spec.known_classes(
        scoresde.training, scoresde.objective.loss, scoresde.objective.timesteps, scoresde.objective.weighting, data
    )
    assert spec.parse(spec.to_text(settings), known) == settings
    with pytest.raises(TypeError, match=r"augment must be an Augment or None, got True; write e.g. Augment\(p=0.12\)"):
        Training(augment=True)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: UNet((1, 4, 6), **TINY), "takes its 9 parameters.* got UNet which takes none; .*augment=9"),
        (lambda: UNet((1, 4, 6), **TINY, augment=3), "got UNet which takes 3"),
        (lambda: MLP((1, 4, 6)), "got MLP which takes none"),
    ],
)
def test_a_network_without_augmentation_parameters_is_refused(net, message):
    with pytest.raises(ValueError, match=message):
        train(ScoreModel(net(), VPSDE()), images(), Training(augment=Augment()))


def test_events_that_are_not_images_are_refused():
    model = ScoreModel(UNet((1, 4), **TINY, augment=Augment.dims), VPSDE())
    with pytest.raises(ValueError, match=r"augment changes images \(C, H, W\), got events \(1, 4\)"):
        train(model, torch.zeros(3, 1, 4), Training(augment=Augment()))
