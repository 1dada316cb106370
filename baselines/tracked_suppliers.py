"""Policies that treat suppliers of one type differently: Balanced Greedy, and what all of them need.

They give each supplier a private mark when it arrives: TOP or BOTTOM, or the set of customer types that it will serve (see
`matchgym.baselines.drawn_neighbours`). Marks are not in the observation, which shows only how many suppliers wait. The policy
therefore keeps a random 64-bit name for every waiting supplier and, at each decision, draws which of them have left from the
exact conditional law given the two observations. Marks do not influence arrivals and departures, so the names follow the law
they would have if every event were seen:

Let Q be the queues after the last match and Q' those now. Suppliers of type i that were waiting survive a time t with
probability p_i = exp(-mu_i t), and Poisson(a_i) new ones wait at its end, a_i = rho_i (1 - p_i). Given t, the number of
survivors S_i among Q_i has weights C(Q_i, s) p_i^s (1 - p_i)^(Q_i - s) a_i^(Q'_i - s) / (Q'_i - s)!, whose sum f_i(t) is the
likelihood of Q'_i; given all queues, t has density proportional to exp(-gamma t) prod_i f_i(t) exp(-a_i), with gamma the sum
of all customer rates. The survivors are a uniformly random subset, the others are new, with fresh names. The integral over t
is a sum over the nodes of a double-exponential rule (t = exp(x - exp(-x)) / gamma, Takahasi and Mori), accurate to rounding.
"""

import math
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtrc

from matchgym.baselines.policy import compiled
from matchgym.baselines.preference_lists import (
    Preferences,
    PriorityPolicy,
    ProposalPolicy,
    customer_kernel,
    preferences,
    priority_kernel,
)
from matchgym.envs.compile import Integer, Integers, IntegerTable, Reals, RealTable, WordTable, kernel
from matchgym.envs.instance import InputError, Rates
from matchgym.envs.rng import next_word, uniform
from matchgym.envs.stationary_matching import StationaryMatchingInstance

STEP, REACH = 0.1, 4.2  # of the quadrature in x: about 85 nodes
TABLE_BYTES = 16 * 2**20
MAX_NAMES = 1e6
OVERFLOW = 1e-15  # probability of a queue longer than its space for names


class TrackedParams(NamedTuple):
    order: IntegerTable  # (J, I) preference lists
    length: Integers  # (J,)
    proposal: RealTable  # (J, I) probability that a supplier admits the customer type, aligned with `order`
    offset: Integers  # (I + 1,) where the names of each type begin
    log_weight: Reals  # (K,) log of node weight x exp(-gamma t) x exp(-sum_i a_i)
    survival: RealTable  # (I, K) p_i
    departure: RealTable  # (I, K) 1 - p_i
    newcomers: RealTable  # (I, K) a_i
    side: Integer  # the table below serves queues < side
    log_likelihood: RealTable  # (I side^2, K) log f_i, row (i side + Q) side + Q'


class TrackedMemory(NamedTuple):
    stream: WordTable  # (B, 4)
    known: IntegerTable  # (B, I) suppliers with a name
    names: WordTable  # (B, offset[-1])
    weight: RealTable  # (B, K) working space


@kernel
def forget_kernel(memory, b):
    """Start of an episode: nobody has a name."""
    memory.known[b, :] = 0


@kernel
def ratio_kernel(s, queue, now, odds, newcomers):
    """Weight of s - 1 survivors over the weight of s."""
    return s * newcomers / (odds * (queue - s + 1.0) * (now - s + 1.0))


@kernel
def mode_kernel(queue, now, odds, newcomers):
    """The most likely number of survivors."""
    s = min(queue, now)
    while s > 0 and ratio_kernel(s, queue, now, odds, newcomers) > 1.0:
        s -= 1
    return s


@kernel
def log_likelihood_kernel(queue, now, survival, departure, newcomers):
    """log f_i for one type, summed outwards from the largest term."""
    odds = survival / departure
    mode = mode_kernel(queue, now, odds, newcomers)
    total = term = 1.0
    for s in range(mode, 0, -1):
        term *= ratio_kernel(s, queue, now, odds, newcomers)
        total += term
    term = 1.0
    for s in range(mode + 1, min(queue, now) + 1):
        term /= ratio_kernel(s, queue, now, odds, newcomers)
        total += term
    largest = math.lgamma(queue + 1.0) - math.lgamma(mode + 1.0) - math.lgamma(queue - mode + 1.0)
    largest -= math.lgamma(now - mode + 1.0)
    if mode > 0:
        largest += mode * math.log(survival)
    return largest + (queue - mode) * math.log(departure) + (now - mode) * math.log(newcomers) + math.log(total)


