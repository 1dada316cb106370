"""ONNX files of submissions: the static gate through which a file becomes a `Network`, and the way back.

Nothing of a file is trusted. It is parsed as a protocol buffer of bounded size; every node, attribute and tensor is compared
with a list of what is allowed; shapes are derived here. What is run is the `Network` built from that, never the file.
"""

import math
from collections.abc import Set
from typing import Any

import numpy as np

from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards.network import OPERATIONS, Array, Layer, Network, Operation
from matchgym.leaderboards.shapes import MAX_AXES, MAX_WIDTH, Shapes

try:
    import onnx
    from google.protobuf.message import DecodeError
except ModuleNotFoundError as error:
    raise InputError(f'reading networks needs the package {error.name}; install it with: pip install "matchgym[rl]".') from None

MAX_BYTES, MAX_NODES, MAX_TENSORS, MAX_PARAMETERS, MAX_NAME = 4 * 2**20, 256, 1024, 1_000_000, 200
OPSETS = range(13, 25)
AXES_AS_INPUT = 18  # the version from which a ReduceMean takes its axes as an input
SINCE = {"allowzero": 14, "noop_with_empty_axes": AXES_AS_INPUT}  # attributes that came with a version
FLAGS = ("transA", "transB", "keepdims", "allowzero", "noop_with_empty_axes")
WRITTEN_OPSET, WRITTEN_IR = 17, 8
BATCH = "batch"
KINDS = {int: onnx.AttributeProto.INT, float: onnx.AttributeProto.FLOAT, tuple: onnx.AttributeProto.INTS}


