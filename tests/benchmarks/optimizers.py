"""Comparison of AdamW and Muon, at two learning rates each, on the recipe of `examples/fashion_mnist.py`.

All runs have the same network, data, noise and number of updates. The averaged weights (EMA) are scored by the
continuous bound on the first 256 test images, with the same draws. Seconds are processor time. Run it:

    python tests/benchmarks/optimizers.py [--steps 400] [--threads 1]
"""

from __future__ import annotations

import argparse
import runpy
import time
from dataclasses import replace
from pathlib import Path

import torch

from scoresde.data import load_data
from scoresde.likelihood import KernelDecoder, continuous_vlb, measure_error_profile
from scoresde.training import train

RECIPE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "fashion_mnist.py"))
RATES = {"adamw": (1e-3, 2e-3), "muon": (2e-3, 5e-3)}


def main() -> None:
    """Trains and scores each optimizer at each learning rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_data("fashion-mnist")
    train_centers = data.description.to_model(data.description.center(data.train[:128]))
    for optimizer, rates in RATES.items():
        for lr in rates:
            model = RECIPE["build_model"](data)
            settings = replace(RECIPE["training_settings"](options.steps), optimizer=optimizer, lr=lr)
            start = time.process_time()
            trained = train(model, data, settings).model
            seconds = time.process_time() - start
            generator = torch.Generator().manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16):
                # timesteps are drawn where the bound varies; this makes the error of the draws six times smaller
                profile = measure_error_profile(trained, train_centers, generator=generator)
                bound = continuous_vlb(
                    trained,
                    data.test[:256],
                    decoder=KernelDecoder(),
                    evaluations=8,
                    profile=profile,
                    generator=generator,
                    batch_size=128,
                )
            print(
                f"{optimizer:6} lr {lr:<6g} {options.steps} updates  {bound.mean:.3f} bits/dim "
                f"(draws ± {bound.mean_draw_stderr:.3f})  {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
