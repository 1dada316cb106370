"""The programme for policies that choose among d uniform samples, whatever they know: an extension of (F.2) to sets of servers.

Servers fall into groups g that hold a share omega_g of all and work at rate u_g; a_gl is the stationary probability that a
server of g has at least l tasks. Sources s bring r_s tasks per server and unit of time and draw d servers; y_s(t) = sum_g X_sg
a_{g,t_g} counts (or measures) the servers of s with at least t_g tasks, and phi_s(y) is the probability that all d are among y
of them. For every choice of thresholds t_g in {0, 1, ..., infinity},

    sum_g omega_g u_g a_{g, t_g + 1}  >=  sum_s r_s phi_s(y_s(t)),

because a task whose d samples all have t_g tasks or more must join one of them, and upcrossings of level t_g + 1 balance
downcrossings; phi_s is convex, so that Jensen's inequality lets means stand for the numbers at an arrival (PASTA). Every task
is served, sum_g omega_g u_g a_g1 = sum_s r_s. The least sum_g omega_g sum_l a_gl under these constraints bounds the mean number
of tasks per server from below. It is convex and is solved by cutting planes: thresholds, and tangents of phi_s.

Multipliers z_c >= 0 of any cuts, and eta of the equation, prove a bound without a solver, since sum over the levels of a server
of the probability of l tasks is 1:

    sum_c z_c const_c + eta sum_s r_s + sum_g min_l (omega_g l - eta omega_g u_g 1{l >= 1}
        - sum_c z_c (omega_g u_g 1{l > t_cg} - D_cg 1{l >= t_cg})),

where cut c says sum_g omega_g u_g a_{g, t_g + 1} >= const_c + sum_g D_cg a_{g, t_g}.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.rational import CertificateError, exact
from matchgym.envs.compile import outlined_kernel

VIOLATED = 1e-10  # excess of a cut that is worth adding, in tasks per unit of time
GRID = 2**24  # tangents of y^d are taken at multiples of 1 / GRID
MULTIPLIERS = 2**48  # and multipliers are rounded to multiples of 1 / MULTIPLIERS
LEVELS, MOST_LEVELS = 12, 768
FULL_SEARCH = 150_000  # combinations of thresholds that are all tried
CUTS, ROUNDS = 40, 400  # cuts added in a round, and rounds
NEGLIGIBLE = 1e-9  # probability of the last level
FEW_GROUPS = 6  # up to which the programme is solved to the end
INWARD = 0.7  # weight of earlier solutions in the point where cuts are sought
ROUNDS_OF_MANY = 30  # rounds beyond few groups, where the last per cents would cost minutes: any cuts prove a bound

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """Groups of servers and sources of tasks; numbers are exact."""

    d: int
    shares: list[Fraction]  # omega (G,)
    rates: list[Fraction]  # u (G,)
    arrivals: list[Fraction]  # r (S,)
    coupling: list[list[Fraction]]  # X (S, G)
    degrees: list[int] | None  # (S,) servers of a source; None: the limit, phi(y) = y^d

    def value_and_slope(self, s: int, at: Any) -> tuple[Fraction, Fraction]:
        """A tangent of phi_s: its value and slope at a number of servers, or at a share in units of 1 / GRID."""
        if self.degrees is None:
            y = Fraction(at, GRID)
            return y**self.d, self.d * y ** (self.d - 1)
        degree, n = self.degrees[s], int(at)
        if degree < self.d:
            return Fraction(n, degree), Fraction(1, degree)
        whole = math.comb(degree, self.d)
        return Fraction(math.comb(n, self.d), whole), Fraction(math.comb(n, self.d - 1), whole)


@dataclass(frozen=True)
class Solution:
    """What the cutting planes found."""

    value: float
    tails: Table  # a (G, L + 1)
    cuts: list[dict[str, Any]]  # thresholds (G,) with None for infinity, tangent points (S,) and the multiplier
    eta: float


def solve_sampling(sampling: Sampling, kinds: NDArray[np.int64]) -> Solution:
    """Cutting planes, with more levels until the last is negligible; `kinds` (G,) hints which groups are alike.

    Raises InfeasibleError where no policy of the class is stable.
    """
    levels = LEVELS
    while True:
        found = _solve(sampling, kinds, levels)
        if found.tails[:, -1].max() < NEGLIGIBLE or 2 * levels > MOST_LEVELS:
            return found
        levels *= 2


def _solve(sampling: Sampling, kinds: NDArray[np.int64], levels: int) -> Solution:
    omega, u, r = (np.array([float(value) for value in each]) for each in (sampling.shares, sampling.rates, sampling.arrivals))
    coupling = np.array([[float(value) for value in row] for row in sampling.coupling])
    degrees = np.zeros(len(r), np.int64) if sampling.degrees is None else np.array(sampling.degrees)
    tables = _phi_table(sampling)
    n = len(omega)
    problem = pulp.LpProblem("sampled", pulp.LpMaximize)
    a = [[problem.add_variable(f"a_{g}_{level}", 0, 1) for level in range(1, levels + 1)] for g in range(n)]
    problem += pulp.LpAffineExpression([(each, -float(omega[g])) for g in range(n) for each in a[g]])
    for g in range(n):
        for level in range(levels - 1):
            problem += a[g][level + 1] - a[g][level] <= 0, f"monotone_{g}_{level}"
    served = pulp.LpAffineExpression([(a[g][0], float(omega[g] * u[g])) for g in range(n)]) == float(r.sum())
    problem.addConstraint(served, "served")
    held = HeldProgramme(problem)
    columns = np.array([held.indices(row) for row in a])
    cuts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    rows: list[int] = []
    known: set[tuple[bytes, bytes]] = set()
    centre: Table | None = None
    for _ in range(ROUNDS if n <= FEW_GROUPS else ROUNDS_OF_MANY):
        tails = np.hstack([np.ones((n, 1)), np.clip(held.values[columns], 0.0, 1.0)])
        centre = tails if centre is None else INWARD * centre + (1 - INWARD) * tails
        fresh = []
        # Cuts taken between the solution and those before it go deeper than at the solution, which jumps to and fro.
        for point in (tails,) if n <= FEW_GROUPS else (centre, tails):
            for threshold in _violated(sampling.d, point, omega * u, r, coupling, degrees, tables, kinds):
                at = _touch(sampling, coupling, degrees, point, threshold)
                key = (threshold.tobytes(), at.tobytes())
                if key not in known:
                    known.add(key)
                    fresh.append((threshold, at))
        if not fresh:
            break
        entries, most = [], []
        for threshold, at in fresh:
            columns_of, coefficients, const = _row(sampling, threshold, at, omega * u, r, coupling, columns)
            entries.append((columns_of, coefficients))
            most.append(-const)
        rows += list(held.add_rows(entries, np.array(most)))
        cuts += fresh
        held.solve_again()
    tails = np.hstack([np.ones((n, 1)), np.clip(held.values[columns], 0.0, 1.0)])
    weights = held.row_multipliers[rows] if rows else np.zeros(0)
    kept = [
        {
            "thresholds": [None if t < 0 else int(t) for t in threshold],
            "at": at.tolist(),
            "multiplier": round(float(weight) * MULTIPLIERS),
        }
        for (threshold, at), weight in zip(cuts, weights)
        if round(float(weight) * MULTIPLIERS) > 0
    ]
    return Solution(-held.value, tails, kept, -float(held.row_multipliers[served.index]))


def _touch(
    sampling: Sampling, coupling: Table, degrees: NDArray[np.int64], tails: Table, threshold: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where the tangents of the phi_s touch (S,), at the tails of some thresholds."""
    y = coupling @ np.where(threshold < 0, 0.0, tails[np.arange(len(threshold)), threshold])
    if sampling.degrees is None:
        return np.round(np.clip(y, 0, 1) * GRID).astype(np.int64)
    return np.minimum(np.floor(y + 1e-9).astype(np.int64), np.maximum(degrees - 1, 0))


