"""Hyperparameters as data: one table per algorithm here, and in recipes.toml what environments and instances change in it.

The tasks go on for ever and are scored by their mean reward, so discounts are close to 1 (a horizon of 100
decisions and more) and ended episodes are truncations, whose value is bootstrapped. The native vector
environments are nearly free, so the tables are wide: many rows, short rollouts, large batches, few epochs.

Parameters that are not Stable-Baselines3's own:

- `n_envs`: rows of the native vector environment.
- `endless`: whether tasks that go on for ever are never truncated in training. Then, after a while, the states are those of
  the long run; else every episode starts anew.
- `net_arch`: widths of the hidden layers, for the policy and for the values.
- `activation`: "tanh" or "relu".
- `learning_rate_end`: the learning rate falls linearly from `learning_rate` to this share of it.
- `wide`: whether a linear path leads past the hidden layers of the actor, see `matchgym.agents.networks`.
- `saturate`: for every number c of it, networks are also shown x / (x + c) of each observed x.
- `shared`: where a column is chosen for every row (a server for every type of job), the width of a network whose weights all
  pairs of a row and a column share; 0 for none. Then `net_arch` is for the values only, and `wide` says nothing.
- `average_reward`: train for the mean reward per decision instead of a discounted sum, see `matchgym.agents.average_reward`;
  needs `endless`. Then `gamma` is only for the values that are copied from a teacher.
- `log_std`: where actions are numbers, the logarithm of their first standard deviation.
- `scale_rewards`: subtract the mean and divide by the standard deviation that rewards have under uniformly
  random valid actions. The best policy stays the best where episodes are only ever truncated.
"""

import json
import math
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matchgym.envs.instance import InputError, shorten, unknown
from matchgym.envs.registry import find

Values = Mapping[str, Any]

_SHARED: Values = {"endless": False, "net_arch": [64, 64], "activation": "tanh", "scale_rewards": True, "saturate": []}

_PPO: Values = {
    "n_envs": 256,
    "n_steps": 64,
    "batch_size": 2048,
    "n_epochs": 4,
    "learning_rate": 1e-3,
    "learning_rate_end": 0.02,
    "gamma": 0.99,
    "gae_lambda": 0.9,
    "clip_range": 0.2,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "log_std": -1.5,
    "wide": True,
    "shared": 0,
    "average_reward": False,
    **_SHARED,
}

_RECURRENT: Values = {
    **{name: value for name, value in _PPO.items() if name not in ("wide", "shared", "average_reward")},
    "n_envs": 64,
    "n_steps": 128,
}

_A2C: Values = {
    "n_envs": 256,
    "n_steps": 16,
    "learning_rate": 2e-3,
    "learning_rate_end": 0.02,
    "gamma": 0.99,
    "gae_lambda": 0.9,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "normalize_advantage": True,
    "log_std": -1.5,
    "wide": True,
    "shared": 0,
    "average_reward": False,
    **_SHARED,
}

_DQN: Values = {
    "n_envs": 64,
    "buffer_size": 200_000,
    "learning_starts": 10_000,
    "batch_size": 1024,
    "train_freq": 4,
    "gradient_steps": 4,
    "target_update_interval": 1_000,
    "learning_rate": 1e-3,
    "learning_rate_end": 0.02,
    "gamma": 0.99,
    "exploration_fraction": 0.3,
    "exploration_final_eps": 0.02,
    "max_grad_norm": 10.0,
    **_SHARED,
}

_SAC: Values = {
    "n_envs": 64,
    "buffer_size": 200_000,
    "learning_starts": 5_000,
    "batch_size": 512,
    "train_freq": 4,
    "gradient_steps": 4,
    "tau": 0.01,
    "learning_rate": 1e-3,
    "learning_rate_end": 0.02,
    "gamma": 0.99,
    **_SHARED,
    "activation": "relu",
}

ALGORITHMS: Mapping[str, Values] = MappingProxyType(
    {
        "maskable_ppo": _PPO,
        "ppo": _PPO,
        "recurrent_ppo": _RECURRENT,
        "a2c": _A2C,
        "dqn": _DQN,
        "qrdqn": _DQN,
        "sac": _SAC,
        "tqc": _SAC,
    }
)

# Environment steps of a training that is not told how many.
TIMESTEPS: Mapping[str, int] = MappingProxyType(
    {
        "maskable_ppo": 2_000_000,
        "ppo": 2_000_000,
        "recurrent_ppo": 500_000,
        "a2c": 2_000_000,
        "dqn": 1_000_000,
        "qrdqn": 500_000,
        "sac": 200_000,
        "tqc": 200_000,
    }
)

RECIPES = Path(__file__).with_name("recipes.toml")
NOT_PARAMETERS = ("timesteps", "imitate", "options")  # of the entries of a recipe


@cache
def _recipes() -> Mapping[str, Any]:
    return tomllib.loads(RECIPES.read_text())


