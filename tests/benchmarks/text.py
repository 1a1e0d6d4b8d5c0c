"""Text as characters: bits per character of the absorbing and the uniform kernel beside 5-grams.

    python tests/benchmarks/text.py --minutes 20

The network is a `UNet` of one axis: in the first minutes of one core it learns faster than a `DiT` of the same cost,
since its first layers see neighbors.

The text is the language reference that Python's standard library ships (`pydoc_data.topics`); the last tenth of its
topics is the test part. The 5-gram has interpolated Kneser-Ney smoothing (Chen & Goodman 1999), and predicts each
character from the four before it. Diffusion models windows of 64 characters, so they see nothing before a window: the
5-gram is given both as usual and with windows. Bits of the diffusion are upper bounds.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections import Counter, defaultdict
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated

import torch
import typer
from processor_time import seconds_per_step
from torch import Tensor

from scoresde.likelihood import continuous_vlb
from scoresde.model import ScoreModel
from scoresde.nn import CategoricalNet, UNet
from scoresde.objective import PathKL
from scoresde.process import Categorical
from scoresde.sampling import Ancestral, sample
from scoresde.training import Training, train


def texts() -> tuple[str, str]:
    """Train and test text: printable ASCII of every topic, the last tenth of the topics as test."""
    names = sorted(topics)
    parts = ["".join(c if 32 <= ord(c) < 127 or c == "\n" else " " for c in topics[name]) for name in names]
    cut = len(parts) * 9 // 10
    return "\n".join(parts[:cut]), "\n".join(parts[cut:])


class KneserNey:
    """Interpolated Kneser-Ney smoothing of n-grams of characters, with one discount per order."""

    def __init__(self, text: str, order: int, alphabet: int) -> None:
        self.order, self.alphabet = order, alphabet
        counts = [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, order + 1)]
        self.counts: list[dict[str, int]] = [dict(counts[-1])]
        for n in range(order - 1, 0, -1):  # lower orders count distinct left neighbors
            distinct: Counter[str] = Counter(gram[1:] for gram in counts[n])
            self.counts.insert(0, dict(distinct))
        self.totals: list[dict[str, int]] = []
        self.types: list[dict[str, int]] = []
        self.discounts: list[float] = []
        for table in self.counts:
            total: dict[str, int] = defaultdict(int)
            kinds: dict[str, int] = defaultdict(int)
            for gram, count in table.items():
                total[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            once, twice = (sum(count == k for count in table.values()) for k in (1, 2))
            self.totals.append(total)
            self.types.append(kinds)
            self.discounts.append(once / (once + 2 * twice) if once else 0.5)

    def prob(self, context: str, char: str) -> float:
        """P(char | the last ``order - 1`` characters of the context)."""
        p = 1.0 / self.alphabet
        for n in range(min(self.order, len(context) + 1)):
            history = context[len(context) - n :] if n else ""
            total = self.totals[n].get(history, 0)
            if total:
                count, discount = self.counts[n].get(history + char, 0), self.discounts[n]
                p = max(count - discount, 0.0) / total + discount * self.types[n][history] / total * p
        return p

    def bits(self, text: str, window: int | None = None) -> float:
        """Bits per character; with a window each is predicted from those before it in its window alone."""
        total = 0.0
        for i, char in enumerate(text):
            begin = max(0, i - self.order + 1) if window is None else max(i - self.order + 1, i // window * window)
            total -= math.log2(self.prob(text[begin:i], char))
        return total / len(text)


def windows(text: str, alphabet: str, length: int) -> Tensor:
    """Codes of disjoint windows, ``(N, length)``."""
    codes = torch.tensor([alphabet.index(c) for c in text])
    return codes[: len(codes) // length * length].reshape(-1, length)


def diffusion_bits(
    kernel: str, text: str, test: str, alphabet: str, length: int, minutes: float, seed: int
) -> tuple[float, float, str]:
    """Bound on bits per character, its standard error, and a sample."""
    torch.manual_seed(seed)
    mask = kernel == "absorbing"
    shape = CategoricalNet.inner_shape((length,), len(alphabet), mask)
    inner = UNet(shape, channels=64, multipliers=(1, 2), blocks=2)
    model = ScoreModel(CategoricalNet(inner, (length,), len(alphabet), mask), Categorical(len(alphabet), kernel))
    codes = torch.tensor([alphabet.index(c) for c in text])
    starts = torch.randint(len(codes) - length, (200_000,))
    events = codes[starts[:, None] + torch.arange(length)].float()
    settings = Training(batch_size=32, loss=PathKL(), lr=2e-3, lr_end=0.0, ema=0.99, seed=seed)
    build = lambda: copy.deepcopy(model)  # noqa: E731
    steps = int(60 * minutes / seconds_per_step(build, events, settings))
    begin = time.process_time()
    trained = train(model, events, settings.fitted(steps), progress=False).model
    typer.echo(f"{kernel}: {steps} steps in {time.process_time() - begin:.0f} s of processor time")
    bound = continuous_vlb(trained, windows(test, alphabet, length)[:400].float(), seeds=range(400), batch_size=100)
    unit = 1 / (length * math.log(2))
    drawn = sample(trained, 2, Ancestral(steps=length), seeds=range(2)).x.long()
    text = "".join(alphabet[int(c)] for c in drawn.flatten())
    return float(bound.nats.mean()) * unit, float(bound.nats.std()) / math.sqrt(len(bound.nats)) * unit, text


def main(
    minutes: Annotated[float, typer.Option(help="Processor time of each training.")] = 20.0,
    length: Annotated[int, typer.Option(help="Characters per window.")] = 64,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    kernels: Annotated[str, typer.Option(help="Kernels with commas.")] = "absorbing,uniform",
    out: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("runs/benchmarks"),
) -> None:
    """Prints and writes bits per character."""
    torch.set_num_threads(1)
    text, test = texts()
    alphabet = "".join(sorted(set(text) | set(test)))
    typer.echo(f"{len(text):,} characters to train, {len(test):,} to test, {len(alphabet)} different ones")
    model, results = KneserNey(text, 5, len(alphabet)), {}
    results["5-gram, Kneser-Ney"] = model.bits(test)
    results[f"5-gram, windows of {length}"] = model.bits(test, length)
    for kernel in kernels.split(","):
        value, stderr, drawn = diffusion_bits(kernel, text, test, alphabet, length, minutes, seed)
        results[f"diffusion, {kernel}"] = (value, stderr)
        typer.echo(f"a sample, {kernel}: {drawn!r}")
    for name, value in results.items():
        shown = f"{value:.3f}" if isinstance(value, float) else f"{value[0]:.3f} ± {value[1]:.3f}"
        typer.echo(f"{name:28s} {shown} bits per character")
    out.mkdir(parents=True, exist_ok=True)
    (out / f"text_{seed}.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    typer.run(main)
