"""Swapped prediction: what it learns, what its codes are given, its seeds, and the images it is trained on."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.datasets
import sklearn.metrics
import torch

from balance.clustering import assignments
from balance.labs.augment import Pictures
from balance.labs.clustering import (
    CLUSTERING_SMOKE,
    Centering,
    Network,
    _two_views,
    cluster_measures,
    train_clusters,
)

PRESET = replace(CLUSTERING_SMOKE, prototypes=4, iterations=100)


def planted_pictures(n=300, classes=4, width=12, noise=0.4, number=6):
    """Views that are noisy copies of points around several centers."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    points = rng.normal(size=(classes, width))[labels]
    inputs, *views = (
        torch.as_tensor(points + noise * rng.normal(size=(n, width)), dtype=torch.float32) for _ in range(1 + number)
    )
    return Pictures(np.zeros((n, 1, 1), np.float32), labels, inputs, torch.stack(views))


class Recorder:
    """Codes after some sweeps, and the scores that they were made of."""

    def __init__(self, sweeps=1):
        self.sweeps, self.seen = sweeps, []

    def __call__(self, scores):
        self.seen.append(scores)
        return assignments(scores, sweeps=self.sweeps)


def recorded(stop=10, **changes):
    codes = Recorder()
    train_clusters(planted_pictures(), replace(PRESET, **changes), assign=codes, stop=stop)
    return codes.seen


@pytest.mark.parametrize("sweeps", [1, 3])
def test_balanced_codes_find_planted_clusters(sweeps):
    history = train_clusters(planted_pictures(), PRESET, assign=sweeps).history
    assert history[-1]["nmi"] > 0.9 > 0.6 > history[0]["nmi"]
    assert history[-1]["usage_entropy"] > 0.95


def test_codes_without_balancing_collapse():
    run = train_clusters(planted_pictures(), PRESET, assign=0)
    assert run.history[-1]["usage_entropy"] < 0.5
    assert run.history[-1]["loss"] < 0.1 < run.history[0]["loss"]


def test_seed_decides_all_and_global_state_nothing():
    data = planted_pictures()
    torch.manual_seed(1)
    first = train_clusters(data, PRESET, seed=5, stop=50)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = train_clusters(data, PRESET, seed=5, stop=50)
    assert first.history == again.history
    np.testing.assert_array_equal(first.clusters, again.clusters)
    assert torch.equal(state, torch.get_rng_state())
    assert train_clusters(data, PRESET, seed=6, stop=50).history != first.history


def test_stop_changes_nothing_and_arms_share_their_start():
    data = planted_pictures()
    short, whole, other = (train_clusters(data, PRESET, assign=k, stop=s) for k, s in ((3, 50), (3, None), (0, 50)))
    assert [entry["iteration"] for entry in short.history] == [0, 50]
    assert short.history == whole.history[:2]
    np.testing.assert_array_equal(short.clusters, whole.clusters[:2])
    np.testing.assert_array_equal(short.clusters[0], other.clusters[0])
    assert (short.clusters[1] != other.clusters[1]).any()


def test_a_run_is_what_its_network_says():
    data = planted_pictures()
    run = train_clusters(data, PRESET)
    assert run.clusters.shape == (3, 300)
    np.testing.assert_array_equal(run.clusters[-1], run.network.scores(data.inputs).argmax(1).numpy())
    for entry, clusters in zip(run.history, run.clusters, strict=True):
        assert entry["nmi"] == pytest.approx(sklearn.metrics.normalized_mutual_info_score(data.labels, clusters))
        assert entry["used"] == len(np.unique(clusters))
        shares = np.bincount(clusters) / 300
        entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
        assert entry["usage_entropy"] == pytest.approx(entropy / np.log(4), abs=1e-12)


def test_measures_of_the_codes():
    codes = Recorder(sweeps=3)
    history = train_clusters(planted_pictures(), PRESET, assign=codes, stop=50).history
    for entry in history:
        largest = assignments(codes.seen[entry["iteration"]]).amax(-1)
        assert entry["peak"] == pytest.approx(largest.mean().item())
        assert entry["largest_code"] == pytest.approx(largest.max().item())


def test_the_first_loss_is_swapped():
    codes = Recorder(sweeps=1)
    loss = train_clusters(planted_pictures(), PRESET, assign=codes, stop=0).history[0]["loss"]
    a, b = codes.seen[0]
    targets = [assignments(scores, sweeps=1) for scores in (a, b)]
    right, wrong = (
        sum(torch.nn.functional.cross_entropy(s / 0.1, q).item() for s, q in zip((a, b), order, strict=True)) / 2
        for order in (reversed(targets), targets)
    )
    assert loss == pytest.approx(right, rel=1e-5)
    assert abs(loss - wrong) > 0.01


