# %% [markdown]
# # Discrete data: DNA, text, codes
#
# At the end you have two diffusion models of DNA sequences, one by masks and one by random letters. You know their bits, held against the truth, and how many calls each sampler needs.
#
# You need scoresde: `pip install .` in a clone. Everything here runs in the same way on text, bits, or any other codes.

# %% [markdown]
# ## 1. Sequences whose probability is known
#
# Bacterial genes begin with two short words, TTGACA and TATAAT, some letters apart. These sequences of 20 letters have both: at a random place, with a gap of 3 to 5, and random letters elsewhere.
#
# That is a mixture of 15 cases, so the library has it as an exact model. It says how probable each sequence is, and which are impossible.

# %%
import math

import numpy as np
import torch

import scoresde as sd

LETTERS, LENGTH = "ACGT", 20


def case(place, gap):
    """Probabilities of each letter at each place, (20, 4)."""
    probs = torch.full((LENGTH, 4), 0.25, dtype=torch.float64)
    for start, word in ((place, "TTGACA"), (place + 6 + gap, "TATAAT")):
        for i, letter in enumerate(word):
            probs[start + i] = 0.0
            probs[start + i, LETTERS.index(letter)] = 1.0
    return probs


cases = torch.stack(
    [case(p, gap) for gap in (3, 4, 5) for p in range(LENGTH - 11 - gap)]
)
truth = sd.CategoricalMixture(torch.ones(len(cases)), cases)
codes = truth.sample(5000, generator=torch.Generator().manual_seed(0))
np.save("genes.npy", codes.to(torch.uint8).numpy())

# %% [markdown]
# Your own data would be such a file: one row of whole numbers for each sequence, and the letters that they stand for.

# %%
data = sd.load_data("genes.npy", alphabet=LETTERS)
print(*data.description.texts(data.train[:4]), sep="\n")
entropy = -truth.log_prob(data.test).mean() / math.log(2)
print(f"{entropy:.1f} bits each; without the two words it would be 40")

# %% [markdown]
# ## 2. Two kinds of noise
#
# Numbers are noised by adding a small random number. Letters cannot be added to. Instead, each one is replaced with probability $1 - \bar\alpha$, where $\bar\alpha$ falls from 1 to 0 with time: by a mask (`"absorbing"`), or by a random letter (`"uniform"`).

# %%
kernels = ("absorbing", "uniform")
processes = {kernel: sd.Categorical(4, kernel) for kernel in kernels}
first = data.train[:1].float()
generator = torch.Generator().manual_seed(1)
for kernel, process in processes.items():
    print(kernel)
    for kept in (1.0, 0.7, 0.4, 0.1):
        tau = -0.5 * math.log(kept)  # kept is alpha_bar = exp(-2 tau)
        noise = torch.rand(first.shape, generator=generator)
        noised = process.perturb(first, tau, noise)[0]
        print(
            f"  {kept:.0%}",
            "".join((LETTERS + "_")[int(c)] for c in noised),
        )

# %% [markdown]
# ## 3. Train one network for each
#
# The network sees a noised sequence and returns, for each place, the probabilities of the four letters. `PathKL` is its loss: an upper bound on the bits of a sequence, so what is trained is what is measured. Each training takes ten seconds or so.

# %%
import os

steps = 800 * int(os.environ.get("SCORESDE_EFFORT", 1))
settings = sd.Training(
    steps, 128, loss=sd.PathKL(), lr=4e-3, lr_end=0.0, ema=0.99
)
models, exact = {}, {}
for kernel, process in processes.items():
    torch.manual_seed(0)
    mask = kernel == "absorbing"  # the network reads the mask too
    shape = sd.CategoricalNet.inner_shape((LENGTH,), 4, mask)
    inner = sd.MLP(shape, width=192, depth=2)
    network = sd.CategoricalNet(inner, (LENGTH,), 4, mask)
    model = sd.ScoreModel(network, process, data=data.description)
    models[kernel] = sd.train(model, data, settings, progress=False).model
    exact[kernel] = sd.CategoricalMixture(
        torch.ones(len(cases)), cases, process
    )

# %% [markdown]
# ## 4. How good are they, in bits
#
# `continuous_vlb` bounds the bits that each model needs for sequences it has not seen. The same bound of the exact model is the truth itself.

# %%
held_out = data.test[:200]
for kernel in kernels:
    for name, model in (("exact", exact), ("trained", models)):
        bound = sd.continuous_vlb(
            model[kernel], held_out, evaluations=256, seeds=range(200)
        )
        bits = bound.bits_per_event
        error = bits.std() / len(bits) ** 0.5
        print(f"{kernel:9} {name:7} {bits.mean():.2f} ± {error:.2f} bits")
truth_bits = -truth.log_prob(held_out).mean() / math.log(2)
print(f"{'truth':17} {truth_bits:.2f}")

# %% [markdown]
# What a network needs above the truth is what it has not learned. More training brings it down; the two kinds of noise need not lead to the same number.

# %% [markdown]
# ## 5. Samplers compared
#
# A sequence is valid if the truth gives it a probability: both words, at an allowed distance. Count the valid ones among samples, against the network calls that they cost.
#
# - `Ancestral` is the chain. In one step all places change independently of each other, and that is its only error.
# - `TrapezoidalLeaping` looks again halfway through each step, at two calls a step.
# - `ExactSimulation` changes one place at a time, and has no such error. With masks it makes one call for each letter; with random letters, many more.

