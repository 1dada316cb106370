"""Kernels on the graph and the servers of data locality: who is joined to whom, and who has left since a server was seen."""

import math

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.locality_instances import HASHED, LISTED, has_edge
from matchgym.envs.rng import INVERSION_LIMIT, poisson, uniform


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
def member_kernel(params, stream, b, i, k):
    """A uniform server of dispatcher i."""
    n = params.server_ends[-1] if params.is_complete else candidates_kernel(params, i, k)
    while True:
        place = int(uniform(stream, b) * n)
        j = place if params.is_complete else candidate_kernel(params, i, k, place)
        if j >= 0:
            return j


@kernel
def look_kernel(params, state, b, j, m):
    """Bring server j of type m up to date."""
    place, now = 2 * np.uint64(j), state.elapsed_time[b]
    length = state.servers[b, place]
    if length > 0.0:
        mean = params.service_rates[m] * (now - state.servers[b, place + np.uint64(1)])
        state.servers[b, place] = length - departures_kernel(state.service, b, mean, length)
    state.servers[b, place + np.uint64(1)] = now


@kernel
def departures_kernel(stream, b, mean, most):
    """min(most, Poisson(mean))."""
    if mean >= INVERSION_LIMIT:
        return min(most, float(poisson(stream, b, mean)))
    left, mass, count = uniform(stream, b), math.exp(-mean), 0.0
    while left >= mass and count < most:
        left -= mass
        count += 1.0
        mass *= mean / count
    return count


@outlined_kernel
def look_at_all_kernel(params, state, b):
    """Bring every server up to date."""
    for m in range(len(params.service_rates)):
        for j in range(params.server_ends[m], params.server_ends[m + 1]):
            look_kernel(params, state, b, j, m)
