"""The icons as a benchmark of contrastive training (chapters 7 and 9). Needs torch."""

import numpy as np

from balance.datasets import icons
from balance.labs.contrastive import Benchmark


def icon_benchmark(encoder: str = "good", *, brands: bool = False, limit: int | None = None) -> Benchmark:
    """The icons as a benchmark: three tasks of classification, two of retrieval, three probes.

    Parameters
    ----------
    encoder : str
        Of the texts: "good", "medium" or "poor"; see `balance.datasets.icons.text_vectors`.
    brands : bool
        Whether logos with the names of brands are added to the training pairs, after the others; nothing else
        changes. Their names have vectors of the "good" encoder only.
    limit : int, optional
        Use at most so many icons of each part, for tests.

    Returns
    -------
    Benchmark
        Every tenth training icon is held out. Retrieval is among the first 1,000 distinct captions of a part. The
        probes ask for the digit, for the heading of a medical icon, and for the set that an icon is drawn in.

    Raises
    ------
    ValueError
        If there is no such encoder, or brands are asked for with another than "good".
    """
    if brands and encoder != "good":
        raise ValueError(f"encoder = {encoder!r}: the names of brands have vectors of the encoder 'good' only")
    names = ("train", "artists", "medical", "brands")[: 4 if brands else 3]
    parts = {part: icons.load_icons(part) for part in names}
    rows = {part: _shuffled(len(data))[:limit] for part, data in parts.items()}
    encode = icons.ImageEncoder.fit(parts["train"].images[rows["train"][:5000]])
    images = {part: encode(data.images[rows[part]]) for part, data in parts.items()}
    captions = {part: [data.captions[i] for i in rows[part]] for part, data in parts.items()}
    texts = {part: icons.text_vectors(captions[part], encoder) for part in parts}

    def pairs(part, where):
        return images[part][where], texts[part][where]

    zero_shot, retrieval = {}, {}
    for task in ("artists", "medical", "digits"):
        classes = icons.load_classes(task)
        where = _shuffled(len(classes.labels))[:limit]
        vectors = icons.text_vectors(classes.texts, encoder)
        zero_shot[task] = encode(classes.images[where]), classes.labels[where], vectors
    for task in ("artists", "medical"):
        distinct = np.sort(np.unique(captions[task], return_index=True)[1])[:1000]
        retrieval[task] = pairs(task, distinct)
    sets = np.unique([parts["artists"].sets[i] for i in rows["artists"]], return_inverse=True)[1]
    probes = {"digits": zero_shot["digits"][:2], "medical": zero_shot["medical"][:2], "sets": (images["artists"], sets)}
    held = np.arange(len(rows["train"])) % 10 == 0
    known, names = pairs("train", ~held), tuple(np.array(captions["train"])[~held].tolist())
    if brands:
        known = tuple(map(np.concatenate, zip(known, pairs("brands", ...), strict=True)))
        names += tuple(captions["brands"])
    return Benchmark(known, pairs("train", held), zero_shot, retrieval, probes, names)


def _shuffled(size):
    return np.random.default_rng(0).permutation(size)
