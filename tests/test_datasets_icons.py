"""The icons: what is shipped, where it comes from, and the features computed from it."""

import re
from importlib import resources

import numpy as np
import pytest

from balance.datasets import icons

DATA = resources.files("balance.datasets") / "data" / "icons"


def test_parts_are_disjoint_images_with_captions():
    parts = {part: icons.load_icons(part) for part in icons.PARTS}
    assert {part: len(data) for part, data in parts.items()} == {
        "train": 20696,
        "artists": 5352,
        "medical": 1458,
        "brands": 6630,
    }
    seen = [image.tobytes() for data in parts.values() for image in data.images]
    assert len(set(seen)) == len(seen)
    for data in parts.values():
        assert data.images.shape == (len(data), 32, 32)
        assert data.images.max() == 15
        assert all(data.images.any(axis=(1, 2)))
        assert all(re.fullmatch(r"\S+( \S+)*", caption) for caption in data.captions)


def test_pixels_stand_in_order():
    """Steps between neighbors are as large within the pairs that share a byte as between them."""
    for images in (icons.load_icons("train").images, icons.load_classes("digits").images):
        steps = np.abs(np.diff(images[:, 4:28, 4:28].astype(float), axis=2)).mean((0, 1))
        assert steps[::2].mean() == pytest.approx(steps[1::2].mean(), rel=0.15)
        assert np.abs(np.diff(images[:, 4:28, 4:28].astype(float), axis=1)).mean() == pytest.approx(
            steps.mean(), rel=0.5
        )


def test_every_set_is_in_the_notice_with_a_license():
    notice = (DATA / "NOTICE.md").read_text(encoding="utf-8")
    for part in icons.PARTS:
        names = icons.load_icons(part).sets
        for name in set(names):
            row = re.search(rf"\| {part} \| [^|]* \({name}\) \| [\d.]+ \| {names.count(name)} \| .*", notice)
            assert row, name
            assert re.search(r"\| (MIT|ISC|Apache-2.0|CC0-1.0) \|", row[0]), name


def test_size():
    assert sum(path.stat().st_size for path in DATA.iterdir() if path.is_file()) < 15e6


def test_every_caption_and_class_has_its_vectors():
    texts = {caption for part in ("train", "artists", "medical") for caption in icons.load_icons(part).captions}
    for task in ("artists", "medical", "digits"):
        texts |= {*icons.load_classes(task).texts}
    for encoder in icons.ENCODERS:
        vectors = icons.text_vectors(sorted(texts), encoder)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    brands = icons.text_vectors(icons.load_icons("brands").captions, "good")
    assert np.isfinite(brands).all()


def test_poor_vectors_share_a_mean_and_good_ones_know_synonyms():
    captions = icons.load_icons("train").captions
    common = {e: np.linalg.norm(icons.text_vectors(captions, e).mean(0)) ** 2 for e in icons.ENCODERS}
    assert max(common["good"], common["medium"]) < 0.25 < 0.5 < common["poor"]

    def cosine(encoder, a, b):
        x, y = icons.text_vectors([a, b], encoder)
        return x @ y

    pairs = [("home", "house"), ("trash", "bin"), ("picture", "image"), ("mail", "envelope"), ("person", "user")]
    others = [(a, pairs[i - 1][1]) for i, (a, _) in enumerate(pairs)]
    gaps = {
        e: np.mean([cosine(e, *p) for p in pairs]) - np.mean([cosine(e, *p) for p in others]) for e in icons.ENCODERS
    }
    assert gaps["good"] > gaps["poor"] > 0


def test_word_order_is_lost_in_the_medium_encoder_only():
    captions = {*icons.load_icons("train").captions}
    mirrored = [(c, " ".join(reversed(c.split()))) for c in sorted(captions) if len(set(c.split())) > 1]
    forward, backward = zip(*(pair for pair in mirrored if pair[1] in captions), strict=True)
    assert len(forward) > 20
    x, y = (icons.text_vectors(names, "medium") for names in (forward, backward))
    np.testing.assert_allclose(x, y, atol=1e-6)
    x, y = (icons.text_vectors(names, "good") for names in (forward, backward))
    assert (x * y).sum(1).mean() < 0.99


