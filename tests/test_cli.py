"""The command line: JSON contracts, exit codes, one-sentence refusals, interruption."""

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from matchgym.baselines.experiments import Experiment
from matchgym.cli import main

ID = "StationaryMatching-v0"


def run(capsys, *words):
    """(exit code, stdout, stderr) of a command run in this process."""
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return done.value.code, out, err


def ok(capsys, *words):
    """The JSON object a command prints, and nothing else."""
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    assert "NaN" not in out
    assert "Infinity" not in out
    return json.loads(out)


def test_envs(capsys):
    found = ok(capsys, "envs")["environments"]
    entry = next(row for row in found if row["id"] == ID)
    assert set(entry) == {"id", "paper", "instances", "bounds", "policies"}
    assert {"demo", "toy"} <= set(entry["instances"])
    assert entry["bounds"] == ["tlp-online", "tlp-offline", "fluid", "flow", "singleton", "flow-singleton", "optimum"]
    assert run(capsys, "envs")[0] == 0


@pytest.mark.parametrize("kind", [None, "tlp-offline", "optimum"])
def test_bound(capsys, kind):
    record = ok(capsys, "bound", ID, "--instance", "toy", *([] if kind is None else ["--kind", kind]))
    assert {"id", "instance", "sha256", "kind", "sense", "value", "certified_value", "seconds"} <= set(record)
    assert record["kind"] == (kind or "tlp-online")
    assert record["certified_value"] == pytest.approx(record["value"], rel=1e-6)
    if kind == "optimum":
        assert record["lower"] <= 1 - 1 / (2.718281828459045 - 1) <= record["upper"]
    assert run(capsys, "bound", ID)[0] == 0


