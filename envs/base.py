"""The single environment, the vector environment, and the compiled loops they share.

A model file supplies kernels that act on row `b` of a state whose arrays have a leading batch axis; `Model` gathers them. The
single environment is a batch of one, so both classes here run the same lines. The loops below are compiled once per model by
`matchgym.envs.compile.specialise`, which binds the model's kernels to the global names they use.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector import VectorEnv as GymVectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from matchgym.envs.compile import entry_point, opener, pack, reporter, specialise, views
from matchgym.envs.instance import InputError, Instance, is_count, load_instance, shorten
from matchgym.envs.rng import seed_words

FLOAT32, INT8 = np.dtype(np.float32), np.dtype(np.int8)


@dataclass(frozen=True)
class Model:
    """What a model file hands to the classes of this file. Compile its loops with `Model.build`."""

    instance_type: type[Instance]
    catalogue: Mapping[str, Callable[[], Any]]
    params: Callable[..., NamedTuple]  # (instance, **options) -> record of arrays
    state: Callable[..., NamedTuple]  # (instance, batch, **options in `sizing`) -> record of arrays with a leading batch axis
    layout: Callable[[Any, Mapping[str, Any]], dict[str, slice]]  # (instance, options) -> named slices of the observation
    action_space: Callable[[Any, Mapping[str, Any]], gym.Space[Any]]  # (instance, options) -> Discrete, MultiDiscrete or Box
    info: tuple[str, ...]  # fields of the state, one number per row, that are reported in `info`
    options: Mapping[str, tuple[Any, ...]]  # constructor options and their values, the first being the default
    draw: Callable[..., Any]  # (instance, state, render_mode, *, bound) -> str or (height, width, 3) uint8
    params_type: type
    state_type: type
    evaluation_options: Mapping[str, Any]  # options that synchronise the randomness of policies under one seed
    describe: Callable[..., dict[str, Any]]  # (numbers of a row, mask) -> info
    file: str  # on whose behalf the loops were compiled: models that share it share their kernels
    kernels: Mapping[str, Any]  # step_kernel, observe_kernel, mask_kernel, reset_kernel, open_params, open_state
    step_one: Any
    step_batch: Any
    reset_batch: Any
    sizing: tuple[str, ...] = ()  # options on which the extents of the state depend
    # look_kernel(params, state, b, out) -> a glimpse of row b, and the kernels that read it by the names under which policies
    # read observations; see `matchgym.baselines.evaluation`
    glimpse: Mapping[str, Any] = field(default_factory=dict)
    # quantities per unit of time that evaluations report: name -> the field of the state that counts them since the reset
    rates: Mapping[str, str] = field(default_factory=dict)
    # slopes over the counted decisions that evaluations report: name -> the fields that sum a quantity x_k, taken at decision k
    # since the reset (from 0), and k x_k
    trends: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    # (instance) -> decisions after which a start is forgotten, for the default warm-up of evaluations; None: not known
    settling: Callable[[Any], float] | None = None
    run: tuple[int, int] = (2_000, 20_000)  # decisions that evaluations skip and count, unless the task settles more slowly
    has_idle: bool = True  # whether the last Discrete action changes nothing; if not, what is not valid is left to chance
    takes_rows: bool = False  # whether step_kernel takes a row (1,) of numbers where the action space is Discrete, too
    takes_reals: bool = False  # whether rows are float64 for every kind of action: one compilation serves them all
    episode: Callable[[Any], int] | None = None  # (instance) -> decisions of an episode; None: the task goes on for ever
    # (instance, state, b) -> the instance with what row b has drawn for its episode filled in; None: nothing is drawn
    drawn: Callable[[Any, Any, int], Any] | None = None

    @staticmethod
    def loops(file: str, info: tuple[str, ...], **kernels: Any) -> dict[str, Any]:
        """The compiled entry points for a model's `Params`, `State`, `info` and kernels, as arguments for `Model`."""
        params_type, state_type = kernels.pop("Params"), kernels.pop("State")
        bound = kernels | {"open_params": opener(params_type), "open_state": opener(state_type)}
        report, describe = reporter(info)
        compiled = {
            f.__name__: specialise(f, f.__name__, file, **bound, report=report) for f in (step_one, step_batch, reset_batch)
        }
        types = {"params_type": params_type, "state_type": state_type}
        return {**types, "file": file, "info": info, "describe": describe, "kernels": bound, **compiled}

    def load(self, source: Any) -> Any:
        """The instance meant by a catalogue name, a path, a dict of JSON values or an instance."""
        return load_instance(self.instance_type, self.catalogue, source)

    def observation_space(self, instance: Any, options: Mapping[str, Any] | None = None) -> Any:
        size = max(part.stop for part in self.layout(instance, self.check_options(options or {})).values())
        return gym.spaces.Box(0.0, np.inf, (size,), np.float32)

    def check_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All constructor options with defaults filled in; InputError for an unknown name or value."""
        for name, value in options.items():
            if name not in self.options:
                raise InputError(f"unknown option {shorten(name)}; the options are {', '.join(self.options)}.")
            if value not in self.options[name]:
                raise InputError(f"{name} must be one of {', '.join(map(str, self.options[name]))}, not {shorten(value)}.")
        return {name: values[0] for name, values in self.options.items()} | dict(options)


# The loops. Names that are not defined in this file (open_params, step_kernel, ...) are bound by `specialise`.
# ruff: noqa: F821


def step_one(params_buffer, state_buffer, action, obs, mask):
    """One decision of a batch of one: writes `obs` (obs_dim,) and `mask` (n_actions,).

    Returns (reward, terminated, numbers to report).
    """
    params, state = open_params(params_buffer), open_state(state_buffer)
    b = np.int64(0)  # a literal 0 would be a type of its own, for which every kernel would be compiled once more
    reward, terminated = step_kernel(params, state, b, action)
    observe_kernel(params, state, b, obs)
    mask_kernel(params, state, b, mask)
    return reward, terminated, report(state, b)


def reset_batch(params_buffer, state_buffer, rows, obs, mask):
    """Start a new episode in every row with rows[b] true; writes every row of `obs` and `mask`."""
    params, state = open_params(params_buffer), open_state(state_buffer)
    for b in range(len(rows)):
        if rows[b]:
            reset_kernel(params, state, b)
        observe_kernel(params, state, b, obs[b])
        mask_kernel(params, state, b, mask[b])


def step_batch(
    params_buffer, state_buffer, actions, steps, over, limit, is_resetting, obs, rewards, terminated, truncated, mask
):
    """One decision in every row.

    steps (B,) counts the decisions of the episode, limit is its length (0: endless), over (B,) marks the rows whose episode
    has ended. With is_resetting, such a row spends this step on its reset, with reward 0 (autoreset mode NEXT_STEP).
    Writes obs (B, obs_dim), rewards, terminated, truncated (B,) and mask (B, n_actions).
    """
    params, state = open_params(params_buffer), open_state(state_buffer)
    for b in range(len(actions)):
        if is_resetting and over[b]:
            reset_kernel(params, state, b)
            steps[b] = 0
            rewards[b], terminated[b], truncated[b] = 0.0, False, False
        else:
            rewards[b], terminated[b] = step_kernel(params, state, b, actions[b])
            steps[b] += 1
            truncated[b] = limit > 0 and steps[b] >= limit
        over[b] = terminated[b] or truncated[b]
        observe_kernel(params, state, b, obs[b])
        mask_kernel(params, state, b, mask[b])


def mask_size(space: gym.Space[Any]) -> int:
    """Entries of the mask of a row: one per action, or per choice of each part; none for a Box, which has no mask."""
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    return int(space.nvec.sum()) if isinstance(space, gym.spaces.MultiDiscrete) else 0


def sampling_mask(space: gym.Space[Any], mask: NDArray[np.int8]) -> Any:
    """`info["action_mask"]` in the form that `space.sample` takes: a MultiDiscrete wants one array per part, a Box none."""
    if isinstance(space, gym.spaces.MultiDiscrete):
        return tuple(np.split(mask, np.cumsum(space.nvec)[:-1]))
    return mask if isinstance(space, gym.spaces.Discrete) else None


def _refuse_arrays(values: Mapping[str, Any]) -> None:
    """InputError for constructor arguments with which `env.spec` could not be written as JSON."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            raise InputError(f"{name} is an array; give {name}.tolist(), so that env.spec can be written as JSON.")


