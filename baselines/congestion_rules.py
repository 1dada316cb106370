"""The kernel behind the policies for congestion-aware learning: what is believed of rewards, and how jobs are sent.

A policy is a *belief*, an estimate r_ij(t) of every mean reward, put into a *rule*. Beliefs: upper confidence bounds (6), those
of a bilinear model, a draw from the posterior, the empirical means of a first stage, the truth, or none. Rules: the barrier
rule sends each job of type i to server j with the probability p_ij(t) that solves programme (7); the queue rule (9) sends all
jobs of type i in a slot to

    k(i, t) = the smallest index in argmax_j { r_ij(t) - eps Q_j(t - 1) }.

Both are numbers among a policy's parameters, so that all policies are one kernel and are compiled once.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from matchgym.baselines.barrier_programme import FORBIDDEN, ROUNDING, R, resolution_kernel, solve_kernel
from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.rng import beta, uniform

SMALLEST_SHARE = 1e-9  # probabilities below are 0
UPPER, RIDGE, POSTERIOR, EMPIRICAL, TRUTH, NOTHING = range(6)  # beliefs; the last three are formed once per episode
# Rules. EVEN, BARRIER and QUEUE_WEIGHTS write weights (I J), RANDOM_SERVER and QUEUE_SERVER write servers (I).
EVEN, BARRIER, QUEUE_WEIGHTS, QUEUE_SERVER, RANDOM_SERVER = range(5)


class Knobs(NamedTuple):
    """What the kernels read: the platform's knowledge and the policy's parameters."""

    arrival_rates: Reals  # (I',) of the types that arrive at all
    present: Integers  # (I',) the indices of these types
    capacities: Reals  # (J,)
    allowed: IntegerTable  # (I, J)
    rewards: RealTable  # (I, J) mean rewards, for the rules that know them
    features: RealTable  # (I J, d) phi_ij, for the bilinear model
    has_rewards: Integer  # 0: they are drawn, and observed by these rules
    belief: Integer
    rule: Integer
    horizon: Integer
    v: Real
    eps: Real
    cap: Real  # of an estimate, and the estimate of a pair never served
    floor: Real  # r_*
    radius: Real  # factor of the confidence radius
    gap: Real  # asked for of programme (7), for rewards up to 1
    complementarity: Real  # the same, see `barrier_programme`
    stage: Integer  # slots of the first stage
    is_horizon_aware: Integer
    has_own_clocks: Integer  # whether log(t - 1) in (6) counts the slots of a client instead of all


class Learner(NamedTuple):
    """Memory of a policy, one row per environment, and room for the solver."""

    stream: WordTable  # (B, 4)
    action: RealTable  # (B, I J) or (B, I)
    estimate: RealTable  # (B, I J)
    is_settled: Integers  # (B,) whether a decision made once per episode has been made
    flows: RealTable  # (1, I J) scratch, shared by all rows: the solution of programme (7)
    work: RealTable  # scratch of the solver
    gram: RealTable  # (d, d + 2) scratch of the bilinear model


@kernel
def forget_kernel(memory, b):
    """An episode starts."""
    memory.is_settled[b] = 0


@kernel
def queue_kernel(obs, j):
    """Q_j."""
    return obs[j]


@kernel
def served_kernel(knobs, obs, k):
    """h of pair k = i J + j."""
    n, m = knobs.allowed.shape
    return obs[m + n * m + k]


@kernel
def mean_kernel(knobs, obs, k):
    """Empirical mean reward of pair k."""
    n, m = knobs.allowed.shape
    return obs[m + 2 * n * m + k]


@kernel
def known_kernel(knobs, obs, k):
    """The mean reward of pair k, for policies that are shown it."""
    n, m = knobs.allowed.shape
    return obs[m + 3 * n * m + 2 * n + 1 + k]


@kernel
def slots_kernel(knobs, obs):
    """t - 1, the slots completed."""
    n, m = knobs.allowed.shape
    return int(obs[m + 3 * n * m + 2 * n] * knobs.horizon + 0.5)


@outlined_kernel
def upper_kernel(knobs, memory, b, obs):
    """Estimates (6): the cap if never served, else max(min(rbar + radius sqrt(2 log(t - 1) / h), cap), floor)."""
    n, m = knobs.allowed.shape
    width = 2.0 * math.log(max(slots_kernel(knobs, obs), 1))
    for k in range(n * m):
        if knobs.has_own_clocks:
            width = 2.0 * math.log(max(float(obs[m + 3 * n * m + n + k // m]) - 1.0, 1.0))
        count, estimate = float(served_kernel(knobs, obs, k)), knobs.cap
        if count > 0.0:
            estimate = min(float(mean_kernel(knobs, obs, k)) + knobs.radius * math.sqrt(width / count), knobs.cap)
        memory.estimate[b, k] = max(estimate, knobs.floor)


@outlined_kernel
def ridge_kernel(knobs, memory, b, obs):
    """Estimates of the bilinear model r_ij = theta . phi_ij, by ridge regression on all rewards revealed so far.

    With A = I + sum phi phi' = L L' and z = L^-1 sum X phi over these rewards, the estimate of a pair is
    theta . phi + radius sqrt(phi' A^-1 phi) = z . y + radius |y| with L y = phi, cut off at the cap and the floor.
    """
    size, d = knobs.features.shape
    gram, phi = memory.gram, knobs.features
    for p in range(d):
        for q in range(d + 1):
            gram[p, q] = 0.0
        gram[p, p] = 1.0
    for k in range(size):
        count = float(served_kernel(knobs, obs, k))
        if count > 0.0:
            total = count * float(mean_kernel(knobs, obs, k))
            for p in range(d):
                gram[p, d] += total * phi[k, p]
                for q in range(p + 1):
                    gram[p, q] += count * phi[k, p] * phi[k, q]
    for p in range(d):  # A becomes L, and column d becomes z
        for q in range(p + 1):
            rest = gram[p, q]
            for s in range(q):
                rest -= gram[p, s] * gram[q, s]
            gram[p, q] = math.sqrt(rest) if p == q else rest / gram[q, q]
        rest = gram[p, d]
        for s in range(p):
            rest -= gram[p, s] * gram[s, d]
        gram[p, d] = rest / gram[p, p]
    for k in range(size):
        mean = square = 0.0
        for p in range(d):  # column d + 1 becomes y
            rest = phi[k, p]
            for s in range(p):
                rest -= gram[p, s] * gram[s, d + 1]
            y = gram[p, d + 1] = rest / gram[p, p]
            mean += gram[p, d] * y
            square += y * y
        memory.estimate[b, k] = max(min(mean + knobs.radius * math.sqrt(square), knobs.cap), knobs.floor)


@outlined_kernel
def posterior_kernel(knobs, memory, b, obs):
    """A draw from Beta(1 + w, 1 + h - w), w the rewards received in units of the cap."""
    for k in range(memory.estimate.shape[1]):
        count = float(served_kernel(knobs, obs, k))
        received = min(count * float(mean_kernel(knobs, obs, k)) / knobs.cap, count)
        memory.estimate[b, k] = max(knobs.cap * beta(memory.stream, b, 1.0 + received, 1.0 + count - received), knobs.floor)


@outlined_kernel
def empirical_kernel(knobs, memory, b, obs):
    """Empirical means, the cap where there is none."""
    for k in range(memory.estimate.shape[1]):
        memory.estimate[b, k] = mean_kernel(knobs, obs, k) if served_kernel(knobs, obs, k) > 0 else knobs.cap


@kernel
def truth_kernel(knobs, memory, b, obs):
    """The mean rewards themselves."""
    m = knobs.allowed.shape[1]
    for k in range(memory.estimate.shape[1]):
        memory.estimate[b, k] = knobs.rewards[k // m, k % m] if knobs.has_rewards else known_kernel(knobs, obs, k)


@kernel
def even_rule(knobs, memory, b):
    """Every allowed server with the same probability."""
    m = knobs.allowed.shape[1]
    for k in range(memory.action.shape[1]):
        memory.action[b, k] = knobs.allowed[k // m, k % m]


@outlined_kernel
def barrier_rule(knobs, memory, b):
    """The law of routing that solves programme (7) at the estimates; types that never arrive are left at an even split."""
    m = len(knobs.capacities)
    even_rule(knobs, memory, b)
    largest = 0.0
    for place in range(len(knobs.present)):
        for j in range(m):
            if knobs.allowed[knobs.present[place], j]:
                largest = max(largest, abs(memory.estimate[b, knobs.present[place] * m + j]))
    if largest == 0.0:
        largest = 1.0
    v = knobs.v * largest
    for place in range(len(knobs.present)):
        i = knobs.present[place]
        for j in range(m):
            is_allowed = knobs.allowed[i, j]
            memory.work[R, place * m + j] = (
                memory.estimate[b, i * m + j] / largest if is_allowed else -FORBIDDEN * (1.0 + 1.0 / v)
            )
    # Never warm: where estimates tie, p would depend on the past. From an even split it is near the centre of the optimal ones.
    lam, flows, target = knobs.arrival_rates, memory.flows[0], max(knobs.gap, ROUNDING / v)
    _, gap, _ = solve_kernel(lam, knobs.capacities, v, target, knobs.complementarity, flows, False, memory.work)
    if not abs(gap) <= max(target, resolution_kernel(knobs.capacities, v, memory.work)):
        raise RuntimeError("programme (7) could not be solved to its gap; choose a smaller V")
    for place in range(len(knobs.present)):
        i = knobs.present[place]
        for j in range(m):
            share = flows[place * m + j] / lam[place]
            memory.action[b, i * m + j] = share if knobs.allowed[i, j] and share >= SMALLEST_SHARE else 0.0


@outlined_kernel
def best_server(knobs, memory, b, obs, i):
    """The server of rule (9) for type i, given where the types before it go in this slot.

    A horizon-aware rule leaves out servers whose queue is too long for a job that joins it now to be completed in time.
    """
    n, m = knobs.allowed.shape
    left = knobs.horizon - slots_kernel(knobs, obs)
    best, best_value, is_hopeless = -1, -np.inf, True
    for j in range(m):
        if not knobs.allowed[i, j]:
            continue
        ahead = float(queue_kernel(obs, j))
        late = False
        if knobs.is_horizon_aware:
            before = ahead
            for other in range(i):
                if memory.action[b, other] == j:
                    before += obs[m + 3 * n * m + other]
            late = before >= left * knobs.capacities[j]
        value = memory.estimate[b, i * m + j] - knobs.eps * ahead
        if (is_hopeless and not late) or (late == is_hopeless and value > best_value):
            best, best_value, is_hopeless = j, value, late
    return best


@kernel
def believe(knobs, memory, b, obs):
    """Form the policy's belief."""
    if knobs.belief == UPPER:
        upper_kernel(knobs, memory, b, obs)
    elif knobs.belief == RIDGE:
        ridge_kernel(knobs, memory, b, obs)
    elif knobs.belief == POSTERIOR:
        posterior_kernel(knobs, memory, b, obs)
    elif knobs.belief == EMPIRICAL:
        empirical_kernel(knobs, memory, b, obs)
    elif knobs.belief == TRUTH:
        truth_kernel(knobs, memory, b, obs)
    else:
        for k in range(memory.estimate.shape[1]):
            memory.estimate[b, k] = 0.0


@kernel
def act_kernel(knobs, memory, b, obs, mask, rng):
    """Write the action of row b; every policy of this model."""
    n, m = knobs.allowed.shape
    is_exploring = slots_kernel(knobs, obs) < knobs.stage
    is_new = knobs.belief <= POSTERIOR or not memory.is_settled[b]
    if knobs.rule != EVEN and not is_exploring and is_new:
        believe(knobs, memory, b, obs)
    if knobs.rule == EVEN or is_exploring:
        even_rule(knobs, memory, b)
    elif knobs.rule == BARRIER:
        if is_new:
            barrier_rule(knobs, memory, b)
    else:
        if knobs.rule == QUEUE_WEIGHTS:
            for k in range(n * m):
                memory.action[b, k] = 0.0
        for i in range(n):
            if knobs.rule == RANDOM_SERVER:
                memory.action[b, i] = int(uniform(rng, b) * m)
            elif knobs.rule == QUEUE_SERVER:
                memory.action[b, i] = best_server(knobs, memory, b, obs, i)
            else:
                memory.action[b, i * m + best_server(knobs, memory, b, obs, i)] = 1.0
    memory.is_settled[b] = not is_exploring


def memory(batch: int, n_actions: int, n: int, m: int, work: Any, d: int) -> Learner:
    """Zeroed rows for n types (or seats), m servers and d features of a pair."""
    return Learner(
        stream=np.zeros((batch, 4), np.uint64),
        action=np.zeros((batch, n_actions)),
        estimate=np.zeros((batch, n * m)),
        is_settled=np.zeros(batch, np.int64),
        flows=np.zeros((1, n * m)),
        work=work,
        gram=np.zeros((max(d, 1), d + 2)),
    )
