"""Networks of diffusers by class, their conditions, latents and autoencoders, and EDM and VE schedulers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers_peer import FOLDERS, peer_chain, peer_network, peer_scheduler, relative
from tiny_diffusers_networks import NETWORKS, Call
from torch import Tensor, nn

import scoresde as sd
from scoresde.adapters.diffusers_network import DiffusersNetwork
from scoresde.bridges.diffusers import decode_latents, encode_images, open_autoencoder, open_folder
from scoresde.nn.conditions import Classes, Tokens
from scoresde.process.parameterization import Eps, V, Velocity
from scoresde.sampling import DDIM, DDPM, DPMSolverPP, sample

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([3.0, 700.25])


def built(name: str, seed: int = 0) -> tuple[DiffusersNetwork, dict[str, Tensor], Call]:
    config, cond, call = NETWORKS[name]
    network = DiffusersNetwork(name.split()[0], json.dumps(config)).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():  # some layers begin at 0
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network, cond, call


def saved(tmp_path: Path, name: str, scheduler: Any, vae: nn.Module | None = None) -> Path:
    """A pipeline folder with a small network and a scheduler, written by diffusers; `model_index.json` by hand."""
    component = "unet" if name.startswith("UNet") else "transformer"
    network = built(name)[0].net
    network.save_pretrained(tmp_path / component)  # pyright: ignore[reportCallIssue]
    scheduler.save_pretrained(tmp_path / "scheduler")
    index = {"_class_name": "MyPipeline", component: ["diffusers", name.split()[0]]}
    if vae is not None:
        vae.save_pretrained(tmp_path / "vae")  # pyright: ignore[reportCallIssue]
        index["vae"] = ["diffusers", type(vae).__name__]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    return tmp_path


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_called_as_the_pipelines_call_it(name: str) -> None:
    network, cond, call = built(name)
    with torch.no_grad():
        assert torch.equal(network(X, TIMES, **cond), call(network.net, X, TIMES, cond))
    assert set(network.conditions) == set(cond)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_condition_matters_and_none_may_be_missing_or_of_another_shape(name: str) -> None:
    network, cond, _ = built(name)
    with torch.no_grad():
        out = network(X, TIMES, **cond)
        for key, value in cond.items():
            other = value.flip(0) if not value.is_floating_point() else 2.0 * value + 1.0
            assert not torch.allclose(network(X, TIMES, **{**cond, key: other}), out)
            rest = {k: v for k, v in cond.items() if k != key}
            with pytest.raises(ValueError, match=f"{network.class_name} needs the condition {key}: .*pass {key}="):
                network(X, TIMES, **rest)
            with pytest.raises(ValueError, match=f"{key} must have shape"):
                network(X, TIMES, **{**cond, key: value[:1]})


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_model_is_rebuilt_from_its_text(name: str, tmp_path: Path) -> None:
    network, cond, _ = built(name)
    clock = sd.LinearBetas()
    model = sd.ScoreModel(
        sd.adapters.FromStep(network, clock),
        sd.VPSDE(clock, tau_min=clock.knots(1000)[1]),
        sd.Eps(),
        (4, 8, 8),
        learned_variance=network(X, TIMES, **cond).shape[1] == 8,
    ).eval()
    sd.save(model, tmp_path / "run")
    again = sd.load(tmp_path / "run")
    with torch.no_grad():
        assert torch.equal(again(X, 0.7, **cond).out, model(X, 0.7, **cond).out)


def test_only_known_classes_are_built() -> None:
    with pytest.raises(ValueError, match="no network of diffusers is known as 'DDPMPipeline'"):
        DiffusersNetwork("DDPMPipeline", "{}")
    for text in ("[]", "{", "3"):
        with pytest.raises(ValueError, match="config must be"):
            DiffusersNetwork("UNet2DModel", text)


def test_entries_that_the_class_does_not_have_are_left_out() -> None:
    """As those that diffusers' EMA adds to the configuration."""
    config = {**NETWORKS["UNet2DModel"][0], "optimization_step": 6000, "decay": 0.999}
    assert DiffusersNetwork("UNet2DModel", json.dumps(config)).event_shape == (4, 8, 8)


