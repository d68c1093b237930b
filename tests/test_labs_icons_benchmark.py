"""The benchmark of icons: what it holds out, what belongs together, and what brands add."""

import numpy as np
import pytest

from balance.datasets import icons
from balance.labs.icons_benchmark import icon_benchmark


def test_icon_benchmark_holds_out_and_aligns():
    data = icon_benchmark("medium", limit=400)
    assert [len(part) for part in (*data.train, *data.held_out)] == [360, 360, 40, 40]
    medical = icons.load_icons("medical")
    images, texts = data.retrieval["medical"]
    index = {vector.tobytes(): i for i, vector in enumerate(icons.text_vectors(medical.captions, "medium"))}
    encode = icons.ImageEncoder.fit(icons.load_icons("train").images[np.random.default_rng(0).permutation(20696)[:400]])
    where = [index[text.tobytes()] for text in texts[:20]]
    same = [np.abs(encode(medical.images) - image).max(1).argmin() for image in images[:20]]
    assert [medical.captions[i] for i in same] == [medical.captions[i] for i in where]


def test_brands_only_add_training_pairs():
    clean, more = (icon_benchmark("good", brands=brands, limit=300) for brands in (False, True))
    assert (len(clean.captions), len(more.captions)) == (270, 570)
    assert clean.captions == more.captions[:270]
    assert set(more.captions[270:]) <= set(icons.load_icons("brands").captions)
    for few, all_of in zip((*clean.train, *clean.held_out), (*more.train, *more.held_out), strict=True):
        np.testing.assert_array_equal(few, all_of[: len(few)])
    np.testing.assert_array_equal(more.train[1], icons.text_vectors(more.captions, "good"))
    for task, parts in clean.zero_shot.items():
        for few, same in zip(parts, more.zero_shot[task], strict=True):
            np.testing.assert_array_equal(few, same)
    with pytest.raises(ValueError, match="encoder 'good' only"):
        icon_benchmark("poor", brands=True, limit=300)


def test_pool_repeats_pairs():
    data = icon_benchmark("good", limit=100)
    rows = np.array([5, 2, 5])
    pool = data.pool(rows)
    assert pool.captions == tuple(data.captions[i] for i in rows)
    for features, drawn in zip(data.train, pool.train, strict=True):
        np.testing.assert_array_equal(features[rows], drawn)
    np.testing.assert_array_equal(pool.train[1], icons.text_vectors(pool.captions, "good"))
    assert pool.held_out is data.held_out
