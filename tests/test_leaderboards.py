"""The leaderboard: its tasks, statistics and scores."""

import dataclasses

import numpy as np
import pytest
from boards import TINY
from scipy.stats import ttest_rel

from matchgym.baselines.statistics import t_interval
from matchgym.envs.instance import InputError
from matchgym.envs.registry import ENTRIES
from matchgym.leaderboards.board import assemble, extended_interval, score_interval
from matchgym.leaderboards.markup import decimals, plus_minus
from matchgym.leaderboards.measuring import LOOK_LEVEL, Measured, certified_values, is_hopeless, is_unstable
from matchgym.leaderboards.methods import LEAST_RUNS, method_interval, method_rows
from matchgym.leaderboards.ranking import LEVEL, beats, holm, paired_p_value, rank_intervals, statistic, tiers
from matchgym.leaderboards.tasks import FIXED_TASKS, LOOKS, TASKS, find_task
from matchgym.leaderboards.tracks import interquartile_mean, mean_interval

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
    """Of 100 boards of 6 equal rows 5 % may show any difference; 14 or more would have probability below 0.1 %.

    Rows have 16 replications, or 16, 32 and 64, or stand for three tasks.
    """
    rng = np.random.default_rng(1)
    kinds = {
        "16": lambda: [[row] for row in rng.normal(size=(1, 16)) + rng.normal(size=(6, 16))],
        "mixed": lambda: [[rng.normal(size=n)] for n in (16, 16, 32, 32, 64, 64)],
        "skewed": lambda: [[row] for row in rng.exponential(size=(6, 64))],
        "tasks": lambda: [[rng.normal(0, scale, n) for scale, n in ((1, 16), (2, 64), (3, 32))] for _ in range(6)],
    }
    for name, draw in kinds.items():
        assert sum(beats(draw()).any() for _ in range(100)) < 14, name


def test_rank_intervals_cover_the_true_ranks():
    """150 boards of 5 rows with true means 0, 0, 0.5, 1, 3 standard errors: 5 % may miss any rank; 18 is too many (0.1 %)."""
    rng = np.random.default_rng(2)
    means = np.array([0.0, 0.0, 0.5, 1.0, 3.0]) / np.sqrt(32)
    misses = 0
    for _ in range(150):
        rows = means[:, None] + rng.normal(0, 1 / np.sqrt(2), (5, 32))
        ranks = rank_intervals(beats([[row] for row in rows]))
        better = [(means > mean).sum() for mean in means]
        ties = [(means == mean).sum() for mean in means]
        misses += any(low > 1 + b or high < b + t for (low, high), b, t in zip(ranks, better, ties))
    assert misses < 18


def test_clear_differences_are_seen():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(6, 16)) + 5.0 * np.arange(6)[::-1, None]
    assert tiers(beats([[row] for row in rows])) == [1, 2, 3, 4, 5, 6]
    assert not beats([[rows[0]], [rows[0] * (1 + 1e-15)]]).any()  # rounding is no difference
    assert statistic([rows[0]], [rows[0] - 1.0]) == pytest.approx(np.inf) or statistic([rows[0]], [rows[0] - 1.0]) > 1e6


def test_a_hundred_agents_that_equal_the_best_baseline():
    """In 40 seasons of 100 equal agents, "better" is claimed in 5 % at most: 7 or more would have probability 0.4 %.

    A claim needs p <= LEVEL / 3 after Holm on the season's seeds and again on fresh ones. Without the fresh seeds and with a
    test for each agent by itself, more than half of the seasons have one.
    """
    rng = np.random.default_rng(4)
    false = naive = confirmed = 0
    for _ in range(40):
        best = rng.normal(size=256)
        agents = 0.7 * best + rng.normal(0, 0.7, (100, 256))
        p = [paired_p_value(agent, best) for agent in agents]
        is_up = (agents.mean(1) > best.mean()).tolist()
        adjusted = holm(p)
        claims = [k for k in range(100) if is_up[k] and adjusted[k] <= LOOK_LEVEL]
        naive += any(is_up[k] and p[k] <= LEVEL for k in range(100))
        false += bool(claims)
        fresh_best, fresh = rng.normal(size=256), rng.normal(size=(100, 256))
        confirmed += any(
            paired_p_value(fresh[k], fresh_best) <= LOOK_LEVEL and fresh[k].mean() > fresh_best.mean() for k in claims
        )
    assert false < 7
    assert confirmed <= false
    assert naive > 15


