"""Random instances of matching queues, and its linear programmes written out literally, for the tests."""

import itertools

import numpy as np
from scipy.optimize import linprog

from matchgym.envs.matching_queues import MatchingQueuesInstance


def random_queues(seed, n=None, m=None, scale=1.0, load=0.6, common=False, price=None):
    """A random instance with n <= 3 queues and m <= 4 customer types; the target is `load` times the largest throughput."""
    from matchgym.bounds.pareto import largest_throughput

    rng = np.random.default_rng(seed)
    n, m = n or int(rng.integers(1, 4)), m or int(rng.integers(1, 5))
    fields = {
        "name": f"random-{seed}",
        "supplier_rates": scale * rng.uniform(0.3, 2.0, n),
        "abandonment_rate": float(scale * rng.uniform(0.5, 1.5)) if common else scale * rng.uniform(0.5, 1.5, n),
        "customer_rates": scale * rng.uniform(0.3, 2.0, m),
        "costs": rng.uniform(0.0, 2.0, (n, m)),
    }
    most = largest_throughput(MatchingQueuesInstance(**fields, throughput_target=0.0))
    # With different abandonment rates the largest throughput is lower; 0.6 of the pooled one is attainable in these families.
    return MatchingQueuesInstance(**fields, throughput_target=load * most, throughput_price=price)


def solve(c, A_ub, b_ub, A_eq, b_eq):
    """A programme in floats; None if it is infeasible."""
    A_ub = None if A_ub is None or len(A_ub) == 0 else np.array(A_ub)
    found = linprog(
        c, A_ub, None if A_ub is None else b_ub, A_eq, b_eq, method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )  # fmt: skip
    return None if found.status == 2 else float(found.fun)


def literal_dlp(rate, mu, gamma, costs, target, cap, sets=None, is_relaxed=False):
    """DLP(cap) over the given sets of customer types (all subsets by default), in the paper's variables x^l_M."""
    m = len(gamma)
    sets = [tuple(s) for k in range(m + 1) for s in itertools.combinations(range(m), k)] if sets is None else sets
    columns = [(0, ())] + [(state, s) for state in range(1, cap + 1) for s in sets]
    weight = np.array([sum(gamma[j] for j in s) for _, s in columns])
    cost = np.array([sum(gamma[j] * costs[j] for j in s) for _, s in columns])
    levels = np.array([state for state, _ in columns])
    balance = np.array(
        [
            np.where(levels == state - 1, rate, 0.0) - np.where(levels == state, weight + state * mu, 0.0)
            for state in range(1, cap + 1)
        ]
    )
    ones = np.ones((1, len(columns)))
    if is_relaxed:
        return solve(cost, np.vstack([-balance, -weight[None]]), np.r_[np.zeros(cap), -target], ones, [1.0])
    return solve(cost, -weight[None], [-target], np.vstack([balance, ones]), np.r_[np.zeros(cap), 1.0])


def literal_nlp(instance, short, caps, target):
    """NLP (8), (10) - (12) in the paper's variables x^l_M over all partial assignments M of customer types to short queues."""
    lam, mu, gamma, costs = instance.supplier_rates, instance.departure_rates, instance.customer_rates, instance.costs
    n, m = costs.shape
    long = [i for i in range(n) if i not in short]
    states = list(itertools.product(*(range(cap + 1) for cap in caps)))
    assignments = list(itertools.product([None, *range(len(short))], repeat=m))
    columns = [(state, M) for state in states for M in assignments]
    place = {column: k for k, column in enumerate(columns)}
    y_place = {(i, j): len(columns) + k for k, (i, j) in enumerate(itertools.product(long, range(m)))}
    size = len(columns) + len(y_place)

    def moved(state, a, by):
        return tuple(value + by * (k == a) for k, value in enumerate(state))

    def demand(M, a):
        return sum(gamma[j] for j in range(m) if M[j] == a)

    equations = []
    for state in states:
        row = np.zeros(size)
        for M in assignments:
            for a, i in enumerate(short):
                if state[a] >= 1:
                    row[place[moved(state, a, -1), M]] += lam[i]
                if state[a] < caps[a]:
                    row[place[moved(state, a, 1), M]] += demand(M, a) + (state[a] + 1) * mu[i]
                row[place[state, M]] -= demand(M, a) * (state[a] >= 1) + state[a] * mu[i] + lam[i] * (state[a] < caps[a])
        equations.append(row)
    equations.append(np.r_[np.ones(len(columns)), np.zeros(len(y_place))])
    cost, total, shares = np.zeros(size), np.zeros(size), np.zeros((m, size))
    for (state, M), k in place.items():
        for j, a in enumerate(M):
            if a is not None and state[a] >= 1:
                cost[k] += gamma[j] * costs[short[a], j]
                total[k] += gamma[j]
                shares[j, k] += 1.0
    supply = np.zeros((len(long), size))
    for (i, j), k in y_place.items():
        cost[k], total[k], shares[j, k] = gamma[j] * costs[i, j], gamma[j], 1.0
        supply[long.index(i), k] = gamma[j]
    upper = np.vstack([-total[None], shares, supply])
    right = np.r_[-target, np.ones(m), lam[long]]
    return solve(cost, upper, right, np.array(equations), np.r_[np.zeros(len(states)), 1.0])


def literal_dlp_tilde(instance, caps):
    """DLPtilde with nested sets per queue."""
    lam, mu, gamma, costs = instance.supplier_rates, instance.departure_rates, instance.customer_rates, instance.costs
    n, m = costs.shape
    columns = [
        (i, state, s)
        for i in range(n)
        for state in range(caps[i] + 1)
        for s in itertools.product((0, 1), repeat=m)
        if state or not any(s)
    ]
    weight = np.array([np.dot(s, gamma) for _, _, s in columns])
    cost = np.array([np.dot(s, gamma * costs[i]) for i, _, s in columns])
    equations = []
    for i in range(n):
        for state in range(1, caps[i] + 1):
            equations.append(
                [
                    lam[i] if (k, q) == (i, state - 1) else -(w + state * mu[i]) if (k, q) == (i, state) else 0.0
                    for (k, q, _), w in zip(columns, weight)
                ]
            )
        equations.append([float(k == i) for k, _, _ in columns])
    right = np.concatenate([np.r_[np.zeros(cap), 1.0] for cap in caps])
    shares = np.array([[float(s[j]) for _, _, s in columns] for j in range(m)])
    upper = np.vstack([-weight[None], shares])
    return solve(cost, upper, np.r_[-instance.throughput_target, np.ones(m)], np.array(equations), right)
