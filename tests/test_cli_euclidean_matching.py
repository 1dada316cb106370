"""The command line on EuclideanMatching-v0: bounds, parameters of policies, frontier, and the experiment."""

import pytest
from test_cli import ok, run

from matchgym.baselines import euclidean_matching_experiments as experiments

ID = "EuclideanMatching-v0"


def test_bounds(capsys):
    record = ok(capsys, "bound", ID)
    assert (record["kind"], record["sense"]) == ("priced", "upper")
    assert record["certified_value"] >= record["value"] - 1e-9
    record = ok(capsys, "bound", ID, "--kind", "optimum")
    assert record["lower"] <= record["value"] <= record["upper"]
    record = ok(capsys, "bound", ID, "--kind", "nlp", "--short", "0", "--caps", "6")
    assert (record["short"], record["caps"]) == ([0], [6])


def test_exact_values_and_parameters(capsys):
    words = ("evaluate", ID, "--exact", "--policy")
    cells = ok(capsys, *words, "euclidean-cells", "--param", "side=1", "--param", "inner=0")
    assert cells["score"] == pytest.approx(1.0, abs=1e-5)
    assert cells["throughput"] * 1.0246 - cells["cost_rate"] == pytest.approx(cells["objective"]["mean"], abs=1e-9)
    radius = ok(capsys, *words, "nearest-neighbour", "--param", "radius=0.5")
    assert radius["objective"]["mean"] < cells["objective"]["mean"]
    for policy in ("hierarchical-greedy", "dispatch-radius"):
        assert ok(capsys, *words, policy)["score"] <= 1 + 1e-9
    for bad in (("side=0",), ("cells=3",), ("allocation=none",)):
        code, out, err = run(capsys, *words, "euclidean-cells", "--param", *bad)
        assert (code, out) == (2, "")
        assert bad[0].split("=")[0] in err


def test_frontier(capsys, tmp_path):
    record = ok(capsys, "frontier", ID, "--instance", "toy", "--out", str(tmp_path))
    assert record["id"] == ID
    assert {"euclidean-cells", "nearest-neighbour"} <= {point["policy"] for point in record["policies"]}
    assert (tmp_path / f"{ID}-toy.png").stat().st_size > 10_000


def test_reproduce(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "INSTANCE", "plane-12x12")
    monkeypatch.setattr(experiments, "SIDES", (1.0, 0.5))
    monkeypatch.setattr(experiments, "DECISIONS", 2_000)
    record = ok(capsys, "reproduce", "euclidean-cells", "--replications", "3", "--out", str(tmp_path))
    assert all(each["holds"] for each in record["claims"])
    assert [row["side"] for row in record["sides"]] == [1.0, 0.5]
    assert (tmp_path / "euclidean-cells.png").stat().st_size > 20_000
