"""Draw the picture of the landing page: an estimate before and after balancing.

The population is a real table of hair and eye color. Its two margins are known; the
estimand is the share of the people who are blond and blue-eyed.
Run `.venv/bin/python book/tools/landing.py` after `make book`, which installs the
package; it writes book/assets/landing.svg, byte for byte the same each time.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from balance import data_balance, marginal
from balance.batched import balanced_means
from balance.book import plotting
from balance.datasets import load_table

TARGET = Path(__file__).resolve().parents[1] / "assets" / "landing.svg"
PEOPLE, SAMPLES, STEPS = 100, 10_000, 8


def draw_tables(fig, sample, balanced, margins, data) -> None:
    """One sample before and after: a bar for each margin, a tick where it should be."""
    titles = f"One sample of {PEOPLE} people", "The same sample, balanced"
    vmax = max(sample.max(), balanced.max())
    parts = fig.subfigures(1, 2)
    for part, table, title in zip(parts, (sample, balanced), titles, strict=True):
        axes = plotting.joint_with_margins(
            part, table, margins, data.rows, data.columns, vmax=vmax
        )
        axes["y"].set(title=title, yticks=[])
        axes["x"].set(xticks=[])


def draw_estimates(ax, before, after, truth) -> None:
    """The sampling distribution of the estimate, before and after."""
    bins = np.arange(0.5, 40) / PEOPLE
    for name, values, color in (("before", before, "orange"), ("after", after, "blue")):
        color = plotting.COLORS[color]
        label = f"{name} balancing\n(standard deviation {values.std():.3f})"
        style = {"histtype": "stepfilled", "fc": (color, 0.35), "ec": color, "lw": 1.8}
        ax.hist(values, bins, label=label, **style)
    ax.axvline(
        truth, color=plotting.COLORS["black"], lw=1.2, ls="--", label="true share"
    )
    ax.set(xlim=(0.03, 0.36), yticks=[], title=f"The estimate from {SAMPLES:,} samples")
    ax.set_xlabel("estimated share of the blond and blue-eyed")
    ax.spines["left"].set_visible(False)
    ax.legend(loc="upper right", labelspacing=0.8)


def picture() -> Figure:
    data = load_table("hair_eye")
    population = data.counts / data.counts.sum()
    margins = marginal(population, 0), marginal(population, 1)
    cell = data.rows.index("blond"), data.columns.index("blue")
    indicator = np.zeros_like(population)
    indicator[cell] = 1
    rng = np.random.default_rng(7)
    samples = rng.multinomial(PEOPLE, population.ravel(), size=SAMPLES)
    samples = samples.reshape(SAMPLES, *population.shape)
    estimates = balanced_means(samples, indicator, margins, steps=STEPS).values

    plotting.use_style()
    fig = Figure(figsize=(7.2, 5.9))
    upper, lower = fig.subfigures(2, 1)
    balanced = data_balance(samples[0], margins, steps=STEPS).table
    draw_tables(upper, samples[0] / PEOPLE, balanced, margins, data)
    draw_estimates(
        lower.subplots(), estimates[:, 0], estimates[:, -1], population[cell]
    )
    return fig


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    mpl.rcParams["svg.hashsalt"] = "landing"
    picture().savefig(target, metadata={"Date": None})
    print(target)


if __name__ == "__main__":
    main()