def _phi_table(sampling: Sampling) -> Table:
    """h(n) for n = 0..delta of every source, in rows; empty for the limit."""
    if sampling.degrees is None:
        return np.zeros((0, 0))
    table = np.ones((len(sampling.degrees), max(sampling.degrees) + 2))
    for s, degree in enumerate(sampling.degrees):
        table[s, : degree + 1] = [float(sampling.value_and_slope(s, n)[0]) for n in range(degree + 1)]
    return table


def _row(
    sampling: Sampling,
    threshold: NDArray[np.int64],
    at: NDArray[np.int64],
    work: Table,
    r: Table,
    coupling: Table,
    columns: NDArray[np.int64],
) -> tuple[NDArray[np.int64], Table, float]:
    """A cut as -(left side) + D a <= -const."""
    tangents = [sampling.value_and_slope(s, point) for s, point in enumerate(at.tolist())]
    slopes = np.array([float(slope) for _, slope in tangents])
    points = at / GRID if sampling.degrees is None else at
    const = float(r @ np.array([float(value) for value, _ in tangents]) - (r * slopes) @ points)
    pull = (r * slopes) @ coupling
    indices, coefficients = [], []
    for g in np.flatnonzero(threshold >= 0).tolist():
        t = int(threshold[g])
        indices.append(columns[g, t])  # level t + 1
        coefficients.append(-work[g])
        if t == 0:
            const += pull[g]
        else:
            indices.append(columns[g, t - 1])
            coefficients.append(pull[g])
    return np.array(indices), np.array(coefficients), const


