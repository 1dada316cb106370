"""Records of a board: seasons, submissions through one door, verification, forgeries, and one flipped byte anywhere."""

import hashlib
import json
import random
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from boards import SECRET, TINY, board_with_baselines, noon, rechain, write_artefact
from typer.testing import CliRunner

from matchgym.cli.commands import app
from matchgym.cli.leaderboard import leaderboard
from matchgym.cli.output import progress_bar
from matchgym.envs.instance import InputError
from matchgym.leaderboards import building, measuring
from matchgym.leaderboards.artefact import read_artefact, stored_artefact
from matchgym.leaderboards.board import assemble, leaders
from matchgym.leaderboards.building import build_board, close_board, find_agents, replay_rows, submit_artefacts
from matchgym.leaderboards.entrants import baselines
from matchgym.leaderboards.markup import markdown
from matchgym.leaderboards.measuring import measure
from matchgym.leaderboards.readme import BEGIN, END, updated
from matchgym.leaderboards.season import close_season, latest, open_season, seasons, seed_of
from matchgym.leaderboards.site import publish
from matchgym.leaderboards.store import RECORDS, SECRETS, FolderStore, sha256
from matchgym.leaderboards.submission import kind_of, submit, submit_baselines, verify_leaders
from matchgym.leaderboards.tasks import TASKS
from matchgym.leaderboards.verification import verify_board

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """An open season with all baselines."""
    store = board_with_baselines(tmp_path_factory.mktemp("board"))
    publish(store, TINY)
    return store.folder


@pytest.fixture
def copied(built, tmp_path) -> Path:
    shutil.copytree(built, tmp_path / "board")
    return tmp_path / "board"


def problems_of(out: Path, replays: int = 0) -> str:
    return " ".join(verify_board(out, TINY, replays=replays).problems)


# Seasons.


def test_seeds_are_those_of_the_season(built) -> None:
    """HMAC-SHA256 of task and phase under the secret, by the standard library alone."""
    import hmac

    store = FolderStore(built)
    digest = hmac.new(SECRET, b"tiny-demo|season", "sha256").digest()
    seed = int.from_bytes(digest[:8], "big") // 4
    assert seed_of(SECRET, TINY[1], "season") == seed != seed_of(SECRET, TINY[1], "fresh")
    assert latest(store).commitment == hashlib.sha256(SECRET).hexdigest()
    (body,) = [
        record["body"] for record in store.records()
        if record["kind"] == "evaluated" and record["body"]["phase"] == "season" and record["body"]["task"] == "tiny-demo"
        and record["body"]["artefact"] == baselines(TINY)[0].sha256
    ]  # fmt: skip
    policy = TINY[1].entry.layer("baselines").POLICIES["greedy"]().fit(TINY[1].load())
    assert body["values"] == measure(TINY[1], policy, seed).values.tolist()


def test_a_season_opens_and_closes_once(copied) -> None:
    store = FolderStore(copied)
    with pytest.raises(InputError, match="still open"):
        open_season(store, "two")
    assert (copied / SECRETS / "one").stat().st_mode & 0o077 == 0
    assert close_season(store).revealed == SECRET
    with pytest.raises(InputError, match="closed already"):
        close_season(store)
    with pytest.raises(InputError, match="was a season one"):
        open_season(store, "one")
    with pytest.raises(InputError, match="is closed"):
        submit([baselines(TINY)[0]], store, TINY)
    for name in ("", "../x", "A", "x" * 41):
        with pytest.raises(InputError, match="name has up to"):
            open_season(store, name)
    open_season(store, "two")
    with pytest.raises(InputError, match="no season"):
        latest(FolderStore(copied / "nowhere"))


def test_a_secret_that_was_not_committed_to_is_refused(copied) -> None:
    (copied / SECRETS / "one").write_text("00" * 32)
    with pytest.raises(InputError, match="committed to"):
        close_season(FolderStore(copied))
    shutil.rmtree(copied / SECRETS)
    with pytest.raises(InputError, match="neither revealed nor kept"):
        close_season(FolderStore(copied))
    report = verify_board(copied, TINY, replays=1)  # whoever has no secret replays nothing yet
    assert report.problems == []
    assert len(report.not_replayable) == 2


# Submissions.


