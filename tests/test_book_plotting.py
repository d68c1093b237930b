"""Tests of balance.book.plotting: the drawn numbers are the numbers of the table."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from balance.book import plotting

TABLE = np.array([[0.1, 0.2, 0.05], [0.3, 0.05, 0.3]])


def test_heatmap_shows_each_cell_with_its_labels():
    ax = Figure().subplots()
    plotting.table_heatmap(ax, TABLE, rows=["a", "b"], columns=["c", "d", "e"])
    assert (ax.images[0].get_array() == TABLE).all()
    texts = {t.get_position(): t.get_text() for t in ax.texts}
    assert texts[1, 0] == "0.20" and texts[0, 1] == "0.30" and len(texts) == 6
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["c", "d", "e"]


def test_heatmap_without_values_and_with_a_fixed_scale():
    ax = Figure().subplots()
    plotting.table_heatmap(ax, TABLE, fmt=None, vmax=0.5)
    assert not ax.texts and ax.images[0].get_clim() == (0, 0.5)


def test_heatmap_text_contrasts_with_its_cell():
    ax = Figure().subplots()
    plotting.table_heatmap(ax, TABLE)
    colors = {t.get_position(): t.get_color() for t in ax.texts}
    assert colors[0, 1] == "white" and colors[0, 0] == plotting.COLORS["black"]


def test_margins_are_the_sums_and_ticks_the_targets():
    targets = [0.4, 0.6], [0.2, 0.3, 0.5]
    axes = plotting.joint_with_margins(Figure(), TABLE, targets)
    assert [bar.get_width() for bar in axes["x"].patches] == pytest.approx(TABLE.sum(axis=1))
    assert [bar.get_height() for bar in axes["y"].patches] == pytest.approx(TABLE.sum(axis=0))
    rows = [segment[0, 0] for segment in axes["x"].collections[0].get_segments()]
    columns = [segment[0, 1] for segment in axes["y"].collections[0].get_segments()]
    assert rows == pytest.approx(targets[0]) and columns == pytest.approx(targets[1])
    assert axes["x"].get_ylim() == (1.5, -0.5)


def test_style_is_an_opaque_light_ground():
    with mpl.rc_context():
        plotting.use_style()
        red, green, blue, alpha = mpl.colors.to_rgba(mpl.rcParams["savefig.facecolor"])
        assert min(red, green, blue) > 0.95 and alpha == 1
        assert mpl.rcParams["font.size"] >= 9
