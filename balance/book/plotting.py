"""Primitives shared by the figures of several chapters. Needs matplotlib."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from numpy.typing import ArrayLike

# Okabe and Ito's palette, told apart with every common form of color blindness
COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#222222",
    "grey": "#888888",
}
BACKGROUND = "#FCFCFA"


def use_style() -> None:
    """Set the look of the book's figures: an opaque light ground that reads on light and dark pages."""
    mpl.rcParams.update(
        {
            "figure.facecolor": BACKGROUND,
            "axes.facecolor": BACKGROUND,
            "savefig.facecolor": BACKGROUND,
            "savefig.bbox": "tight",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 10.5,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=list(COLORS.values())[:6]),
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


def table_heatmap(
    ax: Axes,
    table: ArrayLike,
    rows: list[str] | None = None,
    columns: list[str] | None = None,
    fmt: str | None = "{:.2f}",
    vmax: float | None = None,
) -> None:
    """Draw a table of masses as a heat map, each cell with its value.

    Parameters
    ----------
    ax : matplotlib Axes
    table : array_like, shape (m, l)
        Entries >= 0.
    rows, columns : list of str, optional
        Labels of the values of X and of Y.
    fmt : str or None
        Format of the values; None draws none.
    vmax : float, optional
        Mass of the darkest color; the largest entry if not given.
    """
    table = np.asarray(table, dtype=float)
    vmax = table.max() if vmax is None else vmax
    ax.imshow(table, cmap="Blues", vmin=0, vmax=vmax, aspect="auto")
    ax.set_xticks(range(table.shape[1]), columns if columns is not None else [""] * table.shape[1])
    ax.set_yticks(range(table.shape[0]), rows if rows is not None else [""] * table.shape[0])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if fmt is None:
        return
    for (x, y), mass in np.ndenumerate(table):
        color = "white" if mass > 0.6 * vmax else COLORS["black"]
        ax.text(y, x, fmt.format(mass), ha="center", va="center", color=color)


def joint_with_margins(
    fig: Figure,
    table: ArrayLike,
    targets: tuple[ArrayLike, ArrayLike] | None = None,
    rows: list[str] | None = None,
    columns: list[str] | None = None,
    fmt: str | None = "{:.2f}",
    vmax: float | None = None,
) -> dict[str, Axes]:
    """Draw a table with its marginals as bars beside it and the targets as ticks on the bars.

    Returns
    -------
    dict
        The axes "joint", "x" (bars of the row marginal, right) and "y" (of the column marginal, above).
    """
    table = np.asarray(table, dtype=float)
    axes = fig.subplot_mosaic([["y", "."], ["joint", "x"]], width_ratios=(4, 1), height_ratios=(1, 3))
    table_heatmap(axes["joint"], table, rows, columns, fmt, vmax)
    m, l = table.shape
    axes["x"].barh(range(m), table.sum(axis=1), color=COLORS["sky"])
    axes["y"].bar(range(l), table.sum(axis=0), color=COLORS["sky"])
    axes["x"].set(ylim=(m - 0.5, -0.5), yticks=[], xticks=[0])
    axes["y"].set(xlim=(-0.5, l - 0.5), xticks=[], yticks=[0])
    if targets is not None:
        axes["x"].vlines(targets[0], np.arange(m) - 0.4, np.arange(m) + 0.4, color=COLORS["red"])
        axes["y"].hlines(targets[1], np.arange(l) - 0.4, np.arange(l) + 0.4, color=COLORS["red"])
    return axes
