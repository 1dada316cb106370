"""The relaxation of a packing programme, max w.x with A x <= b, 0 <= x <= u, from the basis that solved the last one.

From one programme to the next b, w and u change and A does not, so that the inverse of the basis is still right. Variables at a
bound go to the one that their reduced cost favours. If no dual price is negative, the revised dual simplex method with bounded
variables does the rest in few pivots; otherwise it starts from the slacks, with all variables at their upper bounds, which is
far closer to the solution than all at 0 where most of what waits can be done. Variables without an upper bound are given the
cost at which they make no difference, until the primal method ends with the true costs.

Nothing is believed: `resume` compares the value of x, which must be feasible, with that of the dual prices, and says if they
differ. Then, as when pivots are too many, the caller starts anew with `packing.relax`.
"""

import numpy as np

from matchgym.envs.compile import kernel, outlined_kernel

EXACT = 1e-10  # relative to the largest limit or price: what counts as feasible, and as worth a pivot
PROVED = 1e-9  # relative gap between the value and the prices' bound, and excess over a limit, that are accepted
PIVOT = 1e-9  # least element to pivot on
PIVOTS = 20  # times the rows, and this number itself: as many pivots at most
LARGEST = 128  # rows of a basis whose inverse is worth keeping


@kernel
def dot(starts, index, value, j, row):
    """Column j of A times a row (m,)."""
    total = 0.0
    for k in range(starts[j], starts[j + 1]):
        total += value[k] * row[index[k]]
    return total


@outlined_kernel
def price(starts, index, value, w, basis, inverse, y, d):
    """Dual prices y (m,) and reduced costs d (n + m,) of the costs w (n + m,); 0 in the basis."""
    m, n = len(y), len(w) - len(y)
    for i in range(m):
        y[i] = 0.0
    for r in range(m):
        if w[basis[r]] != 0.0:
            for i in range(m):
                y[i] += w[basis[r]] * inverse[r, i]
    for j in range(n):
        d[j] = w[j] - dot(starts, index, value, j, y)
    for i in range(m):
        d[n + i] = w[n + i] - y[i]
    for r in range(m):
        d[basis[r]] = 0.0


@outlined_kernel
def column(starts, index, value, inverse, j, out):
    """Column j of A, or of a slack, in terms of the basis (m,)."""
    m = len(out)
    n = len(starts) - 1
    if j >= n:
        for r in range(m):
            out[r] = inverse[r, j - n]
        return
    for r in range(m):
        out[r] = dot(starts, index, value, j, inverse[r])


@outlined_kernel
def swap(inverse, out, r, basis, place, enter):
    """Variable `enter`, whose column is `out`, takes row r of the basis."""
    m = len(basis)
    pivot = out[r]
    for i in range(m):
        inverse[r, i] /= pivot
    for k in range(m):
        if k != r and out[k] != 0.0:
            slope = out[k]
            for i in range(m):
                inverse[k, i] -= slope * inverse[r, i]
    place[basis[r]], place[enter] = -1, r
    basis[r] = enter


