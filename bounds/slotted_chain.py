"""Exact transient values of known-reward rules for congestion-aware learning, by the law of the queues slot by slot.

A job that is k-th of those joining server j in slot tau is completed by slot T iff Q_j(tau - 1) + k <= m_j (T - tau + 1), and
Q(tau - 1) does not depend on the jobs of slot tau. With E_c(B) = E min(number of jobs of the types B, c), and types joining in
their order 1, 2, ..., the expected reward over the horizon is therefore

    E R(T) = sum_tau sum_Q Pr[Q(tau - 1) = Q] sum_j sum_{i in B_j} r_ij (E_c(B_j up to i) - E_c(B_j before i)),
                                                                         c = m_j (T - tau + 1) - Q_j

with B_j the types sent to j. This holds for all laws of arrivals. (Sharing the reward out by the types' rates, as if the type
of a job did not depend on its place, is exact only for Poisson arrivals in random order within a slot.)
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from matchgym.envs.compile import outlined_kernel
from matchgym.envs.congestion_instances import CongestionLearningInstance
from matchgym.envs.instance import InputError
from matchgym.envs.slotted_queues import pmf

TAIL = 1e-18  # of the number of jobs in a slot
NEGLIGIBLE = 1e-19  # probability of a queue length or state below which it is dropped, and counted as an error
JOINT_TAIL = 1e-16  # the same for the arrivals of all types together
MAX_STATES = 4_000_000
MAX_TYPES = 6
BUDGET = 2e10  # transitions
ERROR = 1e-7  # of a value, relative to the largest reward per slot


class Value(NamedTuple):
    """The expected reward per slot over the horizon: within `error` of `mean`."""

    mean: float
    error: float


def thinned(law: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    """Law of the number of jobs that go to a server when each does with probability p."""
    n = np.arange(len(law))
    return law @ binom.pmf(n[None, :], n[:, None], min(p, 1.0))


def capped_means(law: NDArray[np.float64]) -> NDArray[np.float64]:
    """E min(S, c) for c = 0, 1, ..., len(law): constant from there on."""
    return np.concatenate([[0.0], np.maximum(0.0, 1.0 - law.cumsum()).cumsum()])


def largest_reward(instance: CongestionLearningInstance) -> float:
    """A bound on the reward of a slot."""
    return float(instance.mean_rewards.max() * np.ceil(instance.capacities).sum())


def fixed_value(instance: CongestionLearningInstance, p: NDArray[np.float64]) -> Value:
    """Value of sending each job of type i to server j with probability p[i, j], whatever the queues."""
    rewards, horizon = instance.mean_rewards, instance.horizon
    laws = [
        pmf(instance.law, mean, trials, TAIL) for mean, trials in zip(instance.arrival_rates.tolist(), instance.trials.tolist())
    ]
    total = lost = 0.0
    for j, capacity in enumerate(instance.capacities.tolist()):
        batch, worth, before = np.ones(1), np.zeros(1), np.zeros(1)
        for i, law in enumerate(laws):
            batch = np.convolve(batch, thinned(law, p[i, j]))
            now = capped_means(batch)
            before = np.pad(before, (0, len(now) - len(before)), mode="edge")
            worth = np.pad(worth, (0, len(now) - len(worth)), mode="edge") + rewards[i, j] * (now - before)
            before = now
        if batch[0] >= 1.0:
            continue
        whole, extra = int(capacity), capacity - int(capacity)
        service = np.array([1 - extra, extra]) if extra > 0 else np.ones(1)  # jobs completed beyond `whole`
        queue, services = np.ones(1), [np.ones(1)]
        for _ in range(horizon if extra > 0 else 0):
            services.append(np.convolve(services[-1], service))
        for left in range(horizon, 0, -1):
            if extra > 0:  # the law of min(capacity left - Q, len(worth) - 1), from below
                room = np.convolve(services[left], queue[::-1])
                c = whole * left + np.arange(len(room)) - (len(queue) - 1)
            else:
                room, c = queue, whole * left - np.arange(len(queue))
            total += float(room @ worth[np.clip(c, 0, len(worth) - 1)])
            after = np.convolve(queue, batch)
            if extra > 0:
                after = np.convolve(after, service[::-1])  # place k holds Q + A - (0 or 1) = k - 1
            shift = whole + (extra > 0)
            queue = np.concatenate([[after[: shift + 1].sum()], after[shift + 1 :]])
            beyond = queue[::-1].cumsum()[::-1]
            kept = max(1, int((beyond >= NEGLIGIBLE).sum()))
            lost += float(beyond[kept]) if kept < len(beyond) else 0.0
            queue = queue[:kept]
    mistake = (lost + TAIL * len(laws) * horizon) * horizon + 1e-13
    return Value(total / horizon, mistake * largest_reward(instance))


@outlined_kernel
def slot_kernel(
    now, states, n_states, then, reached, arrivals, masses, estimates, eps, allowed, worths, capped, left, caps, rule
):
    """One slot of the queue rule: moves the law `now` to `then`. Returns (states reached, reward, mass lost).

    states, reached : numbers of the states with mass, (S,) row-major in the queue lengths; arrivals (N, I) with masses (N,).
    worths (I, J) mean rewards, capped (2^I, C) E_c of each set of types, caps (J,) and capacities in `rule` (2, J) with room
    for the servers chosen. Zeroes `now` behind itself.
    """
    n, m = estimates.shape
    width, n_reached, reward, lost = capped.shape[1] - 1, 0, 0.0, 0.0
    capacities, chosen, queue, joined = rule[0], rule[1], rule[2], rule[3]
    for place in range(n_states):
        number = states[place]
        mass = now[number]
        now[number] = 0.0
        if mass < NEGLIGIBLE:
            lost += mass
            continue
        rest = number
        for j in range(m - 1, -1, -1):
            queue[j] = rest % (caps[j] + 1)
            rest //= caps[j] + 1
        for i in range(n):
            best, best_value = -1, -np.inf
            for j in range(m):
                value = estimates[i, j] - eps * queue[j]
                if allowed[i, j] and value > best_value:
                    best, best_value = j, value
            chosen[i] = best
        for j in range(m):
            room = min(max(capacities[j] * left - queue[j], 0), width)
            before = 0
            for i in range(n):
                if chosen[i] == j:
                    reward += mass * worths[i, j] * (capped[before + (1 << i), room] - capped[before, room])
                    before += 1 << i
        for k in range(len(masses)):
            for j in range(m):
                joined[j] = queue[j] - capacities[j]
            for i in range(n):
                joined[chosen[i]] += arrivals[k, i]
            target, is_inside = 0, True
            for j in range(m):
                length = max(joined[j], 0)
                is_inside = is_inside and length <= caps[j]
                target = target * (caps[j] + 1) + length
            if not is_inside:
                lost += mass * masses[k]
                continue
            if then[target] == 0.0:
                reached[n_reached] = target
                n_reached += 1
            then[target] += mass * masses[k]
    return n_reached, reward, lost


def rule_value(
    instance: CongestionLearningInstance, estimates: NDArray[np.float64], eps: float, max_states: int | None = None
) -> Value:
    """Value of sending all jobs of type i in a slot to the smallest index in argmax_j {estimates[i, j] - eps Q_j}."""
    n, m, rewards = instance.n_types, instance.n_servers, instance.mean_rewards
    limit = MAX_STATES if max_states is None else max_states
    remedy = "leave out --exact to simulate it."
    if (instance.capacities % 1).any():
        raise InputError(f"service_rates must be integers for an exact value; {remedy}")
    cap = int(limit ** (1 / m)) - 1
    laws = [pmf(instance.law, a, k, TAIL) for a, k in zip(instance.arrival_rates.tolist(), instance.trials.tolist())]
    if n > MAX_TYPES or cap < max(len(law) for law in laws):
        raise InputError(f"an exact value is out of reach for {n} job types and {m} servers; {remedy}")
    capped = _capped_sets(laws)
    masses, arrivals = np.ones(1), np.zeros((1, 0), np.int64)
    for law in laws:
        masses = np.outer(masses, law).ravel()
        arrivals = np.hstack([np.repeat(arrivals, len(law), 0), np.tile(np.arange(len(law)), len(arrivals))[:, None]])
        arrivals, masses = arrivals[masses > JOINT_TAIL], masses[masses > JOINT_TAIL]
    missing = max(0.0, 1.0 - masses.sum())
    rule = np.zeros((4, max(n, m)), np.int64)
    rule[0, :m] = instance.capacities
    size = (cap + 1) ** m
    now, then = np.zeros(size), np.zeros(size)
    states, reached = np.zeros(size, np.int64), np.zeros(size, np.int64)
    now[0], n_states, total, lost, work = 1.0, 1, 0.0, 0.0, 0.0
    caps = np.full(m, cap)
    for left in range(instance.horizon, 0, -1):
        work += n_states * len(masses)
        if work > BUDGET:
            raise InputError(f"an exact value would take more than {BUDGET:.0e} transitions on {instance.name!r}; {remedy}")
        n_states, reward, dropped = slot_kernel(
            now, states, n_states, then, reached, arrivals, masses, estimates, eps, np.asarray(instance.compatibility),
            rewards, capped, left, caps, rule,
        )  # fmt: skip
        total, lost = total + reward, lost + dropped + missing
        now, then, states, reached = then, now, reached, states
    scale = largest_reward(instance)
    error = (lost * instance.horizon + 1e-13) * scale
    if error > ERROR * scale:
        raise InputError(f"queues of {instance.name!r} outgrow {cap} jobs, the most that an exact value can follow; {remedy}")
    return Value(total / instance.horizon, error)


def _capped_sets(laws: list[NDArray[np.float64]]) -> NDArray[Any]:
    """E min(jobs of the types of a set, c), one row per set, the bits of its number being the types."""
    rows = []
    for number in range(1 << len(laws)):
        batch = np.ones(1)
        for i, law in enumerate(laws):
            if number >> i & 1:
                batch = np.convolve(batch, law)
        rows.append(capped_means(batch))
    width = max(map(len, rows))
    return np.array([np.pad(row, (0, width - len(row)), mode="edge") for row in rows])
