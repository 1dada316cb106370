"""Random freelance markets and slow, obvious truths about them, for the tests."""

import itertools

import numpy as np
from scipy.optimize import linprog

from matchgym.envs.freelance_instances import FreelanceMarketInstance

CLASSES = {"FD": (True, True), "FND": (False, True), "ID": (True, False), "IND": (False, False)}


def random_market(seed, kind="FND", n=None, categories=None, skills=None, law="finite", whole=True, **others):
    """A small market; with law "finite", two or three states of few agents."""
    rng = np.random.default_rng(seed)
    n, size, skills = n or int(rng.integers(1, 4)), categories or int(rng.integers(1, 4)), skills or int(rng.integers(1, 4))
    hours = rng.integers(0, 4, (n, skills)).astype(float)
    hours[np.arange(n), rng.integers(skills, size=n)] += 1
    allowed = rng.uniform(size=(n, size)) < 0.6
    allowed[np.arange(n), rng.integers(size, size=n)] = True
    brought = [rng.integers(0, 4, (int(rng.integers(1, 3)), skills)).astype(float) for _ in range(size)]
    if not whole:
        hours, brought = hours * rng.uniform(0.3, 1.7, hours.shape), [each * rng.uniform(0.3, 1.7) for each in brought]
    support = None
    agents = [rng.uniform(1, 4, len(each)) for each in brought]
    if law == "finite":
        chances = rng.dirichlet(np.ones(int(rng.integers(1, 4))))
        chances[-1] = 1 - chances[:-1].sum()
        support = [[float(p), [rng.integers(0, 4, len(each)).tolist() for each in brought]] for p in chances]
        agents = [sum(p * np.array(row[k]) for p, row in support) for k in range(size)]
    decomposable, flexible = CLASSES[kind]
    return FreelanceMarketInstance(
        name=f"random-{seed}-{kind}",
        arrival_means=rng.uniform(0.2, 2, n),
        job_hours=hours,
        availability_means=[np.asarray(each).tolist() for each in agents],
        agent_hours=[each.tolist() for each in brought],
        compatible=allowed.tolist(),
        decomposable=decomposable,
        flexible=flexible,
        availability_law=law,
        availability_support=support,
        **others,
    )


def is_feasible(instance, tasks, hours):
    """Whether tasks (N, S) of a flexible market find their hours in H (L, S): a flow, not Hall's condition."""
    if instance.allowed.all():  # all hours are open to all types
        return bool(((tasks * instance.job_hours).sum(0) <= hours.sum(0) + 1e-9).all())
    places = np.argwhere(instance.allowed.T)
    for s in range(instance.n_skills):
        demand = (np.arange(instance.n_types)[:, None] == places[:, 1]).astype(float)
        supply = (np.arange(len(hours))[:, None] == places[:, 0]).astype(float)
        found = linprog(np.zeros(len(places)), supply, hours[:, s] + 1e-9, demand, tasks[:, s] * instance.job_hours[:, s])
        if found.status != 0:
            return False
    return True


def satisfies_hall(instance, tasks, hours):
    """The same by Theorem 6's condition over all sets J of job types, which costs no programme."""
    n = instance.n_types
    for some in range(1, 2**n):
        jobs = [j for j in range(n) if some >> j & 1]
        supply = hours[instance.allowed[jobs].any(0)].sum(0)
        if ((tasks[jobs] * instance.job_hours[jobs]).sum(0) > supply + 1e-9).any():
            return False
    return True


def allocations(instance, hours, most=8):
    """All feasible allocations of small markets, per pool a list of tasks (N, S); undivided jobs whole."""
    n, skills, needs = instance.n_types, instance.n_skills, instance.needs
    units = (
        [(j, s) for j in range(n) for s in range(skills) if needs[j, s]] if instance.decomposable else [(j,) for j in range(n)]
    )
    pools = range(1 if instance.flexible else instance.n_categories)

    def spread(counts):
        tasks = np.zeros((n, skills))
        for unit, count in zip(units, counts):
            if len(unit) == 2:
                tasks[unit] = count
            else:
                tasks[unit[0]] = count * needs[unit[0]]
        return tasks

    def fits(pool, tasks):
        if instance.flexible:
            return satisfies_hall(instance, tasks, hours)
        reach = not (tasks[~instance.allowed[:, pool]] > 0).any()
        return reach and ((tasks * instance.job_hours).sum(0) <= hours[pool] + 1e-9).all()

    per_pool = []
    for pool in pools:
        ends = []
        for unit in units:
            alone = [k for k in range(most + 1) if fits(pool, spread([k if other == unit else 0 for other in units]))]
            ends.append(range(max(alone) + 1))
        per_pool.append([spread(counts) for counts in itertools.product(*ends) if fits(pool, spread(counts))])
    return per_pool


def hours_of_outcomes(instance):
    """(probability, H (L, S)) of every state."""
    outcomes = instance.outcomes("availability")
    for p, counts in zip(outcomes.probabilities, outcomes.counts):
        hours = np.zeros((instance.n_categories, instance.n_skills))
        np.add.at(hours, instance.agent_category, counts[:, None] * instance.hours)
        yield p, hours


def capacity_by_enumeration(instance):
    """alpha* of C(Gamma) by the programme over all allocations of all states."""
    lam, n, skills = instance.arrival_means, instance.n_types, instance.n_skills
    pools = 1 if instance.flexible else instance.n_categories
    columns, rows_of_state, chances = [], [], []
    for p, hours in hours_of_outcomes(instance):
        for pool, points in enumerate(allocations(instance, hours)):
            parts = range(skills) if instance.decomposable else [None]
            for s in parts:
                state = len(chances)
                chances.append(p)
                seen = set()
                for tasks in points:
                    kept = tasks if s is None else tasks * (np.arange(skills) == s)
                    if kept.tobytes() not in seen:
                        seen.add(kept.tobytes())
                        columns.append((pool, kept))
                        rows_of_state.append(state)
    k, is_id = len(columns), instance.kind == "ID"
    n_y = pools * n if is_id else 0
    a, b = [], []
    for j in range(n):
        for s in np.flatnonzero(instance.needs[j]):
            for pool in range(pools if is_id else 1):
                row = np.zeros(1 + n_y + k)
                if is_id:
                    row[1 + pool * n + j] = 1
                else:
                    row[0] = lam[j]
                for c, (where, tasks) in enumerate(columns):
                    if not is_id or where == pool:
                        row[1 + n_y + c] = -tasks[j, s]
                a.append(row)
                b.append(0.0)
        if is_id:
            row = np.zeros(1 + n_y + k)
            row[0] = lam[j]
            row[1 + j : 1 + n_y : n] = -1
            a.append(row)
            b.append(0.0)
    for state, p in enumerate(chances):
        row = np.zeros(1 + n_y + k)
        row[1 + n_y :] = np.array(rows_of_state) == state
        a.append(row)
        b.append(p)
    goal = np.zeros(1 + n_y + k)
    goal[0] = -1
    found = linprog(goal, np.array(a), b)
    assert found.status == 0
    return -found.fun
