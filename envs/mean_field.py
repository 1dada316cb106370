"""The mean-field limit of local JSQ(d): its fixed point and its stability, as kernels (Zhao, Mukherjee, Wu 2022, Section 3).

q_ml is the fraction of type-m servers with at least l tasks, y_kl = sum_m x_km q_ml what a uniformly drawn server of a type-k
dispatcher looks like, and

    S_d(a, b) = (a^d - b^d) / (a - b) = sum_r a^r b^(d-1-r),
    a_ml = (lambda xi / v_m) sum_k w_k x_km S_d(y_kl, y_k,l+1)

the rate of arrivals at a type-m server that holds l tasks. The ODE (3.8) is dq_ml/dt = (q_m,l-1 - q_ml) a_m,l-1 - u_m (q_ml -
q_m,l+1); its fixed point q* makes every type a birth-death process with births a_ml and deaths u_m.
"""

from matchgym.envs.compile import kernel, outlined_kernel


@kernel
def power(base, exponent):
    """base^exponent for an integer >= 0."""
    result = 1.0
    for _ in range(exponent):
        result *= base
    return result


@kernel
def divided_difference(d, a, b):
    """S_d(a, b), without the quotient that is 0/0 at a = b."""
    result = 0.0
    for r in range(d):
        result = result * a + power(b, r)
    return result


@outlined_kernel
def bottleneck_kernel(d, offered, w, v, u, x):
    """rho = max over nonempty sets A of server types of lambda xi sum_k w_k (sum_{m in A} x_km)^d / sum_{m in A} v_m u_m.

    Returns (rho, A as the bits of an integer). The limit of rho^N for d >= 2, and for d = 1 the load of a busiest type.
    """
    best, best_set = -1.0, 0
    for chosen in range(1, 1 << len(v)):
        capacity = 0.0
        for m in range(len(v)):
            capacity += v[m] * u[m] * ((chosen >> m) & 1)
        load = 0.0
        for k in range(len(w)):
            share = 0.0
            for m in range(len(v)):
                share += x[k, m] * ((chosen >> m) & 1)
            load += w[k] * power(share, d)
        if offered * load > best * capacity:
            best, best_set = offered * load / capacity, chosen
    return best, best_set


@outlined_kernel
def arrivals_kernel(d, offered, w, v, x, q, a):
    """a_ml for l < L, from q (M, L + 1) with q_m0 = 1 and nothing beyond L; written to a (M, L)."""
    a[:, :] = 0.0
    levels = a.shape[1]
    for k in range(len(w)):
        here = 1.0
        for level in range(levels):
            beyond = 0.0
            for m in range(len(v)):
                beyond += x[k, m] * q[m, level + 1]
            slope = offered * w[k] * divided_difference(d, here, beyond)
            for m in range(len(v)):
                a[m, level] += slope * x[k, m] / v[m]
            here = beyond


@outlined_kernel
def fixed_point_kernel(d, offered, w, v, u, x, rounds, tolerance, q, a):
    """Self-consistency: births a(q), their stationary tails q, halfway to them, until no entry moves by more than `tolerance`.

    q (M, L + 1) is the first guess and the result, a (M, L) room for the rates. Returns the last move.
    """
    levels = a.shape[1]
    move = 0.0
    for _ in range(rounds):
        arrivals_kernel(d, offered, w, v, x, q, a)
        move = 0.0
        for m in range(len(v)):
            total = mass = 1.0
            for level in range(levels):
                mass *= a[m, level] / u[m]
                a[m, level] = mass
                total += mass
            tail = 0.0  # summed from the far end, so that small tails keep their relative accuracy
            for level in range(levels - 1, -1, -1):
                tail += a[m, level] / total
                change = 0.5 * (tail - q[m, level + 1])
                q[m, level + 1] += change
                move = max(move, abs(change))
        if move <= tolerance:
            break
    return move


@kernel
def mean_kernel(v, q):
    """Tasks per server, sum_m v_m sum_l q_ml."""
    total = 0.0
    for m in range(len(v)):
        for level in range(1, q.shape[1]):
            total += v[m] * q[m, level]
    return total
