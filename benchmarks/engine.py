"""The engine beside what else a reader would use: one run, one thread, the same answers first.

    make bench                                    # all tasks; writes benchmarks/results/
    make bench ARGS="dense records --quick"       # some tasks, small sizes; prints only

Peers come from requirements-bench.txt; one that is not installed is left out. See side_by_side.py for how it is
measured. A sweep is a column half-step and a row half-step, in this order: that of POT.
"""

import argparse
import contextlib
import importlib.util
import io
import math
import time
import tracemalloc
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.special import logsumexp
from side_by_side import Arm, Row, left_out, measure, on_one_thread, write

from balance import Records, Scores, data_balance
from balance.batched import balance_many

SWEEPS = 10
EXACT = 1e-10  # for arms that do the same half-steps
RESULTS = Path(__file__).parent / "results"


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def dense_problem(rng, n):
    """A full table and marginals that it does not have."""
    return rng.gamma(2.0, size=(n, n)) + 0.01, rng.dirichlet(np.full(n, 20.0)), rng.dirichlet(np.full(n, 20.0))


def rewrite_table(table, p, q, sweeps, first=1):
    """The loop of the paper's code: each half-step writes the table anew."""
    table = table / table.sum()
    for step in range(2 * sweeps):
        table = table * (q / table.sum(axis=0) if (first + step) % 2 else (p / table.sum(axis=1))[:, None])
    return table


# 1. Dense


def dense(quick: bool) -> list[Row]:
    """A full n x n table, 10 sweeps (`steps=20`).

    POT makes its kernel from the cost, sweeps and writes the table. Ten bare reads are `K.sum()` ten times: a table
    that does not fit the cache cannot be swept faster.
    """
    rows = []
    for n in (100, 250) if quick else (100, 250, 500, 1000, 2000, 4000):
        K, p, q = dense_problem(np.random.default_rng(n), n)
        arms = {
            "balance, scalings": Arm(
                lambda K=K, p=p, q=q: data_balance(K, (p, q), steps=2 * SWEEPS, first=1), lambda r: r.table
            ),
            "balance, with the table": Arm(
                lambda K=K, p=p, q=q: data_balance(K, (p, q), steps=2 * SWEEPS, first=1).table
            ),
            "the paper's loop": Arm(lambda K=K, p=p, q=q: rewrite_table(K, p, q, SWEEPS)),
            "ten bare reads": Arm(lambda K=K: [K.sum() for _ in range(SWEEPS)], None),
        }
        if installed("ot"):
            arms["POT sinkhorn"] = pot(K, p, q, SWEEPS, 0.0)
        rows += measure("dense", f"{n} x {n}", arms, tolerance=EXACT)
    return rows


def pot(K, p, q, sweeps, threshold, method="sinkhorn", scores=None):
    """POT for the kernel K; its cost, the negative logarithm, is made before."""
    import ot

    cost = -np.log(K) if scores is None else -scores
    options = {"method": method, "numItermax": sweeps, "stopThr": threshold, "warn": False}
    return Arm(lambda: ot.sinkhorn(p, q, cost, 1.0, **options))


# 2. To a tolerance


def tilted(rng, law):
    """The law with its rows and columns multiplied by random factors, and its marginals as targets.

    Balancing leads back to the law, at the rate that its singular values give.
    """
    n = len(law)
    factors = rng.lognormal(sigma=0.5, size=(2, n))
    return law * factors[0][:, None] * factors[1], law.sum(axis=1), law.sum(axis=0)


def signs(s, n):
    """A law with uniform marginals and one singular value, s, beside 1."""
    sign = np.where(np.arange(n) % 2, 1.0, -1.0)
    return (1 + s * np.outer(sign, sign)) / n**2


def normal(s, n):
    """The density of two normal variables of correlation s on a grid: singular values near s, s^2, s^3, ..."""
    x = np.linspace(-3, 3, n)
    law = np.exp(-(x[:, None] ** 2 - 2 * s * np.outer(x, x) + x**2) / (2 * (1 - s**2)))
    return law / law.sum()