@kernel
def survivors_kernel(rng, b, queue, now, survival, departure, newcomers):
    """Draw the number of survivors S_i given t."""
    odds, most = survival / departure, min(queue, now)
    mode = mode_kernel(queue, now, odds, newcomers)
    total = term = 1.0
    for s in range(mode, 0, -1):
        term *= ratio_kernel(s, queue, now, odds, newcomers)
        total += term
    term = 1.0
    for s in range(mode + 1, most + 1):
        term /= ratio_kernel(s, queue, now, odds, newcomers)
        total += term
    level = uniform(rng, b) * total - 1.0
    if level < 0.0:
        return mode
    term = 1.0
    for s in range(mode, 0, -1):
        term *= ratio_kernel(s, queue, now, odds, newcomers)
        level -= term
        if level < 0.0:
            return s - 1
    term = 1.0
    for s in range(mode + 1, most + 1):
        term /= ratio_kernel(s, queue, now, odds, newcomers)
        level -= term
        if level < 0.0:
            return s
    return mode


@kernel
def elapsed_kernel(params, memory, b, obs, rng):
    """Draw the node of the time since the last match from its law given the queues then, `memory.known`, and now."""
    n, nodes = memory.known.shape[1], len(params.log_weight)
    for k in range(nodes):
        memory.weight[b, k] = params.log_weight[k]
    for i in range(n):
        queue, now = memory.known[b, i], int(obs[i])
        if queue == 0 and now == 0:
            continue
        if queue < params.side and now < params.side:
            row = (i * params.side + queue) * params.side + now
            for k in range(nodes):
                memory.weight[b, k] += params.log_likelihood[row, k]
        else:
            for k in range(nodes):
                memory.weight[b, k] += log_likelihood_kernel(
                    queue, now, params.survival[i, k], params.departure[i, k], params.newcomers[i, k]
                )
    largest = memory.weight[b, 0]
    for k in range(1, nodes):
        largest = max(largest, memory.weight[b, k])
    total = 0.0
    for k in range(nodes):
        memory.weight[b, k] = math.exp(memory.weight[b, k] - largest)
        total += memory.weight[b, k]
    level, node = uniform(rng, b) * total - memory.weight[b, 0], 0
    while level >= 0.0 and node < nodes - 1:
        node += 1
        level -= memory.weight[b, node]
    return node


@kernel
def follow_kernel(params, memory, b, obs, rng):
    """Bring the names up to date with the observed queues."""
    n = memory.known.shape[1]

    # Elapsed time.
    node = elapsed_kernel(params, memory, b, obs, rng)

    # Departures and arrivals.
    for i in range(n):
        queue, now, first = memory.known[b, i], int(obs[i]), params.offset[i]
        if now > params.offset[i + 1] - first:
            raise OverflowError("a queue is longer than any that can occur with probability above 1e-15")
        survivors = min(queue, now)
        if survivors > 0:
            survivors = survivors_kernel(
                rng, b, queue, now, params.survival[i, node], params.departure[i, node], params.newcomers[i, node]
            )
        while queue > survivors:
            gone = int(uniform(rng, b) * queue)
            queue -= 1
            memory.names[b, first + gone] = memory.names[b, first + queue]
        for k in range(queue, now):
            memory.names[b, first + k] = next_word(rng, b)
        memory.known[b, i] = now


@kernel
def take_kernel(params, memory, b, i, place):
    """Forget a supplier of type i that is matched; returns its type, the action."""
    memory.known[b, i] -= 1
    memory.names[b, params.offset[i] + place] = memory.names[b, params.offset[i] + memory.known[b, i]]
    return i


@kernel
def balanced_kernel(params, memory, b, obs, mask, rng):
    """A TOP supplier of the customer's list if there is one, else a BOTTOM one; TOP is a name whose last bit is 0."""
    follow_kernel(params, memory, b, obs, rng)
    n = memory.known.shape[1]
    j = customer_kernel(obs, n)
    for is_bottom_allowed in range(2):
        for k in range(params.length[j]):
            i = params.order[j, k]
            for place in range(memory.known[b, i]):
                if is_bottom_allowed or memory.names[b, params.offset[i] + place] & np.uint64(1) == 0:
                    return take_kernel(params, memory, b, i, place)
    return n


