"""Balance 100,000 sampled 50 x 50 tables, 8 half-steps: `balance_many` beside a loop over single tables.

The loop is the algorithm of the paper's code: whole sweeps, each a row step and a column step that rewrite the table.
Both get the same tables in chunks of 2,000; drawing them is not counted. `balance_many` gives scaling vectors, as much
as an estimate needs; the third line adds the time for writing out the balanced tables. Run with one BLAS thread:

    OMP_NUM_THREADS=1 python benchmarks/many_tables.py [number of tables]
"""

import os
import platform
import sys
import time

import numpy as np

from balance.batched import balance_many

SIZE, SAMPLE, STEPS, CHUNK = 50, 5_000, 8, 2_000


def rewrite_table(table, row_target, column_target, sweeps):
    for _ in range(sweeps):
        table = table * (row_target / table.sum(axis=1))[:, None]
        table = table * (column_target / table.sum(axis=0))
    return table


def main(number: int) -> None:
    rng = np.random.default_rng(7)
    law = rng.random((SIZE, SIZE)) + 0.2
    law /= law.sum()
    targets = (law.sum(axis=1), law.sum(axis=0))
    seconds, largest = {"loop": 0.0, "balance_many": 0.0, "with the tables": 0.0}, 0.0
    for _ in range(number // CHUNK):
        counts = rng.multinomial(SAMPLE, law.ravel(), size=CHUNK).reshape(-1, SIZE, SIZE)
        tables = counts / SAMPLE
        began = time.perf_counter()
        many = balance_many(tables, targets, steps=STEPS)
        scaled = time.perf_counter()
        ours = many.tables
        written = time.perf_counter()
        loop = [rewrite_table(table, *targets, STEPS // 2) for table in tables]
        seconds["loop"] += time.perf_counter() - written
        seconds["balance_many"] += scaled - began
        seconds["with the tables"] += written - began
        largest = max(largest, np.abs(ours - loop).max())
    print(f"{number} tables {SIZE} x {SIZE}, {STEPS} half-steps; numpy {np.__version__},", end=" ")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    for name, spent in seconds.items():
        print(f"{name:16s}{spent:8.2f} s {1e6 * spent / number:7.1f} microseconds a table", end="")
        print(f"{seconds['loop'] / spent:7.1f} times as fast as the loop")
    print(f"largest difference of a cell {largest:.1e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
