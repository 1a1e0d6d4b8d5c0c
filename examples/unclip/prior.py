r"""The prior: a diffusion over image embeddings given a text, and two regressions beside it.

The network estimates the embedding itself ($\hat x_0$, loss $\|\hat x_0 - x_0\|^2$), as in the paper, whose second
prior, an autoregressive one over quantized embeddings, is not built. The exact Gaussian base is part of the network
(`scoresde.GaussianSkip`), with the covariance of what the text leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import scoresde as sd
from scoresde.data import ClassCondition, VectorCondition
from scoresde.nn import Classes, Vector
from scoresde.objective import SNR
from unclip.embedding import COLORS, FEATURES
from unclip.emoji import STYLES
from unclip.text import TEXT

__all__ = [
    "KernelRidge",
    "Ridge",
    "best_of",
    "draw",
    "RIDGE_PENALTY",
    "prior_data",
    "prior_model",
    "prior_settings",
    "recall",
]

RIDGE_PENALTY = 0.003
KERNEL_PENALTY, KERNEL_RATE = 1.0, 3.0
"""Of `Ridge` and `KernelRidge`; chosen on validation for text embeddings of unit length."""
Score = Callable[[Tensor], Tensor]


def prior_model(
    data: sd.Data, width: int = 256, depth: int = 2, embedding_width: int = 256, dropout: float = 0.3
) -> sd.ScoreModel:
    """A multilayer perceptron that reads text and style, beside the exact v of the linear regression on the text.

    Args:
        data: Of `prior_data`, to which the regression is fitted.
        width, depth, embedding_width, dropout: Of the perceptron.
    """
    conditions = {"text": Vector(TEXT), "style": Classes(len(STYLES))}
    perceptron = sd.MLP((FEATURES + COLORS,), width, depth, embedding_width, dropout, conditions=conditions)
    net = sd.GaussianSkip(perceptron, condition="text")
    penalty = RIDGE_PENALTY * TEXT  # in model units texts have the length sqrt(384)
    net.fit(data.description.to_model(data.train), data.description.to_model_cond(data.train_cond), penalty)
    return sd.ScoreModel(net, sd.VPSDE(sd.Cosine()), sd.V(), data=data.description)


def prior_data(embeddings: Tensor, texts: Tensor, held_out: Tensor, held_out_texts: Tensor) -> sd.Data:
    """Every image of each emoji with every text of it.

    Args:
        embeddings, held_out: One per style, ``(n, styles, 224)``.
        texts, held_out_texts: Some per emoji, ``(n, t, 384)``.
    """
    conditions = {"text": VectorCondition(TEXT, scale=TEXT**-0.5), "style": ClassCondition(len(STYLES), STYLES)}
    description = sd.Description("emoji embeddings", (FEATURES + COLORS,), conditions=conditions)
    train, train_cond = _pairs(embeddings, texts)
    test, test_cond = _pairs(held_out, held_out_texts)
    return sd.Data(train, test, description, train_cond, test_cond)


def _pairs(embeddings: Tensor, texts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    n, styles, count = len(embeddings), embeddings.shape[1], texts.shape[1]
    style = torch.arange(styles)[None, :, None].expand(n, styles, count)
    text = texts[:, None].expand(n, styles, count, -1)
    events = embeddings[:, :, None].expand(n, styles, count, -1)
    return events.flatten(0, 2), {"text": text.flatten(0, 2), "style": style.flatten()}


def prior_settings(steps: int = 800, seed: int = 0) -> sd.Training:
    """Short: longer training learns the training texts by heart."""
    return sd.Training(
        steps=steps,
        batch_size=128,
        loss=sd.Loss(SNR(0.0)),
        lr=1e-3,
        lr_end=0.0,
        weight_decay=0.05,
        ema=0.995,
        condition_dropout={"text": 0.15, "style": 0.1},
        seed=seed,
    )


def draw(
    model: sd.Model,
    texts: Tensor,
    style: int,
    guidance: float,
    seeds: range,
    steps: int = 24,
    truncation: float = 1.0,
) -> Tensor:
    """Embeddings drawn for texts, one each, ``(n, 224)``.

    Args:
        model: Trained.
        texts: ``(n, 384)``.
        style: Index in `STYLES`.
        guidance: Scale of classifier-free guidance on the text; 1 is the conditional model alone.
        seeds: One per sample.
        steps: Network calls, doubled by guidance.
        truncation: Factor of the noise at the start.
    """
    guided = model if guidance == 1 else sd.CFG(model, guidance, names=["text"])
    assert model.data is not None
    cond = model.data.to_model_cond({"text": texts, "style": torch.full((len(texts),), style)})
    noise = [torch.randn(model.data.model_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return sd.sample(guided, len(texts), sd.Adams(steps), init=truncation * torch.stack(noise), **cond).data


def best_of(draws: Tensor, score: Score) -> Tensor:
    """For each text the draw of the highest score, as the paper takes the better of two.

    Args:
        draws: ``(k, n, 224)``.
        score: Agreement of embeddings ``(n, 224)`` with the n texts, ``(n,)``.
    """
    best = torch.stack([score(each) for each in draws]).argmax(0)
    return draws[best, torch.arange(draws.shape[1])]


@dataclass(frozen=True, eq=False)
class Ridge:
    """Linear regression of the embedding on the text, $e = t W + b$, with a penalty on W.

    Attributes:
        weight: ``(384, 224)``.
        bias: ``(224,)``.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, texts: Tensor, embeddings: Tensor, penalty: float) -> Ridge:
        """Least squares of rows of ``embeddings`` on rows of ``texts``, with ``penalty`` per row."""
        text_mean, embedding_mean = texts.mean(0), embeddings.mean(0)
        t, e = (texts - text_mean).double(), (embeddings - embedding_mean).double()
        gram = t.mT @ t + penalty * len(t) * torch.eye(t.shape[1], dtype=t.dtype)
        weight = torch.linalg.solve(gram, t.mT @ e).to(texts.dtype)
        return cls(weight, embedding_mean - text_mean @ weight)

    def __call__(self, texts: Tensor) -> Tensor:
        """Embeddings ``(n, 224)``."""
        return texts @ self.weight + self.bias


