"""The images that are clustered, and their views."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.datasets

from balance.datasets.icons import load_classes, load_digits
from balance.labs.augment import augment, digit_pictures, icon_pictures
from balance.labs.clustering import CLUSTERING_SMOKE, train_clusters


def test_augment_moves_a_disk_a_little():
    """A disk stays a disk: its area tells the zoom, its center the shift."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    disk = (x**2 + y**2 < 0.25).astype(np.float32)
    views = augment(np.stack([disk, disk]), 50).numpy()
    assert views.shape == (50, 2, 64, 64)
    np.testing.assert_array_equal(views, augment(np.stack([disk, disk]), 50))
    area = views.sum((-2, -1)) / disk.sum()
    assert area.min() > 1 / 1.15**2 - 0.02
    assert area.max() < 1.15**2 + 0.02
    assert area.max() / area.min() > 1.5
    for coordinate in (x, y):
        center = (views * coordinate).sum((-2, -1)) / views.sum((-2, -1))
        assert 0.1 < np.abs(center).max() < 0.15 * 1.15 * (np.cos(np.pi / 12) + np.sin(np.pi / 12)) + 0.01
        assert abs(center.mean()) < 0.05


def test_augment_turns_by_at_most_15_degrees():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    bar = ((np.abs(y) < 0.1) & (np.abs(x) < 0.6)).astype(np.float32)
    angles = []
    for view in augment(bar[None], 50)[:, 0].numpy():
        dx, dy = (c - (view * c).sum() / view.sum() for c in (x, y))
        angles.append(np.degrees(np.arctan2((view * dx * dy).sum() * 2, (view * (dx**2 - dy**2)).sum()) / 2))
    assert 12 < np.abs(angles).max() < 15.5
    assert min(angles) < 0 < max(angles)


def test_digits_are_those_of_scikit_learn():
    images, labels = load_digits()
    expected = sklearn.datasets.load_digits()
    np.testing.assert_array_equal(images, np.minimum(expected.images, 15))
    np.testing.assert_array_equal(labels, expected.target)


def test_unequal_digits():
    whole, part = digit_pictures(), digit_pictures(share=0.1)
    assert whole.images.shape == (1797, 8, 8)
    assert whole.views.shape == (16, 1797, 1, 8, 8)
    assert whole.inputs.std().item() == pytest.approx(1, abs=1e-3)
    sizes, all_sizes = np.bincount(part.labels), np.bincount(whole.labels)
    np.testing.assert_allclose(sizes, all_sizes * 0.1 ** (np.arange(10) / 9), atol=0.5)
    assert part.views.shape == (16, len(part.labels), 1, 8, 8)
    for digit in (0, 9):
        members = part.images[part.labels == digit]
        np.testing.assert_array_equal(members, whole.images[whole.labels == digit][: len(members)])
    for share in (0, 1.5):
        with pytest.raises(ValueError, match=f"share = {share}"):
            digit_pictures(share)


def test_views_resemble_their_image():
    data = digit_pictures()
    near = (data.views[:, :300] - data.inputs[:300]).square().mean()
    far = (data.views[:, :300] - data.inputs[1:301]).square().mean()
    assert near < 0.5 * far


def test_icons():
    data, classes = icon_pictures(limit=200), load_classes("artists")
    np.testing.assert_array_equal(data.labels, classes.labels)
    np.testing.assert_array_equal(np.round(15 * data.images), classes.images)
    assert data.inputs.shape == (len(classes.labels), 128)
    assert data.views.shape == (8, 200, 128)
    assert data.inputs.std().item() == pytest.approx(1, abs=1e-3)
    spread = (data.views - data.views.mean(0)).square().mean()
    assert spread < 0.7 * (data.views - data.views.mean(1, keepdim=True)).square().mean()
    assert train_clusters(data, replace(CLUSTERING_SMOKE, iterations=2, batch_size=500)).clusters.shape == (
        3,
        len(data.labels),
    )