def test_the_queue_holds_past_batches():
    """Without learning a past embedding has the scores that it had; the newest come first."""
    seen = recorded(stop=3, queue=100, learning_rate=0.0)
    assert [tuple(scores.shape) for scores in seen] == [(2, 64, 4), (2, 128, 4), (2, 164, 4), (2, 164, 4)]
    torch.testing.assert_close(seen[3][:, 64:128], seen[2][:, :64])
    torch.testing.assert_close(seen[3][:, 128:], seen[1][:, :36])
    torch.testing.assert_close(seen[3][:, :64], recorded(stop=3, learning_rate=0.0)[3])


def test_the_queue_may_start_late():
    late = recorded(stop=3, queue=100, queue_from=1)
    assert [scores.shape[1] for scores in late] == [64, 64, 128, 164]
    torch.testing.assert_close(late[:2], recorded(stop=1))


def test_past_embeddings_are_compared_with_the_prototypes_of_today():
    seen = recorded(stop=1, queue=64)
    assert (seen[1][:, 64:] - seen[0]).abs().max() > 1e-4


def test_the_teacher_follows_the_network():
    """At a momentum near 0 it is the network, near 1 the network before training."""
    network, start, quick, slow, half = (
        recorded(momentum=momentum, learning_rate=rate)[-1]
        for momentum, rate in ((0, 1e-3), (0, 0.0), (1e-9, 1e-3), (1 - 1e-9, 1e-3), (0.5, 1e-3))
    )
    torch.testing.assert_close(quick, network)
    torch.testing.assert_close(slow, start)
    assert (slow - network).abs().max() > 0.01
    assert 0 < (half - network).abs().max() < (slow - network).abs().max()


def test_centering():
    generator = torch.Generator().manual_seed(0)
    codes, center = Centering(temperature=0.2, momentum=0.6), torch.zeros(3)
    for scores in torch.randn(3, 2, 5, 3, generator=generator):
        torch.testing.assert_close(codes(scores), torch.softmax((scores - center) / 0.2, -1))
        center = 0.6 * center + 0.4 * scores.mean((0, 1))
    torch.testing.assert_close(codes.center, center)


def test_two_views_are_of_one_image():
    names = torch.cartesian_prod(torch.arange(5), torch.arange(40)).unflatten(0, (5, 40))
    a, b = _two_views(names, 30, torch.Generator().manual_seed(0)).unflatten(0, (2, 30)).unbind()
    assert (a[:, 1] == b[:, 1]).all()
    assert (a[:, 0] != b[:, 0]).all()
    assert len(a[:, 1].unique()) == 30
    assert set(a[:, 0].tolist()) == set(b[:, 0].tolist()) == set(range(5))


@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_scores_are_cosines(shape):
    network = Network(shape, CLUSTERING_SMOKE)
    inputs = torch.randn(7, *shape)
    embedded = network.embed(inputs)
    assert embedded.shape == (7, CLUSTERING_SMOKE.output)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(7))
    expected = torch.nn.functional.cosine_similarity(embedded[:, None], network.prototypes, dim=-1)
    torch.testing.assert_close(network.scores(inputs), expected)
    torch.testing.assert_close(network.scores(inputs[:3]), network.scores(inputs)[:3])


def test_cluster_measures():
    measures = cluster_measures([0, 0, 1, 1, 2, 2], [3, 3, 1, 1, 1, 1], prototypes=5)
    entropy = -(2 / 6 * np.log(2 / 6) + 4 / 6 * np.log(4 / 6)) / np.log(5)
    assert measures["usage_entropy"] == pytest.approx(entropy)
    assert (measures["used"], measures["matched"]) == (2, pytest.approx(4 / 6))
    # pairs together in both: 1 + 2; in the labels 3, in the clusters 1 + 6, of 15
    assert measures["ari"] == pytest.approx((3 - 3 * 7 / 15) / ((3 + 7) / 2 - 3 * 7 / 15))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 25}, "iterations = 25 is no multiple of checkpoints = 2"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"prototypes": 1}, "prototypes = 1: pass an integer >= 2"),
        ({"queue": -1}, "queue = -1"),
        ({"queue_from": -1}, "queue_from = -1"),
        ({"momentum": 1.0}, "momentum = 1.0"),
    ],
)
def test_presets_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CLUSTERING_SMOKE, **changes)


def test_arguments_are_checked():
    data = planted_pictures()
    with pytest.raises(ValueError, match="one view"):
        train_clusters(replace(data, views=data.views[:1]), PRESET)
    with pytest.raises(ValueError, match="sweeps = -1"):
        train_clusters(data, PRESET, assign=-1)
    with pytest.raises(ValueError, match=r"codes have shape \(64, 3\), scores \(64, 4\)"):
        train_clusters(data, PRESET, assign=lambda scores: scores[..., :3])
