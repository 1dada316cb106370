"""MaxWeight task allocation (Algorithm 1) and its relaxation rounded down (programme (10)), as kernels."""

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.freelance_schemes import RELAXED, queue_at, width_of
from matchgym.envs.kept_basis import LARGEST, resume
from matchgym.envs.packing import INTEGRAL, branch, relax


@kernel
def column_of(knobs, e):
    """Category, type and skill of a column."""
    return knobs.columns[e, 0], knobs.columns[e, 1], knobs.columns[e, 2]


@outlined_kernel
def maxweight(knobs, memory, b, queue, hours, request):
    """Write to request (E,) the allocation of Algorithm 1 or, RELAXED, of programme (10) rounded down.

    Literally, weights are Q and nothing caps an allocation; capped, weights are Q + A, as is the cap.
    """
    n, width = len(knobs.n_tasks), width_of(knobs)
    weight, cap, limit, best, waiting = memory.weight[0], memory.cap[0], memory.limit[0], memory.best[0], memory.waiting[0]
    for p in range(len(knobs.block)):
        entry, first_row = knobs.block[p, 0], knobs.block[p, 1]
        first, m = knobs.block[p, 2], knobs.block[p, 3]
        k = (knobs.block[p + 1, 2] if p + 1 < len(knobs.block) else len(knobs.columns) - 1) - first
        a = knobs.rows[entry : entry + m * k].reshape((m, k))
        for e in range(k):
            c, j, s = column_of(knobs, first + e)
            place = queue_at(knobs, c, j) + s
            each = waiting[place] if knobs.is_capped else float(queue[place])
            weight[e] = each if knobs.is_decomposable else knobs.n_tasks[j] * each
            cap[e] = waiting[place] if knobs.is_capped else np.inf
        for i in range(m):
            some, s, owner = knobs.row[first_row + i, 0], knobs.row[first_row + i, 1], knobs.row[first_row + i, 2]
            limit[i] = 0.0
            if owner >= 0:
                limit[i] = waiting[queue_at(knobs, 0, owner) + knobs.columns[first, 2]] if knobs.is_capped else 1e9
            else:
                for c in range(knobs.n_categories):
                    if some >> c & 1:
                        limit[i] += hours[c * knobs.job_hours.shape[1] + s]
        if knobs.scheme == RELAXED:
            for e in range(k):
                best[e] = 0.0
                if weight[e] <= 0.0:
                    cap[e] = 0.0
            if not resume_relaxed(knobs, memory, b, p, limit[:m], weight[:k], cap[:k], best[:k]):
                solve_relaxed(a, limit[:m], weight[:k], cap[:k], best[:k], memory.reals[0], memory.integers[0])
        else:
            _, is_proved = branch(a, limit[:m], weight[:k], cap[:k], knobs.nodes, best[:k], memory.reals[0], memory.integers[0])
            memory.solved[b] += 1
            memory.unproved[b] += not is_proved
        for e in range(k):
            c, j, s = column_of(knobs, first + e)
            request[((0 if knobs.is_flexible else c * n) + j) * width + s] = best[e]


@outlined_kernel
def resume_relaxed(knobs, memory, b, p, limit, weight, cap, x):
    """The relaxation of programme p from its last basis, rounded down; returns whether that was done."""
    m, k = len(limit), len(weight)
    first, entry, start, place = knobs.sparse[p, 0], knobs.sparse[p, 1], knobs.sparse[p, 2], knobs.sparse[p, 3]
    if m > LARGEST:
        return False
    _, is_proved = resume(
        knobs.starts[first : first + k + 1], knobs.entry_row[entry:], knobs.entry[entry:], limit, weight, cap, x,
        memory.basis[b, start : start + m], memory.upper[0, :k], memory.inverse[b, place : place + m * m].reshape((m, m)),
        memory.is_kept[b, p] > 0, memory.reals[0], memory.integers[0],
    )  # fmt: skip
    memory.is_kept[b, p] = is_proved
    if is_proved:
        for j in range(k):
            x[j] = np.floor(x[j] + INTEGRAL)
    return is_proved


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
