"""The kernel behind the policies for freelance markets: admission, routing to pools, and the request of an epoch.

Every policy is an *admission* (all, or rule (7) of Section VI with pressure I or II), a *routing* where categories have queues of
their own (join the least total task of Algorithm 4, or its improved form of Algorithm 5), and a *scheme*: MaxWeight (Algorithm 1)
by branch and bound or by its relaxation rounded down, GreedyJob (Algorithm 3), the naive picking of Section I, or chance. All are
numbers among a policy's parameters, so that all policies are one kernel and are compiled once.
"""

from typing import NamedTuple

import numpy as np

from matchgym.envs.compile import Integer, Integers, IntegerTable, Real, Reals, RealTable, WordTable, kernel, outlined_kernel
from matchgym.envs.packing import FEASIBLE, INTEGRAL, branch, relax
from matchgym.envs.rng import uniform

ALL, PRESSURE_CENTRAL, PRESSURE_POOLS, PRESSURE_PRINTED = range(4)  # admissions
EVEN, LEAST_TASKS, FILLING = range(3)  # routings
MAXWEIGHT, RELAXED, GREEDY_JOB, NAIVE, CHANCE = range(5)  # schemes
LOW, HIGH, ANY = range(3)  # categories that a naive job prefers


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
    accept: Integer  # numbers for admission at the front of an action
    nu: Real
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


@kernel
def width_of(knobs):
    """Queues of a job type in a pool."""
    return knobs.job_hours.shape[1] if knobs.is_decomposable else 1


@kernel
def queue_at(knobs, c, j):
    """Where the queues of type j begin, those of category l with pools."""
    return ((c * len(knobs.n_tasks) if knobs.is_pooled else 0) + j) * width_of(knobs)


@kernel
def tasks_at(knobs, queue, c, j):
    """sum_s Q_js over the tasks of type j (in category l with pools)."""
    start, total = queue_at(knobs, c, j), 0.0
    if not knobs.is_decomposable:
        return knobs.n_tasks[j] * float(queue[start])
    for s in range(knobs.job_hours.shape[1]):
        total += float(queue[start + s])
    return total


@kernel
def jobs_at(knobs, queue, c, j):
    """Incomplete jobs of type j (in category l with pools)."""
    start, longest = queue_at(knobs, c, j), 0.0
    for s in range(width_of(knobs)):
        longest = max(longest, float(queue[start + s]))
    return longest


@kernel
def join(knobs, queue, c, j, count):
    """Jobs of type j join the queues."""
    start = queue_at(knobs, c, j)
    for s in range(width_of(knobs)):
        if not knobs.is_decomposable or knobs.job_hours[j, s] > 0.0:
            queue[start + s] += count


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


@kernel
def column_of(knobs, e):
    """Category, type and skill of a column."""
    return knobs.columns[e, 0], knobs.columns[e, 1], knobs.columns[e, 2]