def _violated(
    d: int,
    tails: Table,
    work: Table,
    r: Table,
    coupling: Table,
    degrees: NDArray[np.int64],
    tables: Table,
    kinds: NDArray[np.int64],
) -> list[NDArray[np.int64]]:
    """Thresholds (G,), -1 for infinity, of constraints that `tails` violates, the worst first."""
    n, width = tails.shape
    levels = width - 1
    found: list[tuple[float, NDArray[np.int64]]] = []
    if (levels + 1) ** n <= FULL_SEARCH:
        grid = np.array(list(product(range(-1, levels), repeat=n)), np.int64)
        reached = np.where(grid < 0, 0.0, tails[np.arange(n), grid])
        beyond = np.where(grid < 0, 0.0, tails[np.arange(n), grid + 1])
        y = reached @ coupling.T
        phi = (
            y**d
            if not len(tables)
            else np.stack([np.interp(y[:, s], np.arange(tables.shape[1]), tables[s]) for s in range(len(r))], 1)
        )
        excess = phi @ r - beyond @ work
        worst = np.argsort(-excess)[:CUTS]
        found = [(float(excess[k]), grid[k]) for k in worst]
    else:
        room = np.empty(len(r))
        unions = range(1, 1 << (int(kinds.max()) + 1)) if kinds.max() < 4 else [(1 << (int(kinds.max()) + 1)) - 1]
        for bits in unions:
            for level in range(levels):
                threshold = np.where(bits >> kinds & 1, level, -1)
                found.append((climb_kernel(d, tails, work, r, coupling, degrees, tables, room, threshold), threshold))
    found.sort(key=lambda each: -each[0])
    distinct: dict[bytes, NDArray[np.int64]] = {}
    for violation, threshold in found:
        if violation > VIOLATED and len(distinct) < CUTS:
            distinct.setdefault(threshold.tobytes(), threshold)
    return list(distinct.values())


@outlined_kernel
def phi_kernel(d, y, s, degrees, tables):
    """phi_s(y)."""
    if len(tables) == 0:
        return y**d
    n = min(int(y), degrees[s])
    return tables[s, n] + (y - n) * (tables[s, n + 1] - tables[s, n]) if n < degrees[s] else 1.0


