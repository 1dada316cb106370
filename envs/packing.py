"""Packing programmes, max w.x with A x <= b, 0 <= x <= u and all numbers >= 0: the relaxation and the best integers.

The relaxation is solved by the primal simplex method on a condensed tableau (a column for each variable at a bound, a row for
each other one) with bounded variables; no packing programme needs a first phase, and neither do its parts with bounds raised,
for x = low is feasible or nothing is. The best integers are found by depth-first branch and bound on these relaxations, on the
variable whose fraction weighs most.
"""

import numpy as np

from matchgym.envs.compile import outlined_kernel

FEASIBLE = 1e-9  # relative and absolute: what hours may be exceeded by
INTEGRAL = 1e-7  # how far a solution of the relaxation may be from integers
PIVOT = 1e-11  # least coefficient and reduced cost that count
DANTZIG = 200  # pivots by the largest reduced cost; then the first one, which never cycles
DEPTH = 4096  # of the tree
NODES = 20_000  # by default, before a search is given up


def room(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Scratch for programmes of n variables and m rows: reals and integers, (k,) each."""
    return np.zeros((m + 1) * (n + 1) + 6 * (n + m) + 3 * DEPTH), np.zeros(3 * (n + m) + 2 * DEPTH, np.int64)


@outlined_kernel
def most(b, demand, used):
    """The most units of `demand` that fit into b beside `used`."""
    left = b * (1.0 + FEASIBLE) + FEASIBLE - used
    return max(0.0, np.floor(left / demand))


@outlined_kernel
def relax(a, b, w, low, up, x, reals, integers):
    """Solve the relaxation with low <= x <= up; writes x (n,) and returns its value, or -1 if it has no solution."""
    m, n = a.shape
    tab = reals[: (m + 1) * (n + 1)].reshape((m + 1, n + 1))
    span = reals[(m + 1) * (n + 1) : (m + 1) * (n + 1) + n + m]
    row_of, column_of, flipped = integers[:m], integers[m : m + n], integers[m + n : 2 * (m + n)]
    value = 0.0
    for j in range(n):
        column_of[j] = j
        span[j] = up[j] - low[j]
        tab[m, j] = -w[j]
        value += w[j] * low[j]
        flipped[j] = 0
        if span[j] < 0.0:
            return -1.0
    tab[m, n] = 0.0
    for i in range(m):
        row_of[i] = n + i
        span[n + i] = np.inf
        flipped[n + i] = 0
        left = b[i]
        for j in range(n):
            tab[i, j] = a[i, j]
            left -= a[i, j] * low[j]
        if left < -FEASIBLE * (1.0 + b[i]):
            return -1.0
        tab[i, n] = max(left, 0.0)
    for pivots in range(1 << 30):
        # The variable that enters.
        enter, least = -1, -PIVOT * (1.0 + abs(tab[m, n]))
        for j in range(n):
            if span[column_of[j]] > 0.0 and tab[m, j] < least:
                if pivots >= DANTZIG and enter >= 0 and column_of[j] > column_of[enter]:
                    continue
                enter = j
                if pivots < DANTZIG:
                    least = tab[m, j]
        if enter < 0:
            break
        # How far it can go.
        step, leave, is_upper = span[column_of[enter]], -1, False
        for i in range(m):
            slope = tab[i, enter]
            if slope > PIVOT:
                reach = tab[i, n] / slope
            elif slope < -PIVOT and span[row_of[i]] < np.inf:
                reach = (span[row_of[i]] - tab[i, n]) / -slope
            else:
                continue
            reach = max(reach, 0.0)
            if reach < step or (leave >= 0 and reach == step and row_of[i] < row_of[leave]):
                step, leave, is_upper = reach, i, slope < 0.0
        if leave < 0:  # to its other bound
            for i in range(m + 1):
                tab[i, n] -= tab[i, enter] * step
                tab[i, enter] = -tab[i, enter]
            flipped[column_of[enter]] = 1 - flipped[column_of[enter]]
            continue
        if is_upper:
            for j in range(n):
                tab[leave, j] = -tab[leave, j]
            tab[leave, n] = span[row_of[leave]] - tab[leave, n]
            flipped[row_of[leave]] = 1 - flipped[row_of[leave]]
        inverse = 1.0 / tab[leave, enter]
        for j in range(n + 1):
            tab[leave, j] *= inverse
        tab[leave, enter] = inverse
        for i in range(m + 1):
            slope = tab[i, enter]
            if i != leave and slope != 0.0:
                for j in range(n + 1):
                    tab[i, j] -= slope * tab[leave, j]
                tab[i, enter] = -slope * inverse
                if i < m and tab[i, n] < 0.0:
                    tab[i, n] = 0.0  # rounding
        row_of[leave], column_of[enter] = column_of[enter], row_of[leave]
    for j in range(n):
        x[j] = low[j] + (span[j] if flipped[j] else 0.0)
    for i in range(m):
        j = row_of[i]
        if j < n:
            x[j] = low[j] + (span[j] - tab[i, n] if flipped[j] else tab[i, n])
    return value + tab[m, n]


@outlined_kernel
def fits(a, b, x):
    """Whether A x <= b, up to FEASIBLE."""
    for i in range(len(b)):
        used = 0.0
        for j in range(len(x)):
            used += a[i, j] * x[j]
        if used > b[i] * (1.0 + FEASIBLE) + FEASIBLE:
            return False
    return True


@outlined_kernel
def fill(a, b, w, up, x):
    """Round x down and add whole units, the largest weight first, while they fit; returns its value."""
    n, value = len(x), 0.0
    for j in range(n):
        x[j] = np.floor(x[j] + INTEGRAL)
    for _ in range(n):
        best, gain = -1, 0.0
        for j in range(n):
            if w[j] > gain and x[j] + 1.0 <= up[j]:
                x[j] += 1.0
                if fits(a, b, x):
                    best, gain = j, w[j]
                x[j] -= 1.0
        if best < 0:
            break
        x[best] += 1.0
    for j in range(n):
        value += w[j] * x[j]
    return value


@outlined_kernel
def branch(a, b, w, up, nodes, best, reals, integers):
    """The best integers; writes best (n,) and returns (value, whether it is proved best within `nodes` relaxations).

    `reals` and `integers` are `room(n, m)`. Variables without weight stay 0.
    """
    m, n = a.shape
    size = (m + 1) * (n + 1) + n + m
    low, high, x = reals[size : size + n], reals[size + n : size + 2 * n], reals[size + 2 * n : size + 3 * n]
    trial, cap = reals[size + 3 * n : size + 4 * n], reals[size + 4 * n : size + 5 * n]
    cut = reals[size + 5 * n : size + 5 * n + DEPTH]
    kept = reals[size + 5 * n + DEPTH : size + 5 * n + 2 * DEPTH]
    variable, phase = integers[3 * (n + m) : 3 * (n + m) + DEPTH], integers[3 * (n + m) + DEPTH : 3 * (n + m) + 2 * DEPTH]
    is_whole = True
    for j in range(n):
        low[j] = best[j] = 0.0
        cap[j] = np.floor(up[j]) if w[j] > 0.0 else 0.0
        for i in range(m):
            if a[i, j] > 0.0:
                cap[j] = min(cap[j], most(b[i], a[i, j], 0.0))
        high[j] = cap[j]
        is_whole = is_whole and w[j] == np.floor(w[j])
    found, depth = 0.0, 0
    for _ in range(nodes):
        bound = relax(a, b, w, low, high, x, reals, integers)
        if is_whole:  # the value of integers is an integer
            bound = np.floor(bound + 1e-6 + 1e-12 * abs(bound))
        is_open = bound > found * (1.0 + 1e-12) + 1e-12
        if is_open:
            for j in range(n):
                trial[j] = x[j]
            value = fill(a, b, w, cap, trial)
            if value > found and fits(a, b, trial):
                found = value
                for j in range(n):
                    best[j] = trial[j]
            split, distance = -1, 0.0
            for j in range(n):
                part = abs(x[j] - np.floor(x[j] + 0.5))
                if part > INTEGRAL and part * w[j] > distance:
                    split, distance = j, part * w[j]
            is_open = split >= 0 and bound > found * (1.0 + 1e-12) + 1e-12
            if is_open:
                if depth == DEPTH:
                    return found, False
                variable[depth], phase[depth], cut[depth], kept[depth] = split, 0, np.floor(x[split]), low[split]
                low[split] = np.floor(x[split]) + 1.0
                depth += 1
        if not is_open:  # back to the last branch with another side
            while depth > 0:
                k = depth - 1
                j = variable[k]
                if phase[k] == 0:
                    phase[k] = 1
                    low[j], kept[k], high[j] = kept[k], high[j], cut[k]
                    break
                high[j] = kept[k]
                depth -= 1
            if depth == 0:
                return found, True
    return found, False
