"""The dynamics of MatchingQueues-v0, and one queue solved exactly (arXiv 2501.08775, Sections 2 and 3)."""

import dataclasses
import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
from cases_queues import literal_dlp
from scipy.special import hyp1f1

from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import MODEL, MatchingQueuesVectorEnv, pooled_frontier
from matchgym.envs.single_queue import law_kernel, queue_frontier, solve_queue, static_throughput, sufficient_cap
from matchgym.envs.stationary_matching import StationaryMatchingVectorEnv


def one_queue(seed, m=3, load=0.7):
    """(rate, mu, gamma, costs, target) of a random queue."""
    rng = np.random.default_rng(seed)
    rate, mu, gamma, costs = rng.uniform(0.5, 5), rng.uniform(0.5, 2), rng.uniform(0.3, 3, m), rng.uniform(0, 2, m)
    return rate, mu, gamma, costs, load * static_throughput(rate, mu, gamma.sum())


# Dynamics.


def test_the_dynamics_are_those_of_stationary_matching():
    """Same seed, same actions: the same observations bit for bit, and rewards theta - c_ij in place of r_ij."""
    queues = MODEL.load("random-3x4")
    twin = {
        "model": "stationary_matching",
        "supplier_rates": queues.supplier_rates.tolist(),
        "departure_rates": queues.departure_rates.tolist(),
        "customer_rates": queues.customer_rates.tolist(),
        "rewards": (10.0 - queues.costs).tolist(),
    }
    envs = MatchingQueuesVectorEnv(queues, num_envs=3), StationaryMatchingVectorEnv(twin, num_envs=3)
    (obs, _), (twin_obs, _) = (env.reset(seed=5) for env in envs)
    rng = np.random.default_rng(0)
    for _ in range(400):
        assert (obs == twin_obs).all()
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in envs[0].action_masks()])
        (obs, rewards, _, _, infos), (twin_obs, twin_rewards, _, _, twin_infos) = (env.step(actions) for env in envs)
        assert np.allclose(rewards, np.where(actions < 3, twin_rewards - 10.0 + queues.price, 0.0), rtol=0, atol=1e-12)
        assert (infos["elapsed_time"] == twin_infos["elapsed_time"]).all()


def test_match_by_hand():
    """Rewards theta - c_ij of both signs; throughput and cost rates are running averages, 0 at time 0."""
    fields = MODEL.load("duo").to_dict() | {"throughput_price": 1.25}
    env = gym.make("MatchingQueues-v0", instance=fields).unwrapped
    _, info = env.reset(seed=1)
    assert info["throughput"] == info["cost_rate"] == 0.0
    env.state.queue[0], env.state.customer[0], env.state.departure_rate[0] = [1, 1], 2, 2.0
    _, reward, _, _, info = env.step(1)
    assert reward == 1.25 - 2.0
    assert info["throughput"] == 1 / info["elapsed_time"]
    assert info["cost_rate"] == pytest.approx(2.0 / info["elapsed_time"], rel=1e-15)
    env.state.queue[0], env.state.customer[0] = [1, 0], 1
    _, reward, _, _, info = env.step(0)
    assert reward == 1.25 - 0.5
    assert info["throughput"] == 2 / info["elapsed_time"]
    assert info["cost_rate"] == pytest.approx(2.5 / info["elapsed_time"], rel=1e-15)
    before = info["elapsed_time"] * info["throughput"]
    _, reward, _, _, info = env.step(2)
    assert reward == 0.0
    assert info["elapsed_time"] * info["throughput"] == pytest.approx(before)
    assert info["total_reward"] == pytest.approx(1.25 * 2 - 2.5)
    _, info = env.reset()
    assert info["throughput"] == info["cost_rate"] == 0.0


def test_golden_trajectory():
    """The first decisions on the default instance under seed 0: a change here is a new SUITE_VERSION."""
    env = gym.make("MatchingQueues-v0")
    obs, info = env.reset(seed=0)
    record = [(obs.astype(int).tolist(), round(info["elapsed_time"], 6))]
    for _ in range(5):
        obs, reward, _, _, info = env.step(int(np.flatnonzero(info["action_mask"])[0]))
        record.append((obs.astype(int).tolist(), round(reward, 6), round(info["elapsed_time"], 6), round(info["cost_rate"], 6)))
    assert record == GOLDEN


GOLDEN = [
    ([2, 0, 0, 1], 0.166948),
    ([1, 0, 0, 1], 0.674558, 0.224893, 4.44655),
    ([1, 0, 0, 1], 0.674558, 0.291403, 6.863356),
    ([0, 0, 0, 1], 0.674558, 0.298268, 10.058059),
    ([0, 0, 0, 1], 0.0, 0.364618, 8.227791),
    ([0, 0, 0, 1], 0.0, 0.367193, 8.170101),
]

# Instances.

