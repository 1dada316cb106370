"""Hostile input of manifests, declarations, instances and networks: a sentence, no crash, no hang, bounded memory."""

import json
import resource

import numpy as np
import pytest
from boards import write_artefact
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matchgym.envs.instance import InputError
from matchgym.envs.registry import ENTRIES
from matchgym.leaderboards.artefact import MANIFEST, load_policy, parse_artefact, parse_declaration, read_artefact
from matchgym.leaderboards.store import check_chain
from matchgym.leaderboards.tasks import find_task

QUIET = settings(
    max_examples=60,
    deadline=5000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """None of these tests may need more than 300 MB beyond what was in use before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def is_sentence(error: InputError) -> bool:
    text = str(error)
    return 10 < len(text) < 1200 and "\n" not in text and "Traceback" not in text


def refused_or_none(function, *arguments):
    """The refusal of a call, which must be a sentence; None if it went well. Anything else is an error of the test."""
    try:
        function(*arguments)
    except InputError as error:
        if not is_sentence(error):
            raise AssertionError(f"not a sentence: {error}") from error
        return error
    return None


def good_manifest(tmp_path):
    return json.loads((write_artefact(tmp_path / "good") / MANIFEST).read_text())


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@QUIET
@given(data=st.data(), value=VALUES)
def test_manifests_with_any_value_anywhere(tmp_path, data, value):
    manifest = good_manifest(tmp_path)
    path = data.draw(st.sampled_from(list(places(manifest))))
    text = json.dumps(replaced(manifest, path, value)).encode()
    content = b'{"policy": "greedy", "parameters": {}}'
    refused_or_none(parse_artefact, text, lambda name, digest, place: content)


@QUIET
@given(st.binary(max_size=300))
def test_manifests_and_declarations_of_any_bytes(data):
    assert refused_or_none(parse_artefact, data, lambda *_: b"") is not None
    assert refused_or_none(parse_declaration, data) is not None


@QUIET
@given(parameters=st.dictionaries(st.text(max_size=12) | st.sampled_from(["threshold", "V", "eps"]), VALUES, max_size=3))
def test_declarations_with_any_parameters(tmp_path, parameters):
    data = json.dumps({"policy": "greedy", "parameters": parameters}).encode()
    (file,) = read_artefact(write_artefact(tmp_path / "a", data=data)).entries
    refused_or_none(load_policy, file)


NASTY = [
    0, -1, 1e308, -1e308, 1e-320, 10**400, True, None, "NaN", [], {}, [[]], [[[1]]], [1] * 1000, "x" * 10_000, float("nan"),
    float("inf"), {"a": {"b": []}}, [None], ["1"], [[1], [1, 2]], 2**63, 0.1, "\x00", "../../etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_instances_with_nasty_values_in_every_field(entry):
    fields = json.loads(json.dumps(entry.model.load("toy").to_dict()))
    for key in fields:
        for value in NASTY:
            refused_or_none(entry.model.load, fields | {key: value})


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
@QUIET
@given(data=st.data(), value=VALUES)
def test_instances_with_any_value_anywhere(entry, data, value):
    fields = json.loads(json.dumps(entry.model.load("toy").to_dict()))
    path = data.draw(st.sampled_from([path for path in places(fields) if path]))
    refused_or_none(entry.model.load, replaced(fields, path, value))


@QUIET
@given(st.text(max_size=200))
def test_records_of_any_text(text):
    refused_or_none(lambda: list(check_chain(text)))


def test_networks_of_any_bytes_and_with_any_byte_changed():
    pytest.importorskip("onnx")
    from matchgym.leaderboards.artefact import probe
    from matchgym.leaderboards.network import Layer, Network
    from matchgym.leaderboards.onnx_file import read_network, write_network

    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(5, 8)).astype(np.float32), "v": rng.normal(size=(8, 3)).astype(np.float32)}
    layers = (Layer("MatMul", ("x", "w"), "h", {}), Layer("Relu", ("h",), "g", {}), Layer("MatMul", ("g", "v"), "y", {}))
    good = write_network(Network(5, 3, "x", "y", constants, layers))

    def intake(data):
        probe(read_network(data, 5, 3))

    @QUIET
    @given(st.binary(max_size=400))
    def any_bytes(data):
        assert refused_or_none(intake, data) is not None

    @settings(QUIET, max_examples=300)
    @given(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=6), st.integers(0, 40))
    def changed(place, data, cut):
        refused_or_none(intake, good[:place] + data + good[place + cut :])

    any_bytes()
    changed()


def test_names_cannot_leave_the_folder(tmp_path):
    for name in ("../x", "/etc/passwd", "a/b", ".", "..", "manifest.json", "", "x" * 300, "a\x00b", ".hidden", "ä"):
        folder = write_artefact(tmp_path / "a", entry={"file": name})
        assert refused_or_none(read_artefact, folder) is not None, name


def test_a_declaration_cannot_make_the_host_read_a_file(tmp_path):
    """Parameters that are tables on the command line are paths there; a stranger must send the table itself."""
    import inspect

    from matchgym.leaderboards.artefact import _is_plain, task_policies

    found = 0
    for task in (find_task("demo"), find_task("queues-duo"), find_task("learning-tables"), find_task("locality-small")):
        for name, kind in task_policies(task).items():
            for key, parameter in inspect.signature(kind).parameters.items():
                if not _is_plain(parameter.annotation):
                    found += 1
                    data = json.dumps({"policy": name, "parameters": {key: "/etc/passwd"}}).encode()
                    (file,) = read_artefact(write_artefact(tmp_path / "a", data=data, entry={"task": task.name})).entries
                    with pytest.raises(InputError, match="must be a table of numbers"):
                        load_policy(file)
    assert found > 0