@outlined_kernel
def maxweight(knobs, memory, b, obs, start):
    """The request of Algorithm 1 or, RELAXED, of programme (10) rounded down.

    Literally, weights are Q and nothing caps an allocation; capped, weights are Q + A, as is the cap.
    """
    n, width = len(knobs.n_tasks), width_of(knobs)
    weight, cap, limit, best, waiting = memory.weight[0], memory.cap[0], memory.limit[0], memory.best[0], memory.waiting[0]
    for p in range(len(knobs.block)):
        entry, first_row = knobs.block[p, 0], knobs.block[p, 1]
        first, m = knobs.block[p, 2], knobs.block[p, 3]
        k = (knobs.block[p + 1, 2] if p + 1 < len(knobs.block) else len(knobs.columns) - 1) - first
        a = memory.matrix[0, : m * k].reshape((m, k))
        for i in range(m * k):
            memory.matrix[0, i] = knobs.rows[entry + i]
        for e in range(k):
            c, j, s = column_of(knobs, first + e)
            place = queue_at(knobs, c, j) + s
            each = waiting[place] if knobs.is_capped else float(obs[place])
            weight[e] = each if knobs.is_decomposable else knobs.n_tasks[j] * each
            cap[e] = waiting[place] if knobs.is_capped else np.inf
        for i in range(m):
            some, s, queue = knobs.row[first_row + i, 0], knobs.row[first_row + i, 1], knobs.row[first_row + i, 2]
            limit[i] = 0.0
            if queue >= 0:
                limit[i] = waiting[queue_at(knobs, 0, queue) + knobs.columns[first, 2]] if knobs.is_capped else 1e9
            else:
                for c in range(knobs.n_categories):
                    if some >> c & 1:
                        limit[i] += memory.hours[0, c * knobs.job_hours.shape[1] + s]
        if knobs.scheme == RELAXED:
            for e in range(k):
                best[e] = 0.0
                if weight[e] <= 0.0:
                    cap[e] = 0.0
            solve_relaxed(a, limit[:m], weight[:k], cap[:k], best[:k], memory.reals[0], memory.integers[0])
        else:
            branch(a, limit[:m], weight[:k], cap[:k], knobs.nodes, best[:k], memory.reals[0], memory.integers[0])
        for e in range(k):
            c, j, s = column_of(knobs, first + e)
            memory.action[b, start + ((0 if knobs.is_flexible else c * n) + j) * width + s] = best[e]


@outlined_kernel
def solve_relaxed(a, b, w, cap, x, reals, integers):
    """The relaxation, rounded down; returns its value before rounding."""
    m, n = a.shape
    low = reals[(m + 1) * (n + 1) + n + m :][:n]
    for j in range(n):
        low[j] = 0.0
    value = relax(a, b, w, low, cap, x, reals, integers)
    for j in range(n):
        x[j] = np.floor(x[j] + INTEGRAL)
    return value


@outlined_kernel
def fill_tree(tree, counts):
    """A Fenwick tree of the counts (n,) in tree[1..n]."""
    n = len(counts)
    for i in range(1, n + 1):
        tree[i] = 0.0
    for i in range(1, n + 1):
        tree[i] += counts[i - 1]
        up = i + (i & -i)
        if up <= n:
            tree[up] += tree[i]


@outlined_kernel
def lower_tree(tree, n, j, amount):
    """Take an amount off count j."""
    i = j + 1
    while i <= n:
        tree[i] -= amount
        i += i & -i


@outlined_kernel
def find_in_tree(tree, n, level):
    """The first j whose counts up to j exceed `level`."""
    place, step = 0, 1
    while 2 * step <= n:
        step *= 2
    while step > 0:
        if place + step <= n and tree[place + step] <= level:
            place += step
            level -= tree[place]
        step //= 2
    return min(place, n - 1)


@outlined_kernel
def job_takes(knobs, memory, b, c, j):
    """Whether a job of type j finds all its hours, which it then takes: in category l, or (l < 0) in a flexible market."""
    left, skills = memory.left[0], knobs.job_hours.shape[1]
    for pass_ in range(2):
        for s in range(skills):
            hours = knobs.job_hours[j, s]
            if hours <= 0.0:
                continue
            if c >= 0:
                if pass_ == 1:
                    left[c * skills + s] -= hours
                elif left[c * skills + s] < hours - FEASIBLE * (1.0 + hours):
                    return False
                continue
            for k in range(len(knobs.sets)):
                if knobs.signature[j] & ~knobs.sets[k] == 0:
                    if pass_ == 1:
                        left[k * skills + s] -= hours
                    elif left[k * skills + s] < hours - FEASIBLE * (1.0 + hours):
                        return False
    return True