def test_building_does_not_change_the_global_random_state() -> None:
    before = torch.get_rng_state()
    built("UNet2DModel")
    assert torch.equal(before, torch.get_rng_state())


def test_a_network_with_a_table_of_timesteps_receives_integers(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel(
        **{**NETWORKS["UNet2DModel"][0], "time_embedding_type": "learned", "num_train_timesteps": 1000}
    )
    network.save_pretrained(tmp_path / "unet")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    model, label = open_folder(tmp_path).model, torch.tensor([0, 1])
    expected = network.eval()(X, torch.tensor([499, 499]), class_labels=label).sample
    torch.testing.assert_close(model(X, model.sde.schedule.tau(0.5), label=label).out, expected)


def test_attention_weights_under_their_former_names_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = {**NETWORKS["UNet2DModel"][0], "down_block_types": ("AttnDownBlock2D", "DownBlock2D")}
    network = diffusers.UNet2DModel(**{**config, "attention_head_dim": 4, "num_class_embeds": None})
    network.save_pretrained(tmp_path / "unet")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    with torch.no_grad():
        expected = network.eval()(X, 499).sample
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(file)
    for new, old in former.items():
        weights = {name.replace(f".{new}.", f".{old}."): value for name, value in weights.items()}
    assert any(".query." in name for name in weights)
    save_file(weights, file)
    model = open_folder(tmp_path).model
    assert torch.equal(model(X, model.sde.schedule.tau(0.5)).out, expected)


# --- conditions and guidance ------------------------------------------------------------------------------------------


def test_a_dit_has_labels_with_a_null_and_a_learned_variance(tmp_path: Path) -> None:
    """Against diffusers' DiT with guidance and with DDPM's learned range."""
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    opened = open_folder(saved(tmp_path, "DiTTransformer2DModel", scheduler), steps=20)
    assert opened.model.learned_variance
    assert opened.model.net.conditions == {"label": Classes(10, null=True)}
    assert isinstance(opened.sampler, DDPM)
    assert opened.sampler.rev_var == "learned"
    network, label = built("DiTTransformer2DModel")[0].net.eval(), torch.tensor([3, 7])
    scheduler.set_timesteps(20)
    x, generator = X, torch.Generator().manual_seed(1)
    with torch.no_grad():
        for t in scheduler.timesteps:
            out = network(x, t.expand(2), class_labels=label).sample
            x = scheduler.step(out, t, x, generator=generator).prev_sample
    drawn = sample(
        opened.steered,
        2,
        opened.sampler,
        start=opened.start,
        init=X,
        label=label,
        generator=torch.Generator().manual_seed(1),
    ).x
    assert relative(drawn, x) < 1e-4  # float32, and 20 steps of an untrained network
    null = sd.CFG(opened.model, 3.0)(X, 0.5, label=label).eps
    with torch.no_grad():
        t = float(opened.model.sde.schedule.u(0.5)) * 1000 - 1
        both = [network(X, torch.full((2,), t), class_labels=k).sample[:, :4] for k in (torch.full((2,), 10), label)]
    torch.testing.assert_close(null, both[0] + 3.0 * (both[1] - both[0]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"), [("DiTTransformer2DModel", "ada_norm_zero"), ("PixArtTransformer2DModel", "ada_norm_single")]
)
def test_a_transformer_under_its_former_class_is_opened(name: str, kind: str, tmp_path: Path) -> None:
    """As facebook/DiT-XL-2-256 and the first PixArt are stored."""
    folder = saved(tmp_path, name, diffusers.DDIMScheduler(clip_sample=False))
    _, cond, _ = built(name)
    expected = open_folder(folder).model(X, 0.5, **cond).out
    file = folder / "transformer" / "config.json"
    config = json.loads(file.read_text()) | {"_class_name": "Transformer2DModel", "norm_type": kind}
    file.write_text(json.dumps(config))
    opened = open_folder(folder)
    assert torch.equal(opened.model(X, 0.5, **cond).out, expected)
    assert opened.findings[0].value == name


def test_a_prompt_is_a_condition_and_its_null_a_given_embedding(tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    opened = open_folder(saved(tmp_path, "UNet2DConditionModel", scheduler))
    assert opened.model.net.conditions == {"text": Tokens(12, null=False)}
    text, null = NETWORKS["UNet2DConditionModel"][1]["text"], torch.ones(3, 12)
    guided = sd.CFG(opened.model, 5.0, null={"text": null})
    a, b = (opened.model(X, 0.5, text=t).eps for t in (text, null.expand(2, 3, 12)))
    torch.testing.assert_close(guided(X, 0.5, text=text).eps, b + 5.0 * (a - b), rtol=1e-4, atol=1e-4)
    with pytest.raises(TypeError, match="Conditions of the network: text"):
        sample(opened.model, 2, DDIM(2), prompt=text)


def test_networks_with_further_channels_are_refused(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel(**{**NETWORKS["UNet2DModel"][0], "in_channels": 9})
    network.save_pretrained(tmp_path / "unet")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match=r"in_channels = 9 and out_channels = 4.*inpainting, cannot be opened"):
        open_folder(tmp_path)


def test_stable_diffusion_3_steps_as_its_pipeline(tmp_path: Path) -> None:
    name = "SD3Transformer2DModel"
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    folder = saved(tmp_path, name, scheduler)
    opened = open_folder(folder, steps=6, event_shape=(4, 8, 8))
    assert opened.model.parameterization == Velocity()
    network, cond, call = built(name)
    scheduler.set_timesteps(6)
    x = X
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(call(network.net, x, t.expand(2), cond), t, x).prev_sample
    drawn = sample(opened.steered, 2, opened.sampler, init=X, **cond).x  # pyright: ignore[reportArgumentType]
    assert relative(drawn, x) < 1e-5


def test_flux_takes_noise_levels_to_one_over_n_and_a_shift_by_the_number_of_tokens(tmp_path: Path) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    settings = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**settings)
    opened = open_folder(saved(tmp_path, "FluxTransformer2DModel", scheduler), steps=6, event_shape=(4, 8, 8))
    mu = calculate_shift(16, 4, 64, scheduler.config.base_shift, scheduler.config.max_shift)
    scheduler.set_timesteps(sigmas=[1 - i / 6 for i in range(6)], mu=mu)
    network, cond, call = built("FluxTransformer2DModel")
    x = X
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(call(network.net, x, t.expand(2), cond), t, x).prev_sample
    drawn = sample(opened.steered, 2, opened.sampler, init=X, **cond).x  # pyright: ignore[reportArgumentType]
    assert relative(drawn, x) < 1e-4  # float32; this untrained network makes 0.2 of a shift by 1 %
    assert open_folder(tmp_path).model.event_shape == (4, 128, 128)  # 1024 pixels, as its pipeline makes


# --- latents ----------------------------------------------------------------------------------------------------------


def autoencoder(**settings: Any) -> nn.Module:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        **settings,
    ).eval()


@pytest.mark.parametrize("settings", [{"scaling_factor": 0.3}, {"scaling_factor": 1.5, "shift_factor": 0.06}], ids=str)
def test_a_latent_model_is_sampled_and_decoded_in_two_lines(settings: dict[str, Any], tmp_path: Path) -> None:
    vae = autoencoder(**settings)
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, set_alpha_to_one=False
    )
    folder = saved(tmp_path, "UNet2DConditionModel", scheduler, vae)
    text = NETWORKS["UNet2DConditionModel"][1]["text"]

    opened = open_folder(folder, steps=10)
    images = decode_latents(folder, sample(opened.steered, 2, opened.sampler, start=opened.start, init=X, text=text))  # pyright: ignore[reportArgumentType]

    network = built("UNet2DConditionModel")[0].net.eval()
    scheduler.set_timesteps(10)
    x = X
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t, text).sample, t, x).prev_sample
        decoded = vae.decode(x / settings["scaling_factor"] + settings.get("shift_factor", 0.0)).sample  # pyright: ignore[reportCallIssue]
    expected = diffusers.image_processor.VaeImageProcessor.denormalize(decoded)
    assert images.dtype == torch.uint8
    assert images.shape == (2, 3, 16, 16)
    assert (images.float() / 255 - expected).abs().max() < 0.6 / 255
    assert "latents, x = (z - " in next(f.value for f in opened.findings if f.name == "range of the data")


