"""Icons and their names: the image-caption pairs on which chapter 7 trains.

Images are 32 x 32, captions are the names that the icons' artists gave them. Text vectors are stored, image features
are computed when asked for. How the files were made is in ``data-raw/icons``, whose work each set is and under which
license in ``balance/datasets/data/icons/NOTICE.md``.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray

PARTS = ("train", "artists", "medical", "brands")
ENCODERS = ("good", "medium", "poor")

DIGIT_TEXTS = tuple(f"number {digit}" for digit in range(10))
CATEGORY_TEXTS = {
    "Blood": "blood",
    "Body": "body",
    "Conditions": "medical conditions",
    "Contraceptives": "contraceptives",
    "Devices": "medical devices",
    "Diagnostics": "diagnostics",
    "Emotions": "emotions",
    "Exercise": "exercise",
    "Graphs": "graphs",
    "Medications": "medications",
    "Nutrition": "nutrition",
    "Objects": "objects",
    "People": "people",
    "Places": "places",
    "Ppe": "personal protective equipment",
    "Shapes": "shapes",
    "Specialties": "medical specialties",
    "Symbols": "symbols",
    "Typography": "typography",
    "Vehicles": "vehicles",
    "Zoonoses": "animals",
}
# The histogram of oriented gradients of Dalal and Triggs (2005): 9 unsigned angles, cells of 4 pixels for 32 x 32 ones.
_CELL = 4
_ANGLES = 9
_SEEN = 20  # a class word names at least so many training icons
_HEADED = 8  # and stands first in at least so many captions of the test set
_MEMBERS = 5  # of which at least so many have no other class word


@dataclass(frozen=True, eq=False)
class Icons:
    """Icons with captions.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 32, 32)
        Darkness from 0 (white) to 15 (black).
    captions : tuple of str
    sets : tuple of str
        The icon set that each comes from.
    categories : tuple of str
        The heading under which its set lists it; "" if it has none.
    """

    images: NDArray[np.uint8] = field(repr=False)
    captions: tuple[str, ...] = field(repr=False)
    sets: tuple[str, ...] = field(repr=False)
    categories: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True, eq=False)
class Classes:
    """Images to be classified without training on them.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 32, 32)
    labels : ndarray of int, shape (n,)
    texts : tuple of str
        One text for each class.
    """

    images: NDArray[np.uint8] = field(repr=False)
    labels: NDArray[np.intp] = field(repr=False)
    texts: tuple[str, ...]


def load_icons(part: str) -> Icons:
    """Load a part of the icons.

    Parameters
    ----------
    part : str
        "train" (11 sets), "artists" (4 sets by other artists), "medical" (healthicons) or "brands" (logos, the
        trademarks of their owners: names that say nothing about the image).

    Returns
    -------
    Icons

    Raises
    ------
    ValueError
        If there is no such part.

    Examples
    --------
    >>> icons = load_icons("medical")
    >>> len(icons), icons.images.shape, icons.captions[3], icons.categories[3]
    (1458, (1458, 32, 32), 'ear outline', 'Body')
    """
    if part not in PARTS:
        raise ValueError(f"no part {part!r}: choose one of {', '.join(PARTS)}")
    arrays = _arrays("brands" if part == "brands" else "icons")
    inside = np.array(_lines(arrays["splits"])) == part
    captions, sets = (tuple(np.array(_lines(arrays[key]))[inside].tolist()) for key in ("captions", "sets"))
    categories = np.array(_lines(arrays["categories"]))[inside].tolist() if part != "brands" else [""] * len(captions)
    return Icons(_unpack(arrays["images"][inside]), captions, sets, tuple(categories))


def load_classes(name: str) -> Classes:
    """Load one of three tasks of classification without training examples.

    Parameters
    ----------
    name : str
        "artists": icons by artists who are not in the training part, by the word that their name begins with;
        "medical": healthicons by the headings of their set; "digits": 1,797 handwritten digits.

    Returns
    -------
    Classes

    Raises
    ------
    ValueError
        If there is no such task.

    Notes
    -----
    The classes of "artists" are the words that stand first in at least 8 of its captions and occur in at least
    20 captions of the training part. An icon counts if exactly one class word occurs in its caption, in front;
    a class has at least 5 icons.

    Examples
    --------
    >>> classes = load_classes("digits")
    >>> len(classes.labels), classes.texts[7], int(np.bincount(classes.labels).min())
    (1797, 'number 7', 174)
    """
    if name == "digits":
        images, labels = load_digits()
        return Classes(_enlarge(images), labels, DIGIT_TEXTS)
    if name == "medical":
        icons = load_icons("medical")
        order = list(CATEGORY_TEXTS)
        labels = np.array([order.index(category) for category in icons.categories], dtype=np.intp)
        return Classes(icons.images, labels, tuple(CATEGORY_TEXTS.values()))
    if name != "artists":
        raise ValueError(f"no task {name!r}: choose artists, medical or digits")
    icons = load_icons("artists")
    heads = Counter(caption.split()[0] for caption in icons.captions)
    known = Counter(word for caption in load_icons("train").captions for word in set(caption.split()))
    words = {word for word, n in heads.items() if n >= _HEADED and known[word] >= _SEEN}
    label = np.array([c.split()[0] if {*c.split()} & words == {c.split()[0]} else "" for c in icons.captions])
    texts, labels, counts = np.unique(label, return_inverse=True, return_counts=True)
    classes = np.flatnonzero((counts >= _MEMBERS) & (texts != ""))
    where = np.isin(labels, classes)
    return Classes(icons.images[where], np.searchsorted(classes, labels[where]), tuple(texts[classes].tolist()))


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Load 1,797 handwritten digits of 8 x 8 pixels, the digits of scikit-learn.

    Returns
    -------
    images : ndarray of uint8, shape (1797, 8, 8)
        Darkness from 0 (white) to 15 (black).
    labels : ndarray of int, shape (1797,)

    Examples
    --------
    >>> images, labels = load_digits()
    >>> images.shape, images.max(), labels[:5].tolist()
    ((1797, 8, 8), np.uint8(15), [0, 1, 2, 3, 4])
    """
    arrays = _arrays("digits")
    return _unpack(arrays["images"], 8), arrays["labels"].astype(np.intp)


