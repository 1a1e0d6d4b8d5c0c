"""Bound.stderr rests on 4 replicates (3 degrees of freedom): value ± 1.96 stderr holds the truth 80 %; there is no dof and no interval()."""
import os, sys; sys.excepthook = lambda kind, error, trace: (print(kind.__name__, error, flush=True), os._exit(2 if kind in (ImportError, ModuleNotFoundError, AttributeError) else 1))
import sys, math; pass
import torch, scoresde as sd
from scoresde.analytic import Gaussian
m = Gaussian(torch.tensor([0.3, -0.2], dtype=torch.float64), 0.002); tm = m.sde.tau_min
x = m.sample(600, tm, torch.Generator().manual_seed(0))
b = sd.continuous_vlb(m, x, prior_log_prob=lambda z: m.log_prob(z, m.sde.tau_max), generator=torch.Generator().manual_seed(1))
e = b.nats + m.log_prob(x, tm)
lo, hi = b.interval() if hasattr(b, "interval") else (b.nats - 1.96 * b.stderr, b.nats + 1.96 * b.stderr)
cover = float(((lo <= b.nats - e) & (b.nats - e <= hi)).double().mean())
print("mean error / its error", float(e.mean()) / b.mean_draw_stderr, "cover", cover)
if cover < 0.90: print("FAIL: nominal 0.95"); sys.exit(1)
