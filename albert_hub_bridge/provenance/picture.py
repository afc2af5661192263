"""A picture of the differences per layer, drawn by matplotlib if it is installed (extra `plot`)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from typing import Any


def draw_parity(verification: Mapping[str, Any]) -> bytes | None:
    """Draw the relative difference that `verify` measured after every layer.

    Args:
        verification: `verification` of `conversion.json`.

    Returns:
        A PNG, the same bytes for the same numbers and version of matplotlib. None if matplotlib is not installed, if
        the layers were not measured, or if a difference is not a number.
    """
    differences = verification.get("relative_layer_differences")
    if not differences or None in differences or importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    file = io.BytesIO()
    with matplotlib.style.context("default"):  # not the user's own style
        figure = Figure(figsize=(8, 3.2), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        tolerance = verification["tolerance"]
        axes.plot(
            range(len(differences)), differences, marker="o", markersize=4, label="difference after each layer run"
        )
        axes.axhline(tolerance, color="tab:red", linestyle="--", label=f"tolerance for the outputs, {tolerance:g}")
        axes.set_yscale("symlog", linthresh=1e-9)  # linear near zero, so that a difference of 0 can be drawn
        axes.set_ylim(0, 3 * max(*differences, tolerance, 1e-9))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer run, in the order of the forward pass (0: embeddings)")
        axes.set_ylabel("largest difference, relative")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        figure.savefig(file, format="png", metadata={"Software": None})  # without the version of matplotlib
    return file.getvalue()
