"""Admission to freelance markets: by hand, rule (7), and what is accepted in the long run."""

import numpy as np
import pytest
from cases_freelance import is_feasible

from matchgym.baselines import evaluate
from matchgym.baselines.freelance_admission import POLICIES
from matchgym.bounds.freelance_admission import bound
from matchgym.envs.freelance_admission import MODEL, FreelanceAdmissionEnv
from matchgym.envs.freelance_market import MODEL as MARKET
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


def test_same_market_as_freelance_market():
    """An instance of one id is one of the other."""
    assert MARKET.load(MODEL.load("overload-24").to_dict()).sha256 == MODEL.load("overload-24").sha256
