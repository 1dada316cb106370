"""Evaluation of a policy: independent replications, warm-up deleted, intervals, and differences under the same seeds.

A replication is a row of a batch. Row b of the environment is seeded with seed + b, so that two policies evaluated with the
same seed meet the same randomness (where the environment can synchronise it) and their difference is estimated in pairs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.policy import CompiledPolicy, Policy, skip_mask
from matchgym.baselines.statistics import Interval, batch_means_interval, paired_interval, t_interval
from matchgym.envs.base import Model
from matchgym.envs.compile import pack, specialise, views
from matchgym.envs.instance import InputError, Instance, is_count, shorten
from matchgym.envs.registry import Entry, find

BATCHES = 10  # per replication, for the cross-check by batch means; fewer if there are fewer decisions
LONGEST_WARMUP = 1_000_000  # by default, however slowly the task settles
CHUNK = 2_000_000  # decisions between two calls of the progress callback

Progress = Callable[[float], None]  # called with the share done, 0 to 1


@dataclass(frozen=True)
class Evaluation:
    """The estimated objective of a policy on an instance."""

    instance: Instance
    objective: Interval  # 95 % t interval over replications
    values: NDArray[np.float64]  # (R,) objective of each replication
    batches: NDArray[np.float64]  # (R, BATCHES) objective of each batch of consecutive decisions
    seed: int
    rates: Mapping[str, Interval] = field(default_factory=dict)  # the model's further quantities per unit of time
    trends: Mapping[str, Interval] = field(default_factory=dict)  # the model's slopes per unit of time
    drawn: tuple[Instance, ...] = ()  # (R,) the instance with what each replication drew, where the instance leaves it open

    @property
    def replications(self) -> int:
        return len(self.values)

    @property
    def batch_means(self) -> Interval:
        """The interval by batch means, a cross-check on `objective`."""
        return batch_means_interval(self.batches)

    def minus(self, other: "Evaluation") -> Interval:
        """Paired interval of this objective minus another one, estimated with the same seeds on the same instance."""
        if (self.instance, self.seed, self.replications) != (other.instance, other.seed, other.replications):
            raise ValueError("paired differences need the same instance, seed and number of replications.")
        return paired_interval(self.values, other.values)


def evaluate(
    policy: Policy,
    id: str,
    instance: Any = None,
    replications: int = 32,
    warmup: int | None = None,
    decisions: int | None = None,
    seed: int = 0,
    deterministic: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Estimate the objective of a fitted policy.

    Parameters
    ----------
    policy : fitted policy; one given by kernels runs compiled together with the environment.
    id, instance : as for `gym.make`; the default instance is the one the policy was fitted to.
    replications : independent rows, at least 2.
    warmup, decisions : decisions per replication that are skipped, and then counted; by default `run_length`'s.
    seed : row b of the environment is seeded with seed + b.
    deterministic : whether a network takes its most likely action; policies given by kernels draw as their algorithm says.
    progress : called now and then with the share done.
    """
    entry = find(id)
    fitted = getattr(policy, "instance", None)
    if fitted is None:
        raise InputError(f"{type(policy).__name__} must be fitted to an instance first; call fit(instance).")
    loaded = entry.model.load(fitted if instance is None else instance)
    if loaded != fitted:
        raise InputError(
            f"{type(policy).__name__} was fitted to instance {fitted.name!r}, not to {loaded.name!r}; fit it anew."
        )
    check_counts(replications, seed)
    warmup, decisions = run_length(entry.model, loaded, warmup, decisions)
    policy = policy.acting
    size = (replications, warmup, decisions, seed)
    counts_of: dict[str, NDArray[np.float64]] = {}
    if isinstance(policy, CompiledPolicy):
        sums = simulate(policy, entry, loaded, *size, progress, counts_of)
    else:
        sums = roll_out(policy, entry, loaded, *size, deterministic, progress, counts_of)
    values = loaded.objective_scale * sums.sum(1) / decisions
    batches = loaded.objective_scale * sums / np.diff(_batch_edges(decisions))
    rates = {
        name: t_interval(loaded.objective_scale * counts_of[count] / decisions) for name, count in entry.model.rates.items()
    }
    trends = {
        name: t_interval(loaded.objective_scale * slopes(counts_of[first], counts_of[second], warmup, decisions))
        for name, (first, second) in entry.model.trends.items()
    }
    drawn = drawn_instances(entry, loaded, replications, seed)
    return Evaluation(loaded, t_interval(values), values, batches, seed, rates, trends, drawn)


def slopes(sums: NDArray[np.float64], moments: NDArray[np.float64], start: int, n: int) -> NDArray[np.float64]:
    """Least-squares slopes (R,) per decision of n values x_k, k = start .. start + n - 1, from sum x_k and sum k x_k."""
    return 12 * (moments - (start + (n - 1) / 2) * sums) / (n * (n * n - 1)) if n > 1 else 0 * sums


