"""The queues of freelance markets, and how jobs that arrive join them.

A job that is not decomposable waits in one queue, a decomposable one in a queue for each of its tasks. With pools, each
category has queues of its own: types stand row by row, category by category.
"""

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel


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


@outlined_kernel
def join_kernel(params, state, b, j):
    """Jobs of type j join the queues: with pools, sent[l] that of each category l, else sent[0] the only one."""
    n, skills, width, sent = len(params.arrival_means), params.job_hours.shape[1], width_kernel(params), state.line[0]
    for c in range(params.n_categories if params.is_pooled else 1):
        start = (c * n + j) * width
        if params.is_decomposable:
            for s in range(skills):
                if params.job_hours[j, s] > 0.0:
                    state.queue[b, start + s] += sent[c]
        else:
            state.queue[b, start] += sent[c]


@kernel
def waiting_kernel(params, state, b, c, j):
    """Incomplete jobs of type j, those of category l with pools: of decomposable jobs the longest queue of tasks."""
    n, width = len(params.arrival_means), width_kernel(params)
    start, longest = ((c * n if params.is_pooled else 0) + j) * width, 0
    for s in range(width):
        longest = max(longest, state.queue[b, start + s])
    return longest


@outlined_kernel
def count_kernel(params, state, b):
    """Count the waiting jobs."""
    total = 0
    for j in range(len(params.arrival_means)):
        state.jobs[b, j] = 0
        for c in range(params.n_categories if params.is_pooled else 1):
            state.jobs[b, j] += waiting_kernel(params, state, b, c, j)
        total += state.jobs[b, j]
    state.backlog[b] = total


@outlined_kernel
def route_kernel(allowed, j, count, routes, share, sent):
    """Write to sent (L,) how many of the accepted jobs of type j join each pool; returns how many weights are out of range.

    As routes (L N) says if its integers add up, else in proportion to it. Proportional shares are rounded by largest remainder,
    the lowest index first; without any weight they are even. share (L,) is scratch.
    """
    n, size = allowed.shape
    total, is_exact, invalid = 0.0, True, 0
    for c in range(size):
        weight = float(routes[c * n + j])
        if not 0.0 <= weight < np.inf:
            invalid += 1
            weight = 0.0
        share[c] = weight if allowed[j, c] else 0.0
        total += share[c]
        is_exact = is_exact and share[c] == np.floor(share[c])
        sent[c] = 0
    if is_exact and total == count:
        for c in range(size):
            sent[c] = int(share[c])
        return invalid
    if total <= 0.0:
        for c in range(size):
            share[c] = allowed[j, c]
            total += share[c]
    if total <= 0.0:  # no category may serve the type: its jobs wait for ever
        sent[0] = count
        return invalid
    missing = count
    for c in range(size):
        sent[c] = int(np.floor(count * (share[c] / total)))
        share[c] = count * (share[c] / total) - sent[c] if share[c] > 0.0 else -1.0
        missing -= sent[c]
    while missing > 0:
        best = 0
        for c in range(size):
            if share[c] > share[best]:
                best = c
        sent[best] += 1
        share[best] = max(share[best] - 1.0, -0.5)
        missing -= 1
    return invalid


@outlined_kernel
def balance_kernel(params, state, b, j, count):
    """Write to sent[l]: a job of type j joins the pool with the fewest of its type, the first among equals (Algorithm 5)."""
    ahead, sent = state.parent[0], state.line[0]
    for c in range(params.n_categories):
        ahead[c], sent[c] = waiting_kernel(params, state, b, c, j), 0
    fill_pools(params.allowed, j, count, ahead, sent)


@outlined_kernel
def fill_pools(allowed, j, count, ahead, sent):
    """Jobs go one by one where ahead[l] + sent[l] is least; to the first pool if no category may serve the type."""
    for _ in range(count):
        best = -1
        for c in range(len(sent)):
            if allowed[j, c] and (best < 0 or ahead[c] + sent[c] < ahead[best] + sent[best]):
                best = c
        sent[max(best, 0)] += 1