class Rows:
    """A batch of rows of one model in packed buffers, with the constructor arguments that both environments share."""

    model: ClassVar[Model]

    def _open(self, instance: Any, batch: int, options: Mapping[str, Any]) -> None:
        model, options = self.model, self.model.check_options(options)
        if isinstance(instance, Mapping):
            _refuse_arrays(instance)
        self.instance = model.load(instance)
        self._params = pack(model.params(self.instance, **options))
        self._state = pack(model.state(self.instance, batch, **{name: options[name] for name in model.sizing}))
        self.observation_layout = model.layout(self.instance, options)
        self._observation_space = model.observation_space(self.instance, options)
        self._action_space = model.action_space(self.instance, options)
        self._n_actions = mask_size(self._action_space)
        self._takes_rows = model.takes_rows or not isinstance(self._action_space, gym.spaces.Discrete)
        is_real = model.takes_reals or isinstance(self._action_space, gym.spaces.Box)
        self._word: Any = np.float64 if is_real else np.int64  # of a row of numbers
        self._obs_dim = self._observation_space.shape[0]
        self._connect()

    def _rows_of_actions(self, actions: Any, space: gym.Space[Any]) -> NDArray[Any]:
        """Actions of `space`, for one row or for all, as the kernels take them: numbers (..., k), contiguous."""
        given, kinds = np.asarray(actions), "iuf" if isinstance(space, gym.spaces.Box) else "iu"
        if given.shape != space.shape or given.dtype.kind not in kinds:
            what = "numbers" if "f" in kinds else "integers"
            raise TypeError(f"actions must be {what} of shape {space.shape}, not {given.dtype} of {given.shape}.")
        size = int(np.prod(self._action_space.shape or (1,)))
        return np.ascontiguousarray(given.reshape(-1, size), self._word)

    def _connect(self) -> None:
        """Set what hangs on the buffers and cannot be copied: windows onto them, and machine code."""
        self.state = views(self.model.state_type, self._state)
        self._watched = tuple((name, getattr(self.state, name)) for name in self.model.info)

    _unsaved: ClassVar[tuple[str, ...]] = ("state", "_watched")

    def __getstate__(self) -> dict[str, Any]:
        """What `_connect` sets is rebuilt on loading, so that the windows never part from their buffers."""
        return {key: value for key, value in self.__dict__.items() if key not in self._unsaved}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self._connect()


