"""Bounds of runs: policies that prepare in the warm-up for the epochs that count, backlogs at the start, patterns."""

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
import pytest
from cases_freelance import CLASSES, random_market
from scipy.optimize import linprog

from matchgym.baselines import evaluate
from matchgym.baselines.freelance_market import POLICIES
from matchgym.baselines.policy import Policy
from matchgym.baselines.scoring import score_simulated
from matchgym.bounds.freelance_admission import bound_for as admission_bound_for
from matchgym.bounds.freelance_market import bound, bound_for
from matchgym.bounds.rational import CertificateError
from matchgym.envs.freelance_market import MODEL
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find

ID = "FreelanceMarket-v0"
LAWS = {"arrival_law": "deterministic", "availability_law": "deterministic"}
MARKET = {
    "model": "freelance_market",
    "name": "one-type",
    "arrival_means": [2],
    "job_hours": [[1]],
    "availability_means": [[10]],
    "agent_hours": [[[1]]],
    **LAWS,
}
# Four jobs of two tasks per epoch; the hours of skill 0 are enough for two of them.
TWO_TASKS = MARKET | {
    "arrival_means": [4], "job_hours": [[1, 1]], "availability_means": [[2, 4]], "agent_hours": [[[1, 0], [0, 1]]],
    "decomposable": True,
}  # fmt: skip


class Hoarder(Policy):
    """Requests `early` in the first `wait` epochs, and then as much as there is."""

    def __init__(self, wait, early):
        self.wait, self.early = wait, early

    def fit(self, instance):
        self.instance = MODEL.load(instance)
        return self

    def start(self, batch, seed):
        return 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        request = self.early if state < self.wait else np.full(len(self.early), 1e6)
        return np.tile(np.asarray(request, float), (len(observation), 1)), state + 1

    def masks(self, observation):
        return np.ones((len(observation), 0), np.bool_)


@pytest.mark.parametrize(("market", "early", "earned", "plain"), [(MARKET, [0], 4, 2), (TWO_TASKS, [1e6, 0], 4, 2)])
def test_a_hoarder_beats_the_bound_of_plain_runs_and_not_that_of_its_own(market, early, earned, plain):
    """20 epochs of warm-up, 20 that count. Jobs that waited are completed then; so are those that lack their last task."""
    policy = Hoarder(20, early).fit(market)
    found = evaluate(policy, ID, market, replications=2, warmup=20, decisions=20)
    assert found.objective.mean == pytest.approx(earned)
    assert bound(market).certified_value == pytest.approx(plain)
    own = bound_for(market, {}, (20, 20))
    assert own.kind == "throughput-run"
    assert own.verify() == pytest.approx(earned, rel=1e-9)
    score = score_simulated(find(ID), policy, found, 20, 20)
    assert score.bound.certified_value == own.certified_value
    assert not score.is_above_bound


def test_no_policy_is_above_its_bound_by_default():
    """Evaluations have no warm-up unless asked, and then `throughput` holds."""
    assert (MODEL.run[0], find("FreelanceAdmission-v0").model.run[0]) == (0, 0)
    for early, market in (([0], MARKET), ([1e6, 0], TWO_TASKS)):
        policy = Hoarder(20, early).fit(market)
        found = evaluate(policy, ID, market, replications=2, decisions=40)
        score = score_simulated(find(ID), policy, found, None, 40)
        assert score.bound.kind == "throughput"
        assert found.objective.mean <= score.bound.certified_value


class Delayer(Hoarder):
    """Admission: keeps 30 jobs of type 1 waiting for the first 20 epochs, which go before type 0, and then declines them."""

    options: ClassVar[dict[str, str]] = {"action": "per-type"}

    def __init__(self):
        super().__init__(20, [])

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        accept = (observation[:, 1] < 30) & (state < self.wait)
        return np.column_stack([np.ones(len(accept)), accept]), state + 1


