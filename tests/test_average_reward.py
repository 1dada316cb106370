"""Training for the mean reward per decision itself."""

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")

import gymnasium as gym

import matchgym  # noqa: F401
from matchgym.agents import Measurement, hyperparameters_for, make_native, train
from matchgym.agents.average_reward import AverageRewardBuffer
from matchgym.agents.extra import torch
from matchgym.agents.learner import build
from matchgym.bounds import stationary_matching as bounds
from matchgym.envs.instance import InputError

ID = "StationaryMatching-v0"


def test_differential_values_of_a_cycle_by_hand() -> None:
    """Rewards 3, 0, 0 in turn, of mean 1: up to the end of the cycle, 0, 2 and 1 less than the mean are still earned."""
    steps = 30
    buffer = AverageRewardBuffer(
        steps, gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2), "cpu", gae_lambda=1.0, gamma=1.0, n_envs=1
    )
    buffer.rewards[:, 0] = np.resize([3.0, 0.0, 0.0], steps)
    buffer.compute_returns_and_advantage(torch.zeros(1, 1), np.zeros(1))
    np.testing.assert_allclose(buffer.advantages[:, 0], np.resize([0.0, -2.0, -1.0], steps), atol=1e-5)
    np.testing.assert_allclose(buffer.returns[:, 0], np.resize([1.0, -1.0, 0.0], steps), atol=1e-5)


def test_values_that_are_right_already_have_no_advantage() -> None:
    """Of the same cycle, with any lambda: what the critic knows is not learnt again."""
    buffer = AverageRewardBuffer(
        30, gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2), "cpu", gae_lambda=0.9, gamma=1.0, n_envs=1
    )
    buffer.rewards[:, 0] = np.resize([3.0, 0.0, 0.0], 30)
    buffer.values[:, 0] = np.resize([1.0, -1.0, 0.0], 30)
    buffer.compute_returns_and_advantage(torch.ones(1, 1), np.zeros(1))
    np.testing.assert_allclose(buffer.advantages, 0.0, atol=1e-5)


def test_a_toy_is_learnt_almost_to_its_optimum(tmp_path) -> None:
    optimum = bounds.bound("toy", "optimum").certified_value
    params = {"average_reward": True, "endless": True, "n_envs": 64, "batch_size": 1024}
    measurement = Measurement(points=4, rows=64, decisions=500, final_decisions=2000)
    result = train(ID, "toy", "maskable_ppo", 80_000, 0, params, folder=tmp_path, measurement=measurement, progress=False)
    assert result.final.mean > 0.98 * optimum


def test_it_needs_tasks_without_end() -> None:
    with pytest.raises(InputError, match="set endless to true"):
        hyperparameters_for(ID, "ppo", {"average_reward": True})
    table = hyperparameters_for(
        "CongestionLearning-v0", "ppo", {"average_reward": True, "endless": True, "n_envs": 4, "batch_size": 64}
    )
    with pytest.raises(InputError, match="end by themselves"):
        build("ppo", make_native("CongestionLearning-v0", "random-3x5", 4), table, 0)
