"""Policies for congestion-aware learning: Algorithms 1 and 2 of Sun, Chai and Zhao, their relatives, and plain rules.

Every policy acts in the environment's option `action` that it needs ("server" or "probabilities"), which `options` names; those
that know the rewards also ask for the option `known_rewards`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.baselines import congestion_rules as rules
from matchgym.baselines.barrier_programme import (
    EXACT_GAP,
    EXACT_LOADS,
    BarrierSolution,
    check_barrier,
    solve_barrier,
    workspace,
)
from matchgym.baselines.policy import CompiledPolicy, Policy, compiled
from matchgym.bounds.slotted_chain import Value, fixed_value, rule_value
from matchgym.envs.base import Model
from matchgym.envs.congestion_instances import CongestionLearningInstance
from matchgym.envs.congestion_learning import MODEL
from matchgym.envs.instance import InputError, is_count, shorten

__all__ = ["POLICIES", "BarrierSolution", "exact_value", "solve_barrier"]

V, EPS, STAGE = 1000.0, 0.01, 50  # the paper's, and the best of its lengths of a first stage
GAP = 1e-6  # of programme (7) in simulation, or 1e-3 / V if that is less
SERVER = {"action": "server"}
PROBABILITIES = {"action": "probabilities"}
KNOWN = {"known_rewards": True}


@compiled(__file__, rules.act_kernel, rules.forget_kernel)
class CongestionPolicy(CompiledPolicy):
    """Base of the policies of this file: a belief and a rule, see `congestion_rules`."""

    model: ClassVar[Model] = MODEL
    Params: ClassVar[type] = rules.Knobs
    Memory: ClassVar[type] = rules.Learner
    instance: CongestionLearningInstance
    params_: rules.Knobs
    is_deterministic: ClassVar[bool] = True
    belief: int = rules.NOTHING
    rule: int = rules.EVEN
    v: float = V
    eps: float = 0.0
    cap: float | None = None
    radius: float = 1.0
    floor: float = 0.0
    stage: int = 0
    is_horizon_aware: bool = False
    has_own_clocks: bool = False

    def known(self, instance: Any) -> dict[str, Any]:
        """The first fields of `Knobs`: what the platform knows of its instance."""
        present = np.flatnonzero(instance.arrival_rates > 0)
        return {
            "arrival_rates": instance.arrival_rates[present],
            "present": present,
            "capacities": instance.capacities,
            "allowed": np.asarray(instance.compatibility),
            "rewards": np.zeros(instance.allowed.shape) if instance.rewards is None else instance.mean_rewards,
            "features": instance.features,
            "has_rewards": int(instance.rewards is not None),
        }

    def fit(self, instance: Any) -> Self:
        self.instance = loaded = self.model.load(instance)
        if self.rule == rules.BARRIER:
            check_barrier(loaded.arrival_rates, loaded.capacities, self.v, loaded.reward_cap or 1.0)
            if not loaded.allowed.all():  # is there room for all jobs on the servers that may take them?
                solve_barrier(loaded.arrival_rates, 0.0 * loaded.allowed, 1.0, loaded.capacities, loaded.allowed)
        if self.belief == rules.RIDGE and not loaded.features.size:
            raise InputError(f"instance {loaded.name!r} has no job_features and server_features, which ridge policies need.")
        for name in ("eps", "radius", "floor"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be a finite number >= 0, not {shorten(value)}.")
        cap = loaded.reward_cap if self.cap is None else self.cap
        if cap is None or not (np.isfinite(cap) and cap > 0 and cap >= self.floor):
            raise InputError(f"cap must be a finite number > 0 and not below floor, not {shorten(cap)}.")
        if not is_count(self.stage):
            raise InputError(f"stage must be an integer >= 0, not {shorten(self.stage)}.")
        is_tight = self.belief in (rules.EMPIRICAL, rules.TRUTH)  # programme (7) is solved once per episode
        self.params_ = rules.Knobs(
            **self.known(loaded),
            belief=self.belief,
            rule=self.rule,
            horizon=loaded.horizon,
            v=self.v,
            eps=self.eps,
            cap=cap,
            floor=self.floor,
            radius=self.radius,
            gap=EXACT_GAP if is_tight else min(GAP, 1e-3 / self.v),
            complementarity=EXACT_LOADS if is_tight else np.inf,
            stage=self.stage,
            is_horizon_aware=int(self.is_horizon_aware),
            has_own_clocks=int(self.has_own_clocks),
        )
        self.action_space_ = self.model.action_space(loaded, self.model.check_options(self.options))
        return self

    def memory(self, batch: int) -> rules.Learner:
        n, m = self.params_.allowed.shape
        assert self.action_space_ is not None
        size = int(np.prod(self.action_space_.shape or ()))
        return rules.memory(batch, size, n, m, workspace(n, m), self.params_.features.shape[1])

    def masks(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        is_masked = isinstance(self.action_space_, gym.spaces.MultiDiscrete)
        mask = self.params_.allowed.astype(bool).ravel() if is_masked else np.zeros(0, bool)
        return np.tile(mask, (len(observation), 1))

    def probabilities(self, observation: Any, action_masks: Any = None) -> NDArray[np.float64]:
        raise InputError(f"{type(self).__name__} chooses among combinations of servers; ask `predict` for its action.")

    def exact_value(self, max_states: int | None = None) -> Value:
        """The expected reward per slot over the horizon, computed; InputError where that is out of reach."""
        raise InputError(f"{type(self).__name__} learns, and has no exact value; leave out --exact to simulate it.")


class Random(CongestionPolicy):
    """Every job to a random server."""

    options: ClassVar[Mapping[str, Any]] = PROBABILITIES
    belief, rule = rules.NOTHING, rules.EVEN

    def exact_value(self, max_states: int | None = None) -> Value:
        return fixed_value(self.instance, self.instance.allowed / self.instance.allowed.sum(1, keepdims=True))


class BarrierUCB(CongestionPolicy):
    """Algorithm 1 (BB): route by the solution of programme (7) at upper confidence bounds (6)."""

    options: ClassVar[Mapping[str, Any]] = PROBABILITIES
    belief, rule = rules.UPPER, rules.BARRIER

    def __init__(self, V: float = V, cap: float | None = None, radius: float = 1.0, floor: float = 0.0) -> None:
        self.v, self.cap, self.radius, self.floor = V, cap, radius, floor


class QueueUCB(CongestionPolicy):
    """Algorithm 2 (QB): the largest r_ij(t) - eps Q_j at upper confidence bounds (6)."""

    options: ClassVar[Mapping[str, Any]] = SERVER
    belief, rule = rules.UPPER, rules.QUEUE_SERVER

    def __init__(self, eps: float = EPS, cap: float | None = None, radius: float = 1.0, floor: float = 0.0) -> None:
        self.eps, self.cap, self.radius, self.floor = eps, cap, radius, floor


class HorizonQueueUCB(QueueUCB):
    """Algorithm 2, leaving out servers whose queue a new job would not get through before the horizon."""

    is_horizon_aware = True


class GreedyUCB(CongestionPolicy):
    """The largest upper confidence bound, whatever the queues."""

    options: ClassVar[Mapping[str, Any]] = SERVER
    belief, rule = rules.UPPER, rules.QUEUE_SERVER

    def __init__(self, cap: float | None = None, radius: float = 1.0, floor: float = 0.0) -> None:
        self.cap, self.radius, self.floor = cap, radius, floor


class BarrierRidge(BarrierUCB):
    """Algorithm 1 at the upper confidence bounds of the bilinear model r_ij = f_i' Theta g_j (conclusion of the paper).

    Theta is learnt by ridge regression on phi_ij = vec(f_i g_j'), so that a reward at one pair tells of all; an estimate is
    theta . phi_ij + radius sqrt(phi_ij' A^-1 phi_ij), at most the cap. f and g are the instance's job_features and
    server_features.
    """

    belief = rules.RIDGE


class QueueRidge(QueueUCB):
    """Algorithm 2 at the upper confidence bounds of the bilinear model; see `BarrierRidge`."""

    belief = rules.RIDGE


class TwoStageBarrier(CongestionPolicy):
    """TSBB (EC.3.1): random for `stage` slots, then the solution of programme (7) at the empirical means."""

    options: ClassVar[Mapping[str, Any]] = PROBABILITIES
    belief, rule = rules.EMPIRICAL, rules.BARRIER

    def __init__(self, stage: int = STAGE, V: float = V, cap: float | None = None) -> None:
        self.stage, self.v, self.cap = stage, V, cap


class TwoStageQueue(CongestionPolicy):
    """TSQB (EC.3.1): random for `stage` slots, then the largest r_ij - eps Q_j at the empirical means."""

    options: ClassVar[Mapping[str, Any]] = PROBABILITIES
    belief, rule = rules.EMPIRICAL, rules.QUEUE_WEIGHTS

    def __init__(self, stage: int = STAGE, eps: float = EPS, cap: float | None = None) -> None:
        self.stage, self.eps, self.cap = stage, eps, cap


class ThompsonBarrier(CongestionPolicy):
    """Programme (7) at a draw from the posterior of the rewards."""

    options: ClassVar[Mapping[str, Any]] = PROBABILITIES
    belief, rule = rules.POSTERIOR, rules.BARRIER
    is_deterministic: ClassVar[bool] = False

    def __init__(self, V: float = V, cap: float | None = None, floor: float = 0.0) -> None:
        self.v, self.cap, self.floor = V, cap, floor


class ThompsonQueue(CongestionPolicy):
    """The largest r_ij - eps Q_j at a draw from the posterior of the rewards."""

    options: ClassVar[Mapping[str, Any]] = SERVER
    belief, rule = rules.POSTERIOR, rules.QUEUE_SERVER
    is_deterministic: ClassVar[bool] = False

    def __init__(self, eps: float = EPS, cap: float | None = None, floor: float = 0.0) -> None:
        self.eps, self.cap, self.floor = eps, cap, floor


class BarrierKnown(CongestionPolicy):
    """Programme (8): Algorithm 1 for known rewards, a fixed law of routing."""

    options: ClassVar[Mapping[str, Any]] = PROBABILITIES | KNOWN
    belief, rule = rules.TRUTH, rules.BARRIER

    def __init__(self, V: float = V) -> None:
        self.v = V

    def exact_value(self, max_states: int | None = None) -> Value:
        found = solve_barrier(
            self.instance.arrival_rates, self.instance.mean_rewards, self.v, self.instance.capacities, self.instance.allowed
        )
        return fixed_value(self.instance, found.probabilities)


class QueueKnown(CongestionPolicy):
    """Rule (10): Algorithm 2 for known rewards."""

    options: ClassVar[Mapping[str, Any]] = SERVER | KNOWN
    belief, rule = rules.TRUTH, rules.QUEUE_SERVER

    def __init__(self, eps: float = EPS) -> None:
        self.eps = eps

    def exact_value(self, max_states: int | None = None) -> Value:
        return rule_value(self.instance, self.instance.mean_rewards, self.eps, max_states)


class JSQ(CongestionPolicy):
    """Join the shortest queue, the smallest index among equals; all jobs of a type in a slot go together."""

    options: ClassVar[Mapping[str, Any]] = SERVER
    belief, rule = rules.NOTHING, rules.QUEUE_SERVER
    eps = 1.0

    def exact_value(self, max_states: int | None = None) -> Value:
        return rule_value(self.instance, np.zeros(self.instance.allowed.shape), 1.0, max_states)


def exact_value(policy: Policy, max_states: int | None = None) -> Value:
    """The expected reward per slot of a fitted policy over the horizon; InputError where it cannot be computed."""
    if not isinstance(policy, CongestionPolicy):
        raise InputError("a trained agent has no exact value in this model; leave out --exact to simulate it.")
    return policy.exact_value(max_states)


POLICIES: dict[str, type[Policy]] = {
    "random": Random,  # the anchor of scores
    "barrier-ucb": BarrierUCB,
    "queue-ucb": QueueUCB,
    "greedy-ucb": GreedyUCB,
    "barrier-ridge": BarrierRidge,
    "queue-ridge": QueueRidge,
    "barrier-known": BarrierKnown,
    "queue-known": QueueKnown,
    "two-stage-barrier": TwoStageBarrier,
    "two-stage-queue": TwoStageQueue,
    "thompson-barrier": ThompsonBarrier,
    "thompson-queue": ThompsonQueue,
    "horizon-queue-ucb": HorizonQueueUCB,
    "jsq": JSQ,
}
