# %% [markdown]
# # Your network, or your diffusers folder
#
# At the end a network that you trained elsewhere needs a tenth of the calls for a sample, is checked on data, and has a likelihood. It may come from your own code or from diffusers.
#
# You need scoresde with diffusers: `pip install ".[diffusers]"` in a clone. The folder of the second half is in that clone; run the notebook there, or name a folder of yours.

# %% [markdown]
# ## 1. A network of your own
#
# This could be any code of yours: a network in plain PyTorch that takes a step from 0 to 999 and predicts the noise, and the training loop of DDPM. Nothing in this cell knows of the library. It trains on two half moons for about 20 seconds.

# %%
import math
import os
from pathlib import Path

import torch
from sklearn.datasets import make_moons
from torch import nn

points = torch.tensor(
    make_moons(4000, noise=0.1, random_state=0)[0]
).float()
points = (points - points.mean(0)) / points.std(0)
train, held_out = points[:3500], points[3500:]

betas = torch.linspace(1e-4, 0.02, 1000)
alpha_bar = (1 - betas).cumprod(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Linear(34, 128),
                nn.SiLU(),
                nn.Linear(128, 128),
                nn.SiLU(),
            ),
            *(nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2)),
        )

    def forward(self, x, step):
        frequencies = torch.exp(torch.linspace(0, -math.log(1000), 16))
        angles = step.float()[:, None] * frequencies
        return self.layers(torch.cat([x, angles.sin(), angles.cos()], 1))


torch.manual_seed(0)
net = Net()
optimizer = torch.optim.Adam(net.parameters())
updates = 4000 * int(os.environ.get("SCORESDE_EFFORT", 1))
for update in range(updates):
    x0 = train[torch.randint(len(train), (512,))]
    step, noise = torch.randint(1000, (512,)), torch.randn_like(x0)
    signal = alpha_bar[step, None]
    x = signal.sqrt() * x0 + (1 - signal).sqrt() * noise
    loss = (net(x, step) - noise).square().mean()
    optimizer.param_groups[0]["lr"] = 2e-3 * (1 - update / updates)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %% [markdown]
# ## 2. Three facts make it a model
#
# Say what the network takes, when noise is added, and what it predicts: the number of a step, DDPM's linear betas, the noise.

# %%
import scoresde as sd
from scoresde.adapters import FromStep

clock = sd.LinearBetas()  # or sd.FromBetas(betas), from a list
process = sd.VPSDE(clock, tau_min=clock.knots(1000)[1])
model = sd.ScoreModel(
    FromStep(net, clock, steps=1000), process, sd.Eps(), event_shape=(2,)
)

# %% [markdown]
# The second line starts at the first step of the chain, because the network never saw less noise than that. [Other networks](../bring-your-own-network.md) take a noise level, a time from 0 to 1, or predict the data: each is one word in place of `FromStep` or `Eps`.

# %% [markdown]
# ## 3. What it can do now
#
# Sample with few calls. The chain as trained needs 1000 calls of the network for each sample:

# %%
from scoresde.metrics import energy_distance

chain = sd.sample(model, 500, sd.DDPM(steps=1000), seeds=range(500))
fast = sd.sample(model, 500, sd.Adams(steps=20), seeds=range(500))
for samples in (chain, fast):
    distance = energy_distance(samples.x, held_out)
    print(
        f"{samples.nfe:4} calls: distance from held-out points "
        f"{distance.value:.4f} ± {distance.stderr:.4f}"
    )

# %% [markdown]
# And the probability of data, which the training code could not compute:

# %%
log_p = sd.log_prob(model, held_out).log_prob
print(
    f"{-log_p.mean():.2f} nats per held-out point; a normal one needs",
    end=" ",
)
print(
    f"{math.log(held_out.T.cov().det()) / 2 + math.log(2 * math.pi) + 1:.2f}"
)

# %% [markdown]
# ## 4. Is it used as it was trained?
#
# A network that gets the wrong step, or whose output is read as the wrong quantity, still returns numbers. `verify` reads the same network in other ways, and looks whether one of them predicts the noise better. Here the output is wrongly taken for the data:

