"""The queues of freelance markets, and how jobs that arrive join them.

A job that is not decomposable waits in one queue, a decomposable one in a queue for each of its tasks. With pools, each
category has queues of its own: types stand row by row, category by category.
"""

import numpy as np

from matchgym.envs.compile import kernel


@kernel
def width_kernel(params):
    """Queues of a job type in a pool: one, or one per skill."""
    return params.job_hours.shape[1] if params.is_decomposable else 1


@kernel
def queue_size(params):
    """Entries of the queue that are in use."""
    pools = params.n_categories if params.is_pooled else 1
    return pools * len(params.arrival_means) * width_kernel(params)


@kernel
def first_category(params, j):
    """The first category that may serve type j; 0 if none may."""
    for c in range(params.n_categories):
        if params.allowed[j, c]:
            return c
    return 0


@kernel
def join_kernel(params, state, b, c, j, count):
    """Jobs of a type join the queues, those of category l with pools."""
    n, skills, width = len(params.arrival_means), params.job_hours.shape[1], width_kernel(params)
    start = ((c * n if params.is_pooled else 0) + j) * width
    if params.is_decomposable:
        for s in range(skills):
            if params.job_hours[j, s] > 0.0:
                state.queue[b, start + s] += count
    else:
        state.queue[b, start] += count


@kernel
def waiting_kernel(params, state, b, c, j):
    """Incomplete jobs of type j, those of category l with pools: of decomposable jobs the longest queue of tasks."""
    n, width = len(params.arrival_means), width_kernel(params)
    start, longest = ((c * n if params.is_pooled else 0) + j) * width, 0
    for s in range(width):
        longest = max(longest, state.queue[b, start + s])
    return longest


@kernel
def count_kernel(params, state, b):
    """Count the waiting jobs."""
    total = 0
    for j in range(len(params.arrival_means)):
        state.jobs[b, j] = 0
        for c in range(params.n_categories if params.is_pooled else 1):
            state.jobs[b, j] += waiting_kernel(params, state, b, c, j)
        total += state.jobs[b, j]
    state.backlog[b] = total


@kernel
def route_kernel(params, state, b, j, count, routes):
    """Send the accepted jobs of type j to pools: as the action says if its integers add up, else in proportion to it.

    Proportional shares are rounded by largest remainder, the lowest index first; without any weight they are even.
    """
    n, size = len(params.arrival_means), params.n_categories
    total, is_exact, share = 0.0, True, state.left[0]
    for c in range(size):
        weight = float(routes[c * n + j])
        if not 0.0 <= weight < np.inf:
            state.invalid_actions[b] += 1
            weight = 0.0
        share[c] = weight if params.allowed[j, c] else 0.0
        total += share[c]
        is_exact = is_exact and share[c] == np.floor(share[c])
    if is_exact and total == count:
        for c in range(size):
            join_kernel(params, state, b, c, j, int(share[c]))
        return
    if total <= 0.0:
        for c in range(size):
            share[c] = params.allowed[j, c]
            total += share[c]
    if total <= 0.0:  # no category may serve the type: its jobs wait for ever
        join_kernel(params, state, b, 0, j, count)
        return
    sent = 0
    for c in range(size):
        whole = int(np.floor(count * (share[c] / total)))
        share[c] = count * (share[c] / total) - whole if share[c] > 0.0 else -1.0
        sent += whole
        join_kernel(params, state, b, c, j, whole)
    while sent < count:
        best = 0
        for c in range(size):
            if share[c] > share[best]:
                best = c
        join_kernel(params, state, b, best, j, 1)
        share[best] = max(share[best] - 1.0, -0.5)
        sent += 1


@kernel
def balance_kernel(params, state, b, j, count):
    """Every job of type j joins the pool with the fewest of its type, the lowest index among equals (Algorithm 5)."""
    for _ in range(count):
        best, least = first_category(params, j), -1
        for c in range(params.n_categories):
            if params.allowed[j, c]:
                ahead = waiting_kernel(params, state, b, c, j)
                if least < 0 or ahead < least:
                    best, least = c, ahead
        join_kernel(params, state, b, best, j, 1)
