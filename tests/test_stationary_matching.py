"""The dynamics of StationaryMatching-v0: steps worked by hand, exact laws of one transition, golden trajectory."""

import gymnasium as gym
import numpy as np
import pytest
from cases import random_instance
from scipy import stats
from scipy.sparse import identity
from scipy.sparse.linalg import spsolve

from matchgym.bounds.chain import box_of, match_law
from matchgym.envs.compile import pack
from matchgym.envs.stationary_matching import MODEL, StationaryMatchingVectorEnv

LEVEL = 1e-4  # of every statistical test; seeds are fixed
MODES = ["events", "synchronised", "jump"]


def rows_in_state(instance, queue, rows, mode, seed=0, ghosts=None):
    """A vector environment all of whose rows are in the given state."""
    env = StationaryMatchingVectorEnv(instance, num_envs=rows, synchronised=mode == "synchronised")
    env.reset(seed=seed)
    params = MODEL.params(env.instance, "empty", mode == "synchronised")
    env._params = pack(params._replace(is_jumping=int(mode == "jump")))
    env.state.queue[:] = queue
    env.state.ghosts[:] = 0 if ghosts is None else ghosts
    env.state.departure_rate[:] = (env.state.queue + env.state.ghosts) @ env.instance.departure_rates
    env.state.elapsed_time[:] = 0.0
    return env


def chi_square(observed, expected):
    """p-value of counts against expected counts, small cells pooled."""
    big = expected >= 10
    observed = np.append(observed[big], observed[~big].sum())
    expected = np.append(expected[big], expected[~big].sum())
    keep = expected > 1
    return stats.chi2.sf(((observed - expected) ** 2 / np.maximum(expected, 1e-9))[keep].sum(), keep.sum() - 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [1, 5])
def test_law_of_one_transition(mode, seed):
    """From a fixed state: next queues by the resolvent of the immigration-death chain, time Exp, customer type independent."""
    instance, rows = random_instance(seed, n=2, m=3), 200_000
    start, ghosts = np.array([3, 1]), np.array([2, 4]) if mode == "synchronised" else None
    env = rows_in_state(instance, start, rows, mode, ghosts=ghosts)
    env.step(np.full(rows, instance.n_suppliers))
    queues, times, customers = env.state.queue.copy(), env.state.elapsed_time.copy(), env.state.customer.copy()

    box = box_of(instance, (25, 25))
    generator = box.generator(np.zeros((instance.n_customers, 2, box.size)))
    speed = instance.customer_rates.sum()
    initial = np.zeros(box.size)
    initial[np.flatnonzero((box.queues == start[:, None]).all(0))[0]] = speed
    law = spsolve((speed * identity(box.size) - generator).T.tocsc(), initial)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    counts = np.bincount(queues[:, 0] * 26 + queues[:, 1], minlength=box.size)
    assert chi_square(counts, rows * law) > LEVEL
    assert stats.kstest(times * speed, "expon").pvalue > LEVEL
    types = np.bincount(customers, minlength=instance.n_customers)
    assert chi_square(types, rows * instance.customer_rates / speed) > LEVEL
    table = np.array([np.bincount(customers[queues.sum(1) == total], minlength=3) for total in range(2, 7)])
    assert stats.chi2_contingency(table[table.sum(1) > 100]).pvalue > LEVEL


def test_transition_test_has_power():
    """The same test sees a departure rate that is 3 % off."""
    instance, rows = random_instance(1, n=2, m=3), 200_000
    env = rows_in_state(instance, [3, 1], rows, "events")
    params = MODEL.params(env.instance, "empty", False)
    env._params = pack(params._replace(departure_rates=params.departure_rates * 1.03))
    env.state.departure_rate[:] *= 1.03
    env.step(np.full(rows, 2))
    box = box_of(instance, (25, 25))
    speed, initial = instance.customer_rates.sum(), np.zeros(box.size)
    initial[np.flatnonzero((box.queues == [[3], [1]]).all(0))[0]] = speed
    law = spsolve((speed * identity(box.size) - box.generator(np.zeros((3, 2, box.size)))).T.tocsc(), initial)
    counts = np.bincount(env.state.queue[:, 0] * 26 + env.state.queue[:, 1], minlength=box.size)
    assert chi_square(counts, rows * law) < LEVEL


