"""Training two heads on frozen features with a contrastive loss, and measuring them (chapter 7). Needs torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from balance._engine import checks
from balance.contrastive import balanced_loss, cosine_scores, log_balance

Pairs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Features of images and of their texts, one pair a row."""


@dataclass(frozen=True)
class ContrastivePreset:
    """How long and how wide to train.

    Attributes
    ----------
    iterations, batch_size : int
    checkpoints : int
        Number of evaluations, evenly spaced, the last at the end; one more is made before training.
    hidden, output : int
        Widths of the heads, which have two hidden layers.
    scale : float
        Inverse temperature of the scores.
    learning_rate : float
        Of Adam.

    Raises
    ------
    ValueError
        If a size is not positive, or the iterations are no multiple of the checkpoints.
    """

    iterations: int
    batch_size: int
    checkpoints: int
    hidden: int = 256
    output: int = 128
    scale: float = 100.0
    learning_rate: float = 1e-3

    def __post_init__(self):
        checks.check_preset(self)


CONTRASTIVE_SMOKE = ContrastivePreset(iterations=20, batch_size=32, checkpoints=2, hidden=32, output=16)
CPU = ContrastivePreset(iterations=600, batch_size=128, checkpoints=6)
PAPER = ContrastivePreset(iterations=5000, batch_size=512, checkpoints=25)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Features to train on and to be measured on.

    Attributes
    ----------
    train, held_out : Pairs
        Pairs of one source; the held-out ones are for the test loss only.
    zero_shot : dict of str to (images, labels, texts)
        Features of images, their classes, features of one text for each class.
    retrieval : dict of str to Pairs
    probes : dict of str to (images, labels)
        Tasks for a linear classifier on the image head: even rows train it, odd rows test it.
    captions : tuple of str
        The texts of the training pairs.
    """

    train: Pairs = field(repr=False)
    held_out: Pairs = field(repr=False)
    zero_shot: Mapping[str, tuple[NDArray, NDArray, NDArray]] = field(repr=False)
    retrieval: Mapping[str, Pairs] = field(repr=False)
    probes: Mapping[str, tuple[NDArray, NDArray]] = field(repr=False)
    captions: tuple[str, ...] = field(default=(), repr=False)

    def pool(self, rows: NDArray) -> "Benchmark":
        """The same with some of the training pairs: those of the given numbers, as often as they are named."""
        images, texts = self.train
        return replace(self, train=(images[rows], texts[rows]), captions=tuple(self.captions[i] for i in rows))


@dataclass(frozen=True)
class ContrastiveRun:
    """A trained pair of heads and what was measured on the way.

    Attributes
    ----------
    heads : Heads
    history : list of dict
        One entry for each checkpoint: "iteration" and the measures of `evaluate`.
    """

    heads: "Heads" = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)


class Heads(nn.Module):
    """A head for images and one for texts, each with two hidden layers; their outputs are unit vectors."""

    def __init__(self, image_width: int, text_width: int, preset: ContrastivePreset):
        super().__init__()
        self.image, self.text = (
            nn.Sequential(
                nn.Linear(width, preset.hidden),
                nn.ReLU(),
                nn.Linear(preset.hidden, preset.hidden),
                nn.ReLU(),
                nn.Linear(preset.hidden, preset.output),
            )
            for width in (image_width, text_width)
        )
        self.scale = preset.scale

    def images(self, features: NDArray | Tensor) -> Tensor:
        """Unit vectors of images, shape (n, output)."""
        return functional.normalize(self.image(self._tensor(features)), dim=-1)

    def texts(self, features: NDArray | Tensor) -> Tensor:
        """Unit vectors of texts, shape (n, output)."""
        return functional.normalize(self.text(self._tensor(features)), dim=-1)

    def forward(self, images: NDArray | Tensor, texts: NDArray | Tensor) -> Tensor:
        """Scores of every image with every text."""
        return cosine_scores(self.images(images), self.texts(texts), self.scale)

    def _tensor(self, features):
        return torch.as_tensor(features, device=self.image[0].weight.device)


def train(
    benchmark: Benchmark,
    preset: ContrastivePreset = CPU,
    *,
    loss: int | Callable[[Tensor], Tensor] = 1,
    seed: int = 0,
    device: str = "cpu",
    stop: int | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> ContrastiveRun:
    """Train heads on pairs of features.

    Parameters
    ----------
    benchmark : Benchmark
    preset : ContrastivePreset
        `CONTRASTIVE_SMOKE`, `CPU`, `PAPER` or another.
    loss : int or callable
        Half-steps k of `balanced_loss`, or a loss of the matrix of scores.
    seed : int
        Of the initial weights and of the batches. Losses compared at one seed see the same of both.
    device : str
        "cpu", "cuda", ...
    stop : int, optional
        Leave after so many iterations, at a checkpoint; what was measured until then is not changed by it.
    progress : callable, optional
        Wraps the iterations, as ``tqdm.tqdm`` does.

    Returns
    -------
    ContrastiveRun

    Examples
    --------
    >>> from balance.labs.icons_benchmark import icon_benchmark
    >>> benchmark = icon_benchmark("good", limit=300)
    >>> run = train(benchmark, CONTRASTIVE_SMOKE, loss=2)
    >>> [entry["iteration"] for entry in run.history]
    [0, 10, 20]
    >>> run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    True
    """
    loss_of = loss if callable(loss) else lambda scores: balanced_loss(scores, steps=loss)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads = Heads(benchmark.train[0].shape[1], benchmark.train[1].shape[1], preset).to(device)
    images, texts = (torch.as_tensor(features, device=device) for features in benchmark.train)
    optimizer = torch.optim.Adam(heads.parameters(), preset.learning_rate)
    every = preset.iterations // preset.checkpoints
    last = preset.iterations if stop is None else stop
    history = [{"iteration": 0, **evaluate(heads, benchmark, loss_of)}]
    batches = _batches(len(images), preset.batch_size, generator)
    for iteration in progress(range(1, last + 1)):
        batch = next(batches).to(device)
        optimizer.zero_grad()
        loss_of(heads(images[batch], texts[batch])).backward()
        optimizer.step()
        if iteration % every == 0:
            history.append({"iteration": iteration, **evaluate(heads, benchmark, loss_of)})
    return ContrastiveRun(heads, history)


def _batches(size, batch_size, generator):
    """Batches of row numbers without end: each pass goes once through the shuffled rows."""
    batch_size = min(batch_size, size)
    while True:
        order = torch.randperm(size, generator=generator)
        yield from order[: size - size % batch_size].split(batch_size)


@torch.no_grad()
def evaluate(heads: Heads, benchmark: Benchmark, loss_of: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """All measures of one checkpoint.

    Parameters
    ----------
    heads : Heads
    benchmark : Benchmark
    loss_of : callable
        The loss that is trained, of a matrix of scores.

    Returns
    -------
    dict of str to float
        "train_loss", "held_out_loss" (the loss that is trained), "train_clip", "held_out_clip" (k = 1, to compare
        runs with different k), "zero_shot_<task>", "image_to_text_<task>", "text_to_image_<task>",
        "cured_<task>" (text to image after one Y-step, see `recall_at_k`) and "probe_<task>".
    """
    measures = {}
    for part in ("train", "held_out"):
        pairs = getattr(benchmark, part)
        measures[f"{part}_loss"] = mean_loss(heads, pairs, loss_of)
        measures[f"{part}_clip"] = mean_loss(heads, pairs, lambda scores: balanced_loss(scores, steps=1))
    for task, (images, labels, texts) in benchmark.zero_shot.items():
        predicted = heads(images, texts).argmax(1).cpu().numpy()
        measures[f"zero_shot_{task}"] = balanced_accuracy(labels, predicted)
    for task, pairs in benchmark.retrieval.items():
        scores = heads(*pairs)
        measures[f"image_to_text_{task}"] = recall_at_k(scores)
        measures[f"text_to_image_{task}"] = recall_at_k(scores.T)
        measures[f"cured_{task}"] = recall_at_k(log_balance(scores, steps=1).T)
    for task, (images, labels) in benchmark.probes.items():
        measures[f"probe_{task}"] = linear_probe(heads.images(images).cpu().numpy(), labels)
    return measures


def mean_loss(
    heads: Heads, pairs: Pairs, loss_of: Callable[[Tensor], Tensor], batch_size: int = 128, batches: int = 8
) -> float:
    """Mean of a loss over some batches of consecutive pairs, the same at each call."""
    size = min(batch_size, len(pairs[0]))
    starts = range(0, len(pairs[0]) - size + 1, size)[:batches]
    return float(np.mean([loss_of(heads(*(p[s : s + size] for p in pairs))).item() for s in starts]))


def balanced_accuracy(labels: NDArray, predicted: NDArray) -> float:
    """Mean over the classes that occur of the share of their members that was found.

    Examples
    --------
    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == (2 / 3 + 1) / 2
    True
    """
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def recall_at_k(scores: Tensor, k: int = 5) -> float:
    """Share of rows whose own column, on the diagonal, is among the `k` highest; a tie counts against it.

    Scores of images with texts give image to text; transposed, text to image. Then an offset of an image's row
    matters. `log_balance(scores, steps=1)` takes it out.

    Examples
    --------
    >>> recall_at_k(torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [5.0, 6.0, 4.0]]), k=1)
    0.333...
    """
    better = (scores >= scores.diagonal()[:, None]).sum(1)
    return (better <= k).double().mean().item()


def linear_probe(features: NDArray, labels: NDArray, ridge: float = 1e-3) -> float:
    """Mean per-class recall, on odd rows, of the linear classifier fitted to even rows by ridge regression.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    labels : ndarray of int, shape (n,)
    ridge : float
        Times n/2 and the mean variance of a feature.

    Returns
    -------
    float
    """
    features = features.astype(np.float64)
    features = features - features[::2].mean(0)
    known, targets = features[::2], np.eye(labels.max() + 1)[labels[::2]]
    gram = known.T @ known
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram, known.T @ (targets - targets.mean(0)))
    return balanced_accuracy(labels[1::2], (features[1::2] @ weights + targets.mean(0)).argmax(1))
