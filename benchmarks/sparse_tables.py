"""Balance sparse tables and records: `data_balance` beside what else a reader would write.

A table of 100,000 x 20,000 cells, 2,000,000 of them filled, 20 half-steps, beside a loop that multiplies SciPy's
diagonal matrices; and 1,000,000 weighted records of three variables, 30 half-steps, beside the package ipfn on a data
frame (`pip install ipfn pandas`; left out if it is not there). Run with one BLAS thread:

    OMP_NUM_THREADS=1 python benchmarks/sparse_tables.py
"""

import contextlib
import importlib.util
import io
import os
import platform
import time
import tracemalloc

import numpy as np
import scipy
from scipy import sparse

from balance import Records, data_balance

ROWS, COLUMNS, CELLS, STEPS = 100_000, 20_000, 2_000_000, 20
RECORDS, SIZES, RAKING = 1_000_000, (8, 50, 200), 30


def rewrite_table(table, row_target, column_target, sweeps):
    table = table / table.sum()
    for _ in range(sweeps):
        table = sparse.diags_array(row_target / table.sum(axis=1)) @ table
        table = table @ sparse.diags_array(column_target / table.sum(axis=0))
    return table


def rake_frame(codes, weights, targets, sweeps):
    import pandas as pd
    from ipfn import ipfn

    names = [f"v{axis}" for axis in range(len(codes))]
    frame = pd.DataFrame(dict(zip(names, codes, strict=True))).assign(total=weights)
    goals = [pd.Series(t, index=pd.Index(range(len(t)), name=n)) for n, t in zip(names, targets, strict=True)]
    rounds = ipfn.ipfn(frame, goals, [[n] for n in names], convergence_rate=0, max_iteration=sweeps, rate_tolerance=0)
    with contextlib.redirect_stdout(io.StringIO()):
        return rounds.iteration()["total"].to_numpy()


def seconds(function, *arguments, **options):
    """Return the best of three times, and the result."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        result = function(*arguments, **options)
        times.append(time.perf_counter() - began)
    return min(times), result


def peak(function, *arguments, **options):
    """Return the peak of the memory traced during a call, in megabytes."""
    tracemalloc.start()
    function(*arguments, **options)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


def main() -> None:
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, Python {platform.python_version()},", end=" ")
    print(f"{os.cpu_count()} cores; best of three")
    rng = np.random.default_rng(7)
    rows = np.concatenate([np.arange(ROWS), rng.integers(ROWS, size=CELLS - ROWS)])
    columns = np.concatenate([np.arange(ROWS) % COLUMNS, rng.integers(COLUMNS, size=CELLS - ROWS)])
    table = sparse.coo_array((rng.gamma(2.0, size=CELLS), (rows, columns)), shape=(ROWS, COLUMNS)).tocsr()
    targets = np.full(ROWS, 1 / ROWS), rng.dirichlet(np.full(COLUMNS, 20.0))
    loop, theirs = seconds(rewrite_table, table, *targets, STEPS // 2)
    ours, result = seconds(data_balance, table, targets, steps=STEPS)
    print(f"sparse   loop {loop:6.2f} s {peak(rewrite_table, table, *targets, STEPS // 2):6.0f} MB   ", end="")
    print(f"data_balance {ours:6.2f} s {peak(data_balance, table, targets, steps=STEPS):6.0f} MB   ", end="")
    print(f"{loop / ours:5.1f} times as fast; largest difference {abs(theirs - result.table).max():.0e}")
    codes = [rng.integers(n, size=RECORDS) for n in SIZES]
    weights, targets = rng.gamma(2.0, size=RECORDS), [rng.dirichlet(np.full(n, 20.0)) for n in SIZES]
    records = Records(*codes, weights=weights)
    ours, result = seconds(data_balance, records, targets, steps=RAKING)
    print(f"records  data_balance {ours:6.2f} s", end="")
    if importlib.util.find_spec("ipfn") is None:
        print("   (ipfn is not installed)")
        return
    frame, theirs = seconds(rake_frame, codes, weights, targets, RAKING // 3)
    print(f"   ipfn {frame:6.2f} s   {frame / ours:5.1f} times as fast;", end=" ")
    print(f"largest difference {np.abs(theirs - result.table.weights).max():.0e}")


if __name__ == "__main__":
    main()