def error(table, p, q):
    """The total variation of the worse marginal."""
    return max(np.abs(table.sum(axis=1) - p).sum(), np.abs(table.sum(axis=0) - q).sum()) / 2


def sweeps_needed(K, p, q, tol, limit=5000):
    """The number of plain sweeps until both marginals are right up to the tolerance."""
    u = np.ones(len(p)) / K.sum()
    for sweep in range(limit):
        v = q / (u @ K)
        u = p / (K @ v)
        if np.abs(v * (u @ K) - q).sum() / 2 <= tol:
            return sweep + 1
    raise AssertionError(f"more than {limit} sweeps")


def loosest(solve, good):
    """The largest stopping threshold of a peer, a power of the root of 10, that gives a good answer."""
    for half in range(2, 40):
        if good(solve(10 ** (-half / 2)).run()):
            return 10 ** (-half / 2)
    raise AssertionError("no threshold is small enough")


def tolerance(quick: bool) -> list[Row]:
    """Until the total variation of the worse marginal is at most 1e-9, by the second singular value s of the limit.

    POT looks at its own error every tenth sweep; it gets the largest threshold with which its table passes, found
    before anything is timed, and in a further arm the smallest number of sweeps that passes, which nobody knows.
    """
    rows, tol, n = [], 1e-9, 200 if quick else 1000
    for law in (signs, normal):
        for s in (0.5, 0.9) if quick else (0.5, 0.7, 0.9, 0.95):
            K, p, q = tilted(np.random.default_rng(7), law(s, n))
            sweeps = sweeps_needed(K, p, q, tol)

            def passes(table, p=p, q=q):
                return error(table, p, q) <= tol

            def ours(K=K, p=p, q=q, **stop):
                result = data_balance(K, (p, q), first=1, **stop)
                assert max(result.errors) <= 1.001 * tol, result.message
                return result

            arms = {
                "balance, tol": Arm(lambda f=ours: f(tol=tol), lambda r: r.table),
                "balance, plain half-steps": Arm(lambda f=ours, k=2 * sweeps: f(steps=k), lambda r: r.table),
            }
            if installed("ot"):
                threshold = loosest(lambda x, K=K, p=p, q=q: pot(K, p, q, 100_000, x), passes)
                arms[f"POT, stopThr={threshold:.0e}"] = pot(K, p, q, 100_000, threshold)
                arms[f"POT, told {sweeps} sweeps"] = pot(K, p, q, sweeps, 0.0)
            # Two tables with marginals right to 1e-9 differ by about 1e-9 / (1 - s^2), in a small cell by more.
            rows += measure("tolerance", f"{law.__name__}, s = {s}", arms, tolerance=1e-6)
    return rows


# 3. Sparse


def sparse_problem(rng, cells):
    """A table with this many cells filled, about 20 in a row; no row and no column is empty."""
    m, l = cells // 20, cells // 100
    rows = np.concatenate([np.arange(m), rng.integers(m, size=cells - m)])
    columns = np.concatenate([np.arange(m) % l, rng.integers(l, size=cells - m)])
    table = sparse.coo_array((rng.gamma(2.0, size=cells) + 0.01, (rows, columns)), shape=(m, l)).tocsr()
    return table, np.full(m, 1 / m), rng.dirichlet(np.full(l, 20.0))


def multiply_diagonals(table, p, q, sweeps):
    """The loop over whole tables, with SciPy's diagonal matrices."""
    table = table / table.sum()
    for _ in range(sweeps):
        table = table @ sparse.diags_array(q / table.sum(axis=0))
        table = sparse.diags_array(p / table.sum(axis=1)) @ table
    return table


def two_copies(A, p, q, sweeps):
    """The loop over scaling vectors, with a compressed copy for either direction; returns a table too."""
    B = A.T.tocsr()
    u = np.ones(A.shape[0]) / A.sum()
    for _ in range(sweeps):
        v = q / (B @ u)
        u = p / (A @ v)
    data = A.data * np.repeat(u, np.diff(A.indptr)) * v[A.indices]
    return sparse.csr_array((data, A.indices, A.indptr), shape=A.shape)


