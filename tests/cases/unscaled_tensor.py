"""A tensor of 0 ... 255 and a model without a description: training warns, refuses, or learns the mean."""

import sys
import warnings

import torch

import scoresde as sd

torch.manual_seed(0)
x = torch.rand(4000, 2) * 255
model = sd.ScoreModel(sd.MLP((2,), width=64, depth=2), sd.VPSDE(sd.Cosine()), sd.V())
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    try:
        result = sd.train(model, x, sd.Training(steps=1000, batch_size=128, lr=2e-3))
    except ValueError as error:
        print("refused:", error)
        sys.exit(0)
mean = float(sd.sample(result.model, 2000, sd.DDIM(100), seeds=range(2000)).x.mean())
print("mean", mean, "warnings", [str(warning.message) for warning in seen])
sys.exit(abs(mean - 127.5) > 10 and not seen)
