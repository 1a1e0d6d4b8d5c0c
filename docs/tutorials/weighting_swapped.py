# %% [markdown]
# # λ swapped: DDPM and score matching are one loss
#
# At the end you have seen, line by line, that DDPM and score matching minimize the same number. And you have three networks that differ in nothing but the weight λ of each noise level.
#
# You need scoresde: `pip install .` in a clone. No formula here is long, and each is computed twice.

# %% [markdown]
# ## 1. One image, one noise
#
# Diffusion models learn from noised data, $x = \alpha x_0 + \sigma\varepsilon$ with $\alpha^2 + \sigma^2 = 1$. Here $x_0$ is data, $\varepsilon$ is normal noise, and $\alpha$ falls from 1 to 0 while noise takes over.
#
# DDPM writes $\alpha^2$ as $\bar\alpha_k$, the product of $1 - \beta$ up to step k. This is a batch of noised digits, and any network will do: this one trained for a second.

# %%
import torch

import scoresde as sd

data = sd.load_data("digits")
x0 = data.description.to_model(data.description.center(data.train[:256]))

torch.manual_seed(0)
clock = sd.LinearBetas()
network = sd.MLP((1, 8, 8), width=64, depth=1)
model = sd.ScoreModel(
    network, sd.VPSDE(clock), sd.Eps(), data=data.description
)
sd.train(model, data, sd.Training(steps=50), progress=False)

betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
alpha_bars = (1 - betas).cumprod(0)
k = torch.randint(1, 1001, (256,))
alpha_bar = alpha_bars[k - 1].float().reshape(-1, 1, 1, 1)
eps = torch.randn_like(x0)
x = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps

# %% [markdown]
# ## 2. Line by line
#
# **DDPM** (Ho et al. 2020, algorithm 1) predicts the noise, and measures its error:

# %%
tau = clock.tau(k.double() / 1000)  # the library's name of this time
eps_hat = model(x, tau).eps
ddpm = (eps_hat - eps).square().flatten(1).sum(1)

# %% [markdown]
# **Score matching** (Vincent 2011, Song & Ermon 2019) predicts the slope of the log-density, the score. The noised data are normal around $\alpha x_0$ with variance $\sigma^2$, so the slope at x is $-(x - \alpha x_0)/\sigma^2$. Its error is weighted by $\sigma^2$:

# %%
score_hat = model(x, tau).score
slope = -(x - alpha_bar.sqrt() * x0) / (1 - alpha_bar)
squares = (score_hat - slope).square().flatten(1).sum(1)
matching = (1 - alpha_bar).flatten() * squares

# %% [markdown]
# **Regression on the data** predicts $x_0$. Its error is weighted by the signal-to-noise ratio $\alpha^2/\sigma^2$:

# %%
x0_hat = model(x, tau).x0
squares = (x0_hat - x0).square().flatten(1).sum(1)
regression = (alpha_bar / (1 - alpha_bar)).flatten() * squares

# %% [markdown]
# And the library's loss with λ = 1, at the same steps and noise:

# %%
from scoresde.objective.timesteps import TimestepDraw

draw = TimestepDraw(k.double() / 1000)
ours = sd.Loss(sd.weighting.Simple()).at(model, x0, draw, eps)

print("  step     DDPM    score     data     ours")
for row in range(5):
    values = [
        loss[row].item() for loss in (ddpm, matching, regression, ours)
    ]
    print(f"{int(k[row]):6}", *(f"{value:8.3f}" for value in values))
for other in (matching, regression, ours):
    torch.testing.assert_close(
        ddpm.double(), other.double(), rtol=1e-3, atol=1e-3
    )

# %% [markdown]
# The four columns are one loss. The reason is one line: $\hat\varepsilon - \varepsilon = -\sigma(\hat s - s) = -(\alpha/\sigma)(\hat x_0 - x_0)$, where s is the score. All three are the same x, solved for another unknown.

# %% [markdown]
# ## 3. What is left is λ
#
# So methods differ in how much each noise level counts. The bound on the log-likelihood has a weight of its own, in DDPM's chain of K steps and in continuous time. Times K, the first tends to the second. Here both are halfway through the clock:

# %%
from scoresde.process import Marginal

song = sd.LinearVP()
process = sd.VPSDE(song)
limit = float(sd.ELBO()(process.marginal(0.5)))
for steps in (10, 100, 1000, 10000):
    late, early = song.tau(0.5), song.tau(0.5 - 1 / steps)
    step = Marginal(late, song.rate(0.5), early)
    weight = steps * sd.weighting.DiscreteVLB("beta")(step)
    print(f"K = {steps:5}: {float(weight):.4f}; continuous {limit:.4f}")

