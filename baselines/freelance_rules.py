"""The kernel behind the policies for freelance markets: admission, routing to pools, and the request of an epoch.

Every policy is an *admission* (all, or rule (7) of Section VI with pressure I or II), a *routing* where categories have queues
of their own (join the least total task of Algorithm 4, or its improved form of Algorithm 5), and a *scheme*: MaxWeight
(Algorithm 1) by branch and bound or by its relaxation rounded down, GreedyJob (Algorithm 3), the naive picking of Section I, or
chance. All are numbers among a policy's parameters, so that all policies are one kernel and are compiled once.
"""

from typing import NamedTuple

import numpy as np

from matchgym.baselines.freelance_maxweight import maxweight
from matchgym.baselines.freelance_picking import pick_jobs
from matchgym.baselines.freelance_queues import (
    ALL,
    CHANCE,
    FILLING,
    GREEDY_JOB,
    LEAST_TASKS,
    MAXWEIGHT,
    NAIVE,
    NOTHING,
    PRESSURE_PRINTED,
    RELAXED,
    jobs_at,
    join,
    queue_at,
    tasks_at,
    width_of,
)
from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.rng import uniform


class Knobs(NamedTuple):
    """What the kernels read: the market's data and the policy's parameters."""

    job_hours: RealTable  # (N, S)
    n_tasks: Reals  # (N,) d_j
    allowed: IntegerTable  # (N, L)
    signature: Integers  # (N,)
    sets: Integers  # (R,)
    agent_hours: RealTable  # (M, S)
    agent_category: Integers  # (M,)
    block: IntegerTable  # (P, 4) of each programme: its first entry in `rows`, first row, first column, and number of rows
    columns: IntegerTable  # (C + 1, 3) category, type and skill of each column
    row: IntegerTable  # (m + 1, 3) set, skill and queue of each row
    rows: Reals  # entries of the programmes' matrices, row by row
    sparse: IntegerTable  # (P + 1, 4) of each programme: where its `starts`, its entries, its basis and its inverse begin
    starts: Integers  # (C + P,) where columns begin among the entries of a programme; each ends with their number
    entry_row: Integers  # (.,) rows of the entries that are not 0, column by column
    entry: Reals  # (.,)
    accept: Integer  # numbers for admission at the front of an action
    nu: Real
    chance: Real  # of acceptance in an epoch that is not declined
    n_categories: Integer
    is_decomposable: Integer
    is_flexible: Integer
    is_pooled: Integer
    admission: Integer
    routing: Integer
    scheme: Integer
    is_capped: Integer
    nodes: Integer  # relaxations of a MaxWeight programme
    is_random_order: Integer  # of naive jobs
    preference: Integer  # of naive jobs


class Scratch(NamedTuple):
    """Memory of a policy: its random stream, the action, and room shared by all rows."""

    stream: WordTable  # (B, 4)
    action: RealTable  # (B, k)
    solved: Integers  # (B,) MaxWeight programmes
    unproved: Integers  # (B,) those whose search ended before its allocation was proved the best
    basis: IntegerTable  # (B, m) of each relaxation that keeps one, in turn, see `kept_basis`
    inverse: RealTable  # (B, sum of m m)
    is_kept: IntegerTable  # (B, P) whether there is one
    hours: RealTable  # (1, L S)
    left: RealTable  # (1, R S) or (1, L S)
    waiting: RealTable  # (1, D) Q + A
    tree: RealTable  # (1, N + 1) counts of jobs, as a Fenwick tree
    counts: RealTable  # (1, N)
    weight: RealTable  # (1, C)
    cap: RealTable  # (1, C)
    limit: RealTable  # (1, m)
    best: RealTable  # (1, C)
    matrix: RealTable  # (1, largest m k)
    reals: RealTable  # (1, .) see `packing.room`
    integers: IntegerTable  # (1, .)
    upper: IntegerTable  # (1, C)


@kernel
def forget_kernel(memory, b):
    """An episode starts without a basis."""
    for p in range(memory.is_kept.shape[1]):
        memory.is_kept[b, p] = 0


@outlined_kernel
def pressure(knobs, obs, arrivals):
    """P of rule (7): sum_j A_j times the tasks of type j that wait; with pools, of its emptiest category.

    As printed, II adds up the emptiest category of each skill.
    """
    total, skills = 0.0, knobs.job_hours.shape[1]
    for j in range(len(knobs.n_tasks)):
        if arrivals[j] <= 0.0:
            continue
        tasks = 0.0
        if not knobs.is_pooled:
            tasks = tasks_at(knobs, obs, 0, j)
        elif knobs.admission == PRESSURE_PRINTED:
            for s in range(skills):
                if knobs.job_hours[j, s] > 0.0:
                    least = np.inf
                    for c in range(knobs.n_categories):
                        if knobs.allowed[j, c]:
                            place = queue_at(knobs, c, j) + (s if knobs.is_decomposable else 0)
                            least = min(least, float(obs[place]))
                    tasks += least if least < np.inf else 0.0
        else:
            least = np.inf
            for c in range(knobs.n_categories):
                if knobs.allowed[j, c]:
                    least = min(least, tasks_at(knobs, obs, c, j))
            tasks = least if least < np.inf else 0.0
        total += arrivals[j] * tasks
    return total