@outlined_kernel
def resume(starts, index, value, b, w, u, x, basis, upper, inverse, is_kept, reals, integers):
    """Solve the relaxation; writes x (n,), and returns its value and whether that is proved the best.

    starts (n + 1,), index, value : the columns of A. basis (m,), inverse (m, m) : of the last programme, if is_kept; written.
    upper (n,) : scratch, which variables are at their upper bounds. reals, integers : scratch of `packing.room`.
    """
    m, n = len(b), len(w)
    size = n + m
    cost, d, row, at = reals[:size], reals[size : 2 * size], reals[2 * size : 3 * size], reals[3 * size : 3 * size + m]
    y, out, rest = (
        reals[3 * size + m : 3 * size + 2 * m],
        reals[3 * size + 2 * m : 3 * size + 3 * m],
        reals[3 * size + 3 * m : 3 * size + 4 * m],
    )
    place = integers[:size]
    largest, dearest, most_pivots = 1.0, 1e-300, PIVOTS + PIVOTS * m
    for i in range(m):
        largest = max(largest, b[i])
        cost[n + i] = 0.0
    for j in range(n):
        dearest = max(dearest, w[j])
        cost[j] = w[j]
    # The basis that was kept, if its prices are favourable, or the slacks; and bounds by reduced costs.
    small, cheap, is_shifted = EXACT * largest, EXACT * dearest, False
    for attempt in range(2):
        if attempt == 0:
            if not is_kept:
                continue
        else:
            for r in range(m):
                basis[r] = n + r
                for i in range(m):
                    inverse[r, i] = 1.0 if i == r else 0.0
        for j in range(size):
            place[j] = -1
        for r in range(m):
            place[basis[r]] = r
        price(starts, index, value, cost, basis, inverse, y, d)
        is_shifted = False
        for j in range(size):
            if place[j] < 0:
                if j < n and u[j] < np.inf:
                    upper[j] = d[j] > 0.0
                else:
                    is_shifted = is_shifted or d[j] > cheap
                    if j < n:
                        upper[j] = 0
        if attempt == 0 and not is_shifted:
            break
    for j in range(size):
        if place[j] < 0 and d[j] > 0.0 and not (j < n and u[j] < np.inf):
            d[j] = 0.0  # as if it cost so much
    for i in range(m):
        rest[i] = b[i]
    for j in range(n):
        if place[j] < 0 and upper[j]:
            for k in range(starts[j], starts[j + 1]):
                rest[index[k]] -= value[k] * u[j]
    for r in range(m):
        at[r] = 0.0
        for i in range(m):
            at[r] += inverse[r, i] * rest[i]

    # The dual simplex method: the basic variable that is farthest outside its bounds leaves.
    pivots = 0
    while True:
        leave, worst, is_above = -1, small, False
        for r in range(m):
            most = u[basis[r]] if basis[r] < n else np.inf
            if -at[r] > worst:
                leave, worst, is_above = r, -at[r], False
            if at[r] - most > worst:
                leave, worst, is_above = r, at[r] - most, True
        if leave < 0:
            break
        enter, least, largest_pivot = -1, np.inf, 0.0
        for j in range(size):
            if place[j] >= 0:
                row[j] = 0.0
                continue
            row[j] = dot(starts, index, value, j, inverse[leave]) if j < n else inverse[leave, j - n]
            slope = row[j] if is_above else -row[j]
            if j < n and upper[j]:
                slope = -slope
            if j < n and u[j] <= 0.0:
                continue
            if slope > PIVOT:
                ratio = abs(d[j]) / slope
                if ratio < least - cheap or (ratio <= least + cheap and slope > largest_pivot):
                    enter, least, largest_pivot = j, min(ratio, least), slope
        pivots += 1
        if enter < 0 or pivots > most_pivots:
            return 0.0, False
        column(starts, index, value, inverse, enter, out)
        if abs(out[leave]) <= PIVOT:
            return 0.0, False
        goal = u[basis[leave]] if is_above else 0.0
        step = (at[leave] - goal) / out[leave]
        theta = d[enter] / row[enter]
        for j in range(size):
            if place[j] < 0:
                d[j] -= theta * row[j]
        for r in range(m):
            at[r] -= step * out[r]
        at[leave] = (u[enter] if enter < n and upper[enter] else 0.0) + step
        if basis[leave] < n:
            upper[basis[leave]] = is_above
        d[basis[leave]] = -theta
        d[enter] = 0.0
        swap(inverse, out, leave, basis, place, enter)

    # The primal simplex method with the true costs.
    if is_shifted:
        while True:
            price(starts, index, value, cost, basis, inverse, y, d)
            enter, best = -1, cheap
            for j in range(size):
                if place[j] < 0 and (j >= n or u[j] > 0.0):
                    gain = -d[j] if j < n and upper[j] else d[j]
                    if gain > best:
                        enter, best = j, gain
            if enter < 0:
                break
            column(starts, index, value, inverse, enter, out)
            way = -1.0 if enter < n and upper[enter] else 1.0
            step, leave, is_above = (u[enter] if enter < n else np.inf), -1, False
            for r in range(m):
                slope, most = way * out[r], u[basis[r]] if basis[r] < n else np.inf
                if slope > PIVOT:
                    reach = max(at[r], 0.0) / slope
                elif slope < -PIVOT and most < np.inf:
                    reach = max(most - at[r], 0.0) / -slope
                else:
                    continue
                if reach < step or (leave >= 0 and reach == step and basis[r] < basis[leave]):
                    step, leave, is_above = reach, r, slope < 0.0
            pivots += 1
            if step == np.inf or pivots > most_pivots:
                return 0.0, False
            for r in range(m):
                at[r] -= way * step * out[r]
            if leave < 0:
                upper[enter] = not upper[enter]
                continue
            at[leave] = (u[enter] if way < 0.0 else 0.0) + way * step
            if basis[leave] < n:
                upper[basis[leave]] = is_above
            swap(inverse, out, leave, basis, place, enter)

    # The proof.
    for j in range(n):
        x[j] = 0.0 if place[j] >= 0 or not upper[j] else u[j]
    for r in range(m):
        if basis[r] < n:
            x[basis[r]] = min(max(at[r], 0.0), u[basis[r]])
    for i in range(m):
        rest[i] = b[i] * (1.0 + PROVED) + PROVED
    found, bound = 0.0, 0.0
    price(starts, index, value, cost, basis, inverse, y, d)
    for j in range(n):
        found += w[j] * x[j]
        for k in range(starts[j], starts[j + 1]):
            rest[index[k]] -= value[k] * x[j]
        gain = w[j]
        for k in range(starts[j], starts[j + 1]):
            gain -= value[k] * max(y[index[k]], 0.0)
        if gain > 0.0:
            if u[j] < np.inf:
                bound += u[j] * gain
            elif gain > PROVED * dearest:
                return found, False
    for i in range(m):
        bound += b[i] * max(y[i], 0.0)
        if rest[i] < 0.0:
            return found, False
    return found, bound - found <= PROVED * (1.0 + found)