def recipe_for(env_id: str, algo: str, instance: str) -> dict[str, Any]:
    """What recipes.toml says of an algorithm on an id and on the instance of that name there: parameters of the algorithm, and
    `timesteps`, `imitate` (a policy to start from) and `options` of the environment."""
    found = _recipes().get(find(env_id).id, {}).get(check_algorithm(algo), {})
    general = {name: value for name, value in found.items() if name in NOT_PARAMETERS or not isinstance(value, dict)}
    special = found.get(instance, {}) if instance not in NOT_PARAMETERS else {}
    return general | special


def preferred_algorithm(env_id: str, instance: str) -> str | None:
    """The algorithm that recipes.toml names for the instance of that name; None leaves it to the kind of action."""
    named = _recipes().get(find(env_id).id, {}).get("algo", {}).get(instance)
    return None if named is None else check_algorithm(named)


_SHARES = ("gamma", "gae_lambda", "learning_rate_end", "exploration_fraction", "exploration_final_eps")
_MAY_BE_ZERO = ("ent_coef", "learning_starts", "shared")
_LARGEST = {"n_envs": 65_536, "n_steps": 1_000_000, "buffer_size": 10_000_000, "shared": 256}  # of other integers: 10**9
MAX_ROLLOUT = 20_000_000  # n_envs x n_steps, the steps that PPO keeps in memory


def check_algorithm(algo: str) -> str:
    """`algo` itself; InputError if there is no such algorithm."""
    if not isinstance(algo, str) or algo not in ALGORITHMS:
        raise unknown("algorithm", algo, ALGORITHMS)
    return algo


def default_timesteps(env_id: str, algo: str, instance: str = "") -> int:
    """Environment steps of a training of the instance of this name with this algorithm."""
    return int(recipe_for(env_id, algo, instance).get("timesteps", TIMESTEPS[algo]))


def hyperparameters_for(env_id: str, algo: str, params: Mapping[str, Any] | None = None, instance: str = "") -> dict[str, Any]:
    """All parameters of an algorithm: its table, what recipes.toml changes for the id and the instance, then `params`.

    Values may be strings ("0.99", "64,64", "true"), as a command line hands them over. InputError for an
    unknown name or a value of the wrong kind or out of range.
    """
    table = dict(ALGORITHMS[check_algorithm(algo)])
    for name, value in recipe_for(env_id, algo, instance).items():
        if name not in NOT_PARAMETERS:
            table[name] = _checked(name, value, table[name])
    for name, value in (params or {}).items():
        if name not in table:
            raise unknown(f"parameter of {algo}", name, table, "the tables in matchgym.agents.hyperparameters list them")
        table[name] = _checked(name, value, table[name])
    if table.get("average_reward") and not table["endless"]:
        raise InputError("average_reward needs episodes that do not end: set endless to true as well.")
    rollout = table["n_envs"] * table.get("n_steps", 1)
    if rollout > MAX_ROLLOUT:
        raise InputError(f"n_envs x n_steps = {rollout} steps do not fit in memory; lower them to {MAX_ROLLOUT} together.")
    if algo in ("ppo", "maskable_ppo", "recurrent_ppo") and table["batch_size"] > rollout:
        raise InputError(
            f"batch_size is {table['batch_size']}, more than the n_envs x n_steps = {rollout} steps between two updates; "
            "lower it."
        )
    return table


def _checked(name: str, value: Any, default: Any) -> Any:
    """`value` in the kind of `default`."""
    given = value
    if isinstance(value, str) and not isinstance(default, str):
        text = f"[{value.strip('[]() ')}]" if isinstance(default, list) else value.lower()
        try:
            value = json.loads(text)
        except ValueError:
            value = None
    if isinstance(default, str):
        if value not in ("tanh", "relu"):
            raise InputError(f"{name} must be tanh or relu, not {shorten(given)}.")
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"{name} must be true or false, not {shorten(given)}.")
        return value
    if isinstance(default, list):
        if not isinstance(value, list | tuple) or not all(_is_integer(width) and 1 <= width <= 4096 for width in value):
            raise InputError(f"{name} must be a list of integers from 1 to 4096, such as 64,64, not {shorten(given)}.")
        return [int(width) for width in value]
    if isinstance(default, int):
        low = 0 if name in _MAY_BE_ZERO else 2 if name == "batch_size" else 1
        high = _LARGEST.get(name, 10**9)
        if not _is_integer(value) or not low <= value <= high:
            raise InputError(f"{name} must be an integer from {low} to {high}, not {shorten(given)}.")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, not {shorten(given)}.")
    if name == "log_std":
        return float(value)
    if name in _SHARES and not 0 <= value <= 1:
        raise InputError(f"{name} must lie in [0, 1], not {shorten(given)}.")
    if value < 0 or (value == 0 and name not in _SHARES and name not in _MAY_BE_ZERO):
        raise InputError(f"{name} must be {'>= 0' if name in _MAY_BE_ZERO else '> 0'}, not {shorten(given)}.")
    return float(value)


def _is_integer(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
