"""The data and the frozen encoders of the paper's experiments, for a reader with a GPU (chapter 7 of the book).

Needs what ``requirements-paper.txt`` lists:

    sources, encoders = paper_sources("data"), paper_encoders("bert")
    benchmark = paper_benchmark(sources, encoders, device="cuda")
    run = train(benchmark, PAPER, loss=2, device="cuda")

Encoders, tokenizer and data sets are arguments, so that the same path also runs on a handful of images.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from balance.labs.contrastive import Benchmark

IMAGES = ("ViT-B-32", "laion2b_s34b_b79k")
TEXTS = {"clip": ("ViT-B-32", "datacomp_xl_s13b_b90k"), "bert": "bert-base-uncased", "gpt2": "gpt2"}
PROMPT = "a photo of a {}."
TOKENS = 32


@dataclass(frozen=True)
class Encoders:
    """Frozen encoders: functions of a batch.

    Attributes
    ----------
    images : callable
        A tensor of images (n, 3, height, width) to vectors (n, d).
    texts : callable
        A list of n texts to vectors (n, d).
    transform : callable
        An image as the data sets hold it to a tensor (3, height, width).
    """

    images: Callable[[Tensor], Tensor]
    texts: Callable[[list[str]], Tensor]
    transform: Callable[[Any], Tensor]


@dataclass(frozen=True)
class Sources:
    """The data sets.

    Attributes
    ----------
    train, held_out : iterable of (image, text)
    zero_shot : dict of str to (iterable of (image, class), sequence of class names)
    retrieval : dict of str to iterable of (image, text)
    probes : dict of str to iterable of (image, class)
    """

    train: Iterable
    held_out: Iterable
    zero_shot: Mapping[str, tuple[Iterable, Sequence[str]]]
    retrieval: Mapping[str, Iterable]
    probes: Mapping[str, Iterable]


def paper_encoders(text: str = "clip", device: str = "cuda") -> Encoders:
    """The paper's encoders, downloaded.

    Parameters
    ----------
    text : str
        "clip" (ViT-B/32 trained on DataComp-XL), "bert" (base, uncased) or "gpt2", both by their mean last state.
    device : str

    Returns
    -------
    Encoders
        Images: ViT-B/32 trained on LAION-2B.
    """
    import open_clip

    reader, _, transform = open_clip.create_model_and_transforms(IMAGES[0], pretrained=IMAGES[1], device=device)
    if text == "clip":
        name, weights = TEXTS[text]
        writer = open_clip.create_model(name, pretrained=weights, device=device).eval()
        tokenizer = open_clip.get_tokenizer(name)
        return Encoders(
            reader.eval().encode_image, lambda texts: writer.encode_text(tokenizer(texts).to(device)), transform
        )
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(TEXTS[text])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    writer = transformers.AutoModel.from_pretrained(TEXTS[text]).to(device).eval()
    return Encoders(reader.eval().encode_image, mean_state(writer, tokenizer, device), transform)


def mean_state(model: Callable, tokenizer: Callable, device: str = "cpu") -> Callable[[list[str]], Tensor]:
    """The mean over the first 32 tokens of the last hidden state of a language model.

    Parameters
    ----------
    model : callable
        Takes input_ids and attention_mask, returns an object with last_hidden_state (n, tokens, d).
    tokenizer : callable
        Takes texts and the arguments padding, truncation, max_length, return_tensors.

    Returns
    -------
    callable
        A list of n texts to vectors (n, d).
    """

    def encode(texts):
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    return encode


def paper_sources(folder: str | Path) -> Sources:
    """The paper's data sets; all but ImageNet-Captions, Flickr8k and COCO are downloaded into the folder.

    Parameters
    ----------
    folder : path
        Has ``imagenet_captions_train_c250.csv`` and ``imagenet_captions_val_c250.csv`` (title and filepath, separated
        by tabs: the authors' lists of the 250 most frequent classes) with the images they name, ``flickr8k/`` (images
        and captions.csv with columns filepath and title) and ``coco/`` (val2017/ and captions_val2017.json).

    Returns
    -------
    Sources
        Retrieval takes the first caption of an image; VOC2007 is labeled by its largest object.
    """
    from torchvision import datasets

    folder = Path(folder)
    here = {"root": str(folder), "download": True}
    zero_shot = {
        "cifar10": datasets.CIFAR10(train=False, **here),
        "cifar100": datasets.CIFAR100(train=False, **here),
        "stl10": datasets.STL10(split="test", **here),
    }
    coco = datasets.CocoCaptions(str(folder / "coco/val2017"), str(folder / "coco/captions_val2017.json"))
    voc = datasets.VOCDetection(year="2007", image_set="test", **here)
    return Sources(
        CaptionTable(folder / "imagenet_captions_train_c250.csv", "\t"),
        CaptionTable(folder / "imagenet_captions_val_c250.csv", "\t"),
        {task: (data, data.classes) for task, data in zero_shot.items()},
        {
            "flickr8k": CaptionTable(folder / "flickr8k/captions.csv"),
            "coco": MapLabels(coco, lambda captions: captions[0]),
        },
        {
            "sst2": datasets.RenderedSST2(split="test", **here),
            "voc2007": MapLabels(voc, largest_object),
            "aircraft": datasets.FGVCAircraft(split="test", **here),
        },
    )


class CaptionTable:
    """Pairs (image, caption) from a table with columns filepath, relative to it, and title; one for each image."""

    def __init__(self, path: Path, delimiter: str = ","):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter))
        self.captions = {path.parent / row["filepath"]: row["title"] for row in reversed(rows)}

    def __iter__(self):
        from PIL import Image

        for path, caption in reversed(self.captions.items()):
            with Image.open(path) as image:
                yield image.convert("RGB"), caption


class MapLabels:
    """A data set with its labels changed."""

    def __init__(self, data: Iterable, change: Callable):
        self.data, self.change = data, change

    def __iter__(self):
        return ((image, self.change(label)) for image, label in self.data)


def largest_object(annotation: Mapping) -> str:
    """The name of the object with the largest box in an annotation of VOC."""

    def area(item):
        box = {side: float(value) for side, value in item["bndbox"].items()}
        return (box["xmax"] - box["xmin"]) * (box["ymax"] - box["ymin"])

    return max(annotation["annotation"]["object"], key=area)["name"]


@torch.inference_mode()
def paper_benchmark(
    sources: Sources,
    encoders: Encoders,
    *,
    device: str = "cpu",
    limit: int | None = None,
    batch_size: int = 256,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Benchmark:
    """Pass the data sets through the encoders.

    Parameters
    ----------
    sources : Sources
    encoders : Encoders
    device : str
    limit : int, optional
        Use at most so many examples of each data set.
    batch_size : int
        Of the encoders.
    progress : callable, optional
        Wraps the examples of a data set, as ``tqdm.tqdm`` does.

    Returns
    -------
    Benchmark
        For `balance.labs.contrastive.train`; its features are unit vectors, as in the authors' code. Classes are
        named in the sentence "a photo of a ...".

    Notes
    -----
    An image costs 4.4e9 multiply-adds in ViT-B/32, all 175,000 of ImageNet-Captions 8e14: minutes on a GPU, less than
    it takes to read them from a disk. The heads cost 4e12 multiply-adds for 5,000 iterations at batch size 512.
    """

    def encode(function, batch):
        return functional.normalize(function(batch).float(), dim=-1).cpu().numpy()

    def images_and(data):
        """Vectors of the images, and what stands beside them."""
        vectors, beside, examples = [], [], iter(progress(islice(data, limit)))
        while batch := list(islice(examples, batch_size)):
            images, labels = zip(*batch, strict=True)
            stacked = torch.stack([encoders.transform(image) for image in images])
            vectors.append(encode(encoders.images, stacked.to(device)))
            beside += labels
        return np.concatenate(vectors), beside

    def texts(sentences):
        batches = range(0, len(sentences), batch_size)
        return np.concatenate([encode(encoders.texts, list(sentences[i : i + batch_size])) for i in batches])

    def pairs(data):
        images, captions = images_and(data)
        return images, texts(captions)

    def labeled(data):
        images, labels = images_and(data)
        return images, np.unique(labels, return_inverse=True)[1] if isinstance(labels[0], str) else np.array(labels)

    images, captions = images_and(sources.train)
    return Benchmark(
        (images, texts(captions)),
        pairs(sources.held_out),
        {
            task: (*labeled(data), texts([PROMPT.format(name) for name in names]))
            for task, (data, names) in sources.zero_shot.items()
        },
        {task: pairs(data) for task, data in sources.retrieval.items()},
        {task: labeled(data) for task, data in sources.probes.items()},
        tuple(captions),
    )