def check_counts(replications: int, seed: int) -> None:
    """InputError unless there are at least 2 replications and a seed >= 0."""
    for name, (value, low, high) in {"replications": (replications, 2, 10**6), "seed": (seed, 0, 2**63)}.items():
        if not is_count(value, low) or value > high:
            raise InputError(f"{name} must be an integer from {low} to {high}, not {shorten(value)}.")


def run_length(model: Model, instance: Any, warmup: int | None, decisions: int | None) -> tuple[int, int]:
    """Decisions of a replication that are skipped and counted; checked, and filled in where None.

    An episode is counted from its start, without warm-up; a task that goes on for ever has the model's `run`, or its
    `settling` time for a warm-up, if that is longer (up to LONGEST_WARMUP), and as many decisions at least.
    """
    longest = 10**12 if model.episode is None else model.episode(instance)
    settling = 0 if model.settling is None else min(LONGEST_WARMUP, math.ceil(model.settling(instance)))
    default = (max(model.run[0], settling), max(model.run[1], settling)) if model.episode is None else (0, longest)
    for name, value, low in (("warmup", warmup, 0), ("decisions", decisions, BATCHES if model.episode is None else 1)):
        if value is not None and (not is_count(value, low) or value > longest):
            raise InputError(f"{name} must be an integer from {low} to {longest}, not {shorten(value)}.")
    skipped = default[0] if warmup is None else warmup
    counted = default[1] - (0 if model.episode is None else skipped) if decisions is None else decisions
    if model.episode is not None and not 1 <= counted <= longest - skipped:
        raise InputError(f"warmup and decisions must fit into the {longest} decisions of an episode; lower them.")
    return skipped, counted


def drawn_instances(entry: Entry, instance: Any, replications: int, seed: int) -> tuple[Instance, ...]:
    """The instance with what each replication draws for its episode; empty if the instance leaves nothing open."""
    drawn = entry.model.drawn
    if drawn is None:
        return ()
    env = _vector_env(entry, instance, replications, {})
    env.reset(seed=seed)
    found = tuple(drawn(instance, env.state, b) for b in range(replications))
    return () if found[0] is instance else found


# ruff: noqa: F821


def simulate_rows(params_buffer, state_buffer, policy_buffer, memory_buffer, starts, decisions, obs, masks, rewards):
    """Let a policy take `decisions` decisions in every row; adds what it earns to rewards (B,).

    masks are those of the present state on entry and on return; rows with starts[b] begin an episode. A policy is shown the
    observation, written to obs[b]; or a glimpse of the state that says the same, where its kernel can read that.
    """
    params, state = open_params(params_buffer), open_state(state_buffer)
    policy, memory = open_policy(policy_buffer), open_memory(memory_buffer)
    for b in range(len(rewards)):
        if starts[b]:
            forget_kernel(memory, b)
        for _ in range(decisions):
            action = act_kernel(policy, memory, b, look_kernel(params, state, b, obs[b]), masks[b], memory.stream)
            if acts_in_rows:  # a constant when this is compiled
                reward, _ = step_kernel(params, state, b, memory.action[b])
            else:
                reward, _ = step_kernel(params, state, b, action)
            rewards[b] += reward
            mask_kernel(params, state, b, masks[b])


def write_observation(params, state, b, out):
    """The observation of row b, written to `out`."""
    observe_kernel(params, state, b, out)
    return out


_COMPILED: dict[tuple[str, Any], Any] = {}


def _compiled_simulation(entry: Entry, policy_type: type[CompiledPolicy]) -> Any:
    key = (entry.model.file, policy_type.act_batch)
    if key not in _COMPILED:
        name = f"simulate_{Path(entry.model.file).stem}_{policy_type.compiled_name}"
        kernels = {**entry.model.kernels, **policy_type.kernels}
        if policy_type.reads_glimpse and entry.model.glimpse:
            glimpse, act = entry.model.glimpse, policy_type.kernels["act_kernel"]
            names = {key: value for key, value in glimpse.items() if key != "look_kernel"}
            kernels["act_kernel"] = specialise(act.py_func, f"{name}_act", policy_type.file, **names)
            kernels["look_kernel"] = glimpse["look_kernel"]
        else:
            kernels["look_kernel"] = specialise(write_observation, f"{name}_look", policy_type.file, **kernels)
        if not policy_type.reads_mask:
            kernels["mask_kernel"] = skip_mask
        _COMPILED[key] = specialise(simulate_rows, name, policy_type.file, **kernels)
    return _COMPILED[key]


def _batch_edges(decisions: int) -> NDArray[np.int64]:
    """Where batches of consecutive decisions begin and end."""
    return np.linspace(0, decisions, min(BATCHES, decisions) + 1).astype(np.int64)


