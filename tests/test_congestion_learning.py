"""The dynamics of CongestionLearning-v0: queues, learning and rewards against a plain account, laws, synchronisation."""

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

from matchgym.envs.catalogues.congestion_learning import random_platform
from matchgym.envs.congestion_instances import CongestionLearningInstance, clipped_mean
from matchgym.envs.congestion_learning import CongestionLearningVectorEnv
from matchgym.envs.instance import InputError
from matchgym.envs.rng import seed_words
from matchgym.envs.slotted_queues import LAWS, arrivals_kernel, largest_total, pmf, trials_of


def platform(**fields):
    given = {"arrival_rates": [0.7, 0.9], "n_servers": 3, "rewards": [[0.2, 0.5, 0.8], [0.6, 0.1, 0.9]], "horizon": 60}
    return CongestionLearningInstance(**(given | fields))


def parts(env, obs):
    return {name: obs[part] for name, part in env.unwrapped.observation_layout.items()}


@pytest.mark.parametrize("action", ["server", "job"])
@pytest.mark.parametrize("capacity", [[1, 1, 1], [2, 1, 3]])
def test_against_a_plain_account(action, capacity):
    """(1), (2), first come first served, h and rbar, waits and queue sums, with rewards that are certain."""
    instance = platform(rewards=[[0, 1, 0], [1, 0, 1]], service_rates=capacity, arrival_rates=[2.0, 1.5]).to_dict()
    env = gym.make("CongestionLearning-v0", instance=instance, action=action)
    rng = np.random.default_rng(0)
    for episode in range(3):
        obs, info = env.reset(seed=episode)
        state, queues = env.unwrapped.state, [deque() for _ in range(3)]
        h, w, waits, queue_sum, collected, done, slot = (
            np.zeros((2, 3)),
            np.zeros((2, 3)),
            np.zeros(2),
            np.zeros(3),
            0.0,
            False,
            0,
        )
        while not done:
            seen = parts(env, obs)
            slot = round(float(seen["time"][0]) * 60)
            np.testing.assert_array_equal(seen["queue"], [len(queue) for queue in queues])
            pending = [[sum(kind == i for kind, _ in queue) for queue in queues] for i in range(2)]
            np.testing.assert_array_equal(seen["pending"].reshape(2, 3), pending)
            np.testing.assert_array_equal(seen["served"].reshape(2, 3), h)
            np.testing.assert_array_equal(seen["mean"].reshape(2, 3), w / np.maximum(h, 1))
            jobs = seen["arrivals"].astype(int)
            if action == "server":
                choice = rng.integers(3, size=2)
                for i in range(2):
                    queues[choice[i]].extend([(i, slot)] * jobs[i])
            else:
                choice = rng.integers(3)
                queues[choice].append((int(np.flatnonzero(jobs)[0]), slot))
            obs, reward, done, _, info = env.step(choice)
            earned, after = 0.0, round(float(obs[-1]) * 60)
            for served_in in range(slot, after):
                for j in range(3):
                    for _ in range(min(capacity[j], len(queues[j]))):
                        kind, arrived = queues[j].popleft()
                        x = float((kind == 0) == (j == 1))
                        h[kind, j], w[kind, j] = h[kind, j] + 1, w[kind, j] + x
                        waits[kind] += served_in - arrived
                        earned += x
                    queue_sum[j] += len(queues[j])
            assert reward == earned
            collected += earned
        assert info["elapsed_time"] == 60
        assert info["total_reward"] == info["expected_reward"] == collected
        np.testing.assert_array_equal(state.waiting_time[0], waits)
        np.testing.assert_array_equal(state.queue_time[0], queue_sum)
        assert state.jobs[0] == state.served[0].sum() + state.queue[0].sum()
        # After the end nothing happens.
        assert env.unwrapped.step(choice)[1:3] == (0.0, True)


