"""Networks of submissions: the interpreter against onnxruntime, the gate against hostile files, the probes."""

import os

import numpy as np
import pytest
from boards import N_IN, N_OUT, random_network

from matchgym.envs.instance import InputError
from matchgym.leaderboards.artefact import NetworkPolicy, probe
from matchgym.leaderboards.network import OPERATIONS, Layer, Network
from matchgym.leaderboards.tasks import find_task

onnx = pytest.importorskip("onnx")
from matchgym.leaderboards.onnx_file import MAX_BYTES, read_network, write_network  # noqa: E402

TASK = find_task("demo")
GOOD = write_network(random_network())


def altered(change) -> bytes:
    model = onnx.ModelProto.FromString(GOOD)
    change(model)
    return model.SerializeToString()


# The interpreter.


def test_scores_are_those_of_onnxruntime(monkeypatch):
    """On 20,000 observations, for networks with every operation there is."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    runtime = pytest.importorskip("onnxruntime")
    for seed in range(5):
        network = random_network(seed)
        assert {layer.operation for layer in network.layers} == set(OPERATIONS)
        data = write_network(network)
        onnx.checker.check_model(onnx.ModelProto.FromString(data), full_check=True)
        x = np.random.default_rng(seed).normal(0, 4, (4000, N_IN)).astype(np.float32)
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        theirs = session.run(None, {"x": x})[0]
        assert np.allclose(read_network(data, N_IN, N_OUT).run(x), theirs, rtol=1e-4, atol=1e-4)


def test_axes_may_be_negative_left_open_and_inputs():
    """As exporters of version 18 and later write them; what is run has them in their plainest form."""

    def change(model):
        model.opset_import[0].version = 18
        for node in model.graph.node:
            for given in [each for each in node.attribute if each.name == "axes"]:
                node.input.append(f"{node.name}{node.output[0]}.axes")
                axes = np.array(given.ints, np.int64) - 4
                model.graph.initializer.append(onnx.numpy_helper.from_array(axes, node.input[-1]))
                node.attribute.remove(given)
        for tensor in model.graph.initializer:
            if tensor.name == "s0.axes":
                _set(tensor, np.array([-1]))
            if tensor.name == "s1.shape":
                _set(tensor, np.array([0, 2, -1, 1]))
            if tensor.name == "s8.shape":
                tensor.name = "y.shape"  # as one that is written may be called, but for the table of that name
        for node in model.graph.node:
            node.input[:] = ["y.shape" if name == "s8.shape" else name for name in node.input]

    assert write_network(read_network(altered(change), N_IN, N_OUT)) == GOOD


def test_writing_and_reading_is_the_identity():
    network = read_network(GOOD, N_IN, N_OUT)
    assert write_network(network) == GOOD
    assert network.n_parameters == random_network().n_parameters


def test_the_mask_and_the_choice_are_out_of_the_networks_reach():
    instance = TASK.load()
    constants = {"w": np.zeros((5, 3), np.float32), "b": np.log(np.array([0.5, 0.3, 0.2], np.float32))}
    network = Network(5, 3, "x", "y", constants, (Layer("Gemm", ("x", "w", "b"), "y", {}),))
    obs, masks = np.zeros((20_000, 5), np.float32), np.tile([True, True, True], (20_000, 1))
    greedy = NetworkPolicy(network, TASK.entry).fit(instance)
    assert (greedy.predict(obs, action_masks=masks)[0] == 0).all()
    assert (greedy.predict(obs, action_masks=masks & [False, True, True])[0] == 1).all()
    sampling = NetworkPolicy(network, TASK.entry, is_sampling=True).fit(instance)
    actions, _ = sampling.predict(obs, sampling.start(len(obs), 5), action_masks=masks)
    assert np.abs(np.bincount(actions) / 20_000 - [0.5, 0.3, 0.2]).max() < 4.5 * 0.5 / np.sqrt(20_000)
    with pytest.raises(InputError, match="5 numbers to 3 scores, but instance 'random-3x4' needs 7 and 4"):
        NetworkPolicy(random_network(), find_task("random-3x4").entry).fit("random-3x4")


# The gate.


def _set(tensor, array):
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _nan(model):
    _set(model.graph.initializer[0], np.full(N_IN, np.nan, np.float32))


def _double(model):
    _set(model.graph.initializer[0], np.zeros(N_IN))


def _external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def _huge(model):
    model.graph.initializer[0].dims[:] = [60_000, 60_000]


def _endless(model):
    model.graph.initializer[0].dims[:] = [2**62]


def _short(model):
    model.graph.initializer[0].raw_data = b"1234"


def _deep(model):  # deeper still, the parser refuses
    graph = model.graph
    for _ in range(8):
        node = graph.node.add(op_type="If", input=["x"], output=["z"])
        branch = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        graph = branch.g


def _node(**fields):
    def change(model):
        model.graph.node.insert(0, onnx.helper.make_node(**fields))

    return change


def _many(model):
    for k in range(300):
        model.graph.node.append(onnx.helper.make_node("Neg", ["x"], [f"n{k}"]))


def _wide(model):
    _set(model.graph.initializer[2], np.zeros((1005, 1000), np.float32))


def _fixed_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 64


def _column(model):
    _set(model.graph.initializer[0], np.zeros((N_IN, 1), np.float32))


def _two_inputs(model):
    model.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 2]))


def _with_list(op_type, *lists):
    """A node on x whose further inputs are lists of integers."""

    def change(model):
        names = [f"list{k}" for k in range(len(lists))]
        for name, values in zip(names, lists):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
        model.graph.node.insert(0, onnx.helper.make_node(op_type, ["x", *names], ["m"]))
        if len(lists[0]) == 4:
            model.graph.node.insert(1, onnx.helper.make_node("Add", ["m", "x"], ["n"]))

    return change


def _none_left(model):
    _with_list("Reshape", [0, N_IN])(model)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("allowzero", 1))


def _outer(model, extents):
    """A table of shape (batch, *extents), of the first number of every observation."""
    for name, extent in zip("ij", extents):
        shape = (1, extent, 1) if name == "i" else (1, 1, extent)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    for name, values in (("start", [0]), ("end", [1]), ("axis", [1]), ("cube", [0, 1, 1])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    nodes = [
        ("Slice", ["x", "start", "end", "axis"], "m0"), ("Reshape", ["m0", "cube"], "m1"), ("Mul", ["m1", "i"], "m2"),
        ("Mul", ["m2", "j"], "m3"),
    ]  # fmt: skip
    for k, (op_type, inputs, output) in enumerate(nodes):
        model.graph.node.insert(k, onnx.helper.make_node(op_type, inputs, [output]))


def _unreadable(model):
    data = model.SerializeToString().replace(b"hTanh", b"\xff\xfeTan")
    model.ParseFromString(data)


def _axes_without_end(model):
    model.graph.initializer[0].dims[:] = [1] * 2_000_000


def _crowded(model):
    for k in range(1100):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), f"k{k}"))


def _by_reference(model):
    model.graph.node.insert(0, onnx.helper.make_node("Elu", ["x"], ["m"], alpha=1.0))
    model.graph.node[0].attribute[0].ref_attr_name = "alpha"


def _laborious(model):
    _outer(model, (100, 100))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((100, 100), np.float32), "square"))
    for k in range(70):
        model.graph.node.insert(4 + k, onnx.helper.make_node("MatMul", ["m3", "square"], [f"n{k}"]))


def _hoarding(model):
    _outer(model, (200, 300))
    for k in range(6):
        model.graph.node.append(onnx.helper.make_node("Neg", ["m3"], [f"n{k}"]))
    for k in range(5):
        model.graph.node.append(onnx.helper.make_node("Add", [f"n{k}", f"n{k + 1}"], [f"o{k}"]))


def _vast(model):
    _outer(model, (1000, 1000))


def _long(model):
    _outer(model, (200, 300))
    for k in range(20):
        model.graph.node.append(onnx.helper.make_node("Neg", [f"n{k - 1}" if k else "m3"], [f"n{k}"]))


HOSTILE = {
    "a mean over the batch": (_node(op_type="ReduceMean", inputs=["x"], outputs=["m"], axes=[0]), "not the batch"),
    "a mean over the batch, counted from behind": (
        _node(op_type="ReduceMean", inputs=["x"], outputs=["m"], axes=[-2]),
        "not the batch",
    ),
    "a mean over everything": (_node(op_type="ReduceMean", inputs=["x"], outputs=["m"]), "not the batch"),
    "a mean that leaves nothing": (_node(op_type="ReduceMean", inputs=["x"], outputs=["m"], axes=[1], keepdims=0), "no axis"),
    "observations joined": (_node(op_type="Concat", inputs=["x", "x"], outputs=["m"], axis=0), "not the batch"),
    "a table joined with a constant": (_node(op_type="Concat", inputs=["x", "a"], outputs=["m"], axis=1), "as many axes"),
    "a table joined with nothing": (_node(op_type="Concat", inputs=[], outputs=["m"], axis=1), "0 inputs"),
    "the batch as an axis": (_with_list("Reshape", [N_IN, -1]), "keep the batch"),
    "a batch of one": (_with_list("Reshape", [1, -1]), "keep the batch"),
    "numbers out of nothing": (_with_list("Reshape", [0, 2 * N_IN]), "keep the batch and the numbers"),
    "a batch of none": (_none_left, "batch of none"),
    "a shape that wraps around": (_with_list("Reshape", [0, 2**62, 4]), "keep the batch and the numbers"),
    "a shape of a thousand axes": (_with_list("Reshape", [1] * 1000), "lists of up to 4"),
    "a shape that is computed": (_node(op_type="Reshape", inputs=["x", "x"], outputs=["m"]), "constant list of integers"),
    "a shape of numbers": (_node(op_type="Reshape", inputs=["x", "a"], outputs=["m"]), "constant list of integers"),
    "a shape that copies what is not there": (_with_list("Reshape", [0, -1, 1, 0]), "keep the batch and the numbers"),
    "a flag that is neither": (_node(op_type="ReduceMean", inputs=["x"], outputs=["m"], axes=[1], keepdims=2), "keepdims 2"),
    "a name that is no text": (_unreadable, "has a name"),
    "a name without end": (_node(op_type="Neg", inputs=["x"], outputs=["m" * 10**6]), "1 to 200 letters"),
    "two million axes": (_axes_without_end, "at most 4 axes"),
    "a multitude of constants": (_crowded, "more than the 1024"),
    "a setting of a later version": (
        _node(op_type="ReduceMean", inputs=["x"], outputs=["m"], axes=[1], noop_with_empty_axes=0),
        "'noop_with_empty_axes'",
    ),
    "an attribute by reference": (_by_reference, "'alpha'"),
    "a list that is computed again": (_node(op_type="Neg", inputs=["x"], outputs=["s1.shape"]), "twice"),
    "a billion multiplications": (_laborious, "67108864 times"),
    "memory, table by table": (_hoarding, "at one time"),
    "integers for numbers": (_with_list("Add", [1, 2]), "before it is computed"),
    "a piece of the batch": (_with_list("Slice", [0], [1], [0]), "not the batch"),
    "every other number": (_with_list("Slice", [0], [4], [1], [2]), "steps of 1"),
    "a piece without axes": (_with_list("Slice", [0], [4]), "one length"),
    "an empty piece": (_with_list("Slice", [4], [4], [1]), "cuts out nothing"),
    "tables of different axes": (_with_list("Reshape", [0, 1, 1, N_IN]), "has inputs of"),
    "a hundred thousand numbers": (_vast, "65536 numbers"),
    "a million numbers, table by table": (_long, "in all tables together"),
    "a loop": (_node(op_type="Loop", inputs=["x"], outputs=["m"]), "'Loop'"),
    "memory": (_node(op_type="ConstantOfShape", inputs=["x"], outputs=["m"]), "'ConstantOfShape'"),
    "randomness": (_node(op_type="RandomNormalLike", inputs=["x"], outputs=["m"]), "'RandomNormalLike'"),
    "a custom domain": (_node(op_type="Neg", inputs=["x"], outputs=["m"], domain="evil"), "operations of 'evil'"),
    "a product of observations": (_node(op_type="MatMul", inputs=["x", "x"], outputs=["m"]), "constant matrix"),
    "a transposed batch": (_node(op_type="Gemm", inputs=["x", "u"], outputs=["m"], transA=1), "not allowed"),
    "a number that is none": (_node(op_type="Elu", inputs=["x"], outputs=["m"], alpha=float("inf")), "not allowed"),
    "an unknown attribute": (_node(op_type="Neg", inputs=["x"], outputs=["m"], axis=1), "attribute 'axis'"),
    "a graph in an attribute": (_deep, "'If'"),
    "a name before its time": (_node(op_type="Neg", inputs=["y"], outputs=["m"]), "before it is computed"),
    "a name computed twice": (_node(op_type="Neg", inputs=["x"], outputs=["t0"]), "'t0' twice"),
    "too many inputs": (_node(op_type="Neg", inputs=["x", "x"], outputs=["m"]), "2 inputs"),
    "too many nodes": (_many, "more than the 256"),
    "too many parameters": (_wide, "1000000 parameters"),
    "NaN weights": (_nan, "not finite"),
    "float64": (_double, "not of float32"),
    "external data": (_external, "another file"),
    "a tensor of 14 GB": (_huge, "more than the 1000000 parameters"),
    "an axis without end": (_endless, "at most 4 axes"),
    "a tensor with too little data": (_short, "holds 1 numbers"),
    "a column for the batch": (_column, "combines a table"),
    "a fixed batch": (_fixed_batch, "batch left open"),
    "two inputs": (_two_inputs, "2 inputs where one"),
    "two sets of operations": (lambda model: model.opset_import.add(domain="evil", version=1), "no others"),
    "old operations": (lambda model: model.opset_import[0].__setattr__("version", 6), "version 13 to 24"),
    "functions": (lambda model: model.functions.add(name="f"), "functions"),
    "training": (lambda model: model.training_info.add(), "training information"),
    "sparse tensors": (lambda model: model.graph.sparse_initializer.add(), "sparse"),
    "no graph": (lambda model: model.ClearField("graph"), "no nodes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_networks_fall_to_the_static_gate(name):
    change, sentence = HOSTILE[name]
    with pytest.raises(InputError, match=sentence) as refusal:
        read_network(altered(change), N_IN, N_OUT)
    assert str(refusal.value).count("\n") == 0


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 100, b"PK\x03\x04", os.urandom(5000), GOOD[:-7], GOOD * (MAX_BYTES // len(GOOD) + 1)]
)
def test_files_that_are_no_networks(data):
    with pytest.raises(InputError):
        read_network(data, N_IN, N_OUT)


def test_a_thousand_random_alterations_end_in_a_network_or_a_sentence():
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(1000):
        data = bytearray(GOOD)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        try:
            network = read_network(bytes(data), N_IN, N_OUT)
            probe(network)
            accepted += 1
        except InputError:
            continue
    assert 0 < accepted < 1000


def test_rounding_that_is_blown_up_is_found_by_the_probes():
    """A column of a product computed twice, alone and among others: what differs is rounding, and tells of the batch's size."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(64, 7)).astype(np.float32)
    first = np.zeros((64, 1), np.float32)
    first[0] = 1e7
    constants = {"w": wide, "v": wide[:, :1].copy(), "f": first, "k": np.array([5e8], np.float32)}
    layers = (
        Layer("MatMul", ("x", "w"), "p", {}),
        Layer("Slice", ("p",), "p0", {"starts": (0,), "ends": (1,), "axes": (1,)}),
        Layer("MatMul", ("x", "v"), "q", {}),
        Layer("Sub", ("p0", "q"), "rounding", {}),
        Layer("MatMul", ("x", "f"), "size", {}),
        Layer("Sub", ("size", "k"), "over", {}),
        Layer("Relu", ("over",), "gate", {}),
        Layer("Mul", ("gate", "rounding"), "y", {}),
    )
    network = Network(64, 1, "x", "y", constants, layers)
    assert read_network(write_network(network), 64, 1).n_outputs == 1
    with pytest.raises(InputError, match="depend on the others"):
        probe(network)


def test_scores_that_overflow_are_found_by_the_probes():
    constants = {"w": np.full((N_IN, N_OUT), 1e38, np.float32)}
    with pytest.raises(InputError, match="not finite"):
        probe(Network(N_IN, N_OUT, "x", "y", constants, (Layer("MatMul", ("x", "w"), "y", {}),)))
