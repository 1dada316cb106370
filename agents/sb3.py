"""The native vector environments as Stable-Baselines3 sees them.

SB3 refuses gymnasium's vector environments: it has a class of its own, `VecEnv`, which resets an ended row
within the same step, hands infos over as one dict per row, and is asked for action masks row by row.
`SB3VecEnv` translates. A step costs one compiled call; only the rows whose episode has ended get a dict of
their own.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector import VectorEnv as GymVectorEnv
from numpy.typing import NDArray

from matchgym.agents.extra import Monitor, VecEnv
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find


def make_native(
    env_id: str,
    instance: Any = None,
    num_envs: int = 1,
    max_episode_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> GymVectorEnv:
    """The native vector environment of an id, resetting ended rows within the step.

    Parameters
    ----------
    env_id : an id of the registry.
    instance : a catalogue name, a path to a JSON file or a dict of JSON values; None takes the environment's
        default.
    num_envs : number of rows.
    max_episode_steps : length of an episode in decisions; None takes the registry's, -1 never truncates.
    options : further arguments of the environment, such as `{"synchronised": True}`.
    """
    entry = find(env_id)
    entry.model.check_options(options or {})
    arguments = dict(options or {}) | ({} if instance is None else {"instance": instance})
    return gym.make_vec(
        entry.id,
        num_envs=num_envs,
        max_episode_steps=entry.max_episode_steps if max_episode_steps is None else max_episode_steps,
        autoreset_mode=AutoresetMode.SAME_STEP,
        **arguments,
    )


def random_actions(native: GymVectorEnv, rng: np.random.Generator) -> NDArray[Any]:
    """A uniformly random valid action per row."""
    space = native.single_action_space
    if not isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return native.action_space.sample()
    mask = native.unwrapped.action_masks()  # type: ignore[attr-defined]
    level = rng.random(mask.shape) * mask
    sizes = space.nvec.ravel() if isinstance(space, gym.spaces.MultiDiscrete) else [mask.shape[1]]
    parts = [part.argmax(axis=1) for part in np.split(level, np.cumsum(sizes)[:-1], axis=1)]
    return parts[0] if isinstance(space, gym.spaces.Discrete) else np.stack(parts, axis=1)


def episode_length(native: GymVectorEnv) -> int:
    """Decisions of an episode that ends by itself; 0 if the task goes on for ever."""
    base: Any = native.unwrapped
    return 0 if base.model.episode is None else int(base.model.episode(base.instance))


def late_start(native: GymVectorEnv, decision: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
    """Start anew the rows whose turn it is before this decision; returns all observations and these rows, or None.

    In an episode's length every row has its turn, one after another. Then rows stand at all moments of an episode; where all
    started together, a learner would forget, while it learns about the ends, what it has learnt about the beginnings.
    """
    length, rows = episode_length(native), native.num_envs
    late = np.arange(rows) * length // rows == decision
    if decision == 0 or decision >= length or not late.any():
        return None
    obs, _ = native.reset(options={"reset_mask": late})
    return obs, late


class SB3VecEnv(VecEnv):
    """A native vector environment with the interface of a Stable-Baselines3 `VecEnv`.

    Parameters
    ----------
    native : a vector environment of this package in autoreset mode SAME_STEP, as `make_native` builds it.
    reward_shift, reward_scale : the learner is given (reward - reward_shift) / reward_scale; `episode` in the
        infos is in the environment's own units.
    is_spread : whether rows start one after another in the course of an episode's length, see `late_start`; what happens
        until all have started is not shown.

    Notes
    -----
    `infos[b]` is empty unless row b's episode has just ended; then it holds `terminal_observation`,
    `TimeLimit.truncated`, `episode` with r (return), l (decisions), t (seconds since the start), which is
    what SB3's `Monitor` writes, and the episode's final values of the environment's own numbers
    (`total_reward`, `invalid_actions`, ...).
    """

    def __init__(
        self, native: GymVectorEnv, reward_shift: float = 0.0, reward_scale: float = 1.0, is_spread: bool = False
    ) -> None:
        mode = native.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise InputError(f"autoreset_mode must be SAME_STEP for Stable-Baselines3, not {getattr(mode, 'name', mode)}.")
        self.native = native
        self._base: Any = native.unwrapped  # below gymnasium's wrappers
        self.reward_shift, self.reward_scale, self.is_spread = reward_shift, reward_scale, is_spread
        super().__init__(native.num_envs, native.single_observation_space, native.single_action_space)
        self._actions: NDArray[Any] = np.zeros(self.num_envs, np.int64)
        self._blank: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._started = time.perf_counter()

    def reset(self) -> NDArray[np.float32]:
        """Start an episode in every row, with the seeds of the last call of `seed`, if any."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        obs, _ = self.native.reset(seed=seeds)
        if self.is_spread:
            obs = self._spread(obs, np.random.default_rng(seeds))
        self._returns[:], self._lengths[:] = 0.0, 0
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return obs

    def _spread(self, obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        for decision in range(episode_length(self.native)):
            obs, *_ = self.native.step(random_actions(self.native, rng).astype(self.action_space.dtype))
            started = late_start(self.native, decision + 1)
            obs = obs if started is None else started[0]
        return obs

    def step_async(self, actions: NDArray[np.integer]) -> None:
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        obs, rewards, terminated, truncated, native_infos = self.native.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        if any(self._blank):  # a caller has written into the last infos: they are his
            self._blank = [{} for _ in range(self.num_envs)]
        infos = self._blank.copy()
        dones = terminated | truncated
        if dones.any():
            self._report(np.flatnonzero(dones), terminated, native_infos, infos)
        learned = ((rewards - self.reward_shift) / self.reward_scale).astype(np.float32)
        return obs, learned, dones, infos

    def _report(
        self,
        rows: NDArray[np.intp],
        terminated: NDArray[np.bool_],
        native_infos: dict[str, Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Fill the infos of the rows that have just ended."""
        final_obs, final_info = native_infos["final_obs"], native_infos["final_info"]
        numbers = [name for name in final_info if not name.startswith("_") and final_info[name].ndim == 1]
        seconds = round(time.perf_counter() - self._started, 6)
        for b in rows.tolist():
            infos[b] = {name: final_info[name][b].item() for name in numbers}
            infos[b]["terminal_observation"] = final_obs[b]
            infos[b]["TimeLimit.truncated"] = not terminated[b]
            infos[b]["episode"] = {
                "r": round(float(self._returns[b]), 6),
                "l": int(self._lengths[b]),
                "t": seconds,
            }
        self._returns[rows], self._lengths[rows] = 0.0, 0

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are valid now, (num_envs, n_actions) bool."""
        return self._base.action_masks()

    def _rows(self, indices: int | Iterable[int] | None) -> Sequence[int]:
        return [int(b) for b in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        return hasattr(self._base, attr_name)

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """An attribute of the rows: the same for all, as they are one environment; `action_masks` is each row's own."""
        if attr_name == "action_masks":
            return [partial(self._row_mask, b) for b in self._rows(indices)]
        return [getattr(self._base, attr_name)] * len(self._rows(indices))

    def _row_mask(self, row: int) -> NDArray[np.bool_]:
        return self.action_masks()[row]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Set an attribute of all rows at once; they are one environment."""
        if sorted(self._rows(indices)) != list(range(self.num_envs)):
            raise ValueError(f"{attr_name} cannot be set in some rows only: the rows are one native environment.")
        setattr(self._base, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: int | Iterable[int] | None = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """`action_masks`: the rows of one batched mask. The rows of a native environment have no other method."""
        if method_name != "action_masks":
            raise AttributeError(f"the rows of a native vector environment have no method {method_name!r}, only action_masks.")
        masks = self.action_masks()
        return list(masks) if indices is None else [masks[b] for b in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: int | Iterable[int] | None = None) -> list[bool]:
        """True for SB3's `Monitor`, whose entry `episode` the infos carry, and for gymnasium's vector wrappers."""
        layer, found = self.native, wrapper_class is Monitor
        while isinstance(layer, gym.vector.VectorWrapper):
            found = found or isinstance(layer, wrapper_class)
            layer = layer.env
        return [found] * len(self._rows(indices))

    def close(self) -> None:
        self.native.close()
