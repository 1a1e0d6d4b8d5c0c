# %% [markdown]
# # Your images
#
# At the end you have a model of a folder of images, and new images drawn from it. One number says how well it knows images that it never saw.
#
# You need scoresde: `pip install .` in a clone. The folder here holds small handwritten digits, so that all of this runs in a minute without a GPU. To use your own images, change one line.

# %% [markdown]
# ## 1. A folder
#
# The folder is any folder of PNG, JPEG or WebP files. Subfolders become classes. This cell writes 1797 images, 8 × 8 pixels each; skip it if you have your own.

# %%
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for i, (pixels, digit) in enumerate(zip(digits.images, digits.target)):
    folder = Path("my-images") / str(digit)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15).astype(np.uint8)).save(
        folder / f"{i:04}.png"
    )

# %% [markdown]
# Read it. A fifth of the images is held out: the model never sees them in training. For photographs write `sd.load_data("my-images", size=64)`, which scales and crops them to 64 × 64.

# %%
import scoresde as sd

data = sd.load_data("my-images")
print(len(data.train), "images to train on,", len(data.test), "held out")
print("shape of one image:", data.description.shape)

# %% [markdown]
# ## 2. A model
#
# `default_recipe` chooses a network, its training and everything else from the shape of the data. Its network suits larger images; for 8 × 8 pixels a narrow one is enough, and quick.

# %%
from dataclasses import replace

from scoresde.training.defaults import default_recipe

recipe = default_recipe(data.description)
print(recipe.reason)

network = sd.UNet(
    data.description.shape,
    channels=16,
    multipliers=(1, 2),
    blocks=1,
    outputs=3,
)
recipe = replace(recipe, network=sd.QuantizedSkip(network))
model = recipe.build(data)
print(sum(weights.numel() for weights in model.parameters()), "weights")

# %% [markdown]
# ## 3. Training
#
# `SCORESDE_EFFORT` is a setting of these tutorials: 10 trains ten times as long. The images on this page come from 1, which is a first look. The run is stored in a folder; if it is interrupted, `resume=True` continues it.

# %%
import os

effort = int(os.environ.get("SCORESDE_EFFORT", 1))
settings = replace(
    recipe.training,
    steps=900 * effort,
    batch_size=64,
    optimizer="muon",
    lr=5e-3,
    warmup=50,
    ema=0.99,
)
result = sd.train(
    model, data, settings, run_dir="runs/images", progress=False
)
model = result.model

# %% [markdown]
# ## 4. New images
#
# `seeds` makes each image reproducible: seed 7 gives the same image, alone or among others. `samples.data` holds pixels from 0 to 255.

# %%
samples = sd.sample(model, 64, sd.Adams(steps=30), seeds=range(64))
print(samples.data.shape, f"values up to {int(samples.data.max())}")
sd.plots.save_image_grid(
    Path("new-images.png"), samples.data, data.description
)

# %% [markdown]
# ## 5. How good is it?
#
# **Bits per dimension** say how many bits the model needs to store a pixel of an image that it never saw, on average. Lower is better. A file without any model needs 8.

# %%
import torch

bits = sd.continuous_vlb(
    model, data.test, generator=torch.Generator().manual_seed(0)
)
low, high = bits.mean_interval()
print(f"{bits.mean:.2f} bits per dimension, 95 %: {low:.2f} – {high:.2f}")

# %% [markdown]
# A zip archive is a model of images too. This is what PNG needs for the same pixels, without the header of the file, and what the best code needs that looks at each pixel alone:

# %%
import zlib

held_out = data.test.numpy().astype(np.uint8)
zipped = 8 * len(zlib.compress(held_out.tobytes(), 9)) / held_out.size
counts = torch.bincount(data.train.flatten().long(), minlength=256) + 1e-3
alone = -(counts / counts.sum()).log2()[data.test.long()].mean()
print(f"zip: {zipped:.2f} bits per pixel; each pixel alone: {alone:.2f}")

# %% [markdown]
# **Does it copy?** A model could repeat its training images. `copies` takes the distance of each new image from its nearest training image, and divides it by that of held-out images. Well below 1 it copies.

# %%
from scoresde.metrics import copies


def in_model_units(images):
    return data.description.to_model(data.description.center(images))


parts = (samples.data, data.train, data.test)
copied = copies(*(in_model_units(part) for part in parts))
print(
    f"ratio {copied.median_ratio:.2f}; {copied.too_close:.0%} are too close"
)

# %% [markdown]
# ## 6. A figure

# %% alt="Two sheets of 49 handwritten digits each, held-out ones and new ones, look alike; below them bars of bits per pixel, that of the model shorter than those of zip and of each pixel alone"
import matplotlib.pyplot as plt

from scoresde.plots import tile_images

figure, axes = plt.subplot_mosaic(
    [["held out", "new"], ["bits", "bits"]],
    figsize=(6.2, 4.9),
    height_ratios=(2, 1),
)
for title, images in {"held out": data.test, "new": samples.data}.items():
    axes[title].imshow(tile_images(images[:49].numpy(), data.description))
    axes[title].set_title(title)
    axes[title].axis("off")
values = {
    "this model": bits.mean,
    "each pixel alone": alone,
    "zip": zipped,
    "no model": 8,
}
axes["bits"].barh(
    list(values), list(values.values()), color=["C0", "C5", "C5", "C5"]
)
axes["bits"].invert_yaxis()
axes["bits"].set(xlabel="bits per pixel, held-out images")
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde train --data my-images --out runs/mine
# scoresde sample runs/mine -n 64 --out new-images.png
# scoresde likelihood runs/mine --bound
# ```
#
# Next: [what else a data set can be](../data.md), [larger networks](../networks.md).
