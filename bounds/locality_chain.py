"""The Markov chain of the numbers of tasks at N servers, for N so small that it can be solved.

States with at most n tasks in all are ordered by their total, and within a total lexicographically. The stationary law is found
by Gauss-Seidel sweeps up and down the totals; after each sweep the totals get the masses that their cut equations ask for
(iterative aggregation and disaggregation), which is what makes it fast.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import outlined_kernel
from matchgym.envs.instance import InputError

MAX_STATES = 3_000_000
SWEEPS = 20_000
TOLERANCE = 1e-13  # change of the mean number of tasks from sweep to sweep, relative
TAIL = 1e-11  # of the mean number of tasks, beyond the largest total


class Chain(NamedTuple):
    """The states of at most `most` tasks."""

    states: NDArray[np.int64]  # (S, N)
    starts: NDArray[np.int64]  # (most + 2,) where the totals start
    choose: NDArray[np.int64]  # binomial coefficients


def make_chain(n_servers: int, most: int, max_states: int) -> Chain:
    """All states; InputError if there are too many."""
    size = math.comb(most + n_servers, n_servers)
    if size > max_states:
        raise InputError(
            f"n_servers {n_servers} needs a chain of {size} states, above {max_states}, for an exact value; leave out --exact."
        )
    table = np.array([[math.comb(a, b) for b in range(n_servers + 1)] for a in range(most + n_servers + 1)], np.int64)
    starts = np.array([math.comb(total + n_servers - 1, n_servers) for total in range(most + 2)], np.int64)
    states = np.zeros((size, n_servers), np.int64)
    fill_kernel(states, starts)
    return Chain(states, starts, table)


@outlined_kernel
def fill_kernel(states, starts):
    """Write all states, totals upward, lexicographically within a total."""
    n = states.shape[1]
    for total in range(len(starts) - 1):
        row = starts[total]
        states[row, n - 1] = total
        for following in range(row + 1, starts[total + 1]):
            # The next in order: move one from the last part that has something into the part before it.
            for j in range(n):
                states[following, j] = states[following - 1, j]
            j = n - 1
            while states[following, j] == 0:
                j -= 1
            moved = states[following, j] - 1
            states[following, j] = 0
            states[following, j - 1] += 1
            states[following, n - 1] = moved


@outlined_kernel
def rank_kernel(choose, starts, state, added, j):
    """The row of a state with `added` (1 or -1) tasks more at server j."""
    n, total = len(state), added
    for i in range(n):
        total += state[i]
    rank, left = starts[total], total
    for i in range(n - 1):
        here = state[i] + (added if i == j else 0)
        rest = n - i - 1
        rank += choose[left + rest, rest] - choose[left - here + rest, rest]
        left -= here
    return rank


@outlined_kernel
def neighbour_kernel(states, starts, choose, above, below):
    """Rows with one task more (S', N) and one fewer (S, N) at each server; -1 where there is none."""
    n = states.shape[1]
    for row in range(len(states)):
        for j in range(n):
            below[row, j] = rank_kernel(choose, starts, states[row], -1, j) if states[row, j] > 0 else -1
            if row < len(above):
                above[row, j] = rank_kernel(choose, starts, states[row], 1, j)


@outlined_kernel
def sweep_kernel(starts, states, above, below, arrivals, rates, totals, law):
    """One sweep down and one up, then masses of the totals by their cuts; returns the mean number of tasks."""
    n, most = states.shape[1], len(starts) - 2
    arriving = 0.0
    for j in range(n):
        arriving += arrivals[0, j]
    for half in range(2):
        for step in range(most + 1):
            total = most - step if half == 0 else step
            for row in range(starts[total], starts[total + 1]):
                flow, out = 0.0, arriving if total < most else 0.0
                for j in range(n):
                    if states[row, j] > 0:
                        out += rates[j]
                        flow += law[below[row, j]] * arrivals[below[row, j], j]
                    if total < most:
                        flow += law[above[row, j]] * rates[j]
                law[row] = flow / out
    totals[0] = 1.0
    everything = 1.0
    for total in range(1, most + 1):
        mass, leaving = 0.0, 0.0
        for row in range(starts[total], starts[total + 1]):
            mass += law[row]
            for j in range(n):
                if states[row, j] > 0:
                    leaving += law[row] * rates[j]
        totals[total] = totals[total - 1] * arriving * mass / leaving
        everything += totals[total]
    mean = 0.0
    for total in range(most + 1):
        mass = 0.0
        for row in range(starts[total], starts[total + 1]):
            mass += law[row]
        factor = totals[total] / everything / mass
        for row in range(starts[total], starts[total + 1]):
            law[row] *= factor
        mean += total * totals[total] / everything
        totals[total] /= everything
    return mean


class Solution(NamedTuple):
    """Mean tasks in the system, the masses of the totals and the law of the states."""

    mean: float
    error: float  # of the last sweep and of what lies beyond the largest total
    totals: NDArray[np.float64]
    law: NDArray[np.float64]


def solve_chain(chain: Chain, arrivals: NDArray[np.float64], rates: NDArray[np.float64]) -> Solution:
    """The stationary law for arrival rates (S, N) and service rates (N,) of servers; tasks beyond the last total are lost."""
    size, most = len(chain.states), len(chain.starts) - 2
    above = np.zeros((int(chain.starts[most]), len(rates)), np.int64)
    below = np.zeros((size, len(rates)), np.int64)
    neighbour_kernel(chain.states, chain.starts, chain.choose, above, below)
    law, totals = np.full(size, 1.0 / size), np.zeros(most + 1)
    mean, calm = 0.0, 0
    for _ in range(SWEEPS):
        before = mean
        mean = sweep_kernel(chain.starts, chain.states, above, below, arrivals, rates, totals, law)
        calm = calm + 1 if abs(mean - before) <= TOLERANCE * mean else 0
        if calm == 5:
            break
    else:
        raise InputError("the chain is too near the edge of stability for an exact value; leave out --exact.")
    ratio = min(totals[-1] / totals[-2], 0.9999)
    beyond = totals[-1] * (most + 1 / (1 - ratio)) * ratio / (1 - ratio)
    return Solution(mean, beyond + 1e-9 * mean, totals, law)