@outlined_kernel
def climb_kernel(d, tails, work, r, coupling, degrees, tables, y, threshold):
    """Raise the excess of a constraint (right side minus left side) by changing one threshold at a time, until none helps.

    y (S,) is room for the sources' counts. Returns the excess.
    """
    n, levels = tails.shape[0], tails.shape[1] - 1
    best = 0.0
    for s in range(len(r)):
        y[s] = 0.0
    for g in range(n):
        if threshold[g] >= 0:
            best -= work[g] * tails[g, threshold[g] + 1]
            for s in range(len(r)):
                y[s] += coupling[s, g] * tails[g, threshold[g]]
    for s in range(len(r)):
        best += r[s] * phi_kernel(d, y[s], s, degrees, tables)
    improved = True
    while improved:
        improved = False
        for g in range(n):
            kept = threshold[g]
            for choice in range(4):
                now = threshold[g]
                t = (now - 1, now + 1, -1, 0)[choice]
                if t < -1 or t >= levels or t == now:
                    continue
                reached = tails[g, t] if t >= 0 else 0.0
                beyond = tails[g, t + 1] if t >= 0 else 0.0
                before = tails[g, now] if now >= 0 else 0.0
                after = tails[g, now + 1] if now >= 0 else 0.0
                change = -work[g] * (beyond - after)
                for s in range(len(r)):
                    if coupling[s, g] > 0.0:
                        moved = y[s] + coupling[s, g] * (reached - before)
                        change += r[s] * (phi_kernel(d, moved, s, degrees, tables) - phi_kernel(d, y[s], s, degrees, tables))
                if change > 1e-13:
                    for s in range(len(r)):
                        y[s] = max(y[s] + coupling[s, g] * (reached - before), 0.0)
                    threshold[g] = t
                    best += change
            improved |= threshold[g] != kept
    return best


def prove_sampling(sampling: Sampling, certificate: dict[str, Any]) -> Fraction:
    """The lower bound on tasks per server that any cuts and multipliers prove; see the head of this file."""
    levels, eta = certificate["levels"], exact(certificate["eta"])
    n, sources = len(sampling.shares), len(sampling.arrivals)
    work = [share * rate for share, rate in zip(sampling.shares, sampling.rates)]
    total = eta * sum(sampling.arrivals)
    steps = [[Fraction(0)] * (levels + 2) for _ in range(n)]  # changes of a group's cost at each level
    for g in range(n):
        steps[g][1] -= eta * work[g]
    # All numbers of the coupling over one denominator, so that long sums are sums of integers.
    unit = math.lcm(*(value.denominator for row in sampling.coupling for value in row))
    coupling = np.array([[int(value * unit) for value in row] for row in sampling.coupling], object)
    for cut in certificate["cuts"]:
        weight = Fraction(cut["multiplier"], MULTIPLIERS)
        thresholds, at = cut["thresholds"], cut["at"]
        if weight < 0 or len(thresholds) != n or len(at) != sources:
            raise CertificateError("a cut of the certificate has a negative multiplier or the wrong size.")
        pulls, const = [], Fraction(0)
        for s, point in enumerate(at):
            if not isinstance(point, int) or isinstance(point, bool) or point < 0:
                raise CertificateError(f"a cut of the certificate touches at {point!r}, which is no count.")
            value, slope = sampling.value_and_slope(s, point)
            place = Fraction(point, GRID) if sampling.degrees is None else Fraction(point)
            const += sampling.arrivals[s] * (value - slope * place)
            pulls.append(sampling.arrivals[s] * slope)
        total += weight * const
        scale = math.lcm(*(pull.denominator for pull in pulls))
        pulled = np.array([int(pull * scale) for pull in pulls], object) @ coupling
        for g, t in enumerate(thresholds):
            if t is None:
                continue
            if not isinstance(t, int) or isinstance(t, bool) or not 0 <= t < levels:
                raise CertificateError(f"a cut of the certificate has the threshold {t!r}, outside 0..{levels - 1}.")
            steps[g][t + 1] -= weight * work[g]
            steps[g][t] += weight * Fraction(int(pulled[g]), scale * unit)
    for g in range(n):
        cost = least = steps[g][0]
        for level in range(1, levels + 1):
            cost += steps[g][level] + sampling.shares[g]
            least = min(least, cost)
        total += least
    return total
