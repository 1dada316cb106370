"""Requests are granted as far as jobs wait and hours are left, entry by entry, in index order or by priority."""

import numpy as np

from matchgym.envs.compile import kernel
from matchgym.envs.freelance_queues import width_kernel
from matchgym.envs.freelance_split import room_kernel, take_kernel
from matchgym.envs.packing import most

MODES = ("request", "priority", "order")  # of the option `action`
REQUEST, PRIORITY, ORDER = range(len(MODES))


@kernel
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


@kernel
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


@kernel
def request_kernel(params, state, b, request):
    """Grant a request in index order."""
    cut = 0.0
    for e in range(state.allocation.shape[1]):
        wanted = float(request[e])
        if not 0.0 <= wanted < np.inf:
            state.invalid_actions[b] += 1
        elif wanted > 0.0:
            wanted = np.floor(wanted + 1e-9)
            cut += wanted - grant_kernel(params, state, b, e, wanted)
    state.cut[b] = cut
    state.total_cut[b] += cut


@kernel
def priority_kernel(params, state, b, values):
    """Grant everything that waits and fits, entry by entry: the largest priority, or the lowest rank, first."""
    entries = state.allocation.shape[1]
    score = state.score[0]
    for e in range(entries):
        value = float(values[e])
        score[e] = value if params.mode == PRIORITY else -value
        low, high = (-1.0, 1.0) if params.mode == PRIORITY else (0.0, entries - 1.0)
        if not low <= value <= high:
            state.invalid_actions[b] += 1
            score[e] = -np.inf
    grant_by_score(params, state, b)


@kernel
def grant_by_score(params, state, b):
    """Grant everything that waits and fits, entry by entry, the largest `score` first, the lowest index among equals."""
    entries = state.allocation.shape[1]
    place, score = state.place[0], state.score[0]
    for e in range(entries):
        place[e] = e
    gap = entries // 2
    while gap > 0:  # Shell's sort
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
    for k in range(entries):
        grant_kernel(params, state, b, place[k], np.inf)
    state.cut[b] = 0.0