def peak(function) -> float:
    """The peak of the memory that a call allocates, in megabytes."""
    tracemalloc.start()
    result = function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del result
    return most / 1e6


def sparse_tables(quick: bool) -> list[Row]:
    """A sparse table with this many cells filled, 20 sweeps, and the balanced table. Peak: what the call allocates."""
    rows = []
    for cells in (10**5,) if quick else (10**5, 10**6, 10**7):
        A, p, q = sparse_problem(np.random.default_rng(7), cells)
        calls = {
            "balance": lambda A=A, p=p, q=q: data_balance(A, (p, q), steps=40, first=1).table,
            "two compressed copies": lambda A=A, p=p, q=q: two_copies(A, p, q, 20),
            "diagonal matrices": lambda A=A, p=p, q=q: multiply_diagonals(A, p, q, 20),
        }
        memory = {name: peak(call) for name, call in calls.items()}
        arms = {name: Arm(call, lambda r: sparse.csr_array(r).sorted_indices().data) for name, call in calls.items()}
        rows += measure("sparse", f"{A.nnz:.1e} cells", arms, tolerance=EXACT, megabytes=memory)
    return rows


# 4. Many small tables


def many(quick: bool) -> list[Row]:
    """Sampled tables in chunks, 8 half-steps, the first on the rows; microseconds for one table.

    Drawing is not timed. `balance_many` gives scaling vectors, as much as an estimate needs.
    """
    rows = []
    for size, sample, chunk, number in ((50, 5000, 2000, 100_000), (4, 200, 20_000, 200_000)):
        rng = np.random.default_rng(7)
        law = rng.random((size, size)) + 0.2
        law /= law.sum()
        p, q = targets = law.sum(axis=1), law.sum(axis=0)

        def draw(rng=rng, law=law, sample=sample, chunk=chunk):
            while True:
                tables = rng.multinomial(sample, law.ravel(), size=chunk).reshape(-1, *law.shape) / sample
                if tables.sum(axis=1).all() and tables.sum(axis=2).all():
                    return (tables,)

        def loop(tables, p=p, q=q):
            return [rewrite_table(table, p, q, 4, first=0) for table in tables]

        arms = {
            "balance_many, scalings": Arm(lambda t, g=targets: balance_many(t, g, steps=8), lambda r: r.table),
            "balance_many, with the tables": Arm(lambda t, g=targets: balance_many(t, g, steps=8).table),
            "the paper's loop": Arm(loop),
        }
        rounds = 3 if quick else number // chunk
        case = f"{rounds * chunk} of {size} x {size}"
        rows += measure("many", case, arms, tolerance=EXACT, draw=draw, runs=(rounds, rounds), per=chunk)
    return rows


# 5. Records


def rake(codes, weights, targets, sweeps):
    """The loop over records with `np.bincount`."""
    weights = weights / weights.sum()
    for _ in range(sweeps):
        for code, target in zip(codes, targets, strict=True):
            weights = weights * (target / np.bincount(code, weights, len(target)))[code]
    return weights


def rake_frame(frame, targets, sweeps):
    """The package ipfn on a data frame, which it changes."""
    import pandas as pd
    from ipfn import ipfn

    goals = [pd.Series(t, index=pd.Index(range(len(t)), name=name)) for name, t in targets.items()]
    # It does one round more than max_iteration says.
    options = {"convergence_rate": 0, "max_iteration": sweeps - 1, "rate_tolerance": -1}
    with contextlib.redirect_stdout(io.StringIO()):
        done = ipfn.ipfn(frame.copy(), goals, [[name] for name in targets], **options).iteration()
    return done["total"].to_numpy()


