"""Digits and icons to be clustered, with views of them that are turned, zoomed and moved (chapter 8). Needs torch."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from balance.datasets.icons import ImageEncoder, load_classes, load_digits, load_icons

# Mild enough that a digit stays the digit that it is.
_ROTATION = math.radians(15)
_ZOOM = 1.15
_SHIFT = 0.15  # of half the side


@dataclass(frozen=True, eq=False)
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
    labels: NDArray[np.intp] = field(repr=False)
    inputs: Tensor = field(repr=False)
    views: Tensor = field(repr=False)


def digit_pictures(share: float = 1.0) -> Pictures:
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
    >>> np.bincount(digit_pictures(share=0.1).labels).tolist()
    [178, 141, 106, 85, 65, 51, 39, 30, 22, 18]
    """
    if not 0 < share <= 1:
        raise ValueError(f"share = {share!r}: choose a number above 0, at most 1")
    images, labels = load_digits()
    classes = [np.flatnonzero(labels == digit) for digit in range(10)]
    kept = [rows[: round(len(rows) * share ** (digit / 9))] for digit, rows in enumerate(classes)]
    rows = np.sort(np.concatenate(kept))
    darkness = _darkness(images[rows])
    views = augment(darkness, 16)[:, :, None]
    mean, spread = darkness.mean(), darkness.std()
    inputs = torch.as_tensor(darkness[:, None])
    return Pictures(darkness, labels[rows], (inputs - mean) / spread, (views - mean) / spread)


def icon_pictures(limit: int = 4000) -> Pictures:
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
    encoded, views = encode(classes.images), [encode(view) for view in 15 * augment(_darkness(known), 8).numpy()]
    spread = encoded.std()
    inputs, seen = torch.as_tensor(encoded / spread), torch.as_tensor(np.array(views) / spread)
    return Pictures(_darkness(classes.images), classes.labels, inputs, seen)


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
    grids = (functional.affine_grid(maps_of_view, list(pictures.shape), align_corners=False) for maps_of_view in maps)
    return torch.stack([functional.grid_sample(pictures, grid, align_corners=False)[:, 0] for grid in grids])


def _darkness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.divide(images, np.float32(15))
