"""Jobs that win one by one: GreedyJob (Algorithm 3) and the naive picking of Section I.

Which job wins next is drawn from the counts of jobs by type; a type is out as soon as one of its jobs finds no room, because
hours only become fewer. An epoch therefore costs time in the jobs that are granted, not in those that wait.
"""

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.freelance_schemes import AGES, ANY, BY_INDEX, HIGH, NAIVE, OLDEST_FIRST, queue_at, width_of
from matchgym.envs.packing import FEASIBLE
from matchgym.envs.rng import uniform


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
def set_spare(knobs, memory, hours):
    """All hours (L S) are left; by sets of categories for GreedyJob in flexible markets."""
    skills, spare = knobs.job_hours.shape[1], memory.spare[0]
    if not knobs.is_flexible or knobs.scheme == NAIVE:
        for k in range(knobs.n_categories * skills):
            spare[k] = hours[k]
        return
    for k in range(len(knobs.sets)):
        for s in range(skills):
            spare[k * skills + s] = 0.0
            for c in range(knobs.n_categories):
                if knobs.sets[k] >> c & 1:
                    spare[k * skills + s] += hours[c * skills + s]


@kernel
def job_takes(knobs, memory, b, c, j):
    """Whether a job of type j finds all its hours, which it then takes: in category l, or (l < 0) in a flexible market."""
    left, skills = memory.spare[0], knobs.job_hours.shape[1]
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
        fits = fits and not memory.spare[0, c * skills + s] < hours - FEASIBLE * (1.0 + hours)
    return fits


@outlined_kernel
def spread(knobs, memory, b, j, rng):
    """Whether a naive job finds its hours in the categories it may use, which it then takes in its order of preference."""
    left, size, skills = memory.spare[0], knobs.n_categories, knobs.job_hours.shape[1]
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
def pick_jobs(knobs, memory, b, pool, hours, request, rng):
    """Jobs win one by one; each takes all its hours or nothing, and then no job of its type can. Adds to request (E,).

    In random order, by type, or those that have waited longest first, among equals at random. pool: the category whose queues
    compete, -1 where all do.
    """
    n, width = len(knobs.n_tasks), width_of(knobs)
    counts, waiting = memory.counts[0], memory.waiting[0]
    if pool <= 0:
        set_spare(knobs, memory, hours)
    for j in range(n):
        counts[j] = 0.0
        if pool < 0 or knobs.allowed[j, pool]:
            place, least = queue_at(knobs, max(pool, 0), j), np.inf  # jobs none of whose tasks is done
            for s in range(width):
                if not knobs.is_decomposable or knobs.job_hours[j, s] > 0.0:
                    least = min(least, waiting[place + s])
            counts[j] = least
    if knobs.scheme != NAIVE or knobs.order != OLDEST_FIRST:
        contend(knobs, memory, b, pool, request, rng)
        return
    age_kernel(memory, b, counts)
    for j in range(n):
        memory.out[0, j] = 0
    for k in range(AGES - 1, -1, -1):
        total = 0.0
        for j in range(n):
            counts[j] = 0.0 if memory.out[0, j] else float(memory.ages[b, k * n + j])
            total += counts[j]
        if total > 0.0:
            contend(knobs, memory, b, pool, request, rng)


@outlined_kernel
def age_kernel(memory, b, counts):
    """Bring ages (AGES n) up to an epoch in which counts (n,) jobs wait: [0] have just come, [1] have waited one epoch, ...

    Of what was there before, the oldest have gone. What nobody saw come counts among the oldest, who are all equal.
    """
    n, ages = len(counts), memory.ages[b]
    for j in range(n):
        known = 0
        ages[(AGES - 1) * n + j] += ages[(AGES - 2) * n + j]
        for k in range(AGES - 2, 0, -1):
            ages[k * n + j] = ages[(k - 1) * n + j]
        ages[j] = memory.fresh[0, j]
        for k in range(AGES):
            known += ages[k * n + j]
        gone = known - int(counts[j])
        if gone < 0:
            ages[(AGES - 1) * n + j] -= gone
        for k in range(AGES - 1, -1, -1):
            if gone <= 0:
                break
            part = min(gone, ages[k * n + j])
            ages[k * n + j] -= part
            gone -= part


@outlined_kernel
def contend(knobs, memory, b, pool, request, rng):
    """Let counts (n,) of jobs win in random order, or by type, until none is left or can win; who fails is out."""
    n, width = len(knobs.n_tasks), width_of(knobs)
    tree, counts, total = memory.tree[0], memory.counts[0], 0.0
    for j in range(n):
        total += counts[j]
    fill_tree(tree, counts)
    is_naive, j = knobs.scheme == NAIVE, 0
    while total > 0.0:
        if is_naive and knobs.order == BY_INDEX:
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
        memory.out[0, j] = not has_won
        counts[j] -= lost
        lower_tree(tree, n, j, lost)
        total -= lost
        if has_won:
            place = ((0 if knobs.is_flexible else c * n) + j) * width
            for s in range(width):
                if not knobs.is_decomposable or knobs.job_hours[j, s] > 0.0:
                    request[place + s] += 1.0
