"""The average of bf16 weights follows them: its samples have the mean of the data, as those of the raw weights do."""

import sys

import torch

import scoresde as sd

MEAN = torch.tensor([1.0, -2.0])

torch.manual_seed(0)
x = torch.randn(2000, 2) * 0.5 + MEAN
model = sd.ScoreModel(sd.MLP((2,), width=64, depth=2), sd.VPSDE(sd.Cosine()), sd.V()).to(torch.bfloat16)
try:
    result = sd.train(model, x, sd.Training(steps=500, batch_size=64, lr=3e-3, ema=0.99))
except (TypeError, ValueError) as error:
    print("refused:", error)
    sys.exit(0)
bias = []
for trained in (result.model, result.raw):
    samples = sd.sample(trained, 4000, sd.Adams(30), seeds=range(4000)).x
    bias.append(float((samples.mean(0) - MEAN).abs().max()))
print("bias of the mean, averaged and raw:", bias)
sys.exit(bias[0] > 0.1)
