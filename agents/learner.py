"""Learners: Stable-Baselines3's algorithms on a native vector environment, and how to put one aside and take it up again.

Before training, a pilot run under random valid actions, or under the teacher where there is one, fixes the scaling of
observations (saved inside the network, `Standardise`) and of rewards (centred, so that values are differences from the average
and not sums of it).
"""

import io
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from matchgym.agents.average_reward import AverageRewardBuffer, AverageRewardMaskableBuffer
from matchgym.agents.extra import BaseAlgorithm, OffPolicyAlgorithm, torch
from matchgym.agents.imitation import Demonstration, demonstrate, imitate
from matchgym.agents.networks import (
    SEATED,
    SharedMaskablePolicy,
    SharedPolicy,
    Standardise,
    WideMaskablePolicy,
    WidePolicy,
    pairs_of,
)
from matchgym.agents.policy import CLASSES
from matchgym.agents.sb3 import SB3VecEnv, episode_length
from matchgym.baselines.policy import Policy
from matchgym.envs.instance import InputError

LSTM = "_last_lstm_states"  # of RecurrentPPO: what its rows remember


def spread_seed(seed: int, purpose: int) -> int:
    """A seed far from `seed` and from those of other purposes, for row 0 of a vector environment."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint32)[0]) + 2**32


class Scaling(NamedTuple):
    """Fixed numbers from the pilot run."""

    observation_shift: list[float]  # obs_dim
    observation_scale: list[float]  # obs_dim
    reward_shift: float
    reward_scale: float


def scaling_of(shown: Demonstration, groups: Sequence[NDArray[np.int64]] = ()) -> Scaling:
    """Means and standard deviations of observations and rewards in a demonstration, common to the observations of a group.

    Where episodes terminate, rewards are not centred: that would reward or punish the length of an episode.
    """
    observations = shown.observations.reshape(-1, shown.observations.shape[2]).astype(np.float64)
    mean, deviation, spread = observations.mean(axis=0), observations.std(axis=0), float(np.std(shown.rewards))
    for group in groups:
        deviation[group] = observations[:, group].std()
        mean[group] = mean[group].mean()
    return Scaling(
        mean.tolist(),
        np.where(deviation > 1e-6, deviation, 1.0).tolist(),
        0.0 if shown.may_terminate else float(np.mean(shown.rewards)),
        spread if spread > 1e-9 else 1.0,
    )


class LinearDecay:
    """Learning rate `start`, falling linearly to `start * end_share` over the training."""

    def __init__(self, start: float, end_share: float) -> None:
        self.start, self.end_share = start, end_share

    def __call__(self, remaining: float) -> float:
        return self.start * (self.end_share + (1 - self.end_share) * remaining)


# The actions that an algorithm is for, and another algorithm for the rest; those that are not named here take all.
CHOICES = "whose actions are choices", (gym.spaces.Discrete, gym.spaces.MultiDiscrete), "ppo"
ONE_CHOICE = "with one choice per decision", (gym.spaces.Discrete,), "ppo"
NUMBERS = "whose actions are numbers", (gym.spaces.Box,), "maskable_ppo"
ACTIONS = {"maskable_ppo": CHOICES, "dqn": ONE_CHOICE, "qrdqn": ONE_CHOICE, "sac": NUMBERS, "tqc": NUMBERS}
WIDE = {"maskable_ppo": WideMaskablePolicy, "ppo": WidePolicy, "a2c": WidePolicy}
DIFFERENTIAL = {"maskable_ppo": AverageRewardMaskableBuffer, "ppo": AverageRewardBuffer, "a2c": AverageRewardBuffer}
SHARED = {"maskable_ppo": SharedMaskablePolicy, "ppo": SharedPolicy, "a2c": SharedPolicy}
OWN = (
    "n_envs",
    "endless",
    "net_arch",
    "activation",
    "scale_rewards",
    "learning_rate",
    "learning_rate_end",
    "wide",
    "average_reward",
    "log_std",
    "saturate",
    "shared",
)


def check_actions(algo: str, space: gym.Space[Any]) -> None:
    """InputError if an algorithm is not for an environment's actions."""
    wanted, kinds, other = ACTIONS.get(algo, ("", (gym.Space,), ""))
    if not isinstance(space, kinds):
        raise InputError(f"algo {algo} needs an environment {wanted}; choose {other}.")


