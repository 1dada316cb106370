"""The Markov chain of waiting suppliers on a box of states, and what it gives exactly on small instances.

It serves every model with these dynamics: stationary matching, matching queues with rewards theta - c_ij of either sign, and
matching on a graph, where a customer of type j who is not matched joins queue `joins[j]` instead of being lost.

Queue i is cut off at a cap C_i: suppliers who find it full are lost. Since Q_i is stochastically at most Poisson(rho_i) under
every policy, the probability of leaving the box is known, and so is the error of the truncation (derived here, not in the
paper):

* optimum: g_box <= OPT_on <= g_box + sum_i lambda_i (max_j r_ij)^+ Pr[Poisson(rho_i) >= C_i];
* a fixed policy: |g - g_box| <= Pr[outside] (R + L span(h)), with h the bias on the box, extended by h(Q) = h(min(Q, C)),
  R = sum_j gamma_j max_i |r_ij| and L the largest total rate of the box. Inside the box h solves Poisson's equation with gain
  g_box; outside, a departure from a queue above its cap leaves min(Q, C) as it is, so that L bounds the drift there too.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, gmres, spilu, splu
from scipy.special import pdtrc

from matchgym.envs.instance import InputError, Rates

MAX_STATES = 60_000
MAX_ROUNDS = 100
SOLVED = 1e-6  # residual of a linear system above which its solution is refused, relative to the right-hand side
ILL_CONDITIONED = "it is too ill-conditioned; use a linear programme or simulation."
MAX_REFINEMENTS = 8
LinearSolver = Callable[[sparse.spmatrix, NDArray[np.float64]], NDArray[np.float64]]
DIRECT_STATES = 3_000  # above, an incomplete factorisation is tried first


@dataclass(frozen=True)
class Market:
    """Rates (n,), (n,), (m,) and rewards (n, m) of either sign."""

    name: str
    supplier_rates: NDArray[np.float64]
    departure_rates: NDArray[np.float64]
    customer_rates: NDArray[np.float64]
    rewards: NDArray[np.float64]
    joins: NDArray[np.int64] | None = None  # (m,) the queue of unmatched customers; None: they are lost

    @property
    def offered(self) -> NDArray[np.float64]:
        arrivals = self.supplier_rates.copy()
        if self.joins is not None:
            np.add.at(arrivals, self.joins, self.customer_rates)
        return arrivals / self.departure_rates

    @property
    def n_suppliers(self) -> int:
        return len(self.supplier_rates)

    @property
    def n_customers(self) -> int:
        return len(self.customer_rates)


@dataclass(frozen=True)
class Box:
    """All queue vectors Q with 0 <= Q_i <= caps[i], numbered in row-major order."""

    instance: Rates
    caps: tuple[int, ...]
    queues: NDArray[np.int64]  # (n, S) the queue vector of each state
    up: NDArray[np.int64]  # (n, S) the state after an arrival of type i; itself at the cap
    down: NDArray[np.int64]  # (n, S) the state after a departure of type i; itself at 0

    @property
    def size(self) -> int:
        return self.queues.shape[1]

    def unmatched(self, j: int) -> NDArray[np.int64]:
        """The state (S,) after a customer of type j came and was not matched."""
        joins = self.instance.joins
        return np.arange(self.size) if joins is None else self.up[joins[j]]

    def generator(self, match: NDArray[np.float64]) -> sparse.csr_matrix:
        """The generator (S, S) under a law of matching: match[j, i, s] = Pr[an arriving j takes type i in state s]."""
        instance, states = self.instance, np.arange(self.size)
        down_rates = instance.departure_rates[:, None] * self.queues + np.tensordot(instance.customer_rates, match, 1)
        up_rates = np.tile(instance.supplier_rates[:, None], self.size)
        if instance.joins is not None:
            np.add.at(up_rates, instance.joins, instance.customer_rates[:, None] * (1.0 - match.sum(1)))
        rates = np.concatenate([up_rates, down_rates]).ravel()
        sources = np.tile(states, 2 * len(self.caps))
        targets = np.concatenate([self.up, self.down]).ravel()
        moving = (rates > 0) & (targets != sources)
        flows = sparse.csr_matrix((rates[moving], (sources[moving], targets[moving])), (self.size, self.size))
        return flows - sparse.diags(np.asarray(flows.sum(1)).ravel())

    def reward_rate(self, match: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected reward per unit of time (S,) in each state under a law of matching (J, n, S)."""
        weights = self.instance.customer_rates[:, None] * self.instance.rewards.T
        return np.einsum("ji,jis->s", weights, match)


