"""Policies for matching queues: the algorithms of arXiv 2501.08775 and the baselines they are compared with."""

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.exact import exact_value as exact_value  # for `scoring`
from matchgym.baselines.policy import Policy, compiled
from matchgym.baselines.preference_lists import (
    MatchingPolicy,
    PriorityPolicy,
    customer_kernel,
    preferences,
    priority_kernel,
    waiting_kernel,
)
from matchgym.baselines.priority_rounding import PriorityRounding
from matchgym.baselines.stationary_matching import Random as AnyRandom
from matchgym.baselines.stationary_matching import TableParams, random_kernel, table_kernel
from matchgym.bounds.matching_queues import PRICED_STATES, joint_block, nlp, separate_blocks
from matchgym.bounds.queue_blocks import mix
from matchgym.envs.base import Model
from matchgym.envs.compile import IntegerTable, RealTable, kernel
from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import MODEL, QueueNetwork, pooled_frontier
from matchgym.envs.rng import uniform
from matchgym.envs.single_queue import Rest, Segment, check_target, law_kernel, static_throughput

BISECTIONS = 200  # more than enough to reach neighbouring floats, unless the target is 0


class GateParams(NamedTuple):
    order: IntegerTable  # (m, n) queues by cost, cheapest first
    chance: RealTable  # (m, L + 1) that a customer is served when l suppliers wait in all; the last holds beyond L too


@kernel
def gate_kernel(gate, memory, b, obs, mask, rng):
    """The cheapest waiting supplier, with a probability that depends on how many wait in all."""
    n = gate.order.shape[1]
    j = customer_kernel(obs, n)
    total = 0
    for i in range(n):
        total += int(waiting_kernel(obs, i))
    chance = gate.chance[j, min(total, gate.chance.shape[1] - 1)]
    if chance <= 0.0 or (chance < 1.0 and uniform(rng, b) >= chance):
        return n
    for k in range(n):
        if waiting_kernel(obs, gate.order[j, k]) > 0:
            return gate.order[j, k]
    return n


class WorthParams(NamedTuple):
    rewards: RealTable  # (n, m)
    worth: RealTable  # (n, L + 1) of the l-th waiting supplier; the last holds beyond L too


@kernel
def worth_kernel(prices, memory, b, obs, mask, rng):
    """The waiting supplier whose reward exceeds its worth most; ties go to the lowest index."""
    n = len(prices.worth)
    j = customer_kernel(obs, n)
    chosen, best = n, 0.0
    for i in range(n):
        waiting = int(waiting_kernel(obs, i))
        if waiting > 0:
            margin = prices.rewards[i, j] - prices.worth[i, min(waiting, prices.worth.shape[1] - 1)]
            if margin > best:
                chosen, best = i, margin
    return chosen


class ShareParams(NamedTuple):
    cumulative: RealTable  # (m, n) probability that the queue tried is one of the first i + 1


@kernel
def share_kernel(shares, memory, b, obs, mask, rng):
    """Try one queue, drawn with fixed probabilities; no match if it is empty."""
    n = shares.cumulative.shape[1]
    j = customer_kernel(obs, n)
    level = uniform(rng, b)
    for i in range(n):
        if level < shares.cumulative[j, i]:
            return i if waiting_kernel(obs, i) > 0 else n
    return n


class QueuesPolicy(MatchingPolicy):
    """Base of the policies of this file."""

    model: ClassVar[Model] = MODEL
    instance: QueueNetwork  # type: ignore[assignment]


@compiled(__file__, priority_kernel)
class Greedy(QueuesPolicy, PriorityPolicy):
    """The waiting supplier of largest reward theta - c_ij > 0."""

    def _prepare(self) -> None:
        self._follow(self.instance.rewards > 0, self.instance.rewards)


@compiled(__file__, priority_kernel)
class CheapestFirst(QueuesPolicy, PriorityPolicy):
    """Serve everybody, each by the cheapest waiting supplier: the largest throughput there is if abandonment rates agree."""

    def _prepare(self) -> None:
        self._follow(np.ones(self.instance.costs.shape, np.bool_), -self.instance.costs)


@compiled(__file__, random_kernel)
class Random(QueuesPolicy, AnyRandom):
    """A valid action, each equally likely."""


