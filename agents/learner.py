"""Learners: Stable-Baselines3's algorithms on a native vector environment, and how to put one aside and take it up again.

Before training, a pilot run under random valid actions fixes the scaling of observations (saved inside the network,
`Standardise`) and of rewards (centred, so that values are differences from the average and not sums of it).
"""

import io
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from matchgym.agents.extra import BaseAlgorithm, OffPolicyAlgorithm, torch
from matchgym.agents.policy import CLASSES, Standardise
from matchgym.agents.sb3 import SB3VecEnv
from matchgym.envs.instance import InputError


def spread_seed(seed: int, purpose: int) -> int:
    """A seed far from `seed` and from those of other purposes, for row 0 of a vector environment."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint32)[0]) + 2**32


class Scaling(NamedTuple):
    """Fixed numbers from the pilot run."""

    observation_shift: list[float]  # obs_dim
    observation_scale: list[float]  # obs_dim
    reward_shift: float
    reward_scale: float


def pilot(native: VectorEnv, seed: int, warmup: int = 100, decisions: int = 200) -> Scaling:
    """Means and standard deviations of observations and rewards under uniformly random valid actions.

    Where episodes terminate, rewards are not centred: that would reward or punish the length of an episode.
    """
    rng = np.random.default_rng(seed)
    native.action_space.seed(seed)
    obs, _ = native.reset(seed=seed)
    seen, rewards, may_terminate = [], [], False
    for decision in range(warmup + decisions):
        obs, reward, terminated, _, _ = native.step(_random_actions(native, rng))
        may_terminate = may_terminate or bool(terminated.any())
        if decision >= warmup:
            seen.append(obs)
            rewards.append(reward)
    observations = np.concatenate(seen).astype(np.float64)
    deviation = observations.std(axis=0)
    spread = float(np.std(rewards))
    return Scaling(
        observations.mean(axis=0).tolist(),
        np.where(deviation > 1e-6, deviation, 1.0).tolist(),
        0.0 if may_terminate else float(np.mean(rewards)),
        spread if spread > 1e-9 else 1.0,
    )


def _random_actions(native: VectorEnv, rng: np.random.Generator) -> NDArray[Any]:
    if isinstance(native.single_action_space, gym.spaces.Discrete) and hasattr(native.unwrapped, "action_masks"):
        mask = native.unwrapped.action_masks()
        return (rng.random(mask.shape) * mask).argmax(axis=1)
    return native.action_space.sample()


class LinearDecay:
    """Learning rate `start`, falling linearly to `start * end_share` over the training."""

    def __init__(self, start: float, end_share: float) -> None:
        self.start, self.end_share = start, end_share

    def __call__(self, remaining: float) -> float:
        return self.start * (self.end_share + (1 - self.end_share) * remaining)


def build(algo: str, native: VectorEnv, table: Mapping[str, Any], seed: int) -> BaseAlgorithm:
    """A new learner on a native vector environment, after a pilot run there."""
    if algo == "maskable_ppo" and not hasattr(native.unwrapped, "action_masks"):
        raise InputError("algo maskable_ppo needs an environment with action masks; choose ppo.")
    if algo == "maskable_ppo" and isinstance(native.single_action_space, gym.spaces.Box):
        raise InputError("algo maskable_ppo needs an environment whose actions are choices; choose ppo.")
    if algo == "dqn" and not isinstance(native.single_action_space, gym.spaces.Discrete):
        raise InputError("algo dqn needs an environment with a discrete action; choose ppo.")
    scaling = pilot(native, spread_seed(seed, 0))
    shift, scale = (scaling.reward_shift, scaling.reward_scale) if table["scale_rewards"] else (0.0, 1.0)
    own = ("n_envs", "net_arch", "activation", "scale_rewards", "learning_rate", "learning_rate_end")
    return CLASSES[algo](
        "MlpPolicy",
        SB3VecEnv(native, shift, scale),
        learning_rate=LinearDecay(table["learning_rate"], table["learning_rate_end"]),
        policy_kwargs={
            "features_extractor_class": Standardise,
            "features_extractor_kwargs": {
                "shift": scaling.observation_shift,
                "scale": scaling.observation_scale,
            },
            "net_arch": list(table["net_arch"]),
            "activation_fn": {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[table["activation"]],
        },
        seed=seed,
        device="cpu",
        **{name: value for name, value in table.items() if name not in own},
    )


def snapshot(model: BaseAlgorithm, is_interrupted: bool) -> dict[str, Any]:
    """All that a learner needs to go on: network, optimiser, environment, streams of random numbers, replay buffer.

    An interrupted learner is between two states, so its environment is left behind and a resumed one starts a
    new episode.
    """
    network = io.BytesIO()
    model.save(network)
    env = model.get_env()
    assert isinstance(env, SB3VecEnv)
    return {
        "model": network.getvalue(),
        "env": None if is_interrupted else env,
        "rewards": (env.reward_shift, env.reward_scale),
        # Stable-Baselines3 draws from the global streams.
        "streams": (torch.get_rng_state(), np.random.get_state(), random.getstate()),  # noqa: NPY002
        "exploration": model.action_space.np_random.bit_generator.state,
        "replay": model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else None,
    }


def restore(saved: Mapping[str, Any], algo: str, native: VectorEnv, seed: int) -> BaseAlgorithm:
    """The learner of a snapshot; `native` is used where the snapshot holds no environment."""
    is_interrupted = saved["env"] is None
    env = SB3VecEnv(native, *saved["rewards"]) if is_interrupted else saved["env"]
    model = CLASSES[algo].load(io.BytesIO(saved["model"]), env=env, device="cpu", force_reset=is_interrupted)
    if is_interrupted:
        env.seed(spread_seed(seed, 3 + model.num_timesteps))
    else:
        env._reset_seeds()  # loading has asked for a new start from the seed; the streams go on instead
    if isinstance(model, OffPolicyAlgorithm):
        model.replay_buffer = saved["replay"]
    torch_state, numpy_state, python_state = saved["streams"]
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    random.setstate(python_state)
    model.action_space.np_random.bit_generator.state = saved["exploration"]
    return model