def test_artists_classes_follow_their_rule():
    classes = icons.load_classes("artists")
    data = icons.load_icons("artists")
    caption_of = {image.tobytes(): caption.split() for image, caption in zip(data.images, data.captions, strict=True)}
    assert len(classes.texts) > 100
    assert np.bincount(classes.labels, minlength=len(classes.texts)).min() >= 5
    for image, label in zip(classes.images, classes.labels, strict=True):
        words = caption_of[image.tobytes()]
        assert words[0] == classes.texts[label]
        assert {*words} & {*classes.texts} == {words[0]}
    train = [caption.split() for caption in icons.load_icons("train").captions]
    assert all(sum(text in caption for caption in train) >= 20 for text in classes.texts)


def test_digits_look_like_digits():
    classes = icons.load_classes("digits")
    means = np.stack([classes.images[classes.labels == d].mean(0) for d in range(10)])
    center, inside = means[:, 14:18, 14:18].mean((1, 2)), means.sum((1, 2))
    assert center.argmin() == 0
    assert inside.min() > 0
    assert not classes.images[:, :4].any()


@pytest.mark.parametrize("axis", [0, 1])
def test_digits_are_enlarged_by_linear_interpolation(axis):
    """Pixel j of 24 has its center at (j + 1/2)/3 - 1/2 of 8: three times that is j - 1, cut to [0, 21]."""
    small = 3 * np.broadcast_to(np.arange(8), (8, 8))
    expected = np.zeros((32, 32))
    expected[4:28, 4:28] = np.clip(np.arange(24) - 1, 0, 21)
    large = icons._enlarge(small[None] if axis else small.T[None])[0]
    np.testing.assert_array_equal(large, expected if axis else expected.T)


def ramp(angle):
    """An image that darkens steadily in the direction of the angle."""
    down, right = np.mgrid[-15.5:16, -15.5:16]
    return 7.5 + 0.3 * (down * np.sin(angle) + right * np.cos(angle))


@pytest.mark.parametrize("direction", range(9))
def test_hog_finds_the_direction_in_which_an_image_darkens(direction):
    image = ramp(np.pi * direction / 9)
    features = icons.hog([image, 15 - image]).reshape(2, 64, 10)
    strength = features[0, :, :9].sum(0)
    assert strength[direction] > 0.99 * strength.sum()
    np.testing.assert_allclose(features[0, :, :9], features[1, :, :9], atol=1e-5)
    np.testing.assert_allclose(features[:, :, 9].mean(1), 0.5, atol=1e-5)
    np.testing.assert_allclose(features[0, :, 9], image.reshape(8, 4, 8, 4).mean((1, 3)).ravel() / 15, atol=1e-5)


def test_hog_divides_by_the_strength_around():
    weak, strong = icons.hog([ramp(0), 7.5 + 2 * (ramp(0) - 7.5)]).reshape(2, 8, 8, 10)[:, 4, 4, 0]
    cell = 16 * 0.3 / 15
    np.testing.assert_allclose([weak, strong], [c / np.sqrt(9 * c**2 + 0.1) for c in (cell, 2 * cell)], rtol=1e-4)


def test_image_encoder_is_pca_of_hog():
    images = icons.load_icons("medical").images[:300]
    encode = icons.ImageEncoder.fit(images, components=20)
    vectors = encode(images).astype(np.float64)
    features = icons.hog(images).astype(np.float64)
    singular = np.linalg.svd(features - features.mean(0), compute_uv=False)[:20]
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-5)
    gram = vectors.T @ vectors
    np.testing.assert_allclose(gram, np.diag(singular**2 / (singular**2).sum() * 300), atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: icons.load_icons("test"), "no part 'test'"),
        (lambda: icons.load_classes("cifar10"), "no task 'cifar10'"),
        (lambda: icons.text_vectors(["arrow"], "best"), "no encoder 'best'"),
    ],
)
def test_bad_names(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_text():
    with pytest.raises(KeyError, match="no such caption"):
        icons.text_vectors(["no such caption"])