def box_of(instance: Rates, caps: tuple[int, ...]) -> Box:
    """The box with the given caps (n,), all >= 1."""
    shape, n = tuple(cap + 1 for cap in caps), len(caps)
    if math.prod(shape) > MAX_STATES:
        raise InputError(f"a box with caps {caps} has more than {MAX_STATES} states.")
    numbers, queues = np.arange(math.prod(shape)).reshape(shape), np.indices(shape).reshape(n, -1)
    up, down = (
        np.array(
            [
                numbers[tuple(np.clip(queues + step * unit[:, None], 0, np.array(caps)[:, None]))]
                for unit in np.eye(n, dtype=int)
            ]
        )
        for step in (1, -1)
    )
    return Box(instance, caps, queues, up, down)


def make_box(
    instance: Rates,
    tail: float,
    weights: NDArray[np.float64],
    purpose: str,
    max_states: int | None = None,
) -> Box:
    """The smallest box with weights[i] Pr[Poisson(rho_i) >= C_i] <= tail / n for all i.

    Raises InputError if it has more than max_states states (by default MAX_STATES); `purpose` names what was asked for.
    """
    limit = MAX_STATES if max_states is None else max_states
    caps, states = [], 1
    for offered, weight in zip(instance.offered, weights):
        cap = max(1, int(offered))
        while cap <= limit and weight * pdtrc(cap - 1, offered) > tail / len(weights):
            cap += 1
        while cap > 1 and weight * pdtrc(cap - 2, offered) <= tail / len(weights):
            cap -= 1
        caps.append(cap)
        states *= cap + 1
        if states > limit:
            raise InputError(
                f"{purpose} needs more than {limit} states for instance {instance.name!r} "
                f"({len(weights)} {'supplier' if instance.joins is None else 'node'} types): use a linear programme or "
                "simulation."
            )
    return box_of(instance, tuple(caps))


def _iterate(matrix: sparse.csc_matrix, rough: LinearOperator, right: NDArray[np.float64]) -> NDArray[np.float64]:
    """A solution by GMRES, which is approximate, or useless where the approximate inverse `rough` is."""
    return gmres(matrix, right, M=rough, rtol=1e-8, atol=0.0, restart=60, maxiter=2)[0]