@outlined_kernel
def route(knobs, memory, b, obs, arrivals, start):
    """Write the route of every type into the action, and let the arrivals join `waiting`."""
    n, size, waiting = len(knobs.n_tasks), knobs.n_categories, memory.waiting[0]
    for j in range(n):
        count = float(arrivals[j])
        if knobs.routing == FILLING:
            for _ in range(int(count)):
                best, least = -1, np.inf
                for c in range(size):
                    if knobs.allowed[j, c] and jobs_at(knobs, waiting, c, j) < least:
                        best, least = c, jobs_at(knobs, waiting, c, j)
                if best >= 0:
                    join(knobs, waiting, best, j, 1.0)
                    memory.action[b, start + best * n + j] += 1.0
            continue
        least, tied = np.inf, 0
        for c in range(size):
            if knobs.allowed[j, c]:
                tasks = tasks_at(knobs, obs, c, j) if knobs.routing == LEAST_TASKS else 0.0
                if tasks < least:
                    least, tied = tasks, 0
                tied += tasks == least
        if tied == 0:
            continue
        share, rest = count // tied, count % tied
        for c in range(size):
            if knobs.allowed[j, c] and (knobs.routing != LEAST_TASKS or tasks_at(knobs, obs, c, j) == least):
                part = share + (rest > 0.0)
                rest -= 1.0
                join(knobs, waiting, c, j, part)
                memory.action[b, start + c * n + j] = part


@outlined_kernel
def set_hours(knobs, memory, obs, agents_at):
    """H (L S) from the agents, and what is left of them: by sets of categories for GreedyJob in flexible markets."""
    skills, size, hours, left = knobs.job_hours.shape[1], knobs.n_categories, memory.hours[0], memory.left[0]
    for k in range(size * skills):
        hours[k] = 0.0
    for i in range(len(knobs.agent_category)):
        count = float(obs[agents_at + i])
        if count > 0.0:
            for s in range(skills):
                hours[knobs.agent_category[i] * skills + s] += count * knobs.agent_hours[i, s]
    if knobs.is_flexible and knobs.scheme == GREEDY_JOB:
        for k in range(len(knobs.sets)):
            for s in range(skills):
                left[k * skills + s] = 0.0
                for c in range(size):
                    if knobs.sets[k] >> c & 1:
                        left[k * skills + s] += hours[c * skills + s]
    else:
        for k in range(size * skills):
            left[k] = hours[k]


@outlined_kernel
def act_kernel(knobs, memory, b, obs, mask, rng):
    """Write the action of row b; every policy of this model."""
    n, size, width = len(knobs.n_tasks), knobs.n_categories, width_of(knobs)
    queues, waiting = memory.waiting.shape[1], memory.waiting[0]
    for k in range(memory.action.shape[1]):
        memory.action[b, k] = 0.0
    for d in range(queues):
        waiting[d] = obs[d]
    arrivals = memory.counts[0]
    offered = 0.0
    for j in range(n):
        arrivals[j] = obs[queues + j]
        offered += arrivals[j]
    set_hours(knobs, memory, obs, queues + n)

    # Admission.
    start = knobs.accept
    is_accepted = knobs.admission == ALL or not knobs.nu * pressure(knobs, obs, arrivals) > offered
    for k in range(start):
        memory.action[b, k] = knobs.chance if is_accepted else 0.0
    if not is_accepted:
        for j in range(n):
            arrivals[j] = 0.0

    if knobs.scheme == NOTHING:
        return

    # Routing.
    if knobs.is_pooled:
        route(knobs, memory, b, obs, arrivals, start)
        start += size * n
    else:
        for j in range(n):
            join(knobs, waiting, 0, j, float(arrivals[j]))

    # Request.
    if knobs.scheme == MAXWEIGHT or knobs.scheme == RELAXED:
        maxweight(knobs, memory, b, obs, start)
    elif knobs.scheme == CHANCE:
        for e in range(memory.action.shape[1] - start):
            c, j, s = e // (width * n), e // width % n, e % width
            memory.action[b, start + e] = np.floor(uniform(rng, b) * (waiting[queue_at(knobs, c, j) + s] + 1.0))
    else:
        for pool in range(size if knobs.is_pooled else 1):
            is_alone = knobs.is_pooled or not (size > 1 or knobs.is_flexible or knobs.scheme == NAIVE)
            pick_jobs(knobs, memory, b, pool if is_alone else -1, start, rng)
