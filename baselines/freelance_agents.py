"""GreedyAgent (Algorithm 2): agents choose jobs for themselves. And knapsacks of one skill, exactly or nearly.

These need tables whose sizes depend on the jobs that wait, so that they are compiled apart from the other policies.
"""

import numpy as np

from matchgym.envs.compile import allocating_kernel
from matchgym.envs.packing import FEASIBLE
from matchgym.envs.rng import uniform


@allocating_kernel
def smallest(job_hours, fresh, s):
    """The least size of a task of skill s that nobody has begun."""
    size = np.inf
    for j in range(len(job_hours)):
        if fresh[j, s] > 0:
            size = min(size, job_hours[j, s])
    return size


@allocating_kernel
def greedy_agent(job_hours, agent_hours, agents, waiting, is_decomposable, stream, b):
    """The tasks (N, S), or the jobs in every column if they are not decomposable, that agents finish in one epoch.

    Agents win in random order; each looks at the waiting jobs in an order of its own, the same for all its skills. For each
    skill it (i) takes whole tasks that fit, (ii) gives leftover hours to the task that an earlier agent has begun, (iii) and
    the rest to a part of the first task that nobody has begun. Unfinished tasks are released, and with them all tasks of a job
    that is not decomposable.

    Parameters
    ----------
    job_hours : (N, S). agent_hours : (M, S) of the only category. agents : (M,) counts.
    waiting : (N, S) waiting tasks. Of decomposable jobs the first to come are ahead in every skill.
    """
    n, skills = job_hours.shape
    first = np.zeros(n + 1, np.int64)
    for j in range(n):
        longest = 0
        for s in range(skills):
            longest = max(longest, waiting[j, s])
        first[j + 1] = first[j] + longest
    jobs = first[n]
    kind, left = np.zeros(jobs, np.int64), np.zeros((jobs, skills))  # hours that nobody has given yet; -1: not to be given
    is_begun = np.zeros((jobs, skills), np.bool_)
    least, untouched = np.full(skills, np.inf), np.zeros(skills, np.int64)
    fresh = np.zeros((n, skills), np.int64)  # tasks that nobody has begun
    for j in range(n):
        for k in range(first[j], first[j + 1]):
            kind[k] = j
            for s in range(skills):
                is_there = job_hours[j, s] > 0.0 and k - first[j] >= first[j + 1] - first[j] - waiting[j, s]
                left[k, s] = job_hours[j, s] if is_there else -1.0
                untouched[s] += is_there
                fresh[j, s] += is_there
        for s in range(skills):
            if waiting[j, s] > 0:
                least[s] = min(least[s], job_hours[j, s])
    crowd = np.zeros(agents.sum(), np.int64)
    place = 0
    for i in range(len(agents)):
        for _ in range(agents[i]):
            crowd[place] = i
            place += 1
    order = np.arange(jobs)
    partial = np.full(skills, -1)
    unfit = np.full(skills, -1)
    hours = np.zeros(skills)
    for turn in range(len(crowd)):
        other = turn + int(uniform(stream, b) * (len(crowd) - turn))
        crowd[turn], crowd[other] = crowd[other], crowd[turn]
        for s in range(skills):
            hours[s], unfit[s] = agent_hours[crowd[turn], s], -1
        for k in range(jobs):  # (i), in an order drawn as far as it is looked at
            is_busy = False
            for s in range(skills):
                may_fit = hours[s] >= least[s] - FEASIBLE * (1.0 + least[s])
                is_busy = is_busy or (untouched[s] > 0 and hours[s] > FEASIBLE and (may_fit or unfit[s] < 0))
            if not is_busy:
                break
            other = k + int(uniform(stream, b) * (jobs - k))
            order[k], order[other] = order[other], order[k]
            job = order[k]
            for s in range(skills):
                if left[job, s] <= 0.0 or is_begun[job, s] or hours[s] <= FEASIBLE:
                    continue
                if left[job, s] <= hours[s] + FEASIBLE * (1.0 + hours[s]):
                    hours[s] -= left[job, s]
                    left[job, s] = 0.0
                    is_begun[job, s] = True
                    untouched[s] -= 1
                    fresh[kind[job], s] -= 1
                    if fresh[kind[job], s] == 0:
                        least[s] = smallest(job_hours, fresh, s)
                elif unfit[s] < 0:
                    unfit[s] = job
        for s in range(skills):
            if hours[s] > FEASIBLE and partial[s] >= 0:  # (ii)
                part = min(hours[s], left[partial[s], s])
                left[partial[s], s] -= part
                hours[s] -= part
                if left[partial[s], s] <= FEASIBLE:
                    left[partial[s], s] = 0.0
                    partial[s] = -1
            if hours[s] > FEASIBLE and partial[s] < 0 and unfit[s] >= 0:  # (iii)
                partial[s] = unfit[s]
                is_begun[unfit[s], s] = True
                untouched[s] -= 1
                fresh[kind[unfit[s]], s] -= 1
                if fresh[kind[unfit[s]], s] == 0:
                    least[s] = smallest(job_hours, fresh, s)
                left[unfit[s], s] -= hours[s]
    done = np.zeros((n, skills), np.int64)
    for job in range(jobs):
        is_whole = True
        for s in range(skills):
            is_whole = is_whole and left[job, s] <= 0.0
        for s in range(skills):
            if (is_decomposable and is_begun[job, s] and left[job, s] == 0.0) or (not is_decomposable and is_whole):
                done[kind[job], s] += 1
    return done