def test_hopeless_rows_are_left_and_equal_ones_rarely():
    """A row as good as the best baseline is left at some look with probability 2.5 % at most; of 1000, 45 is too many."""
    rng = np.random.default_rng(5)
    left = 0
    for _ in range(1000):
        rival, row = rng.normal(size=256), rng.normal(size=256)
        left += any(is_hopeless(row[:look], rival) for look in LOOKS)
    assert left < 45
    assert is_hopeless(rng.normal(-5, 1, 16), rng.normal(size=256))
    assert not is_hopeless(rng.normal(5, 1, 16), rng.normal(size=256))


def test_means_over_tasks_cover():
    """2000 means of three tasks with 16, 64 and 256 replications: 95 % coverage within 1.5 %, 3 standard errors."""
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(2000):
        _, low, high = mean_interval([rng.normal(0, 1, 16), rng.normal(0, 2, 64), rng.normal(0, 3, 256)])
        hits += low <= 0 <= high
    assert abs(hits / 2000 - 0.95) <= 0.015
    assert interquartile_mean([9.0, 1.0, 2.0, -9.0]) == 1.5
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0


def test_methods_need_five_runs_and_their_intervals_cover():
    """500 methods of 10 runs on 4 tasks: the percentile bootstrap covers at least 85 % (narrow at 10 runs)."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(500):
        mean, low, high = method_interval(rng.normal(0, 1, (10, 4)))
        hits += low <= 0 <= high
        assert low <= mean <= high
    assert hits / 500 >= 0.85
    score = {"mean": 0.5, "low": 0.4, "high": 0.6}
    tasks = [{"name": "t", "rows": [{"artefact": str(k), "score": score} for k in range(6)]}]
    who = {
        str(k): {
            "kind": "agent",
            "name": "ppo",
            "method": {"algorithm": "ppo", "training_steps": 9, "train_seed": k % LEAST_RUNS},
        }
        for k in range(6)
    }
    (row,) = method_rows(tasks, who)  # the sixth repeats a seed
    assert (row["runs"], row["score"]["mean"], row["tasks"]) == (LEAST_RUNS, 0.5, ["t"])
    assert method_rows(tasks, {key: who[key] for key in "0123"}) == []


def test_growing_backlogs_are_unstable():
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 0.1, (16, 10))
    steady, growing = -1.0 + noise, -1.0 - np.arange(10) + noise

    def measured(batches):
        return Measured(batches.mean(1), batches, 1.0)

    assert not is_unstable(measured(steady), -0.5)
    assert is_unstable(measured(growing), -0.5)
    assert not is_unstable(measured(-growing), 50.0)  # rewards that grow are no backlog
    assert is_unstable(measured(steady * 1000), -0.5)  # beyond the cap


def test_replications_with_bounds_of_their_own():
    """J0 = (1, 2), UB = (3, 6), J = (2, 4): D = (1, 2), G = (2, 4), so the score is exactly 1/2."""
    certified = certified_values({"uppers": [3.0, 6.0, 9.0]}, 2)
    found = score_interval(np.array([2.0, 4.0]), np.array([1.0, 2.0]), certified)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert certified_values({"upper": 4.0}, 3).tolist() == [4.0] * 3


def record_of(name: str, kind: str) -> dict:
    return {"artefact": name, "name": name, "kind": kind, "season": "s", "method": {}}


def by_hand(fresh: dict[str, list[float]] | None = None, **values: list[float]) -> dict:
    """A task with the given measurements, anchor greedy, bound 5, optimum in [4, 4.5]."""
    bound = {"kind": "tlp-online", "value": 5.0, "lower": None, "upper": 5.0, "certificate_sha256": "0", "is_kept": True}
    optimum = {**bound, "kind": "optimum", "value": 4.2, "lower": 4.0, "upper": 4.5}
    opened = {
        "season": "s",
        "commitment": "0",
        "quick": False,
        "suite_version": "1",
        "scorer_version": "1",
        "package_version": "1",
    }
    bodies = [("season-opened", opened), ("bounded", {"season": "s", "task": TINY[0].name, "bound": bound, "optimum": optimum})]
    for name, row in values.items():
        kind = "agent" if name.startswith("agent") else "optimum" if name == "optimal" else "baseline"
        method = {"algorithm": "x", "training_steps": 0, "train_seed": 0}
        bodies.append(("submitted", record_of(name, kind) | {"method": method}))
        for phase, numbers in (("season", row), ("fresh", (fresh or {}).get(name))):
            if numbers is not None:
                body = {"season": "s", "artefact": name, "task": TINY[0].name, "phase": phase, "values": list(numbers)}
                more = {"batch_means_half_width": 0.1, "is_unstable": False, "microseconds": 1.0, "is_jailed": True}
                bodies.append(("evaluated", body | more))
    records = [{"n": n, "kind": kind, "at": "", "body": body, "sha256": "0"} for n, (kind, body) in enumerate(bodies)]
    (task,) = assemble(records, TINY[:1])["tasks"]
    return task


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
    assert (best["verdict"], anchor["verdict"]) == ("better", "best")  # p = 0.0027
    assert (best["state"], anchor["state"]) == ("provisional", "provisional")
    assert best["p_value"] == pytest.approx(ttest_rel([3.0, 4.2, 5.1], [2.0, 3.0, 4.0]).pvalue)
    assert best["difference"]["mean"] == pytest.approx(1.1)
    assert (best["tier"], anchor["tier"], anchor["ranks"]) == (1, 1, [1, 2])  # three replications tell nothing apart


def test_score_intervals_cover_although_the_anchor_is_an_estimate() -> None:
    """4000 draws with true score 0.5 and a gap known to 7 %: 95 % coverage within 1 % (3 standard errors of the share).

    The spread of the s_b alone would cover far less.
    """
    rng = np.random.default_rng(2)
    hits = naive_hits = 0
    for _ in range(4000):
        anchor = rng.normal(1.0, 0.8, 32)
        values = 2.0 + 0.5 * (anchor - 1.0) + rng.normal(0, 0.1, 32)
        found = score_interval(values, anchor, np.full(32, 3.0))
        hits += found.low <= 0.5 <= found.high
        naive = t_interval((values - anchor) / (3.0 - anchor.mean()))
        naive_hits += naive.low <= 0.5 <= naive.high
    assert abs(hits / 4000 - 0.95) <= 0.01
    assert abs(naive_hits / 4000 - 0.95) > 0.03


def test_extended_means_cover():
    """2000 rows of 16 replications beside a baseline of 256: 95 % coverage of the row's true mean within 1.5 %."""
    rng = np.random.default_rng(10)
    hits, halves = 0, []
    for _ in range(2000):
        reference = rng.normal(1, 1, 256)
        found = extended_interval(reference[:16] - 0.2 + rng.normal(0, 0.3, 16), reference)
        hits += found.low <= 0.8 <= found.high
        halves.append(found.high - found.mean)
    assert abs(hits / 2000 - 0.95) <= 0.015
    assert np.mean(halves) < 0.25  # of the 16 replications alone: 0.55