class Env(Rows, gym.Env[NDArray[np.float32], np.int64]):
    """Base of the single environments. A subclass sets `model` and writes the docstring that is the user's page."""

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012
    _unsaved: ClassVar[tuple[str, ...]] = (*Rows._unsaved, "_step_one", "_describe")

    def __init__(self, instance: Any, render_mode: str | None = None, **options: str) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(f"render_mode must be one of ansi, rgb_array or None, not {shorten(render_mode)}.")
        self._open(instance, 1, options)
        self.render_mode = render_mode
        self.observation_space = self._observation_space
        self.action_space = self._action_space
        self._mask = np.ones(self._n_actions, np.int8)  # until the first reset
        self._is_seeded = self._is_ready = False
        # An upper bound on the reward per unit of time, shown by `render`; set it from `matchgym.bounds`.
        self.bound: float | None = None

    def _connect(self) -> None:
        super()._connect()
        obs, mask = np.empty(self._obs_dim, np.float32), np.empty(self._n_actions, np.int8)
        size = int(np.prod(self._action_space.shape or (1,)))
        action = np.zeros(size, self._word) if self._takes_rows else 0
        self._step_one = entry_point(self.model.step_one, self._params, self._state, action, obs, mask)
        self._describe = self.model.describe

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode. With a seed, the row's stream restarts from it; without, the stream goes on."""
        super().reset(seed=seed)
        if seed is not None or not self._is_seeded:
            self.state.stream[0] = seed_words(self.np_random_seed)
            self._is_seeded = True
        obs = np.empty((1, self._obs_dim), np.float32)
        self._mask = mask = np.empty(self._n_actions, np.int8)
        self.model.reset_batch(self._params, self._state, np.ones(1, np.bool_), obs, mask[None].view(np.bool_))
        self._is_ready = True
        return obs[0], self.model.describe([column.item(0) for _, column in self._watched], mask)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one decision. An action that the mask forbids does nothing and is counted in `info["invalid_actions"]`."""
        if not self._is_ready:
            raise gym.error.ResetNeeded("Cannot call env.step() before calling env.reset().")
        if self._takes_rows:
            index: Any = self._rows_of_actions(action, self._action_space)[0]
        else:
            try:
                index = operator.index(action)
            except TypeError:
                raise TypeError(f"action must be an integer in [0, {self._n_actions}), not {shorten(action)}.") from None
            if not 0 <= index < self._n_actions:
                index = -1  # invalid, whatever its size
        obs = np.empty(self._obs_dim, FLOAT32)
        self._mask = mask = np.empty(self._n_actions, INT8)
        reward, terminated, numbers = self._step_one(self._params, self._state, index, obs, mask)
        return obs, reward, terminated, False, self._describe(numbers, mask)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are valid now, (n_actions,) bool; the name that sb3-contrib looks for.

        The parts of a MultiDiscrete action stand one after the other, (sum(nvec),); a Box has no mask, (0,).
        """
        return self._mask.astype(np.bool_)

    def render(self) -> Any:
        """A text (ansi) or a picture (rgb_array, (height, width, 3) uint8) of the current state."""
        if self.render_mode is None:
            gym.logger.warn('render() needs gym.make(..., render_mode="ansi" or "rgb_array").')
            return None
        if not self._is_ready:
            raise gym.error.ResetNeeded("Cannot call env.render() before calling env.reset().")
        return self.model.draw(self.instance, self.state, self.render_mode, bound=self.bound)


