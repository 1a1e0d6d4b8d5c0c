r"""Class-conditional digits: guidance scale against fidelity and diversity, and the network as a classifier.

    python examples/guided_digits.py --out runs/examples

Trains one network with labels and a null label on scikit-learn's digits, 8 x 8. For each guidance scale w, samples of
all ten classes are judged by a classifier of its own (a support vector machine, trained on the train part): the share
with the class that was asked for is the fidelity. Diversity is coverage, the share of held-out digits with a sample
nearby. Then the network classifies held-out digits itself, by p(label | x) from its conditional log-densities.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

import scoresde as sd
from scoresde.likelihood import class_posterior
from scoresde.metrics import density_coverage
from scoresde.plots import tile_images
from scoresde.training.defaults import default_recipe

SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
SHOWN, INTERVAL = (1.0, 3.0, 8.0), (0.2, 1.5)


def train_network(data: sd.Data, steps: int | None) -> sd.Model:
    """The default recipe of the digits, with the condition ``label`` and its null."""
    recipe = default_recipe(data.description, conditions=["label"])
    if steps is not None:  # a network that learns the classes sooner
        inner = sd.MLP((1, 8, 8), 192, 3, outputs=3, conditions={"label": sd.Classes(10)})
        loss = sd.Loss(sd.weighting.SigmoidWeighting(bias=2), sd.LossMomentTimesteps())
        settings = replace(recipe.training.fitted(steps), loss=loss, dequantize=False, lr=4e-3, ema=0.98)
        recipe = replace(recipe, network=sd.QuantizedSkip(inner, bins=17), training=settings)
    return sd.train(recipe.build(data), data, recipe.training).model


def measure(
    model: sd.Model, data: sd.Data, classifier: SVC, steps: int, scale: float, seed: int, **guidance: Any
) -> list[float]:
    """Share of samples with the class that was asked for, and coverage of the held-out digits."""
    guided, n = sd.CFG(model, scale, **guidance), len(data.test)
    labels = torch.arange(n) % 10
    samples = sd.sample(guided, n, sd.Adams(steps), seeds=range(seed * n, (seed + 1) * n), label=labels).data
    predicted = torch.from_numpy(classifier.predict(samples.flatten(1).numpy()))
    coverage = density_coverage(samples.flatten(1).float(), data.test.flatten(1).float()).coverage.value
    return [float((predicted == labels).double().mean()), coverage]


def classify(model: sd.Model, data: sd.Data, count: int, tol: float) -> dict[str, float]:
    """Accuracy on the first held-out digits: by log-densities, and by two classifiers."""
    description, x = data.description, data.train.flatten(1).numpy()
    labels = data.test_labels
    assert data.train_labels is not None
    assert labels is not None
    images, right = data.test[:count], labels[:count]
    events = description.to_model(description.center(images))
    solver = sd.AdaptiveSolver(tol)
    posterior = class_posterior(model, events, 10, trace=sd.Hutchinson(2), solver=solver, seeds=range(count))
    accuracy = {"class_posterior": float((posterior.predicted == right).double().mean())}
    for name, rival in {"logistic regression": LogisticRegression(max_iter=5000), "SVM": SVC()}.items():
        rival.fit(x, data.train_labels.numpy())
        accuracy[name] = float((rival.predict(images.flatten(1).numpy()) == right.numpy()).mean())
    return accuracy


def draw(results: dict[str, Any], data: sd.Data, path: Path) -> None:
    """Fidelity and coverage against the scale, and samples of the ten classes at three scales."""
    with plt.style.context(Path(__file__).with_name("figures.mplstyle")):
        figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), width_ratios=(1, 1.15))
        for color, (name, curve) in enumerate(results["curves"].items()):
            scales = [float(scale) for scale in curve if scale != "0.0"]
            for column, (kind, style) in enumerate((("class", "--"), ("coverage", "-"))):
                sets = np.array([curve[str(scale)] for scale in scales])[:, :, column]
                axes[0].errorbar(
                    scales,
                    sets.mean(1),
                    sets.std(1, ddof=1),
                    fmt=f"o{style}",
                    color=f"C{color}",
                    capsize=2,
                    label=f"{kind}, guided {name}",
                )
        axes[0].set(xlabel="guidance scale w", ylabel="share", xscale="log", xticks=scales)
        axes[0].set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes[0].minorticks_off()
        axes[0].legend(loc="lower left", fontsize="small")
        images = np.array([results["samples"][str(scale)] for scale in SHOWN], dtype=np.uint8)
        axes[1].imshow(tile_images(images.reshape(-1, 1, 8, 8), data.description, columns=10), extent=(0, 10, 3, 0))
        axes[1].set(xticks=[], yticks=[0.5, 1.5, 2.5], yticklabels=[f"w = {scale:g}" for scale in SHOWN])
        axes[1].tick_params(length=0)
        axes[1].grid(False)
        for spine in axes[1].spines.values():
            spine.set_visible(False)
        figure.savefig(path)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figure and the numbers.")] = Path("runs/examples"),
    seeds: Annotated[int, typer.Option(help="Sets of samples for each scale.")] = 3,
    count: Annotated[int, typer.Option(help="Held-out digits that are classified.")] = 180,
    quick: Annotated[bool, typer.Option(help="Little training and few steps; its numbers mean little.")] = False,
) -> None:
    """Trains, measures, prints and draws."""
    torch.set_num_threads(1)
    data = sd.load_data("digits")
    model = train_network(data, 500 if quick else None)
    seeds, count, steps = (2, 2, 8) if quick else (seeds, count, 40)
    assert data.train_labels is not None
    classifier = SVC().fit(data.train.flatten(1).numpy(), data.train_labels.numpy())
    results: dict[str, Any] = {"curves": {}}
    for name, guidance in {"at all times": {}, "for τ in 0.2 … 1.5": {"interval": INTERVAL}}.items():
        scales = SCALES[1:] if guidance else SCALES
        curve = {
            str(s): [measure(model, data, classifier, steps, s, i, **guidance) for i in range(seeds)] for s in scales
        }
        results["curves"][name] = curve
        for scale, sets in curve.items():
            print(
                f"w = {scale:4} {name:20} class {np.mean(sets, 0)[0]:.3f}, coverage {np.mean(sets, 0)[1]:.3f}",
                flush=True,
            )
    results["accuracy"] = classify(model, data, count, 1.0 if quick else 0.01)
    print(results["accuracy"])
    labels = torch.arange(10)
    results["samples"] = {
        str(w): sd.sample(sd.CFG(model, w), 10, sd.Adams(steps), seeds=range(10), label=labels).data.tolist()
        for w in SHOWN
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "guided_digits.json").write_text(json.dumps(results, indent=1))
    draw(results, data, out / "guided_digits.png")
    print(f"figure: {out / 'guided_digits.png'}")


if __name__ == "__main__":
    typer.run(main)