def test_images_are_encoded_to_the_mean_of_the_latents(tmp_path: Path) -> None:
    vae = autoencoder()
    vae.save_pretrained(tmp_path)  # pyright: ignore[reportCallIssue]
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vae.encode(images / 127.5 - 1).latent_dist.mean  # pyright: ignore[reportCallIssue]
    assert torch.equal(encode_images(tmp_path, images), expected)
    assert torch.equal(encode_images(vae, images), expected)
    with pytest.raises(TypeError, match="images must be bytes, got torch.float32"):
        encode_images(vae, images / 255)
    with pytest.raises(TypeError, match="samples must be"):
        decode_latents(vae, "images")  # pyright: ignore[reportArgumentType]


def test_an_autoencoder_of_another_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold an autoencoder"):
        open_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "subprocess.Popen"}')
    with pytest.raises(ValueError, match=r"must be one of AutoencoderKL.*got 'subprocess.Popen'"):
        open_autoencoder(tmp_path)


# --- EDM and VE -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_edm_steps_are_those_of_the_scheduler(name: str, kind: str, schedule: str, tmp_path: Path) -> None:
    """With a network trained for something else: the preconditioning is what is compared."""
    network = peer_network(FOLDERS / "linear", torch.float32)
    network.save_pretrained(tmp_path / "unet")  # pyright: ignore[reportCallIssue]
    scheduler = getattr(diffusers, name)(prediction_type=kind, sigma_data=0.7, sigma_schedule=schedule)
    scheduler.save_pretrained(tmp_path / "scheduler")
    opened = open_folder(tmp_path, steps=20)
    assert isinstance(opened.sampler, DDIM if name == "EDMEulerScheduler" else DPMSolverPP)
    assert opened.model.parameterization == V(0.7)
    noised = X[:, :1] * 80.0
    expected = peer_chain(scheduler, network, noised, 20)
    assert relative(sample(opened.steered, 2, opened.sampler, init=noised).x, expected) < 1e-5


