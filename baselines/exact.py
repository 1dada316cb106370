"""Exact long-run values of policies on small instances of matching with waiting suppliers, and the best of several."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.evaluation import evaluate
from matchgym.baselines.policy import Policy
from matchgym.baselines.preference_lists import implied_masks
from matchgym.bounds.chain import Box, PolicyValue, make_box, policy_value
from matchgym.envs.instance import InputError, Rates

ERROR = 1e-10  # of an exact value, relative to the reward flow
SMALL_STATES = 20_000  # `best_of` solves chains up to this size and simulates beyond

P = TypeVar("P", bound=Policy)


def exact_value(policy: Policy, max_states: int | None = None) -> PolicyValue:
    """The long-run reward per unit of time of a fitted policy, by solving its Markov chain.

    A policy with hidden memory is replaced by its equivalent on an instance with more types. Raises InputError if the chain has
    too many states.
    """
    own = policy.acting.own_value(max_states)
    if own is not None:
        return own
    found, markov = policy.acting.equivalent()
    instance: Any = found
    return chain_value(instance, lambda box: _law(markov, box), type(policy.acting).__name__, max_states)


def chain_value(
    instance: Rates, law_of: Callable[[Box], NDArray[np.float64]], name: str, max_states: int | None = None
) -> PolicyValue:  # fmt: skip
    """The value of a stationary policy, called `name`, whose law on a box of queues is match[j, i, s] = law_of(box)."""
    scale = float(instance.customer_rates @ np.abs(instance.rewards).max(0)) or 1.0
    tail = 1e-12
    while True:
        box = make_box(instance, tail, np.ones(instance.n_suppliers), "an exact value", max_states)
        value = policy_value(box, law_of(box))
        if value.error <= ERROR * scale:
            return value
        if tail < 1e-40:
            raise InputError(f"the chain of {name} on {instance.name!r} is too ill-conditioned to be exact.")
        tail *= 1e-4


def _law(policy: Policy, box: Box) -> np.ndarray:
    """match[j, i, s]: the probability that a customer of type j takes type i in state s; an invalid action takes nobody."""
    n, m = box.instance.rewards.shape
    match = np.empty((m, n, box.size))
    obs = np.zeros((box.size, n + m), np.float32)
    obs[:, :n] = box.queues.T
    for j in range(m):
        obs[:, n:] = np.arange(m) == j
        masks = implied_masks(obs, box.instance)
        match[j] = np.where(masks, policy.probabilities(obs, masks), 0.0)[:, :n].T
    return match


def best_of(policies: Sequence[P], env_id: str = "StationaryMatching-v0") -> P:
    """The policy of largest value: exact where all chains are small, else by simulation under common random numbers."""
    try:
        values = [exact_value(policy, SMALL_STATES).mean for policy in policies]
    except InputError:
        values = [evaluate(policy, env_id, replications=16, warmup=1000, decisions=4000).objective.mean for policy in policies]
    return policies[int(np.argmax(values))]