# %%
from scoresde.sampling import ExactSimulation, TrapezoidalLeaping


def valid_share(model, sampler, count):
    samples = sd.sample(
        model, count, sampler, generator=torch.Generator().manual_seed(0)
    )
    possible = torch.isfinite(truth.log_prob(samples.x.double()))
    return samples.nfe, float(possible.double().mean())


curves = {}
for kernel in kernels:
    for name, model in (("exact", exact), ("trained", models)):
        for method in (sd.Ancestral, TrapezoidalLeaping):
            each = 1 if method is sd.Ancestral else 2  # calls of a step
            curve = [
                valid_share(model[kernel], method(steps=calls // each), 400)
                for calls in (2, 4, 8, 16, 32)
            ]
            shares = " ".join(f"{share:4.0%}" for _, share in curve)
            print(f"{kernel:9} {name:7} {method.__name__:18} {shares}")
            curves[kernel, name, method] = curve
for name, model in (("exact", exact), ("trained", models)):
    calls, share = valid_share(model["absorbing"], ExactSimulation(), 400)
    print(f"absorbing {name:7} ExactSimulation, {calls} calls: {share:.0%}")

# %% [markdown]
# The columns are 2, 4, 8, 16 and 32 network calls. With the exact model every fault is the sampler's. Masks need more calls: a letter that was drawn too early stays for good. Random letters can still be changed, so such errors are corrected later. The networks add errors of their own, and no sampler removes those.

# %% [markdown]
# ## 6. Fill in what is missing
#
# With masks, a sequence whose letters are partly known is simply a state on the way. Start from it, and only the masks are drawn. Here TATAAT is known and the other 14 letters are not:

# %%
known = torch.full((4, LENGTH), 4.0)  # 4 is the mask
known[:, 12:18] = torch.tensor([LETTERS.index(c) for c in "TATAAT"]).float()
start = models["absorbing"].sde.tau_max
filled = sd.sample(
    models["absorbing"],
    known.shape,
    ExactSimulation(),
    init=known,
    start=start,
    seeds=range(4),
)
print(*filled.texts(), sep="\n")

# %% [markdown]
# ## 7. Your text
#
# A `.txt` of prose becomes windows of characters. The end of the text is held out, and the alphabet is that of the file. Any text will do; this one is Python's help on its own strings:

# %%
from pathlib import Path

help_texts = [str(getattr(str, name).__doc__) for name in dir(str)]
Path("help.txt").write_text("\n".join(help_texts))
text = sd.load_data("help.txt", length=32)
print(text.description.classes, "classes:", len(text.train), "windows")
print(*map(repr, text.description.texts(text.test[:3])), sep="\n")

# %% [markdown]
# ## 8. A figure
#
# Left, samples of the network for masks by `ExactSimulation`, with the two words in color. Right, the share of valid samples against network calls, by `TrapezoidalLeaping`; dashed lines are the exact models.

# %% alt="Left: twelve sampled sequences of 20 letters in rows; in most of them the words TTGACA and TATAAT stand out in color, three to five letters apart. Right: the share of valid samples against network calls, for masks and for random letters. With exact models the curves rise to 100 percent, random letters sooner; with trained networks they end lower"
import matplotlib.pyplot as plt

shown = sd.sample(
    models["absorbing"], 12, ExactSimulation(), seeds=range(12)
).texts()
figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.5))
for row, text in enumerate(shown):
    for place, letter in enumerate(text):
        inside = [
            word
            for word in ("TTGACA", "TATAAT")
            if any(
                text.startswith(word, begin)
                for begin in range(place - 5, place + 1)
                if begin >= 0
            )
        ]
        color = {"TTGACA": "C0", "TATAAT": "C1"}.get(
            "".join(inside[:1]), "0.6"
        )
        left.text(
            place,
            row,
            letter,
            color=color,
            weight="bold" if inside else "normal",
            ha="center",
            va="center",
            family="monospace",
            fontsize=8,
        )
left.set(xlim=(-1, LENGTH), ylim=(11.7, -0.7), title="samples")
left.axis("off")
for color, kernel in (("C0", "absorbing"), ("C1", "uniform")):
    for name, line in (("exact", "--"), ("trained", "-o")):
        calls, share = zip(*curves[kernel, name, TrapezoidalLeaping])
        right.plot(
            calls, share, line, color=color, label=f"{kernel}, {name}"
        )
right.set_xscale("log", base=2)
right.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
right.set(xlabel="network calls", title="valid samples", ylim=(0, 1.03))
right.legend()
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde train --data genes.npy --read alphabet=ACGT --out runs/genes
# scoresde train --data book.txt --read length=64 --out runs/book --minutes 60
# scoresde sample runs/book -n 8 --sampler "Ancestral(steps=200)" --out samples.txt
# scoresde likelihood runs/book --bound
# ```
#
# Next: [processes, losses and bounds of categories](../discrete-data.md), [their samplers with measured orders](../discrete-samplers.md), [tables of numbers and categories](../mixed-tables.md).
