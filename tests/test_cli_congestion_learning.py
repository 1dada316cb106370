"""The command line on the two platforms: contract of JSON keys, refusals, reproduced experiments."""

import json

import pytest

from matchgym.baselines.congestion_learning_experiments import EXPERIMENTS
from matchgym.bounds.congestion_learning import oracle
from matchgym.cli import main
from matchgym.envs.congestion_instances import CongestionLearningInstance

ID = "CongestionLearning-v0"


def run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--json"])
    out = capsys.readouterr()
    assert not caught.value.code, out.err
    return json.loads(out.out)


def refused(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    out = capsys.readouterr()
    assert caught.value.code == 2
    assert out.out == ""
    assert len(out.err) <= 240
    assert out.err.count("\n") == 1
    return out.err


def written(path, **fields):
    values = {
        "arrival_rates": [1.1, 0.4],
        "n_servers": 3,
        "rewards": [[0.9, 0.4, 0.6], [0.2, 0.8, 0.3]],
        "horizon": 40,
    } | fields
    path.write_text(json.dumps({"model": "congestion_learning", "name": "mine", **values}))
    return CongestionLearningInstance.read(path)


def test_bound_and_exact(capsys, tmp_path):
    path = tmp_path / "mine.json"
    instance = written(path)
    found = run(capsys, "bound", ID, "--instance", str(path), "--kind", "oracle")
    assert found["value"] == pytest.approx(oracle(instance).value)
    assert found["certified_value"] >= found["value"] - 1e-12
    for policy in ("barrier-known", "queue-known", "jsq", "random"):
        record = run(capsys, "evaluate", ID, "--policy", policy, "--instance", str(path), "--exact")
        assert record["objective"]["replications"] == 0
        assert 0 < record["ratio"] <= 1
    known = run(capsys, "evaluate", ID, "--policy", "barrier-known", "--instance", str(path), "--exact", "--param", "V=50")
    assert known["objective"]["mean"] != record["objective"]["mean"]


def test_ratios_of_drawn_rewards(capsys):
    record = run(capsys, "evaluate", ID, "--policy", "queue-ucb", "--replications", "20", "--param", "eps=0.02")
    assert 0.9 < record["ratio"] < 0.97
    assert record["ratio_interval"]["low"] < record["ratio"] < record["ratio_interval"]["high"]
    assert record["bound"]["certified_value"] > record["objective"]["mean"]
    short = run(capsys, "evaluate", ID, "--policy", "queue-ucb", "--replications", "5", "--warmup", "100", "--decisions", "50")
    assert short["objective"]["replications"] == 5
    assert run(capsys, "evaluate", "FloatingClients-v0", "--policy", "queue-ucb", "--replications", "4")["ratio"] < 1


def test_refusals(capsys, tmp_path):
    assert "rewards" in refused(capsys, "bound", ID)
    assert "rewards" in refused(capsys, "bound", "FloatingClients-v0")
    assert "rewards" in refused(capsys, "evaluate", ID, "--policy", "queue-known", "--exact")
    assert "QueueUCB" in refused(capsys, "evaluate", ID, "--policy", "queue-ucb", "--instance", "toy", "--exact")
    assert "decisions" in refused(capsys, "evaluate", ID, "--policy", "queue-ucb", "--decisions", "1001")
    assert "'W'" in refused(capsys, "evaluate", ID, "--policy", "barrier-ucb", "--param", "W=3")
    assert "fig99" in refused(capsys, "reproduce", "fig99")
    assert "--replications" in refused(capsys, "reproduce", "congestion-fig1", "--replications", "1")
    path = tmp_path / "bad.json"
    for fields, word in (
        ({"rewards": [[0.9, 0.4], [0.2, 0.8]]}, "rewards"),
        ({"arrival_rates": [1.0, "2"]}, r"arrival_rates[1]"),
        ({"horizon": None}, "horizon"),
        ({"arrivals": 3}, "arrivals"),
    ):
        values = {"arrival_rates": [1.1, 0.4], "n_servers": 3, "rewards": None} | fields
        path.write_text(json.dumps({"model": "congestion_learning", **values}))
        assert word in refused(capsys, "evaluate", ID, "--policy", "queue-ucb", "--instance", str(path))


def test_experiments_are_listed_and_drawn(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert {each["name"] for each in run(capsys, "reproduce", "--list")["experiments"]} >= set(EXPERIMENTS)
    record = run(capsys, "reproduce", "congestion-fig1", "--replications", "20", "--out", str(tmp_path))
    assert all(each["holds"] for each in record["claims"])
    assert json.loads((tmp_path / "congestion-fig1.json").read_text())["claims"] == record["claims"]
    assert (tmp_path / "congestion-fig1.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["congestion-fig3", "congestion-fig6", "congestion-ec1", "congestion-ec2"])
def test_claims_over_random_rewards(name):
    """100 matrices: every statement holds, but for the printed form of C11, which its corrected form replaces."""
    for each in EXPERIMENTS[name].run(lambda share: None, 100, 0)["claims"]:
        assert each["holds"] == (each["claim"] != "C11 as printed: the total reward improves as nu falls"), each["claim"]
