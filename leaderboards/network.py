"""Small feed-forward networks as submissions hold them, run with NumPy alone.

A network maps observations (B, n_inputs) to one score per action (B, n_outputs) through a list of operations in the words of
ONNX. Every tensor is either a constant or a table (B, ...) whose first axis is that of the observations, and no operation looks
along it: what is computed for one observation cannot depend on the others in its batch, but for rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def _gemm(settings: Mapping[str, Any], x: Array, weights: Array, *bias: Array) -> Array:
    product = x @ (weights.T if settings.get("transB", 0) else weights)
    product = np.float32(settings.get("alpha", 1.0)) * product
    return product + np.float32(settings.get("beta", 1.0)) * bias[0] if bias else product


def _leaky_relu(settings: Mapping[str, Any], x: Array) -> Array:
    return np.where(x >= 0, x, np.float32(settings.get("alpha", 0.01)) * x)


def _elu(settings: Mapping[str, Any], x: Array) -> Array:
    return np.where(x >= 0, x, np.float32(settings.get("alpha", 1.0)) * np.expm1(np.minimum(x, 0)))


def _sigmoid(settings: Mapping[str, Any], x: Array) -> Array:
    return np.exp(-np.logaddexp(np.float32(0), -x))


def _matmul(settings: Mapping[str, Any], x: Array, weights: Array) -> Array:
    product: Array = x.reshape(-1, x.shape[-1]) @ weights
    return product.reshape(*x.shape[:-1], weights.shape[-1])


def _reshape(settings: Mapping[str, Any], x: Array) -> Array:
    return x.reshape(len(x), *settings["shape"][1:])


def _slice(settings: Mapping[str, Any], x: Array) -> Array:
    pieces = [slice(None)] * x.ndim
    for start, end, axis in zip(settings["starts"], settings["ends"], settings["axes"]):
        pieces[axis] = slice(start, end)
    return x[tuple(pieces)]


def _concat(settings: Mapping[str, Any], *arrays: Array) -> Array:
    return np.concatenate(arrays, axis=settings["axis"])


def _reduce_mean(settings: Mapping[str, Any], x: Array) -> Array:
    return x.mean(axis=tuple(settings["axes"]), keepdims=bool(settings.get("keepdims", 1)), dtype=np.float32)


def _plain(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda settings, *arrays: function(*arrays)


@dataclass(frozen=True)
class Operation:
    """How an operation is computed, how many tables and constants it takes, and the settings it knows with their types.

    Settings of type tuple are lists of integers, which ONNX passes as further inputs.
    """

    run: Callable[..., Array]  # (settings, *inputs)
    inputs: Sequence[int]
    settings: Mapping[str, type] = field(default_factory=dict)


OPERATIONS: dict[str, Operation] = {
    "Gemm": Operation(_gemm, (2, 3), {"alpha": float, "beta": float, "transA": int, "transB": int}),
    "MatMul": Operation(_matmul, (2,)),
    "Add": Operation(_plain(np.add), (2,)),
    "Sub": Operation(_plain(np.subtract), (2,)),
    "Mul": Operation(_plain(np.multiply), (2,)),
    "Div": Operation(_plain(np.divide), (2,)),
    "Tanh": Operation(_plain(np.tanh), (1,)),
    "Relu": Operation(_plain(lambda x: np.maximum(x, np.float32(0))), (1,)),
    "Sigmoid": Operation(_sigmoid, (1,)),
    "LeakyRelu": Operation(_leaky_relu, (1,), {"alpha": float}),
    "Elu": Operation(_elu, (1,), {"alpha": float}),
    "Softplus": Operation(_plain(lambda x: np.logaddexp(x, np.float32(0))), (1,)),
    "Neg": Operation(_plain(np.negative), (1,)),
    "Identity": Operation(_plain(lambda x: x), (1,)),
    "Reshape": Operation(_reshape, (1,), {"shape": tuple, "allowzero": int}),
    "Slice": Operation(_slice, (1,), {"starts": tuple, "ends": tuple, "axes": tuple, "steps": tuple}),
    "Concat": Operation(_concat, range(1, 33), {"axis": int}),
    "ReduceMean": Operation(_reduce_mean, (1,), {"axes": tuple, "keepdims": int, "noop_with_empty_axes": int}),
}


@dataclass(frozen=True)
class Layer:
    """One operation: its inputs and its output by name."""

    operation: str
    inputs: tuple[str, ...]
    output: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """Operations in the order in which they are run, and the constants they use."""

    n_inputs: int
    n_outputs: int
    input: str
    output: str
    constants: Mapping[str, Array]
    layers: tuple[Layer, ...]

    @property
    def n_parameters(self) -> int:
        return sum(array.size for array in self.constants.values())

    @cached_property
    def done_with(self) -> list[list[str]]:
        """For each layer, the tables that no later one needs."""
        last = {layer.output: k for k, layer in enumerate(self.layers)}
        last |= {name: k for k, layer in enumerate(self.layers) for name in layer.inputs if name not in self.constants}
        last.pop(self.output, None)
        return [[name for name, k in last.items() if k == place] for place in range(len(self.layers))]

    def run(self, observations: NDArray[np.float32]) -> Array:
        """Scores (B, n_outputs) of observations (B, n_inputs)."""
        tensors = dict(self.constants)
        tensors[self.input] = np.asarray(observations, np.float32)
        with np.errstate(all="ignore"):  # numbers that are not finite are looked for in the scores
            for layer, done in zip(self.layers, self.done_with):
                inputs = [tensors[name] for name in layer.inputs]
                tensors[layer.output] = OPERATIONS[layer.operation].run(layer.settings, *inputs)
                for name in done:
                    del tensors[name]
        return tensors[self.output]
