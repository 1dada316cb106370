"""The Stable-Baselines3 adapter against the environments it wraps."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("sb3_contrib")

from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize

import matchgym  # noqa: F401
from matchgym.agents import SB3VecEnv, make_native
from matchgym.envs.instance import InputError
from matchgym.envs.registry import ENTRIES

ID = "StationaryMatching-v0"
IDS = [entry.id for entry in ENTRIES]


def adapter(rows: int = 4, limit: int = 7, env_id: str = ID, **arguments) -> SB3VecEnv:
    return SB3VecEnv(make_native(env_id, None, rows, limit), **arguments)


def random_actions(env: SB3VecEnv, rng: np.random.Generator) -> np.ndarray:
    """Any action, valid or not."""
    return np.array([env.action_space.sample() for _ in range(env.num_envs)])


@pytest.mark.parametrize("env_id", IDS)
def test_rows_repeat_the_single_environment(env_id: str) -> None:
    """Observations, rewards, masks, ends and what the infos say of them, against `gym.make` under the same seeds."""
    env = adapter(env_id=env_id)
    singles = [gym.make(env_id, max_episode_steps=7) for _ in range(env.num_envs)]
    env.action_space.seed(3)
    env.seed(11)
    obs = env.reset()
    for b, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=11 + b)[0], obs[b])
    returns = np.zeros(env.num_envs)
    for step in range(1, 23):
        masks = get_action_masks(env)
        actions = random_actions(env, np.random.default_rng(step))
        for b, single in enumerate(singles):
            np.testing.assert_array_equal(masks[b], single.get_wrapper_attr("action_masks")())
        obs, rewards, dones, infos = env.step(actions)
        assert obs.dtype == rewards.dtype == np.float32
        assert dones.dtype == np.bool_
        for b, single in enumerate(singles):
            single_obs, reward, terminated, truncated, info = single.step(actions[b])
            returns[b] += reward
            assert rewards[b] == np.float32(reward)
            assert dones[b] == (terminated or truncated)
            if not dones[b]:
                assert infos[b] == {}
                np.testing.assert_array_equal(obs[b], single_obs)
                continue
            np.testing.assert_array_equal(infos[b]["terminal_observation"], single_obs)
            assert infos[b]["TimeLimit.truncated"] is (truncated and not terminated)
            assert infos[b]["episode"]["r"] == pytest.approx(returns[b], abs=1e-5)
            assert infos[b]["episode"]["l"] == (step - 1) % 7 + 1 or terminated
            assert infos[b]["invalid_actions"] == info["invalid_actions"]
            returns[b] = 0.0
            np.testing.assert_array_equal(obs[b], single.reset()[0])
    env.close()


def test_an_episode_that_has_ended_lends_its_arrays_to_nobody() -> None:
    env = adapter(limit=1)
    env.reset()
    _, _, _, infos = env.step(np.zeros(4, np.int64))
    kept = infos[0]["terminal_observation"].copy()
    for _ in range(5):
        obs, *_ = env.step(np.zeros(4, np.int64))
        assert not np.shares_memory(obs, infos[0]["terminal_observation"])
    np.testing.assert_array_equal(infos[0]["terminal_observation"], kept)


def test_what_a_caller_writes_into_infos_does_not_come_back() -> None:
    env = adapter()
    env.reset()
    _, _, _, first = env.step(np.zeros(4, np.int64))
    first[1]["mine"] = 1
    _, _, _, second = env.step(np.zeros(4, np.int64))
    assert second == [{}] * 4
    assert first[1] == {"mine": 1}


def test_seeds_hold_for_one_reset() -> None:
    env = adapter()
    assert env.seed(5) == [5, 6, 7, 8]
    first, second = env.reset(), env.reset()
    env.seed(5)
    np.testing.assert_array_equal(env.reset(), first)
    np.testing.assert_array_equal(env.reset(), second)


def test_masks_attributes_and_methods() -> None:
    env = adapter()
    env.seed(0)
    env.reset()
    assert is_masking_supported(env)
    for _ in range(5):
        env.step(random_actions(env, np.random.default_rng(0)))
    np.testing.assert_array_equal(get_action_masks(env), env.native.action_masks())
    np.testing.assert_array_equal(env.env_method("action_masks", indices=[2])[0], env.native.action_masks()[2])
    np.testing.assert_array_equal(env.get_attr("action_masks", 1)[0](), env.native.action_masks()[1])
    assert not env.has_attr("no_such_attribute")
    assert len(env.get_attr("instance")) == 4
    assert len(env.get_attr("instance", [0, 2])) == 2
    with pytest.raises(AttributeError, match="no_such_attribute"):
        env.get_attr("no_such_attribute")
    with pytest.raises(AttributeError, match="shuffle"):
        env.env_method("shuffle")
    env.set_attr("colour", "blue")
    assert env.get_attr("colour") == ["blue"] * 4
    with pytest.raises(ValueError, match="colour"):
        env.set_attr("colour", "red", indices=0)
    assert env.env_is_wrapped(Monitor) == [True] * 4
    assert env.env_is_wrapped(gym.wrappers.TimeLimit, 0) == [False]


def test_reward_scaling_leaves_the_episode_report_alone() -> None:
    plain, scaled = adapter(), adapter(reward_shift=2.0, reward_scale=4.0)
    for env in (plain, scaled):
        env.seed(0)
        env.reset()
    for _ in range(7):
        actions = np.array([mask.argmax() for mask in plain.env_method("action_masks")])
        (_, rewards, dones, infos), (_, learned, _, scaled_infos) = plain.step(actions), scaled.step(actions)
        np.testing.assert_allclose(learned, (rewards - 2) / 4, rtol=1e-6)
    assert dones.all()
    assert [info["episode"]["r"] for info in infos] == [info["episode"]["r"] for info in scaled_infos]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode: AutoresetMode) -> None:
    with pytest.raises(InputError, match="autoreset_mode"):
        SB3VecEnv(gym.make_vec(ID, num_envs=2, autoreset_mode=mode))


def test_pickle_goes_on_with_the_same_future() -> None:
    env = adapter()
    env.seed(0)
    env.reset()
    env.step(np.zeros(4, np.int64))
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(20):
        (obs, rewards, *_), (twin_obs, twin_rewards, *_) = (
            env.step(np.ones(4, int)),
            twin.step(np.ones(4, int)),
        )
        np.testing.assert_array_equal(obs, twin_obs)
        np.testing.assert_array_equal(rewards, twin_rewards)


def test_maskable_ppo_never_takes_an_invalid_action() -> None:
    env = adapter(rows=16, limit=-1)
    model = MaskablePPO("MlpPolicy", env, n_steps=32, batch_size=256, n_epochs=1, seed=0, device="cpu")
    model.learn(2048)
    assert env.native.unwrapped.state.decisions.sum() >= 2048
    assert env.native.unwrapped.state.invalid_actions.sum() == 0


def test_tools_of_stable_baselines_accept_it() -> None:
    """`evaluate_policy` finds the episodes without a Monitor, and VecNormalize wraps the adapter."""
    env = VecNormalize(adapter(rows=4, limit=20))
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(128)
    assert len(model.ep_info_buffer) > 0
    returns, lengths = evaluate_policy(model, adapter(rows=4, limit=20), 8, return_episode_rewards=True)
    assert lengths == [20] * 8
    assert np.isfinite(returns).all()