# %% [markdown]
# ## 4. Swap it
#
# Three networks from the same initial weights see the same digits in the same order, with noise levels drawn alike. Only λ differs: that of the bound (`ELBO`), DDPM's λ = 1 (`Simple`), and `MinSNR`, which caps the weight of little noise.

# %%
import os

from scoresde.training import loss_by_log_snr

steps = 500 * int(os.environ.get("SCORESDE_EFFORT", 1))
weightings = {
    "ELBO": sd.ELBO(),
    "Simple": sd.weighting.Simple(),
    "MinSNR": sd.MinSNR(5),
}
noise_levels = sd.ImportanceTimesteps(sd.ELBO())
held_out = data.description.to_model(data.description.center(data.test))


def trained(weighting):
    torch.manual_seed(0)
    inner = sd.MLP((1, 8, 8), width=192, depth=3, outputs=3)
    network = sd.QuantizedSkip(inner, bins=17).fit(data.train)
    model = sd.ScoreModel(
        network, sd.VPSDE(sd.Cosine()), sd.V(), data=data.description
    )
    settings = sd.Training(
        steps,
        128,
        loss=sd.Loss(weighting, noise_levels),
        lr=2e-3,
        lr_end=0,
        ema=0.99,
        dequantize=False,
    )
    return sd.train(model, data, settings, progress=False).model


levels = torch.arange(-8, 10.75, 0.5)
errors, bits = {}, {}
for name, weighting in weightings.items():
    model = trained(weighting)
    errors[name] = loss_by_log_snr(
        model,
        held_out,
        levels.tolist(),
        repeats=2,
        generator=torch.Generator().manual_seed(1),
    )
    bits[name] = sd.continuous_vlb(
        model,
        data.test,
        evaluations=32,
        generator=torch.Generator().manual_seed(2),
    )
    mean, error = bits[name].mean, bits[name].mean_stderr
    print(f"{name:7} {mean:.3f} ± {error:.3f} bits per dimension")

# %% [markdown]
# The standard errors are over images, which are the same for all three. What λ changed is the difference between two models on the same image, and that is known better:

# %%
for name in ("Simple", "MinSNR"):
    more = bits[name].bits - bits["ELBO"].bits
    mean, error = more.mean(), more.std() / len(more) ** 0.5
    print(f"{name:7} needs {mean:.3f} ± {error:.3f} bits more than ELBO")

# %% [markdown]
# ## 5. Where the bits go
#
# The bound is half the area under the error, taken over log-SNR, $\log \alpha^2/\sigma^2$. So the area between two curves of errors is the difference in bits:

# %%
import math

excess = {
    name: curve.loss - errors["ELBO"].loss for name, curve in errors.items()
}
for name in ("Simple", "MinSNR"):
    area = 0.5 * 0.5 * float(excess[name].sum()) / math.log(2)
    print(f"{name:7} area between the curves {area:.3f} bits")

# %% [markdown]
# ## 6. A figure
#
# Left, the weight of each noise level, from noise to data. Right, the error at that level above that of `ELBO`. Where a weight is small, the error is larger, and the bound pays for the area.

# %% alt="Left: the weights of ELBO, Simple and MinSNR against log signal-to-noise ratio; ELBO is flat, the other two fall toward the data. Right: held-out error of each above that of ELBO. The curves of Simple and MinSNR rise where their weight is small; the shaded areas are the bits that they lose"
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(6.2, 3.2), sharex=True)
log_snr = torch.linspace(-8, 11, 200, dtype=torch.float64)
for name, weighting in weightings.items():
    weight = torch.as_tensor(
        sd.objective.canonical(weighting, sd.Cosine())(log_snr)
    )
    left.plot(log_snr, (weight / weight.max()).expand(200), label=name)
    at = errors[name].log_snr
    right.plot(at, excess[name], label=f"{bits[name].mean:.2f} bits")
    right.fill_between(at, 0, excess[name], alpha=0.2)
left.set(
    xlabel="log-SNR: noise … data",
    ylabel="weight",
    title="how much a level counts",
)
right.set(xlabel="log-SNR: noise … data", title="error above ELBO's")
right.set_xlim(-8, 11)
left.legend()
right.legend()
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde train --data digits --weighting "MinSNR(gamma=5)" --out runs/minsnr
# scoresde compare --data digits --weighting "ELBO()" --weighting "Simple()" --out runs/compared
# ```
#
# Next: [which named weightings coincide](../weightings.md), [five weightings on Fashion-MNIST](../choosing/weighting.md).
