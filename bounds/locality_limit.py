"""The limit of local JSQ(d) for many servers: load, ODE (3.8) and fixed point (Zhao, Mukherjee, Wu 2022, Section 3).

Everything depends on the compatibility p only through x_km = v_m p_km / delta_k, see `matchgym.envs.mean_field`. With y_kl =
sum_m x_km q_ml the fixed point satisfies, for every l >= 1, the cut identity (F.2)

    sum_m v_m u_m q*_ml = lambda xi sum_k w_k (y*_k,l-1)^d.

It exists iff rho(p) < 1, rho(p) = max over nonempty sets A of types of lambda xi sum_k w_k (sum_{m in A} x_km)^d / sum_{m in A}
v_m u_m: the limit of the finite loads rho^N, because a convex function over a linear one is largest at a vertex.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from matchgym.envs.instance import InputError
from matchgym.envs.locality_instances import DataLocalityInstance
from matchgym.envs.mean_field import arrivals_kernel, bottleneck_kernel, fixed_point_kernel

NEGLIGIBLE = 1e-15  # tail beyond the last level of a fixed point
TOLERANCE = 1e-14  # last move of the self-consistent iteration
ROUNDS, NEWTON_STEPS = 5_000_000, 200
FIRST_SPAN = 1.0  # of the first implicit step, in mean service times of a fastest server
MOST_LEVELS = 4096
RTOL, ATOL = 1e-11, 1e-13  # of the ODE

Table = NDArray[np.float64]


class Limit(NamedTuple):
    """The numbers that the limit depends on, in the order of the kernels' arguments."""

    d: int
    offered: float  # lambda xi
    w: Table  # (K,)
    v: Table  # (M,)
    u: Table  # (M,)
    x: Table  # (K, M)


def limit_of(instance: DataLocalityInstance) -> Limit:
    """The limit's numbers, with fractions that sum to 1 exactly."""
    w, v = (each / each.sum() for each in (instance.dispatcher_fractions, instance.server_fractions))
    return Limit(instance.choices, instance.offered, w, v, instance.service_rates.copy(), instance.shares)


def limit_load(limit: Limit) -> tuple[float, tuple[int, ...]]:
    """rho(p) and the set of types that attains it."""
    rho, bits = bottleneck_kernel(*limit)
    return float(rho), tuple(m for m in range(len(limit.v)) if bits >> m & 1)


def random_loads(limit: Limit) -> Table:
    """The left sides (M,) of (3.2): the load of a type-m server under random routing."""
    return limit.offered * (limit.w @ limit.x) / (limit.v * limit.u)


def births(limit: Limit, q: Table) -> Table:
    """a_ml (M, L), from q (M, L + 1)."""
    a = np.empty((q.shape[0], q.shape[1] - 1))
    arrivals_kernel(limit.d, limit.offered, limit.w, limit.v, limit.x, np.ascontiguousarray(q), a)
    return a


def drift(limit: Limit, q: Table) -> Table:
    """dq/dt (M, L) of levels 1..L, nothing being beyond L."""
    flow = np.zeros(q.shape)
    flow[:, :-1] = q[:, :-1] - q[:, 1:]
    flow[:, -1] = q[:, -1]
    return flow[:, :-1] * births(limit, q) - limit.u[:, None] * flow[:, 1:]


def transient(limit: Limit, times: Sequence[float], start: Table | None = None) -> list[Table]:
    """q(t) (M, L + 1) at each time >= 0, from the law `start` (M, n) of a server's tasks, or from an empty system."""
    if not len(times) or any(not 0 <= time < np.inf for time in times):
        raise InputError(f"times must be finite numbers >= 0, not {list(times)}.")
    first = np.ones((len(limit.v), 1)) if start is None else start[:, ::-1].cumsum(1)[:, ::-1]
    grid = np.unique(np.append(times, 0.0))
    levels = 32 + first.shape[1]
    while True:
        q = np.zeros((len(limit.v), levels + 1))
        q[:, : first.shape[1]] = first
        q[:, 0] = 1.0
        shape = (len(limit.v), levels)

        def slope(_: float, flat: Table, shape: tuple[int, int] = shape) -> Table:
            return drift(limit, np.hstack([np.ones((shape[0], 1)), flat.reshape(shape)])).ravel()

        if len(grid) == 1:
            return [q for _ in times]
        found = solve_ivp(slope, (0.0, grid[-1]), q[:, 1:].ravel(), "LSODA", grid, rtol=RTOL, atol=ATOL)
        if not found.success:
            raise RuntimeError(f"the mean-field ODE could not be integrated: {found.message}")
        paths = found.y.T.reshape(-1, *shape)
        if paths[:, :, -1].max() < 1e-10 or 2 * levels > MOST_LEVELS:
            at = {time: np.hstack([np.ones((shape[0], 1)), np.clip(path, 0, 1)]) for time, path in zip(grid.tolist(), paths)}
            return [at[float(time)] for time in times]
        levels *= 2


