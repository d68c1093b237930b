"""Measuring the cells of a grid that a table of results lacks, on two processes."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch

from balance.datasets.results import Writer


def complete(name: str, grid: Sequence[dict], measure: Callable[[dict], list[dict]], packages: Iterable[str]) -> None:
    """Measure each cell of the grid that is not in the table, and write its rows when they are there."""
    writer = Writer(name, grid[0], "make experiments", packages)
    missing = [cell for cell in grid if cell not in writer]
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(min(2, os.cpu_count())) as pool:
        for done, rows in enumerate(pool.imap_unordered(partial(_one_thread, measure), missing), 1):
            writer.add(rows)
            print(f"{name}: {done} of {len(missing)} cells, {time.monotonic() - start:.0f} s", flush=True)


def _one_thread(measure, cell):
    torch.set_num_threads(1)
    return measure(cell)
