r"""Contrastive losses as balancing (chapter 7 of the book). Needs torch.

A batch of m pairs has an m x m matrix of scores S, the similarity of every image with every text. The table
:math:`R = e^S / \sum e^S` says how the model couples them; with uniform targets an X-step is a softmax over each
row, a Y-step a softmax over each column. All steps are done on logarithms, in float32 at least.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from balance._engine.checks import check_axis, check_count
from balance._engine.logs import at_least_float32
from balance._engine.tensors import log_potentials


def cosine_scores(x: Tensor, y: Tensor, scale: float | Tensor = 100.0) -> Tensor:
    r"""Scores :math:`S_{ij} = \text{scale} \cdot \langle x_i, y_j \rangle / (|x_i| |y_j|)`.

    Parameters
    ----------
    x : Tensor, shape (..., m, d)
    y : Tensor, shape (..., l, d)
    scale : float or Tensor
        The inverse temperature, 100 in the paper's experiments.

    Returns
    -------
    Tensor, shape (..., m, l)
        In float32 if the embeddings have fewer bits: at scale 100 one unit in the last place of a bfloat16 score
        is 0.5, a factor of 1.6 on the table.

    Examples
    --------
    >>> cosine_scores(torch.eye(2), torch.tensor([[2.0, 0.0], [3.0, 4.0]])).tolist()
    [[100.0, 60.000...], [0.0, 80.0...]]
    """
    x, y = at_least_float32(x), at_least_float32(y)
    with torch.autocast(x.device.type, enabled=False):
        return scale * functional.normalize(x, dim=-1) @ functional.normalize(y, dim=-1).mT


def log_balance(
    scores: Tensor, *, steps: int, targets: Sequence[ArrayLike | Tensor] | None = None, first: int = 0
) -> Tensor:
    r"""Logarithm of the table :math:`e^S / \sum e^S` after some balancing half-steps.

    Parameters
    ----------
    scores : Tensor, shape (..., m, l)
        Logarithms of masses, up to a constant. An entry of -inf is a cell without mass.
    steps : int
        Number of half-steps, >= 0.
    targets : two Tensors of shapes (m,) and (l,), optional
        Positive masses, normalized first; uniform if not given.
    first : int
        Axis of the first half-step: 0 starts with an X-step, 1 with a Y-step.

    Returns
    -------
    Tensor, shape (..., m, l)
        Differentiable; its exponentials sum to 1.

    Raises
    ------
    ValueError
        If an argument is out of its range or a target does not fit.

    Examples
    --------
    >>> scores = torch.log(torch.tensor([[1.0, 1.0], [1.0, 3.0]]))
    >>> log_balance(scores, steps=1).exp()
    tensor([[0.2500, 0.2500],
            [0.1250, 0.3750]])
    """
    f, g = _potentials(scores, targets, steps, first)
    return at_least_float32(scores) + f.unsqueeze(-1) + g.unsqueeze(-2)


def balanced_loss(scores: Tensor, *, steps: int, targets: Sequence[ArrayLike | Tensor] | None = None) -> Tensor:
    r"""The contrastive loss after k half-steps.

    .. math:: L_k = -\tfrac12 \cdot \tfrac1m \sum_i [\log(m P^{(k)}_{ii}) + \log(m Q^{(k)}_{ii})],

    where P comes from the X-step first and Q from the Y-step first. k = 0 is the joint softmax ("no
    balancing"), k = 1 the CLIP loss, k = 2 the paper's "two iterations".

    Parameters
    ----------
    scores : Tensor, shape (..., m, m)
        Pairs on the diagonal, temperature in them; see `cosine_scores`.
    steps : int
        Number k of half-steps, >= 0.
    targets : two Tensors of shape (m,), optional
        Positive masses of the images and of the texts; uniform if not given.

    Returns
    -------
    Tensor, shape (...)
        With uniform targets each half is :math:`\operatorname{KL}(I/m \,\|\, P^{(k)}) \ge 0` and falls
        with k: values at different k do not compare.

    Raises
    ------
    ValueError
        If the scores are not square, or as `log_balance`.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024). Radford et al. (2021), Learning transferable visual models from natural
    language supervision (k = 1).

    Examples
    --------
    >>> scores = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    >>> [round(balanced_loss(scores, steps=k).item(), 4) for k in (0, 1, 2)]
    [0.4334, 0.3616, 0.3225]
    """
    if not isinstance(scores, Tensor) or scores.ndim < 2 or scores.shape[-2] != scores.shape[-1]:
        raise ValueError(f"scores has shape {np.shape(scores)}: pairs stand on the diagonal of a square matrix")
    m = scores.shape[-1]
    # only the diagonal is needed: of the table itself nothing is formed
    diagonal = at_least_float32(scores).diagonal(dim1=-2, dim2=-1)
    # one half begins with the rows and one with the columns: together they visit both axes
    halves = [sum(_potentials(scores, targets, steps, first, steps == 0), diagonal) for first in (0, 1)]
    return -(halves[0] + halves[1]).mean(-1) / 2 - math.log(m)


def marginals(
    scores: Tensor, *, steps: int, targets: Sequence[ArrayLike | Tensor] | None = None, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Marginals of the contrast matrix after some half-steps.

    Parameters
    ----------
    scores, steps, targets, first
        As for `log_balance`.

    Returns
    -------
    two Tensors of shapes (..., m) and (..., l)

    Examples
    --------
    >>> rows, columns = marginals(torch.log(torch.tensor([[1.0, 1.0], [1.0, 3.0]])), steps=1)
    >>> rows, columns
    (tensor([0.5000, 0.5000]), tensor([0.3750, 0.6250]))
    """
    logs = log_balance(scores, steps=steps, targets=targets, first=first)
    return logs.logsumexp(-1).exp(), logs.logsumexp(-2).exp()


def siglip_loss(scores: Tensor, bias: float | Tensor = 0.0) -> Tensor:
    r"""SigLIP's loss: each cell of the matrix is its own yes-no question, so nothing is balanced.

    .. math:: -\tfrac1m \sum_{ij} \log \sigma(z_{ij} (S_{ij} + b)), \quad z_{ii} = 1, \; z_{ij} = -1.

    Parameters
    ----------
    scores : Tensor, shape (..., m, m)
        Pairs on the diagonal, temperature in them.
    bias : float or Tensor
        b; about -log(m) makes the diagonal as likely as it is.

    Returns
    -------
    Tensor, shape (...)

    References
    ----------
    Zhai, Mustafa, Kolesnikov, Beyer (2023), Sigmoid loss for language image pre-training.

    Examples
    --------
    >>> round(siglip_loss(torch.zeros(2, 2)).item(), 4) == round(2 * math.log(2), 4)
    True
    """
    scores = at_least_float32(scores)
    m = scores.shape[-1]
    signs = 2 * torch.eye(m, dtype=scores.dtype, device=scores.device) - 1
    return -functional.logsigmoid(signs * (scores + bias)).sum((-2, -1)) / m


def _potentials(
    scores: Tensor, targets: Sequence[ArrayLike | Tensor] | None, steps: int, first: int, every: bool = True
) -> tuple[Tensor, ...]:
    """Potentials of the rows (..., m) and of the columns (..., l)."""
    if not isinstance(scores, Tensor):
        raise ValueError(f"scores is a {type(scores).__name__}: pass a tensor, or Scores of an array to data_balance")
    if scores.ndim < 2:
        raise ValueError(f"scores has {scores.ndim} axes: pass one row for each image, one column for each text")
    steps, first = check_count(steps, "steps"), check_axis(first, 2, "first")
    return log_potentials(scores, targets, steps, first, every)
