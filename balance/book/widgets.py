"""A slider over precomputed frames that moves in Jupyter, in Colab and in the static page. Needs matplotlib.

The frames are inline PNG images under one HTML range input: no kernel, no library, no network. In Jupyter with
ipywidgets 8 the same call also yields a live slider that draws anew.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

MOST_FRAMES = 15


class Frames:
    """What `frames` returns: shown by Jupyter through its MIME bundle."""

    def __init__(self, draw, values, images, label, alt, caption):
        self.draw, self.values, self.images = draw, values, images
        self.label, self.alt, self.caption = label, alt, caption

    def __repr__(self) -> str:
        return f"Frames({self.label})"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        widget = self.live()
        if widget is not None:
            bundle |= widget._repr_mimebundle_()
            bundle["text/html"] = self._repr_html_()
        return bundle

    def _repr_html_(self) -> str:
        """Return a figure whose range input shows one image at a time."""
        shown = [
            f'<img src="data:image/png;base64,{base64.b64encode(image).decode()}"'
            f' alt="{html.escape(self.alt.format(value=value))}" data-value="{html.escape(str(value))}"'
            f"{'' if i == 0 else ' hidden'}>"
            for i, (value, image) in enumerate(zip(self.values, self.images, strict=True))
        ]
        move = (
            "const f=this.closest('figure'),i=+this.value,all=f.querySelectorAll('img');"
            "all.forEach((g,j)=>{g.hidden=j!==i});"
            "f.querySelector('output').value=all[i].dataset.value;"
            "this.setAttribute('aria-valuetext',all[i].dataset.value)"
        )
        label, first = html.escape(self.label), html.escape(str(self.values[0]))
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return (
            '<figure class="balance-frames" style="margin:0">'
            f'<label>{label} <input type="range" min="0" max="{len(self.values) - 1}" value="0" step="1"'
            f' autocomplete="off" aria-label="{label}" aria-valuetext="{first}" oninput="{move}"></label>'
            f" <output>{first}</output>{''.join(shown)}{caption}</figure>"
        )

    def live(self):
        """Return the ipywidgets slider that draws at each move, or None without ipywidgets 8."""
        try:
            widgets = import_module("ipywidgets")
        except ImportError:
            return None
        if int(widgets.__version__.split(".")[0]) < 8:
            return None
        slider = widgets.SelectionSlider(options=list(self.values), description=self.label)
        slider.style.description_width = "initial"
        image = widgets.Image(value=self.images[0], format="png")
        slider.observe(lambda change: setattr(image, "value", png(self.draw(change.new))), "value")
        parts = [slider, image]
        if self.caption:
            parts.append(widgets.HTML(f"<em>{html.escape(self.caption)}</em>"))
        return widgets.VBox(parts)


def frames(
    draw: Callable[[Any], Any],
    values: Sequence[Any],
    label: str,
    alt: str,
    caption: str | None = None,
) -> Frames:
    """Draw one figure per value and put a slider over them.

    Parameters
    ----------
    draw : callable
        Takes a value, returns a matplotlib Figure. In Jupyter it is called again when the slider moves.
    values : sequence
        Between 1 and 15 values, in the order of the slider.
    label : str
        What the slider changes.
    alt : str
        Alternative text of the images; ``{value}`` stands for the value shown.
    caption : str, optional
        Shown below.

    Returns
    -------
    Frames
        The last expression of a cell shows it.

    Raises
    ------
    ValueError
        If there are no values or more than 15: each is an image stored in the page.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> def draw(k):
    ...     fig = Figure(figsize=(1, 1))
    ...     _ = fig.subplots().bar([0, 1], [k, 1])
    ...     return fig
    >>> frames(draw, [0, 1, 2], label="half-steps", alt="Two bars after {value} half-steps")
    Frames(half-steps)
    """
    values = list(values)
    if not 1 <= len(values) <= MOST_FRAMES:
        raise ValueError(f"{len(values)} values: give 1 to {MOST_FRAMES}, each is stored in the page")
    return Frames(draw, values, [png(draw(v)) for v in values], label, alt, caption)


def png(figure) -> bytes:
    """Return the PNG image of a matplotlib figure, and close the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    import_module("matplotlib.pyplot").close(figure)
    return buffer.getvalue()