def fixed_point(limit: Limit) -> Table:
    """q* (M, L + 1), q_m0 = 1; InputError if there is none because rho(p) >= 1.

    By self-consistency (births, their stationary law, halfway to it) from an empty system: cut off at a level, the equations
    have a second root, all but full, that must not be met.
    """
    rho, types = limit_load(limit)
    if rho >= 1:
        raise InputError(
            f"arrival_rate is too large for a fixed point: rho(p) = {rho:.6g} >= 1 on server types {list(types)}; "
            "lower it or change compatibility."
        )
    if limit.d == 1:
        loads = random_loads(limit)
        levels = min(MOST_LEVELS, int(np.ceil(np.log(NEGLIGIBLE) / np.log(loads.max()))) + 1)
        return loads[:, None] ** np.arange(levels + 1)
    levels = 32
    while True:
        q = np.zeros((len(limit.v), levels + 1))
        q[:, 0] = 1.0
        if fixed_point_kernel(*limit, ROUNDS, TOLERANCE, q, np.empty((len(limit.v), levels))) > TOLERANCE:
            raise InputError(f"arrival_rate is too near its largest value for a fixed point: rho(p) = {rho:.9g}; lower it.")
        if q[:, -1].max() < NEGLIGIBLE or 2 * levels > MOST_LEVELS:
            return q[:, : max(2, int((q.max(0) >= NEGLIGIBLE).sum()) + 1)]
        levels *= 2


def newton(limit: Limit, q: Table) -> Table:
    """The fixed point (M, L + 1) from a guess, by implicit steps along the ODE that grow into Newton's method: a check."""
    n, width = q.shape
    span, last = FIRST_SPAN / float(limit.u.max()), np.inf
    for _ in range(NEWTON_STEPS):
        residual = drift(limit, q)
        size = float(np.abs(residual).max())
        span *= 3.0 if size < last else 0.3
        matrix = np.eye(n * (width - 1)) / span - jacobian(limit, q)
        step = np.linalg.solve(matrix, residual.ravel()).reshape(n, -1)
        q = q.copy()
        q[:, 1:] = np.minimum.accumulate(np.clip(q[:, 1:] + step, 0.0, 1.0), 1)
        last = size
        if np.abs(step).max() < TOLERANCE and span > 1e6:
            break
    return q


def jacobian(limit: Limit, q: Table) -> Table:
    """Derivatives of `drift` (M L, M L) in q of levels 1..L."""
    n, levels, d = q.shape[0], q.shape[1] - 1, limit.d
    y = limit.x @ q
    a, b = y[:, :-1], y[:, 1:]
    # Derivatives of S_d in its two arguments.
    by_a = sum(r * a ** max(r - 1, 0) * b ** (d - 1 - r) for r in range(d))
    by_b = sum((d - 1 - r) * a**r * b ** max(d - 2 - r, 0) for r in range(d))
    rates, gaps, level = births(limit, q), q[:, :-1] - q[:, 1:], np.arange(levels)
    found = np.zeros((n, levels, n, levels))
    for m in range(n):
        weight = limit.offered / limit.v[m] * limit.w * limit.x[:, m]
        for other in range(n):
            found[m, level, other, level] += gaps[m] * ((weight * limit.x[:, other]) @ by_b)
            found[m, level[1:], other, level[:-1]] += (gaps[m] * ((weight * limit.x[:, other]) @ by_a))[1:]
        found[m, level, m, level] -= rates[m] + limit.u[m]
        found[m, level[1:], m, level[:-1]] += rates[m, 1:]
        found[m, level[:-1], m, level[1:]] += limit.u[m]
    return found.reshape(n * levels, n * levels)


@dataclass(frozen=True)
class MeanField:
    """What the fixed point, or any state of the limit, says of queues and tasks."""

    limit: Limit
    q: Table  # (M, L + 1)

    @cached_property
    def tasks_by_type(self) -> Table:
        """Mean tasks of a type-m server (M,)."""
        if self.limit.d == 1:
            loads = self.q[:, 1]
            return loads / (1 - loads)
        return self.q[:, 1:].sum(1)

    @property
    def tasks(self) -> float:
        """Mean tasks per server."""
        return float(self.limit.v @ self.tasks_by_type)

    @property
    def response_time(self) -> float:
        """T = tasks / (lambda xi), by Little's law."""
        return self.tasks / self.limit.offered

    @property
    def response_by_server(self) -> Table:
        """Mean response time of a task at a type-m server (M,): tasks / (u_m q_m1)."""
        return self.tasks_by_type / (self.limit.u * self.q[:, 1])

    @cached_property
    def routing(self) -> Table:
        """P_k(m, l) (K, M, L): where a task of a type-k dispatcher goes; the last level is missing."""
        y = self.limit.x @ self.q
        a, b = y[:, :-1], y[:, 1:]
        mean = np.sum([a**r * b ** (self.limit.d - 1 - r) for r in range(self.limit.d)], axis=0)
        return self.limit.x[:, :, None] * (self.q[:, :-1] - self.q[:, 1:]) * mean[:, None, :]

    @property
    def response_by_dispatcher(self) -> Table:
        """T_k (K,): sum over classes of P_k(m, l) (l + 1) / u_m."""
        waits = np.arange(1, self.q.shape[1]) / self.limit.u[:, None]
        return np.einsum("kml,ml->k", self.routing, waits)

    @property
    def work_balance(self) -> Table:
        """The two sides' difference in (F.2) for l = 1..L; 0 at a fixed point."""
        y = self.limit.x @ self.q
        served = (self.limit.v * self.limit.u) @ self.q[:, 1:]
        return served - self.limit.offered * (self.limit.w @ y[:, :-1] ** self.limit.d)


def mean_field(instance: Any) -> MeanField:
    """The fixed point of an instance's limit; InputError if there is none."""
    limit = limit_of(instance)
    return MeanField(limit, fixed_point(limit))