@pytest.mark.parametrize("sigma", [0.01, 0.8, 50.0])
def test_one_edm_call_gives_the_denoised_state_of_the_scheduler(sigma: float, tmp_path: Path) -> None:
    network = peer_network(FOLDERS / "linear", torch.float32)
    network.save_pretrained(tmp_path / "unet")  # pyright: ignore[reportCallIssue]
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.save_pretrained(tmp_path / "scheduler")
    model = open_folder(tmp_path).model
    noised = X[:, :1] * sigma
    tau = 0.5 * math.log1p(sigma**2)
    with torch.no_grad():
        level = torch.tensor(sigma)
        out = network(scheduler.precondition_inputs(noised, level), scheduler.precondition_noise(level)).sample
        expected = scheduler.precondition_outputs(noised, out, level)
        assert relative(model(noised * math.exp(-tau), tau).x0, expected) < 1e-6


def test_euler_with_continuous_noise_levels_is_v_in_our_state(tmp_path: Path) -> None:
    network = peer_network(FOLDERS / "zero-snr", torch.float32)
    network.save_pretrained(tmp_path / "unet")  # pyright: ignore[reportCallIssue]
    scheduler = diffusers.EulerDiscreteScheduler(
        timestep_type="continuous",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    scheduler.save_pretrained(tmp_path / "scheduler")
    opened, noised = open_folder(tmp_path, steps=20), X[:, :1] * 700.0
    assert opened.model.parameterization == V()
    expected = peer_chain(scheduler, network, noised, 20)
    assert relative(sample(opened.steered, 2, opened.sampler, init=noised).x, expected) < 1e-5  # pyright: ignore[reportArgumentType]


def test_a_network_of_scoresdeve_is_the_score_of_the_exploding_state(tmp_path: Path) -> None:
    config = {**NETWORKS["UNet2DModel"][0], "num_class_embeds": None, "time_embedding_type": "fourier"}
    network = diffusers.UNet2DModel(**config).eval()
    network.save_pretrained(tmp_path / "unet")
    diffusers.ScoreSdeVeScheduler(sigma_max=50.0).save_pretrained(tmp_path / "scheduler")
    opened = open_folder(tmp_path)
    assert opened.model.parameterization == Eps()
    assert opened.sampler is None
    for sigma in (0.05, 3.0):
        tau, noised = 0.5 * math.log1p(sigma**2), X * sigma
        with torch.no_grad():
            score = network(noised, torch.full((2,), sigma)).sample
            prediction = opened.model(noised * math.exp(-tau), tau)
        assert relative(prediction.eps, -sigma * score) < 1e-6
        assert relative(prediction.score * math.exp(-tau), score) < 1e-6  # the score of x̃ = x/α
    data = opened.model.data
    assert data is not None
    values = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 4, 8, 8)
    assert torch.equal(data.to_model(data.center(values))[:, 0, 0, 0], torch.tensor([0.0, 1.0]))


