"""The leaderboard: statistics, scores, reproducibility, verification, pages, and the published results."""

import hashlib
import json
import random
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel
from typer.testing import CliRunner

import matchgym.agents
from matchgym.baselines.policy import Policy
from matchgym.baselines.statistics import t_interval
from matchgym.cli.leaderboard import leaderboard
from matchgym.envs.instance import InputError, Instance
from matchgym.leaderboards import TASKS, Task, build_board, find_task, verify_board
from matchgym.leaderboards.board import assemble, score_interval, write_board
from matchgym.leaderboards.entrants import entrants, find_agents
from matchgym.leaderboards.pages import decimals, plus_minus, render
from matchgym.leaderboards.ranking import LEVEL, beats, holm, paired_p_value, rank_intervals, tiers
from matchgym.leaderboards.store import BOARD, PAGE, RESULTS, TIMINGS, certificate_path, read_board, read_json

ID = "StationaryMatching-v0"


def tiny(instance: str, seed: int) -> Task:
    digest = find_task("demo").entry.model.load(instance).sha256
    return Task(
        name=f"tiny-{instance}",
        id=ID,
        instance=instance,
        sha256=digest,
        replications=4,
        warmup=10,
        decisions=50,
        seed=seed,
    )


TINY = (tiny("toy", 5), tiny("demo", 50))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("board")
    build_board(out, TINY)
    return out


@pytest.fixture
def copied(built, tmp_path) -> Path:
    for path in built.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(built)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path


# Statistics.


def test_holm_on_a_worked_example() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, made monotone 0.02, 0.03, 0.06, 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_paired_p_value_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 20), rng.normal(0, 1, 20)
    assert paired_p_value(a, b) == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-12)
    assert paired_p_value(a, a) == 1.0
    assert paired_p_value([1.0, 2.0], [0.0, 1.0]) == 0.0  # the same difference every time


def test_tiers_and_ranks_when_ties_do_not_chain() -> None:
    """0 ties with 1 and 1 with 2, but 0 beats 2: two tiers, and the rank of 1 is open."""
    beaten = np.zeros((4, 4), bool)
    beaten[0, 2] = beaten[0, 3] = beaten[1, 3] = beaten[2, 3] = True
    assert tiers(beaten) == [1, 1, 2, 3]
    assert rank_intervals(beaten) == [(1, 2), (1, 3), (2, 3), (4, 4)]


