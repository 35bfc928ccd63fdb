"""From a matplotlib figure to SVG inside a page: its own text, the page's colours.

The few colours that pictures use are variables of the page's style, so that they suit light
and dark; those of Okabe and Ito are told apart by every eye.
"""

import dataclasses
import io
import re
import zlib
from collections.abc import Callable
from typing import Any

from rbig_nnx.plot import COLOURS

INK, GRID = "#444444", "#DDDDDD"
DATA, DRAWN, THIRD = COLOURS[:3]
_VARIABLES = {INK: "ink", GRID: "grid", DATA: "data", DRAWN: "drawn", THIRD: "third"}
_STYLE: Any = {  # matplotlib names the keys' type, and is an extra
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a column may be called $
    "svg.hashsalt": "page",  # the same picture, the same bytes
    "savefig.transparent": True,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
        INK,
    ),
    "grid.color": GRID,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of a page.

    Attributes:
      svg: the drawing.
      alt: what it shows, in words, for those who cannot see it.
      caption: how to read it, or "".
      wide: whether it takes the whole width and may be scrolled on a phone.
    """

    svg: str
    alt: str
    caption: str = ""
    wide: bool = False


def drawn(
    draw: Callable[[Any], Any], width: float, height: float, dpi: int = 130
) -> str:
    """The SVG of what `draw(axes)` draws.

    Args:
      draw: takes the axes.
      width: in inches.
      height: likewise.
      dpi: of what is drawn as an image inside.

    Raises:
      ImportError: without matplotlib, naming the extra.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", dpi=dpi, metadata={"Date": None})
    return _inlined(file.getvalue())


def _inlined(svg: str) -> str:
    """Without its header, with names that no other picture has, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg [^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"\1", svg, count=1
    )
    prefix = f"p{zlib.crc32(svg.encode()):08x}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}")
    for colour, name in _VARIABLES.items():
        svg = re.sub(colour, f"var(--{name})", svg, flags=re.IGNORECASE)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
    return re.sub(r"\n\s*", "\n", svg)
