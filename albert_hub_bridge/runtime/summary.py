"""Print the layers of a backbone, as the `summary` of Keras does."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.table import Table
from torch import nn

from albert_hub_bridge.runtime.keras_layers import KerasLayer


def print_summary(
    name: str,
    layers: Iterable[KerasLayer],
    *,
    line_length: int | None = None,
    print_fn: Callable[[str], object] | None = None,
    show_trainable: bool = False,
) -> None:
    """Print a table of layers, and the numbers of parameters.

    Args:
        name: The name of the model.
        layers: Its layers.
        line_length: The width, in characters. That of the terminal by default.
        print_fn: Called with the whole text, instead of printing it.
        show_trainable: Whether to add a column that shows which layers are trained.
    """
    layers = list(layers)
    columns = ("Layer (type)", "Output Shape", "Param #", *(("Trainable",) if show_trainable else ()))
    table = Table(*columns)
    table.columns[2].justify = "right"
    for layer in layers:
        trainable = ("-" if not layer.count_params() else "Y" if layer.trainable else "N",) if show_trainable else ()
        shape = f"({', '.join(map(str, layer.output_shape))})"
        table.add_row(f"{layer.name} ({type(layer).__name__})", shape, f"{layer.count_params():,}", *trainable)
    text = io.StringIO()
    console = Console(file=None if print_fn is None else text, width=line_length, highlight=False, markup=False)
    console.print(f'Model: "{name}"')
    console.print(table)
    for line in _totals(layers):
        console.print(line)
    if print_fn is not None:
        print_fn(text.getvalue())


def _totals(layers: Iterable[nn.Module]) -> list[str]:
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    return [
        f" {title} params: {sum(each.numel() for each in counted):,} ({_size(sum(each.nbytes for each in counted))})"
        for title, counted in (("Total", parameters), ("Trainable", trainable), ("Non-trainable", frozen))
    ]


def _size(nbytes: float) -> str:
    """Return a size as Keras writes it, in powers of 1024."""
    for unit in ("B", "KB", "MB"):
        if nbytes < 1024:
            return f"{nbytes:.2f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.2f} GB"
