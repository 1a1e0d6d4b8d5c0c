# %% [markdown]
# # Samplers compared and calibrated
#
# At the end you know how far each sampler is from the exact answer at each cost. And you have a sampler that was fitted to one model, which needs half the calls or fewer.
#
# You need scoresde: `pip install .` in a clone. The last part uses the Fashion-MNIST network in `examples/fashion-mnist` of the source; run it in a clone.

# %% [markdown]
# ## 1. A model whose answer is known
#
# A trained network makes errors of its own, and they hide those of a sampler. So take a model that is exact: eight normal distributions on a ring. It is called like any trained model.

# %%
import torch

import scoresde as sd

model = sd.GaussianMixture.ring(std=0.1, sde=sd.VPSDE(tau_min=1e-4))

# %% [markdown]
# There are three ways from noise to data, and one call for all of them: the chain of DDPM, the reverse SDE, and the probability-flow ODE. `nfe` counts the calls of the network for one sample; they are what sampling costs.

# %%
truth = model.sample(4000, generator=torch.Generator().manual_seed(1))
exact = -model.log_prob(truth).mean()
print(f"exact samples             {exact:.2f} nats")
for sampler in (
    sd.DDPM(steps=50),
    sd.EulerMaruyama(steps=50),
    sd.DDIM(steps=50),
    sd.Adams(steps=20),
):
    samples = sd.sample(
        model, 4000, sampler, generator=torch.Generator().manual_seed(0)
    )
    nats = -model.log_prob(samples.x).mean()
    print(
        f"{type(sampler).__name__:15} {samples.nfe} calls: {nats:.2f} nats"
    )

# %% [markdown]
# These are averages of −log p over the samples: too high means too blurred, too low too sharp. Noisy methods can be compared only by such averages.
#
# ## 2. Error against calls
#
# The ODE adds no noise, so each starting noise has one exact end point. Compute it once with a tiny tolerance, then measure how far each method ends from it.

# %%
noise = torch.randn(
    512, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64
)
end = sd.sample(
    model, noise.shape, sd.ODE(rtol=1e-9, atol=1e-9), init=noise
).x


def error_of(sampler):
    samples = sd.sample(model, noise.shape, sampler, init=noise)
    return samples.nfe, float((samples.x - end).square().mean().sqrt())


methods = {
    "DDIM": sd.DDIM,
    "Heun (EDM)": lambda calls: sd.Heun(calls // 2),  # two calls a step
    "DPM-Solver++": sd.DPMSolverPP,
    "UniPC": sd.UniPC,
    "Adams": sd.Adams,
}
calls = (8, 10, 15, 20, 30, 50)
curves = {
    name: [error_of(method(n)) for n in calls]
    for name, method in methods.items()
}
for name, curve in curves.items():
    print(
        f"{name:13}", "  ".join(f"{n:2}: {error:.0e}" for n, error in curve)
    )

# %% [markdown]
# An error of 0.1 is the width of one of the eight spots. DDIM halves its error with twice the calls; it has order 1. The others are of higher order: their curves are steeper, and at many calls they are ahead by factors of a hundred.

# %% [markdown]
# ## 3. Calibration
#
# `calibrate` fits a sampler to one model: the times of the steps, the weights of past calls, and the data's mean and covariance. It takes seconds to minutes, once; afterwards each sample costs the same number of calls as before. The errors here are from other starting noises than those of the fit.

# %%
fits = sd.calibrate(
    model,
    sd.Adams(),
    steps=(5, 8, 10),
    generator=torch.Generator().manual_seed(3),
)
curves["Adams, calibrated"] = [error_of(fit.sampler) for fit in fits]
for fit, (n, error) in zip(fits, curves["Adams, calibrated"]):
    before = fit.original_error
    print(f"{n:2} calls: error {before:.1e} before, {error:.1e} after")

# %% [markdown]
# ## 4. How many calls are enough for your network?
#
# A trained network has an error of its own. Once the sampler's error is well below it, more calls change nothing that one could see. Start from the same noise, with more and more calls, and watch where images stop to change. Printed is the difference from the images of 40 calls, in gray levels from 0 to 255.

# %%
network = sd.load("examples/fashion-mnist")
images = {
    n: sd.sample(network, 9, sd.Adams(steps=n), seeds=range(9)).data
    for n in (5, 10, 20, 40)
}
for n in (5, 10, 20):
    change = (
        (images[n] - images[40].double()).flatten(1).square().mean(1).sqrt()
    )
    print(
        f"{n:2} calls: median {change.median():4.1f}, largest {change.max():4.1f}"
    )

# %% [markdown]
# ## 5. A figure

# %% alt="Left: error against network calls on logarithmic axes. DDIM falls slowly, Heun, DPM-Solver++, UniPC and Adams faster; calibrated Adams at 5 to 10 calls is far below all of them. Right: nine articles of clothing from the same noise with 5, 10, 20 and 40 calls; from 10 calls on they hardly change"
import matplotlib.pyplot as plt

from scoresde.plots import tile_images

figure, (left, right) = plt.subplots(
    1, 2, figsize=(6.2, 4.2), width_ratios=(1.5, 1)
)
for name, curve in curves.items():
    left.loglog(
        *zip(*curve),
        "-o",
        lw=3 if "calibrated" in name else 1.5,
        label=name,
    )
left.set_xticks((5, *calls), (5, *calls))
left.minorticks_off()
left.set(
    xlabel="network calls",
    ylabel="error from the exact end point",
    title="an exact model",
)
left.legend()
rows = torch.stack(list(images.values()), 1).flatten(0, 1)
sheet = tile_images(rows.numpy(), network.data, rows=9, columns=4)
right.imshow(sheet)
right.set_xticks([(i + 0.5) * sheet.shape[1] / 4 for i in range(4)], images)
right.set(yticks=[], xlabel="network calls", title="a trained one")
right.grid(False)
right.spines[:].set_visible(False)
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde sample runs/mine -n 64 --sampler "Adams(steps=20)" --out images.png
# scoresde calibrate runs/mine --sampler "Adams(steps=10)"
# scoresde sample runs/mine -n 64 --sampler "Adams(steps=10)" --calibrated --out images.png
# ```
#
# Next: [choosing a sampler](../choosing/sampler.md), [how they are built](../sampling-mechanisms.md), [one to four calls](../distillation.md).