@dataclass(frozen=True, eq=False)
class KernelRidge:
    r"""Kernel regression of the embedding on the text, $e = \sum_i k(t, t_i) a_i + b$.

    The kernel $k(t, t_i) = \exp(-\gamma\|t - t_i\|^2)$ weighs the training texts by their likeness, so this is
    retrieval too: the embeddings of the emoji with the nearest texts count most.

    Attributes:
        texts: Training texts of unit length, ``(m, 384)``.
        weight: ``(m, 224)``.
        bias: ``(224,)``.
    """

    texts: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, texts: Tensor, embeddings: Tensor, penalty: float = KERNEL_PENALTY) -> KernelRidge:
        """Minimizes the squared error with ``penalty`` times the squared norm of the function."""
        bias = embeddings.mean(0)
        gram = _kernel(texts, texts).double() + penalty * torch.eye(len(texts), dtype=torch.float64)
        return cls(texts, torch.linalg.solve(gram, (embeddings - bias).double()).to(texts.dtype), bias)

    def __call__(self, texts: Tensor) -> Tensor:
        """Embeddings ``(n, 224)``."""
        return _kernel(texts, self.texts) @ self.weight + self.bias


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(-KERNEL_RATE * torch.cdist(a, b).square())


def recall(estimates: Tensor, targets: Tensor, k: int) -> Tensor:
    """Whether the own target is among the k of largest cosine, in the features alone; 0 or 1, ``(n,)``."""
    cosines = cosine_similarity(estimates[:, None, :FEATURES], targets[None, :, :FEATURES], dim=2)
    rank = (cosines > cosines.diagonal()[:, None]).sum(1)
    return (rank < k).float()