def _solvers(matrix: sparse.csc_matrix) -> Iterator[Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Approximate solvers of a system, the cheapest first: a complete factorisation fills in quickly with the dimension."""
    for drop in (1e-2, 1e-4) if matrix.shape[0] > DIRECT_STATES else ():
        try:
            factors = spilu(matrix, drop_tol=drop, fill_factor=10, permc_spec="MMD_AT_PLUS_A")
        except RuntimeError:  # a pivot was dropped: this factorisation is of no use, the next one may be
            continue
        rough = LinearOperator(matrix.shape, factors.solve)
        yield functools.partial(_iterate, matrix, rough)
    try:
        yield splu(matrix).solve
    except RuntimeError as failure:  # a factor is singular in floating point
        raise InputError(f"the Markov chain cannot be solved ({failure}): {ILL_CONDITIONED}") from None


def solve_directly(matrix: sparse.spmatrix, right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve a sparse system by a complete factorisation, the best way up to three dimensions."""
    return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A").solve(right)


def _solve(matrix: sparse.spmatrix, right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve a sparse system to rounding error by iterative refinement."""
    matrix = matrix.tocsc()
    for correct in _solvers(matrix):
        solution, error = np.zeros_like(right), np.abs(right).max()
        for _ in range(MAX_REFINEMENTS):
            candidate = solution + correct(right - matrix @ solution)
            improved = np.abs(right - matrix @ candidate).max()
            stalls = not improved < error / 10
            if improved < error:
                solution, error = candidate, improved
            if stalls:
                break
        if error <= SOLVED * max(1.0, np.abs(right).max()):
            return solution
    raise InputError(f"the Markov chain cannot be solved: {ILL_CONDITIONED}")


def poisson_equation(
    generator: sparse.spmatrix, reward: NDArray[np.float64], solve: LinearSolver = _solve
) -> tuple[float, NDArray[np.float64]]:
    """The gain g and the bias h (S,), h[0] = 0, of a chain with one recurrent class: G h - g = -reward."""
    size = len(reward)
    without_first = sparse.diags(np.r_[0.0, np.ones(size - 1)])
    gain_column = sparse.csr_matrix((np.ones(size), (np.arange(size), np.zeros(size, int))), (size, size))
    solution = solve(generator @ without_first - gain_column, -reward)
    return float(solution[0]), np.r_[0.0, solution[1:]]


def stationary_law(generator: sparse.spmatrix) -> NDArray[np.float64]:
    """The stationary distribution (S,) of a chain with one recurrent class."""
    size = generator.shape[0]
    balance = generator.T.tocsr()[1:]
    total = sparse.csr_matrix(np.ones((1, size)))
    return _solve(sparse.vstack([total, balance]), np.r_[1.0, np.zeros(size - 1)])


@dataclass(frozen=True)
class PolicyValue:
    """The long-run reward per unit of time of a fixed policy: within `error` of `mean`."""

    mean: float
    error: float
    box: Box
    match: NDArray[np.float64]  # (J, n, S)

    @functools.cached_property
    def match_rates(self) -> NDArray[np.float64]:
        """Matches per unit of time (n, J)."""
        served = self.match @ stationary_law(self.box.generator(self.match))
        return (self.box.instance.customer_rates[:, None] * served).T


def policy_value(box: Box, match: NDArray[np.float64]) -> PolicyValue:
    """Value of the policy with law match[j, i, s], with a bound on truncation and linear-algebra errors."""
    instance = box.instance
    reward, generator = box.reward_rate(match), box.generator(match)
    gain, bias = poisson_equation(generator, reward)
    residual = np.abs(reward + generator @ bias - gain).max()
    outside = sum(pdtrc(cap, offered) for cap, offered in zip(box.caps, instance.offered))
    rates = instance.supplier_rates.sum() + instance.departure_rates @ np.array(box.caps) + instance.customer_rates.sum()
    drift = instance.customer_rates @ np.abs(instance.rewards).max(0) + rates * np.ptp(bias)
    return PolicyValue(gain, float(residual + outside * drift), box, match)


def improve(box: Box, bias: NDArray[np.float64], current: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The best action (J, S) of each customer type in each state given the bias; ties keep `current`, then the lowest index."""
    instance = box.instance
    best = np.empty((instance.n_customers, box.size), np.int64)
    moves = np.where(box.queues > 0, bias[box.down] - bias, -np.inf)
    slack = 1e-12 * (1.0 + np.abs(bias).max() + np.abs(instance.rewards).max())
    for j in range(instance.n_customers):
        gains = np.vstack([moves + instance.rewards[:, j, None], bias[box.unmatched(j)] - bias])
        best[j] = gains.argmax(0)
        if current is not None:
            held = np.take_along_axis(gains, current[j][None], 0)[0]
            best[j] = np.where(gains.max(0) > held + slack, best[j], current[j])
    return best


def match_law(box: Box, actions: NDArray[np.int64]) -> NDArray[np.float64]:
    """The law (J, n, S) of a deterministic policy given its actions (J, S), n meaning no match."""
    return (actions[:, None, :] == np.arange(len(box.caps))[None, :, None]).astype(float)


@dataclass(frozen=True)
class Optimum:
    """The best policy on a box: its gain, bias (S,) and actions (J, S)."""

    box: Box
    gain: float
    bias: NDArray[np.float64]
    actions: NDArray[np.int64]


def policy_iteration(box: Box, start: NDArray[np.int64] | None = None) -> Optimum:
    """Howard's algorithm, started from the actions (J, S) of `start` or from reward-greedy."""
    actions = improve(box, np.zeros(box.size), None) if start is None else start
    for _ in range(MAX_ROUNDS):
        match = match_law(box, actions)
        gain, bias = poisson_equation(box.generator(match), box.reward_rate(match))
        improved = improve(box, bias, actions)
        if (improved == actions).all():
            return Optimum(box, gain, bias, actions)
        actions = improved
    raise RuntimeError(f"policy iteration did not settle within {MAX_ROUNDS} rounds on {box.instance.name!r}.")


def bellman(box: Box, bias: Any, scales: dict[str, Any]) -> Any:
    """Right-hand side of the Bellman equation for any `bias` (S,): the optimal gain on the box lies between its extremes.

    `scales` holds the instance's rates and rewards in the arithmetic of `bias`: floats, or integers of one common unit.
    """
    value = sum(
        scales["supplier_rates"][i] * (bias[box.up[i]] - bias)
        + scales["departure_rates"][i] * box.queues[i].astype(bias.dtype) * (bias[box.down[i]] - bias)
        for i in range(len(box.caps))
    )
    for j, rate in enumerate(scales["customer_rates"]):
        gain = bias[box.unmatched(j)] - bias
        for i in range(len(box.caps)):
            match = bias[box.down[i]] - bias + scales["rewards"][i][j]
            gain = np.where((box.queues[i] > 0) & (match > gain), match, gain)
        value = value + rate * gain
    return value