@allocating_kernel
def knapsack(profits, sizes, capacity, caps):
    """max p.x with sizes.x <= capacity, x <= caps, in integers: the largest value for every capacity up to the given one.

    sizes (n,) are integers >= 1, caps (n,) integers. Returns the value and x (n,). Types are taken up one by one; with caps
    each in parts of 1, 2, 4, ... units.
    """
    n = len(profits)
    value = np.zeros(capacity + 1)
    parts = 0
    for j in range(n):
        most = min(caps[j], capacity // sizes[j])
        while most > 0:
            parts += 1
            most //= 2
    item, units = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    is_in = np.zeros((parts, capacity + 1), np.bool_)
    p = 0
    for j in range(n):
        most, unit = min(caps[j], capacity // sizes[j]), 1
        while most > 0:
            item[p], units[p] = j, min(unit, most)
            most -= units[p]
            unit *= 2
            weight, gain = units[p] * sizes[j], units[p] * profits[j]
            for c in range(capacity, weight - 1, -1):
                if value[c - weight] + gain > value[c]:
                    value[c] = value[c - weight] + gain
                    is_in[p, c] = True
            p += 1
    x, c = np.zeros(n, np.int64), capacity
    for q in range(p - 1, -1, -1):
        if is_in[q, c]:
            x[item[q]] += units[q]
            c -= units[q] * sizes[item[q]]
    return value[capacity], x


@allocating_kernel
def near_knapsack(profits, sizes, capacity, caps, eps):
    """As `knapsack` for any sizes > 0, up to a factor 1 - eps: the least size for every rounded profit (Section V).

    Parts of 1, 2, 4, ... units are the items; profits are rounded down to multiples of eps times the largest over the number of
    items, at which the best set loses at most eps of its profit.
    """
    n, parts = len(profits), 0
    largest = 0.0
    for j in range(n):
        most = min(caps[j], np.floor(capacity * (1.0 + FEASIBLE) / sizes[j] + FEASIBLE))
        if profits[j] > 0.0 and most >= 1.0:
            unit = 1.0
            while most > 0.0:
                parts += 1
                largest = max(largest, min(unit, most) * profits[j])
                most -= min(unit, most)
                unit *= 2.0
    x = np.zeros(n, np.int64)
    if parts == 0:
        return 0.0, x
    scale = eps * largest / parts
    item, units, gain, total = np.zeros(parts, np.int64), np.zeros(parts), np.zeros(parts, np.int64), 0
    p = 0
    for j in range(n):
        most, unit = min(caps[j], np.floor(capacity * (1.0 + FEASIBLE) / sizes[j] + FEASIBLE)), 1.0
        while profits[j] > 0.0 and most >= 1.0:
            item[p], units[p] = j, min(unit, most)
            gain[p] = int(np.floor(units[p] * profits[j] / scale))
            total += gain[p]
            most -= units[p]
            unit *= 2.0
            p += 1
    size = np.full(total + 1, np.inf)
    size[0] = 0.0
    is_in = np.zeros((parts, total + 1), np.bool_)
    for q in range(parts):
        weight = units[q] * sizes[item[q]]
        for c in range(total, gain[q] - 1, -1):
            if size[c - gain[q]] + weight < size[c]:
                size[c] = size[c - gain[q]] + weight
                is_in[q, c] = True
    best = 0
    for c in range(total + 1):
        if size[c] <= capacity * (1.0 + FEASIBLE) + FEASIBLE:
            best = c
    value, c = 0.0, best
    for q in range(parts - 1, -1, -1):
        if is_in[q, c]:
            x[item[q]] += int(units[q])
            value += units[q] * profits[item[q]]
            c -= gain[q]
    return value, x