def text_vectors(texts: Sequence[str], encoder: str = "good") -> NDArray[np.float32]:
    """Unit vectors of texts under one of three frozen encoders.

    Parameters
    ----------
    texts : sequence of str
        Captions, class texts or frequent words: the vectors are stored, not computed. "medium" knows every text
        made of words that occur in a caption.
    encoder : str
        "good": the sentence vector of all-MiniLM-L6-v2; "medium": the mean of its static word vectors, blind
        to context; "poor": the mean hidden state of its layer 3, in which a mean that all texts share is kept.

    Returns
    -------
    ndarray, shape (len(texts), 96)

    Raises
    ------
    ValueError
        If there is no such encoder.
    KeyError
        If the vector of a text is not stored.

    Examples
    --------
    >>> arrow, left, heart = text_vectors(["arrow", "arrow left", "heart"])
    >>> bool(arrow @ left > 0.8 > 0.5 > arrow @ heart)
    True
    """
    if encoder not in ENCODERS:
        raise ValueError(f"no encoder {encoder!r}: choose one of {', '.join(ENCODERS)}")
    index, vectors = _vectors(encoder)
    if encoder == "medium":
        found = np.stack([vectors[[index[word] for word in text.split()]].mean(0) for text in texts])
    else:
        found = vectors[[index[text] for text in texts]]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def hog(images: ArrayLike) -> NDArray[np.float32]:
    """Histograms of oriented gradients, with the mean darkness, in cells of 4 x 4 pixels.

    Parameters
    ----------
    images : array_like, shape (n, 32, 32)

    Returns
    -------
    ndarray, shape (n, 640)
        For each of 8 x 8 cells 9 directions of edges, divided by the norm over the 3 x 3 cells around, and darkness.

    References
    ----------
    Dalal and Triggs (2005), Histograms of oriented gradients for human detection.

    Examples
    --------
    >>> edge = np.zeros((1, 32, 32))
    >>> edge[:, :, 17:] = 15
    >>> hog(edge).reshape(8, 8, 10)[3, 4].astype(float).round(2).tolist()
    [0.58, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.75]
    """
    images = np.asarray(images, dtype=np.float32) / 15
    return np.concatenate([_hog(images[start : start + 2048]) for start in range(0, len(images), 2048)])