class VectorEnv(Rows, GymVectorEnv):
    """Base of the native vector environments: `num_envs` rows stepped by one compiled call.

    Row b, when seeded with s, repeats the single environment seeded with s + b, bit for bit.
    """

    def __init__(
        self,
        instance: Any,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: str,
    ) -> None:
        if not is_count(num_envs, 1):
            raise InputError(f"num_envs must be an integer >= 1, not {shorten(num_envs)}.")
        if max_episode_steps is not None and max_episode_steps != -1 and not is_count(max_episode_steps, 1):
            raise InputError(f"max_episode_steps must be an integer >= 1, None or -1, not {shorten(max_episode_steps)}.")
        if render_mode is not None:
            raise InputError("render_mode must be None in a vector environment; render a single one.")
        self._open(instance, num_envs, options)
        self.num_envs = int(num_envs)
        self.render_mode = None
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode(autoreset_mode)}
        self._limit = 0 if max_episode_steps in (None, -1) else int(max_episode_steps)
        self.single_observation_space = self._observation_space
        self.single_action_space = self._action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, np.bool_)
        self._mask = np.ones((self.num_envs, self._n_actions), np.bool_)  # until the first reset
        self._is_seeded = self._is_ready = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in every row, or in the rows of `options={"reset_mask": (B,) bool}`.

        seed: one integer s (row b gets s + b), one per row (None leaves a row's stream as it is), or None.
        """
        rows = np.ones(self.num_envs, np.bool_)
        if options and "reset_mask" in options:
            rows = np.asarray(options["reset_mask"])
            if rows.shape != (self.num_envs,) or rows.dtype != np.bool_:
                raise InputError(f"reset_mask must be a bool array of shape ({self.num_envs},).")
            if not self._is_ready and not rows.all():
                raise InputError("reset_mask must be true in every row at the first reset.")
        if seed is None and not self._is_seeded:
            seed = int(self.np_random.integers(2**32))
        if (
            seed is not None
            and not is_count(seed)
            and not (isinstance(seed, Sequence) and all(each is None or is_count(each) for each in seed))
        ):
            raise InputError(f"seed must be an integer >= 0 or a list of them, one per row, not {shorten(seed)}.")
        if is_count(seed):
            seeds: Sequence[int | None] = [int(seed) + b for b in range(self.num_envs)]
            super().reset(seed=seeds[0])
        else:
            seeds = [None] * self.num_envs if seed is None else list(seed)  # type: ignore[arg-type]
        if len(seeds) != self.num_envs:
            raise InputError(f"seed must be one integer or {self.num_envs} of them, got {len(seeds)}.")
        for b, row_seed in enumerate(seeds):
            if rows[b] and row_seed is not None:
                self.state.stream[b] = seed_words(row_seed)
        self._is_seeded = self._is_ready = True
        obs = np.empty((self.num_envs, self._obs_dim), np.float32)
        self._mask = np.empty((self.num_envs, self._n_actions), np.bool_)
        self._start(rows, obs)
        return obs, self._infos()

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One decision in every row; actions (B, ...), one of the single environment's for each row."""
        if not self._is_ready:
            raise gym.error.ResetNeeded("Cannot call env.step() before calling env.reset().")
        rows = self._rows_of_actions(actions, self.action_space)
        n = self.num_envs
        obs = np.empty((n, self._obs_dim), np.float32)
        rewards = np.empty(n, np.float64)
        terminated, truncated = np.empty(n, np.bool_), np.empty(n, np.bool_)
        self._mask = np.empty((n, self._n_actions), np.bool_)
        mode = self.metadata["autoreset_mode"]
        self.model.step_batch(
            self._params, self._state, rows if self._takes_rows else rows[:, 0], self._steps, self._over, self._limit,
            mode is AutoresetMode.NEXT_STEP, obs, rewards, terminated, truncated, self._mask,
        )  # fmt: skip
        infos = self._infos()
        if mode is AutoresetMode.SAME_STEP and self._over.any():
            over, final_obs, final_infos = self._over.copy(), obs.copy(), infos
            self._mask = self._mask.copy()
            self._start(over, obs)
            infos = self._infos()
            infos |= {"final_obs": final_obs, "_final_obs": over, "final_info": final_infos, "_final_info": over}
        return obs, rewards, terminated, truncated, infos

    def _start(self, rows: NDArray[np.bool_], obs: NDArray[np.float32]) -> None:
        """Start an episode in the given rows; fills `obs` and the mask."""
        self._steps[rows], self._over[rows] = 0, False
        self.model.reset_batch(self._params, self._state, rows, obs, self._mask)

    def _infos(self) -> dict[str, Any]:
        infos: dict[str, Any] = {name: column.copy() for name, column in self._watched}
        infos["action_mask"] = self._mask.view(np.int8)
        everywhere = np.ones(self.num_envs, np.bool_)
        return infos | {f"_{name}": everywhere for name in infos}

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are valid now, (B, n_actions) bool."""
        return self._mask.copy()
