"""Training clusters by swapped prediction, on digits and on icons, and measuring them (chapter 8). Needs torch.

Two augmented views of each image go through one network, which scores them against prototypes. The scores of one view
predict the codes of the other. Nothing but the codes ties the images of a batch together: the network has no layer
that normalizes over a batch.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from balance import _checks
from balance.clustering import (
    agreement,
    assignments,
    centered_softmax,
    matched_share,
    swapped_loss,
    update_center,
    usage_entropy,
)
from balance.icons import ImageEncoder, load_classes, load_digits, load_icons

_ROTATION = math.radians(15)
_ZOOM = 1.15
_SHIFT = 0.15  # of half the side


@dataclass(frozen=True)
class Preset:
    """How long and how wide to train.

    Attributes
    ----------
    iterations, batch_size, prototypes : int
    checkpoints : int
        Number of evaluations, evenly spaced, the last at the end; one more is made before training.
    hidden, output : int
        Widths of the network.
    temperature : float
        Of the prediction.
    queue : int
        Embeddings of so many past images, for each view, are balanced together with the batch.
    queue_from : int
        The iteration from which on they are kept: early embeddings are soon out of date.
    momentum : float
        If positive, codes come from a teacher, whose weights are a running mean of those of the network.
    learning_rate : float
        Of Adam.

    Raises
    ------
    ValueError
        If a number is out of its range, or the iterations are no multiple of the checkpoints.
    """

    iterations: int
    batch_size: int
    prototypes: int
    checkpoints: int = 10
    hidden: int = 128
    output: int = 64
    temperature: float = 0.1
    queue: int = 0
    queue_from: int = 0
    momentum: float = 0.0
    learning_rate: float = 1e-3

    def __post_init__(self):
        for name in ("iterations", "batch_size", "checkpoints", "hidden", "output"):
            _checks.count(getattr(self, name), name, 1)
        _checks.count(self.prototypes, "prototypes", 2)
        for name in ("queue", "queue_from"):
            _checks.count(getattr(self, name), name)
        if self.iterations % self.checkpoints:
            raise ValueError(f"iterations = {self.iterations} is no multiple of checkpoints = {self.checkpoints}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum!r}: choose a number from 0 up to, not including, 1")


SMOKE = Preset(iterations=20, batch_size=64, prototypes=10, checkpoints=2, hidden=32, output=16)
DIGITS = Preset(iterations=300, batch_size=256, prototypes=10)
ICONS = Preset(iterations=300, batch_size=256, prototypes=100, hidden=256)


@dataclass(frozen=True)
class Pictures:
    """Images to cluster.

    Attributes
    ----------
    images : ndarray, shape (N, h, w)
        What is measured and drawn; darkness from 0 to 1.
    labels : ndarray of int, shape (N,)
        Never seen in training.
    inputs : Tensor, shape (N, ...)
        The images as the network sees them.
    views : Tensor, shape (V, n, ...)
        Inputs of V augmented views of each image that is trained on.
    """

    images: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    inputs: Tensor = field(repr=False)
    views: Tensor = field(repr=False)


@dataclass(frozen=True)
class Run:
    """A trained network and what was measured on the way.

    Attributes
    ----------
    network : Network
    history : list of dict
        One entry for each checkpoint: "iteration", the measures of `cluster_measures`, and, on the batch that comes
        next, "loss", "peak" (the mean over images of the largest entry of the code) and "largest_code" (the maximum).
    clusters : ndarray of int, shape (len(history), N)
        The prototype of highest score for each image, at each checkpoint.
    """

    network: "Network" = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    clusters: NDArray[np.int64] = field(repr=False)


class Network(nn.Module):
    """A small network, convolutional if its inputs are images, whose unit outputs are scored against prototypes.

    Parameters
    ----------
    shape : tuple of int
        Of one input: (1, 8, 8) or (width,).
    preset : Preset
    """

    def __init__(self, shape: tuple[int, ...], preset: Preset):
        super().__init__()
        if len(shape) == 1:
            first = [nn.Linear(shape[0], preset.hidden), nn.ReLU(), nn.Linear(preset.hidden, preset.hidden)]
        else:
            layers = [nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1)]
            first = [*layers, nn.ReLU(), nn.Flatten(), nn.Linear(64 * shape[1] * shape[2] // 16, preset.hidden)]
        self.body = nn.Sequential(*first, nn.ReLU(), nn.Linear(preset.hidden, preset.output))
        self.prototypes = nn.Parameter(torch.randn(preset.prototypes, preset.output))

    def embed(self, inputs: Tensor) -> Tensor:
        """Unit vectors, shape (n, output)."""
        return functional.normalize(self.body(inputs), dim=-1)

    def compare(self, embedded: Tensor) -> Tensor:
        """Cosines of embedded images with the prototypes, shape (..., n, prototypes)."""
        return embedded @ functional.normalize(self.prototypes, dim=-1).T

    def scores(self, inputs: Tensor) -> Tensor:
        """Cosines of images with the prototypes, shape (n, prototypes)."""
        return self.compare(self.embed(inputs))


class Centering:
    """Codes of DINO: centers scores by a running mean of those it has seen, zero at first, and sharpens them.

    Parameters
    ----------
    temperature : float
        0.04 in DINO; that of the prediction does not sharpen.
    momentum : float
        Of the mean.

    Examples
    --------
    >>> codes = Centering(temperature=0.1)
    >>> codes(torch.tensor([[0.1, 0.0]])), codes(torch.tensor([[0.1, 0.0]]))
    (tensor([[0.7311, 0.2689]]), tensor([[0.7109, 0.2891]]))
    """

    def __init__(self, temperature: float = 0.04, momentum: float = 0.9):
        self.temperature, self.momentum, self.center = temperature, momentum, None

    def __call__(self, scores: Tensor) -> Tensor:
        center = scores.new_zeros(scores.shape[-1]) if self.center is None else self.center
        self.center = update_center(center, scores, self.momentum)
        return centered_softmax(scores, center, self.temperature)


def train_clusters(
    pictures: Pictures,
    preset: Preset = DIGITS,
    *,
    codes: int | Callable[[Tensor], Tensor] = 3,
    seed: int = 0,
    stop: int | None = None,
) -> Run:
    """Train a network and its prototypes by swapped prediction.

    Parameters
    ----------
    pictures : Pictures
        `digits`, `icons`, or others.
    preset : Preset
        `DIGITS`, `ICONS`, `SMOKE` or another.
    codes : int or callable
        Number of sweeps of `balance.clustering.assignments`, or a function from the scores of the two views, shape
        (2, rows, prototypes), to codes of that shape.
    seed : int
        Of the initial weights, the batches and the views. Codes compared at one seed see the same of all.
    stop : int, optional
        Leave after so many iterations, at a checkpoint; what was measured until then is not changed by it.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If the pictures have fewer than two views, or the codes do not have the shape of the scores.

    References
    ----------
    Caron et al. (2020), Unsupervised learning of visual features by contrasting cluster assignments.

    Examples
    --------
    >>> run = train_clusters(digits(), SMOKE)
    >>> [entry["iteration"] for entry in run.history], run.clusters.shape
    ([0, 10, 20], (3, 1797))
    """
    if len(pictures.views) < 2:
        raise ValueError("pictures.views has one view of each image: pass at least two")
    codes_of = codes if callable(codes) else partial(assignments, sweeps=codes)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(tuple(pictures.inputs.shape[1:]), preset)
    teacher = copy.deepcopy(network) if preset.momentum else network
    optimizer = torch.optim.Adam(network.parameters(), preset.learning_rate)
    size = min(preset.batch_size, pictures.views.shape[1])
    queue = torch.zeros(2, 0, preset.output)
    last = preset.iterations if stop is None else stop
    history, clusters = [], []
    for iteration in range(last + 1):
        views = _two_views(pictures.views, size, generator)
        embedded = network.embed(views).unflatten(0, (2, size))
        with torch.no_grad():
            known = teacher.embed(views).unflatten(0, (2, size)) if preset.momentum else embedded.detach()
            known = torch.cat([known, queue], dim=1)
            assigned = codes_of(teacher.compare(known))[:, :size]
            if iteration >= preset.queue_from:
                queue = known[:, : preset.queue]
        loss = swapped_loss(*network.compare(embedded), *assigned, preset.temperature)
        if iteration % (preset.iterations // preset.checkpoints) == 0:
            clusters.append(_clusters(network, pictures))
            largest = assigned.amax(-1)
            batch = {"loss": loss.item(), "peak": largest.mean().item(), "largest_code": largest.max().item()}
            measures = cluster_measures(pictures.labels, clusters[-1], preset.prototypes)
            history.append({"iteration": iteration, **measures, **batch})
        if iteration < last:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if preset.momentum:
                _follow(teacher, network, preset.momentum)
    return Run(network, history, np.array(clusters))


def _two_views(views, size, generator):
    """Two different views each of some images, one after the other: shape (2 size, ...)."""
    number, n = views.shape[:2]
    rows = torch.randperm(n, generator=generator)[:size]
    first = torch.randint(number, (size,), generator=generator)
    second = (first + torch.randint(1, number, (size,), generator=generator)) % number
    return torch.cat([views[first, rows], views[second, rows]])


@torch.no_grad()
def _follow(teacher, network, momentum):
    for slow, fast in zip(teacher.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


@torch.no_grad()
def _clusters(network, pictures):
    return network.scores(pictures.inputs).argmax(1).numpy()


def cluster_measures(labels: ArrayLike, clusters: ArrayLike, prototypes: int) -> dict[str, float]:
    """Measures of a hard clustering.

    Parameters
    ----------
    labels, clusters : array_like of int, shape (n,)
    prototypes : int
        Number of clusters that there could be.

    Returns
    -------
    dict of str to float
        "usage_entropy" (1: clusters of equal size, 0: a single one), "used" (clusters with images), "nmi", "ari",
        "matched" (see `balance.clustering.matched_share`).

    Examples
    --------
    >>> cluster_measures([0, 0, 1, 1], [2, 2, 2, 2], 4)
    {'usage_entropy': 0.0, 'used': 1, 'nmi': 0.0, 'ari': 0.0, 'matched': 0.5}
    """
    members = functional.one_hot(torch.as_tensor(clusters, dtype=torch.long), prototypes).double()
    nmi, ari = agreement(labels, clusters)
    return {
        "usage_entropy": usage_entropy(members),
        "used": int(members.any(0).sum()),
        "nmi": nmi,
        "ari": ari,
        "matched": matched_share(labels, clusters),
    }


def digits(share: float = 1.0) -> Pictures:
    """The 1,797 digits of 8 x 8 pixels, or fewer in classes of unequal size.

    Parameters
    ----------
    share : float
        In (0, 1]: of the images of digit d the first share^(d/9) are taken, so that of the nines this share is left.

    Returns
    -------
    Pictures
        Trained on and measured on the same images; 16 views of each.

    Raises
    ------
    ValueError
        If the share is out of its range.

    Examples
    --------
    >>> np.bincount(digits(share=0.1).labels).tolist()
    [178, 141, 106, 85, 65, 51, 39, 30, 22, 18]
    """
    if not 0 < share <= 1:
        raise ValueError(f"share = {share!r}: choose a number above 0, at most 1")
    images, labels = load_digits()
    classes = [np.flatnonzero(labels == digit) for digit in range(10)]
    kept = [rows[: round(len(rows) * share ** (digit / 9))] for digit, rows in enumerate(classes)]
    rows = np.sort(np.concatenate(kept))
    images = images[rows] / np.float32(15)
    views = augment(images, 16)[:, :, None]
    mean, spread = images.mean(), images.std()
    return Pictures(images, labels[rows], (torch.as_tensor(images[:, None]) - mean) / spread, (views - mean) / spread)


def icons(limit: int = 4000) -> Pictures:
    """Icons by other artists than those whose icons are trained on, with the first word of their names as labels.

    Parameters
    ----------
    limit : int
        Train on so many icons, drawn from the training part.

    Returns
    -------
    Pictures
        The inputs are principal components of histograms of oriented gradients; 8 views of each training icon.
    """
    known = load_icons("train").images
    known = known[np.random.default_rng(0).permutation(len(known))[:limit]]
    encode = ImageEncoder.fit(known)
    classes = load_classes("artists")
    inputs, views = encode(classes.images), [encode(view) for view in 15 * augment(known / np.float32(15), 8).numpy()]
    spread = inputs.std()
    inputs, views = torch.as_tensor(inputs / spread), torch.as_tensor(np.array(views) / spread)
    return Pictures(classes.images / np.float32(15), classes.labels, inputs, views)


def augment(images: NDArray[np.float32], number: int) -> Tensor:
    """Views of images, each turned, zoomed and moved a little, at random; what is outside is white.

    Parameters
    ----------
    images : ndarray of float, shape (n, h, w)
    number : int

    Returns
    -------
    Tensor, shape (number, n, h, w)
        The same at each call.
    """
    generator = torch.Generator().manual_seed(0)
    angle, zoom, right, down = 2 * torch.rand(4, number, len(images), generator=generator) - 1
    angle, zoom = _ROTATION * angle, _ZOOM**zoom
    rows = [
        zoom * angle.cos(),
        -zoom * angle.sin(),
        _SHIFT * right,
        zoom * angle.sin(),
        zoom * angle.cos(),
        _SHIFT * down,
    ]
    maps = torch.stack(rows, dim=-1).unflatten(-1, (2, 3))
    pictures = torch.as_tensor(images)[:, None]
    grids = (functional.affine_grid(maps_of_view, pictures.shape, align_corners=False) for maps_of_view in maps)
    return torch.stack([functional.grid_sample(pictures, grid, align_corners=False)[:, 0] for grid in grids])
