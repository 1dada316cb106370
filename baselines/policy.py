"""What a policy is, and how a policy given as a kernel decides for a batch.

Every policy has Stable-Baselines3's signature: `predict(observation, state, episode_start, deterministic, action_masks)`. It
sees observations and masks and nothing else. A `CompiledPolicy` writes its decision as a kernel on one row,

    act_kernel(policy_params, memory, b, obs, mask, rng) -> action

which serves `predict` and, compiled together with the environment, `matchgym.baselines.simulate`.
"""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.envs.base import Model
from matchgym.envs.compile import WordTable, kernel, opener, pack, specialise, views
from matchgym.envs.instance import InputError, Instance, read_array, shorten, unknown
from matchgym.envs.rng import seed_words

Actions = NDArray[Any]
LISTS = (tuple, Sequence)  # annotations of arguments that are lists of numbers


class Policy:
    """Base of all policies: fit once, then decide for batches of observations."""

    instance: Instance
    options: ClassVar[Mapping[str, Any]] = {}  # of the environment in which it acts, where they are not the defaults

    def fit(self, instance: Any) -> Self:
        """Prepare for an instance: solve what must be solved and set the attributes that end in `_`."""
        raise NotImplementedError

    def start(self, batch: int, seed: int) -> Any:
        """The state to hand to the first `predict` of `batch` rows, row b seeded with `seed + b`."""
        return None

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[Actions, Any]:
        """Actions for a batch (B, obs_dim), or one action for a single observation (obs_dim,), and the next state.

        Without a state the rows start afresh, with randomness from the operating system. Rows with episode_start (B,) true
        forget their past.
        """
        raise NotImplementedError

    def probabilities(
        self, observation: NDArray[np.float32], action_masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """The law of the action (B, n_actions) given each observation (B, obs_dim) alone; here, that of a deterministic policy.

        Raises InputError for policies that also look at their memory.
        """
        masks = self.masks(observation) if action_masks is None else action_masks
        actions, _ = self.predict(observation, deterministic=True, action_masks=masks)
        return (actions[:, None] == np.arange(masks.shape[1])).astype(float)

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The masks (B, n_actions) that belong to observations, for callers that give none."""
        raise NotImplementedError

    @property
    def acting(self) -> "Policy":
        """The policy that decides: this one, unless it has chosen another when it was fitted."""
        return self

    def own_value(self, max_states: int | None) -> Any:
        """The exact value, with `mean`, `error` and `match_rates`, of a policy that solves its own chain; else None."""
        return None

    def equivalent(self) -> "tuple[Instance, Policy]":
        """An instance and a policy without hidden memory on it that earn the same: this one, unless it has a memory."""
        return self.instance, self


def best_actions(scores: NDArray[Any], space: gym.Space[Any], masks: NDArray[np.bool_] | None = None) -> Actions:
    """The actions (B, ...) that a table of scores (B, n_scores) stands for.

    A choice is the valid action of largest score, the first of equal ones; of a choice with several parts, for each. Where
    actions are numbers, the scores are the numbers, cut off at the ends of the space.
    """
    if isinstance(space, gym.spaces.Box):
        return np.clip(scores, space.low.ravel(), space.high.ravel()).reshape(-1, *space.shape)
    if masks is not None:
        scores = np.where(np.atleast_2d(masks), scores, -np.inf)
    if isinstance(space, gym.spaces.MultiDiscrete):
        parts = np.split(scores, np.cumsum(space.nvec.ravel())[:-1], axis=1)
        return np.stack([part.argmax(1) for part in parts], axis=1)
    return scores.argmax(1)


class Stream(NamedTuple):
    """The memory of a policy that remembers nothing but its random stream."""

    stream: WordTable  # (B, 4)


class Nothing(NamedTuple):
    """The parameters of a policy that has none."""

    unused: WordTable


@kernel
def skip_mask(params, state, b, out):
    """In place of a model's mask_kernel, for policies that do not look at the mask."""


@kernel
def forget_nothing(memory, b):
    """A policy without memory has nothing to forget when an episode starts."""


# ruff: noqa: F821


def act_batch(params_buffer, memory_buffer, starts, obs, masks, actions):
    """Decide for every row; rows with starts[b] forget their past first."""
    params, memory = open_policy(params_buffer), open_memory(memory_buffer)
    for b in range(len(actions)):
        if starts[b]:
            forget_kernel(memory, b)
        if acts_in_rows:  # a constant when this is compiled: the other branch is not
            act_kernel(params, memory, b, obs[b], masks[b], memory.stream)
            for k in range(memory.action.shape[1]):
                actions[b, k] = memory.action[b, k]
        else:
            actions[b] = act_kernel(params, memory, b, obs[b], masks[b], memory.stream)


class CompiledPolicy(Policy):
    """A policy given by a kernel. A subclass is compiled by the decorator `compiled`.

    `fit` must set `params_`, a record of the type `Params`; `memory(batch)` gives zeroed rows of the type `Memory`. A kernel
    whose actions are not Discrete writes them as numbers (k,) into row b of `memory.action`; `fit` then sets `action_space_`.
    """

    model: ClassVar[Model]  # of the environment it acts in
    Params: ClassVar[type] = Nothing
    Memory: ClassVar[type] = Stream
    kernels: ClassVar[dict[str, Any]]
    act_batch: ClassVar[Any]
    file: ClassVar[str]
    compiled_name: ClassVar[str]  # of the class that was compiled: subclasses that change no kernel share its machine code
    params_: NamedTuple
    is_deterministic: ClassVar[bool] = False
    reads_glimpse: ClassVar[bool] = True  # whether its kernel reads observations only by the names of `Model.glimpse`
    reads_mask: ClassVar[bool] = False  # whether the kernel looks at its mask; if not, `simulate` does not compute it
    action_space_: gym.Space[Any] | None = None  # None: Discrete

    @property
    def observation_size(self) -> int:
        """Numbers in an observation of the instance that the policy was fitted to."""
        return max(part.stop for part in self.model.layout(self.instance, self.model.check_options(self.options)).values())

    def memory(self, batch: int) -> NamedTuple:
        """Zeroed memory for `batch` rows."""
        return Stream(np.zeros((batch, 4), np.uint64))

    def review(self, memory: Any) -> None:
        """Called with the memory, a record of arrays, after a simulation: a policy that has something to admit says it."""

    def start(self, batch: int, seed: int) -> NDArray[np.float64]:
        state = pack(self.memory(batch))
        stream = views(self.Memory, state).stream
        for b in range(batch):
            stream[b] = seed_words((seed + b, 1))  # apart from the environment's row, which is seeded with seed + b
        return state

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[Actions, Any]:
        if not hasattr(self, "params_"):
            raise InputError(f"{type(self).__name__} must be fitted to an instance first; call fit(instance).")
        try:
            obs = np.atleast_2d(np.asarray(observation, np.float32))
        except (TypeError, ValueError):
            raise InputError(f"observation must be an array of numbers, not {shorten(observation)}.") from None
        if obs.shape[1:] != (self.observation_size,) or not (obs >= 0).all():
            raise InputError(
                f"observation must be numbers >= 0 of shape (B, {self.observation_size}), the observations of instance "
                f"{self.instance.name!r}, not {shorten(obs.shape)} or with one that is negative or NaN."
            )
        masks = self.masks(obs) if action_masks is None else np.atleast_2d(np.asarray(action_masks, np.bool_))
        starts = np.zeros(len(obs), np.bool_) if episode_start is None else np.atleast_1d(episode_start).astype(np.bool_)
        if state is None:
            state = self.start(len(obs), int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1)))
            starts[:] = True
        else:
            state = state.copy()
        rows = len(views(self.Memory, state).stream)
        if not rows == len(masks) == len(starts) == len(obs):
            raise InputError(
                f"observation, state, episode_start and action_masks must have one number of rows, "
                f"not {len(obs)}, {rows}, {len(starts)} and {len(masks)}."
            )
        space = self.action_space_
        actions: Actions = np.empty(len(obs), np.int64)
        if space is not None:
            actions = np.empty((len(obs), int(np.prod(space.shape or (1,)))))
        if deterministic and not self.is_deterministic:
            actions[:] = self.probabilities(obs, masks).argmax(1)
        else:
            type(self).act_batch(pack(self.params_), state, starts, np.ascontiguousarray(obs), masks, actions)
        if space is not None:
            is_box = isinstance(space, gym.spaces.Box)
            actions = actions.reshape(-1, *space.shape).astype(np.float64 if is_box else np.int64)  # type: ignore[misc]
        return (actions if np.ndim(observation) == 2 else actions[0]), state

    def probabilities(
        self, observation: NDArray[np.float32], action_masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        if not self.is_deterministic:
            raise InputError(f"{type(self).__name__} decides by its memory too; it has no law given the observation alone.")
        return super().probabilities(observation, action_masks)


def compiled(file: str, act_kernel: Any, forget_kernel: Any = forget_nothing) -> Any:
    """Class decorator: compile a `CompiledPolicy` around its kernels; `file` is the source file of the policy."""

    def attach(policy_type: type[CompiledPolicy]) -> type[CompiledPolicy]:
        policy_type.file, policy_type.compiled_name = file, policy_type.__name__
        policy_type.kernels = {
            "act_kernel": act_kernel,
            "forget_kernel": forget_kernel,
            "open_policy": opener(policy_type.Params),
            "open_memory": opener(policy_type.Memory),
            "acts_in_rows": "action" in policy_type.Memory._fields,  # type: ignore[attr-defined]
        }
        policy_type.act_batch = specialise(act_batch, f"act_batch_{policy_type.__name__}", file, **policy_type.kernels)
        return policy_type

    return attach


def build(policies: Mapping[str, type[Policy]], name: str, arguments: Mapping[str, str]) -> Policy:
    """The policy of that name, with constructor arguments given as text (NAME=VALUE); InputError if either is unknown."""
    if name not in policies:
        raise unknown("policy", name, policies)
    return policies[name](**parse_arguments(policies[name], arguments, name))


def parse_arguments(function: Callable[..., Any], arguments: Mapping[str, str], name: str) -> dict[str, Any]:
    """Keyword arguments given as text for what is called `name`; InputError for those it does not have."""
    known = inspect.signature(function).parameters
    for key in arguments:
        if key not in known:
            if not known:
                raise InputError(f"policy {name} has no parameters, so not {shorten(key)} either.")
            raise unknown(f"parameter of {name}", key, known)
    return {key: parse_argument(key, text, known[key].annotation) for key, text in arguments.items()}


def parse_argument(name: str, text: str, wanted: Any) -> Any:
    """A text as the annotated type: int, float, bool, str, numbers "0,2", any of these or None, or an array in a JSON file."""
    choices = [choice for choice in typing.get_args(wanted) if choice is not type(None)] or [wanted]
    kind = choices[0]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if typing.get_origin(kind) in LISTS:
            return tuple(typing.get_args(kind)[0](part) for part in text.split(","))
        if kind not in (int, float, str):
            return read_array(name, Path(text))
        value = kind(text)
    except (KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        form = "a list such as 0,2" if typing.get_origin(kind) in LISTS else f"of type {kind.__name__}"
        raise InputError(f"parameter {name} must be {form}, not {shorten(text)}.") from None
    if isinstance(value, float) and not np.isfinite(value):
        raise InputError(f"parameter {name} must be finite, not {shorten(text)}.")
    return value