def test_admission_can_hoard_too():
    """Jobs of one task wait behind jobs of three, until these are declined; 5.2 jobs per epoch are the most of a plain run."""
    market = MARKET | {
        "arrival_means": [4, 10], "job_hours": [[1, 0, 0], [5, 5, 5]], "agent_hours": [[[1, 1, 1]]],
    }  # fmt: skip
    admission, policy = "FreelanceAdmission-v0", Delayer().fit(market)
    found = evaluate(policy, admission, market, replications=2, warmup=20, decisions=10)
    assert admission_bound_for(market, {}, (0, 30)).verify() == pytest.approx(5.2)
    assert found.objective.mean == pytest.approx(6.8)  # nothing is random
    score = score_simulated(find(admission), policy, found, 20, 10)
    assert (score.bound.kind, score.bound.certified_value) == ("throughput-run", pytest.approx(10))
    assert not score.is_above_bound
    whole = evaluate(policy, admission, market, replications=2, decisions=30)
    assert whole.objective.mean < 5.2


def best_hoarding(market, warmup, decisions):
    """The most completed jobs per counted epoch of an allocation in mean hours, tasks real, over what every policy can do.

    P_js tasks are done before and V_js in the counted epochs. For decomposable jobs min_s (P + V)_js - min_s P_js of type j are
    completed in these; some skill has the fewest tasks done before, and each choice of these skills is a programme.
    """
    n, skills, size = market.n_types, market.n_skills, market.n_categories
    lam, needs, flexible = market.arrival_means, market.needs, market.flexible
    pools = [None] if flexible else range(size)
    lots = [(j, pool) for j in range(n) for pool in pools if pool is None or market.allowed[j, pool]]
    if not market.decomposable:
        choices = [[None]] * len(lots)
    else:
        choices = [np.flatnonzero(needs[j]).tolist() for j, _ in lots]
    # Variables: by lot completions in all, and hours h[phase][j, c, s] in tasks.
    tasks = [(k, c, s) for k, (j, pool) in enumerate(lots) for c in range(size) for s in range(skills)
             if needs[j, s] and market.allowed[j, c] and pool in (None, c)]  # fmt: skip
    width = len(lots) + 2 * len(tasks)
    rows, limits, equal = [], [], []

    def done(k, s, phase):
        row = np.zeros(width)
        row[len(lots) + phase * len(tasks) : len(lots) + (phase + 1) * len(tasks)] = [t[0] == k and t[2] == s for t in tasks]
        return row

    for phase, length in ((0, warmup), (1, decisions)):
        for c in range(size):
            for s in range(skills):
                row = np.zeros(width)
                for i, (k, where, which) in enumerate(tasks):
                    if (where, which) == (c, s):
                        row[len(lots) + phase * len(tasks) + i] = market.job_hours[lots[k][0], s]
                rows.append(row)
                limits.append(length * market.mean_hours[c, s])
    for k, (j, _) in enumerate(lots):
        first = int(needs[j].argmax())
        for s in np.flatnonzero(needs[j]):
            row = -done(k, s, 0) - done(k, s, 1)
            row[k] = 1
            rows.append(row)
            limits.append(0)
            if not market.decomposable:
                equal += [done(k, s, phase) - done(k, first, phase) for phase in (0, 1) if s != first]
    for j in range(n):
        for s in np.flatnonzero(needs[j]):
            mine = [k for k, lot in enumerate(lots) if lot[0] == j]
            rows += [sum(done(k, s, 0) for k in mine), sum(done(k, s, 0) + done(k, s, 1) for k in mine)]
            limits += [lam[j] * warmup, lam[j] * (warmup + decisions)]
    best = 0.0
    for chosen in itertools.product(*choices):
        goal = np.zeros(width)
        for k, s in enumerate(chosen):
            goal[k] -= 1
            goal += done(k, int(needs[lots[k][0]].argmax()) if s is None else s, 0)
        found = linprog(goal, np.array(rows), limits, *((np.array(equal), np.zeros(len(equal))) if equal else ()))
        assert found.status == 0
        best = max(best, -found.fun)
    return best / decisions


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(8))
def test_bounds_of_runs_are_above_the_best_hoarding(seed, kind):
    """Jobs that are not decomposable, or have one task: equal. Others: not below it, and equal without warm-up."""
    market = random_market(1200 + seed, kind, n=2, categories=1 + seed % 2, skills=1 + seed % 3, law="poisson")
    market = dataclasses.replace(market, arrival_means=market.arrival_means * (1 + seed % 4))
    plain = bound(market).value
    for warmup, decisions in ((0, 7), (3, 6), (6, 6), (50, 5)):
        own = bound(market, "throughput-run", warmup, decisions)
        best = best_hoarding(market, warmup, decisions)
        assert own.verify() == pytest.approx(own.value, rel=1e-8, abs=1e-9)
        assert own.value >= best * (1 - 1e-8)
        assert own.value >= plain * (1 - 1e-8)
        if warmup == 0:
            assert own.value == pytest.approx(plain, rel=1e-8)
        if warmup == 0 or not market.decomposable or market.n_skills == 1:
            assert own.value == pytest.approx(best, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("start", "value", "of_twenty"), [(100, 10.0, 7.0), (3, 5.0, 2.15), (0, 2.0, 2.0)])
