"""Kernels on the graph and the servers of data locality: who is joined to whom, and who has left a server."""

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.locality_instances import HASHED, LISTED, has_edge
from matchgym.envs.rng import draw_uniform, exponential


@kernel
def type_kernel(group_ends, index):
    """The type of a server or dispatcher, by where the types end."""
    kind = 0
    for k in range(1, len(group_ends) - 1):
        kind += index >= group_ends[k]
    return kind


@kernel
def candidates_kernel(params, i, k):
    """Places among which the servers of dispatcher i stand."""
    if params.kind == LISTED:
        return params.starts[i + 1] - params.starts[i]
    if params.kind == HASHED:
        return params.server_ends[-1]
    count = 0
    for m in range(params.widths.shape[1]):
        count += params.widths[k, m]
    return count


@kernel
def candidate_kernel(params, i, k, place):
    """The server of dispatcher i, of type k, at a place; -1 if none stands there."""
    if params.kind == LISTED:
        return params.members[np.uint64(params.starts[np.uint64(i)] + place)]
    n = params.server_ends[-1]
    if params.kind == HASHED:
        level = params.levels[k, type_kernel(params.server_ends, place)]
        return place if level > 0 and has_edge(params.word[0, 0], n, i, place, level) else -1
    m = 0
    while place >= params.widths[k, m]:
        place -= params.widths[k, m]
        m += 1
    start = params.server_ends[m]
    size = params.server_ends[m + 1] - start
    if params.widths[k, m] == size:
        return start + place
    if len(params.members) > 1:
        place = params.members[k * n + start + place]
    first, dispatchers = i - params.dispatcher_ends[k], params.dispatcher_ends[k + 1] - params.dispatcher_ends[k]
    begin = first * size // dispatchers if dispatchers < size else first % size
    return start + (begin + place) % size


@kernel
def draw_member(params, words, i, k):
    """A uniform server of dispatcher i and the words after it."""
    n = params.server_ends[-1] if params.is_complete else candidates_kernel(params, i, k)
    while True:
        fraction, words = draw_uniform(words)
        place = int(fraction * n)
        j = place if params.is_complete else candidate_kernel(params, i, k, place)
        if j >= 0:
            return j, words


@kernel
def service_kernel(params, state, b, m):
    """How long a server of type m serves its next task."""
    return exponential(state.service, b) * params.service_times[m]


@kernel
def start_kernel(params, state, b, j, m, tasks):
    """Server j of type m starts with so many tasks."""
    place = 2 * np.uint64(j)
    state.servers[b, place], state.servers[b, place + np.uint64(1)] = tasks, np.inf
    if tasks > 0:
        state.servers[b, place + np.uint64(1)] = state.elapsed_time[b] + service_kernel(params, state, b, m)


@kernel
def join_kernel(params, state, b, j, m):
    """A task joins server j of type m; returns the tasks there, with it."""
    place = 2 * np.uint64(j)
    tasks = state.servers[b, place] + 1.0
    state.servers[b, place] = tasks
    if tasks == 1.0:
        state.servers[b, place + np.uint64(1)] = state.elapsed_time[b] + service_kernel(params, state, b, m)
    return tasks


@kernel
def look_kernel(params, state, b, j, m):
    """Bring server j of type m up to date."""
    place, now = 2 * np.uint64(j), state.elapsed_time[b]
    end = state.servers[b, place + np.uint64(1)]
    if end > now:
        return
    tasks = state.servers[b, place]
    while end <= now:
        tasks -= 1.0
        end = end + service_kernel(params, state, b, m) if tasks > 0.0 else np.inf
    state.servers[b, place], state.servers[b, place + np.uint64(1)] = tasks, end


@outlined_kernel
def look_at_all_kernel(params, state, b):
    """Bring every server up to date."""
    for m in range(len(params.service_rates)):
        for j in range(params.server_ends[m], params.server_ends[m + 1]):
            look_kernel(params, state, b, j, m)