def test_a_scheduler_in_the_other_coordinates_gives_another_result() -> None:
    """The parity tests tell epsilon from v: the same network read as the other is far off."""
    folder = FOLDERS / "linear"
    right = peer_chain(peer_scheduler(folder, "DDIMScheduler"), peer_network(folder, torch.float32), X[:, :1], 10)
    wrong = peer_scheduler(folder, "DDIMScheduler", prediction_type="v_prediction")
    assert relative(peer_chain(wrong, peer_network(folder, torch.float32), X[:, :1], 10), right) > 0.1


# --- distilled guidance, kinds of classes, autoencoders of Stable Diffusion 1 -----------------------------------------


def test_an_lcm_network_takes_the_guidance_scale_as_its_pipeline_does() -> None:
    config = {**NETWORKS["UNet2DConditionModel"][0], "time_cond_proj_dim": 16}
    network = DiffusersNetwork("UNet2DConditionModel", json.dumps(config)).eval()
    text, scale = NETWORKS["UNet2DConditionModel"][1]["text"], torch.tensor([[8.5], [3.0]])
    embed = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
    net: Any = network.net
    with torch.no_grad():
        net.time_embedding.cond_proj.weight.normal_(generator=torch.Generator().manual_seed(0))
        expected = net(X, TIMES, text, timestep_cond=embed(None, scale[:, 0] - 1, 16)).sample
        ours = network(X, TIMES, text=text, guidance=scale)
        other = network(X, TIMES, text=text, guidance=scale + 1)
    assert (ours - expected).abs().max() < 1e-5
    assert (other - expected).abs().max() > 1e-3
    with pytest.raises(ValueError, match="needs the condition guidance"):
        network(X, TIMES, text=text)


@pytest.mark.parametrize("name", ["UNet2DModel", "UNet2DConditionModel"])
def test_other_kinds_of_classes_are_refused(name: str) -> None:
    config = {**NETWORKS[name][0], "class_embed_type": "timestep"}
    with pytest.raises(ValueError, match="got class_embed_type = 'timestep', which is not supported"):
        DiffusersNetwork(name, json.dumps(config))


def test_an_autoencoder_under_its_former_names_is_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    vae: Any = autoencoder()
    vae.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        weights = {name.replace(f".{new}.", f".{old}."): value for name, value in weights.items()}
    assert any(".query." in name for name in weights)
    save_file(weights, file)
    opened: Any = open_autoencoder(tmp_path)
    with torch.no_grad():
        assert torch.equal(opened.decode(X).sample, vae.decode(X).sample)


def test_a_half_precision_autoencoder_decodes_in_float32_and_what_is_not_finite_is_refused() -> None:
    vae: Any = autoencoder().half()
    latents = 100 * X
    whole: Any = autoencoder()
    whole.load_state_dict({name: value.float() for name, value in vae.state_dict().items()})
    with torch.no_grad():
        vae.post_quant_conv.weight.mul_(2048)  # beyond float16 inside
        whole.post_quant_conv.weight.mul_(2048)
    assert torch.equal(decode_latents(vae, latents), decode_latents(whole, latents))
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float16}
    latents[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"images must be finite, got \d+ values that are not, of latents with 1;"):
        decode_latents(whole, latents)
