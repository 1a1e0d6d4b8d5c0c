# UniPC in eps on the cosine clock diverges to 1e10 and is returned as samples (InvokeAI#2937: NaN there)
import os, sys; sys.excepthook = lambda kind, error, trace: (print(kind.__name__, error, flush=True), os._exit(2 if kind in (ImportError, ModuleNotFoundError, AttributeError) else 1))
import sys, tempfile, pathlib, warnings, numpy as np, torch, scoresde as sd
d = pathlib.Path(tempfile.mkdtemp())
from scoresde.sampling import UniPC, Spaced
m = sd.analytic.GaussianMixture.ring(sde=sd.VPSDE(sd.Cosine()))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    try: x = sd.sample(m, 64, UniPC(20, Spaced("trailing"), 3, "eps"), seeds=range(64)).x
    except (RuntimeError, ValueError) as e: print("refused:", e); sys.exit(0)
print("rms of unit-variance data:", float(x.square().mean().sqrt()), len(seen), "warnings"); sys.exit(float(x.abs().max()) > 1e3 and not seen)