@kernel
def tabulate(survival, departure, newcomers, side, table):
    """log f_i for all queues < side."""
    for i in range(len(survival)):
        for queue in range(side):
            for now in range(side):
                for k in range(survival.shape[1]):
                    table[(i * side + queue) * side + now, k] = log_likelihood_kernel(
                        queue, now, survival[i, k], departure[i, k], newcomers[i, k]
                    )


class Nodes(NamedTuple):
    """The quadrature over the time between two observations, and what it needs; fields as in `TrackedParams`."""

    elapsed: NDArray[np.float64]  # (K,) t
    space: list[int]  # lengths that the queues hardly ever exceed
    log_weight: NDArray[np.float64]
    survival: NDArray[np.float64]
    departure: NDArray[np.float64]
    newcomers: NDArray[np.float64]
    side: int
    log_likelihood: NDArray[np.float64]


def quadrature(instance: Rates) -> Nodes:
    """Quadrature nodes and likelihood tables for an instance."""
    x = np.arange(-REACH, REACH + STEP, STEP)
    scaled = np.exp(x - np.exp(-x))  # gamma t
    elapsed = scaled / instance.customer_rates.sum()
    survival = np.exp(-np.outer(instance.departure_rates, elapsed))
    departure = -np.expm1(-np.outer(instance.departure_rates, elapsed))
    newcomers = instance.offered[:, None] * departure
    log_weight = np.log(STEP * (1 + np.exp(-x)) * scaled) - scaled - newcomers.sum(0)
    keep = (log_weight > log_weight.max() - 80) & (departure > 0).all(0) & (newcomers > 0).all(0)
    survival, departure, newcomers = survival[:, keep], departure[:, keep], newcomers[:, keep]
    n, nodes = survival.shape
    if instance.offered.sum() > MAX_NAMES:
        raise InputError(
            f"this policy keeps a name for every waiting supplier, and instance {instance.name!r} has "
            f"{instance.offered.sum():.3g} of them on average, above {MAX_NAMES:.0e}: choose another policy."
        )
    space = [longest_queue(offered) for offered in instance.offered]
    side = min(max(space) + 1, int(np.sqrt(TABLE_BYTES / (8 * n * nodes))))
    table = np.empty((n * side * side, nodes))
    tabulate(survival, departure, newcomers, side, table)
    return Nodes(elapsed[keep], space, log_weight[keep], survival, departure, newcomers, side, table)


def tracked_params(instance: StationaryMatchingInstance, lists: Preferences) -> TrackedParams:
    """What the two policies of this file read."""
    nodes = quadrature(instance)
    return TrackedParams(
        *lists,
        offset=np.concatenate([[0], np.cumsum(nodes.space)]),
        log_weight=nodes.log_weight,
        survival=nodes.survival,
        departure=nodes.departure,
        newcomers=nodes.newcomers,
        side=nodes.side,
        log_likelihood=nodes.log_likelihood,
    )


def longest_queue(offered: float) -> int:
    """A length that Poisson(offered) exceeds with probability at most OVERFLOW."""
    longest = int(offered + 8 * math.sqrt(offered) + 8)
    while pdtrc(longest, offered) > OVERFLOW:
        longest += 1 + longest // 20
    return longest


class TrackedPolicy(ProposalPolicy):
    """Base of the policies with marks; all start from Algorithm 1's x and p."""

    reads_glimpse: ClassVar[bool] = False
    Params: ClassVar[type] = TrackedParams
    Memory: ClassVar[type] = TrackedMemory
    params_: TrackedParams  # type: ignore[assignment]

    def memory(self, batch: int) -> TrackedMemory:
        n, nodes = self.params_.survival.shape
        return TrackedMemory(
            stream=np.zeros((batch, 4), np.uint64),
            known=np.zeros((batch, n), np.int64),
            names=np.zeros((batch, self.params_.offset[-1]), np.uint64),
            weight=np.zeros((batch, nodes)),
        )


