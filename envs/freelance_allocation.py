"""Requests are granted as far as jobs wait and hours are left, entry by entry, in index order or by priority."""

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.freelance_queues import width_kernel
from matchgym.envs.freelance_split import room_kernel, take_kernel
from matchgym.envs.packing import most
from matchgym.envs.rng import uniform

MODES = ("request", "priority", "order")  # of the option `action`
ORDERS = ("most-tasks", "random-order")  # of granting what waits, where decisions are on admission only
REQUEST, PRIORITY, ORDER, MOST_TASKS, RANDOM_ORDER = range(len(MODES) + len(ORDERS))


@outlined_kernel
def clear_kernel(params, state, b):
    """Nothing is granted yet."""
    skills = params.job_hours.shape[1]
    for e in range(state.allocation.shape[1]):
        state.allocation[b, e] = 0
    for k in range(state.used.shape[1]):
        state.used[b, k] = 0.0
    if params.is_flexible:
        for k in range(len(params.sets)):
            for s in range(skills):
                state.granted[b, k * skills + s] = state.supply[b, k * skills + s] = 0.0
                for c in range(params.n_categories):
                    if params.sets[k] >> c & 1:
                        state.supply[b, k * skills + s] += state.hours[b, c * skills + s]
        for k in range(state.demand.shape[1]):
            state.demand[b, k] = 0.0


@outlined_kernel
def grant_kernel(params, state, b, e, wanted):
    """Grant entry e of a request as far as it waits and fits; returns how much."""
    n, skills, width = len(params.arrival_means), params.job_hours.shape[1], width_kernel(params)
    s, j, c = e % width, e // width % n, e // (width * n)
    d = ((c * n if params.is_pooled else 0) + j) * width + s
    count = min(wanted, float(state.queue[b, d]))
    first, last = (s, s + 1) if params.is_decomposable else (0, skills)
    if not params.is_flexible and not params.allowed[j, c]:
        count = 0.0
    for each in range(first, last):
        hours = params.job_hours[j, each]
        if hours > 0.0 and count > 0.0:
            if params.is_flexible:
                count = min(count, room_kernel(params, state, b, j, each))
            else:
                count = min(count, most(state.hours[b, c * skills + each], hours, state.used[b, c * skills + each]))
    if count <= 0.0:
        return 0.0
    for each in range(first, last):
        hours = params.job_hours[j, each]
        if hours > 0.0:
            if params.is_flexible:
                take_kernel(params, state, b, j, each, count)
                state.demand[b, params.group[j] * skills + each] += count * hours
            else:
                state.used[b, c * skills + each] += count * hours
    state.queue[b, d] -= int(count)
    state.allocation[b, e] += int(count)
    return count


@outlined_kernel
def rank_kernel(params, state, b, values):
    """Put the entries in the order in which they are granted."""
    n, width, entries = len(params.arrival_means), width_kernel(params), state.allocation.shape[1]
    score, place = state.score[0], state.place[0]
    for e in range(entries):
        place[e] = e
        if params.mode == PRIORITY or params.mode == ORDER:
            value = float(values[e])
            is_valid = -1.0 <= value <= 1.0 if params.mode == PRIORITY else 0.0 <= value <= entries - 1.0
            score[e] = value if params.mode == PRIORITY else -value
            if not is_valid:
                state.invalid_actions[b] += 1
                score[e] = -np.inf
        elif params.mode == RANDOM_ORDER:
            score[e] = uniform(state.choice, b)
        elif params.mode == MOST_TASKS:
            j = e // width % n
            d = e if params.is_pooled or params.is_flexible else j * width + e % width
            score[e] = state.queue[b, d] * tasks_kernel(params, j)
    if params.mode != REQUEST:
        sort_by_score(score, place)


@kernel
def tasks_kernel(params, j):
    """Tasks behind an entry of the queue: d_j of a job that is not decomposable."""
    tasks = 0
    for s in range(params.job_hours.shape[1]):
        tasks += params.job_hours[j, s] > 0.0
    return 1 if params.is_decomposable else tasks


@outlined_kernel
def sort_by_score(score, place):
    """Shell's sort of the entries in `place`: the largest score first, the lowest index among equals."""
    entries = len(place)
    gap = entries // 2
    while gap > 0:
        for k in range(gap, entries):
            e, hole = place[k], k
            while hole >= gap:
                other = place[hole - gap]
                if score[other] > score[e] or (score[other] == score[e] and other < e):
                    break
                place[hole] = other
                hole -= gap
            place[hole] = e
        gap //= 2


@outlined_kernel
def allocate_kernel(params, state, b, values):
    """Grant a request in index order, or everything that waits and fits in the order of the mode."""
    clear_kernel(params, state, b)
    rank_kernel(params, state, b, values)
    cut = 0.0
    for k in range(state.allocation.shape[1]):
        e, wanted = state.place[0, k], np.inf
        if params.mode == REQUEST:
            wanted = float(values[e])
            if not 0.0 <= wanted < np.inf:
                state.invalid_actions[b] += 1
                wanted = 0.0
            wanted = np.floor(wanted + 1e-9)
        if wanted > 0.0:
            granted = grant_kernel(params, state, b, e, wanted)
            if params.mode == REQUEST:
                cut += wanted - granted
    state.cut[b] = cut
    state.total_cut[b] += cut
