"""One queue of suppliers, solved exactly: stationary laws, the best policy at given rewards, and the cost of a throughput.

Suppliers arrive at rate lambda and leave at rate mu each; a policy serves customers of type j in state l (the queue length) or
not. The queue is a birth-death process with deaths l mu + g_l, g_l the rate of the customers that are served in state l, cut
off at a cap that it passes with a probability far below rounding. (AmaniHamedani, Aouad, Saberi, Adaptive Approximation Schemes
for Matching Queues, Sections 2 and 3.)

With reward r_j for serving type j, the gain g and the worth d_l = h(l) - h(l - 1) of the l-th supplier solve

    lambda d_1 = g,    lambda d_{l+1} = g + l mu d_l - sum_j gamma_j (r_j - d_l)^+,    d_{cap+1} = 0,

and j is served in state l iff r_j > d_l: Lemma 2.3 with r_j = theta - c_j and d = -delta.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import outlined_kernel
from matchgym.envs.instance import InputError

MAX_LENGTH = 1_000_000  # states of one queue
TIE = 1e-12  # of rewards and worths, relative to the largest reward: keeps the current action
FLAT = 1e-12  # relative improvement of a hull at which it counts as flat
AT_LIMIT = 1e-9  # relative excess of a target over the largest throughput that is taken for rounding
MAX_ROUNDS = 1000


def sufficient_cap(offered: float) -> int:
    """A length that Poisson(offered) reaches with a probability far below rounding."""
    return math.ceil(offered + 12 * math.sqrt(offered) + 40)


@outlined_kernel
def law_kernel(rate, departure_rate, service, law):
    """Stationary law (cap + 1,) of births `rate` and deaths k departure_rate + service[k]: products outward from the mode."""
    cap = len(law) - 1
    level, highest, mode = 0.0, 0.0, 0
    for k in range(1, cap + 1):
        level += math.log(rate / (k * departure_rate + service[k]))
        if level > highest:
            highest, mode = level, k
    law[mode] = total = 1.0
    for k in range(mode + 1, cap + 1):
        law[k] = law[k - 1] * (rate / (k * departure_rate + service[k]))
        total += law[k]
    for k in range(mode, 0, -1):
        law[k - 1] = law[k] * ((k * departure_rate + service[k]) / rate)
        total += law[k - 1]
    for k in range(cap + 1):
        law[k] /= total
    return mode


@outlined_kernel
def policy_iteration_kernel(
    rate, departure_rate, rewards, total_rate, total_reward, slack, max_rounds, served, service, law, worth
):
    """Howard's algorithm; the first served[k] types of the decreasing `rewards` (m,) are served in state k.

    total_rate and total_reward (m + 1,) are sums of gamma_j and gamma_j r_j over the first types. Starts from `served` and
    writes `served`, `service`, `law` (cap + 1,) and `worth` (cap + 2,). Returns (gain, rounds).
    """
    cap = len(law) - 1
    for rounds in range(1, max_rounds + 1):
        for k in range(cap + 1):
            service[k] = total_rate[served[k]]
        mode = law_kernel(rate, departure_rate, service, law)
        gain = 0.0
        for k in range(1, cap + 1):
            gain += law[k] * total_reward[served[k]]
        # Each direction of the recursion is stable only on its side of the mode.
        worth[0] = worth[cap + 1] = 0.0
        if mode > 0:
            worth[1] = gain / rate
        for k in range(1, mode):
            worth[k + 1] = (gain + (k * departure_rate + service[k]) * worth[k] - total_reward[served[k]]) / rate
        for k in range(cap, mode, -1):
            worth[k] = (rate * worth[k + 1] - gain + total_reward[served[k]]) / (k * departure_rate + service[k])
        is_settled = True
        for k in range(1, cap + 1):
            best = served[k]
            while best > 0 and rewards[best - 1] < worth[k] - slack:
                best -= 1
            while best < len(rewards) and rewards[best] > worth[k] + slack:
                best += 1
            if best != served[k]:
                served[k], is_settled = best, False
        if is_settled:
            return gain, rounds
    return gain, 0


@dataclass(frozen=True)
class QueuePolicy:
    """A policy of one queue and what it earns per unit of time."""

    gain: float
    match_rates: NDArray[np.float64]  # (m,)
    order: NDArray[np.int64]  # (m,) customer types by decreasing reward
    served: NDArray[np.int64]  # (cap + 1,) how many types of `order` are served in each state
    law: NDArray[np.float64]  # (cap + 1,)
    worth: NDArray[np.float64]  # (cap + 1,) d_l, of the l-th supplier; worth[0] = 0

    @property
    def is_serving(self) -> NDArray[np.bool_]:
        """(m, cap + 1): whether type j is served in state l."""
        return np.argsort(self.order)[:, None] < self.served[None, :]


def solve_queue(
    rate: float, departure_rate: float, customer_rates: NDArray[np.float64], rewards: NDArray[np.float64], cap: int
) -> QueuePolicy:
    """The best policy for rewards (m,) of either sign per match."""
    if cap > MAX_LENGTH:
        raise InputError(
            f"supplier_rates / abandonment_rate asks for a queue of {cap} states, above {MAX_LENGTH}; use the bound `fluid`."
        )
    order = np.argsort(-rewards, kind="stable")
    gamma, ranked = customer_rates[order], rewards[order]
    total_rate, total_reward = np.r_[0.0, gamma.cumsum()], np.r_[0.0, (gamma * ranked).cumsum()]
    served = np.full(cap + 1, int((ranked > 0).sum()))
    served[0] = 0
    service, law, worth = np.empty(cap + 1), np.empty(cap + 1), np.empty(cap + 2)
    slack = TIE * (1.0 + float(np.abs(rewards).max()))
    gain, rounds = policy_iteration_kernel(
        rate, departure_rate, ranked, total_rate, total_reward, slack, MAX_ROUNDS, served, service, law, worth
    )
    if not rounds:
        raise RuntimeError(f"policy iteration on one queue did not settle within {MAX_ROUNDS} rounds.")
    # Mass of the states in which more than k types are served: sums over the tail, without cancellation.
    mass = np.bincount(served, law, len(gamma) + 1)[::-1].cumsum()[::-1][1:]
    match_rates = np.empty(len(gamma))
    match_rates[order] = gamma * mass
    return QueuePolicy(gain, match_rates, order, served, law, worth[:-1])


def static_throughput(rate: float, departure_rate: float, service: float) -> float:
    """Throughput if customers of total rate `service` are served whenever a supplier waits: g (1 - pi_0) (Section 2)."""
    if service == 0.0:
        return 0.0
    cap = sufficient_cap(rate / departure_rate)
    if cap > MAX_LENGTH:
        raise InputError(f"supplier_rates / abandonment_rate asks for a queue of {cap} states, above {MAX_LENGTH}.")
    law = np.empty(cap + 1)
    law_kernel(rate, departure_rate, np.full(cap + 1, service), law)
    return service * float(law[1:].sum())


class Point(Protocol):
    """A policy as a point of the cost-throughput plane."""

    @property
    def throughput(self) -> float: ...
    @property
    def cost(self) -> float: ...


P = TypeVar("P", bound=Point)


@dataclass(frozen=True)
class Rest:
    """Serving nobody."""

    throughput: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True)
class CostedPolicy:
    """A policy of one queue with the costs (m,) of its matches."""

    policy: QueuePolicy
    costs: NDArray[np.float64]

    @property
    def throughput(self) -> float:
        return float(self.policy.match_rates.sum())

    @property
    def cost(self) -> float:
        return float(self.policy.match_rates @ self.costs)


@dataclass(frozen=True)
class Segment:
    """The piece of the Pareto frontier at a target; its slope is the price of one unit of throughput."""

    price: float
    left: Any
    right: Any
    weight: float  # of `right` in the mixture that meets the target

    @property
    def cost(self) -> float:
        return (1 - self.weight) * self.left.cost + self.weight * self.right.cost


def walk_hull(solve: Callable[[float], P], right: P, target: float, left: P | None = None) -> Segment:
    """Find the segment of the lower hull with left.throughput < target <= right.throughput (Section 3).

    solve(theta) gives a policy that maximises theta throughput - cost; `right` is any policy of throughput >= target and `left`
    one of less, on the hull, by default serving nobody. At a vertex the price is the slope on its left.
    """
    low: Any = Rest() if left is None else left
    for _ in range(MAX_ROUNDS):
        if right.throughput <= low.throughput:
            return Segment(0.0, low, right, 1.0)
        price = max(0.0, (right.cost - low.cost) / (right.throughput - low.throughput))
        found = solve(price)
        improvement = price * (found.throughput - low.throughput) - (found.cost - low.cost)
        if improvement <= FLAT * (price * right.throughput + right.cost):
            weight = (target - low.throughput) / (right.throughput - low.throughput)
            return Segment(price, low, right, min(1.0, max(0.0, weight)))
        if found.throughput >= target:
            right = found
        else:
            low = found
    raise RuntimeError(f"the walk along the hull did not end within {MAX_ROUNDS} rounds.")


def check_target(target: float, largest: float) -> float:
    """The target, at most `largest`; InputError if it exceeds that by more than rounding."""
    if target > largest * (1 + AT_LIMIT):
        raise InputError(
            f"throughput_target {target:.10g} cannot be attained: no policy matches more than {largest:.10g} per unit of time."
        )
    return min(target, largest)


def queue_frontier(
    rate: float,
    departure_rate: float,
    customer_rates: NDArray[np.float64],
    costs: NDArray[np.float64],
    target: float,
    cap: int | None = None,
) -> Segment:
    """c(tau*) of one queue with costs (m,): the segment of its Pareto frontier at the target; InputError if unattainable."""
    length = sufficient_cap(rate / departure_rate) if cap is None else cap

    def solve(rewards: NDArray[np.float64]) -> CostedPolicy:
        return CostedPolicy(solve_queue(rate, departure_rate, customer_rates, rewards, length), costs)

    everyone = solve(np.ones(len(costs)))
    return walk_hull(lambda price: solve(price - costs), everyone, check_target(target, everyone.throughput))
