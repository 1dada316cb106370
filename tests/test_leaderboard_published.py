"""What the project publishes: the board in leaderboards/results is sound, complete and current."""

from pathlib import Path

import numpy as np
import pytest

from matchgym.baselines.statistics import t_interval
from matchgym.envs.instance import InputError
from matchgym.leaderboards.board import assemble
from matchgym.leaderboards.building import replay_rows
from matchgym.leaderboards.entrants import baselines
from matchgym.leaderboards.readme import board_table, updated
from matchgym.leaderboards.season import seasons
from matchgym.leaderboards.store import RESULTS, FolderStore, read_text
from matchgym.leaderboards.tasks import TASKS
from matchgym.leaderboards.verification import is_of_this_version, verify_board

ROOT = Path(__file__).parent.parent


is_stale = not is_of_this_version(seasons(FolderStore(RESULTS).records())[-1])
of_this_suite = pytest.mark.skipif(
    is_stale, reason="the published season is of an older suite: matchgym leaderboard season NAME"
)


@of_this_suite
def test_the_readme_shows_the_published_board() -> None:
    text = read_text(ROOT / "leaderboards/README.md")
    records = FolderStore(RESULTS).records()
    assert updated(text, records) == text, "run `matchgym leaderboard readme`"
    assert board_table(records) in text
    with pytest.raises(InputError, match="markers"):
        updated("nothing", records)


@of_this_suite
def test_the_published_board_is_sound_and_complete() -> None:
    """Digests, certificates, derived numbers and pages are current; replays are for `matchgym leaderboard verify`."""
    report = verify_board(RESULTS, replays=0)
    assert report.problems == []
    store = FolderStore(RESULTS)
    board = assemble(store.records())
    assert board["season"]["secret"] is not None
    assert not board["season"]["quick"]
    assert [task["name"] for task in board["tasks"]] == [task.name for task in TASKS]
    size = sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file())
    assert size < 50e6  # a season adds some 9 MB: values, agents and pages; old seasons want an archive


@pytest.fixture(scope="module")
def published() -> dict:
    """The published board, with the values of its rows."""
    return assemble(FolderStore(RESULTS).records())


@of_this_suite
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_published_rows_respect_bounds_and_precision(task, published) -> None:
    """No row exceeds the bound or the optimum by more than noise (4 standard errors); the best baseline is known to 0.5 %."""
    record = next(each for each in published["tasks"] if each["name"] == task.name)
    for row in record["rows"]:
        # A drawn instance may be one that a weak rule cannot keep stable; it is then shown as such.
        assert row["state"] in ("measured", "verified", "provisional", *(("unstable",) if task.family else ()))
        if row["name"] == "optimal":
            error = np.std(row["values"], ddof=1) / np.sqrt(row["replications"])
            assert abs(row["objective"]["mean"] - record["optimum"]["lower"]) <= 4 * error
    best = next(row for row in record["rows"] if row["verdict"] == "best")
    assert best["state"] == "verified"
    assert best["replications"] == task.replications
    if not task.family:
        bodies = [each["body"] for each in FolderStore(RESULTS).records() if each["kind"] == "bounded"]
        bound = [body["bound"] for body in bodies if body["task"] == task.name][-1]
        known = t_interval(best["values"] / np.array(bound.get("uppers", 1.0)))
        assert known.half_width <= 0.005 * abs(known.mean)
    settling = task.entry.model.settling
    is_cautious = task.id == "DataLocality-v0" or (task.id == "DataLocalityDesign-v0" and task.family)
    if settling is not None and not is_cautious:  # whose estimate is far on the safe side
        assert task.warmup >= settling(task.practice().load())


@of_this_suite
def test_a_published_row_replays_exactly() -> None:
    (row,) = [
        row
        for row in replay_rows(RESULTS, baselines(TASKS)[0].sha256[:16], "demo")
        if row["phase"] == "season"
    ]  # fmt: skip
    assert row["problem"] is None
