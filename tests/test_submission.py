"""Many artefacts at once: copies, methods, several processes, limits of `fit`, and a new season on an old board."""

import dataclasses
import hashlib
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from boards import SECRET, TINY, board_with_baselines, small_network, tiny, write_artefact
from typer.testing import CliRunner

from matchgym.baselines.stationary_matching import POLICIES
from matchgym.cli.commands import app
from matchgym.envs.instance import InputError
from matchgym.leaderboards import building, rehearsal
from matchgym.leaderboards.artefact import NetworkPolicy, read_artefact, scores_shape
from matchgym.leaderboards.board import assemble
from matchgym.leaderboards.building import find_artefacts, new_season, submit_artefacts
from matchgym.leaderboards.methods import method_interval
from matchgym.leaderboards.network import Network
from matchgym.leaderboards.onnx_file import write_network
from matchgym.leaderboards.probes import ALIKE, PROBES, alike, decisions, digests
from matchgym.leaderboards.rehearsal import rehearse
from matchgym.leaderboards.season import latest
from matchgym.leaderboards.site import publish
from matchgym.leaderboards.store import BLOBS, FolderStore
from matchgym.leaderboards.submission import submit
from matchgym.leaderboards.tasks import find_task
from matchgym.leaderboards.verification import verify_board

DEMO = find_task("demo")
PAIR = (TINY[1], tiny("b5eps-2", 90))


def network_for(task, seed: int) -> Network:
    return small_network(*scores_shape(task.entry, task.load()), seed=seed)


def shaken(network: Network, noise: float, seed: int = 0) -> Network:
    """The same network with each constant changed by a small share of itself."""
    rng = np.random.default_rng(seed)
    changed = {
        name: (array * (1 + noise * rng.normal(size=array.shape))).astype(np.float32)
        for name, array in network.constants.items()
    }
    return dataclasses.replace(network, constants=changed)


def told(network: Network, task=DEMO) -> str:
    return decisions(task, NetworkPolicy(network, task.entry).fit(task.load()))