def records(quick: bool) -> list[Row]:
    """Weighted records of four variables, 12 half-steps (3 for each variable), balanced weights.

    The last case has more cells than records, so that equal records are rare: there is nothing to aggregate.
    """
    small, large, rows, slow = (6, 2, 50, 8), (600, 200, 500, 80), [], 0.0
    cases = [(10**4, small), (10**5, small)] if quick else [(10**5, small), (10**6, small), (10**7, small)]
    for number, sizes in [*cases, (cases[1][0], large)]:
        rng = np.random.default_rng(7)
        codes = [rng.integers(n, size=number) for n in sizes]
        weights, targets = rng.gamma(2.0, size=number), [rng.dirichlet(np.full(n, 20.0)) for n in sizes]
        case = f"{number:.0e} records, {math.prod(sizes):.0e} cells"

        def ours(codes=codes, weights=weights, targets=targets):
            return data_balance(Records(*codes, weights=weights), targets, steps=12).weights

        arms = {"balance": Arm(ours), "np.bincount": Arm(lambda c=codes, w=weights, t=targets: rake(c, w, t, 3))}
        if not (installed("ipfn") and installed("pandas")):
            rows += measure("records", case, arms, tolerance=EXACT)
            continue
        import pandas as pd

        named = {f"v{axis}": target for axis, target in enumerate(targets)}
        frame = pd.DataFrame(dict(zip(named, codes, strict=True))).assign(total=weights)
        arms["balance, of a data frame"] = Arm(
            lambda f=frame, t=named: data_balance(Records(f, weights="total"), t, steps=12).weights
        )
        # A run for each category; larger tables than the time allows are left out.
        rate = slow * number * sum(sizes)
        if rate > 300:
            rows += measure("records", case, arms, tolerance=EXACT)
            rows.append(left_out("records", case, "ipfn", f"left out: about {rate:.0f} s"))
            continue
        arms["ipfn"] = Arm(lambda f=frame, t=named: rake_frame(f, t, 3))
        found = measure("records", case, arms, tolerance=EXACT, runs=(2, 30))
        slow = found[3].best / number / sum(sizes)
        rows += found
    return rows


# 6. Logarithms


def rewrite_logs(scores, p, q, sweeps):
    """The loop over potentials, with SciPy's logsumexp; returns logarithms."""
    f, log_p, log_q = np.zeros(len(p)), np.log(p), np.log(q)
    for _ in range(sweeps):
        g = log_q - logsumexp(scores + f[:, None], axis=0)
        f = log_p - logsumexp(scores + g, axis=1)
    return scores + f[:, None] + g


def logarithms(quick: bool) -> list[Row]:
    """Scores of m x m (20 times a cosine of random vectors), uniform marginals.

    First 10 sweeps. Then geomloss, which averages the two directions and anneals over the iterations that it is
    given: its error falls like one over their number. It gets 64, and the others are asked for the error that it
    then has, as the total variation of the worse marginal.
    """
    rows = []
    for m in (128, 256) if quick else (128, 256, 512, 1024, 2048, 4096):
        rng = np.random.default_rng(m)
        x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, m, 32)))
        S, p = 20 * x @ y.T, np.full(m, 1 / m)
        arms = {
            "balance": Arm(lambda S=S, p=p: data_balance(Scores(S), (p, p), steps=2 * SWEEPS, first=1).table, np.exp),
            "SciPy's logsumexp": Arm(lambda S=S, p=p: rewrite_logs(S, p, p, SWEEPS), np.exp),
        }
        if installed("ot"):
            arms["POT sinkhorn_log"] = pot(None, p, p, SWEEPS, 0.0, "sinkhorn_log", S)
        rows += measure("logarithms", f"{m} x {m}, 10 sweeps", arms, tolerance=EXACT, runs=(2, 30))
        if m <= 1024 and installed("geomloss"):
            rows += as_good_as_geomloss(S, p, m)
    return rows


def as_good_as_geomloss(S, p, m):
    from geomloss import ot

    def solve():
        return np.asarray(ot.solve(-S, reg=1.0, a=p, b=p, max_iter=64).plan)

    tol = error(solve(), p, p)

    def passes(table):
        return error(table, p, p) <= tol

    arms = {"balance, tol": Arm(lambda: data_balance(Scores(S), (p, p), tol=tol, first=1).table, np.exp)}
    assert passes(np.exp(arms["balance, tol"].run()))
    if installed("ot"):
        threshold = loosest(lambda x: pot(None, p, p, 10_000, x, "sinkhorn_log", S), passes)
        arms[f"POT, stopThr={threshold:.0e}"] = pot(None, p, p, 10_000, threshold, "sinkhorn_log", S)
    arms["geomloss, 64 iterations"] = Arm(solve)
    # All of them stop far from the limit, each elsewhere.
    return measure("logarithms", f"{m} x {m}, to {tol:.0e}", arms, tolerance=0.2, runs=(2, 30))


