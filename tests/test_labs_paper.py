"""The path of the `paper` preset, with tiny encoders and a handful of images."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from balance.datasets import icons
from balance.labs.contrastive import PAPER, train
from balance.labs.paper import CaptionTable, Encoders, MapLabels, Sources, largest_object, mean_state, paper_benchmark


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