def test_probabilities_of_zero_and_one_are_servers():
    """One-hot weights earn what the servers they name earn, whatever their scale."""
    rng = np.random.default_rng(1)
    one, two = (gym.make("CongestionLearning-v0", instance=platform().to_dict(), action=a) for a in ("server", "probabilities"))
    obs, twin = one.reset(seed=3)[0], two.reset(seed=3)[0]
    for _ in range(60):
        assert (obs == twin).all()
        choice = rng.integers(3, size=2)
        obs, reward, *_ = one.step(choice)
        twin, twin_reward, *_ = two.step((choice[:, None] == np.arange(3)) * rng.uniform(0.1, 5))
        assert reward == twin_reward


def test_weights_are_probabilities():
    """Jobs go to servers in proportion to their weights (chi-square, level 1e-4), never to one that may not take them."""
    instance = platform(compatibility=[[1, 1, 1], [0, 1, 1]], horizon=40_000, arrival_rates=[0.8, 0.6])
    env = gym.make("CongestionLearning-v0", instance=instance.to_dict(), action="probabilities")
    env.reset(seed=0)
    weights = np.array([[0.2, 0.5, 0.3], [7.0, 0.3, 0.1]])
    done = False
    while not done:
        *_, done, _, info = env.step(weights)
    state = env.unwrapped.state
    sent = (state.served[0] + state.pending[0]).reshape(2, 3)
    assert sent[1, 0] == 0
    assert info["invalid_actions"] == 0
    assert stats.chisquare(sent[0], sent[0].sum() * weights[0]).pvalue > 1e-4
    assert stats.chisquare(sent[1, 1:], sent[1].sum() * np.array([0.75, 0.25])).pvalue > 1e-4


def test_invalid_parts_turn_jobs_away():
    instance = platform(compatibility=[[1, 1, 1], [0, 1, 1]]).to_dict()
    env = gym.make("CongestionLearning-v0", instance=instance)
    obs, info = env.reset(seed=5)
    assert info["action_mask"].tolist() == [1, 1, 1, 0, 1, 1]
    jobs = parts(env, obs)["arrivals"]
    obs, _, _, _, info = env.step(np.array([1, 0]))
    assert info["invalid_actions"] == 1
    assert info["turned_away"] == jobs[1]
    done = False
    while not done:
        *_, done, _, info = env.step(np.array([2, 0]))
    state = env.unwrapped.state
    assert state.jobs[0] == state.served[0].sum() + state.queue[0].sum() + state.turned_away[0]
    env = gym.make("CongestionLearning-v0", instance=instance, action="job")
    obs, info = env.reset(seed=5)
    for _ in range(40):
        kind = int(np.flatnonzero(parts(env, obs)["arrivals"])[0])
        assert info["action_mask"].tolist() == [1 - kind, 1, 1]
        obs, *_, info = env.step(2)


@pytest.mark.parametrize("law", LAWS)
def test_arrival_laws(law):
    """The sampler, the tabulated law and scipy's agree (chi-square, level 1e-4), and no episode outgrows its row."""
    number = LAWS.index(law)
    for mean in (1.2, 2.3, 14.0):
        trials = int(trials_of(np.array([mean]), 0.1)[0])
        scipy_law = {
            "poisson": stats.poisson(mean),
            "geometric": stats.geom(1 / (1 + mean), loc=-1),
            "shifted-geometric": stats.geom(1 / mean),
            "binomial": stats.binom(trials, mean / trials),
        }[law]
        table = pmf(number, mean, trials, 1e-15)
        np.testing.assert_allclose(table, scipy_law.pmf(np.arange(len(table))), rtol=1e-9, atol=1e-16)
        assert scipy_law.sf(len(table) - 1) < 1e-13
        stream = np.array([seed_words(3)])
        counts = np.bincount([arrivals_kernel(stream, 0, number, mean, trials) for _ in range(20_000)], minlength=len(table))
        likely = table * 20_000 >= 5
        expected = np.append(table[likely], 1 - table[likely].sum()) * 20_000
        found = np.append(counts[: len(table)][likely], 20_000 - counts[: len(table)][likely].sum())
        if likely.sum() > 1:
            assert stats.chisquare(found[expected > 0], expected[expected > 0]).pvalue > 1e-4
        limit = largest_total(number, np.array([mean]), np.array([trials]), 50)
        total = {
            "poisson": stats.poisson(50 * mean),
            "geometric": stats.nbinom(50, 1 / (1 + mean)),
            "shifted-geometric": stats.nbinom(50, 1 / mean, loc=50),
            "binomial": stats.binom(50 * trials, mean / trials),
        }[law]
        assert total.sf(limit) < 1e-18
        assert limit < 50 * mean + 40 * np.sqrt(50 * mean * (1 + mean)) + 50


