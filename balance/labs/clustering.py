"""Training clusters by swapped prediction, and measuring them (chapter 8). Needs torch.

Two augmented views of each image go through one network, which scores them against prototypes. The scores of one view
predict the codes of the other. Nothing but the codes ties the images of a batch together: the network has no layer
that normalizes over a batch.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from balance._engine import checks
from balance.clustering import (
    assignments,
    centered_softmax,
    clustering_accuracy,
    nmi_and_ari,
    swapped_loss,
    update_center,
    usage_entropy,
)
from balance.labs.augment import Pictures


@dataclass(frozen=True)
class ClusteringPreset:
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
        checks.check_preset(self)
        checks.check_count(self.prototypes, "prototypes", 2)
        for name in ("queue", "queue_from"):
            checks.check_count(getattr(self, name), name)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum!r}: choose a number from 0 up to, not including, 1")


CLUSTERING_SMOKE = ClusteringPreset(iterations=20, batch_size=64, prototypes=10, checkpoints=2, hidden=32, output=16)
DIGITS = ClusteringPreset(iterations=300, batch_size=256, prototypes=10)
ICONS = ClusteringPreset(iterations=300, batch_size=256, prototypes=100, hidden=256)


@dataclass(frozen=True, eq=False)
class ClusteringRun:
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
    preset : ClusteringPreset
    """

    def __init__(self, shape: tuple[int, ...], preset: ClusteringPreset):
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
        self.temperature, self.momentum = temperature, momentum
        self.center: Tensor | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        center = scores.new_zeros(scores.shape[-1]) if self.center is None else self.center
        self.center = update_center(center, scores, self.momentum)
        return centered_softmax(scores, center, self.temperature)


def train_clusters(
    pictures: Pictures,
    preset: ClusteringPreset = DIGITS,
    *,
    assign: int | Callable[[Tensor], Tensor] = 3,
    seed: int = 0,
    stop: int | None = None,
) -> ClusteringRun:
    """Train a network and its prototypes by swapped prediction.

    Parameters
    ----------
    pictures : Pictures
        Those of `balance.labs.augment`, or others.
    preset : ClusteringPreset
        `DIGITS`, `ICONS`, `CLUSTERING_SMOKE` or another.
    assign : int or callable
        Number of sweeps of `balance.clustering.assignments`, or a function from the scores of the two views, shape
        (2, rows, prototypes), to codes of that shape.
    seed : int
        Of the initial weights, the batches and the views. Codes compared at one seed see the same of all.
    stop : int, optional
        Leave after so many iterations, at a checkpoint; what was measured until then is not changed by it.

    Returns
    -------
    ClusteringRun

    Raises
    ------
    ValueError
        If the pictures have fewer than two views, or the codes do not have the shape of the scores.

    References
    ----------
    Caron et al. (2020), Unsupervised learning of visual features by contrasting cluster assignments.

    Examples
    --------
    >>> from balance.labs.augment import digit_pictures
    >>> run = train_clusters(digit_pictures(), CLUSTERING_SMOKE)
    >>> [entry["iteration"] for entry in run.history], run.clusters.shape
    ([0, 10, 20], (3, 1797))
    """
    if len(pictures.views) < 2:
        raise ValueError("pictures.views has one view of each image: pass at least two")
    codes_of = assign if callable(assign) else partial(assignments, sweeps=assign)
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
        scores_a, scores_b = network.compare(embedded)
        codes_a, codes_b = assigned
        loss = swapped_loss(scores_a, scores_b, codes_a, codes_b, preset.temperature)
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
    return ClusteringRun(network, history, np.array(clusters))


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
        "matched" (see `balance.clustering.clustering_accuracy`).

    Examples
    --------
    >>> cluster_measures([0, 0, 1, 1], [2, 2, 2, 2], 4)
    {'usage_entropy': 0.0, 'used': 1, 'nmi': 0.0, 'ari': 0.0, 'matched': 0.5}
    """
    members = functional.one_hot(torch.as_tensor(clusters, dtype=torch.long), prototypes).double()
    nmi, ari = nmi_and_ari(labels, clusters)
    return {
        "usage_entropy": usage_entropy(members),
        "used": int(members.any(0).sum()),
        "nmi": nmi,
        "ari": ari,
        "matched": clustering_accuracy(labels, clusters),
    }