def test_looks_continue_each_other() -> None:
    """Replication b is the same whatever the look, and a hopeless row is left at 16."""
    task = TINY[1]
    policy = task.entry.layer("baselines").POLICIES["random"]().fit(task.load())
    whole, start = measure(task, policy, 7), measure(task, policy, 7, replications=16)
    assert task.looks == (16, 24)
    assert len(whole.values) == 24
    assert (whole.values[:16] == start.values).all()
    assert len(measure(task, policy, 7, rival=whole.values + 1.0).values) == 16
    assert len(measure(task, policy, 7, rival=whole.values - 1.0).values) == 24
    with pytest.raises(InputError, match="16, 24 replications, not on 17"):
        measure(task, policy, 7, replications=17)


def test_a_build_is_reproducible_but_for_measured_times(built, tmp_path) -> None:
    def timeless(folder):
        return [{**record["body"], "microseconds": 0} for record in FolderStore(folder).records()]

    board_with_baselines(tmp_path)
    assert timeless(tmp_path) == timeless(built)


def test_an_interrupted_build_goes_on_and_counts_nothing_twice(built, tmp_path) -> None:
    calls = []

    @contextmanager
    def impatient(label: str):
        calls.append(label)
        if len(calls) == 6:
            raise KeyboardInterrupt
        yield lambda share: None

    store = FolderStore(tmp_path, noon)
    open_season(store, "one", secret=SECRET)
    with pytest.raises(KeyboardInterrupt):
        submit_baselines(baselines(TINY), store, TINY, impatient)
    assert 0 < len(store.records()) < len(FolderStore(built).records())
    submit_baselines(baselines(TINY), FolderStore(tmp_path, noon), TINY)
    verify_leaders(store, TINY)
    publish(store, TINY)
    assert verify_board(tmp_path, TINY, replays=0).problems == []
    strip = [{**record["body"], "microseconds": 0} for record in store.records()]
    assert strip == [{**record["body"], "microseconds": 0} for record in FolderStore(built).records()]


def entry(name="tiny-demo", **more):
    return {"task": name, **more}


def test_strangers_come_through_the_same_door(copied, tmp_path) -> None:
    data = b'{"policy": "static-threshold", "parameters": {"threshold": 0.1}}'
    folder = write_artefact(tmp_path / "a", data=data, entry=entry(), agent={"name": "mine"})
    board = submit_artefacts(copied, [read_artefact(folder, TINY)], tasks=TINY)
    (row,) = [row for row in board["tasks"][1]["rows"] if row["name"] == "mine"]
    assert row["kind"] == "agent"
    assert not row["is_jailed"]  # nobody's code but ours
    assert problems_of(copied, replays=2) == ""
    with pytest.raises(InputError, match="on the board already, as 'mine'"):
        submit_artefacts(copied, [read_artefact(folder, TINY)], tasks=TINY)


def test_copies_are_refused_and_twins_are_marked(copied, tmp_path) -> None:
    same = stored_artefact(FolderStore(copied), baselines(TINY)[0].sha256, TINY).entries[0].data
    sybil = read_artefact(write_artefact(tmp_path / "a", data=same, entry=entry(), agent={"name": "sybil"}), TINY)
    with pytest.raises(InputError, match="those of 'greedy'"):
        submit_artefacts(copied, [sybil], tasks=TINY)
    for data, mode in ((same + b"\n", "greedy"), (same, "sample")):  # written otherwise, it says the same
        other = write_artefact(tmp_path / "b", data=data, entry=entry() | {"action_mode": mode}, agent={"name": "zz"})
        with pytest.raises(InputError, match="those of 'greedy'"):
            submit_artefacts(copied, [read_artefact(other, TINY)], tasks=TINY)
    data = b'{"policy": "static-threshold", "parameters": {"threshold": 0.0}}'
    twin = read_artefact(write_artefact(tmp_path / "c", data=data, entry=entry(), agent={"name": "zz"}), TINY)
    board = submit_artefacts(copied, [twin], tasks=TINY)
    (row,) = [row for row in board["tasks"][1]["rows"] if row["name"] == "zz"]
    assert row["same_as"] == "greedy"


def test_copies_of_several_entries_are_refused(copied, tmp_path) -> None:
    """A file of one artefact for one task and of another for the other is nothing new."""
    files = {"a.json": b'{"policy": "greedy", "parameters": {}}', "b.json": b'{"policy": "random", "parameters": {}}'}
    entries = [
        {
            "task": task.name,
            "kind": "declarative/1",
            "file": name,
            "sha256": sha256(data),
            "bytes": len(data),
            "action_mode": "greedy",
        }
        for task, (name, data) in zip(TINY, files.items())
    ]
    folder = write_artefact(tmp_path / "a", agent={"name": "mosaic"}, entries=entries)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with pytest.raises(InputError, match="all on the board already, as those of 'greedy', 'random'"):
        submit_artefacts(copied, [read_artefact(folder, TINY)], tasks=TINY)


