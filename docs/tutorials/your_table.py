# %% [markdown]
# # Your table
#
# At the end you have a model of a CSV file: it writes new rows, fills missing cells several times over, and says how probable a row is.
#
# You need scoresde and pandas: `pip install . pandas` in a clone. The table here has 442 patients with diabetes and 11 columns of numbers and categories. To use your own, change one line.

# %% [markdown]
# ## 1. A table
#
# Any CSV or Parquet file with one row for each person, order, or measurement. This cell writes the one of this page; skip it if you have your own.

# %%
from sklearn.datasets import load_diabetes

patients = load_diabetes(as_frame=True, scaled=False).frame
patients.columns = [
    *("age", "sex", "bmi", "pressure", "cholesterol", "ldl", "hdl"),
    *("ratio", "triglycerides", "glucose", "progression"),
]
patients["sex"] = patients["sex"].map(
    {1.0: "a", 2.0: "b"}
)  # the source does not say which is which
patients.to_csv("patients.csv", index=False)

# %% [markdown]
# Read it. A fifth of the rows is held out; the model never sees them in training. What each column is, was found from the file: check it. `kinds={"age": "numeric"}` would change one.

# %%
import scoresde as sd

data = sd.load_data("patients.csv")
print(len(data.train), "rows to train on,", len(data.test), "held out")
print(data.description.columns.kinds)

# %% [markdown]
# ## 2. Training
#
# The recipe knows that these are few rows, so it takes a small network and few steps. It needs ten seconds. Numbers are noised by a Gaussian, and categories by redrawing them, [both on one clock](../mixed-tables.md).

# %%
from scoresde.training.defaults import default_recipe

recipe = default_recipe(data.description, rows=len(data.train))
print(recipe.reason, "for", recipe.training.steps, "steps")
model = sd.train(
    recipe.build(data),
    data,
    recipe.training,
    run_dir="runs/patients",
    progress=False,
).model

# %% [markdown]
# ## 3. New rows
#
# Samples come back as a table, with the names, kinds and decimals of yours. `MixedSampler` takes a step of numbers and of categories from each network call.

# %%
from scoresde.sampling import DDPM, MixedSampler

n = len(data.test)
samples = sd.sample(model, n, MixedSampler(DDPM(steps=100)), seeds=range(n))
samples.frame().to_csv("new-patients.csv", index=False)
samples.frame().head()

# %% [markdown]
# Are they like real ones? A classifier tries to tell new rows from held-out rows. An AUC of 0.5 means that it cannot. Real rows in their place give the value beside it: with so few rows it is not exactly 0.5 either.
#
# And are they copies? About half of the new rows should be nearer to a training row than to a held-out one. Copies would all be.

# %%
from scoresde import metrics

auc = metrics.classifier_auc(samples.data, data.test)
floor = metrics.classifier_auc(data.train[:n], data.test)
copied = metrics.copied_rows(samples.data, data.train, data.test)
print(f"AUC of new rows  {auc.value:.2f} ± {auc.stderr:.2f}")
print(f"AUC of real rows {floor.value:.2f} ± {floor.stderr:.2f}")
print(f"rows that repeat a training row: {copied.repeated.value:.0%}")
nearer = copied.nearer_train
print(f"nearer to a training row: {nearer.value:.0%} ± {nearer.stderr:.0%}")

# %% [markdown]
# ## 4. Missing cells
#
# Hide a fifth of the cells of 40 held-out rows, so that the truth is known, and fill each of them 20 times. The draws differ where the other cells leave a value open.

# %%
import torch

truth = data.test[:40].double()
generator = torch.Generator().manual_seed(0)
hidden = torch.rand(truth.shape, generator=generator) < 0.2
incomplete = truth.masked_fill(hidden, torch.nan)

filled = sd.impute(model, incomplete, draws=20, seeds=range(40))
filled.frame(draw=0).head()

# %% [markdown]
# In your own file leave the cells empty and write `sd.impute(model, "incomplete.csv")`. An interval of 90 % should hold the hidden value nine times in ten:

# %%
low, high = filled.interval(0.9)
inside = ((truth >= low) & (truth <= high))[hidden]
print(
    f"{inside.double().mean():.0%} of {len(inside)} hidden cells "
    "are in their 90 % interval"
)