def test_law_of_rewards_and_capacities():
    """Bernoulli, clipped noise, Bernoulli service of a fractional rate: means within 4.5 standard errors."""
    for noise, r in ((0.1, 0.95), (0.5, 0.3), (0.5, 0.9), (0.9, 0.5)):
        u = r + noise * (2 * (np.arange(1_000_000) + 0.5) / 1_000_000 - 1)
        assert clipped_mean(r, noise, 1.0) == pytest.approx(np.clip(u, 0, 1).mean(), abs=1e-9)
    instance = platform(
        rewards=[[0.9]],
        n_servers=1,
        arrival_rates=[3.0],
        service_rates=[1.3],
        reward_law="uniform_noise",
        noise=0.5,
        horizon=20_000,
    )
    env = gym.make("CongestionLearning-v0", instance=instance.to_dict())
    env.reset(seed=0)
    done = False
    while not done:
        *_, done, _, info = env.step(np.array([0]))
    served = env.unwrapped.state.served[0, 0]
    assert abs(served - 1.3 * 20_000) < 4.5 * np.sqrt(0.21 * 20_000) + 5
    assert info["expected_reward"] == pytest.approx(served * clipped_mean(0.9, 0.5, 1.0))
    assert abs(info["total_reward"] - info["expected_reward"]) < 4.5 * 0.5 * np.sqrt(served)
    assert env.unwrapped.state.mean[0, 0] == pytest.approx(info["total_reward"] / served, rel=1e-12)


def test_littles_law():
    """Pathwise, with every job served: the sum of the queue lengths is the sum of the waits."""
    instance = platform(horizon=3000, arrival_rates=[0.9, 0.9], arrival_law="binomial").to_dict()
    env = gym.make("CongestionLearning-v0", instance=instance)
    env.reset(seed=1)
    state = env.unwrapped.state
    done = False
    while not done:
        shortest = np.argsort(state.queue[0])
        *_, done, _, _ = env.step(shortest[:2])
    jobs_left = state.queue[0].sum()
    assert state.queue_time[0].sum() >= state.waiting_time[0].sum()
    assert state.queue_time[0].sum() - state.waiting_time[0].sum() <= jobs_left * 100
    assert state.queue_time[0].sum() == pytest.approx(state.waiting_time[0].sum(), rel=0.01)


def test_common_random_numbers():
    """Hidden rewards and arrivals do not depend on the policy, the kind of action or the reward that is paid."""
    seen = []
    for options in ({}, {"action": "probabilities"}, {"reward": "expected"}, {"known_rewards": True}):
        env = gym.make("CongestionLearning-v0", **options)
        env.action_space.seed(len(seen))
        obs, _ = env.reset(seed=9)
        arrivals = [parts(env, obs)["arrivals"].tolist()]
        for _ in range(200):
            obs, *_ = env.step(env.action_space.sample())
            arrivals.append(parts(env, obs)["arrivals"].tolist())
        seen.append((arrivals, env.unwrapped.state.rewards[0].tolist()))
        if "rewards" in parts(env, obs):
            np.testing.assert_allclose(parts(env, obs)["rewards"], seen[-1][1], rtol=1e-6)
    assert all(each == seen[0] for each in seen)
    env.reset()
    assert env.unwrapped.state.rewards[0].tolist() != seen[0][1]


def test_full_mask_and_unit_capacities_change_nothing():
    plain = platform()
    same = platform(compatibility=np.ones((2, 3), int), service_rates=[1, 1, 1])
    assert same.sha256 == plain.sha256
    assert platform(compatibility=[[True] * 3] * 2) == plain


