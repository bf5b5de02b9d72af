"""Plot of the results: ratio against speed, with a panel for encoding and one for decoding. It needs matplotlib."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from numcodecs_qpl.bench.contenders import OURS
from numcodecs_qpl.bench.files import write_output
from numcodecs_qpl.bench.host import host_text
from numcodecs_qpl.bench.measure import Measured, Result
from numcodecs_qpl.bench.verdict import Verdict

STYLES = {
    OURS: ("#D55E00", "*", 190, "QPL (gzip)"),
    "deflate": ("#0072B2", "o", 40, "other deflate: zlib, ISA-L"),
    "zstd": ("#009E73", "s", 36, "zstd, alone and in Blosc"),
    "LZ4": ("#56B4E9", "^", 44, "LZ4, alone and in Blosc"),
}
"""Colour, marker, marker area and name of each family. The colours are Okabe and Ito's, which colour-blind people can
distinguish. The shapes differ, too."""

OPERATIONS = ("encode", "decode")

LOGARITHMIC = 8
"""Quotient of the largest and the smallest ratio from which the axis is logarithmic."""

MARK = 7
"""Half the width of a point, in pixels."""

PANEL = (7.0, 5.2)
"""Inches of a panel."""

Done = Sequence[tuple[Measured, Verdict]]


def save(path: Path, done: Done) -> None:
    """Draw the results to a file, in the format of its suffix.

    Raises
    ------
    BenchError
        If it cannot be written.
    """
    picture = figure(done)
    write_output(path, lambda beside: picture.savefig(beside))


def figure(done: Done) -> Figure:
    """Return the picture: a row with two panels for each data set."""
    rows = len(done)
    picture = Figure(figsize=(2 * PANEL[0], rows * PANEL[1] + 1.2), layout="constrained")
    canvas = FigureCanvasAgg(picture)
    grid = picture.subplots(rows, 2, squeeze=False, sharey="row")
    for panels, (measured, _) in zip(grid, done, strict=True):
        panels[0].set_title(textwrap.fill(str(measured.sample), 130), loc="left", fontsize=10)
        for axes, operation in zip(panels, OPERATIONS, strict=True):
            _draw_panel(axes, measured, operation)
    picture.suptitle(f"Ratio and speed of codecs, one thread each unless it says otherwise\n{host_text()}", fontsize=12)
    picture.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    # The space for labels is known only after the layout of all other parts.
    canvas.draw()  # type: ignore[no-untyped-call]
    picture.set_layout_engine("none")
    for panels, (measured, _) in zip(grid, done, strict=True):
        for axes, operation in zip(panels, OPERATIONS, strict=True):
            _label_points(axes, measured, operation, canvas)
    return picture


def _draw_panel(axes: Axes, measured: Measured, operation: str) -> None:
    results = _shown(measured)
    points = _points(results, operation)
    judged = [point for point, result in zip(points, results, strict=True) if result.contender.judged]
    axes.plot(
        *zip(*_front(judged), strict=True), color="0.75", zorder=1, label="front: no codec is both smaller and faster"
    )
    for family, (colour, marker, area, name) in STYLES.items():
        chosen = [point for point, one in zip(points, results, strict=True) if one.contender.family == family]
        if not chosen:  # such as QPL, if a device failed
            continue
        speeds, ratios = zip(*chosen, strict=True)
        axes.scatter(
            speeds,
            ratios,
            s=area,
            c=colour,
            marker=marker,
            label=name,
            edgecolors="white",
            linewidths=0.5,
            zorder=4 if family == OURS else 3,
        )
    axes.set_xscale("log")
    axes.set_xlabel(f"{operation}: MB/s of uncompressed bytes, logarithmic (faster: further right)")
    lowest, *_, highest = sorted(ratio for _, ratio in points)
    if highest > LOGARITHMIC * lowest:
        axes.set_yscale("log")
    if operation == OPERATIONS[0]:
        axes.set_ylabel("ratio: uncompressed / compressed size (smaller files: further up)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.14, y=0.12)
    axes.grid(visible=True, which="both", color="0.93")
    axes.set_axisbelow(True)


def _shown(measured: Measured) -> list[Result]:
    """Return the results to plot, without QPL's other containers: their points would cover gzip's."""
    return [result for result in measured.results if result.contender.gzip or not result.contender.ours]


def _points(results: Sequence[Result], operation: str) -> list[tuple[float, float]]:
    """Return the speed and ratio of each result."""
    every = [result.figures() for result in results]
    return [(one.encode if operation == "encode" else one.decode, one.ratio) for one in every]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the step line through the points of the Pareto front, from the fastest."""
    corners: list[tuple[float, float]] = []
    for speed, ratio in sorted(points, reverse=True):
        if not corners:
            corners.append((speed, ratio))
        elif ratio > corners[-1][1]:
            corners += [(speed, corners[-1][1]), (speed, ratio)]
    return corners


def _label_points(axes: Axes, measured: Measured, operation: str, canvas: FigureCanvasAgg) -> None:
    """Write the codec's name beside each point, without overlapping points or other labels."""
    results = _shown(measured)
    points = _points(results, operation)
    at = axes.transData.transform(points)
    taken = [Bbox.from_bounds(x - MARK, y - MARK, 2 * MARK, 2 * MARK) for x, y in at]
    panel = axes.get_window_extent().padded(-2)
    to_points = 72 / axes.figure.dpi
    # QPL's labels are placed first.
    for index in sorted(range(len(points)), key=lambda index: not results[index].contender.ours):
        contender = results[index].contender
        label = axes.annotate(
            contender.name,
            points[index],
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold" if contender.ours else "normal",
            color=STYLES[contender.family][0] if contender.ours else "0.2",
            arrowprops={"arrowstyle": "-", "color": "0.55", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
            path_effects=[withStroke(linewidth=2, foreground="white")],  # on the lines behind it
            zorder=5,
        )
        box = Text.get_window_extent(label, canvas.get_renderer())  # type: ignore[no-untyped-call]
        for right, up in _offsets(box.width, box.height):
            left, bottom = at[index] + (right - box.width / 2, up - box.height / 2)
            place = Bbox.from_bounds(left, bottom, box.width, box.height)
            if _within(place, panel) and not place.padded(1).count_overlaps(taken):
                label.set_position((right * to_points, up * to_points))
                taken.append(place)
                break


def _within(place: Bbox, panel: Bbox) -> bool:
    return bool(panel.x0 < place.x0 and place.x1 < panel.x1 and panel.y0 < place.y0 and place.y1 < panel.y1)


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Offsets of a label's middle from its point, all around it, at growing distances."""
    for step in range(40):
        for turn in range(16):
            angle = math.tau * turn / 16
            yield (
                math.cos(angle) * (width / 2 + MARK + 4 + 6 * step),
                math.sin(angle) * (height / 2 + MARK + 2 + 6 * step),
            )