@pytest.mark.parametrize(("name", "said"), [("greedy", "that of a policy"), ("mine, seed 3", "several seeds")])
def test_names_that_mislead_are_refused(copied, tmp_path, name, said) -> None:
    data = b'{"policy": "static-threshold", "parameters": {"threshold": 0.2}}'
    folder = write_artefact(tmp_path / "a", data=data, entry=entry(), agent={"name": name})
    with pytest.raises(InputError, match=said):
        submit_artefacts(copied, [read_artefact(folder, TINY)], tasks=TINY)


def test_what_is_told_hidden_numbers_stands_apart_whoever_declares_it(tmp_path) -> None:
    data = b'{"policy": "queue-known", "parameters": {"eps": 0.05}}'
    folder = write_artefact(tmp_path / "a", data=data, entry=entry("learning-tables"), agent={"name": "mine"})
    assert kind_of(read_artefact(folder), False) == "informed"
    folder = write_artefact(tmp_path / "b", data=b'{"policy": "optimal", "parameters": {}}', entry=entry())
    assert kind_of(read_artefact(folder, TINY), False) == "optimum"


def test_names_are_plain_text_wherever_they_stand(copied, tmp_path, monkeypatch, capsys) -> None:
    """Rich markup in a progress bar, Markdown in the README."""
    name = "[/x] <!-- board: end --> ![](//e.vil/x.png) | 1"
    data = b'{"policy": "static-threshold", "parameters": {"threshold": 0.3}}'
    folder = write_artefact(tmp_path / "a", data=data, entry=entry(), agent={"name": name})
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    submit_artefacts(copied, [read_artefact(folder, TINY)], tasks=TINY, bar=progress_bar)
    text = f"{BEGIN}\n{END}\n"
    for _ in range(2):
        text = updated(text, FolderStore(copied).records(), TINY)
    assert "\\!\\[\\]" in markdown(name)
    assert "![" not in markdown(name)


def test_rewritten_records_do_not_have_the_head_that_was_known(copied) -> None:
    known = FolderStore(copied).records()[-1]["sha256"]
    assert verify_board(copied, TINY, replays=0, known_head=known[:16]).is_sound
    (problem,) = verify_board(copied, TINY, replays=0, known_head="0" * 16).problems
    assert "rewritten" in problem


def test_a_refused_artefact_leaves_no_trace(copied, tmp_path) -> None:
    before = (copied / RECORDS).read_bytes()
    bad = read_artefact(write_artefact(tmp_path / "a", data=b'{"policy": "nobody", "parameters": {}}', entry=entry()), TINY)
    with pytest.raises(InputError, match="nobody"):
        submit_artefacts(copied, [bad], tasks=TINY)
    assert (copied / RECORDS).read_bytes() == before
    assert problems_of(copied) == ""


def test_a_row_above_the_bound_is_an_alarm_and_no_leader(copied, tmp_path, monkeypatch) -> None:
    """A simulator whose bug pays double: every honest check passes, the bound does not."""

    def generous(policy, *size, **named):
        found = honest(policy, *size, **named)
        return type(found)(**{**vars(found), "values": 2 * found.values + 1})

    honest = measuring.evaluate
    monkeypatch.setattr(measuring, "evaluate", generous)
    data = b'{"policy": "static-threshold", "parameters": {"threshold": 0.0}}'
    cheat = read_artefact(write_artefact(tmp_path / "a", data=data, entry=entry(), agent={"name": "cheat"}), TINY)
    board = submit_artefacts(copied, [cheat], tasks=TINY)
    row = board["tasks"][1]["rows"][0]
    assert (row["name"], row["state"], row["tier"], row["ranks"]) == ("cheat", "quarantined", None, None)
    assert row["artefact"] not in leaders(board["tasks"][1])
    assert "ABOVE BOUND" in (copied / "track-StationaryMatching-v0.html").read_text()
    monkeypatch.undo()
    assert "gives other values" in problems_of(copied, replays=99)


# Verification.


def test_a_fresh_board_is_sound(built) -> None:
    report = verify_board(built, TINY, replays=2)
    assert report.problems == []
    assert (report.bounds, len(report.replayed), report.not_replayable) == (4, 4, [])
    board = assemble(FolderStore(built).records(), TINY)
    for task in board["tasks"]:
        assert len(task["rows"]) + len(task["refused"]) == len(baselines(TINY))
        assert any(row["state"] == "verified" for row in task["rows"])