# %%
mistaken = sd.ScoreModel(model.net, process, sd.X0(), event_shape=(2,))
for name, candidate in {"right": model, "mistaken": mistaken}.items():
    output = sd.verify(candidate, held_out).check("output")
    print(f"{name}: {output.outcome}; {output.sentence}")

# %% [markdown]
# ## 5. A folder of diffusers
#
# A pipeline that diffusers trained and saved is opened by its name. What the files state, and what follows, is listed:

# %%
folder = "tests/bridges/models/diffusers/linear"  # or your own
opened = sd.open_model(folder)
for finding in opened.findings:
    print(f"{finding.name:18} {finding.value}")

# %% [markdown]
# `opened.model` is the network. It draws handwritten digits of 8 × 8 pixels. Calibrate a sampler of ten calls to it, and compare with 50 steps of DDIM. All start from the same noise, and a very fine solution shows where they should end.

# %%
digits = opened.model
generator = torch.Generator().manual_seed(0)
noise = torch.randn(25, 1, 8, 8, generator=generator)
fit = sd.calibrate(digits, sd.Adams(steps=10), generator=generator)


def images_of(sampler):
    return sd.sample(digits, 25, sampler, init=noise)


end = images_of(sd.Adams(steps=150))
results = {
    "DDIM": images_of(sd.DDIM(steps=50)),
    "DPM-Solver++": images_of(sd.DPMSolverPP(steps=10)),
    "Adams": images_of(sd.Adams(steps=10)),
    "Adams, calibrated": images_of(fit.sampler),
}
errors = {
    f"{name}, {images.nfe} calls": float(
        (images.x - end.x).square().mean().sqrt()
    )
    for name, images in results.items()
}
for name, error in errors.items():
    print(f"{name:28} {error:.4f}")

# %% [markdown]
# ## 6. Back to diffusers
#
# A sampler takes the place of a pipeline's scheduler. The rest of the pipeline stays as it is, and `save` writes a model of this library as a folder that diffusers opens.

# %%
from diffusers import DDPMPipeline
from diffusers.utils import logging

from scoresde.bridges.diffusers import Scheduler, save

logging.disable_progress_bar()
pipeline = DDPMPipeline.from_pretrained(folder)
pipeline.set_progress_bar_config(disable=True)
pipeline.scheduler = Scheduler(sd.Adams(steps=10), pipeline.scheduler)
images = pipeline(4, num_inference_steps=10, output_type="np").images
print(images.shape, "images by diffusers' own pipeline, in ten calls each")

save(digits, "my-pipeline")
print(*sorted(path.name for path in Path("my-pipeline").iterdir()))

# %% [markdown]
# ## 7. A figure

# %% alt="Above: 500 points from the chain of 1000 calls and 500 from 20 calls lie on the same two half moons. Below: digits of a diffusers network in ten calls, and bars of the error of four samplers, of which the calibrated one in ten calls is the smallest"
import matplotlib.pyplot as plt

from scoresde.plots import tile_images

figure, axes = plt.subplot_mosaic(
    [["chain", "fast"], ["digits", "error"]], figsize=(6.2, 5.6)
)
for name, samples in {"chain": chain, "fast": fast}.items():
    axes[name].plot(*held_out.T, ".", color="0.7", label="held out")
    axes[name].plot(*samples.x.T, ".", ms=3, label="samples")
    axes[name].set(xticks=[], yticks=[])
    axes[name].set_title(f"your network, {samples.nfe} calls")
axes["chain"].legend(loc="upper right")
axes["digits"].imshow(
    tile_images(results["Adams, calibrated"].data.numpy(), digits.data)
)
axes["digits"].axis("off")
axes["digits"].set_title("a diffusers folder, 10 calls")
bars = axes["error"].barh(
    ["\n".join(name.rsplit(", ", 1)) for name in errors],
    list(errors.values()),
)
bars[-1].set_color("C1")
axes["error"].invert_yaxis()
axes["error"].set(xlabel="error of the images")
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde open my-pipeline --out runs/theirs
# scoresde verify runs/theirs --data my-images
# scoresde calibrate runs/theirs --sampler "Adams(steps=10)"
# scoresde sample runs/theirs -n 64 --sampler "Adams(steps=10)" --calibrated --out images.png
# ```
#
# Next: [other code bases](../bring-your-model.md), [other networks](../bring-your-own-network.md), [what `verify` finds](../verify.md).