def test_a_row_that_stopped_early_has_not_the_luck_of_the_first_replications():
    rng = np.random.default_rng(11)
    greedy = np.concatenate([rng.normal(4, 0.1, 16), rng.normal(2, 0.1, 48)])
    task = by_hand(greedy=greedy, agent=greedy[:16] - 0.1 + rng.normal(0, 0.01, 16))
    first, second = task["rows"]
    assert (first["name"], second["name"]) == ("greedy", "agent")
    assert second["objective"]["mean"] == pytest.approx(greedy.mean() - 0.1, abs=0.02)
    assert (second["verdict"], second["state"]) == ("worse", "measured")
    assert second["score"]["mean"] < first["score"]["mean"]


def test_copies_do_not_weaken_the_test_of_another():
    rng = np.random.default_rng(12)
    greedy = rng.normal(2, 0.1, 24)
    agent, other = greedy + rng.normal(0.006, 0.01, 24), greedy + rng.normal(0, 0.1, 24)

    def p_value(**more):
        rows = by_hand(greedy=greedy, agent=agent, agent_b=other, **more)["rows"]
        return next(row["p_value"] for row in rows if row["name"] == "agent")

    alone = p_value()
    assert 0 < alone < 0.1
    assert p_value(**{f"agent_{k}": other for k in range(20)}) == alone
    assert p_value(**{f"agent_{k}": other + 1e-3 * rng.normal(size=24) for k in range(20)}) > alone