def _training_env(native: VectorEnv, reward_shift: float, reward_scale: float) -> SB3VecEnv:
    """What learners learn on: where episodes end by themselves, rows start one after another."""
    return SB3VecEnv(native, reward_shift, reward_scale, is_spread=episode_length(native) > 0)


def build(algo: str, native: VectorEnv, table: Mapping[str, Any], seed: int, teacher: Policy | None = None) -> BaseAlgorithm:
    """A new learner on a native vector environment, after a pilot run there; it knows what `teacher` knows."""
    check_actions(algo, native.single_action_space)
    if teacher is not None and algo not in WIDE:
        raise InputError(f"algo {algo} cannot imitate; choose one of {', '.join(WIDE)}.")
    if table.get("average_reward") and episode_length(native):
        raise InputError("average_reward is for tasks that go on for ever; here episodes end by themselves.")
    pilot_seed = spread_seed(seed, 0)
    if teacher is None:
        shown = demonstrate(native, None, pilot_seed, 100, 200)
    else:
        shown = demonstrate(native, teacher, pilot_seed, 200, max(400, math.ceil(4.0 / (1.0 - table["gamma"]))))
    base: Any = native.unwrapped
    pairs = None
    if table.get("shared"):
        pairs = pairs_of(base.spec.id, base.observation_layout, native.single_action_space, 1 + len(table["saturate"]))
    alike = pairs.alike(shown.observations.shape[2]) if pairs is not None and base.spec.id in SEATED else ()
    scaling = scaling_of(shown, alike)
    shift, scale = (scaling.reward_shift, scaling.reward_scale) if table["scale_rewards"] else (0.0, 1.0)
    network: dict[str, Any] = {
        "features_extractor_class": Standardise,
        "features_extractor_kwargs": {
            "shift": scaling.observation_shift,
            "scale": scaling.observation_scale,
            "saturate": list(table["saturate"]),
        },
        "net_arch": list(table["net_arch"]),
        "activation_fn": {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[table["activation"]],
    }
    if isinstance(native.single_action_space, gym.spaces.Box) and "log_std" in table:
        network["log_std_init"] = table["log_std"]
    kind: Any = WIDE[algo] if table.get("wide") else "MlpLstmPolicy" if algo == "recurrent_ppo" else "MlpPolicy"
    if pairs is not None:
        network["shared"] = {**pairs._asdict(), "width": table["shared"]}
        kind = SHARED[algo]
    parameters = {name: value for name, value in table.items() if name not in OWN}
    if table.get("average_reward"):
        parameters |= {"gamma": 1.0, "rollout_buffer_class": DIFFERENTIAL[algo]}
    model = CLASSES[algo](
        kind,
        _training_env(native, shift, scale),
        learning_rate=LinearDecay(table["learning_rate"], table["learning_rate_end"]),
        policy_kwargs=network,
        seed=seed,
        device="cpu",
        **parameters,
    )
    if teacher is not None:
        imitate(model, shown, table["gamma"], shift, scale, pilot_seed)
    return model


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
        "memory": getattr(model, LSTM, None),  # which the library does not save
    }


def restore(saved: Mapping[str, Any], algo: str, native: VectorEnv, seed: int) -> BaseAlgorithm:
    """The learner of a snapshot; `native` is used where the snapshot holds no environment."""
    is_interrupted = saved["env"] is None
    env = _training_env(native, *saved["rewards"]) if is_interrupted else saved["env"]
    model = CLASSES[algo].load(io.BytesIO(saved["model"]), env=env, device="cpu", force_reset=is_interrupted)
    if is_interrupted:
        env.seed(spread_seed(seed, 3 + model.num_timesteps))
    else:
        env._reset_seeds()  # loading has asked for a new start from the seed; the streams go on instead
        if saved["memory"] is not None:
            setattr(model, LSTM, saved["memory"])
    if isinstance(model, OffPolicyAlgorithm):
        model.replay_buffer = saved["replay"]
    torch_state, numpy_state, python_state = saved["streams"]
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    random.setstate(python_state)
    model.action_space.np_random.bit_generator.state = saved["exploration"]
    return model
