r"""Self-supervised clustering as balancing (chapter 8 of the book). Needs torch.

A batch of B images is scored against K prototypes: S is a B x K matrix. Its codes say which share of each image goes
to which prototype; with a total mass of 1 they are a table whose axis 0 (X) are the images, whose axis 1 (Y) are the
prototypes. An X-step is a softmax over the prototypes; a Y-step gives each prototype its target.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor
from torch.nn import functional

from balance._engine import checks
from balance.contrastive import log_balance
from balance.operators import markov_svd


def assignments(scores: Tensor, *, sweeps: int = 3, epsilon: float = 0.05, targets: Tensor | None = None) -> Tensor:
    r"""Codes of a batch: :math:`e^{+S/\varepsilon}` after some sweeps of balancing, each row divided by its sum.

    A sweep is a Y-step, then an X-step, so that the last step gives every image the same mass. Without sweeps the
    codes are a softmax over each row, an X-step alone.

    Parameters
    ----------
    scores : Tensor, shape (..., B, K)
        Similarity of each image with each prototype: the higher, the closer.
    sweeps : int
        >= 0. SwAV takes 3.
    epsilon : float
        Temperature, > 0. In the limit of many sweeps, as it falls, the codes tend to an optimal assignment.
    targets : Tensor, shape (K,), optional
        Positive masses of the prototypes, normalized first; uniform if not given. Without sweeps they are not used.

    Returns
    -------
    Tensor, shape (..., B, K)
        Rows sum to 1; divided by B, a table of mass 1. Differentiable; the losses below stop the gradient.

    Raises
    ------
    ValueError
        If an argument is out of its range or the targets do not fit.

    References
    ----------
    Caron et al. (2020), Unsupervised learning of visual features by contrasting cluster assignments, equation (3).

    Examples
    --------
    >>> scores = 0.05 * torch.log(torch.tensor([[1.0, 1.0], [3.0, 1.0]]))
    >>> assignments(scores, sweeps=0)
    tensor([[0.5000, 0.5000],
            [0.7500, 0.2500]])
    >>> assignments(scores, sweeps=1)
    tensor([[0.3333, 0.6667],
            [0.6000, 0.4000]])
    """
    _positive(epsilon, "epsilon")
    sweeps = checks.check_count(sweeps, "sweeps")
    images = _matrix(scores).shape[-2]
    pair = None
    if targets is not None:
        masses = torch.as_tensor(checks.as_masses(targets, "targets", ndim=1))
        pair = (np.full(images, 1 / images), masses / masses.sum())
    # the softmax is the last X-step
    return log_balance(scores / epsilon, steps=max(2 * sweeps - 1, 0), targets=pair, first=1).softmax(-1)


def cross_entropy(codes: Tensor, scores: Tensor, temperature: float = 0.1) -> Tensor:
    r"""Loss of predicting codes from scores, :math:`-\frac1B \sum_{ik} Q_{ik} \log p_{ik}`.

    Here :math:`p_i` is the softmax of :math:`S_i / \tau`. The codes are constants: no gradient flows through them.

    Parameters
    ----------
    codes, scores : Tensor, shape (..., B, K)
    temperature : float
        :math:`\tau`, > 0.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    ValueError
        If the shapes differ or the temperature is not positive.

    Examples
    --------
    >>> codes = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    >>> round(cross_entropy(codes, torch.zeros(2, 2)).item(), 4) == round(math.log(2), 4)
    True
    """
    if codes.shape != _matrix(scores).shape:
        raise ValueError(f"codes have shape {tuple(codes.shape)}, scores {tuple(scores.shape)}: pass one shape")
    return -(codes.detach() * functional.log_softmax(scores / _positive(temperature), dim=-1)).sum(-1).mean(-1)


def swapped_loss(
    scores_a: Tensor, scores_b: Tensor, codes_a: Tensor, codes_b: Tensor, temperature: float = 0.1
) -> Tensor:
    """Swapped prediction: the scores of one view predict the codes of the other.

    Parameters
    ----------
    scores_a, scores_b, codes_a, codes_b : Tensor, shape (..., B, K)
        Of two views of the same images, in the same order.
    temperature : float
        Of the prediction, > 0; see `cross_entropy`.

    Returns
    -------
    Tensor, shape (...)
        The mean of both directions.

    References
    ----------
    Caron et al. (2020), equations (1) and (2).

    Examples
    --------
    >>> scores, codes = torch.zeros(3, 4), torch.full((3, 4), 0.25)
    >>> round(swapped_loss(scores, scores, codes, codes).item(), 4) == round(math.log(4), 4)
    True
    """
    return (cross_entropy(codes_a, scores_b, temperature) + cross_entropy(codes_b, scores_a, temperature)) / 2


def centered_softmax(scores: Tensor, center: Tensor, temperature: float = 0.04) -> Tensor:
    r"""Codes of DINO: the softmax over each row of :math:`(S_{ik} - c_k) / \tau`.

    Subtracting the center is an approximate Y-step with uniform targets; dividing by a temperature below that of the
    prediction sharpens.

    Parameters
    ----------
    scores : Tensor, shape (..., K)
    center : Tensor, shape (K,)
        A running mean of the scores, see `update_center`.
    temperature : float
        > 0.

    Returns
    -------
    Tensor, shape (..., K)

    Raises
    ------
    ValueError
        If the center does not fit or the temperature is not positive.

    References
    ----------
    Caron et al. (2021), Emerging properties in self-supervised vision transformers, section 3.1.

    Examples
    --------
    >>> centered_softmax(torch.tensor([[5.0, 1.0], [5.0, 1.0]]), torch.tensor([5.0, 1.0]))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    return functional.softmax((scores - _fitting(center, scores)) / _positive(temperature), dim=-1)


