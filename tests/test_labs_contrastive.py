"""The training function: its measures by brute force, its seeds, and its presets."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from balance.contrastive import balanced_loss, siglip_loss
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


def planted_pairs(pairs=600, classes=8, width=12, noise=0.3, seed=0):
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
    history = train(planted_pairs(), PRESET, loss=loss).history
    assert history[-1]["zero_shot_a"] > 0.75 > 0.4 > history[0]["zero_shot_a"]
    assert history[-1]["image_to_text_b"] > 3 * 5 / 200
    assert history[-1]["probe_c"] > 0.9


def test_shuffled_pairs_teach_nothing():
    data = planted_pairs()
    wrong = np.random.default_rng(0).permutation(len(data.train[0]))
    history = train(replace(data, train=(data.train[0][wrong], data.train[1])), PRESET).history
    assert history[-1]["zero_shot_a"] < 0.5


def test_seed_decides_all_and_global_state_nothing():
    data = planted_pairs()
    torch.manual_seed(1)
    first = train(data, PRESET, loss=2, seed=5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = train(data, PRESET, loss=2, seed=5)
    assert first.history == again.history
    assert torch.equal(state, torch.get_rng_state())
    assert train(data, PRESET, loss=2, seed=6).history != first.history


def test_losses_share_start_and_stop_changes_nothing():
    data = planted_pairs()
    one, two = (train(data, PRESET, loss=k, stop=60).history for k in (1, 2))
    assert one[0]["zero_shot_a"] == two[0]["zero_shot_a"]
    assert one[0]["train_clip"] == two[0]["train_clip"] == one[0]["train_loss"] != two[0]["train_loss"]
    assert [entry["iteration"] for entry in one] == [0, 60]
    assert train(data, PRESET).history[:2] == one


def test_stop_before_the_first_iteration_trains_nothing():
    run = train(planted_pairs(), PRESET, stop=0)
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
    train(planted_pairs(), CONTRASTIVE_SMOKE, progress=lambda iterations: (seen.append(i) or i for i in iterations))
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
    data = planted_pairs()
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
    data = planted_pairs(noise=1.0)
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


def test_presets_are_the_papers():
    assert (PAPER.iterations, PAPER.batch_size, PAPER.hidden, PAPER.output, PAPER.scale) == (5000, 512, 256, 128, 100)
    assert (CPU.hidden, CPU.output, CPU.scale, CPU.learning_rate) == (256, 128, 100, PAPER.learning_rate)
