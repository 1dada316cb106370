"""The generalise track: instances that stay secret while a season is open, and that anyone draws again afterwards."""

import dataclasses
import hashlib
import hmac
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from boards import SECRET, TINY, board_with_baselines, noon, rechain, small_network, write_artefact
from typer.testing import CliRunner

from matchgym.cli.commands import app
from matchgym.envs.base import mask_size
from matchgym.envs.instance import InputError
from matchgym.envs.registry import ENTRIES
from matchgym.leaderboards.artefact import load_policy, read_artefact, scores_shape
from matchgym.leaderboards.building import chosen_tasks, instance_of
from matchgym.leaderboards.families import MEMBER_TASKS, MEMBERS
from matchgym.leaderboards.measuring import measure, upper_of
from matchgym.leaderboards.onnx_file import write_network
from matchgym.leaderboards.practice import practise
from matchgym.leaderboards.season import close_season, season_tasks, seasons
from matchgym.leaderboards.site import publish
from matchgym.leaderboards.store import CERTIFICATES, RECORDS, SECRETS, FolderStore
from matchgym.leaderboards.submission import submit, verify_leaders
from matchgym.leaderboards.tasks import TASKS, find_family
from matchgym.leaderboards.verification import verify_board

FAMILY = "generalise-graph"
SHORT = tuple(dataclasses.replace(task, replications=16, warmup=10, decisions=50) for task in find_family(FAMILY)[:2])
BOARD = (TINY[0], *SHORT)


@pytest.fixture(scope="module")
def network() -> bytes:
    return write_network(small_network(*scores_shape(SHORT[0].entry, SHORT[0].practice().load())))


@pytest.fixture(scope="module")
def opened(tmp_path_factory, network) -> Path:
    """An open season with all baselines and a network."""
    store = board_with_baselines(tmp_path_factory.mktemp("board"), BOARD)
    submit([read_artefact(entered(tmp_path_factory.mktemp("agent"), network), BOARD)], store, BOARD, is_jailed=False)
    verify_leaders(store, BOARD, is_jailed=False)
    publish(store, BOARD)
    return store.folder


@pytest.fixture
def board(opened, tmp_path) -> Path:
    shutil.copytree(opened, tmp_path / "board")
    return tmp_path / "board"


