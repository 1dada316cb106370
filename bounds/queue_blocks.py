"""Networks of queues in blocks: what a block of queues can contribute, and the linear programmes that couple the blocks.

A policy of a network is looked at block by block: in each block of queues it makes some matches, at rates x_ij, as a policy of
those queues alone could. A programme over the rates, with the block's own policies as columns,

    max  sum_ij r_ij x_ij
    s.t. sum_i x_ij <= gamma_j                     each customer type j                   (multiplier beta_j, per match)
         sum_j x_ij <= lambda_i                    each queue i that is in no block       (u_i)
         sum_ij x_ij >= tau*                       if there is a target                   (theta)
         (x_ij) of block b is a mixture of match rates of policies of the block           (gain g_b at r_ij + theta - beta_j)

is a relaxation of the network whatever the blocks are. A queue in no block is called long: only its arrivals limit it. With all
queues in one block it is exact, with one block per queue it is DLPtilde (Appendix 6.7), with one block of short queues NLP
(Section 3, in the projected form, whose extreme points are the block's deterministic policies), without blocks the fluid LP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.chain import Box, Market, box_of, match_law, policy_iteration, stationary_law
from matchgym.bounds.programme import HeldProgramme
from matchgym.envs.matching_queues import QueueNetwork
from matchgym.envs.single_queue import solve_queue

GAP = 1e-11  # between the programme and its dual bound, relative: ends the column generation
MAX_ROUNDS = 2_000
FAILED_GAP = 1e-7  # more than this after MAX_ROUNDS is an error


@dataclass(frozen=True)
class BlockPolicy:
    """A deterministic policy of the queues of a block, on the box of their caps."""

    gain: float
    match_rates: NDArray[np.float64]  # (n, m), zero outside the block
    law: NDArray[np.float64]  # (S,) stationary
    bias: NDArray[np.float64]  # (S,)
    actions: NDArray[np.int64]  # (m, S) places in `Block.queues`, their number for no match
    costs: NDArray[np.float64]  # (n, m), per match

    @property
    def throughput(self) -> float:
        return float(self.match_rates.sum())

    @property
    def cost(self) -> float:
        return float((self.costs * self.match_rates).sum())


class Block(Protocol):
    """Some queues and their caps."""

    @property
    def queues(self) -> tuple[int, ...]: ...
    @property
    def caps(self) -> tuple[int, ...]: ...
    def best(self, rewards: NDArray[np.float64]) -> BlockPolicy:
        """The policy of largest gain for rewards (n, m) per match."""
        ...


class QueueBlock:
    """One queue, solved by `matchgym.envs.single_queue`."""

    def __init__(self, instance: QueueNetwork, queue: int, cap: int) -> None:
        self.instance, self.queues, self.caps = instance, (queue,), (cap,)

    def best(self, rewards: NDArray[np.float64]) -> BlockPolicy:
        instance, i = self.instance, self.queues[0]
        found = solve_queue(
            float(instance.supplier_rates[i]),
            float(instance.departure_rates[i]),
            instance.customer_rates,
            rewards[i],
            self.caps[0],
        )
        rates = np.zeros(instance.costs.shape)
        rates[i] = found.match_rates
        actions = np.where(found.is_serving, 0, 1)
        return BlockPolicy(found.gain, rates, found.law, found.worth.cumsum(), actions, instance.costs)


class BoxBlock:
    """Several queues together: policy iteration on the box of their lengths, each time from the last policy on."""

    def __init__(self, instance: QueueNetwork, queues: Sequence[int], caps: Sequence[int]) -> None:
        self.instance, self.queues, self.caps = instance, tuple(queues), tuple(caps)
        self._box = box_of(self._market(instance.costs), self.caps)
        self._last: NDArray[np.int64] | None = None

    def _market(self, rewards: NDArray[np.float64]) -> Market:
        instance, chosen = self.instance, list(self.queues)
        return Market(
            instance.name,
            instance.supplier_rates[chosen],
            instance.departure_rates[chosen],
            instance.customer_rates,
            rewards[chosen],
        )

    def best(self, rewards: NDArray[np.float64]) -> BlockPolicy:
        box = Box(self._market(rewards), self.caps, self._box.queues, self._box.up, self._box.down)
        found = policy_iteration(box, self._last)
        self._last = found.actions
        match = match_law(box, found.actions)
        law = stationary_law(box.generator(match)).clip(0)
        rates = np.zeros(self.instance.costs.shape)
        rates[list(self.queues)] = (self.instance.customer_rates[:, None] * (match @ law)).T
        return BlockPolicy(found.gain, rates, law, found.bias, found.actions, self.instance.costs)


def make_block(instance: QueueNetwork, queues: Sequence[int], caps: Sequence[int]) -> Block:
    """The block of some queues."""
    return QueueBlock(instance, queues[0], caps[0]) if len(queues) == 1 else BoxBlock(instance, queues, caps)


@dataclass(frozen=True)
class Prices:
    """Multipliers of the coupling constraints."""

    throughput: float  # theta, per match
    customers: NDArray[np.float64]  # (m,) beta_j, per match
    suppliers: NDArray[np.float64]  # (n,) u_i, per match; 0 within blocks


@dataclass(frozen=True)
class Mixture:
    """A solution of the programme: long-queue rates, and for each block policies with weights that sum to 1."""

    value: float
    prices: Prices
    match_rates: NDArray[np.float64]  # (n, m)
    policies: list[list[tuple[float, BlockPolicy]]]  # (weight, policy), heaviest first
    found: list[list[BlockPolicy]]  # all policies met


def mix(
    instance: QueueNetwork,
    blocks: Sequence[Block],
    rewards: NDArray[np.float64],
    target: float | None = None,
    known: Sequence[Sequence[BlockPolicy]] | None = None,
) -> Mixture:
    """Solve the programme for rewards (n, m) by column generation; `known` policies per block must make the target feasible.

    The multipliers returned are those of the best dual bound met.
    """
    lam, gamma = instance.supplier_rates, instance.customer_rates
    n, m = rewards.shape
    inside = {i for block in blocks for i in block.queues}
    long = [i for i in range(n) if i not in inside]
    unit = float(np.abs(rewards).max() * gamma.max()) or 1.0
    aim = target if target else None  # a target of 0 does not bind

    # The first master problem has the long queues only; the variable `nothing` keeps rows from being empty.
    problem = pulp.LpProblem("blocks", pulp.LpMaximize)
    y = {(i, j): problem.add_variable(f"y_{i}_{j}", 0) for i in long for j in range(m)}
    nothing = problem.add_variable("nothing", 0, 0)
    problem += pulp.LpAffineExpression([(y[i, j], gamma[j] * rewards[i, j] / unit) for i, j in y] + [(nothing, 0.0)])
    customers = [pulp.LpAffineExpression([(y[i, j], 1.0) for i in long] + [(nothing, 1.0)]) <= 1 for j in range(m)]
    suppliers = {i: pulp.LpAffineExpression([(y[i, j], gamma[j] / lam[i]) for j in range(m)]) <= 1 for i in long}
    total = [pulp.LpAffineExpression([(y[i, j], -gamma[j] / aim) for i, j in y] + [(nothing, 1.0)]) <= -1] if aim else []
    convexity = [pulp.LpAffineExpression([(nothing, 1.0)]) == 1 for _ in blocks]
    for name, rows in (("customer", customers), ("supplier", suppliers.values()), ("target", total), ("block", convexity)):
        for k, row in enumerate(rows):
            problem.addConstraint(row, f"{name}_{k}")

    idle = [[block.best(-np.ones(rewards.shape))] for block in blocks]  # serving nobody is always possible
    columns: list[list[BlockPolicy]] = [list(each) for each in known or idle]
    held = HeldProgramme(problem, is_partial=True)
    customer_rows = np.array([row.index for row in customers])

    def add(b: int, policy: BlockPolicy) -> None:
        rows, rates = customer_rows, policy.match_rates.sum(0) / gamma
        if aim:
            rows, rates = np.r_[rows, total[0].index], np.r_[rates, -policy.throughput / aim]
        value = float((rewards * policy.match_rates).sum()) / unit
        held.add_column(value, np.r_[rows, convexity[b].index], np.r_[rates, 1.0])
        order.append((b, policy))
        met.add((b, policy.actions.tobytes()))

    order: list[tuple[int, BlockPolicy]] = []
    met: set[tuple[int, bytes]] = set()
    for b, policies in enumerate(columns):
        for policy in policies:
            add(b, policy)
    first = len(y) + 1

    best, prices = np.inf, Prices(0.0, np.zeros(m), np.zeros(n))
    for _ in range(MAX_ROUNDS):
        held.solve_again()
        value = held.value * unit
        multipliers = held.row_multipliers * unit
        theta = max(0.0, float(multipliers[total[0].index]) / aim) if aim else 0.0
        beta = multipliers[customer_rows].clip(0) / gamma
        u = np.zeros(n)
        for i, row in suppliers.items():
            u[i] = max(0.0, multipliers[row.index]) / lam[i]
        reduced = rewards + theta - beta
        answers = [block.best(reduced) for block in blocks]
        bound = float(gamma @ beta + lam @ u) - theta * (aim or 0.0) + sum(answer.gain for answer in answers)
        bound += float((gamma * (reduced - u[:, None]).clip(0))[long].sum())
        if bound < best:
            best, prices = bound, Prices(theta, beta, u)
        if best - value <= GAP * (abs(value) + unit):
            break
        before = len(order)
        for b, answer in enumerate(answers):
            is_better = answer.gain > multipliers[convexity[b].index] + 0.1 * GAP * unit / len(blocks)
            if is_better and (b, answer.actions.tobytes()) not in met:
                columns[b].append(answer)
                add(b, answer)
        if len(order) == before:
            break  # no policy improves the programme beyond the solver's tolerance
    if best - value > FAILED_GAP * (abs(value) + unit):
        raise RuntimeError(f"column generation ended with a gap of {best - value:.1e} on {instance.name!r}.")

    rates = np.zeros((n, m))
    for (i, j), variable in y.items():
        rates[i, j] = gamma[j] * max(0.0, held.values[variable.index])
    mixed: list[list[tuple[float, BlockPolicy]]] = [[] for _ in blocks]
    for weight, (b, policy) in zip(held.values[first:], order):
        if weight > 0:
            mixed[b].append((float(weight), policy))
            rates += weight * policy.match_rates
    for each in mixed:
        each.sort(key=lambda entry: -entry[0])
    return Mixture(value, prices, rates, mixed, columns)