spread = data.train.double().std(0)
error = ((filled.mean() - truth) / spread)[hidden].square().mean().sqrt()
plain = (
    ((data.train.double().mean(0) - truth) / spread)[hidden]
    .square()
    .mean()
    .sqrt()
)
print(
    f"error of the mean of the draws {error:.2f}, of the column's mean "
    f"{plain:.2f} standard deviations"
)

# %% [markdown]
# ## 5. How probable is a row?
#
# `continuous_vlb` bounds the logarithm of the probability of each row, in nats: numbers and categories together. Higher is more probable; one nat is a factor of 2.7. A normal distribution with the same means and correlations is what the model should beat.

# %%
from scoresde.evaluation import baselines

columns = data.description


def log_probability(rows):
    x = columns.to_model(
        columns.dequantize(rows, torch.Generator().manual_seed(0))
    )
    bound = sd.continuous_vlb(
        model, x, evaluations=128, seeds=range(len(rows))
    )
    return columns.log_det(x) - bound.nats  # in the units of the columns


log_p = log_probability(data.test)
(normal,) = baselines(data, limit=None)
print(
    f"held-out rows: {log_p.mean():.1f} ± {log_p.std() / n**0.5:.1f} nats; "
    f"{normal['name']}: {normal['value']:.1f}"
)

# %% [markdown]
# So errors can be found. Here the LDL values of all rows are moved down by one row. Each value is usual, but it no longer fits its row:

# %%
wrong = data.test.clone()
ldl = columns.columns.names.index("ldl")
wrong[:, ldl] = wrong[:, ldl].roll(1)
log_wrong = log_probability(wrong)
loss = log_p - log_wrong
print(
    f"{(loss > 0).double().mean():.0%} of the rows became less probable, "
    f"half of them by more than {loss.median():.0f} nats"
)

# %% [markdown]
# ## 6. A figure
#
# Two columns of held-out and of new rows; the hidden cells with their intervals; and the log-probability of right and wrong rows.

# %% alt="Left: new rows cover the same cloud of body mass index and disease progression as held-out rows. Right: imputed cells with intervals along the diagonal of their true values. Below: the log-probability of rows with a shifted LDL value lies below that of the right rows"
import matplotlib.pyplot as plt

figure, axes = plt.subplot_mosaic(
    [["rows", "cells"], ["log p", "log p"]],
    figsize=(6.2, 5),
    height_ratios=(1.6, 1),
)
bmi, progression = (
    columns.columns.names.index(name) for name in ("bmi", "progression")
)
axes["rows"].plot(
    data.test[:, bmi], data.test[:, progression], "o", label="held out"
)
axes["rows"].plot(
    samples.data[:, bmi],
    samples.data[:, progression],
    "o",
    mfc="none",
    label="new",
)
axes["rows"].set(xlabel="body mass index", ylabel="progression")
axes["rows"].legend()

middle = data.train.double().mean(0)
x, y, bottom, top = (
    ((values - middle) / spread)[hidden]
    for values in (truth, filled.mean(), low, high)
)
axes["cells"].errorbar(
    x, y, (y - bottom, top - y), fmt="o", ms=3, lw=0.8, alpha=0.7
)
axes["cells"].axline((0, 0), slope=1, color="C1")
axes["cells"].set(
    xlabel="true value of a hidden cell, std",
    ylabel="imputed, 90 % interval, std",
)

bins = torch.linspace(
    float(log_p.quantile(0.02)) - 25, float(log_p.max()) + 2, 30
)
axes["log p"].hist(log_p, bins, alpha=0.6, label="held-out rows")
axes["log p"].hist(
    log_wrong.clamp(min=bins[0]),
    bins,
    histtype="step",
    lw=1.8,
    label="LDL of another row",
)
axes["log p"].set(
    xlabel="log-probability of a row, nats (lower bound)",
    ylabel="rows",
)
axes["log p"].legend()
plt.show()

# %% [markdown]
# ## The same in a shell
#
# ```sh
# scoresde train --data patients.csv --out runs/patients
# scoresde sample runs/patients -n 1000 --out new-patients.csv
# scoresde impute runs/patients incomplete.csv --draws 20 --out filled.csv
# scoresde likelihood runs/patients
# ```
#
# Next: [what the kinds of columns mean](../data.md#kinds-of-columns), [imputation](../imputation.md), [likelihoods](../likelihood.md).
