# %% [markdown]
# # Likelihood, bounds, error bars
#
# At the end you have the log-probability of held-out data in four ways, and you know which number bounds which. Each one has an error bar, and you have tested that error bars are right.
#
# You need scoresde: `pip install .` in a clone.

# %% [markdown]
# ## 1. Check it where the answer is known
#
# Eight normal distributions on a ring have a log-density that one can write down. `log_prob` does not know it. It solves the probability-flow ODE from data to noise, and adds up how much the flow stretches.

# %%
import torch

import scoresde as sd

ring = sd.GaussianMixture.ring()
x = ring.sample(400, ring.sde.tau_min, torch.Generator().manual_seed(0))
truth = ring.log_prob(x, ring.sde.tau_min)

result = sd.log_prob(ring, x)
error = (result.log_prob - truth).abs()
print(
    f"mean log p {result.log_prob.mean():.4f}, exactly {truth.mean():.4f}"
)
print(f"largest error of 400 points {error.max():.4f} nats")

# %% [markdown]
# ## 2. Error bars, tested
#
# In many dimensions the stretch can only be estimated, with random directions: `Hutchinson`. Each value then has a standard error, and an interval that should hold the truth 95 times in 100. Test that on data of 32 dimensions, where the truth is known too:

# %%
generator = torch.Generator().manual_seed(1)
means = torch.randn(6, 32, generator=generator, dtype=torch.float64)
deviations = (
    torch.rand(6, 32, generator=generator, dtype=torch.float64) + 0.2
)
mixture = sd.GaussianMixture(torch.ones(6), means, deviations**2)
y = mixture.sample(300, mixture.sde.tau_min, generator)
exact = mixture.log_prob(y, mixture.sde.tau_min)

rough = sd.log_prob(
    mixture, y, trace=sd.Hutchinson(probes=2), generator=generator
)
low, high = rough.interval(0.95)
inside = ((low <= exact) & (exact <= high)).double().mean()
print(f"standard error {rough.stderr.mean():.2f} nats, {inside:.0%} inside")
print(f"mean {rough.log_prob.mean():.2f}, exactly {exact.mean():.2f}")

# %% [markdown]
# The error of a mean over many events is far smaller, because their random directions are independent.

# %% [markdown]
# ## 3. A trained network
#
# Pixels are integers. So the question is how probable an image is, and the answer is in **bits per dimension**: the bits that a perfect code needs for each pixel. This trains a small network on handwritten digits for about half a minute.

# %%
import os

data = sd.load_data("digits")
torch.manual_seed(0)
inner = sd.MLP((1, 8, 8), width=256, depth=3, outputs=3)
network = sd.QuantizedSkip(inner, bins=17).fit(data.train)
model = sd.ScoreModel(
    network, sd.VPSDE(sd.Cosine()), sd.V(), data=data.description
)
settings = sd.Training(
    steps=800 * int(os.environ.get("SCORESDE_EFFORT", 1)),
    loss=sd.Loss(sd.ELBO(), sd.LossMomentTimesteps()),
    lr=2e-3,
    lr_end=0.0,
    ema=0.99,
    dequantize=False,
)
model = sd.train(model, data, settings, progress=False).model

# %% [markdown]
# ## 4. Three bounds and the ODE
#
# - **The bound in continuous time** is an upper bound on the bits of the reverse SDE. It is also the training loss.
# - **The bound of DDPM's chain** belongs to a chain of K steps. It has a term for each step, and falls toward the first as K grows.
# - **Several trajectories** of the same chain give a tighter bound.
# - **The ODE** has a density of its own. It is neither above nor below the others.
#
# All use the same 64 held-out images.

# %%
images = data.test[:64]


def seeded():
    return torch.Generator().manual_seed(0)


estimates = {
    "continuous bound": sd.continuous_vlb(
        model, images, evaluations=256, generator=seeded()
    )
}
for steps in (20, 100, 500):
    estimates[f"chain of {steps} steps"] = sd.discrete_vlb(
        model, images, steps=steps, generator=seeded()
    )
estimates["8 trajectories of 100"] = sd.importance_weighted_vlb(
    model, images, steps=100, trajectories=8, generator=seeded()
)
estimates["ODE"] = sd.bits_per_dim(model, images, generator=seeded())
for name, estimate in estimates.items():
    print(f"{name:22} {estimate.bits.mean():.3f} bits per dimension")

# %% [markdown]
# ## 5. Which error bar?
#
# Three different questions have three different errors:
#
# - *Would other images give another number?* The spread over images, divided by √n. It is large, because some digits are harder than others.
# - *Would another run give another number for these images?* The error of the random draws alone. It is small.
# - *Is one model better than another?* The spread of the difference on the same images. It is small too, and it is the one to report in a comparison.

# %%
bound, chain = estimates["continuous bound"], estimates["chain of 20 steps"]
difference = chain.bits - bound.bits
print(f"over images  {bound.mean:.3f} ± {bound.mean_stderr:.3f}")
print(f"over draws   {bound.mean:.3f} ± {bound.mean_draw_stderr:.3f}")
print(f"difference   {difference.mean():.3f} ± {difference.std() / 8:.3f}")

# %% [markdown]
# ## 6. Where the bits are
#
# The bound of the chain is a sum over its steps: the bits that each step has to add so that the data come back exactly.

# %%
steps = estimates["chain of 100 steps"].per_step
print(f"the last step before the data: {steps[0] / steps.sum():.0%} of all")
half = int((steps.cumsum(0) < steps.sum() / 2).sum()) + 1
print(f"half of all bits are in the {half} steps next to the data")

# %% [markdown]
# ## 7. A figure

# %% alt="Left: errors of 300 log-densities with their intervals around zero; about 95 in 100 bars touch zero. Right: bits per dimension of six estimates with error bars; the chain's bound falls with its number of steps toward the continuous bound"
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(
    1, 2, figsize=(6.2, 3.4), width_ratios=(1, 1.3)
)
shown = torch.arange(0, 300, 5)
left.errorbar(
    torch.arange(len(shown)),
    (rough.log_prob - exact)[shown],
    ((rough.log_prob - low)[shown], (high - rough.log_prob)[shown]),
    fmt="o",
    ms=2.5,
    lw=0.8,
)
left.axhline(0, color="C1")
left.set(
    xlabel="60 of 300 events", xticks=[], ylabel="error of log p, nats"
)
left.set_title(f"{inside:.0%} of intervals hold the truth")
for row, estimate in enumerate(estimates.values()):
    mean, spread = estimate.bits.mean(), estimate.bits.std() / 8
    right.errorbar(mean, row, xerr=spread, fmt="oC0", capsize=3)
    right.annotate(
        f"{mean:.2f}",
        (mean, row),
        (0, 7),
        textcoords="offset points",
        ha="center",
    )
right.set_yticks(range(len(estimates)), list(estimates))
right.set_ylim(len(estimates) - 0.5, -0.7)
right.set(xlabel="bits per dimension, same 64 images")
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde likelihood runs/mine --bound --limit 100 --out bits.csv --plot bits.png
# ```
#
# Next: [what each number bounds](../likelihood.md), and how to compare with a paper.
