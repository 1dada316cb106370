"""The barrier programme (7)/(8) of Sun, Chai and Zhao, solved by a primal-dual interior point method with a certificate.

In flows x_ij = lambda_i p_ij and loads s_j = sum_i x_ij it reads

    max  P(x) = sum_ij r_ij x_ij + (1/V) sum_j log(m_j - s_j)    s.t.    sum_j x_ij = lambda_i,  x >= 0

and x is optimal iff r_ij - a_j <= u_i, with equality where x_ij > 0, at the prices a_j = 1 / (V (m_j - s_j)). For any u,

    D(u) = sum_i lambda_i u_i + sum_j phi_j(max_i (r_ij - u_i)) >= P(x),    phi_j(a) = max_{s < m_j} a s + log(m_j - s) / V

with s >= 0 as well, so that D(u) - P(x) at u_i = max_j (r_ij - a_j) certifies every solve. Loads, prices and value are unique;
p is not where rewards tie, and the method then ends near the analytic centre of the optimal p.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matchgym.envs.compile import kernel, outlined_kernel, specialise
from matchgym.envs.instance import InputError, as_array, shorten

# Rows of the workspace, (N_ROWS, max(I J, I I)).
R, X, Z, G, W, DX, S, A, H, DEN, U, E, B, DU, LAPLACE = range(15)
N_ROWS = 15
CENTRING = 0.15  # sigma, the share of mu aimed at in a step
BACKING_OFF = 0.95  # share of the step to the boundary
MAX_ITERATIONS = 120
RESOLUTION = 4e-15  # of a load, some twenty roundings
FITTING_ROUNDS, CONSERVED = 1000, 1e-15  # of arrivals against lambda, relative
WARM = 0.9  # weight of the last solution in a warm start
SMALLEST_V, LARGEST_V = 1e-6, 1e7  # for rewards up to 1
FORBIDDEN = 100.0  # r_ij = -FORBIDDEN (1 + 1/V), in units of the largest reward, stands for a pair that is not allowed
EXACT_GAP = 1e-10  # asked for by `solve_barrier`, relative to the largest reward,
ROUNDING = 1e-12  # but not less than this share of 1/V, the unit of the barrier
# The gap is quadratic in the error of the loads, and at large V says little of them; the mean of x_ij z_ij is linear in it.
EXACT_LOADS = 1e-16


def workspace(n: int, m: int) -> NDArray[np.float64]:
    """Room for the solver at n job types and m servers."""
    return np.zeros((N_ROWS, max(n * m, n * n)))


@outlined_kernel
def solve_kernel(lam, m, v, target, complementarity, flows, is_warm, work):
    """Solve at rewards work[R] (I J); writes the flows (I J). Returns (value, gap, iterations), the gap being certified.

    lam (I,) > 0, capacities m (J,) with sum(lam) < sum(m). Stops at a gap of `target` and a mean x_ij z_ij of
    `complementarity`, or with more after MAX_ITERATIONS: the caller must look. With is_warm, `flows` is a solution of a
    similar programme to start from.
    """
    n, n_servers = len(lam), len(m)
    size, room = n * n_servers, m.sum()
    for i in range(n):
        for j in range(n_servers):
            k = i * n_servers + j
            even = lam[i] * m[j] / room
            work[X, k] = WARM * flows[k] + (1.0 - WARM) * even if is_warm else even
    loads_kernel(n, m, v, work)
    for i in range(n):
        work[U, i] = best_kernel(i, n_servers, work) + 0.1
        for j in range(n_servers):
            k = i * n_servers + j
            work[Z, k] = work[U, i] + work[A, j] - work[R, k]
    value, gap = certificate_kernel(lam, m, v, work)
    iterations = 0
    while iterations < MAX_ITERATIONS:
        mu = 0.0
        for k in range(size):
            mu += work[X, k] * work[Z, k] / size
        if gap <= target and mu <= complementarity:
            break
        direction_kernel(lam, n_servers, CENTRING * mu, work)
        step = 1.0 / BACKING_OFF
        for k in range(size):
            dz = CENTRING * mu / work[X, k] - work[Z, k] - work[DX, k] / work[W, k]
            work[G, k] = dz
            if work[DX, k] < 0.0:
                step = min(step, -work[X, k] / work[DX, k])
            if dz < 0.0:
                step = min(step, -work[Z, k] / dz)
        for j in range(n_servers):
            growth = 0.0
            for i in range(n):
                growth += work[DX, i * n_servers + j]
            if growth > 0.0:
                step = min(step, (m[j] - work[S, j]) / growth)
        step = min(1.0, BACKING_OFF * step)
        for k in range(size):
            work[X, k] += step * work[DX, k]
            work[Z, k] += step * work[G, k]
        for i in range(n):
            work[U, i] += step * work[DU, i]
        loads_kernel(n, m, v, work)
        value, gap = certificate_kernel(lam, m, v, work)
        iterations += 1
    conserve_kernel(lam, m, v, work)
    value, gap = certificate_kernel(lam, m, v, work)
    for k in range(size):
        flows[k] = work[X, k]
    return value, gap, iterations


@kernel
def resolution_kernel(m, v, work):
    """What rounding the loads to double precision costs in the gap: prices change at the rate 1 / (V (m_j - s_j)^2)."""
    steepest = 0.0
    for j in range(len(m)):
        steepest = max(steepest, work[H, j])
    return RESOLUTION * steepest


@outlined_kernel
def conserve_kernel(lam, m, v, work):
    """Make sum_j x_ij = lambda_i again with loads as they are: steps keep both up to rounding, and steep prices multiply that.

    Rows are scaled to lambda_i and columns to the loads in turn (iterative proportional fitting), rows last.
    """
    n, n_servers = len(lam), len(m)
    for _ in range(FITTING_ROUNDS):
        drift = 0.0
        for i in range(n):
            total = 0.0
            for j in range(n_servers):
                total += work[X, i * n_servers + j]
            drift = max(drift, abs(total / lam[i] - 1.0))
            for j in range(n_servers):
                work[X, i * n_servers + j] *= lam[i] / total
        if drift <= CONSERVED:
            break
        for j in range(n_servers):
            total = 0.0
            for i in range(n):
                total += work[X, i * n_servers + j]
            for i in range(n):
                work[X, i * n_servers + j] *= work[S, j] / total
    loads_kernel(n, m, v, work)


@kernel
def loads_kernel(n, m, v, work):
    """Loads, prices and their slopes at the flows."""
    n_servers = len(m)
    for j in range(n_servers):
        load = 0.0
        for i in range(n):
            load += work[X, i * n_servers + j]
        left = m[j] - load
        work[S, j], work[A, j], work[H, j] = load, 1.0 / (v * left), 1.0 / (v * left * left)


@kernel
def best_kernel(i, n_servers, work):
    """max_j (r_ij - a_j)."""
    best = -np.inf
    for j in range(n_servers):
        best = max(best, work[R, i * n_servers + j] - work[A, j])
    return best


@outlined_kernel
def certificate_kernel(lam, m, v, work):
    """The value P(x) and the gap D(u) - P(x) at u_i = max_j (r_ij - a_j); overwrites E."""
    n, n_servers = len(lam), len(m)
    value, bound = 0.0, 0.0
    for i in range(n):
        work[E, i] = best_kernel(i, n_servers, work)
        bound += lam[i] * work[E, i]
    for j in range(n_servers):
        price = -np.inf
        for i in range(n):
            k = i * n_servers + j
            value += work[R, k] * work[X, k]
            price = max(price, work[R, k] - work[E, i])
        value += math.log(m[j] - work[S, j]) / v
        if price >= 1.0 / (v * m[j]):
            bound += price * m[j] - (1.0 + math.log(v * price)) / v
        else:
            bound += math.log(m[j]) / v
    return value, bound - value


@outlined_kernel
def direction_kernel(lam, n_servers, aim, work):
    """Newton's step DX, DU towards x_ij z_ij = aim; overwrites G, W, DEN, E, B, LAPLACE.

    With w = x / z, eliminating DX and the loads leaves I equations M du = b in the multipliers, M = diag(e) + the Laplacian of
    weights o_ik. They are eliminated by sums of products of positive numbers only: differences would lose all digits where the
    barrier is steep.
    """
    n = len(lam)
    for j in range(n_servers):
        total = 0.0
        for i in range(n):
            k = i * n_servers + j
            work[W, k] = work[X, k] / work[Z, k]
            total += work[W, k]
            work[G, k] = (work[R, k] - work[A, j] - work[U, i] + work[Z, k]) + aim / work[X, k] - work[Z, k]
        work[DEN, j] = 1.0 + work[H, j] * total
    for i in range(n):
        excess, right = 0.0, -lam[i]
        for j in range(n_servers):
            k = i * n_servers + j
            spread = 0.0
            for other in range(n):
                spread += work[W, other * n_servers + j] * (work[G, k] - work[G, other * n_servers + j])
            excess += work[W, k] / work[DEN, j]
            right += work[X, k] + work[W, k] * (work[G, k] + work[H, j] * spread) / work[DEN, j]
        work[E, i], work[B, i] = excess, right
        for other in range(i):
            coupling = 0.0
            for j in range(n_servers):
                coupling += work[H, j] * work[W, i * n_servers + j] * work[W, other * n_servers + j] / work[DEN, j]
            work[LAPLACE, i * n + other] = work[LAPLACE, other * n + i] = coupling
    for i in range(n - 1, 0, -1):
        pivot = work[E, i]
        for k in range(i):
            pivot += work[LAPLACE, i * n + k]
        work[DU, i] = pivot
        for k in range(i):
            share = work[LAPLACE, i * n + k] / pivot
            for other in range(i):
                if other != k:
                    work[LAPLACE, k * n + other] += share * work[LAPLACE, i * n + other]
            work[E, k] += share * work[E, i]
            work[B, k] += share * work[B, i]
    work[DU, 0] = work[B, 0] / work[E, 0]
    for i in range(1, n):
        right = work[B, i]
        for k in range(i):
            right += work[LAPLACE, i * n + k] * work[DU, k]
        work[DU, i] = right / work[DU, i]
    for j in range(n_servers):
        for i in range(n):
            k = i * n_servers + j
            own = work[G, k] - work[DU, i]
            spread = 0.0
            for other in range(n):
                q = other * n_servers + j
                spread += work[W, q] * (own - (work[G, q] - work[DU, other]))
            work[DX, k] = work[W, k] * (own + work[H, j] * spread) / work[DEN, j]


@dataclass(frozen=True)
class BarrierSolution:
    """A solution of the programme, `gap` below its optimum at most (certified by duality)."""

    flows: NDArray[np.float64]  # (I, J) x_ij = lambda_i p_ij
    probabilities: NDArray[np.float64]  # (I, J) p_ij
    loads: NDArray[np.float64]  # (J,) s_j
    prices: NDArray[np.float64]  # (J,) a_j
    multipliers: NDArray[np.float64]  # (I,) u_i
    value: float
    gap: float
    iterations: int


def check_barrier(arrival_rates: NDArray[np.float64], capacities: NDArray[np.float64], v: float, largest: float) -> None:
    """Refuse what the programme cannot have: a load of 1 or more, or V times the largest reward beyond double precision."""
    if not (isinstance(v, int | float | np.number) and SMALLEST_V <= v * largest <= LARGEST_V):
        low, high = SMALLEST_V / largest, LARGEST_V / largest
        raise InputError(f"V must lie between {low:.0e} and {high:.0e} for rewards up to {largest:g}, not {shorten(v)}.")
    if arrival_rates.sum() >= capacities.sum():
        raise InputError(
            f"arrival_rates add up to {arrival_rates.sum():g}, not below the {capacities.sum():g} jobs per slot that "
            "the servers complete; lower them for a barrier policy."
        )


def solve_barrier(
    arrival_rates: ArrayLike,
    rewards: ArrayLike,
    V: float,
    capacities: ArrayLike | None = None,
    compatibility: ArrayLike | None = None,
    gap: float | None = None,
) -> BarrierSolution:
    """Solve programme (7)/(8).

    Parameters
    ----------
    arrival_rates : (I,) lambda, >= 0; types that never arrive get the law of an even split.
    rewards : (I, J), finite; estimates for (7), the true means for (8).
    V : weight of rewards against congestion.
    capacities : (J,) m_j > 0; by default 1.
    compatibility : (I, J), which pairs are allowed; by default all.
    gap : asked for; by default what double precision allows. Raises RuntimeError if a larger one is left.
    """
    lam = np.asarray(as_array("arrival_rates", arrival_rates, 1, (None,), positive=False))
    if not lam.any():
        raise InputError("arrival_rates are all 0; give at least one type that arrives.")
    try:
        r = np.asarray(rewards, float)
    except (TypeError, ValueError):
        raise InputError(f"rewards must be a finite table ({len(lam)}, J), not {shorten(rewards)}.") from None
    if r.ndim != 2 or len(r) != len(lam) or r.shape[1] == 0 or not np.isfinite(r).all():
        raise InputError(f"rewards must be a finite table ({len(lam)}, J), not {shorten(rewards)}.")
    n, n_servers = r.shape
    m = np.ones(n_servers) if capacities is None else as_array("capacities", capacities, 1, (n_servers,), positive=True)
    allowed = np.ones(r.shape, bool) if compatibility is None else np.asarray(compatibility, bool)
    if allowed.shape != r.shape or not allowed.any(1).all():
        raise InputError(f"compatibility must be a table {r.shape} with an allowed server for every type.")
    scale = float(np.abs(r).max()) or 1.0
    check_barrier(lam, m, V, scale)
    present = np.flatnonzero(lam > 0)
    scaled, v = (r / scale)[present], float(V) * scale
    scaled[~allowed[present]] = -FORBIDDEN * (1 + 1 / v)
    work, flows = workspace(len(present), n_servers), np.zeros(len(present) * n_servers)
    work[R, : scaled.size] = scaled.ravel()
    target = max(EXACT_GAP, ROUNDING / v) if gap is None else gap / scale
    value, found, iterations = solve_one(lam[present], np.array(m, float), v, target, EXACT_LOADS, flows, False, work)
    x = flows.reshape(len(present), n_servers)
    leak = float(x[~allowed[present]].sum()) if len(present) else 0.0
    if leak > 1e-6 * lam.sum():
        raise InputError("arrival_rates exceed what the servers allowed by compatibility complete; lower them or allow more.")
    if gap is None:
        target = max(target, float(resolution_kernel(m, v, work)))
    if not abs(found) <= target:
        raise RuntimeError(f"the barrier programme is left with a gap of {found * scale:.1e}, above {target * scale:.1e}.")
    p = allowed / allowed.sum(1, keepdims=True)
    p[present] = np.where(allowed[present], x, 0.0)
    p[present] /= p[present].sum(1, keepdims=True)
    return BarrierSolution(
        flows=lam[:, None] * p,
        probabilities=p,
        loads=work[S, :n_servers].copy(),
        prices=work[A, :n_servers] * scale,
        multipliers=np.array([(r[i] - work[A, :n_servers] * scale)[allowed[i]].max() for i in range(n)]),
        value=value * scale,
        gap=abs(found * scale),
        iterations=iterations,
    )


def _solve(lam: Any, m: Any, v: Any, target: Any, complementarity: Any, flows: Any, is_warm: Any, work: Any) -> Any:
    return solve_kernel(lam, m, v, target, complementarity, flows, is_warm, work)


solve_one = specialise(_solve, "solve_one", __file__, solve_kernel=solve_kernel)