# 7. The contrastive loss


def clip_loss():
    """The loss of open_clip, from its file: the package itself needs all that its networks need."""
    found = importlib.util.find_spec("open_clip")
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(found.origin).with_name("loss.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ClipLoss()


def plain_loss(scores, steps):
    """The loss after some half-steps as one writes it in PyTorch: each rewrites the logarithms of the table."""
    loss, m = 0.0, len(scores)
    for first in (0, 1):
        logs = scores - scores.logsumexp((0, 1))
        for step in range(steps):
            axis = (first + step) % 2
            logs = logs - logs.logsumexp(1 - axis, keepdim=True) - math.log(m)
        loss = loss - (logs.diagonal().mean() + math.log(m)) / 2
    return loss


def contrastive(quick: bool) -> list[Row]:
    """The contrastive loss of m pairs in 512 dimensions after k half-steps, forward and backward, float32.

    From normalized features and the scale to the loss and the gradients of all three. Their values and gradients
    are compared. k = 1 is the loss of CLIP; k = 0 has no half-step.
    """
    if not installed("torch"):
        return [left_out("contrastive", "", "", "PyTorch is not installed")]
    import torch

    from balance.contrastive import balanced_loss

    torch.set_num_threads(1)
    rows = []
    for m in (128, 256) if quick else (128, 256, 512, 1024, 2048, 4096):
        torch.manual_seed(m)
        x = torch.nn.functional.normalize(torch.randn(m, 512), dim=1)
        y = torch.nn.functional.normalize(x + 0.05 * torch.randn(m, 512), dim=1)
        leaves = [v.requires_grad_() for v in (x, y, torch.tensor(1 / 0.07))]

        def derive(loss, leaves=leaves):
            value = loss(*leaves)
            return [value, *torch.autograd.grad(value, leaves)]

        def arm(loss, derive=derive):
            return Arm(lambda: derive(loss), lambda values: [v.detach().numpy() for v in values])

        for k in (0, 1, 2, 4):
            arms = {
                "balance": arm(lambda x, y, scale, k=k: balanced_loss(scale * x @ y.T, steps=k)),
                "PyTorch, written out": arm(lambda x, y, scale, k=k: plain_loss(scale * x @ y.T, k)),
            }
            if k == 1 and installed("open_clip"):
                arms["open_clip ClipLoss"] = arm(clip_loss())
            # float32: seven digits in a sum of m terms
            rows += measure("contrastive", f"m = {m}, k = {k}", arms, tolerance=1e-3, seconds=2.0)
    return rows


TASKS = {
    "dense": dense,
    "tolerance": tolerance,
    "sparse": sparse_tables,
    "many": many,
    "records": records,
    "logarithms": logarithms,
    "contrastive": contrastive,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="task", help=f"some of {', '.join(TASKS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--out", type=Path, help="folder of engine.json and engine.md")
    given = parser.parse_args()
    if unknown := set(given.tasks) - set(TASKS):
        parser.error(f"there is no task {', '.join(sorted(unknown))}: choose from {', '.join(TASKS)}")
    on_one_thread()
    began, rows = time.perf_counter(), []
    for name in given.tasks or TASKS:
        rows += TASKS[name](given.quick)
    print(f"{time.perf_counter() - began:.0f} s")
    # The stored table is of one whole run.
    out = given.out or (None if given.tasks or given.quick else RESULTS)
    if out:
        write(rows, out, {name: task.__doc__ for name, task in TASKS.items()})
    if any(row.note.startswith("WRONG") for row in rows):
        raise SystemExit("some answers differ")


if __name__ == "__main__":
    main()
