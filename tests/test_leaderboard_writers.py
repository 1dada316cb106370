"""Boards that are written by two, interrupted, closed too early or forged with right digests; agents that fail in the jail."""

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from boards import SECRET, TINY, board_with_baselines, noon, rechain, write_artefact

from matchgym.envs.instance import InputError
from matchgym.leaderboards import running
from matchgym.leaderboards.artefact import read_artefact
from matchgym.leaderboards.board import assemble
from matchgym.leaderboards.building import close_board, open_board, submit_artefacts
from matchgym.leaderboards.jail import JailError
from matchgym.leaderboards.season import open_season
from matchgym.leaderboards.site import publish
from matchgym.leaderboards.store import RECORDS, SECRETS, FolderStore
from matchgym.leaderboards.submission import due_entries, submit, verify_leaders
from matchgym.leaderboards.verification import verify_board

THRESHOLD = b'{"policy": "static-threshold", "parameters": {"threshold": 0.1}}'


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """An open season of two small tasks with all baselines."""
    store = board_with_baselines(tmp_path_factory.mktemp("board"))
    publish(store, TINY)
    return store.folder


@pytest.fixture
def board(built, tmp_path) -> Path:
    shutil.copytree(built, tmp_path / "board")
    return tmp_path / "board"


@pytest.fixture
def agent(tmp_path):
    entry = {"task": TINY[1].name}
    return read_artefact(write_artefact(tmp_path / "agent", data=THRESHOLD, entry=entry, agent={"name": "mine"}), TINY)


def problems_of(out: Path, replays: int = 0) -> str:
    return " ".join(verify_board(out, TINY, replays=replays).problems)


# Writers.


def test_a_board_has_one_writer_at_a_time(board, agent) -> None:
    other = "from matchgym.leaderboards.building import *; close_board(Path(__import__('sys').argv[1]))"
    with FolderStore(board).writing():
        for call in (lambda: submit_artefacts(board, [agent], tasks=TINY), lambda: close_board(board, TINY)):
            with pytest.raises(InputError, match="another process is writing"):
                call()
        found = subprocess.run([sys.executable, "-c", other, str(board)], capture_output=True, text=True, check=False)
        assert "another process is writing" in found.stderr
    submit_artefacts(board, [agent], tasks=TINY)
    assert problems_of(board) == ""


def test_what_was_interrupted_is_taken_up_by_the_same_submission(board, agent, monkeypatch) -> None:
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "run_job", stop)
        with pytest.raises(KeyboardInterrupt):
            submit_artefacts(board, [agent], tasks=TINY)
    assert [each.artefact for each in due_entries(FolderStore(board), TINY)] == [agent.sha256]
    with pytest.raises(InputError, match=r"1 entries are not measured yet, such as 'mine' on tiny-demo; submit"):
        close_board(board, TINY)
    submit_artefacts(board, [agent], tasks=TINY)
    assert due_entries(FolderStore(board), TINY) == []
    with pytest.raises(InputError, match="on the board already, as 'mine'"):
        submit_artefacts(board, [agent], tasks=TINY)
    close_board(board, TINY)
    assert problems_of(board, 9) == ""