@pytest.mark.parametrize("mode", ["events", "synchronised", "jump"])
def test_long_run_law_under_a_policy(mode):
    """Time spent in each state under reward-greedy, against the exact stationary law seen by customers (PASTA)."""
    from matchgym.bounds.chain import improve, stationary_law

    instance, rows = random_instance(2, n=2, m=2, zeros=0.0), 20_000
    box = box_of(instance, (20, 20))
    greedy = improve(box, np.zeros(box.size), None)
    law = stationary_law(box.generator(match_law(box, greedy)))
    env = rows_in_state(instance, [0, 0], rows, mode, seed=3)
    for _ in range(60):
        states = np.minimum(env.state.queue, 20) @ [21, 1]
        env.step(greedy[env.state.customer, states])
    counts = np.bincount(np.minimum(env.state.queue, 20) @ [21, 1], minlength=box.size)
    assert chi_square(counts, rows * law) > LEVEL


def test_match_by_hand():
    """A match earns r_ij, removes the supplier, and is reported; letting go earns nothing."""
    env = gym.make("StationaryMatching-v0", instance="demo").unwrapped
    env.reset(seed=1)
    env.state.queue[0], env.state.customer[0] = [2, 0], 2
    env.state.departure_rate[0] = 0.2
    assert env.instance.rewards[0, 2] == 8.0
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated) == (8.0, False, False)
    assert (env.state.last_supplier[0], env.state.last_customer[0]) == (0, 2)
    assert info["total_reward"] == 8.0
    assert env.state.queue[0, 0] >= 0
    env.state.queue[0] = [0, 1]
    assert env.step(0)[1] == 0.0
    assert env.step(2)[4]["invalid_actions"] == 1
    assert env.state.last_supplier[0] == -1


def test_departure_rate_follows_the_counts():
    """The running total of departure rates equals its definition, after many events, in both event modes."""
    for mode in ("events", "synchronised"):
        env = rows_in_state("random-10x10", np.zeros(10, int), 50, mode)
        infos = {"action_mask": env.action_masks()}
        for _ in range(2000):
            infos = env.step(infos["action_mask"].argmax(1))[4]
        total = (env.state.queue + env.state.ghosts) @ env.instance.departure_rates
        assert np.allclose(env.state.departure_rate, total, rtol=0, atol=1e-9)
        assert (env.state.queue >= 0).all()
        assert (env.state.ghosts >= 0).all()
        assert env.state.ghosts.any() == (mode == "synchronised")


def test_synchronised_policies_meet_the_same_customers():
    """Under one seed, whatever the policy: same customers, same times, and queues that differ by own matches only."""
    runs = []
    for idle in (True, False):
        env = StationaryMatchingVectorEnv("demo", num_envs=4, synchronised=True)
        _, infos = env.reset(seed=5)
        record = []
        for _ in range(500):
            actions = np.full(4, 2) if idle else infos["action_mask"].argmax(1)
            infos = env.step(actions)[4]
            record.append((env.state.customer.copy(), infos["elapsed_time"], (env.state.queue + env.state.ghosts)))
        runs.append(record)
    for idle, busy in zip(*runs):
        for a, b in zip(idle, busy):
            assert (a == b).all()


def test_starting_states():
    rows = 20_000
    empty = StationaryMatchingVectorEnv("demo", num_envs=rows)
    full = StationaryMatchingVectorEnv("demo", num_envs=rows, initial_state="stationary-unmatched")
    full.reset(seed=0)
    empty.reset(seed=0)
    assert empty.state.queue.sum() < full.state.queue.sum()
    for i, offered in enumerate(full.instance.offered):  # the law is stationary, so it still holds at the first customer
        counts = np.bincount(full.state.queue[:, i], minlength=60)
        assert chi_square(counts, rows * stats.poisson(offered).pmf(np.arange(len(counts)))) > LEVEL


def test_jumps_are_chosen_for_rare_customers():
    assert MODEL.params(MODEL.load("b1-100"), "empty", False).is_jumping == 1
    assert MODEL.params(MODEL.load("random-10x10"), "empty", False).is_jumping == 0


def test_golden_trajectory():
    """The first decisions on the demo instance under seed 0: a change here is a new SUITE_VERSION."""
    env = gym.make("StationaryMatching-v0")
    obs, info = env.reset(seed=0)
    record = [(obs.astype(int).tolist(), round(info["elapsed_time"], 6))]
    for _ in range(5):
        obs, reward, _, _, info = env.step(int(np.flatnonzero(info["action_mask"])[0]))
        record.append((obs.astype(int).tolist(), reward, round(info["elapsed_time"], 6)))
    assert record == GOLDEN


GOLDEN = [
    ([1, 1, 0, 1, 0], 0.576307),
    ([0, 1, 1, 0, 0], 2.0, 0.774142),
    ([1, 0, 0, 1, 0], 0.6, 1.001523),
    ([0, 0, 1, 0, 0], 2.0, 1.024896),
    ([0, 0, 1, 0, 0], 0.0, 1.250767),
    ([0, 0, 0, 1, 0], 0.0, 1.259531),
]