def artefact_of(folder: Path, tasks, networks, name: str, train_seed: int, steps: int = 1000) -> Path:
    """One manifest with a network for each task, as somebody who trained on all of them writes it."""
    write_artefact(folder, agent={"name": name}, method={"algorithm": "ppo", "training_steps": steps, "train_seed": train_seed})
    manifest = json.loads((folder / "manifest.json").read_text())
    entries = []
    for task, network in zip(tasks, networks, strict=True):
        data = write_network(network)
        (folder / f"{task.name}.onnx").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entry = {"task": task.name, "kind": "onnx-mlp/1", "file": f"{task.name}.onnx", "sha256": digest, "bytes": len(data)}
        entries.append(entry | {"action_mode": "greedy"})
    (folder / "manifest.json").write_text(json.dumps(manifest | {"entries": entries}))
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A board of two tasks with five runs of a method, four of another, and a copy with a little noise."""
    home = tmp_path_factory.mktemp("artefacts")
    networks = {
        (method, seed): [network_for(task, 10 * method + seed) for task in PAIR] for method in (0, 1) for seed in range(5)
    }
    del networks[1, 4]
    for (method, seed), nets in networks.items():
        artefact_of(home / f"{method}{seed}", PAIR, nets, f"method {method}", seed)
    artefact_of(home / "z", PAIR, [shaken(net, 1e-4) for net in networks[0, 2]], "mine, all mine", 0)
    store = board_with_baselines(tmp_path_factory.mktemp("board"), PAIR)
    submit_artefacts(store.folder, [read_artefact(each, PAIR) for each in find_artefacts([home])], False, tasks=PAIR)
    return store.folder


# Copies.


def test_probes_are_the_same_for_everyone():
    """Whatever a policy decides, the states are the same: a policy that counts its observations sees nothing of its own."""
    seen = []

    class Watching(NetworkPolicy):
        def predict(self, observation, *rest, **named):
            seen.append(observation.copy())
            return super().predict(observation, *rest, **named)

    found = [decisions(DEMO, Watching(network_for(DEMO, seed), DEMO.entry).fit(DEMO.load())) for seed in (1, 2)]
    half = len(seen) // 2
    assert all((a == b).all() for a, b in zip(seen[:half], seen[half:], strict=True))
    assert len(digests(found[0])) == len(digests(found[1])) == PROBES
    assert told(network_for(DEMO, 1)) == found[0] != found[1]


def test_a_copy_with_noise_is_flagged_and_honest_agents_are_not():
    """A share of 1e-4 of every weight changes almost no decision; ten networks of different seeds differ in many."""
    texts = {"one": told(network_for(DEMO, 1)), "copy": told(shaken(network_for(DEMO, 1), 1e-4))}
    texts |= {str(seed): told(network_for(DEMO, seed)) for seed in range(2, 11)}
    found = alike(list(texts), {"demo": texts})
    assert [each["artefact"] for each in found["copy"]] == ["one"]
    assert found["copy"][0]["agreement"] >= ALIKE
    assert all(found[name] == [] for name in texts if name != "copy")


def test_agreement_is_counted_over_all_tasks_that_both_play():
    texts = {name: told(network_for(DEMO, seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))}
    (twin,) = alike(["a", "b"], {"demo": texts | {}, "other": {"a": texts["a"]}} | {"demo": {k: texts[k] for k in "ab"}})["b"]
    assert twin == {"artefact": "a", "agreement": 1.0, "probes": PROBES}
    shared = {"demo": {"a": texts["a"], "b": texts["b"]}, "other": {"a": texts["a"], "b": texts["c"]}}
    assert alike(["a", "b"], shared)["b"] == []  # alike on one task, not on the other


@pytest.mark.parametrize("name", ["greedy", "balanced-greedy", "correlated-proposals"])
def test_policies_of_this_package_decide_the_same_again(name):
    """Also those that draw at random or remember."""
    first, second = (decisions(DEMO, POLICIES[name]().fit(DEMO.load())) for _ in range(2))
    assert first == second


def test_a_copy_is_flagged_in_board_and_pages(many):
    board = json.loads((many / "board.json").read_text())
    entries = {each["artefact"]: each for each in board["entries"]}
    (copy,) = [each for each in entries.values() if each["name"] == "mine, all mine"]
    (twin,) = copy["alike"]
    assert entries[twin["artefact"]]["name"] == "method 0, seed 2"
    assert twin["agreement"] >= ALIKE
    assert all(not each["alike"] for each in entries.values() if each is not copy)
    page = (many / "entries" / f"{copy['artefact'][:16]}.html").read_text()
    assert f"of {2 * PROBES:,} probe states" in page
    assert re.search("decides (nearly )?as method 0", (many / "track-StationaryMatching-v0.html").read_text())
    assert verify_board(many, PAIR, replays=9).problems == []


# Methods.


def test_five_runs_are_a_method(many):
    """The interquartile mean of 5 runs x 2 tasks without the 2 smallest and the 2 largest; four runs are none."""
    board = json.loads((many / "board.json").read_text())
    (method,) = board["methods"]
    assert (method["name"], method["runs"], method["tasks"]) == ("method 0", 5, ["tiny-demo", "tiny-b5eps-2"])
    scores = sorted(
        row["score"]["mean"] for task in board["tasks"] for row in task["rows"] if row["name"].startswith("method 0, ")
    )
    assert {row["name"] for row in board["tasks"][0]["rows"]} >= {f"method 0, seed {seed}" for seed in range(5)}
    assert method["score"]["mean"] == pytest.approx(np.mean(scores[2:8]), rel=1e-9)
    assert method["score"]["low"] <= method["score"]["mean"] <= method["score"]["high"]
    assert method_interval(np.array(scores).reshape(5, 2))[0] == pytest.approx(np.mean(scores[2:8]))
    assert "method 0" in (many / "index.html").read_text()


# Many at once.


def test_all_are_submitted_or_none(many, tmp_path):
    store = FolderStore(many)
    before = len(store.records())
    good = artefact_of(tmp_path / "a", PAIR, [network_for(task, 77) for task in PAIR], "good", 0)
    bad = write_artefact(tmp_path / "b", data=b'{"policy": "nobody", "parameters": {}}', entry={"task": "tiny-demo"})
    with pytest.raises(InputError, match="nobody"):
        submit([read_artefact(good, PAIR), read_artefact(bad, PAIR)], store, PAIR, is_jailed=False)
    twice = artefact_of(tmp_path / "c", PAIR, [network_for(task, 77) for task in PAIR], "twin", 1)
    with pytest.raises(InputError, match="all on the board already, as those of 'good'"):
        submit([read_artefact(good, PAIR), read_artefact(twice, PAIR)], store, PAIR, is_jailed=False)
    assert len(FolderStore(many).records()) == before
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        find_artefacts([tmp_path / "nowhere"])
    assert len(find_artefacts([tmp_path])) == 3
    assert find_artefacts([good]) == [good]


def test_values_do_not_depend_on_the_number_of_processes(tmp_path):
    boards = [board_with_baselines(tmp_path / str(jobs), TINY, jobs) for jobs in (1, 2)]

    def rows(store):
        kept = ("task", "artefact", "phase", "values", "decisions", "reason", "bound")
        return sorted(str({key: record["body"].get(key) for key in kept}) for record in store.records())

    assert rows(boards[0]) == rows(boards[1])
    for store in boards:
        publish(store, TINY)
        assert verify_board(store.folder, TINY, replays=0).problems == []


# The limits of `fit`.


class Slow(POLICIES["greedy"]):
    def fit(self, instance):
        time.sleep(60)
        return self


class Fat(POLICIES["greedy"]):
    def fit(self, instance):
        self.ballast_ = bytearray(3 << 30)
        return self


class Broken(POLICIES["greedy"]):
    def fit(self, instance):
        os._exit(3)


@pytest.fixture
def declared(tmp_path):
    """A declaration of a policy that only this test knows, which a child process that is forked knows, too."""
    return read_artefact(write_artefact(tmp_path / "a", data=b'{"policy": "greedy", "parameters": {}}')).entries[0]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [(Slow, "is not ready for task demo within 2 s"), (Fat, "more than 2048 MB"), (Broken, "or breaks down")],
)
def test_a_fit_that_takes_too_much_is_refused(kind, sentence, declared, monkeypatch):
    monkeypatch.setitem(POLICIES, "greedy", kind)
    monkeypatch.setattr(rehearsal, "START", "fork")
    start = time.monotonic()
    with pytest.raises(InputError, match=sentence):
        rehearse(declared, seconds=2.0, megabytes=2048)
    assert time.monotonic() - start < 20


def test_a_rehearsal_says_what_fit_says(declared, tmp_path):
    rehearse(declared)
    large = write_artefact(tmp_path / "b", data=b'{"policy": "optimal", "parameters": {}}', entry={"task": "random-40x40"})
    with pytest.raises(InputError, match="needs more than 60000 states"):
        rehearse(read_artefact(large).entries[0])


# Seasons.


def test_a_new_season_keeps_the_old_one(tmp_path, monkeypatch):
    store = board_with_baselines(tmp_path, TINY)
    publish(store, TINY)
    new_season(tmp_path, "two", TINY)
    assert latest(store).name == "two"
    records = store.records()
    kinds = [record["kind"] for record in records]
    assert [kinds.count(kind) for kind in ("season-opened", "season-closed", "season-archived")] == [2, 1, 1]
    (kept,) = [record["body"]["board_sha256"] for record in records if record["kind"] == "season-archived"]
    assert json.loads(store.blob(kept))["season"]["secret"] == SECRET.hex()
    old, new = assemble(records, TINY, "one"), assemble(records, TINY, "two")
    assert [len(task["rows"]) for task in old["tasks"]] == [len(task["rows"]) for task in new["tasks"]]
    assert old["tasks"][0]["rows"][0]["objective"] != new["tasks"][0]["rows"][0]["objective"]
    report = verify_board(tmp_path, TINY, replays=0)
    assert report.problems == []
    new_season(tmp_path, "two", TINY)  # nothing is left to do
    assert len(store.records()) == len(records)
    (tmp_path / BLOBS / kept).write_bytes(b"{}")
    assert "does not have the sha256" in " ".join(verify_board(tmp_path, TINY, replays=0).problems)


def test_an_older_suite_stays_on_the_board(tmp_path, monkeypatch):
    """A season of another suite: its digests are checked, the present one in full."""
    from matchgym.leaderboards import artefact, season

    with monkeypatch.context() as patch:
        patch.setattr(season, "SUITE_VERSION", "0")
        store = board_with_baselines(tmp_path, TINY)
        publish(store, TINY)
    assert "has suite 0 and scorer" in " ".join(verify_board(tmp_path, TINY, replays=0).problems)
    new_season(tmp_path, "two", TINY)
    report = verify_board(tmp_path, TINY, replays=1)
    assert (report.problems, report.older) == ([], ["one"])
    assert artefact.SUITE_VERSION != "0"


def test_the_command_opens_a_season(tmp_path, monkeypatch):
    monkeypatch.setattr(building.new_season, "__defaults__", (TINY, *building.new_season.__defaults__[1:]))
    result = CliRunner().invoke(app, ["leaderboard", "season", "one", "--out", str(tmp_path), "--json"])
    assert json.loads(result.stdout)["season"]["name"] == "one"
    assert [task["name"] for task in json.loads(result.stdout)["tasks"]] == ["tiny-toy", "tiny-demo"]