def test_equal_policies_are_rarely_told_apart() -> None:
    """Of 300 boards of 6 equal rows at most 5 % may show any difference; 28 or more would have probability below 0.1 %."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=(300, 1, 16))
    boards = common + rng.normal(size=(300, 6, 16))
    assert sum(beats(board).any() for board in boards) < 28
    shifted = boards[0] + 5.0 * np.arange(6)[:, None]
    assert tiers(beats(shifted[::-1])) == [1, 2, 3, 4, 5, 6]


def by_hand(**values: list[float]) -> dict:
    """A task with the given measurements, anchor greedy, bound 5, optimum in [4, 4.5]."""
    rows = [
        {
            "name": name.replace("_", "-"),
            "kind": "agent" if name.startswith("agent") else "optimum" if name == "optimal" else "baseline",
            "about": None,
            "batch_means_half_width": 0.1,
            "values": row,
        }
        for name, row in values.items()
    ]
    bound = {"kind": "tlp-online", "value": 5.0, "lower": None, "upper": 5.0, "certificate_sha256": "0"}
    optimum = {"kind": "optimum", "value": 4.2, "lower": 4.0, "upper": 4.5, "certificate_sha256": "0"}
    return assemble(TINY[0], bound, optimum, rows, [])


def test_scores_against_numbers_worked_out_by_hand() -> None:
    """J0 = (2, 3, 4), mean 3, gap 2; J = (3, 4.2, 5.1) gives s = (0.5, 0.6, 0.55): mean 0.55; t(2) = 4.302653."""
    task = by_hand(greedy=[2.0, 3.0, 4.0], agent=[3.0, 4.2, 5.1])
    best, anchor = task["rows"]
    assert (best["name"], anchor["name"]) == ("agent", "greedy")
    assert best["score"]["mean"] == pytest.approx(0.55)
    error = np.std([0.5 - 0.55 * 3 / 2, 0.6 - 0.55 * 2 / 2, 0.55 - 0.55 * 1 / 2], ddof=1) / np.sqrt(3)  # s_b - s G_b / gap
    assert best["score"]["high"] - 0.55 == pytest.approx(4.302652729911275 * error)
    assert best["objective"]["mean"] == pytest.approx(4.1)
    assert best["ratio"] == pytest.approx(0.82)
    assert anchor["score"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert (task["optimum"]["score_lower"], task["optimum"]["score_upper"]) == (0.5, 0.75)
    assert (best["verdict"], anchor["verdict"]) == ("better", "best")
    assert best["p_value"] == pytest.approx(ttest_rel([3.0, 4.2, 5.1], [2.0, 3.0, 4.0]).pvalue)
    assert best["difference"]["mean"] == pytest.approx(1.1)
    assert (best["tier"], best["ranks"], anchor["tier"], anchor["ranks"]) == (1, [1, 1], 2, [2, 2])


def test_score_intervals_cover_although_the_anchor_is_an_estimate() -> None:
    """4000 draws with true score 0.5 and a gap known to 7 %: 95 % coverage within 1 % (3 standard errors of the share).

    The spread of the s_b alone would cover far less.
    """
    rng = np.random.default_rng(2)
    hits = naive_hits = 0
    for _ in range(4000):
        anchor = rng.normal(1.0, 0.8, 32)
        values = 2.0 + 0.5 * (anchor - 1.0) + rng.normal(0, 0.1, 32)
        found = score_interval(values, anchor, 3.0)
        hits += found.low <= 0.5 <= found.high
        naive = t_interval((values - anchor) / (3.0 - anchor.mean()))
        naive_hits += naive.low <= 0.5 <= naive.high
    assert abs(hits / 4000 - 0.95) <= 0.01
    assert abs(naive_hits / 4000 - 0.95) > 0.03


def test_the_exact_optimum_is_not_a_classical_baseline() -> None:
    task = by_hand(greedy=[1.0, 2.0, 3.0], random=[0.0, 0.9, 2.1], optimal=[3.0, 4.1, 4.9])
    verdicts = {row["name"]: row["verdict"] for row in task["rows"]}
    assert verdicts == {"optimal": "better", "greedy": "best", "random": "worse"}


def test_a_row_above_the_bound_is_quarantined_loudly() -> None:
    """5.5 is 5 standard errors (0.1) above the bound 5; 5.3 would be 3 and pass."""
    spread = 0.1 * np.sqrt(3) * np.array([-1.0, 0.0, 1.0])
    task = by_hand(greedy=[2.0, 3.0, 4.0], agent_a=list(5.5 + spread), agent_b=list(5.3 + spread))
    high, low, _ = task["rows"]
    assert high["is_above_bound"]
    assert not low["is_above_bound"]
    assert (high["tier"], high["ranks"], high["verdict"]) == (None, None, None)
    assert low["ranks"][0] == 1
    assert "ABOVE BOUND" in page_of(task)


# Files.


def page_of(task: dict, **named: object) -> str:
    board = {"suite_version": "s", "scorer_version": "1", "package_version": "0", "quick": False, "tasks": [task]}
    return render(board | named, {}, "0" * 64)


def test_a_build_is_reproducible_bit_for_bit(built, tmp_path) -> None:
    build_board(tmp_path, TINY)
    for path in (Path(BOARD), *(certificate_path(Path(), task.name) for task in TINY)):
        assert (tmp_path / path).read_bytes() == (built / path).read_bytes()
    text = (built / BOARD).read_text()
    assert not re.search(r"seconds|" + re.escape(str(built)), text)
    assert read_json(built / TIMINGS).keys() == {task.name for task in TINY}


def test_the_page_is_a_function_of_the_board(built) -> None:
    digest = hashlib.sha256((built / BOARD).read_bytes()).hexdigest()
    pages = [render(read_board(built), read_json(built / TIMINGS), digest) for _ in range(2)]
    assert pages[0] == pages[1] == (built / PAGE).read_text()
    assert "<script" not in pages[0]
    assert "http" not in re.sub('http-equiv="', "", pages[0])  # no outside resource


def test_names_are_escaped() -> None:
    task = by_hand(greedy=[2.0, 3.0, 4.0], agent=[3.0, 4.2, 5.1])
    evil = '"><script>alert(1)</script>'
    task |= {"note": evil, "instance": evil}
    task["rows"][0] |= {
        "name": evil,
        "about": {"algorithm": evil, "training_steps": 1, "training_seed": 0, "model_sha256": evil},
    }
    task["refused"] = [{"name": evil, "kind": "agent", "reason": evil}]
    page = page_of(task, suite_version=evil, package_version=evil)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_numbers_for_people() -> None:
    assert plus_minus({"mean": 4.14954, "low": 4.12954, "high": 4.16954}) == "4.150 ± 0.020"
    assert plus_minus({"mean": -35.123, "low": -36.4, "high": -33.846}) == "−35.1 ± 1.3"
    assert plus_minus({"mean": 0.0, "low": 0.0, "high": 0.0}) == "0"
    assert [decimals(half) for half in (0.0, 0.5, 0.034, 12.0, 1e-9)] == [0, 2, 3, 0, 6]


def test_an_interrupted_build_keeps_finished_tasks_and_can_go_on(built, tmp_path) -> None:
    @contextmanager
    def impatient(label: str):
        if label.startswith(TINY[1].name):
            raise KeyboardInterrupt
        yield lambda share: None

    with pytest.raises(KeyboardInterrupt):
        build_board(tmp_path, TINY, bar=impatient)
    assert [task["name"] for task in read_board(tmp_path)["tasks"]] == [TINY[0].name]
    assert verify_board(tmp_path, TINY).is_sound
    build_board(tmp_path, TINY, names=[TINY[1].name])
    assert (tmp_path / BOARD).read_bytes() == (built / BOARD).read_bytes()


def test_boards_of_different_kinds_do_not_mix(copied) -> None:
    before = (copied / BOARD).read_bytes()
    with pytest.raises(InputError, match="holds a full board"):
        build_board(copied, [task.quick() for task in TINY], is_quick=True)
    board = read_board(copied) | {"scorer_version": "0"}
    (copied / BOARD).write_text(json.dumps(board))
    with pytest.raises(InputError, match="other versions"):
        build_board(copied, TINY, names=[TINY[0].name])
    build_board(copied, TINY)
    assert (copied / BOARD).read_bytes() == before


def test_a_changed_instance_is_refused() -> None:
    task = Task(**{**TINY[0].to_dict(), "instance": "demo"})
    with pytest.raises(InputError, match="was frozen with"):
        task.load()
    with pytest.raises(InputError, match="unknown task"):
        find_task("nothing")


# Verification.


def test_a_fresh_board_is_sound(built) -> None:
    report = verify_board(built, TINY, replays=2)
    assert report.problems == []
    assert (report.bounds, len(report.replayed), report.not_replayable) == (4, 4, [])
    assert report.rows == sum(len(entrants(task)) for task in TINY)


@pytest.mark.parametrize("file", [BOARD, PAGE, "certificates/tiny-demo.json", "certificates/tiny-toy.json"])
def test_one_flipped_digit_is_found(copied, file) -> None:
    path = copied / file
    text = path.read_text()
    places = [match.start() for match in re.finditer(r"\d", text)]
    for place in random.Random(0).sample(places, 25):
        digit = (int(text[place]) + 1) % 10
        path.write_text(f"{text[:place]}{digit}{text[place + 1 :]}")
        assert problems_of(copied), (place, text[place - 30 : place + 10])
    path.write_text(text)
    assert verify_board(copied, TINY, replays=0).is_sound


def problems_of(out: Path) -> list[str]:
    """What verification without replays finds, be it that the files cannot even be read."""
    try:
        return verify_board(out, TINY, replays=0).problems
    except InputError as error:
        return [str(error)]


def rewrite(out: Path, board: dict) -> None:
    write_board(out, board, read_json(out / TIMINGS), {})


def forge(task: dict, **changes: object) -> dict:
    """A consistent forgery: everything derived is derived anew."""
    known = next(each for each in TINY if each.name == task["name"])
    optimum = {key: value for key, value in task["optimum"].items() if not key.startswith("score_")}
    return assemble(known, task["bound"] | changes, optimum, task["rows"], task["refused"])


def test_consistent_forgeries_are_found(copied) -> None:
    """Numbers changed so that everything else agrees with them, the page included."""
    original = (copied / BOARD).read_text()

    board = json.loads(original)
    row = next(row for row in board["tasks"][0]["rows"] if row["name"] == "random")
    row["values"] = [value * 1.01 for value in row["values"]]
    board["tasks"][0] = forge(board["tasks"][0])
    rewrite(copied, board)
    assert verify_board(copied, TINY, replays=0).is_sound  # it takes a replay
    problems = verify_board(copied, TINY, replays=99).problems
    assert [problem.split(" gives")[0] for problem in problems] == ["task tiny-toy: a replay of random"]

    board = json.loads(original)
    board["tasks"][1] = forge(board["tasks"][1], upper=board["tasks"][1]["bound"]["upper"] * 0.999)
    rewrite(copied, board)
    assert "bound.upper" in " ".join(verify_board(copied, TINY, replays=0).problems)

    board = json.loads(original)
    board["tasks"][1]["rows"] = [row for row in board["tasks"][1]["rows"] if row["name"] != "price-greedy"]
    board["tasks"][1] = forge(board["tasks"][1])
    rewrite(copied, board)
    assert "price-greedy is neither" in " ".join(verify_board(copied, TINY, replays=0).problems)

    board = json.loads(original)
    board["tasks"][0]["decisions"] += 1
    rewrite(copied, board)
    assert "not the task of that name" in " ".join(verify_board(copied, TINY, replays=0).problems)


def test_missing_and_misfiled_certificates_are_found(copied) -> None:
    path = certificate_path(copied, TINY[0].name)
    parts = json.loads(path.read_text())
    path.write_text("{}")
    kinds = (TINY[0].bound_kind, "optimum")
    assert problems_of(copied) == [f"task tiny-toy: the certificate of {kind} is missing." for kind in kinds]
    parts["bound"]["kind"] = "fluid"
    path.write_text(json.dumps(parts))
    assert "filed as one of another kind" in " ".join(problems_of(copied))


def test_a_board_of_another_schema_is_not_sound(copied) -> None:
    board = read_board(copied) | {"schema_version": 2}
    rewrite(copied, board)
    assert "schema_version 2" in " ".join(problems_of(copied))


@pytest.mark.parametrize("values", [{}, {"tasks": [3]}, {"tasks": [{"name": "tiny-toy"}]}, {"tasks": {}}])
def test_a_malformed_board_is_a_sentence_and_not_a_crash(copied, values) -> None:
    board = read_board(copied) | values if values else {}
    (copied / BOARD).write_text(json.dumps(board))
    assert problems_of(copied)


# Agents.


class FakeAgent(Policy):
    """Takes the first valid action."""

    @classmethod
    def load(cls, folder: Path) -> "FakeAgent":
        return cls()

    def fit(self, instance: Instance) -> "FakeAgent":
        self.instance = instance
        return self

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        assert deterministic
        return action_masks.argmax(1), state


def write_agent(folder: Path, task: Task) -> None:
    folder.mkdir(parents=True)
    config = {"id": ID, "instance_sha256": task.sha256, "algo": "maskable_ppo", "timesteps": 1000, "seed": 3}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.zip").write_bytes(b"weights")


def test_agents_are_rows_with_the_digest_of_their_model(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(matchgym.agents, "AgentPolicy", FakeAgent, raising=False)
    write_agent(tmp_path / "zoo" / "mine", TINY[0])
    board = build_board(tmp_path / "out", TINY[:1], find_agents([tmp_path / "zoo"]))
    (row,) = [row for row in board["tasks"][0]["rows"] if row["kind"] == "agent"]
    assert row["name"] == "mine"
    assert row["about"]["training_steps"] == 1000
    assert row["about"]["model_sha256"] == hashlib.sha256(b"weights").hexdigest()
    greedy = next(row for row in board["tasks"][0]["rows"] if row["name"] == "greedy")
    assert row["values"] == greedy["values"]  # on one pair of types the first valid action is greedy's
    report = verify_board(tmp_path / "out", TINY, replays=99)
    assert (report.is_sound, report.not_replayable) == (True, ["tiny-toy/mine"])


def test_folders_that_are_no_agents_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no trained agent"):
        find_agents([tmp_path])
    write_agent(tmp_path / "a" / "same", TINY[0])
    write_agent(tmp_path / "b" / "same", TINY[0])
    with pytest.raises(InputError, match="two agents"):
        find_agents([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(InputError, match="none of the chosen tasks"):
        build_board(tmp_path / "out", TINY, find_agents([tmp_path / "a"]), names=[TINY[1].name])
    write_agent(tmp_path / "c" / "greedy", TINY[0])
    with pytest.raises(InputError, match="like a baseline"):
        entrants(TINY[0], find_agents([tmp_path / "c"]))
    (tmp_path / "a" / "same" / "model.zip").unlink()
    with pytest.raises(InputError, match=r"lacks a readable config\.json or model\.zip"):
        find_agents([tmp_path / "a"])


# The command line.


def test_the_commands(copied, monkeypatch) -> None:
    run = CliRunner().invoke
    monkeypatch.setattr("matchgym.leaderboards.TASKS", TINY)
    monkeypatch.setattr(verify_board, "__defaults__", (TINY, *verify_board.__defaults__[1:]))
    result = run(leaderboard, ["verify", "--out", str(copied), "--rows", "0", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["is_sound"]
    (copied / PAGE).write_text("nothing")
    result = run(leaderboard, ["verify", "--out", str(copied), "--rows", "0"])
    assert result.exit_code == 1
    assert "index.html is not what" in result.stdout
    result = run(leaderboard, ["build", "--out", str(copied / "new"), "--quick", "--json"])
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert [task["name"] for task in record["tasks"]] == [task.name for task in TINY]
    assert "A quick board" in (copied / "new" / PAGE).read_text()
    assert isinstance(run(leaderboard, ["build", "--task", "nothing"]).exception, InputError)
    assert isinstance(run(leaderboard, ["verify", "--out", str(copied / "nowhere")]).exception, InputError)


# What is published.


def test_the_published_board_is_sound_and_complete() -> None:
    """Digests, certificates, derived numbers and the page are current; replays are for `matchgym leaderboard verify`."""
    report = verify_board(RESULTS, replays=0)
    assert report.problems == []
    board = read_board(RESULTS)
    assert not board["quick"]
    assert [task["name"] for task in board["tasks"]] == [task.name for task in TASKS]
    assert {path.stem for path in (RESULTS / "certificates").iterdir()} == {task.name for task in TASKS}
    assert all(row["name"] == "optimal" for task in board["tasks"] for row in task["refused"])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_published_rows_respect_bounds_and_precision(task) -> None:
    """No row exceeds the bound or the optimum by more than noise (4 standard errors); the best baseline is known to 0.5 %."""
    record = next(each for each in read_board(RESULTS)["tasks"] if each["name"] == task.name)
    ceiling = min(record["bound"]["upper"], record["optimum"].get("upper", np.inf))
    for row in record["rows"]:
        error = np.std(row["values"], ddof=1) / np.sqrt(task.replications)
        assert len(row["values"]) == task.replications
        assert not row["is_above_bound"]
        assert row["objective"]["mean"] <= ceiling + 4 * error
        if row["name"] == "optimal":
            assert abs(row["objective"]["mean"] - record["optimum"]["lower"]) <= 4 * error
    best = next(row["objective"] for row in record["rows"] if row["verdict"] == "best")
    assert (best["high"] - best["low"]) / 2 <= 0.005 * best["mean"]
    instance = task.load()
    relaxation = instance.customer_rates.sum() / instance.departure_rates.min()
    assert task.warmup >= 10 * relaxation
    assert task.decisions >= 35 * relaxation


def test_a_published_row_replays_exactly() -> None:
    """The anchor of the first task, measured again."""
    from matchgym.baselines.stationary_matching import Greedy
    from matchgym.leaderboards.board import evaluate_policy

    task = TASKS[0]
    found = evaluate_policy(task, Greedy().fit(task.load()), task.load())
    row = next(row for row in read_board(RESULTS)["tasks"][0]["rows"] if row["name"] == task.anchor)
    assert found.values.tolist() == row["values"]


def test_levels_are_what_the_page_says() -> None:
    assert LEVEL == 0.05
