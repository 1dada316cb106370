"""Shapes of what a submitted network computes, derived before anything is run.

A table's shape is that of one observation: the batch comes before it and is never looked along, reshaped or broadcast.
"""

import math
from collections.abc import Mapping, Set
from typing import Any

from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards.network import Array, Layer, Network

Shape = tuple[int, ...]
MAX_AXES = 4  # of a tensor, the batch included
MAX_WIDTH = 65_536  # numbers in a table per observation, and along an axis of a constant
MAX_NUMBERS, MAX_LIVE = 2**20, 2**18  # numbers per observation in all tables together, and in those needed at one time
MAX_PRODUCTS = 2**26  # multiplications per observation


class Shapes:
    """The tables known so far; `add` derives what a layer adds."""

    def __init__(self, source: str, width: int, constants: Mapping[str, Array], other_names: Set[str] = frozenset()) -> None:
        self.tables: dict[str, Shape] = {source: (width,)}
        self.constants, self.other_names = constants, other_names
        self.numbers, self.products = width, 0

    def add(self, layer: Layer) -> Layer:
        """Derive the output's shape; returns the layer with settings in their plainest form. InputError if not allowed."""
        if layer.output in self.tables or layer.output in self.constants or layer.output in self.other_names:
            raise InputError(f"the network computes {shorten(layer.output)} twice.")
        for name in layer.inputs:
            if name not in self.tables and name not in self.constants:
                raise InputError(f"the network uses {shorten(name)} before it is computed.")
        rule = RULES.get(layer.operation, Shapes._by_number)
        shape, settings = rule(self, layer)
        size = math.prod(shape)
        self.numbers += size
        if size > MAX_WIDTH or self.numbers > MAX_NUMBERS:
            raise _fault(
                layer,
                f"makes a table of shape {('batch', *shape)}; {MAX_WIDTH} numbers per observation are allowed, and "
                f"{MAX_NUMBERS} in all tables together",
            )
        if self.products > MAX_PRODUCTS:
            raise InputError(f"the network multiplies more than the {MAX_PRODUCTS} times per observation that are allowed.")
        self.tables[layer.output] = shape
        return Layer(layer.operation, layer.inputs, layer.output, settings)

    def check_memory(self, network: Network) -> None:
        """InputError if too many numbers are needed at one time."""
        live = math.prod(self.tables[network.input])
        for layer, done in zip(network.layers, network.done_with):
            live += math.prod(self.tables[layer.output])
            if live > MAX_LIVE:
                raise InputError(
                    f"the network needs more than the {MAX_LIVE} numbers per observation at one time that are allowed."
                )
            live -= sum(math.prod(self.tables[name]) for name in done)

    def _by_number(self, layer: Layer) -> tuple[Shape, Mapping[str, Any]]:
        """Operations on numbers that stand in the same place, constants broadcast along all axes but the batch."""
        tables = [self.tables[name] for name in layer.inputs if name in self.tables]
        if not tables or len({len(shape) for shape in tables}) > 1:
            raise _fault(layer, f"has inputs of {_several(tables)}")
        shape = tables[0]
        for name in layer.inputs:
            other = self.tables.get(name)
            if other is None:
                other = self.constants[name].shape
                if len(other) == len(shape) + 1 and other[0] == 1:
                    other = other[1:]
            padded = (1,) * (len(shape) - len(other)) + other
            if len(padded) != len(shape) or any(a != b and 1 not in (a, b) for a, b in zip(shape, padded)):
                raise _fault(layer, f"combines a table of shape {('batch', *shape)} with one of shape {other}")
            shape = tuple(max(a, b) for a, b in zip(shape, padded))
        return shape, layer.settings

    def _product(self, layer: Layer) -> tuple[Shape, Mapping[str, Any]]:
        first, second, *bias = layer.inputs
        weights = self.constants.get(second)
        if first not in self.tables or weights is None or weights.ndim != 2 or any(name in self.tables for name in bias):
            raise _fault(layer, "must multiply observations by a constant matrix")
        shape = self.tables[first]
        if layer.operation == "Gemm" and len(shape) > 1:
            raise _fault(layer, f"needs a table of two axes, not of shape {('batch', *shape)}")
        rows, columns = weights.shape[::-1] if layer.settings.get("transB", 0) else weights.shape
        if rows != shape[-1]:
            raise _fault(layer, f"multiplies {shape[-1]} numbers by {rows} rows")
        for name in bias:
            found = self.constants[name].shape
            if found[:-1] not in ((), (1,)) or found[-1:] not in ((), (1,), (columns,)):
                raise _fault(layer, f"combines {columns} columns with a constant of shape {found}")
        self.products += math.prod(shape) * columns
        return (*shape[:-1], int(columns)), layer.settings

    def _reshape(self, layer: Layer) -> tuple[Shape, Mapping[str, Any]]:
        old = self._only_table(layer)
        wanted: Shape = layer.settings.get("shape") or (1,)
        batch, new = wanted[0], list(wanted[1:])
        if batch == 0 and layer.settings.get("allowzero", 0):
            raise _fault(layer, "makes a batch of none")
        if batch == 0:  # as are others, in that place
            new = [old[k] if extent == 0 and k < len(old) else extent for k, extent in enumerate(new)]
        if batch == 0 and new.count(-1) == 1:  # what is left over
            known = math.prod(extent for extent in new if extent != -1)
            new[new.index(-1)] = math.prod(old) // known if known > 0 else 0
        if batch not in (0, -1) or not new or min(new) < 1 or math.prod(new) != math.prod(old):
            raise _fault(layer, f"must keep the batch and the numbers of a table of shape {('batch', *old)}")
        return tuple(new), {"shape": (0, *new)}

    def _slice(self, layer: Layer) -> tuple[Shape, Mapping[str, Any]]:
        shape = list(self._only_table(layer))
        settings = layer.settings
        starts, ends, axes = (settings.get(name, ()) for name in ("starts", "ends", "axes"))
        steps = settings.get("steps", (1,) * len(starts))
        if not len(starts) == len(ends) == len(axes) == len(steps) > 0 or any(step != 1 for step in steps):
            raise _fault(layer, "needs starts, ends and axes of one length, and steps of 1")
        axes = self._axes(layer, axes, len(shape))
        pieces = []
        for start, end, axis in zip(starts, ends, axes):
            start, end, _ = slice(start, end).indices(shape[axis - 1])
            if start >= end:
                raise _fault(layer, "cuts out nothing")
            shape[axis - 1] = end - start
            pieces.append((start, end))
        starts, ends = zip(*pieces)
        return tuple(shape), {"starts": starts, "ends": ends, "axes": axes}

    def _concat(self, layer: Layer) -> tuple[Shape, Mapping[str, Any]]:
        tables = [self.tables.get(name) for name in layer.inputs]
        if any(table is None or len(table) != len(tables[0] or ()) for table in tables):
            raise _fault(layer, "needs tables of as many axes")
        shapes = [list(table) for table in tables if table is not None]
        (axis,) = self._axes(layer, (layer.settings.get("axis", 0),), len(shapes[0]))
        joined = sum(shape.pop(axis - 1) for shape in shapes)
        if any(shape != shapes[0] for shape in shapes):
            raise _fault(layer, "joins tables that differ along other axes")
        shapes[0].insert(axis - 1, joined)
        return tuple(shapes[0]), {"axis": axis}

    def _reduce_mean(self, layer: Layer) -> tuple[Shape, Mapping[str, Any]]:
        shape = self._only_table(layer)
        axes = self._axes(layer, layer.settings.get("axes", ()), len(shape))
        keeps = int(layer.settings.get("keepdims", 1) != 0)
        if not keeps and len(axes) == len(shape):
            raise _fault(layer, "leaves no axis but the batch")
        found = [1 if k in axes else extent for k, extent in enumerate(shape, 1) if keeps or k not in axes]
        return tuple(found), {"axes": axes, "keepdims": keeps}

    def _only_table(self, layer: Layer) -> Shape:
        if layer.inputs[0] not in self.tables:
            raise _fault(layer, "must be of observations, not of a constant")
        return self.tables[layer.inputs[0]]

    @staticmethod
    def _axes(layer: Layer, axes: tuple[int, ...], n_axes: int) -> tuple[int, ...]:
        """Axes counted from the front, the batch being 0; they must be different and not the batch."""
        found = tuple(axis + n_axes + 1 if axis < 0 else axis for axis in axes)
        if not found or len(set(found)) < len(found) or not all(1 <= axis <= n_axes for axis in found):
            raise _fault(layer, f"works along the axes {list(axes)}; it must name different ones, and not the batch")
        return found


RULES = {
    "Gemm": Shapes._product,
    "MatMul": Shapes._product,
    "Reshape": Shapes._reshape,
    "Slice": Shapes._slice,
    "Concat": Shapes._concat,
    "ReduceMean": Shapes._reduce_mean,
}


def _fault(layer: Layer, what: str) -> InputError:
    return InputError(f"a {layer.operation} of the network {what}.")


def _several(tables: list[Shape]) -> str:
    return " and ".join(str(("batch", *shape)) for shape in tables) or "constants alone"