class _Gate(QueuesPolicy):
    """Base of the two threshold policies; in a network they look at all queues as one, see `pooled_frontier`."""

    Params: ClassVar[type] = GateParams
    params_: GateParams

    def _open(self, chance: NDArray[np.float64]) -> None:
        costs = self.instance.costs
        order = preferences(np.ones(costs.shape, np.bool_), -costs, np.ones(costs.shape)).order
        self.params_ = GateParams(order, chance)

    def probabilities(self, observation: NDArray[np.float32], action_masks: Any = None) -> NDArray[np.float64]:
        queues, customers = self._split(observation)
        order, chance = self.params_.order[customers], self.params_.chance
        served = chance[customers, np.minimum(queues.sum(1).astype(int), chance.shape[1] - 1)]
        waiting = np.take_along_axis(queues, order, 1) > 0
        first = np.take_along_axis(order, waiting.argmax(1)[:, None], 1)[:, 0]
        law = np.zeros((len(queues), queues.shape[1] + 1))
        law[np.arange(len(queues)), first] = np.where(waiting.any(1), served, 0.0)
        law[:, -1] = 1.0 - law.sum(1)
        return law


@compiled(__file__, gate_kernel)
class StaticThreshold(_Gate):
    """The best rule (k, p) that ignores the queue lengths: customer types cheaper than k always, type k with probability p.

    It meets the throughput target exactly, by the formulas of Section 2, for one queue; in a network it serves by the cheapest
    waiting supplier, and meets the target if all abandonment rates agree. `served_` (m,) are the probabilities.
    """

    def _prepare(self) -> None:
        instance = self.instance
        queue = float(instance.supplier_rates.sum()), float(instance.departure_rates.min())
        self.served_, _ = static_threshold(*queue, instance.customer_rates, instance.costs.min(0), instance.throughput_target)
        self._open(np.column_stack([np.zeros(len(self.served_)), self.served_]))


def static_threshold(
    rate: float, departure_rate: float, customer_rates: NDArray[np.float64], costs: NDArray[np.float64], target: float
) -> tuple[NDArray[np.float64], float]:
    """Probabilities (m,) of serving each customer type that meet a target in one queue at least cost, and that cost.

    The throughput g (1 - pi_0) increases with the rate g of customers served, so that the rule serves the cheapest types, up to
    the rate that meets the target.
    """
    order = np.argsort(costs, kind="stable")
    rates = customer_rates[order]
    target = check_target(target, static_throughput(rate, departure_rate, float(rates.sum())))
    low, high = 0.0, float(rates.sum())
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if static_throughput(rate, departure_rate, middle) < target else (low, middle)
    served = np.empty(len(rates))
    served[order] = ((high - np.r_[0.0, rates.cumsum()[:-1]]) / rates).clip(0, 1)
    share_served = static_throughput(rate, departure_rate, high) / high if high > 0 else 0.0
    return served, share_served * float((served * customer_rates) @ costs)


@compiled(__file__, gate_kernel)
class DynamicThreshold(_Gate):
    """The optimum of the Dynamic LP: serve type j iff at least b_j suppliers wait, with one randomising state.

    Optimal for one queue. In a network it decides by the total number waiting, as if the queues were one, and serves by the
    cheapest waiting supplier; the target is then met if all abandonment rates agree. `chance_` (m, L + 1) has the probability
    of serving each type in each state.
    """

    def _prepare(self) -> None:
        instance = self.instance
        segment = pooled_frontier(instance)
        queue = float(instance.supplier_rates.sum()), float(instance.departure_rates.min())
        self.chance_ = one_randomising_state(segment, *queue, instance.customer_rates, instance.throughput_target)
        self._open(self.chance_)