@outlined_kernel
def category_of(knobs, memory, b, j, rng):
    """A naive job's category in an inflexible market, whose hours it takes; -1 if none has room."""
    size, chosen, seen = knobs.n_categories, -1, 0.0
    for k in range(size):
        c = size - 1 - k if knobs.preference == HIGH else k
        if knobs.allowed[j, c] and has_room(knobs, memory, c, j):
            seen += 1.0
            if knobs.preference != ANY:
                chosen = c
                break
            if uniform(rng, b) * seen < 1.0:
                chosen = c
    if chosen >= 0:
        job_takes(knobs, memory, b, chosen, j)
    return chosen


@kernel
def has_room(knobs, memory, c, j):
    """Whether category l has the hours of a job of type j."""
    skills, fits = knobs.job_hours.shape[1], True
    for s in range(skills):
        hours = knobs.job_hours[j, s]
        fits = fits and not memory.left[0, c * skills + s] < hours - FEASIBLE * (1.0 + hours)
    return fits


@outlined_kernel
def spread(knobs, memory, b, j, rng):
    """Whether a naive job finds its hours in the categories it may use, which it then takes in its order of preference."""
    left, size, skills = memory.left[0], knobs.n_categories, knobs.job_hours.shape[1]
    for s in range(skills):
        total, hours = 0.0, knobs.job_hours[j, s]
        for c in range(size):
            if knobs.allowed[j, c]:
                total += max(left[c * skills + s], 0.0)
        if total < hours - FEASIBLE * (1.0 + hours):
            return False
    shift = int(uniform(rng, b) * size) if knobs.preference == ANY else 0
    for s in range(skills):
        need = knobs.job_hours[j, s]
        for k in range(size):
            c = size - 1 - k if knobs.preference == HIGH else (k + shift) % size
            if knobs.allowed[j, c] and need > 0.0:
                part = min(need, max(left[c * skills + s], 0.0))
                left[c * skills + s] -= part
                need -= part
    return True


@outlined_kernel
def pick_jobs(knobs, memory, b, pool, start, rng):
    """Jobs win one by one, in random order or by type; each takes all its hours or nothing, and then no job of its type can.

    pool: the category whose queues compete, -1 where all do.
    """
    n, skills, width = len(knobs.n_tasks), knobs.job_hours.shape[1], width_of(knobs)
    tree, counts, waiting, total = memory.tree[0], memory.counts[0], memory.waiting[0], 0.0
    for j in range(n):
        counts[j] = 0.0
        if pool < 0 or knobs.allowed[j, pool]:
            place, least = queue_at(knobs, max(pool, 0), j), np.inf  # jobs none of whose tasks is done
            for s in range(width):
                if not knobs.is_decomposable or knobs.job_hours[j, s] > 0.0:
                    least = min(least, waiting[place + s])
            counts[j] = least
        total += counts[j]
    fill_tree(tree, counts)
    is_naive, j = knobs.scheme == NAIVE, 0
    while total > 0.0:
        if is_naive and not knobs.is_random_order:
            while counts[j] <= 0.0:
                j += 1
        else:
            j = find_in_tree(tree, n, np.floor(uniform(rng, b) * total))
        c = pool
        if not is_naive:
            has_won = job_takes(knobs, memory, b, pool, j)
        elif knobs.is_flexible:
            has_won = spread(knobs, memory, b, j, rng)
        else:
            c = category_of(knobs, memory, b, j, rng)
            has_won = c >= 0
        lost = 1.0 if has_won else counts[j]
        counts[j] -= lost
        lower_tree(tree, n, j, lost)
        total -= lost
        if has_won:
            place = start + ((0 if knobs.is_flexible else c * n) + j) * width
            for s in range(width):
                if not knobs.is_decomposable or knobs.job_hours[j, s] > 0.0:
                    memory.action[b, place + s] += 1.0


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
        memory.action[b, k] = is_accepted
    if not is_accepted:
        for j in range(n):
            arrivals[j] = 0.0

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
    elif knobs.is_pooled:
        for c in range(size):
            pick_jobs(knobs, memory, b, c, start, rng)
    else:
        pick_jobs(knobs, memory, b, -1 if size > 1 or knobs.is_flexible or knobs.scheme == NAIVE else 0, start, rng)