def test_episodes_end_and_start_anew():
    """A vector of short episodes: terminated at the horizon, never truncated, and nothing is carried over."""
    instance = platform(horizon=7)
    env = CongestionLearningVectorEnv(instance, num_envs=4, autoreset_mode="SameStep")
    env.reset(seed=0)
    for k in range(1, 29):
        obs, _, terminated, truncated, infos = env.step(np.zeros((4, 2), int))
        assert (terminated == (k % 7 == 0)).all()
        assert not truncated.any()
        if k % 7 == 0:
            assert (infos["elapsed_time"] == 0).all()
            assert (obs[:, env.observation_layout["queue"]] == 0).all()
            assert (infos["final_info"]["elapsed_time"] == 7).all()


def test_slots_without_jobs_pass_by_themselves():
    """action="job": every decision has a job, also at the start, and an episode without jobs ends at its first step."""
    env = gym.make("CongestionLearning-v0", instance=platform(arrival_rates=[0.02, 0.0], horizon=50).to_dict(), action="job")
    empty = 0
    for seed in range(30):
        obs, _ = env.reset(seed=seed)
        done = False
        while not done:
            jobs = parts(env, obs)["arrivals"].sum()
            empty += jobs == 0
            assert jobs == 1 or obs[-1] == 1.0
            obs, _, done, _, info = env.step(1)
        assert info["elapsed_time"] == 50
    assert empty > 0


def test_instances_are_checked():
    for fields, word in (
        ({"arrival_rates": [0.0, 0.0]}, "arrival_rates"),
        ({"n_servers": 0}, "n_servers"),
        ({"n_servers": 2}, "rewards"),
        ({"rewards": [[0.2, 0.5, 1.8], [0.6, 0.1, 0.9]]}, "bernoulli"),
        ({"service_rates": [1, 0, 1]}, "service_rates"),
        ({"compatibility": [[0, 0, 0], [1, 1, 1]]}, r"compatibility\[0\]"),
        ({"compatibility": [[0, 2, 0], [1, 1, 1]]}, "compatibility"),
        ({"compatibility": "all"}, "compatibility"),
        ({"arrival_law": "normal"}, "arrival_law"),
        ({"arrival_law": "shifted-geometric"}, "shifted-geometric"),
        ({"arrival_success": 0}, "arrival_success"),
        ({"reward_law": "beta"}, "reward_law"),
        ({"noise": 0.1}, "noise"),
        ({"noise": -0.1, "reward_law": "uniform_noise"}, "noise"),
        ({"noise": "1", "reward_law": "uniform_noise"}, "noise"),
        ({"reward_cap": 0.5}, "reward_cap"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 2.5}, "horizon"),
    ):
        with pytest.raises(InputError, match=word):
            platform(**fields)
    healthcare = platform(rewards=[[100, 400, 30], [20, 50, 60]], reward_law="uniform_noise", noise=5)
    assert healthcare.reward_cap == 405
    assert CongestionLearningInstance.from_dict(healthcare.to_dict()) == healthcare
    assert platform().most_jobs < 60 * 1.6 + 40 * np.sqrt(60 * 1.6)


def test_random_platforms_are_reproducible():
    assert random_platform(3, 5, seed=1) == random_platform(3, 5, seed=1)
    assert CongestionLearningInstance.from_dict(random_platform(3, 5, seed=2, load=0.7)).load == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["toy", "tables", "healthcare", "random-20x200"])
@pytest.mark.parametrize("bound", [None, 3.15])
def test_pictures_and_texts(name, bound):
    """At most 80 columns and one size of picture, whatever the platform; the picture changes with the state."""
    for mode in ("ansi", "rgb_array"):
        env = gym.make("CongestionLearning-v0", instance=name, render_mode=mode)
        env.action_space.seed(0)
        env.reset(seed=0)
        env.unwrapped.bound = bound
        start = env.render()
        for _ in range(30):
            env.step(env.action_space.sample())
        shown = env.render()
        if mode == "ansi":
            assert max(map(len, shown.split("\n"))) <= 80
            assert "slot 30" in shown
            assert ("bound" in shown) == (bound is not None)
        else:
            assert shown.shape == (480, 720, 3)
            assert shown.dtype == np.uint8
            assert (shown != start).any()