def entered(folder: Path, data: bytes, **entry) -> Path:
    write_artefact(folder, "onnx-mlp/1", data, entry={"family": FAMILY, **entry})
    manifest = json.loads((folder / "manifest.json").read_text())
    if "task" not in entry:
        del manifest["entries"][0]["task"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def secret_instances() -> list:
    """The instances that the secret draws, by the standard library and the published generator alone."""
    found = []
    for task in SHORT:
        digest = hmac.new(SECRET, f"{task.name}|instance".encode(), "sha256").digest()
        seed = int.from_bytes(digest[:8], "big") // 4
        found.append(task.entry.model.load(task.generator(seed) | {"name": task.name}))
    return found


# The generators.


def test_every_id_has_a_family():
    assert [task.id for task in MEMBER_TASKS] == [entry.id for entry in ENTRIES for _ in range(MEMBERS)]
    seeds = {task.seed + k for task in MEMBER_TASKS for k in range(task.replications)}
    assert len(seeds) == sum(task.replications for task in MEMBER_TASKS)
    with pytest.raises(InputError, match="unknown family 'x'"):
        find_family("x")


@pytest.mark.parametrize("task", MEMBER_TASKS[::MEMBERS], ids=lambda task: task.family)
def test_sizes_are_fixed(task):
    """Twenty draws are different valid instances with the same observations, actions and masks."""
    drawn = [task.drawn_with(seed).load() for seed in range(20)]
    model, options = task.entry.model, task.entry.model.check_options({})
    assert len({model.observation_space(each, options).shape for each in drawn}) == 1
    assert len({str(model.action_space(each, options)) for each in drawn}) == 1
    assert len({mask_size(model.action_space(each, options)) for each in drawn}) == 1
    assert len({each.sha256 for each in drawn}) == 20


@pytest.mark.parametrize("task", MEMBER_TASKS[::MEMBERS], ids=lambda task: task.family)
def test_instances_have_certified_bounds(task):
    """The bound of a drawn instance is proved from its certificate alone, and leaves the anchor something to gain.

    Fixed seeds; the gap of the estimated means is at least 4 standard errors and 2 % of the bound.
    """
    for seed in range(2):
        short = dataclasses.replace(task.drawn_with(seed).quick(), decisions=min(task.decisions, 1000))
        instance = short.load()
        layer = task.entry.layer("bounds")
        found = layer.bound(instance, task.bound_kind)
        proof = layer.PROVERS[found.kind](instance, found.certificate)
        assert float(proof.upper) <= upper_of(task, found)
        anchor = measure(short, task.entry.layer("baselines").POLICIES[task.anchor]().fit(instance), seed).values
        gap = found.upper - anchor
        assert gap.mean() >= max(4 * gap.std(ddof=1) / np.sqrt(len(gap)), 0.02 * abs(found.upper))


# Secrecy.


def test_an_open_season_shows_no_instance(opened):
    """No number and no certificate of a secret instance lies outside of .secrets; its task does not load without the secret."""
    instances = secret_instances()
    shown = b"\n".join(path.read_bytes() for path in sorted(opened.rglob("*")) if path.is_file() and SECRETS not in str(path))
    for instance in instances:
        for field in ("arrival_rates", "departure_rates"):
            text = json.dumps(getattr(instance, field).tolist())[1:-1]
            assert text.encode() not in shown
            assert text.replace(" ", "").encode() not in shown
        assert instance.sha256.encode() in shown
    bounds = [record["body"] for record in FolderStore(opened).records() if record["kind"] == "bounded"]
    for body in bounds:
        is_shown = (opened / CERTIFICATES / f"{body['bound']['certificate_sha256']}.json").exists()
        assert is_shown == (body["task"] == "tiny-toy")
        assert body["bound"]["is_kept"]
    with pytest.raises(InputError, match="is secret until"):
        SHORT[0].load()
    assert not {"draw", "generator"} & SHORT[0].drawn_with(3).to_dict().keys()


def test_refusals_show_a_public_instance(opened):
    """A policy for bipartite graphs refuses, and says why on the public instance, which is another one."""
    reasons = {
        record["body"]["task"]: record["body"]["reason"] for record in FolderStore(opened).records()
        if record["kind"] == "refused" and "bipartite" in record["body"]["reason"]
    }  # fmt: skip
    assert reasons.keys() == {task.name for task in SHORT}
    for task in SHORT:
        with pytest.raises(InputError) as refusal:
            task.entry.layer("baselines").POLICIES["patient-side"]().fit(task.practice().load())
        assert reasons[task.name] == f"on the public instance of the family: {refusal.value}"


def test_a_copy_without_the_secret_is_sound(board):
    shutil.rmtree(board / SECRETS)
    report = verify_board(board, BOARD, replays=1)
    assert report.problems == []
    assert f"{SHORT[0].name}/bound" in report.not_replayable


# Afterwards.


def test_anyone_draws_the_instances_of_a_closed_season(board, tmp_path):
    """From the published files alone: the instances, their certificates and every row of them."""
    store = FolderStore(board, noon)
    assert verify_board(board, BOARD, replays=1).problems == []
    close_season(store)
    publish(store, BOARD)
    shutil.rmtree(board / SECRETS)
    report = verify_board(board, BOARD, replays=9)
    assert report.problems == []
    assert report.not_replayable == []
    assert report.bounds == 4  # two of the toy, one of each secret instance
    (season,) = seasons(store.records())
    known = season_tasks(season, store, BOARD)
    assert [known[task.name].load() for task in SHORT] == secret_instances()
    assert instance_of(SHORT[0].name, revealed=board, tasks=BOARD) == secret_instances()[0]


def test_another_instance_than_the_one_drawn_is_found(board):
    def forge(records):
        for record in records:
            if record["kind"] == "bounded" and record["body"]["task"] == SHORT[1].name:
                record["body"]["bound"]["instance_sha256"] = hashlib.sha256(b"another").hexdigest()

    rechain(board, forge)
    publish(FolderStore(board), BOARD)
    assert "draws another instance" in " ".join(verify_board(board, BOARD, replays=0).problems)


# Entries.


def test_one_entry_plays_every_instance(opened, network):
    records = FolderStore(opened).records()
    (digest,) = [r["body"]["artefact"] for r in records if r["kind"] == "submitted" and r["body"]["kind"] == "agent"]
    played = [r["body"]["task"] for r in records if r["kind"] == "evaluated" and r["body"]["artefact"] == digest]
    assert [task for task in played if played.count(task) >= 1][:2] == [task.name for task in SHORT]
    board = json.loads((opened / "board.json").read_text())
    (track,) = [each for each in board["tracks"] if each["id"] == FAMILY]
    assert track["tasks"] == [task.name for task in SHORT]
    assert digest in [row["artefact"] for row in track["rows"]]
    assert (opened / f"track-{FAMILY}.html").exists()


def test_practice_is_on_public_instances(tmp_path, network):
    files = read_artefact(entered(tmp_path / "a", network), BOARD).entries
    row = practise(files[1], is_full=True)
    assert row["task"] == SHORT[1].name
    assert load_policy(files[1].practice()).instance == SHORT[1].practice().load() != secret_instances()[1]
    assert np.isfinite(row["score"]["mean"])


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"task": "demo"}, "either a task or a family"),
        ({"family": "x"}, "unknown family"),
        ({"family": "generalise-queues"}, "must be float32 of shape"),
    ],
)
def test_entries_that_are_refused(entry, sentence, tmp_path, network):
    with pytest.raises(InputError, match=sentence):
        practise(read_artefact(entered(tmp_path / "a", network, **entry)).entries[0], is_full=False)


def test_an_entry_for_one_instance_is_refused(tmp_path):
    with pytest.raises(InputError, match="write family 'generalise-graph' in place of it"):
        read_artefact(write_artefact(tmp_path / "a", entry={"task": f"{FAMILY}-2"}))


def test_the_command_prints_instances(board):
    def run(*words: str):
        return CliRunner().invoke(app, ["leaderboard", "instance", *words])

    assert json.loads(run(f"{FAMILY}-1").stdout) == SHORT[0].practice().load().to_dict()
    assert json.loads(run(f"{FAMILY}-1", "--seed", "5").stdout) == SHORT[0].drawn_with(5).load().to_dict()
    assert json.loads(run("demo").stdout) == TINY[1].load().to_dict()
    with pytest.raises(InputError, match="still secret"):
        instance_of(f"{FAMILY}-1", revealed=board)
    with pytest.raises(InputError, match="has one instance"):
        instance_of("demo", seed=3)
    assert [task.name for task in chosen_tasks(["demo", FAMILY])] == ["demo", *(t.name for t in TASKS if t.family == FAMILY)]
    assert (board / RECORDS).exists()
