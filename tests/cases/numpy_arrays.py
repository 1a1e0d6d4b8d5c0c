"""NumPy arrays given to train, Data, the model, Loss and log_prob are converted or refused by our own error."""

import sys

import numpy as np

import scoresde as sd
from scoresde.data import Data, Description

x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
model = sd.ScoreModel(sd.MLP((2,), width=8, depth=1), sd.VPSDE(), sd.V(), event_shape=(2,))
calls = {
    "train": lambda: sd.train(model, x, sd.Training(steps=1)),
    "Data": lambda: Data(x, x, Description("a", (2,))),  # pyright: ignore[reportArgumentType]
    "model": lambda: model(x, 0.5),
    "Loss": lambda: sd.Loss()(model, x),
    "log_prob": lambda: sd.log_prob(model, x),
}


def is_ours(name: str) -> bool:
    """Whether the call succeeds or is refused by an error of the package."""
    try:
        calls[name]()
        print(name, "ok")
    except (TypeError, ValueError) as error:
        print(name, "refused:", error)
    except Exception as error:
        print(name, type(error).__name__, error)
        return False
    return True


sys.exit(not all([is_ours(name) for name in calls]))