@compiled(__file__, priority_kernel)
class FixedPriority(PriorityPolicy):
    """Given lists: `order` names supplier types (J, I), best first, of which the first `length` (J,) count."""

    def __init__(self, lists: Preferences) -> None:
        self.lists = lists

    def _prepare(self) -> None:
        self.params_ = self.lists


@compiled(__file__, balanced_kernel, forget_kernel)
class BalancedGreedy(TrackedPolicy):
    """Algorithm 2: greedy on the edges of hard customer types, TOP suppliers before BOTTOM ones (Section 3.2).

    Customer type j is hard if for some r_j the edges with r_ij in [r_j, (1 + eps) r_j] carry at least (1 - eps) of its LP gain,
    and those of them with p_ij >= 1 - eps_prime carry sum_i y_ij >= 1 - 2 eps_prime (Definition 3.4). Only these edges are
    kept. The policy has no guarantee unless most of the LP gain comes from hard types (`is_hard_`); it may earn nothing.

    Parameters
    ----------
    eps, eps_prime : see above; the paper's own values are far too small to act on.
    transform : whether to keep only those edges (Step 1); otherwise all edges with x_ij > 0 are kept.
    x : (I, J) feasible match rates to follow in place of the solution of TLP_on.
    """

    def __init__(
        self, eps: float = 0.1, eps_prime: float = 0.1, transform: bool = True, x: NDArray[np.float64] | None = None
    ) -> None:
        super().__init__(x)
        if not (0 < eps < 1 and 0 < eps_prime < 0.5):
            raise InputError(f"eps must lie in (0, 1) and eps_prime in (0, 0.5), not {eps:g} and {eps_prime:g}.")
        self.eps, self.eps_prime, self.transform = eps, eps_prime, transform

    def _propose(self, p: NDArray[np.float64]) -> None:
        super()._propose(p)
        rewards = self.instance.rewards
        gains = rewards * self.solution_
        hard = np.zeros(rewards.shape, np.bool_)
        for j in range(rewards.shape[1]):
            window = self._window(j, gains[:, j])
            sure = window & (p[:, j] >= 1 - self.eps_prime)
            if self.solution_[sure, j].sum() >= (1 - 2 * self.eps_prime) * self.instance.customer_rates[j]:
                hard[:, j] = sure
        self.is_hard_ = bool(gains[:, ~hard.any(0)].sum() < self.eps * gains.sum())
        self.kept_ = hard if self.transform else gains > 0
        self.lists_ = preferences(self.kept_, rewards, self.proposal_)
        self.params_ = tracked_params(self.instance, self.lists_)

    def _window(self, j: int, gains: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The edges (I,) of customer type j with rewards in the best window, none if they carry too little of its LP gain."""
        rewards = self.instance.rewards[:, j]
        best, captured = np.zeros(len(rewards), np.bool_), 0.0
        for left in np.unique(rewards[gains > 0]):
            window = (gains > 0) & (rewards >= left) & (rewards <= (1 + self.eps) * left)
            if gains[window].sum() > captured:
                best, captured = window, gains[window].sum()
        return best if captured > 0 and captured >= (1 - self.eps) * gains.sum() else np.zeros_like(best)

    def equivalent(self) -> tuple[StationaryMatchingInstance, FixedPriority]:
        """Two types per supplier type on a list, TOP and BOTTOM, each arriving at half the rate; lists go through TOP first."""
        instance, lists = self.instance, self.lists_
        listed = [row[:length] for row, length in zip(lists.order, lists.length)]
        matched = np.unique(np.concatenate([*listed, [0]]))  # the others change nothing; one type at least
        n, place = len(matched), np.searchsorted(matched, np.arange(instance.n_suppliers))
        split = StationaryMatchingInstance(
            name=f"{instance.name[:80]} with marks",
            supplier_rates=np.tile(instance.supplier_rates[matched] / 2, 2),
            departure_rates=np.tile(instance.departure_rates[matched], 2),
            customer_rates=instance.customer_rates,
            rewards=np.tile(instance.rewards[matched], (2, 1)),
        )
        order = np.zeros((len(lists.order), 2 * n), np.int64)
        for row, types in zip(order, listed):
            row[: 2 * len(types)] = np.concatenate([place[types], place[types] + n])
        return split, FixedPriority(Preferences(order, 2 * lists.length, np.ones(order.shape))).fit(split)
