"""Artefacts: manifests, policies that come through the gate, export and check."""

import json
import shutil

import pytest
from boards import write_artefact
from typer.testing import CliRunner

from matchgym.baselines import evaluate
from matchgym.baselines.stationary_matching import POLICIES
from matchgym.cli.commands import app
from matchgym.envs.instance import InputError
from matchgym.leaderboards.artefact import MANIFEST, load_policy, read_artefact
from matchgym.leaderboards.tasks import find_task

onnx = pytest.importorskip("onnx")

TASK = find_task("demo")


# Manifests.


@pytest.mark.parametrize("name", ["greedy", "correlated-proposals", "balanced-greedy", "optimal"])
def test_baselines_come_through_the_same_door(name, tmp_path):
    text = json.dumps({"policy": name, "parameters": {}}).encode()
    (file,) = read_artefact(write_artefact(tmp_path / "a", data=text)).entries
    size = ("StationaryMatching-v0", TASK.load(), 4, 10, 200, 0)
    assert (evaluate(load_policy(file), *size).values == evaluate(POLICIES[name]().fit(TASK.load()), *size).values).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"surprise": 1}, "surprise"),
        ({"agent": {"name": 3}}, "manifest.agent.name"),
        ({"agent": {"name": "x" * 3000}}, "manifest.agent.name"),
        ({"agent": {"name": "\x1b[31m"}}, "manifest.agent.name"),
        ({"agent": {"authors": [1]}}, r"authors\[0\]"),
        ({"suite": {"name": "matchgym", "version": "older"}}, "suite must be"),
        ({"entries": []}, "1 to 100 entries"),
        ({"entry": {"kind": "pickle/1"}}, "onnx-mlp/1, declarative/1"),
        ({"entry": {"file": "../policy"}}, "beside the manifest"),
        ({"entry": {"file": "absent"}}, "no regular file"),
        ({"entry": {"sha256": "0" * 64}}, "stated sha256"),
        ({"entry": {"bytes": 1}}, "stated sha256"),
        ({"entry": {"task": "nothing"}}, "unknown task"),
        ({"entry": {"action_mode": "best"}}, "greedy, sample"),
        ({"declares": {}}, "manifest.declares lacks the key used_public_seeds_only"),
    ],
)
def test_faulty_manifests_are_refused_by_place(changes, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        read_artefact(write_artefact(tmp_path / "a", **changes))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": NaN}', "[" * 100_000])
def test_manifests_that_are_no_objects(text, tmp_path):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError):
        read_artefact(tmp_path)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b'{"policy": "greedy", "parameters": {"x": 1}}', "no parameters"),
        (b'{"policy": "nobody", "parameters": {}}', "nobody"),
        (
            b'{"policy": "static-threshold", "parameters": {"threshold": [1]}}',
            "must be a table|must not be a table|unknown parameter|static-threshold",
        ),
        (b'{"policy": "greedy"}', "lacks the key parameters"),
    ],
)
def test_faulty_declarations(data, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        load_policy(read_artefact(write_artefact(tmp_path / "a", data=data)).entries[0])


def test_a_symbolic_link_is_no_file_of_an_artefact(tmp_path):
    folder = write_artefact(tmp_path / "a")
    shutil.move(folder / "policy", tmp_path / "elsewhere")
    (folder / "policy").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no regular file"):
        read_artefact(folder)


# Export and check.


@pytest.mark.parametrize("algo", ["maskable_ppo", "dqn", "a2c"])
def test_a_trained_agent_is_exported_and_checked(algo, tmp_path):
    pytest.importorskip("stable_baselines3")
    from matchgym.agents import Measurement, train

    brief = Measurement(points=1, rows=8, warmup=10, decisions=50, final_decisions=50)
    train("StationaryMatching-v0", "demo", algo, 600, 1, {"net_arch": [16]}, folder=tmp_path / "agent", measurement=brief,
          progress=False, lines={"none": 1.0})  # fmt: skip
    run = CliRunner().invoke
    result = run(app, ["export", str(tmp_path / "agent" / "model.zip"), "-o", str(tmp_path / "out"), "--author", "A. Author"])
    assert result.exit_code == 0, result.output
    result = run(app, ["check", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(result.stdout)["entries"]
    assert (entry["task"], entry["kind"]) == ("demo", "onnx-mlp/1")
    assert entry["score"]["low"] <= entry["score"]["mean"] <= entry["score"]["high"]
    result = run(app, ["export", str(tmp_path / "agent"), "-o", str(tmp_path / "b"), "--env", "MatchingQueues-v0"])
    assert result.exit_code != 0