def one_randomising_state(
    segment: Segment, rate: float, departure_rate: float, customer_rates: NDArray[np.float64], target: float
) -> NDArray[np.float64]:
    """The policy (m, cap + 1) of throughput `target` on a segment of the hull that randomises in one state at most.

    Both ends are best at the segment's price, and so is every policy that agrees with one or the other in each state. Changing
    the states of the left end into those of the right one by one, the throughput crosses the target at some state: there, the
    probability that solves p_0 + ... = 1 with the target is a mixture of the two laws.
    """
    right = segment.right.policy.is_serving.astype(float)
    left = np.zeros_like(right) if isinstance(segment.left, Rest) else segment.left.policy.is_serving.astype(float)

    def solved(serving: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        service, law = customer_rates @ serving, np.empty(serving.shape[1])
        law_kernel(rate, departure_rate, service, law)
        return float(service @ law), law

    lower, (throughput, law) = left, solved(left)
    for state in np.flatnonzero((left != right).any(0))[::-1]:
        upper = lower.copy()
        upper[:, state] = right[:, state]
        more, more_law = solved(upper)
        if more >= target or (upper == right).all():
            weight = min(1.0, max(0.0, (target - throughput) / (more - throughput))) if more > throughput else 1.0
            mass = weight * more_law[state], (1 - weight) * law[state]
            share = mass[0] / (mass[0] + mass[1]) if mass[0] + mass[1] > 0 else weight
            upper[:, state] = share * upper[:, state] + (1 - share) * lower[:, state]
            return upper
        lower, throughput, law = upper, more, more_law
    return lower


@compiled(__file__, worth_kernel)
class PriceGreedy(QueuesPolicy):
    """The waiting supplier of largest theta - c_ij - d_i(l_i) > 0, d_i(l) the worth of the l-th supplier of queue i.

    The worths are those of DLPtilde at the price theta: h_i(l) - h_i(l - 1) in each queue's own programme, with the customers'
    multipliers. For one queue this is the best policy.
    """

    Params: ClassVar[type] = WorthParams
    is_deterministic: ClassVar[bool] = True

    def _prepare(self) -> None:
        instance = self.instance
        blocks = separate_blocks(instance)
        prices = mix(instance, blocks, instance.rewards).prices
        length = max((block.caps[0] for block in blocks), default=1)
        self.worth_ = np.repeat(prices.suppliers[:, None], length + 1, axis=1)
        for block in blocks:
            bias = block.best(instance.rewards - prices.customers).bias
            self.worth_[block.queues[0]] = 0.0
            self.worth_[block.queues[0], 1 : len(bias)] = np.diff(bias)
        self.params_ = WorthParams(instance.rewards, self.worth_)


@compiled(__file__, share_kernel)
class NLPStatic(QueuesPolicy):
    """A customer of type j tries queue i with probability x_ij / gamma_j, x the match rates of the Network LP, whatever waits.

    `short` and `caps` are those of the programme, see `matchgym.bounds.matching_queues.nlp`; `solution_` has x (n, m).
    """

    Params: ClassVar[type] = ShareParams
    params_: ShareParams

    def __init__(self, short: tuple[int, ...] | None = None, caps: tuple[int, ...] | None = None) -> None:
        self.short, self.caps = short, caps

    def _prepare(self) -> None:
        self.solution_ = nlp(self.instance, self.short, self.caps).solution["match_rates"]
        shares = (self.solution_ / self.instance.customer_rates).T
        self.params_ = ShareParams((shares / np.maximum(1.0, shares.sum(1))[:, None]).cumsum(1))

    def probabilities(self, observation: NDArray[np.float32], action_masks: Any = None) -> NDArray[np.float64]:
        queues, customers = self._split(observation)
        law = np.diff(self.params_.cumulative[customers], axis=1, prepend=0.0) * (queues > 0)
        return np.column_stack([law, 1.0 - law.sum(1)])


@compiled(__file__, table_kernel)
class Optimal(QueuesPolicy):
    """The best policy for the objective theta tau - c, from average-reward dynamic programming; small instances only."""

    Params: ClassVar[type] = TableParams
    is_deterministic: ClassVar[bool] = True

    def _prepare(self) -> None:
        block = joint_block(self.instance)
        if block is None:
            raise InputError(
                f"policy optimal needs more than {PRICED_STATES} states for instance {self.instance.name!r} "
                f"({self.instance.n_suppliers} supplier types): choose another policy."
            )
        self.params_ = TableParams(block.best(self.instance.rewards).actions, np.array(block.caps))


POLICIES: dict[str, type[Policy]] = {
    "greedy": Greedy,  # the anchor of scores
    "random": Random,
    "cheapest-first": CheapestFirst,
    "static-threshold": StaticThreshold,
    "dynamic-threshold": DynamicThreshold,
    "price-greedy": PriceGreedy,
    "nlp-static": NLPStatic,
    "priority-rounding": PriorityRounding,
    "optimal": Optimal,
}