VALID = {
    "model": "matching_queues",
    "supplier_rates": [1, 2],
    "abandonment_rate": 1,
    "customer_rates": [1],
    "costs": [[0], [1]],
    "throughput_target": 0.5,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"abandonment_rate": 0}, "abandonment_rate is 0; it must be finite and > 0"),
        ({"abandonment_rate": [1, 0]}, r"abandonment_rate\[1\] is 0"),
        ({"abandonment_rate": [1]}, "abandonment_rate has shape"),
        ({"abandonment_rate": "1"}, "abandonment_rate must be a number"),
        ({"abandonment_rate": None}, "abandonment_rate must be a number"),
        ({"abandonment_rate": 1e-10}, "waiting suppliers"),
        ({"costs": [[-1], [0]]}, r"costs\[0, 0\] is -1"),
        ({"costs": [[0, 1], [0, 1]]}, "costs has shape"),
        ({"throughput_target": -1}, "throughput_target is -1"),
        ({"throughput_target": [1]}, "throughput_target must be one number"),
        ({"throughput_target": True}, "throughput_target must be a number"),
        ({"throughput_price": -0.5}, "throughput_price is -0.5"),
        ({"throughput_price": float("nan")}, "throughput_price is nan"),
        ({"rewards": [[1], [1]]}, "rewards"),
        ({"supplier_rates": []}, "supplier_rates is empty"),
    ],
)
def test_faults_are_named(change, message):
    with pytest.raises(InputError, match=message):
        MODEL.load(VALID | change)


def test_forms_of_an_instance():
    """One abandonment rate or a list; a null price; the JSON round trip keeps what was given."""
    one, many = MODEL.load(VALID), MODEL.load(VALID | {"abandonment_rate": [1, 1]})
    assert (one.departure_rates == many.departure_rates).all()
    assert MODEL.load(one.to_dict()) == one
    assert one.to_dict()["abandonment_rate"] == 1.0
    assert one.to_dict()["throughput_price"] is None
    missing = {key: value for key, value in VALID.items() if key != "throughput_target"}
    with pytest.raises(InputError, match="throughput_target"):
        MODEL.load(missing)


def test_default_price():
    """Null means the slope c'(tau*) of the pooled queue, the queue itself if there is one; refuses unattainable targets."""
    for seed in range(8):
        rate, mu, gamma, costs, target = one_queue(seed)
        fields = VALID | {
            "supplier_rates": [rate], "abandonment_rate": mu, "customer_rates": gamma.tolist(), "costs": [costs.tolist()],
        }  # fmt: skip
        instance = MODEL.load(fields | {"throughput_target": target})
        step = 1e-6 * target
        low, high = (queue_frontier(rate, mu, gamma, costs, target + sign * step).cost for sign in (-1, 1))
        left = (queue_frontier(rate, mu, gamma, costs, target).cost - low) / step
        assert left - 1e-7 <= instance.price <= (high - queue_frontier(rate, mu, gamma, costs, target).cost) / step + 1e-7
        with pytest.raises(InputError, match="throughput_target"):
            _ = MODEL.load(fields | {"throughput_target": 1.5 * target}).price
    network = dataclasses.replace(MODEL.load("duo"), throughput_price=None)
    pooled = queue_frontier(4.0, 1.0, network.customer_rates, network.costs.min(0), 2.0)
    assert network.price == pooled.price == pooled_frontier(network).price
    assert dataclasses.replace(network, throughput_target=0.0).price == 0.0  # the first matches are free


# One queue.