def test_one_flipped_byte_anywhere_is_found(built, copied) -> None:
    """Every published file, at 2 random places each, and at 30 in the records; each time a random other byte."""
    rng = random.Random(0)
    files = [path for path in sorted(copied.rglob("*")) if path.is_file() and SECRETS not in path.parts]
    assert len(files) > 30
    for path in files:
        data = path.read_bytes()
        for _ in range(30 if path.name == RECORDS else 2):
            place = rng.randrange(len(data))
            changed = bytes([data[place] ^ rng.randrange(1, 256)])
            path.write_bytes(data[:place] + changed + data[place + 1 :])
            assert quick_problems(copied), (path, place)
        path.write_bytes(data)
    assert quick_problems(copied) == ""
    for path in (files[0], copied / RECORDS):
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        assert quick_problems(copied)
        path.unlink()
        assert quick_problems(copied)
        path.write_bytes(data)


def quick_problems(out: Path) -> str:
    """What the checks of digests and derived files find; certificates are proved elsewhere."""
    from matchgym.leaderboards import verification

    report = verification.Report()
    store = FolderStore(out)
    try:
        records = store.records()
        if not records:
            return "empty"
        for record in records:
            if record["kind"] == "bounded":
                for part in (record["body"]["bound"], record["body"]["optimum"]):
                    if part.get("is_kept") and store.certificate(part["certificate_sha256"]) is None:
                        return "a certificate is missing"
        verification._verify_files(out, records, seasons(records), TINY, report)
    except InputError as error:
        return str(error)
    return " ".join(report.problems)


def of_kind(records, kind, **fields):
    return [r["body"] for r in records if r["kind"] == kind and all(r["body"].get(key) == v for key, v in fields.items())]


def test_consistent_forgeries_are_found(copied) -> None:
    """Records changed so that the chain, board.json and the pages agree with them."""
    store = FolderStore(copied)
    original = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    random_sha, best_sha = (
        next(each.sha256 for each in baselines(TINY) if each.agent["name"] == name) for name in ("random", "optimal")
    )

    def forged(change, replays: int = 0) -> str:
        for path in copied.rglob("*"):
            if path.is_file():
                path.unlink()
        for path, data in original.items():
            path.write_bytes(data)
        rechain(copied, change)
        publish(FolderStore(copied), TINY)
        return problems_of(copied, replays)

    def better_values(records):
        body = of_kind(records, "evaluated", task="tiny-toy", artefact=random_sha)[0]
        body["values"] = [value * 1.01 for value in body["values"]]

    assert forged(better_values) == ""  # it takes a replay
    assert "a replay of tiny-toy/random gives other values" in forged(better_values, 99)

    def lower_bound(records):
        of_kind(records, "bounded", task="tiny-demo")[0]["bound"]["upper"] *= 0.999

    assert "proves" in forged(lower_bound)

    def weaker_bound(records):
        task = TINY[1]
        found = task.entry.layer("bounds").bound(task.load(), "fluid")
        body = of_kind(records, "bounded", task="tiny-demo")[0]["bound"]
        digest, is_kept = store.put_certificate(found.certificate)
        body |= {"kind": "fluid", "value": found.value, "upper": found.upper, "certificate_sha256": digest, "is_kept": is_kept}

    assert "asks for the bound tlp-online" in forged(weaker_bound, 1)

    def left_early(records):
        body = of_kind(records, "evaluated", task="tiny-demo", artefact=best_sha)[0]
        body["values"] = body["values"][: TINY[1].looks[0]]

    assert "was not left at the look" in forged(left_early)

    def backlog(records):
        of_kind(records, "evaluated", task="tiny-demo", artefact=random_sha)[0]["is_unstable"] = True

    assert "is not unstable" in forged(backlog)

    def missing_row(records):
        place = next(k for k, r in enumerate(records) if r["kind"] == "evaluated" and r["body"]["artefact"] == random_sha)
        del records[place]

    assert "baseline random is neither" in forged(missing_row)

    def other_kind(records):
        of_kind(records, "submitted", artefact=random_sha)[0]["kind"] = "optimum"

    assert "not of the kind 'optimum'" in forged(other_kind)

    def twice(records):
        body = of_kind(records, "evaluated", artefact=random_sha)[0]
        records.append({**records[-1], "kind": "evaluated", "body": body})

    assert "stands twice" in forged(twice)

    def few(records):
        body = of_kind(records, "evaluated", artefact=random_sha)[0]
        body["values"] = body["values"][:10]

    assert "values of no look" in forged(few)

    def other_reason(records):
        records.append(
            {
                **records[-1],
                "kind": "refused",
                "body": {"season": "one", "artefact": random_sha, "task": "tiny-toy", "reason": "x"},
            }
        )

    assert "stands twice" in forged(other_reason)

    def other_suite(records):
        records[0]["body"]["suite_version"] = "0"

    assert "suite 0" in forged(other_suite)
    store.records()


