"""Instances: every fault is one sentence that names the field; JSON, digest and catalogue agree."""

import copy
import json

import numpy as np
import pytest

from matchgym.envs.instance import InputError
from matchgym.envs.stationary_matching import MODEL, StationaryMatchingInstance

GOOD = {
    "model": "stationary_matching",
    "name": "good",
    "supplier_rates": [1.0, 2.0],
    "departure_rates": [0.5, 0.5],
    "customer_rates": [1.0, 1.0, 1.0],
    "rewards": [[1.0, 0.0, 2.0], [0.5, 0.5, 0.5]],
}


def changed(**changes):
    values = copy.deepcopy(GOOD)
    for key, value in changes.items():
        if value is None:
            del values[key]
        else:
            values[key] = value
    return values


FAULTS = {
    "negative rate": (changed(supplier_rates=[1.0, -2.0]), "supplier_rates[1]"),
    "zero rate": (changed(departure_rates=[0.5, 0]), "departure_rates[1]"),
    "nan": (changed(customer_rates=[1.0, float("nan"), 1.0]), "customer_rates[1]"),
    "infinite": (changed(customer_rates=[1.0, float("inf"), 1.0]), "customer_rates[1]"),
    "negative reward": (changed(rewards=[[1.0, 0.0, 2.0], [0.5, -0.5, 0.5]]), "rewards[1, 1]"),
    "string": (changed(supplier_rates=[1.0, "2"]), "supplier_rates[1]"),
    "null": (changed(supplier_rates=[1.0, None]), "supplier_rates[1]"),
    "boolean": (changed(supplier_rates=[1.0, True]), "supplier_rates[1]"),
    "object": (changed(supplier_rates={"a": 1}), "supplier_rates"),
    "scalar": (changed(supplier_rates=3.0), "supplier_rates"),
    "empty side": (changed(customer_rates=[]), "customer_rates"),
    "shape": (changed(departure_rates=[0.5]), "departure_rates"),
    "reward shape": (changed(rewards=[[1.0, 0.0], [0.5, 0.5]]), "rewards"),
    "ragged": (changed(rewards=[[1.0, 0.0, 2.0], [0.5]]), "rewards"),
    "axes": (changed(supplier_rates=[[1.0, 2.0]]), "supplier_rates"),
    "too large": (changed(supplier_rates=[1e300, 1.0]), "supplier_rates[0]"),
    "too small": (changed(supplier_rates=[1e-300, 1.0]), "supplier_rates[0]"),
    "too many waiting": (changed(supplier_rates=[1e6, 1.0], departure_rates=[1e-6, 1.0]), "supplier_rates[0]"),
    "huge integer": (changed(supplier_rates=[10**400, 1]), "supplier_rates"),
    "missing": (changed(rewards=None), "rewards"),
    "unknown": (changed(reward=[1.0]), "reward"),
    "model": (changed(model="matching_queues"), "matching_queues"),
    "no model": (changed(model=None), "model"),
    "name": (changed(name=7), "name"),
    "unprintable name": (changed(name="a\x1b[31m"), "name"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_sentence_naming_the_field(fault):
    values, field = FAULTS[fault]
    with pytest.raises(InputError) as caught:
        MODEL.load(values)
    message = str(caught.value)
    assert field in message
    assert "\n" not in message
    assert len(message) <= 240
    assert message.endswith(".")


FILES = {
    "empty": b"",
    "blank": b"  \n",
    "binary": bytes(range(256)),
    "not JSON": b"{'model': 1}",
    "list": b"[1, 2]",
    "number": b"3",
    "NaN": json.dumps(changed(supplier_rates=[1.0, float("nan")])).encode(),
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "digits": b'{"model": "stationary_matching", "supplier_rates": [' + b"9" * 10_000 + b"]}",
    "overflowing float": b'{"model": "stationary_matching", "supplier_rates": [1e999]}',
    "twice": b'{"model": "stationary_matching", "model": "stationary_matching"}',
    "byte order mark": b"\xff\xfe{}",
}


@pytest.mark.parametrize("fault", FILES)
def test_files_that_are_no_instance(fault, tmp_path):
    path = tmp_path / "instance.json"
    path.write_bytes(FILES[fault])
    with pytest.raises(InputError) as caught:
        MODEL.load(str(path))
    assert "\n" not in str(caught.value)
    assert "instance.json" in str(caught.value)
    assert len(str(caught.value)) <= 240


def test_other_sources(tmp_path):
    for source in (tmp_path, "no-such-instance", "x" * 5000, "a\0b", 3, None, [1], np.zeros(3)):
        with pytest.raises(InputError):
            MODEL.load(source)
    path = tmp_path / "good.json"
    path.write_text(json.dumps(GOOD))
    assert MODEL.load(path) == MODEL.load(str(path)) == MODEL.load(GOOD)


def test_json_round_trip_and_digest():
    instance = MODEL.load(GOOD)
    again = StationaryMatchingInstance.from_dict(json.loads(instance.to_json()))
    assert again == instance
    assert again.sha256 == instance.sha256
    assert MODEL.load(changed(supplier_rates=[1, 2])).sha256 == instance.sha256  # 1 and 1.0 are one number
    assert MODEL.load(changed(supplier_rates=[1.0, np.nextafter(2.0, 3)])).sha256 != instance.sha256


def test_instances_are_frozen():
    instance = MODEL.load(GOOD)
    with pytest.raises(ValueError, match="read-only"):
        instance.rewards[0, 0] = 9.0
    with pytest.raises(AttributeError):
        instance.name = "other"


def test_every_named_instance_loads(entry):
    digests = set()
    for name in entry.model.catalogue:
        instance = entry.model.load(name)
        assert instance.name == name
        digests.add(instance.sha256)
    assert len(digests) == len(entry.model.catalogue)


def test_files_of_other_programs_are_read(tmp_path):
    """A byte order mark is skipped, brackets in strings are no nesting, and an endless integer is named by its field."""
    path = tmp_path / "market.json"
    values = GOOD | {"name": "[" * 50}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(values).encode())
    assert MODEL.load(path).name == "[" * 50
    path.write_text(json.dumps(values).replace('"supplier_rates": [1.0', '"supplier_rates": [1' + "0" * 5000))
    with pytest.raises(InputError, match=r"supplier_rates\[0\] is inf"):
        MODEL.load(path)