def test_of_several_that_were_interrupted_the_finished_ones_may_come_again(board, agent, tmp_path, monkeypatch) -> None:
    data = b'{"policy": "static-threshold", "parameters": {"threshold": 0.4}}'
    other = read_artefact(write_artefact(tmp_path / "b", data=data, entry={"task": "tiny-demo"}, agent={"name": "other"}), TINY)
    real, calls = running.run_job, []

    def second_fails(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(running, "run_job", second_fails)
        with pytest.raises(KeyboardInterrupt):
            submit_artefacts(board, [agent, other], tasks=TINY)
    assert len(due_entries(FolderStore(board), TINY)) == 1
    submit_artefacts(board, [agent, other], tasks=TINY)
    assert due_entries(FolderStore(board), TINY) == []
    assert problems_of(board) == ""


def test_a_record_that_was_not_written_to_its_end_is_dropped(board, agent) -> None:
    with open(board / RECORDS, "ab") as file:
        file.write(b'{"at":"2026-')
    assert "ends within a record" in problems_of(board)
    with pytest.warns(UserWarning, match="is dropped"):
        submit_artefacts(board, [agent], tasks=TINY)
    assert problems_of(board) == ""


def test_a_season_that_never_came_to_be_recorded_does_not_stand_in_the_way(tmp_path) -> None:
    (tmp_path / SECRETS).mkdir()
    (tmp_path / SECRETS / "one").write_text("00")
    season = open_board(tmp_path, "one")
    assert len(season.secret(FolderStore(tmp_path))) == 32
    with pytest.raises(InputError, match="cannot be named certificates"):
        open_board(tmp_path / "other", "certificates")


def test_tasks_without_baselines_take_no_agents(tmp_path, agent) -> None:
    store = FolderStore(tmp_path / "empty", noon)
    open_season(store, "one", secret=SECRET)
    with pytest.raises(InputError, match=r"no baselines on task tiny-demo; .* --task tiny-demo"):
        submit([agent], store, TINY)
    assert len(store.records()) == 1


# The jail.


@pytest.mark.parametrize(("failures", "kind"), [(2, "evaluated"), (3, "refused")])
def test_what_fails_in_the_jail_is_tried_three_times(failures, kind, board, agent, monkeypatch) -> None:
    """The first sentence of a machine that is out of memory is not the last word on an agent."""
    honest, calls = running.measure, []

    def measure(*arguments, **named):
        calls.append(1)
        if len(calls) <= failures:
            raise JailError("the network gave no answer within 10 s.")
        return honest(*arguments, **named)

    monkeypatch.setattr(running, "measure", measure)
    submit([agent], FolderStore(board), TINY)
    (record,) = [
        each
        for each in FolderStore(board).records()
        if each["body"].get("artefact") == agent.sha256 and each["kind"] != "submitted"
    ]
    assert record["kind"] == kind
    publish(FolderStore(board), TINY)
    assert problems_of(board) == ""
    if kind == "refused":  # the machine has its memory back
        assert "plays, where the record says that it is refused" in problems_of(board, replays=99)
        failures = len(calls) + 3
        assert problems_of(board, replays=99) == ""


def test_a_leader_that_fails_under_fresh_seeds_stays_and_is_not_tried_for_ever(board, agent, monkeypatch) -> None:
    honest = running.measure

    def measure(task, policy, seed, *arguments, **named):
        if seed == fresh and type(policy).__name__ == "StaticThreshold":
            raise JailError("the network gave no answer within 10 s.")
        return honest(task, policy, seed, *arguments, **named)

    fresh = running.seed_of(SECRET, TINY[1], "fresh")
    submit([agent], FolderStore(board), TINY)
    record = assemble(FolderStore(board).records(), TINY)["tasks"][1]
    monkeypatch.setattr(
        "matchgym.leaderboards.submission.leaders", lambda task: [agent.sha256] if task["name"] == record["name"] else []
    )
    monkeypatch.setattr(running, "measure", measure)
    for _ in range(2):
        verify_leaders(FolderStore(board), TINY)
    mine = [each["body"] for each in FolderStore(board).records() if each["body"].get("artefact") == agent.sha256]
    assert [body["reason"][:18] for body in mine if "reason" in body] == ["under fresh seeds:"]
    assert sum("values" in body for body in mine) == 1
    publish(FolderStore(board), TINY)
    assert problems_of(board) == ""


# Forgeries with right digests.


def late(records) -> None:
    """A record of the season behind its closing."""
    row = records.pop(next(k for k, each in enumerate(records) if each["kind"] == "evaluated"))
    records.append({**row, "at": records[-1]["at"]})


def early(records) -> None:
    """A row before its artefact came in."""
    place = next(k for k, each in enumerate(records) if each["kind"] == "submitted")
    row = next(
        k for k, each in enumerate(records) if each["body"].get("artefact") == records[place]["body"]["artefact"] and k > place
    )
    records.insert(place, records.pop(row))


def without_row(records) -> None:
    mine = next(each["body"]["artefact"] for each in records if each["body"].get("name") == "mine")
    records.remove(next(each for each in records if each["body"].get("artefact") == mine and each["kind"] == "evaluated"))


def without_fresh(records) -> None:
    for record in [each for each in records if each["body"].get("phase") == "fresh"]:
        records.remove(record)


def without_decisions(records) -> None:
    next(each for each in records if each["body"].get("phase") == "season")["body"]["decisions"] = None


def a_list_for_a_body(records) -> None:
    records[-1]["body"] = []


def no_time(records) -> None:
    records[-1]["at"] = "<script>"


def back_in_time(records) -> None:
    records[-1]["at"] = "2001-01-01T00:00:00Z"


FORGERIES = {
    late: "after its closing",
    early: "has not come in yet",
    without_row: "neither a row nor a refusal",
    without_fresh: "no row under fresh seeds",
    without_decisions: "lacks its decisions",
    a_list_for_a_body: "a body or a time that is none",
    no_time: "a body or a time that is none",
    back_in_time: "older than the one before",
}


@pytest.mark.parametrize("forge", FORGERIES)
def test_forgeries_of_order_and_completeness_are_found(forge, board, agent) -> None:
    submit_artefacts(board, [agent], tasks=TINY)
    close_board(board, TINY)
    assert problems_of(board) == ""
    rechain(board, forge)
    with suppress(InputError, KeyError, TypeError, AttributeError):  # else the pages of the honest board remain
        publish(FolderStore(board), TINY)
    assert FORGERIES[forge] in problems_of(board)


@pytest.mark.parametrize("name", ["__init__.py", "__pycache__evil.html", ".secrets-evil.html", "link"])
def test_files_that_lie_about_are_found(name, board) -> None:
    if name == "link":
        (board / name).symlink_to(board / "index.html")
    else:
        (board / name).write_text("import os")
    assert f"{name} belongs to no record" in problems_of(board)


# Names.


@pytest.mark.parametrize(
    "name", [" ", "mine ", "\u3164", "\u2800", "\n", "x" * 81, "Z" + 300 * "\u0301", "a\u202eb"], ids=[str(k) for k in range(8)]
)
def test_names_must_be_readable(name, tmp_path) -> None:
    with pytest.raises(InputError, match=r"manifest.agent.name"):
        read_artefact(write_artefact(tmp_path / "a", agent={"name": name}))


def test_names_of_many_scripts_are_taken_and_keys_stand_once(tmp_path) -> None:
    for k, name in enumerate(["zoo-2", "Агент", "学習", "résumé", "re\u0301sume\u0301"]):
        assert read_artefact(write_artefact(tmp_path / str(k), agent={"name": name})).agent["name"] == name
    path = write_artefact(tmp_path / "twice") / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 7, "schema_version": 1'))
    assert json.loads(path.read_text())["schema_version"] == 1
    with pytest.raises(InputError, match="a key stands twice"):
        read_artefact(path.parent)
