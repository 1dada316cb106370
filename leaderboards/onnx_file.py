"""ONNX files of submissions: the static gate through which a file becomes a `Network`, and the way back.

Nothing of a file is trusted. It is parsed as a protocol buffer of bounded size; every node, attribute and tensor is compared
with a list of what is allowed; shapes are derived here. What is run is the `Network` built from that, never the file.
"""

import math
from typing import Any

import numpy as np

from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards.network import OPERATIONS, PRODUCTS, Array, Layer, Network

try:
    import onnx
    from google.protobuf.message import DecodeError
except ModuleNotFoundError as error:
    raise InputError(f'reading networks needs the package {error.name}; install it with: pip install "matchgym[rl]".') from None

MAX_BYTES, MAX_NODES, MAX_PARAMETERS, MAX_WIDTH = 4 * 2**20, 256, 1_000_000, 65_536
OPSETS = range(13, 25)
WRITTEN_OPSET, WRITTEN_IR = 17, 8
BATCH = "batch"


def read_network(data: bytes, n_inputs: int, n_outputs: int) -> Network:
    """The network of an ONNX file from (batch, n_inputs) to (batch, n_outputs) float32; InputError if it is not allowed."""
    if len(data) > MAX_BYTES:
        raise InputError(f"the network has {len(data)} bytes, more than the {MAX_BYTES} that are allowed.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError):
        raise InputError("the network is not an ONNX file.") from None
    graph = model.graph
    if not graph.node:
        raise InputError("the network has no nodes; an ONNX file with one graph is needed.")
    _check_header(model)
    constants = _constants(graph)
    source = _port("input", graph.input, constants, n_inputs)
    target = _port("output", graph.output, {}, n_outputs)

    if len(graph.node) > MAX_NODES:
        raise InputError(f"the network has {len(graph.node)} nodes, more than the {MAX_NODES} that are allowed.")
    widths = {source: n_inputs}
    layers = []
    for node in graph.node:
        layer = _layer(node)
        if layer.output in widths or layer.output in constants or not layer.output:
            raise InputError(f"the network computes {shorten(layer.output)} twice.")
        widths[layer.output] = _width(layer, widths, constants)
        layers.append(layer)
    if widths.get(target) != n_outputs:
        raise InputError(f"the network has {widths.get(target, 'no')} scores per observation where {n_outputs} are needed.")
    return Network(n_inputs, n_outputs, source, target, constants, tuple(layers))


def _check_header(model: Any) -> None:
    opsets = [(each.domain, each.version) for each in model.opset_import]
    if len(opsets) != 1 or opsets[0][0] not in ("", "ai.onnx") or opsets[0][1] not in OPSETS:
        raise InputError(f"the network must import the default operations, version {OPSETS[0]} to {OPSETS[-1]}, and no others.")
    graph = model.graph
    for what, found in (
        ("functions", model.functions),
        ("training information", model.training_info),
        ("sparse tensors", graph.sparse_initializer),
        ("quantised tensors", graph.quantization_annotation),
    ):
        if found:
            raise InputError(f"the network has {what}, which are not allowed.")


def _constants(graph: Any) -> dict[str, Array]:
    constants: dict[str, Array] = {}
    total = 0
    for tensor in graph.initializer:
        name = shorten(tensor.name)
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise InputError(f"tensor {name} is kept in another file, which is not allowed.")
        if tensor.data_type != onnx.TensorProto.FLOAT or tensor.HasField("segment"):
            raise InputError(f"tensor {name} is not of float32.")
        if len(tensor.dims) > 2 or any(not 1 <= extent <= MAX_WIDTH for extent in tensor.dims):
            raise InputError(f"tensor {name} has shape {list(tensor.dims)}; at most two axes up to {MAX_WIDTH} are allowed.")
        size = math.prod(tensor.dims)
        total += size
        if total > MAX_PARAMETERS:
            raise InputError(f"the network has more than the {MAX_PARAMETERS} parameters that are allowed.")
        held = len(tensor.raw_data) // 4 if tensor.HasField("raw_data") else len(tensor.float_data)
        if held != size or len(tensor.raw_data) % 4:
            raise InputError(f"tensor {name} holds {held} numbers where its shape {list(tensor.dims)} needs {size}.")
        if tensor.name in constants or not tensor.name:
            raise InputError(f"tensor {name} stands twice.")
        flat = np.frombuffer(tensor.raw_data, "<f4") if tensor.HasField("raw_data") else np.array(tensor.float_data, np.float32)
        if not np.isfinite(flat).all():
            raise InputError(f"tensor {name} holds numbers that are not finite.")
        constants[tensor.name] = flat.astype(np.float32).reshape(tuple(tensor.dims))
    return constants


def _port(what: str, values: Any, constants: dict[str, Array], width: int) -> str:
    """The name of the one input or output, which must be a float32 table (batch, width)."""
    ports = [value for value in values if value.name not in constants]
    if len(ports) != 1:
        raise InputError(f"the network has {len(ports)} {what}s where one is needed.")
    kind = ports[0].type.tensor_type
    shape = [each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 2 or shape[0] is not None or shape[1] not in (width, None):
        raise InputError(f"the {what} of the network must be float32 of shape (batch, {width}), with the batch left open.")
    return str(ports[0].name)


def _layer(node: Any) -> Layer:
    operation = OPERATIONS.get(node.op_type)
    if node.domain not in ("", "ai.onnx"):
        raise InputError(f"the network uses operations of {shorten(node.domain)}; only the default ones are allowed.")
    if operation is None:
        raise InputError(f"the network uses the operation {shorten(node.op_type)}; allowed are {', '.join(OPERATIONS)}.")
    if len(node.input) not in operation.inputs or len(node.output) != 1:
        raise InputError(f"a {node.op_type} of the network has {len(node.input)} inputs and {len(node.output)} outputs.")
    settings: dict[str, Any] = {}
    for given in node.attribute:
        kind = operation.settings.get(given.name)
        wanted = onnx.AttributeProto.INT if kind is int else onnx.AttributeProto.FLOAT
        if kind is None or given.type != wanted or given.name in settings:
            raise InputError(f"a {node.op_type} of the network has an attribute {shorten(given.name)} that is not allowed.")
        settings[given.name] = given.i if kind is int else given.f
    if settings.get("transA", 0) or not all(math.isfinite(value) for value in settings.values()):
        raise InputError(f"a {node.op_type} of the network has an attribute that is not allowed.")
    return Layer(node.op_type, tuple(node.input), node.output[0], settings)


def _width(layer: Layer, widths: dict[str, int], constants: dict[str, Array]) -> int:
    """Numbers per observation in the output of a layer."""
    for name in layer.inputs:
        if name not in widths and name not in constants:
            raise InputError(f"the network uses {shorten(name)} before it is computed.")
    first, *others = layer.inputs
    if layer.operation in PRODUCTS:
        if first not in widths or any(name not in constants for name in others) or constants[others[0]].ndim != 2:
            raise InputError(f"a {layer.operation} of the network must multiply observations by a constant matrix.")
        shape = constants[others[0]].shape
        rows, columns = shape[::-1] if layer.settings.get("transB", 0) else shape
        if rows != widths[first]:
            raise InputError(f"a {layer.operation} of the network multiplies {widths[first]} numbers by {rows} rows.")
        for name in others[1:]:
            _check_broadcast(layer, constants[name], columns)
        return int(columns)
    found = [widths[name] for name in layer.inputs if name in widths]
    if not found or len(set(found)) > 1:
        raise InputError(f"a {layer.operation} of the network has inputs of different or unknown widths.")
    for name in layer.inputs:
        if name in constants:
            _check_broadcast(layer, constants[name], found[0])
    return found[0]


def _check_broadcast(layer: Layer, constant: Array, width: int) -> None:
    """A constant must add one number, or one per column, to every observation alike."""
    is_one_row, fits = constant.shape[:-1] in ((), (1,)), constant.shape[-1:] in ((), (1,), (width,))
    if not (is_one_row and fits):
        raise InputError(
            f"a {layer.operation} of the network combines {width} columns with a constant of shape {constant.shape}."
        )


def write_network(network: Network) -> bytes:
    """An ONNX file of a network, without any text but the names of its tensors."""
    nodes = [
        onnx.helper.make_node(layer.operation, list(layer.inputs), [layer.output], **layer.settings) for layer in network.layers
    ]
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [BATCH, width])
        for name, width in ((network.input, network.n_inputs), (network.output, network.n_outputs))
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in network.constants.items()]
    graph = onnx.helper.make_graph(nodes, "policy", ports[:1], ports[1:], tensors)
    opset = onnx.helper.make_opsetid("", WRITTEN_OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=WRITTEN_IR, producer_name="matchgym")
    return bytes(model.SerializeToString(deterministic=True))
