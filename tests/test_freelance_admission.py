"""Admission to freelance markets: by hand, rule (7), and what is accepted in the long run."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cases_freelance import is_feasible, random_market
from scipy.stats import chi2

from matchgym.baselines import evaluate
from matchgym.baselines.freelance_admission import POLICIES
from matchgym.baselines.freelance_market import POLICIES as MARKET_POLICIES
from matchgym.baselines.freelance_market import greedy_job
from matchgym.bounds.freelance_admission import bound
from matchgym.envs.freelance_admission import MODEL, FreelanceAdmissionEnv, FreelanceAdmissionVectorEnv
from matchgym.envs.freelance_market import MODEL as MARKET
from matchgym.envs.freelance_market import FreelanceMarketEnv
from matchgym.envs.instance import InputError

ID = "FreelanceAdmission-v0"


def test_toy_by_hand():
    """Two jobs arrive, one fits: accept, decline, accept."""
    env = FreelanceAdmissionEnv("toy")
    env.reset(seed=0)
    for p, backlog, declined, reward in ((1, 1, 0, 0.99), (0, 0, 2, 1.0), (1, 1, 2, 0.99), (1, 2, 2, 0.98)):
        _, found, _, _, info = env.step(np.array([p]))
        assert (info["backlog"], info["declined"]) == (backlog, declined)
        assert found == pytest.approx(reward)
    assert bound("toy").certified_value == 1
    assert bound("toy", "decline").certified_value == 0.5


def test_most_tasks_first():
    """One hour; two jobs of type 1 wait and one of type 0: type 1 goes first, the lower index among equals."""
    market = {
        "model": "freelance_market", "name": "m", "arrival_means": [1, 2], "job_hours": [[1], [1]], "availability_means": [[1]],
        "agent_hours": [[[1]]], "arrival_law": "deterministic", "availability_law": "deterministic",
    }  # fmt: skip
    env = FreelanceAdmissionEnv(market, action="per-type")
    env.reset(seed=0)
    env.step(np.array([1.0, 1.0]))
    assert env.state.allocation[0].tolist() == [0, 1]
    env.step(np.array([1.0, 0.0]))
    assert env.state.queue[0].tolist() == [1, 1]


@pytest.mark.parametrize("scheme", ["most-tasks", "random-order"])
@pytest.mark.parametrize("name", ["overload-24", "overload-12x3-ind"])
def test_schemes_conserve_and_waste_nothing(name, scheme):
    env = FreelanceAdmissionEnv(name, scheme=scheme)
    obs, _ = env.reset(seed=1)
    instance = env.instance
    for _ in range(30):
        seen = {key: obs[part].astype(float) for key, part in env.observation_layout.items()}
        obs = env.step(np.array([1.0]))[0]
        granted = env.state.allocation[0].reshape(-1, instance.n_types)
        assert (seen["queue"] + seen["arrivals"] - granted.sum(0) == env.state.queue[0][: instance.n_types]).all()
        hours = seen["hours"].reshape(instance.n_categories, -1)
        if instance.flexible:
            assert is_feasible(instance, granted.sum(0)[:, None] * instance.needs, hours)
            for j in np.flatnonzero(env.state.queue[0] > 0):  # nothing more would fit
                more = granted.sum(0) + (np.arange(instance.n_types) == j)
                assert not is_feasible(instance, more[:, None] * instance.needs, hours - 1e-6)
        else:
            left = hours - granted @ instance.job_hours
            assert left.min() > -1e-6
            for j in np.flatnonzero(env.state.queue[0][: instance.n_types] > 0):
                assert not (instance.job_hours[j] <= left - 1e-6).all(1).any()


def test_rule_7_and_thinning_outside_and_inside():
    """Thinning at 0.99 (1 - beta*) is stable and accepts that; rule (7) accepts as much at least, and all inside the region."""
    market = MODEL.load("overload-24")
    total, keep = market.arrival_means.sum(), 1 - bound(market, "decline").value
    limit = bound(market).certified_value
    for name, least in (("thinning", 0.985 * keep), ("admission-maxweight", 0.99 * keep)):
        found = evaluate(POLICIES[name]().fit(market), ID, replications=4, warmup=300, decisions=900)
        accepted = total - found.rates["declined"].mean
        assert least * total < accepted
        assert found.rates["completed"].mean < limit * 1.01
        assert abs(found.trends["backlog_slope"].mean) < 1
    growing = evaluate(POLICIES["accept-all"]().fit(market), ID, replications=4, warmup=100, decisions=300)
    assert growing.trends["backlog_slope"].low > 5
    inside = POLICIES["admission-maxweight"](nu=1e-4).fit("inside-24")
    assert evaluate(inside, ID, replications=4, warmup=100, decisions=300).rates["declined"].mean == 0
    with pytest.raises(InputError, match="pools"):
        POLICIES["admission-jltt"]().fit(market)
    with pytest.raises(InputError, match="nu"):
        POLICIES["admission-maxweight"](nu=-1.0).fit(market)
    jltt = evaluate(POLICIES["admission-jltt"]().fit("overload-12x3-ind"), ID, replications=4, warmup=300, decisions=600)
    assert abs(jltt.trends["backlog_slope"].mean) < 0.5


def step_with(policy, env, obs, memory):
    """One epoch of an environment under a policy; what it shows then."""
    actions, memory = policy.predict(obs[None], memory)
    obs, reward, _, _, info = env.step(actions[0])
    return obs, memory, (env.state.queue[0].tolist(), reward, info["declined"], info["completed"], info["cut"])


def in_overload(kind):
    """A market of any class, asked for half again as much as it can do, whose jobs are few enough for exact programmes."""
    market = random_market(1500, kind, n=3, categories=1 if kind == "FND" else 2, skills=2, law="poisson", decline_cost=0.1)
    return replace(market, arrival_means=market.arrival_means * (1.5 * bound(market, "load").value))


@pytest.mark.parametrize(
    ("kind", "name", "own", "scheme"),
    [
        *((kind, "admission-maxweight", "admission-maxweight", "maxweight") for kind in ("FD", "FND", "ID", "IND")),
        *((kind, "admission-jltt", "admission-jltt", "maxweight") for kind in ("ID", "IND")),
        *((kind, "maxweight-ilp", "accept-all", "maxweight") for kind in ("FD", "IND")),
        *((kind, "maxweight-lp", "accept-all", "maxweight-lp") for kind in ("FD", "FND", "ID", "IND")),
    ],
)
def test_schemes_are_those_of_the_policies_epoch_by_epoch(kind, name, own, scheme):
    """Under one seed FreelanceMarket-v0 with a policy, and FreelanceAdmission-v0 with its scheme, take the same course."""
    market = in_overload(kind)
    knobs = {"nu": 0.05} if name.startswith("admission") else {}
    one, two = MARKET_POLICIES[name](**knobs).fit(market), POLICIES[own](**knobs, scheme=scheme).fit(market)
    first, second = FreelanceMarketEnv(market, **one.options), FreelanceAdmissionEnv(market, **two.options)
    (obs, _), (other, _) = first.reset(seed=5), second.reset(seed=5)
    memory, memo = one.start(1, 0), two.start(1, 0)
    declined = 0
    for _ in range(80):
        assert (obs == other).all()
        obs, memory, shown = step_with(one, first, obs, memory)
        other, memo, seen = step_with(two, second, other, memo)
        assert shown == seen
        declined = seen[2]
    assert (declined > 0) == bool(knobs)
    assert second.state.solved[0] == (0 if scheme == "maxweight-lp" else programmes_of(market, two.options) * 80)


def programmes_of(market, options):
    """Programmes of an epoch."""
    return len(MODEL.params(market, **options).block)


def test_greedy_job_as_a_scheme_draws_a_random_order():
    """The law of what is granted in the first epoch, against all orders of the jobs that arrive."""
    market = {
        "model": "freelance_market", "name": "g", "arrival_means": [2, 2, 1], "job_hours": [[2, 1], [1, 1], [0, 2]],
        "availability_means": [[4]], "agent_hours": [[[1, 1]]], "arrival_law": "deterministic",
        "availability_law": "deterministic",
    }  # fmt: skip
    law, jobs = {}, [0, 0, 1, 1, 2]
    for order in itertools.permutations(range(5)):
        key = tuple(greedy_job(market, [jobs[k] for k in order], [[4]]).tolist())
        law[key] = law.get(key, 0) + 1 / 120
    rows = 20_000
    env = FreelanceAdmissionVectorEnv(market, num_envs=rows, scheme="greedy-job")
    env.reset(seed=0)
    env.step(np.ones((rows, 1)))
    keys, counts = np.unique(env.state.allocation, axis=0, return_counts=True)
    seen = {tuple(key.tolist()): int(c) for key, c in zip(keys, counts)}
    assert set(seen) <= set(law)
    value = sum((seen.get(key, 0) - p * rows) ** 2 / (p * rows) for key, p in law.items())
    assert value < chi2.ppf(1 - 1e-6, len(law) - 1)


def test_schemes_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="scheme greedy-job needs"):
        FreelanceAdmissionEnv("overload-12x3-ind", scheme="greedy-job")
    with pytest.raises(InputError, match="naive-jobs-pick"):
        FreelanceAdmissionEnv("overload-12x3-ind", scheme="naive-jobs-pick", pools=True)
    with pytest.raises(InputError, match="scheme must be one of most-tasks, random-order, maxweight"):
        FreelanceAdmissionEnv("toy", scheme="none")
    for scheme in ("greedy-job", "naive-jobs-pick", "maxweight", "maxweight-lp"):
        pools = {} if scheme == "naive-jobs-pick" else {"pools": True}
        env = FreelanceAdmissionEnv("overload-12x3-ind", scheme=scheme, **pools)
        env.reset(seed=0)
        for _ in range(20):
            *_, info = env.step(np.ones(1))
            assert info["total_cut"] == 0
        assert info["completed"] > 0


def test_same_market_as_freelance_market():
    """An instance of one id is one of the other."""
    assert MARKET.load(MODEL.load("overload-24").to_dict()).sha256 == MODEL.load("overload-24").sha256