def read_network(data: bytes, n_inputs: int, n_outputs: int) -> Network:
    """The network of an ONNX file from (batch, n_inputs) to (batch, n_outputs) float32; InputError if it is not allowed."""
    if len(data) > MAX_BYTES:
        raise InputError(f"the network has {len(data)} bytes, more than the {MAX_BYTES} that are allowed.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError, UnicodeDecodeError):
        raise InputError("the network is not an ONNX file.") from None
    graph = model.graph
    if not graph.node:
        raise InputError("the network has no nodes; an ONNX file with one graph is needed.")
    _check_header(model)
    constants, integers = _constants(graph)
    source = _port("input", graph.input, constants.keys() | integers.keys(), n_inputs)
    target = _port("output", graph.output, set(), n_outputs)

    if len(graph.node) > MAX_NODES:
        raise InputError(f"the network has {len(graph.node)} nodes, more than the {MAX_NODES} that are allowed.")
    shapes = Shapes(source, n_inputs, constants, integers.keys())
    layers = tuple(shapes.add(_layer(node, integers, model.opset_import[0].version)) for node in graph.node)
    found = shapes.tables.get(target)
    if found != (n_outputs,):
        has = "no" if found is None else found[0] if len(found) == 1 else f"a table {found} of"
        raise InputError(f"the network has {has} scores per observation where {n_outputs} are needed.")
    network = Network(n_inputs, n_outputs, source, target, constants, layers)
    shapes.check_memory(network)
    return network


def _name(name: Any) -> str:
    """The name of a tensor, which a file may hold as anything."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        raise InputError(f"the network has a name {shorten(name)}; names are texts of 1 to {MAX_NAME} letters.")
    return name


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


def _constants(graph: Any) -> tuple[dict[str, Array], dict[str, tuple[int, ...]]]:
    """Constants of float32 by name, and short lists of integers, which are settings of operations."""
    constants: dict[str, Array] = {}
    integers: dict[str, tuple[int, ...]] = {}
    total = 0
    if len(graph.initializer) > MAX_TENSORS:
        raise InputError(f"the network has {len(graph.initializer)} constants, more than the {MAX_TENSORS} that are allowed.")
    for tensor in graph.initializer:
        name = shorten(_name(tensor.name))
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise InputError(f"tensor {name} is kept in another file, which is not allowed.")
        is_list = tensor.data_type == onnx.TensorProto.INT64
        if not (is_list or tensor.data_type == onnx.TensorProto.FLOAT) or tensor.HasField("segment"):
            raise InputError(f"tensor {name} is not of float32.")
        if is_list and (len(tensor.dims) != 1 or not 1 <= tensor.dims[0] <= MAX_AXES):
            raise InputError(
                f"tensor {name} of integers has shape {shorten(list(tensor.dims[:9]))}; allowed are lists of up to {MAX_AXES}."
            )
        if len(tensor.dims) > MAX_AXES or any(not 1 <= extent <= MAX_WIDTH for extent in tensor.dims):
            raise InputError(
                f"tensor {name} has shape {shorten(list(tensor.dims[:9]))}; at most {MAX_AXES} axes up to {MAX_WIDTH} are "
                "allowed."
            )
        size = math.prod(tensor.dims)
        total += 0 if is_list else size
        if total > MAX_PARAMETERS:
            raise InputError(f"the network has more than the {MAX_PARAMETERS} parameters that are allowed.")
        item, listed = (8, tensor.int64_data) if is_list else (4, tensor.float_data)
        held = len(tensor.raw_data) // item if tensor.HasField("raw_data") else len(listed)
        if held != size or len(tensor.raw_data) % item:
            raise InputError(f"tensor {name} holds {held} numbers where its shape {list(tensor.dims)} needs {size}.")
        if tensor.name in constants or tensor.name in integers:
            raise InputError(f"tensor {name} stands twice.")
        if is_list:
            integers[tensor.name] = tuple(np.frombuffer(tensor.raw_data, "<i8").tolist() or listed)
            continue
        flat = np.frombuffer(tensor.raw_data, "<f4") if tensor.HasField("raw_data") else np.array(tensor.float_data, np.float32)
        if not np.isfinite(flat).all():
            raise InputError(f"tensor {name} holds numbers that are not finite.")
        constants[tensor.name] = flat.astype(np.float32).reshape(tuple(tensor.dims))
    return constants, integers


def _port(what: str, values: Any, constants: Set[str], width: int) -> str:
    """The name of the one input or output, which must be a float32 table (batch, width)."""
    ports = [value for value in values if value.name not in constants]
    if len(ports) != 1:
        raise InputError(f"the network has {len(ports)} {what}s where one is needed.")
    kind = ports[0].type.tensor_type
    shape = [each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 2 or shape[0] is not None or shape[1] not in (width, None):
        raise InputError(f"the {what} of the network must be float32 of shape (batch, {width}), with the batch left open.")
    return _name(ports[0].name)


def _layer(node: Any, integers: dict[str, tuple[int, ...]], opset: int) -> Layer:
    operation = OPERATIONS.get(node.op_type)
    if node.domain not in ("", "ai.onnx"):
        raise InputError(f"the network uses operations of {shorten(node.domain)}; only the default ones are allowed.")
    if operation is None:
        raise InputError(f"the network uses the operation {shorten(node.op_type)}; allowed are {', '.join(OPERATIONS)}.")
    settings = _attributes(node, operation, opset)
    inputs = list(node.input)
    while inputs and inputs[-1] == "":  # optional ones that are left out
        inputs.pop()
    inputs, outputs = [_name(each) for each in inputs], [_name(each) for each in node.output]
    for name in [name for name, kind in operation.settings.items() if kind is tuple]:
        if _is_attribute(node.op_type, opset) or len(inputs) < 2:
            continue
        if inputs[1] not in integers:
            raise InputError(f"a {node.op_type} of the network needs its {name} as a constant list of integers.")
        settings[name] = integers[inputs.pop(1)]
    if len(inputs) not in operation.inputs or len(outputs) != 1:
        raise InputError(f"a {node.op_type} of the network has {len(node.input)} inputs and {len(outputs)} outputs.")
    return Layer(node.op_type, tuple(inputs), outputs[0], settings)


def _attributes(node: Any, operation: Operation, opset: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for given in node.attribute:
        kind = operation.settings.get(given.name)
        is_known = kind is not None and opset >= SINCE.get(given.name, 0) and not given.ref_attr_name
        is_known = is_known and (kind is not tuple or _is_attribute(node.op_type, opset))
        if kind is None or not is_known or given.type != KINDS[kind] or given.name in found or len(given.ints) > MAX_AXES:
            raise InputError(f"a {node.op_type} of the network has an attribute {shorten(given.name)} that is not allowed.")
        value: Any = given.i if kind is int else given.f if kind is float else tuple(given.ints)
        is_odd = not math.isfinite(value) if kind is float else given.name in FLAGS and value not in (0, 1)
        if is_odd or (given.name == "transA" and value):
            raise InputError(f"a {node.op_type} of the network has {given.name} {shorten(value)}, which is not allowed.")
        found[given.name] = value
    return found


def _is_attribute(operation: str, opset: int) -> bool:
    """Whether lists of integers are attributes of an operation rather than inputs."""
    return operation == "ReduceMean" and opset < AXES_AS_INPUT


def write_network(network: Network) -> bytes:
    """An ONNX file of a network, without any text but the names of its tensors."""
    nodes, lists = [], []
    taken = {network.input, *network.constants, *(layer.output for layer in network.layers)}
    for layer in network.layers:
        attributes, inputs = dict(layer.settings), list(layer.inputs)
        for name, kind in OPERATIONS[layer.operation].settings.items():
            if kind is tuple and name in attributes and not _is_attribute(layer.operation, WRITTEN_OPSET):
                label = f"{layer.output}.{name}"
                while label in taken:
                    label += "'"
                taken.add(label)
                inputs.append(label)
                lists.append(onnx.numpy_helper.from_array(np.array(attributes.pop(name), np.int64), label))
        nodes.append(onnx.helper.make_node(layer.operation, inputs, [layer.output], **attributes))
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [BATCH, width])
        for name, width in ((network.input, network.n_inputs), (network.output, network.n_outputs))
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in network.constants.items()]
    tensors += lists
    graph = onnx.helper.make_graph(nodes, "policy", ports[:1], ports[1:], tensors)
    opset = onnx.helper.make_opsetid("", WRITTEN_OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=WRITTEN_IR, producer_name="matchgym")
    return bytes(model.SerializeToString(deterministic=True))
