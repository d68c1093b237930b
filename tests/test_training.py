"""The training function: its measures by brute force, its seeds, and the path of the `paper` preset."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from balance.contrastive import balanced_loss, siglip_loss
from balance.datasets import icons
from balance.labs.contrastive import (
    CONTRASTIVE_SMOKE,
    CPU,
    PAPER,
    Benchmark,
    Heads,
    balanced_accuracy,
    evaluate,
    linear_probe,
    mean_loss,
    recall_at_k,
    train,
)
from balance.labs.icons_benchmark import icon_benchmark
from balance.labs.paper import CaptionTable, Encoders, MapLabels, Sources, largest_object, mean_state, paper_benchmark


def planted(pairs=600, classes=8, width=12, noise=0.3, seed=0):
    """Images and texts that are noisy linear views of one of several centers."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, 6))
    views = rng.normal(size=(2, 6, width))

    def sample(n):
        labels = rng.integers(classes, size=n)
        hidden = centers[labels] + noise * rng.normal(size=(n, 6))
        return [(hidden @ view).astype(np.float32) for view in views], labels

    (train_pairs, _), (held, _), (test, labels) = sample(pairs), sample(200), sample(200)
    texts = (centers @ views[1]).astype(np.float32)
    return Benchmark(train_pairs, held, {"a": (test[0], labels, texts)}, {"b": test}, {"c": (test[0], labels)})


PRESET = replace(CONTRASTIVE_SMOKE, iterations=120, batch_size=64)


@pytest.mark.parametrize("loss", [0, 1, 2, 5, siglip_loss])
def test_training_learns_planted_pairs(loss):
    history = train(planted(), PRESET, loss=loss).history
    assert history[-1]["zero_shot_a"] > 0.75 > 0.4 > history[0]["zero_shot_a"]
    assert history[-1]["image_to_text_b"] > 3 * 5 / 200
    assert history[-1]["probe_c"] > 0.9


def test_shuffled_pairs_teach_nothing():
    data = planted()
    wrong = np.random.default_rng(0).permutation(len(data.train[0]))
    history = train(replace(data, train=(data.train[0][wrong], data.train[1])), PRESET).history
    assert history[-1]["zero_shot_a"] < 0.5


def test_seed_decides_all_and_global_state_nothing():
    data = planted()
    torch.manual_seed(1)
    first = train(data, PRESET, loss=2, seed=5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = train(data, PRESET, loss=2, seed=5)
    assert first.history == again.history
    assert torch.equal(state, torch.get_rng_state())
    assert train(data, PRESET, loss=2, seed=6).history != first.history


def test_losses_share_start_and_stop_changes_nothing():
    data = planted()
    one, two = (train(data, PRESET, loss=k, stop=60).history for k in (1, 2))
    assert one[0]["zero_shot_a"] == two[0]["zero_shot_a"]
    assert one[0]["train_clip"] == two[0]["train_clip"] == one[0]["train_loss"] != two[0]["train_loss"]
    assert [entry["iteration"] for entry in one] == [0, 60]
    assert train(data, PRESET).history[:2] == one


def test_stop_before_the_first_iteration_trains_nothing():
    run = train(planted(), PRESET, stop=0)
    assert [entry["iteration"] for entry in run.history] == [0]
    torch.manual_seed(0)
    start = Heads(12, 12, PRESET)
    assert all(map(torch.equal, run.heads.parameters(), start.parameters()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 3, "checkpoints": 6}, "iterations = 3 is no multiple of checkpoints = 6"),
        ({"iterations": 7, "checkpoints": 3}, "iterations = 7 is no multiple of checkpoints = 3"),
        ({"iterations": 0}, "iterations = 0: pass an integer >= 1"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_presets_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONTRASTIVE_SMOKE, **changes)


def test_progress_sees_every_iteration():
    seen = []
    train(planted(), CONTRASTIVE_SMOKE, progress=lambda iterations: (seen.append(i) or i for i in iterations))
    assert seen == list(range(1, CONTRASTIVE_SMOKE.iterations + 1))


def test_recall_by_sorting():
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 40)))
    best = np.argsort(-scores.numpy(), axis=1)[:, :5]
    assert recall_at_k(scores) == pytest.approx(np.mean([i in row for i, row in enumerate(best)]))
    assert recall_at_k(torch.zeros(40, 40)) == 0


def test_balanced_accuracy_weighs_classes_not_images():
    labels, predicted = np.array([0] * 98 + [1, 1]), np.zeros(100, int)
    assert balanced_accuracy(labels, predicted) == 0.5


def test_linear_probe_is_ridge_regression_on_even_rows():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    features = np.eye(3)[labels] @ rng.normal(size=(3, 5)) + 0.7 * rng.normal(size=(400, 5)) + 3
    x, y = features[::2], np.eye(3)[labels[::2]]
    centered = x - x.mean(0)
    penalty = np.sqrt(1e-3 * (centered**2).sum() / 5) * np.eye(5)
    weights = np.linalg.lstsq(np.vstack([centered, penalty]), np.vstack([y - y.mean(0), np.zeros((5, 3))]))[0]
    expected = balanced_accuracy(labels[1::2], ((features[1::2] - x.mean(0)) @ weights + y.mean(0)).argmax(1))
    assert linear_probe(features, labels) == pytest.approx(expected)
    assert expected > 0.5