def _hog(images):
    down, right = np.gradient(images, axis=(1, 2))
    strength = np.hypot(down, right)
    angle = np.arctan2(down, right) / np.pi * _ANGLES % _ANGLES
    cells = np.empty((*(2 * (32 // _CELL,)), _ANGLES + 1, len(images)), np.float32)
    for direction in range(_ANGLES):
        distance = np.abs(angle - direction)
        share = np.maximum(1 - np.minimum(distance, _ANGLES - distance), 0)
        cells[:, :, direction] = _sum_cells(strength * share)
    energy = np.pad((cells[:, :, :_ANGLES] ** 2).sum(2), ((1, 1), (1, 1), (0, 0)))
    around = sum(energy[r : r + 8, c : c + 8] for r in range(3) for c in range(3))
    cells[:, :, :_ANGLES] /= np.sqrt(around + 0.1)[:, :, None]
    cells[:, :, _ANGLES] = _sum_cells(images) / _CELL**2
    return cells.reshape(-1, len(images)).T


def _sum_cells(values):
    """Sums over cells of pixels, images last: (n, 32, 32) to (8, 8, n)."""
    return np.moveaxis(values.reshape(len(values), 8, _CELL, 8, _CELL).sum((2, 4)), 0, -1)


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """Principal components of `hog`: call it with images (n, 32, 32) to get (n, components).

    Attributes
    ----------
    mean : ndarray, shape (640,)
    basis : ndarray, shape (640, components)
        Scaled such that the vectors on which it was fitted have mean square norm 1.
    """

    mean: NDArray[np.float32] = field(repr=False)
    basis: NDArray[np.float32] = field(repr=False)

    @classmethod
    def fit(cls, images: ArrayLike, components: int = 128) -> "ImageEncoder":
        """Find the components on some images."""
        features = hog(images)
        mean = features.mean(0)
        features -= mean
        variances, basis = np.linalg.eigh((features.T @ features).astype(np.float64) / len(features))
        basis = basis[:, ::-1][:, :components] / np.sqrt(variances[::-1][:components].sum())
        return cls(mean, basis.astype(np.float32))

    def __call__(self, images: ArrayLike) -> NDArray[np.float32]:
        return np.matmul(hog(images) - self.mean, self.basis)


@cache
def _arrays(name):
    with (
        resources.as_file(resources.files("balance.datasets") / "data" / "icons" / f"{name}.npz") as path,
        np.load(path) as file,
    ):
        return {key: file[key] for key in file.files}


@cache
def _vectors(encoder):
    """Where each text stands, and the vectors."""
    stored = _arrays("texts")
    if encoder == "medium":
        texts, vectors, scale = _lines(stored["words"]), stored["word_vectors"], stored["word_scale"]
    else:
        texts, vectors, scale = _lines(stored["texts"]), stored[encoder], stored[f"{encoder}_scale"]
        if encoder == "good":
            brands = _arrays("brands")
            texts, vectors = texts + _lines(brands["texts"]), np.concatenate([vectors, brands["good"]])
    return {text: i for i, text in enumerate(texts)}, vectors * scale


def _lines(text):
    return text.tobytes().decode().split("\n")


def _unpack(packed, side=32):
    return np.stack([packed >> 4, packed & 15], axis=-1).reshape(len(packed), side, side)


def _enlarge(small):
    """Digits of 8 x 8 pixels as 24 x 24 in the middle of 32 x 32, by linear interpolation."""
    at = np.clip((np.arange(24) + 0.5) / 3 - 0.5, 0, 7)
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(8)), 0)
    large = np.einsum("ia,nab,jb->nij", weights, small, weights)
    return np.pad(np.round(large).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