def test_a_backlog_at_the_start_has_a_bound_of_its_own(start, value, of_twenty):
    """lambda = 2 and room for 10: with 100 jobs waiting 10 can be completed per epoch, and in 20 epochs 7."""
    market = MARKET | {"initial_jobs": [start]}
    for run, expected in ((None, value), ((0, 20), of_twenty)):
        found = bound_for(market, {}, run)
        kind = "throughput" if start == 0 else "throughput-started" if run is None else "throughput-run"
        assert (found.kind, found.value) == (kind, pytest.approx(expected, rel=1e-9))
        assert found.verify() == pytest.approx(expected, rel=1e-9)
    found = evaluate(POLICIES["greedy-job"]().fit(market), ID, market, replications=2, warmup=0, decisions=20)
    assert found.objective.mean == pytest.approx(of_twenty)


def test_a_pattern_counts_as_far_as_the_run_goes():
    """Factors 1.5, 0.5: after 1, 2, 3 epochs 3, 4, 7 jobs have come on average."""
    market = MARKET | {"arrival_pattern": [1.5, 0.5], "arrival_law": "poisson"}
    for length, come in ((1, 3), (2, 4), (3, 7)):
        assert bound_for(market, {}, (0, length)).verify() == pytest.approx(come / length, rel=1e-9)
    assert bound_for(market, {}, (1, 2)).verify() == pytest.approx(7 / 2, rel=1e-9)
    assert bound_for(market, {}).verify() == pytest.approx(3, rel=1e-9)


def test_certificates_of_runs_and_refusals():
    found = bound(TWO_TASKS, "throughput-run", 20, 20)
    longer = found.certificate | {"decisions": 40}
    with pytest.raises(CertificateError):
        dataclasses.replace(found, certificate=longer).verify()
    for bad in ({"decisions": 0}, {"warmup": -1}, {"warmup": 1.5}, {"last_prices": [[1.0]]}):
        with pytest.raises(CertificateError):
            dataclasses.replace(found, certificate=found.certificate | bad).verify()
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = {key: rng.uniform(0, 1, (1, 2)).tolist() for key in ("prices", "last_prices")}
        assert float(found.prove(found.instance, found.certificate | other).upper) >= found.value * (1 - 1e-12)
    with pytest.raises(InputError, match="warmup is for"):
        bound(MARKET, "throughput", warmup=3)
    for arguments, name in (((-1, 5), "warmup"), ((0, 0), "decisions"), ((0, True), "decisions")):
        with pytest.raises(InputError, match=name):
            bound(MARKET, "throughput-run", *arguments)