def test_the_exact_optimum_is_not_a_classical_baseline() -> None:
    task = by_hand(greedy=[1.0, 2.0, 3.0], random=[0.0, 0.9, 2.1], optimal=[3.0, 4.1, 4.9])
    verdicts = {row["name"]: row["verdict"] for row in task["rows"]}
    assert verdicts == {"optimal": "better", "greedy": "best", "random": "worse"}


def test_fresh_seeds_confirm_a_claim_or_do_not():
    rng = np.random.default_rng(9)
    greedy, agent = rng.normal(2, 0.1, 24), rng.normal(3, 0.1, 24)
    season = {"greedy": greedy, "agent": agent}

    def states(fresh):
        return {row["name"]: row["state"] for row in by_hand(fresh, **season)["rows"]}

    assert states({}) == {"agent": "provisional", "greedy": "measured"}
    assert states({"greedy": greedy, "agent": agent}) == {"agent": "verified", "greedy": "verified"}
    assert states({"greedy": greedy, "agent": greedy + rng.normal(0, 0.1, 24)})["agent"] == "provisional"
    assert states({"greedy": greedy, "agent": greedy - 1})["agent"] == "provisional"


def test_a_row_above_the_bound_is_quarantined_loudly() -> None:
    """5.5 is 5 standard errors (0.1) above the bound 5; 5.3 would be 3 and pass."""
    spread = 0.1 * np.sqrt(3) * np.array([-1.0, 0.0, 1.0])
    task = by_hand(greedy=[2.0, 3.0, 4.0], agent_a=list(5.5 + spread), agent_b=list(5.3 + spread))
    high, low, _ = task["rows"]
    assert high["is_above_bound"]
    assert not low["is_above_bound"]
    assert (high["tier"], high["ranks"], high["verdict"]) == (None, None, None)
    assert low["ranks"][0] == 1
    assert high["state"] == "quarantined"


# Tasks.


def test_numbers_for_people() -> None:
    assert plus_minus({"mean": 4.14954, "low": 4.12954, "high": 4.16954}) == "4.150 ± 0.020"
    assert plus_minus({"mean": -35.123, "low": -36.4, "high": -33.846}) == "−35.1 ± 1.3"
    assert plus_minus({"mean": 0.0, "low": 0.0, "high": 0.0}) == "0"
    assert [decimals(half) for half in (0.0, 0.5, 0.034, 12.0, 1e-9)] == [0, 2, 3, 0, 6]


def test_a_changed_instance_is_refused() -> None:
    task = dataclasses.replace(TINY[0], instance="demo")
    with pytest.raises(InputError, match="was frozen with"):
        task.load()
    with pytest.raises(InputError, match="unknown task"):
        find_task("nothing")


def test_every_id_has_three_frozen_tasks():
    assert len({task.name for task in TASKS}) == len(TASKS)
    assert len({task.seed for task in TASKS}) == len(TASKS)
    for entry in ENTRIES:
        mine = [task for task in FIXED_TASKS if task.id == entry.id]
        assert len(mine) >= 3, entry.id
        for task in mine:
            assert task.load().sha256 == task.sha256
            assert task.anchor in entry.layer("baselines").POLICIES
            assert task.bound_kind in entry.layer("bounds").KINDS
            assert 2 <= len(task.looks) <= len(LOOKS)


def test_levels_are_what_the_page_says() -> None:
    assert LEVEL == 0.05
    assert pytest.approx(0.05 / 3) == LOOK_LEVEL
