"""Kernels on the servers of data locality by class, that is by type and tasks, and departures one by one, which count them.

The last class of a type is open.
"""

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.locality_servers import candidate_kernel, candidates_kernel, draw_member, type_kernel
from matchgym.envs.rng import exponential, load, store, uniform


@kernel
def cell_kernel(params, m, length):
    """Where servers of type m with so many tasks are counted."""
    return m * params.n_levels + min(np.int64(length), params.n_levels - 1)


@outlined_kernel
def local_kernel(params, state, b, i, k):
    """Count the servers of dispatcher i by type and tasks."""
    cells = len(params.service_rates) * params.n_levels
    if params.is_complete:
        for c in range(cells):
            state.local[b, c] = state.overall[b, c]
        return
    for c in range(cells):
        state.local[b, c] = 0
    for place in range(candidates_kernel(params, i, k)):
        j = candidate_kernel(params, i, k, place)
        if j >= 0:
            state.local[b, cell_kernel(params, type_kernel(params.server_ends, j), state.servers[b, 2 * j])] += 1


@outlined_kernel
def class_kernel(params, state, b, action):
    """A uniform compatible server of the class `action`, or of all if there is none in it."""
    i, k, levels = state.dispatcher[b], state.dispatcher_type[b], params.n_levels
    if action < 0 or action >= len(params.service_rates) * levels or state.local[b, action] == 0:
        state.invalid_actions[b] += 1
        return member_kernel(params, state.stream, b, i, k)
    count, n = state.local[b, action], candidates_kernel(params, i, k)
    if 8 * count >= n or params.is_complete:  # draw until one is in the class
        start, n_type = 0, 0
        if params.is_complete:
            start = params.server_ends[action // levels]
            n_type = params.server_ends[action // levels + 1] - start
        while True:
            if params.is_complete:
                j = start + int(uniform(state.stream, b) * n_type)
            else:
                j = member_kernel(params, state.stream, b, i, k)
            if cell_kernel(params, type_kernel(params.server_ends, j), state.servers[b, 2 * j]) == action:
                return j
    left = int(uniform(state.stream, b) * count)
    for place in range(n):
        j = candidate_kernel(params, i, k, place)
        if j >= 0 and cell_kernel(params, type_kernel(params.server_ends, j), state.servers[b, 2 * j]) == action:
            if left == 0:
                return j
            left -= 1
    raise RuntimeError("the counts of the local occupancy are wrong")


@kernel
def member_kernel(params, stream, b, i, k):
    """A uniform server of dispatcher i."""
    j, words = draw_member(params, load(stream, b), i, k)
    store(stream, b, words)
    return j


@outlined_kernel
def events_kernel(params, state, b):
    """Departures one by one, up to the arrival of a task; returns the time integral of the number of tasks."""
    world, last = state.world, len(params.service_rates)
    work = params.work_ends[last]
    total, integral = params.total_rate + work, 0.0
    while True:
        passed = exponential(world, b) / total
        state.elapsed_time[b] += passed
        integral += passed * state.tasks[b]
        level = uniform(world, b) * total - params.total_rate
        if level < 0.0:
            return integral
        m = type_kernel(params.work_ends, level)
        first, size = params.server_ends[m], params.server_ends[m + 1] - params.server_ends[m]
        j = first + min(int((level - params.work_ends[m]) / params.service_rates[m]), size - 1)
        length = state.servers[b, 2 * j]
        if length > 0.0:
            state.servers[b, 2 * j] = length - 1.0
            state.overall[b, cell_kernel(params, m, length)] -= 1
            state.overall[b, cell_kernel(params, m, length - 1.0)] += 1
            state.tasks[b] -= 1
