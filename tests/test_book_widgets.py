"""Tests of balance.book.widgets: the slider that moves without a kernel."""

import base64
import re

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from balance.book import widgets
from balance.book.widgets import frames

PNG = b"\x89PNG\r\n\x1a\n"


def draw(value):
    figure = Figure(figsize=(1, 1))
    figure.subplots().bar([0, 1], [float(value), 1])
    return figure


def shown(values=(0, 1, 2), alt="bars at {value}", caption=None):
    return frames(draw, values, "half-steps", alt, caption)


def test_one_image_per_value_and_only_the_first_is_visible():
    html = shown()._repr_html_()
    images = re.findall(r"<img [^>]*>", html)
    assert len(images) == 3 and 'max="2"' in html and 'type="range"' in html
    assert [" hidden" in image for image in images] == [False, True, True]
    data = [re.search(r'base64,([^"]+)"', image)[1] for image in images]
    assert all(base64.b64decode(d).startswith(PNG) for d in data) and len(set(data)) == 3
    assert re.findall(r'alt="([^"]*)"', html) == ["bars at 0", "bars at 1", "bars at 2"]


def test_needs_no_network():
    html = shown()._repr_html_()
    assert "http" not in html and "<script" not in html


def test_texts_are_escaped():
    html = shown(values=["1"], alt='a "quoted" <b>', caption="x < y & z")._repr_html_()
    assert "&quot;quoted&quot; &lt;b&gt;" in html and "x &lt; y &amp; z" in html


@pytest.mark.parametrize(("count", "legal"), [(0, False), (1, True), (15, True), (16, False)])
def test_number_of_values(count, legal, monkeypatch):
    monkeypatch.setattr(widgets, "png", lambda figure: PNG)
    if legal:
        assert len(shown(range(count)).images) == count
    else:
        with pytest.raises(ValueError, match=f"{count} values: give 1 to 15"):
            shown(range(count))


def test_live_slider_draws_anew():
    calls = []

    def counted(value):
        calls.append(value)
        return draw(value)

    live = frames(counted, [0, 3], "half-steps", "bars").live()
    slider, image = live.children[:2]
    before, calls[:] = bytes(image.value), []
    slider.value = 3
    after = bytes(image.value)
    assert calls == [3] and after != before and after.startswith(PNG)


def test_page_and_jupyter_get_the_same_call():
    bundle = shown()._repr_mimebundle_()
    assert bundle["text/html"].startswith("<figure") and "text/plain" in bundle
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_without_ipywidgets_the_page_still_moves(monkeypatch):
    def missing(name):
        raise ImportError(name)

    widget = shown()
    monkeypatch.setattr(widgets, "import_module", missing)
    assert set(widget._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_figures_are_closed():
    before = plt.get_fignums()
    frames(lambda value: plt.figure(figsize=(1, 1)), [0, 1], "half-steps", "empty")
    assert plt.get_fignums() == before