def _segments(warmup: int, decisions: int, rows: int) -> list[tuple[int, int]]:
    """(batch, length) of consecutive runs: batch -1 is the warm-up, and no run is longer than CHUNK decisions in all."""
    edges = _batch_edges(decisions)
    longest = max(1, CHUNK // rows)
    runs = []
    for batch, length in [(-1, warmup), *enumerate(np.diff(edges).tolist())]:
        while length > 0:
            runs.append((batch, min(length, longest)))
            length -= longest
    return runs


def play(
    policy: CompiledPolicy, entry: Entry, instance: Any, replications: int, lengths: Iterable[int], seed: int
) -> Iterator[tuple[NDArray[np.float64], Any]]:
    """Environment and policy in one compiled loop, `lengths` decisions at a time.

    After each length, yields the rewards (R,) that it brought and the state of the environment, whose arrays change later.
    """
    env = _vector_env(entry, instance, replications, policy.options)
    obs, _ = env.reset(seed=seed)
    masks = env.action_masks()
    loop = _compiled_simulation(entry, type(policy))
    params, memory = pack(policy.params_), policy.start(replications, seed)
    starts = np.ones(replications, np.bool_)
    remaining = list(lengths)
    while remaining:
        rewards = np.zeros(replications)
        loop(env._params, env._state, params, memory, starts, remaining.pop(0), obs, masks, rewards)
        starts[:] = False
        if not remaining:
            policy.review(views(policy.Memory, memory))
        yield rewards, env.state


def simulate(
    policy: CompiledPolicy,
    entry: Entry,
    instance: Any,
    replications: int,
    warmup: int,
    decisions: int,
    seed: int,
    progress: Progress | None = None,
    counts: dict[str, NDArray[np.float64]] | None = None,
) -> NDArray[np.float64]:
    """Rewards summed over each batch of decisions (R, BATCHES), environment and policy in one compiled loop.

    `counts`, if given, receives what fields of the state count over the same decisions, (R,) each: those that the model's
    `rates` and `trends` name.
    """
    segments = _segments(warmup, decisions, replications)
    sums = np.zeros((replications, len(_batch_edges(decisions)) - 1))
    done, runs = 0, play(policy, entry, instance, replications, [length for _, length in segments], seed)
    before = after = dict.fromkeys(_fields_counted(entry), np.zeros(replications))
    for (batch, length), (rewards, state) in zip(segments, runs):
        after = _counted(entry, state)
        if batch >= 0:
            sums[:, batch] += rewards
        else:
            before = after
        done += length
        if progress is not None:
            progress(done / (warmup + decisions))
    if counts is not None:
        counts.update({name: after[name] - before[name] for name in after})
    return sums


def roll_out(
    policy: Policy,
    entry: Entry,
    instance: Any,
    replications: int,
    warmup: int,
    decisions: int,
    seed: int,
    deterministic: bool,
    progress: Progress | None = None,
    counts: dict[str, NDArray[np.float64]] | None = None,
) -> NDArray[np.float64]:
    """As `simulate`, for any policy, through the vector environment and `predict`."""
    env = _vector_env(entry, instance, replications, policy.options)
    obs, _ = env.reset(seed=seed)
    state = policy.start(replications, seed)
    starts = np.ones(replications, np.bool_)
    ends = _batch_edges(decisions)[1:]
    sums = np.zeros((replications, len(ends)))
    before = _counted(entry, env.state)
    for k in range(-warmup, decisions):
        if k == 0:
            before = _counted(entry, env.state)
        actions, state = policy.predict(obs, state, starts, deterministic, env.action_masks())
        obs, rewards, _, _, _ = env.step(actions)
        starts[:] = False
        if k >= 0:
            sums[:, np.searchsorted(ends, k, side="right")] += rewards
        if progress is not None and k % 256 == 0:
            progress((k + warmup) / (warmup + decisions))
    if counts is not None:
        counts.update({name: after - before[name] for name, after in _counted(entry, env.state).items()})
    return sums


def _fields_counted(entry: Entry) -> set[str]:
    """The fields of the state that the model's `rates` and `trends` name."""
    return set(entry.model.rates.values()).union(*entry.model.trends.values())


def _counted(entry: Entry, state: Any) -> dict[str, NDArray[np.float64]]:
    """What these fields have counted so far, (R,) each."""
    return {name: getattr(state, name).astype(float) for name in _fields_counted(entry)}


def _vector_env(entry: Entry, instance: Any, rows: int, options: Mapping[str, Any]) -> Any:
    """Endless rows of the environment as a policy wants it, with its randomness synchronised where the model can."""
    env_type = getattr(entry.layer("envs"), f"{entry.prefix}VectorEnv")
    assert issubclass(env_type, gym.vector.VectorEnv)
    return env_type(instance, num_envs=rows, **{**entry.model.evaluation_options, **options})