def update_center(center: Tensor, scores: Tensor, momentum: float = 0.9) -> Tensor:
    """Running mean of scores: momentum * center + (1 - momentum) * mean of the rows.

    Parameters
    ----------
    center : Tensor, shape (K,)
    scores : Tensor, shape (..., B, K)
    momentum : float
        In [0, 1).

    Returns
    -------
    Tensor, shape (K,)

    Raises
    ------
    ValueError
        If the center does not fit or the momentum is out of its range.

    Examples
    --------
    >>> update_center(torch.zeros(2), torch.tensor([[1.0, 3.0], [3.0, 5.0]]), momentum=0.5)
    tensor([1., 2.])
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum = {momentum!r}: choose a number from 0 up to, not including, 1")
    return momentum * _fitting(center, scores) + (1 - momentum) * scores.detach().flatten(0, -2).mean(0)


def usage(codes: Tensor) -> Tensor:
    """Share of the mass that each prototype gets, shape (..., K), of codes of shape (..., B, K).

    Examples
    --------
    >>> usage(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0.7500, 0.2500])
    """
    return _matrix(codes).mean(-2)


def usage_entropy(codes: Tensor) -> float:
    """Entropy of the usage as a share of log K: 1 if all prototypes are used alike, 0 if one takes all.

    Parameters
    ----------
    codes : Tensor, shape (B, K), K >= 2
        One-hot rows give the entropy of the sizes of hard clusters.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If there is one prototype only.

    Examples
    --------
    >>> round(usage_entropy(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])), 6)
    0.5
    """
    if codes.shape[-1] < 2:
        raise ValueError("1 prototype has all the mass, always: pass at least two columns")
    return (torch.special.entr(usage(codes)).sum() / math.log(codes.shape[-1])).item()


def nmi_and_ari(labels: ArrayLike, clusters: ArrayLike) -> tuple[float, float]:
    """Normalized mutual information and adjusted Rand index of two labelings (scikit-learn).

    Parameters
    ----------
    labels, clusters : array_like of int, shape (n,)

    Returns
    -------
    tuple of two floats
        NMI in [0, 1] (arithmetic mean of the entropies) and ARI in [-0.5, 1]; both are 1 if the partitions are equal
        and 0 if all images are in one cluster. With many small clusters NMI is above 0 by chance, ARI is not.

    Examples
    --------
    >>> nmi_and_ari([0, 0, 1, 1], [5, 5, 2, 2]), nmi_and_ari([0, 0, 1, 1], [0, 0, 0, 0])
    ((1.0, 1.0), (0.0, 0.0))
    """
    return float(normalized_mutual_info_score(labels, clusters)), float(adjusted_rand_score(labels, clusters))


def clustering_accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Largest share of images that a one-to-one matching of clusters with classes explains.

    Parameters
    ----------
    labels, clusters : array_like of int, shape (n,)

    Returns
    -------
    float
        In (0, 1]. Whatever the clustering, at most one minus the total variation distance of the sorted sizes.

    Examples
    --------
    >>> clustering_accuracy([0, 0, 0, 1], [7, 7, 3, 3])
    0.75
    """
    counts = contingency_matrix(labels, clusters)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / counts.sum())


def usage_variance(table: ArrayLike, batch_size: int, sweeps: int) -> NDArray[np.float64]:
    r"""First-order variance of the usage of each prototype over random batches.

    .. math:: \operatorname{Var}(\text{usage}_k) \approx \frac{t_k^2}{B} \sum_{j \ge 2} s_j^{4s + 2} \beta_j(k)^2

    A batch has B images drawn independently from N, each with its row of the table; s sweeps with the targets t, the
    marginal of the table, follow.

    Parameters
    ----------
    table : array_like, shape (N, K)
        Codes of a population of images: a table with equal row sums, no column empty; normalized first.
    batch_size : int
        B >= 1.
    sweeps : int
        s >= 0.

    Returns
    -------
    ndarray, shape (K,)
        Exact for s = 0; otherwise the remainder is of order B^(-2).

    Raises
    ------
    ValueError
        If the rows have different sums, a column is empty or an argument is out of its range.

    Examples
    --------
    >>> table = [[3, 1], [1, 3]]
    >>> [usage_variance(table, batch_size=100, sweeps=s).round(7).tolist() for s in (0, 1)]
    [[0.000625, 0.000625], [3.91e-05, 3.91e-05]]
    """
    batch_size, sweeps = checks.check_count(batch_size, "batch_size", 1), checks.check_count(sweeps, "sweeps")
    svd = markov_svd(table)
    rows, sizes = svd.row_marginal, svd.column_marginal
    if np.ptp(rows) > 1e-6 * rows.mean():
        raise ValueError(f"row sums range from {rows.min():.3g} to {rows.max():.3g}: every image has the same mass")
    return sizes**2 / batch_size * (svd.beta[:, 1:] ** 2 @ svd.singular_values[1:] ** (4 * sweeps + 2))


def _matrix(values: Tensor) -> Tensor:
    if not isinstance(values, Tensor):
        raise ValueError(f"scores is a {type(values).__name__}: pass a tensor")
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(
            f"scores has shape {tuple(values.shape)}: pass one row for each image, one column for each prototype"
        )
    return values


def _fitting(center: Tensor, scores: Tensor) -> Tensor:
    if center.shape != scores.shape[-1:]:
        raise ValueError(f"center has shape {tuple(center.shape)}, expected {tuple(scores.shape[-1:])}")
    return center


def _positive(value: float, name: str = "temperature") -> float:
    return checks.check_number(value, name, 0, math.inf, "a positive number")
