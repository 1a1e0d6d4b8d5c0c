# %% [markdown]
# # Given something
#
# At the end one model of images draws the class that you ask for. It completes a half-hidden image, sharpens a coarse one, and edits a given one. It does so several times, because there is more than one answer.
#
# You need scoresde: `pip install .` in a clone.

# %% [markdown]
# ## 1. A model that knows classes
#
# The network receives the digit as a label; in a tenth of the cases the label is left out. So one network is a model of each class and of all digits. This takes about a minute.

# %%
import os

import torch

import scoresde as sd

data = sd.load_data("digits")
torch.manual_seed(0)
inner = sd.MLP(
    (1, 8, 8),
    width=256,
    depth=3,
    outputs=3,
    conditions={"label": sd.Classes(10)},
)
network = sd.QuantizedSkip(inner, bins=17).fit(data.train)
model = sd.ScoreModel(
    network, sd.VPSDE(sd.Cosine()), sd.V(), data=data.description
)
settings = sd.Training(
    steps=1200 * int(os.environ.get("SCORESDE_EFFORT", 1)),
    loss=sd.Loss(
        sd.weighting.SigmoidWeighting(bias=2), sd.LossMomentTimesteps()
    ),
    lr=2e-3,
    lr_end=0.0,
    ema=0.99,
    dequantize=False,
    condition_dropout=0.1,
)
model = sd.train(model, data, settings, progress=False).model

# %% [markdown]
# ## 2. A class, more or less strictly
#
# Give the label of each image. Guidance compares what the network predicts with the label and without it, and goes further in that direction. Scale 1 is the model itself; a larger scale makes clearer digits that differ less.

# %%
labels = torch.arange(10).repeat(20)
guided = {}
for scale in (1.0, 3.0):
    guide = sd.CFG(model, scale)
    samples = sd.sample(
        guide, 200, sd.Adams(steps=20), seeds=range(200), label=labels
    )
    guided[scale] = samples.data

# %% [markdown]
# Does it obey? A classifier that has seen only real digits says how many have the class that was asked for. The variety is the average spread of a pixel within a class.

# %%
from sklearn.svm import SVC

judge = SVC().fit(data.train.flatten(1).numpy(), data.train_labels.numpy())
for scale, images in guided.items():
    found = torch.from_numpy(judge.predict(images.flatten(1).numpy()))
    variety = torch.stack(
        [images[i::10].double().std(0) for i in range(10)]
    ).mean()
    share = (found == labels).double().mean()
    print(
        f"scale {scale:.0f}: {share:.0%} are right, variety {variety:.2f}"
    )

# %% [markdown]
# ## 3. Half of an image
#
# Hide the lower half of four held-out digits, and let the model complete each several times. `PiGDM` steers every step toward what was seen; it is quick and an approximation.

# %%
originals = data.test[:4]
hidden = torch.zeros(1, 8, 8, dtype=torch.bool)
hidden[:, 4:] = True
completed = sd.inpaint(
    model, originals, ~hidden, sd.PiGDM(), draws=6, seeds=range(4)
)
print(completed.data.shape, "images, draws, and the shape of one")

# %% [markdown]
# ## 4. A coarse image
#
# The same for anything that you can measure: say what was measured, and draw. Here each block of 2 × 2 pixels is known only by its mean. The noise of the measurement is in the units of the model. `sample_posterior` compares a thousand particles with the measurement while they are drawn. It takes longer, and its draws are right in the limit of many particles.

# %%
pool = sd.AveragePool((1, 8, 8), 2)
known = data.description.to_model(data.description.center(originals))
coarse = pool(known)
observation = sd.Observation(pool, coarse, noise_std=0.05)
sharpened = sd.sample_posterior(model, observation, 6, seeds=range(4))
errors = pool(sharpened.x.flatten(0, 1)) - coarse.repeat_interleave(6, 0)
print(f"the means of the blocks are met within {errors.std():.2f} (± 0.05)")

# %% [markdown]
# ## 5. An edit
#
# Noise an image a little and remove the noise again: the strength says how much may change.

# %%
strengths = (0.3, 0.45, 0.6)
edits = [
    sd.edit(
        model,
        originals,
        strength=s,
        sampler=sd.DDPM(steps=40),
        seeds=range(4),
    )
    for s in strengths
]
for strength, edited in zip(strengths, edits):
    change = (edited.data - originals.double()).square().mean().sqrt()
    print(f"strength {strength}: pixels change by {change:.1f} of 16")

# %% [markdown]
# ## 6. A figure

# %% alt="Ten digits, one for each class, at guidance scale 1 and 3. Below, four rows: a held-out digit, its visible half with six completions, its coarse version with six sharp ones, and three edits of growing strength"
import matplotlib.pyplot as plt

from scoresde.plots import tile_images

figure, axes = plt.subplot_mosaic(
    [["classes"] * 3, ["half", "coarse", "edit"]],
    figsize=(6.2, 4.6),
    height_ratios=(1, 1.75),
    width_ratios=(8, 8, 4),
)


def show(name, rows, title):
    columns = len(rows[0])
    flat = torch.stack([image.double() for row in rows for image in row])
    sheet = tile_images(
        flat.numpy(), data.description, rows=len(rows), columns=columns
    )
    axes[name].imshow(sheet)
    axes[name].axis("off")
    axes[name].set_title(title)


show(
    "classes",
    [[*images[:10], *images[10:20]] for images in guided.values()],
    "asked for 0 … 9, twice: scale 1 above, 3 below",
)
seen = originals.masked_fill(hidden, 0)
enlarged = data.description.to_data(
    coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
)
show(
    "half",
    [
        [*originals[i, None], *seen[i, None], *completed.data[i]]
        for i in range(4)
    ],
    "true, seen, completed",
)
show(
    "coarse",
    [
        [*originals[i, None], *enlarged[i, None], *sharpened.data[i]]
        for i in range(4)
    ],
    "true, coarse, sharpened",
)
show(
    "edit",
    [
        [originals[i], *(edited.data[i] for edited in edits)]
        for i in range(4)
    ],
    "edited",
)
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde train --data digits --condition label --out runs/digits
# scoresde sample runs/digits -n 80 --label 0-9 --guidance 3 --out classes.png
# scoresde inpaint runs/digits image.png mask.png --out completed.png
# scoresde edit runs/digits image.png --strength 0.4 --out edits.png
# ```
#
# Next: [what guided samples follow](../guidance.md), [inverse problems](../inverse-problems.md), [editing](../editing.md), [missing cells of a table](your_table.md).
