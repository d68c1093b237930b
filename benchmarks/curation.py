"""Curate a table of the paper's size, 87,235 captions x 18,300 keywords with 209,382 matches, and match its captions.

The table is synthetic: keywords by Zipf's law, every caption and every keyword matched at least once. Beside the
sparse computation: the same two steps on a dense slice (the whole table, 12.8 GB in double precision, is not
allocated), and a loop over the captions in plain Python. Matching is timed on captions made of the table's keywords
with words between them, beside asking of every keyword whether it is in the caption. Peak memory is what a step
allocates (tracemalloc, in a second run that is not timed).

    OMP_NUM_THREADS=1 python benchmarks/curation.py
"""

import os
import platform
import resource
import time
import tracemalloc
from collections import Counter

import numpy as np
import scipy
from scipy.sparse import csr_array

from balance.curation import curate, match_keywords
from balance.projections import project
from balance.sampling import resample

CAPTIONS, KEYWORDS, MATCHES = 87_235, 18_300, 209_382
CAP, SLICE, SAMPLE = 50, 2_000, 100


def paper_size(rng: np.random.Generator) -> csr_array:
    """A table with as many captions, keywords and matches as in the paper."""
    law = 1 / np.arange(1, KEYWORDS + 1)
    captions = np.concatenate([np.arange(CAPTIONS), rng.integers(CAPTIONS, size=2 * MATCHES)])
    keywords = rng.choice(KEYWORDS, size=len(captions), p=law / law.sum())
    keywords[:KEYWORDS] = np.arange(KEYWORDS)
    first = np.sort(np.unique(captions * KEYWORDS + keywords, return_index=True)[1])[:MATCHES]
    return csr_array((np.ones(MATCHES, np.int64), (captions[first], keywords[first])), shape=(CAPTIONS, KEYWORDS))


def curate_by_loop(rows: list[list[int]], cap: float) -> list[float]:
    """The masses of the captions, without arrays."""
    counts, shares = Counter(), Counter()
    for row in rows:
        for keyword in row:
            counts[keyword] += 1
            shares[keyword] += 1 / len(row)
    total = sum(min(count, cap) for count in counts.values())
    worth = {keyword: min(count, cap) / total / shares[keyword] for keyword, count in counts.items()}
    return [sum(worth[keyword] for keyword in row) / len(row) for row in rows]


def curate_dense(table: np.ndarray, cap: float) -> np.ndarray:
    """The masses of the captions, by two projections of the dense table."""
    target = np.minimum(table.sum(0), cap)
    matched = table.any(1).astype(float)
    return project(project(table, matched, axis=0), target, axis=1).sum(1)


def measured(name, function):
    """Run a function twice, for its time and for the peak of what it allocates; print and return both."""
    began = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - began
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{name:46s}{seconds:9.3f} s{peak / 1e6:10.1f} MB")
    return result, seconds, peak


def main() -> None:
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, Python {platform.python_version()},", end=" ")
    print(f"{os.cpu_count()} cores")
    table, *built = measured("synthetic table", lambda: paper_size(np.random.default_rng(7)))
    curation, *curated = measured("two steps, capped target", lambda: curate(table, CAP))
    _, *drawn = measured("draw as many with replacement", lambda: draw(curation, True))
    seconds, peaks = zip(built, curated, drawn, strict=True)
    print(
        f"{'these three':46s}{sum(seconds):9.3f} s{max(peaks) / 1e6:10.1f} MB; the process, with its libraries,",
        end=" ",
    )
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    measured("20 steps", lambda: curate(table, CAP, steps=20))
    measured("draw half without replacement", lambda: draw(curation, False))
    rows = [table.indices[a:b].tolist() for a, b in zip(table.indptr, table.indptr[1:], strict=False)]
    looped, *_ = measured("two steps in plain Python", lambda: curate_by_loop(rows, CAP))
    print(f"largest difference of a mass {np.abs(looped - curation.weights).max():.1e}")

    part = table[:SLICE].toarray().astype(float)
    dense, seconds, peak = measured(f"dense, first {SLICE:,} captions", lambda: curate_dense(part, CAP))
    print(f"largest difference of a mass {np.abs(dense - curate(table[:SLICE], CAP).weights).max():.1e}")
    whole = 8 * CAPTIONS * KEYWORDS
    print(f"the dense table {whole / 1e9:.1f} GB; dense steps on all captions, in proportion,", end=" ")
    print(f"{seconds * CAPTIONS / SLICE:.0f} s and {(peak + part.nbytes) * CAPTIONS / SLICE / 1e9:.0f} GB")

    names = [f"word{column}" for column in range(KEYWORDS)]
    texts = [" ".join(f"a {names[column]}, with" for column in row) for row in rows]
    found, seconds, _ = measured("match by Aho-Corasick", lambda: match_keywords(texts, names))
    assert (found != table).nnz == 0
    sample = np.random.default_rng(7).choice(CAPTIONS, SAMPLE, replace=False)
    spaced = [f" {texts[i].replace(',', ' , ')} " for i in sample]
    asked = [f" {name} " for name in names]
    began = time.perf_counter()
    slow = [[column for column, word in enumerate(asked) if word in text] for text in spaced]
    loop = (time.perf_counter() - began) * CAPTIONS / SAMPLE
    assert slow == [sorted(rows[i]) for i in sample]
    print(f"match by asking for each keyword, in proportion{loop:8.0f} s, {loop / seconds:.0f} times as long")


def draw(curation, replace):
    size = CAPTIONS if replace else CAPTIONS // 2
    return resample(curation.weights, size, replace=replace, rng=np.random.default_rng(7))


if __name__ == "__main__":
    main()