def test_evaluate(capsys):
    words = ("evaluate", ID, "--policy", "correlated-proposals", "--replications", 8, "--warmup", 100, "--decisions", 1000)
    record = ok(capsys, *words)
    assert {"id", "policy", "instance", "objective", "bound", "score", "ratio", "seconds"} <= set(record)
    assert set(record["objective"]) == {"mean", "low", "high", "replications"}
    assert record["objective"]["replications"] == 8
    assert record["objective"]["low"] <= record["objective"]["mean"] <= record["objective"]["high"]
    assert ok(capsys, *words)["objective"] == record["objective"]
    assert ok(capsys, *words, "--seed", 5)["objective"] != record["objective"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "score" in out


def test_evaluate_exactly(capsys):
    record = ok(capsys, "evaluate", ID, "--policy", "greedy", "--instance", "toy", "--exact")
    assert record["objective"]["mean"] == pytest.approx(1 - 1 / (2.718281828459045 - 1), abs=1e-9)
    assert record["objective"]["replications"] == 0
    assert record["score"] == pytest.approx(0, abs=1e-9)


def test_parameters(capsys):
    words = ("evaluate", ID, "--policy", "static-threshold", "--exact", "--param")
    assert ok(capsys, *words, "threshold=3")["objective"]["mean"] != ok(capsys, *words, "threshold=1")["objective"]["mean"]


def test_own_instance(capsys, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        '{"model": "stationary_matching", "name": "mine", "supplier_rates": [1], "departure_rates": [1], '
        '"customer_rates": [1], "rewards": [[2]]}'
    )
    assert ok(capsys, "bound", ID, "--instance", path)["instance"] == "mine"
    assert ok(capsys, "evaluate", ID, "--policy", "greedy", "--instance", path, "--exact")["objective"][
        "mean"
    ] == pytest.approx(2 * (1 - 1 / (2.718281828459045 - 1)), abs=1e-9)


def worthless(tmp_path):
    path = tmp_path / "worthless.json"
    path.write_text(
        '{"model": "stationary_matching", "name": "worthless", "supplier_rates": [1], "departure_rates": [1], '
        '"customer_rates": [1], "rewards": [[0]]}'
    )
    return path


def test_nothing_to_earn_has_null_scores(capsys, tmp_path):
    record = ok(capsys, "evaluate", ID, "--policy", "greedy", "--instance", worthless(tmp_path), "--replications", 2)
    assert record["score"] is None
    assert record["ratio"] is None


EVALUATE = ["evaluate", ID, "--policy", "greedy"]
REFUSED = {
    "unknown id": (["bound", "NoSuch-v0"], "NoSuch-v0"),
    "unknown kind": (["bound", ID, "--kind", "best"], "best"),
    "unknown policy": (["evaluate", ID, "--policy", "clever"], "clever"),
    "unknown instance": (["bound", ID, "--instance", "nowhere"], "nowhere"),
    "missing file": (["bound", ID, "--instance", "no/such/file.json"], "no/such/file.json"),
    "folder": (["bound", ID, "--instance", "/"], "/"),
    "negative replications": ([*EVALUATE, "--replications", "-1"], "replications"),
    "negative replications of an exact value": ([*EVALUATE, "--exact", "--replications", "-1"], "replications"),
    "not a number in a file": (["bound", ID, "--instance", "nan.json"], "departure_rates[0]"),
    "one replication": ([*EVALUATE, "--replications", "1"], "replications"),
    "negative warmup": ([*EVALUATE, "--warmup", "-5"], "warmup"),
    "no decisions": ([*EVALUATE, "--decisions", "0"], "decisions"),
    "negative seed": ([*EVALUATE, "--seed", "-3"], "seed"),
    "text for a number": ([*EVALUATE, "--replications", "many"], "replications"),
    "unknown option": ([*EVALUATE, "--speed", "3"], "--speed"),
    "unknown command": (["solve"], "solve"),
    "missing policy": (["evaluate", ID], "--policy"),
    "missing id": (["bound"], "ID"),
    "empty instance": (["bound", ID, "--instance", ""], "''"),
    "endless policy": (["evaluate", ID, "--policy", "x" * 3000], "xxx"),
    "endless command": (["y" * 3000], "yyy"),
    "too many steps": (["train", ID, "--timesteps", str(10**30)], "timesteps"),
    "folder without a name": (["train", ID, "--folder", "."], "folder"),
    "unknown parameter": ([*EVALUATE, "--param", "eps=1"], "eps"),
    "malformed parameter": ([*EVALUATE, "--param", "eps"], "eps"),
    "parameter out of range": (["evaluate", ID, "--policy", "balanced-greedy", "--param", "eps=7"], "eps"),
    "parameter of a wrong type": (["evaluate", ID, "--policy", "balanced-greedy", "--param", "eps=x"], "eps"),
    "too large an optimum": (["bound", ID, "--instance", "random-40x40", "--kind", "optimum"], "optimum"),
    "too large an exact value": ([*EVALUATE, "--instance", "random-40x40", "--exact"], "exact"),
    "unknown algorithm": (["train", ID, "--algo", "magic"], "magic"),
    "no training steps": (["train", ID, "--timesteps", "-1"], "timesteps"),
    "unknown training parameter": (["train", ID, "--param", "speed=3"], "speed"),
    "no demo steps": (["demo", "--timesteps", "0"], "timesteps"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals(capsys, fault, tmp_path, monkeypatch):
    """Exit code 2 and one sentence of at most three lines of 80 columns, naming what is at fault; stdout stays empty."""
    words, name = REFUSED[fault]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nan.json").write_text(
        '{"model": "stationary_matching", "name": "nan", "supplier_rates": [1], "departure_rates": [NaN], '
        '"customer_rates": [1], "rewards": [[1]]}'
    )
    code, out, err = run(capsys, *words)
    assert code == 2, err
    assert out == ""
    assert name in err
    assert "Traceback" not in err
    assert len(textwrap.wrap(err, 80)) <= 3


@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff", b"{", b"[]", b"[" * 5000, b'{"model": "other"}'])
def test_bad_files(capsys, tmp_path, content):
    path = tmp_path / "instance.json"
    path.write_bytes(content)
    for command in (["bound", ID], ["evaluate", ID, "--policy", "greedy"], ["train", ID]):
        code, out, err = run(capsys, *command, "--instance", path)
        assert code == 2
        assert out == ""
        assert "instance.json" in err
        assert len(textwrap.wrap(err, 80)) <= 3


def test_help(capsys):
    assert "evaluate" in run(capsys, "--help")[1]
    assert "evaluate" in run(capsys)[1]
    for command in ("envs", "bound", "evaluate", "train", "demo"):
        code, out, _ = run(capsys, command, "--help")
        assert code == 0
        assert command in out


def test_a_mean_above_the_bound_is_reported_loudly(capsys, monkeypatch):
    from matchgym.baselines import scoring

    monkeypatch.setattr(scoring.Score, "is_above_bound", property(lambda self: True))
    code, out, err = run(capsys, "evaluate", ID, "--policy", "greedy", "--replications", 2, "--decisions", 100, "--json")
    assert code == 1
    assert json.loads(out)["is_above_bound"]
    assert err.startswith("BUG")


def test_interruption_ends_quietly():
    """Ctrl-C in the middle of a long simulation: exit code 1, one line, no traceback."""
    words = [sys.executable, "-c", "from matchgym.cli import main; main()", *EVALUATE, "--decisions"]
    subprocess.run([*words, "1000"], check=True, capture_output=True)  # so that it simulates when it is hit
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A job in the background ignores Ctrl-C, and so would what it starts.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([*words, "2000000000"], **pipes, text=True, env=os.environ, preexec_fn=heed)
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == ""
    assert "Interrupted" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("replications", "word"), [("3", "unsure"), ("4", "FAILS")])
def test_a_claim_that_too_few_replications_do_not_show_is_not_refuted(
    replications, word, tmp_path, capsys, monkeypatch
) -> None:
    """What a reproduction does not show counts against it only from the experiment's own number of replications on."""
    claims = {"claims": [{"claim": "water runs uphill", "holds": False}, {"claim": "water runs", "holds": True}]}
    experiment = Experiment("A claim.", lambda progress, size, seed: dict(claims), lambda figure, data: None, 4)
    monkeypatch.setattr("matchgym.cli.experiments.all_experiments", lambda: {"water": experiment})
    code, told, _ = run(capsys, "reproduce", "water", "--replications", replications, "--out", tmp_path)
    assert code == 0
    assert f"{word.ljust(6)} water runs uphill" in told
    assert "holds  water runs\n" in told
    assert ("3 replications decide little" in told) == (word == "unsure")
