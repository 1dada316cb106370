"""The command line on MatchingQueues-v0: keys of the JSON, options for short queues, frontier and reproduce, refusals."""

import json

import numpy as np
import pytest
from test_cli import ok, run

ID = "MatchingQueues-v0"


def test_bound_keys(capsys):
    record = ok(capsys, "bound", ID)
    assert record["kind"] == "priced"
    assert record["sense"] == "upper"
    for kind in ("dlp", "optimum", "nlp", "dlp-tilde", "pooled", "fluid"):
        record = ok(capsys, "bound", ID, "--kind", kind)
        assert record["sense"] == "lower"
        assert record["certified_value"] <= record["value"] + 1e-9
        assert "throughput_price" in record
        if kind in ("dlp", "optimum"):
            assert record["lower"] <= record["value"] <= record["upper"]
    assert run(capsys, "bound", ID, "--kind", "dlp")[0] == 0


def test_short_queues(capsys):
    """nlp and priority-rounding follow the same short queues, caps and rates; the others refuse the options."""
    words = ("--instance", "short-long", "--short", "0", "--caps", "5")
    record = ok(capsys, "bound", ID, "--kind", "nlp", *words)
    programme = np.array(record["match_rates"])
    assert (record["short"], record["caps"]) == ([0], [5])
    assert programme.shape == (2, 2)
    for variant in ("printed", "simplified"):
        words_of = ("--policy", "priority-rounding", "--exact", "--param", "eps=0.1", "--param", f"variant={variant}")
        found = ok(capsys, "evaluate", ID, *words, *words_of)
        rates = np.array(found["match_rates"])
        assert np.allclose(rates[0], programme[0], atol=1e-8)
        assert (rates[1] <= 0.9 * programme[1] + 1e-8).all()
        assert found["throughput"] == pytest.approx(rates.sum())
    words_of = ("--policy", "priority-rounding", "--replications", 8, "--decisions", 4000, "--warmup", 200)
    simulated = ok(capsys, "evaluate", ID, *words, *words_of)
    assert simulated["throughput"] == pytest.approx(programme.sum(), rel=0.2)
    for bad in (
        ("bound", ID, *words),
        ("bound", "StationaryMatching-v0", "--short", "0"),
        ("evaluate", ID, "--policy", "greedy", "--short", "0"),
        ("bound", ID, "--kind", "nlp", "--short", "a,b"),
        ("bound", ID, "--kind", "nlp", "--short", "9"),
        ("bound", ID, "--kind", "nlp", "--caps", "3"),
        ("bound", ID, "--kind", "nlp", "--short", "0", "--caps", "0"),
    ):
        code, out, err = run(capsys, *bad)
        assert code == 2, bad
        assert out == ""
        assert "short" in err or "caps" in err
        assert len(err.splitlines()) <= 3


def test_evaluate_keys(capsys):
    """cost_rate and throughput beside the objective, exact and simulated; match rates when exact."""
    exact = ok(capsys, "evaluate", ID, "--policy", "dynamic-threshold", "--exact")
    assert exact["throughput"] == pytest.approx(3.0, abs=1e-8)
    assert exact["cost_rate"] == pytest.approx(ok(capsys, "bound", ID, "--kind", "dlp")["value"], abs=1e-8)
    assert np.array(exact["match_rates"]).shape == (1, 3)
    price = ok(capsys, "bound", ID)["throughput_price"]
    assert exact["objective"]["mean"] == pytest.approx(price * exact["throughput"] - exact["cost_rate"], abs=1e-8)
    words = ("--replications", 4, "--warmup", 100, "--decisions", 2000)
    simulated = ok(capsys, "evaluate", ID, "--policy", "dynamic-threshold", *words)
    mean = simulated["objective"]["mean"]
    assert mean == pytest.approx(price * simulated["throughput"] - simulated["cost_rate"], abs=1e-9)
    assert set(simulated["rates"]["throughput"]) == {"mean", "low", "high"}
    code, out, _ = run(capsys, "evaluate", ID, "--policy", "cheapest-first", *words)
    assert code == 0
    assert "throughput" in out


def test_targets_out_of_reach(capsys, tmp_path):
    path = tmp_path / "greedy.json"
    fields = {
        "model": "matching_queues", "name": "greedy", "supplier_rates": [1], "abandonment_rate": 1, "customer_rates": [1],
        "costs": [[1]], "throughput_target": 0.5,
    }  # fmt: skip
    path.write_text(json.dumps(fields))
    for words in (("bound", ID), ("bound", ID, "--kind", "fluid"), ("evaluate", ID, "--policy", "greedy")):
        code, _, err = run(capsys, *words, "--instance", path)
        assert code == 2
        assert "throughput_target" in err


def test_frontier(capsys, tmp_path):
    record = ok(capsys, "frontier", ID, "--instance", "toy", "--out", tmp_path)
    assert (tmp_path / "MatchingQueues-v0-toy.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((tmp_path / "MatchingQueues-v0-toy.json").read_text())
    assert stored["frontier"] == record["frontier"]
    curve = stored["frontier"]
    for point in stored["policies"]:
        assert point["cost_rate"] >= np.interp(point["throughput"], curve["throughput"], curve["cost_rate"]) - 1e-8
    code, _, err = run(capsys, "frontier", "StationaryMatching-v0", "--out", tmp_path)
    assert code == 2
    assert "frontier" in err


def test_reproduce(capsys, tmp_path):
    names = [each["name"] for each in ok(capsys, "reproduce", "--list")["experiments"]]
    assert "matching-queues-fig1" in names
    record = ok(capsys, "reproduce", "matching-queues-fig1", "--replications", 30, "--out", tmp_path)
    assert (tmp_path / "matching-queues-fig1.png").read_bytes().startswith(b"\x89PNG")
    assert record["hard"]["selected"]["0.76"] == pytest.approx(2.1045, abs=1e-4)
    assert [row["throughput_target"] for row in record["random"]["targets"]] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert run(capsys, "reproduce")[0] == 0
    code, _, err = run(capsys, "reproduce", "no-such-figure")
    assert code == 2
    assert "no-such-figure" in err
    (tmp_path / "file").write_text("")
    assert run(capsys, "reproduce", "matching-queues-fig1", "--out", tmp_path / "file")[0] == 2


def test_exact_value_whose_anchor_is_out_of_reach(tmp_path, capsys):
    """Greedy needs the joint chain of all queues, Priority Rounding small parts of it: the anchor is then simulated."""
    path = tmp_path / "market.json"
    fields = {
        "model": "matching_queues",
        "name": "one-short-two-long",
        "supplier_rates": [0.8, 30, 40],
        "abandonment_rate": 1,
        "customer_rates": [1, 20, 25],
        "costs": [[0.2, 0.5, 0.9], [0.6, 0.3, 0.8], [0.9, 0.7, 0.2]],
        "throughput_target": 35,
    }
    path.write_text(json.dumps(fields))
    words = ("--instance", path, "--policy", "priority-rounding", "--short", 0, "--caps", 5, "--exact")
    record = ok(capsys, "evaluate", ID, *words)
    assert record["objective"]["replications"] == 0
    assert record["anchor"]["replications"] == 32
    assert record["objective"]["high"] - record["objective"]["low"] < 1e-8
    assert np.shape(record["match_rates"]) == (3, 3)
    assert record["score"] is None  # the anchor's interval reaches the bound
    assert run(capsys, "bound", ID, "--instance", path, "--kind", "nlp", "--short", 0, "--caps", 10**8)[2].startswith("caps")