def test_mean_loss_averages_whole_batches():
    data = planted()
    torch.manual_seed(0)
    heads = Heads(12, 12, CONTRASTIVE_SMOKE)
    with torch.no_grad():
        expected = [
            balanced_loss(heads(*(p[s : s + 128] for p in data.train)), steps=1).item() for s in (0, 128, 256, 384)
        ]
        assert mean_loss(heads, data.train, lambda scores: balanced_loss(scores, steps=1)) == pytest.approx(
            np.mean(expected)
        )


def test_cure_undoes_an_offset_of_each_image():
    """Offsets of the images leave image to text alone and ruin text to image, until one X-step."""
    data = planted(noise=1.0)
    heads = train(data, PRESET).heads
    offsets = 50 * torch.from_numpy(np.random.default_rng(1).normal(size=(200, 1)))
    shifted = SimpleNamespace(images=heads.images)

    class Shifted:
        images = shifted.images

        def __call__(self, images, texts):
            scores = heads(images, texts)
            return scores + offsets if len(scores) == 200 == scores.shape[1] else scores

    before, after = (evaluate(h, data, lambda scores: balanced_loss(scores, steps=1)) for h in (heads, Shifted()))
    assert after["image_to_text_b"] == pytest.approx(before["image_to_text_b"], abs=0.01)
    assert after["text_to_image_b"] < 0.5 * before["text_to_image_b"]
    assert after["cured_b"] == pytest.approx(before["cured_b"], abs=0.01)


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


def test_presets_are_the_papers():
    assert (PAPER.iterations, PAPER.batch_size, PAPER.hidden, PAPER.output, PAPER.scale) == (5000, 512, 256, 128, 100)
    assert (CPU.hidden, CPU.output, CPU.scale, CPU.learning_rate) == (256, 128, 100, PAPER.learning_rate)


class TinyTokenizer:
    """Each letter is a token; the interface of the tokenizers of `transformers`."""

    def __call__(self, texts, *, padding, truncation, max_length, return_tensors):
        assert padding
        assert truncation
        assert return_tensors == "pt"
        longest = min(max_length, max(map(len, texts)))
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        for row, text in enumerate(texts):
            letters = [ord(letter) % 64 for letter in text[:longest]]
            ids[row, : len(letters)] = torch.tensor(letters)
        mask = torch.arange(longest) < torch.tensor([[min(len(text), longest)] for text in texts])
        return {"input_ids": ids, "attention_mask": mask.long()}


class TinyLanguageModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 24)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids))


def tiny_encoders():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Flatten(), torch.nn.Linear(4 * 64, 20))
        language = TinyLanguageModel()
    transform = lambda image: torch.from_numpy(np.array(image)).float().expand(3, 32, 32) / 15  # noqa: E731
    return Encoders(vision, mean_state(language, TinyTokenizer()), transform)


def tiny_sources():
    data = icons.load_icons("medical")
    pairs = list(zip(data.images[:60], data.captions[:60], strict=True))
    classes = [(image, i % 3) for i, image in enumerate(data.images[:30])]
    named = [(image, "abc"[i % 3]) for i, image in enumerate(data.images[:30])]
    return Sources(pairs, pairs[:20], {"tiny": (classes, ["a", "b", "c"])}, {"tiny": iter(pairs)}, {"tiny": named})


def test_paper_path_with_tiny_encoders():
    data = paper_benchmark(tiny_sources(), tiny_encoders(), limit=48, batch_size=7)
    assert data.train[0].shape == (48, 20)
    assert data.train[1].shape == (48, 24)
    assert data.captions == icons.load_icons("medical").captions[:48]
    assert data.zero_shot["tiny"][2].shape == (3, 24)
    np.testing.assert_allclose(np.linalg.norm(data.train[1], axis=1), 1, rtol=1e-5)
    run = train(data, replace(PAPER, iterations=40, batch_size=16, checkpoints=2), loss=2)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    assert {"zero_shot_tiny", "image_to_text_tiny", "probe_tiny"} <= run.history[-1].keys()


def test_batches_of_the_encoders_do_not_matter():
    """Padding to the longest text of a batch is masked out of the mean."""
    one, two = (paper_benchmark(tiny_sources(), tiny_encoders(), batch_size=size) for size in (1, 60))
    for a, b in zip(one.train, two.train, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_listed_captions_and_largest_objects(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i, color in enumerate(["red", "blue"]):
        image.new("RGB", (4, 4), color).save(tmp_path / f"{i}.png")
    (tmp_path / "list.csv").write_text('filepath,title\n0.png,"a, first"\n0.png,second\n1.png,third\n')
    pairs = list(CaptionTable(tmp_path / "list.csv"))
    assert [(picture.getpixel((0, 0)), caption) for picture, caption in pairs] == [
        ((255, 0, 0), "a, first"),
        ((0, 0, 255), "third"),
    ]
    boxes = [
        {"name": name, "bndbox": {"xmin": "1", "xmax": str(1 + w), "ymin": "2", "ymax": str(2 + h)}}
        for name, w, h in (("cat", 3, 3), ("dog", 2, 5), ("car", 9, 1))
    ]
    assert list(MapLabels([(0, {"annotation": {"object": boxes}})], largest_object)) == [(0, "dog")]