@pytest.mark.parametrize("change", ["kind", "body", "line", "fields"])
def test_malformed_records_are_sentences_and_not_crashes(copied, change) -> None:
    def break_it(records):
        if change == "kind":
            records[3]["kind"] = "surprise"
        if change == "body":
            of_kind(records, "evaluated")[0]["values"] = ["a"]
        if change == "fields":
            of_kind(records, "bounded")[0]["bound"] = {}

    if change == "line":
        (copied / RECORDS).write_text("[]\n")
    else:
        rechain(copied, break_it)
    report = verify_board(copied, TINY, replays=0)
    assert report.problems
    assert all("\n" not in problem for problem in report.problems)


def test_a_board_of_some_tasks_is_sound(tmp_path) -> None:
    """Built with a part of the tasks, and verified by whoever knows them all."""
    build_board(tmp_path, TINY[1:])
    assert problems_of(tmp_path) == ""


def test_a_board_grows_task_by_task(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(building, "TASKS", TINY)
    build_board(tmp_path, TINY[:1])
    board = build_board(tmp_path, TINY[1:])
    assert [task["name"] for task in board["tasks"]] == [task.name for task in TINY]
    assert problems_of(tmp_path) == ""


def test_files_that_belong_to_no_record_are_found(copied) -> None:
    (copied / "blobs" / "payload").write_text("x")
    assert "blobs/payload belongs to no record" in problems_of(copied)


# Commands.


def test_the_commands(copied, tmp_path, monkeypatch) -> None:
    run = CliRunner().invoke
    for function in (verify_board, assemble, close_board, submit_artefacts, replay_rows):
        names = function.__defaults__
        monkeypatch.setattr(function, "__defaults__", tuple(TINY if each is TASKS else each for each in names))
    result = run(leaderboard, ["verify", "--out", str(copied), "--rows", "0", "--json"])
    assert json.loads(result.stdout)["is_sound"]
    result = run(leaderboard, ["rank", "--out", str(copied), "--json"])
    assert [task["name"] for task in json.loads(result.stdout)["tasks"]] == ["tiny-toy", "tiny-demo"]
    digest = baselines(TINY)[1].sha256
    result = run(leaderboard, ["replay", digest[:16], "--task", "tiny-demo", "--out", str(copied), "--json"])
    assert [row["problem"] for row in json.loads(result.stdout)["rows"]] == [None]
    for words in (["replay", "zz", "--task", "tiny-demo"], ["replay", digest[:16], "--task", "nothing"]):
        assert isinstance(run(leaderboard, [*words, "--out", str(copied)]).exception, InputError)
    result = run(leaderboard, ["close", "--out", str(copied), "--json"])
    assert json.loads(result.stdout)["secret"] == SECRET.hex()
    assert problems_of(copied, 1) == ""
    (copied / "index.html").write_text("nothing")
    result = run(leaderboard, ["verify", "--out", str(copied), "--rows", "0"])
    assert result.exit_code == 1
    assert "index.html is not what" in result.stdout
    result = run(leaderboard, ["open", "two", "--out", str(tmp_path / "new"), "--json"])
    assert len(json.loads(result.stdout)["commitment"]) == 64
    for words in (["build", "--task", "nothing"], ["rank", "--out", str(tmp_path / "nowhere")]):
        assert isinstance(run(leaderboard, words).exception, InputError)
    assert isinstance(run(app, ["submit", str(tmp_path / "nowhere")]).exception, InputError)


def test_boards_of_different_kinds_do_not_mix(copied, tmp_path) -> None:
    with pytest.raises(InputError, match="holds a full board"):
        build_board(copied, TINY, is_quick=True)
    board = build_board(tmp_path / "quick", TINY[:1], is_quick=True)
    assert board["season"]["quick"]
    assert "A quick board" in (tmp_path / "quick" / "index.html").read_text()


def test_folders_that_are_no_agents_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no trained agent"):
        find_agents([tmp_path])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"lacks a readable config\.json or model\.zip"):
        find_agents([tmp_path])
    (tmp_path / "a" / "model.zip").write_bytes(b"x")
    assert find_agents([tmp_path]) == find_agents([tmp_path / "a"]) == [tmp_path / "a"]