@pytest.mark.parametrize("seed", range(10))
def test_static_throughput(seed):
    """g (1 - pi_0) with 1 / pi_0 = 1F1(1; a; z); the identity lambda - mu E[L]; increasing in g."""
    rate, mu, gamma, _, _ = one_queue(seed)
    previous = 0.0
    for g in np.linspace(0.1, 2, 7) * gamma.sum():
        found = static_throughput(rate, mu, g)
        assert found == pytest.approx(g * (1 - 1 / hyp1f1(1, g / mu + 1, rate / mu)), rel=1e-11)
        cap = sufficient_cap(rate / mu)
        law = np.empty(cap + 1)
        law_kernel(rate, mu, np.full(cap + 1, g), law)
        assert found == pytest.approx(rate - mu * law @ np.arange(cap + 1), rel=1e-11)
        assert found > previous
        previous = found
    assert static_throughput(1.0, 1.0, 1.0) == pytest.approx(1 - 1 / (math.e - 1), rel=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_law_of_a_queue(seed):
    """Births and deaths with any service rates, against a dense solve of the generator."""
    rng = np.random.default_rng(seed)
    rate, mu, service = rng.uniform(0.5, 9), rng.uniform(0.3, 2), rng.uniform(0, 4, 16)
    law = np.empty(16)
    law_kernel(rate, mu, service, law)
    generator = np.diag(np.full(15, rate), 1) + np.diag(np.arange(1, 16) * mu + service[1:], -1)
    generator -= np.diag(generator.sum(1))
    system = np.vstack([generator.T, np.ones(16)])
    assert np.allclose(law, np.linalg.lstsq(system, np.r_[np.zeros(16), 1.0], rcond=None)[0], atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_forms_of_the_dynamic_programme_agree(seed):
    """DLP(cap) over all subsets = over nested sets = relaxed balance = the hull walk."""
    m, cap = 1 + seed % 4, 4 + seed % 5
    rate, mu, gamma, costs, _ = one_queue(seed, m)
    everyone = solve_queue(rate, mu, gamma, np.ones(m), cap)
    for load in (0.3, 0.8, 0.999):
        target = load * everyone.match_rates.sum()
        order = np.argsort(costs)
        nested = [tuple(order[:k]) for k in range(m + 1)]
        found = queue_frontier(rate, mu, gamma, costs, target, cap).cost
        for form in ({}, {"sets": nested}, {"is_relaxed": True}):
            assert literal_dlp(rate, mu, gamma, costs, target, cap, **form) == pytest.approx(found, abs=1e-8)
    beyond = 1.0001 * everyone.match_rates.sum()
    assert literal_dlp(rate, mu, gamma, costs, beyond, cap) is None
    with pytest.raises(InputError, match="cannot be attained"):
        queue_frontier(rate, mu, gamma, costs, beyond, cap)


@pytest.mark.parametrize("seed", range(8))
def test_dual_of_the_dynamic_programme(seed):
    """(5) - (7) hold for all subsets with delta = -worth and alpha = -gain; strong duality; delta monotone and concave."""
    rate, mu, gamma, costs, target = one_queue(seed)
    segment = queue_frontier(rate, mu, gamma, costs, target)
    theta, cap = segment.price, sufficient_cap(rate / mu)
    policy = solve_queue(rate, mu, gamma, theta - costs, cap)
    delta, alpha = np.r_[-policy.worth, 0.0], -policy.gain
    assert alpha + theta * target == pytest.approx(segment.cost, abs=1e-11)
    assert (delta <= 1e-12).all()
    assert (np.diff(delta[1:]) >= -1e-12).all()
    half = delta[1 : cap // 2]  # concavity fails near the cap
    assert (np.diff(half, 2) <= 1e-9).all()
    assert -rate * delta[1] + alpha <= 1e-10
    levels = np.arange(1, cap + 1)
    for subset in itertools.chain.from_iterable(itertools.combinations(range(3), k) for k in range(4)):
        chosen = list(subset)
        left = -rate * delta[2:] + (levels * mu + gamma[chosen].sum()) * delta[1:-1] + alpha
        assert (left <= (gamma[chosen] * (costs[chosen] - theta)).sum() + 1e-9).all()


@pytest.mark.parametrize("seed", range(6))
def test_laws_of_the_frontier(seed):
    """Scaling, merging, permuting, scaling and shifting costs; convexity; decreasing in the cap, within theta eta(cap)."""
    rate, mu, gamma, costs, target = one_queue(seed)
    base = queue_frontier(rate, mu, gamma, costs, target)
    assert queue_frontier(3 * rate, 3 * mu, 3 * gamma, costs, 3 * target).cost == pytest.approx(3 * base.cost, abs=1e-11)
    assert queue_frontier(rate, mu, gamma[::-1], costs[::-1], target).cost == pytest.approx(base.cost, abs=1e-11)
    split, twice = np.r_[gamma[0] / 3, 2 * gamma[0] / 3, gamma[1:]], np.r_[costs[0], costs]
    assert queue_frontier(rate, mu, split, twice, target).cost == pytest.approx(base.cost, abs=1e-11)
    assert queue_frontier(rate, mu, gamma, 5 * costs, target).cost == pytest.approx(5 * base.cost, abs=1e-10)
    assert queue_frontier(rate, mu, gamma, costs + 2, target).cost == pytest.approx(base.cost + 2 * target, abs=1e-10)
    curve = [queue_frontier(rate, mu, gamma, costs, t).cost for t in np.linspace(0, target / 0.7, 30)]
    assert (np.diff(curve, 2) >= -1e-10).all()
    assert curve[0] == 0
    previous = np.inf
    for cap in range(2, 20):
        try:
            capped = queue_frontier(rate, mu, gamma, costs, target, cap)
        except InputError:
            continue
        lost = rate * (1 - sum(math.exp(-rate / mu) * (rate / mu) ** k / math.factorial(k) for k in range(cap)))
        assert -1e-12 <= capped.cost - base.cost <= capped.price * lost + 1e-12
        assert capped.cost <= previous + 1e-12
        previous = capped.cost


def test_a_very_long_queue():
    """100,000 waiting suppliers: close to the fluid limit, in which the cheapest customers are served."""
    gamma, costs = np.array([0.3, 0.9]), np.array([0.5, 2.0])
    segment = queue_frontier(1.0, 1e-5, gamma, costs, 0.8)
    assert segment.cost == pytest.approx(0.3 * 0.5 + 0.5 * 2.0, rel=1e-6)
    with pytest.raises(InputError, match="states"):
        queue_frontier(1.0, 1e-8, gamma, costs, 0.8)
