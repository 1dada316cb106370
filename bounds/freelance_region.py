"""The outer regions of freelance markets as linear programmes (Theorems 6 and 16), and what prices of hours prove of them.

A run of W epochs and then T, of which only the latter count, may prepare: decomposable jobs can have all but their last task
done before. In units of the counted epochs, x_j being the jobs of type j completed per counted epoch,

    the tasks of these jobs are done in W + T epochs:   x lies in (1 + W / T) times the region         (hours)
    the last tasks of these jobs are done in T epochs:   x_j = sum of u_js over s with r_js > 0,
                                                         sum_j r_js u_js <= m_s, per category or split  (last hours)

For the jobs completed in the T epochs are at most those completed in all, which were done within all hours; and when the T
epochs begin some skill s has the fewest tasks of type j done, so that jobs completed later need as many s-tasks later. Jobs
that are not decomposable are done in one epoch, and their x lies in the region itself.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.rational import CertificateError, exact
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.instance import InputError

MOST_SPREAD = 1e8  # of the numbers of a programme; the solver drops those below 1e-9


class Point(NamedTuple):
    """A solution of a programme on the outer region."""

    value: float
    x: NDArray[np.float64]  # (N,)
    y: NDArray[np.float64]  # (L, N, S) hours
    prices: NDArray[np.float64]  # (L, S) of hours
    last_prices: NDArray[np.float64]  # (L, S) of last hours; 0 without a head start


def solve_outer(
    instance: FreelanceMarketInstance, arrivals: NDArray[np.float64], is_load: bool, head_start: float = 0.0
) -> Point:
    """Solve `load` (is_load) or `throughput` on the outer region at some arrivals (N,), all > 0 where a type counts.

    head_start : W / T, by which tasks of decomposable jobs may be done before. Hours and jobs are measured in units of their
    own, so that numbers are near 1.
    """
    has_last = head_start > 0 and instance.decomposable
    means, needs = instance.mean_hours, instance.job_hours
    size, n, skills = instance.n_categories, instance.n_types, instance.n_skills
    hour = max(float(means.max()), 1e-300) if means.any() else 1.0
    most = float(arrivals.max())
    job = hour / float(needs.max()) if is_load else most
    problem = pulp.LpProblem("load" if is_load else "throughput", pulp.LpMaximize)
    types = [j for j in range(n) if arrivals[j] > 0]
    if is_load:
        scale = problem.add_variable("alpha", 0)
        amount = {j: (scale, float(arrivals[j]) / most) for j in types}
        problem += scale
    else:
        some = {j: problem.add_variable(f"x_{j}", 0, float(arrivals[j]) / job) for j in types}
        amount = {j: (some[j], 1.0) for j in types}
        problem += pulp.LpAffineExpression([(each, 1.0) for each in some.values()])
    used: dict[tuple[int, int], list[tuple[Any, float]]] = {}
    used_last: dict[tuple[int, int], list[tuple[Any, float]]] = {}
    flow: dict[tuple[int, int, int], tuple[Any, float]] = {}  # hours, in units of `hour`, as variable x factor
    for j in types:
        categories = np.flatnonzero(instance.allowed[j]).tolist()
        per_job = needs[j] * (job / hour)
        if not instance.flexible:
            parts = [problem.add_variable(f"x_{c}_{j}", 0) for c in categories]
            row = pulp.LpAffineExpression([*((part, 1.0) for part in parts), (amount[j][0], -amount[j][1])])
            problem.addConstraint(row == 0, f"job_{j}")
        tasks = np.flatnonzero(needs[j]).tolist()
        if has_last:
            last = {(c, s): problem.add_variable(f"last_{c}_{j}_{s}", 0) for c in categories for s in tasks}
            for (c, s), part in last.items():
                used_last.setdefault((c, s), []).append((part, float(per_job[s])))
            wholes = [(categories, amount[j][0])] if instance.flexible else [([c], part) for c, part in zip(categories, parts)]
            for k, (some_categories, whole) in enumerate(wholes):
                terms = [(part, 1.0) for (c, _), part in last.items() if c in some_categories]
                problem.addConstraint(pulp.LpAffineExpression([*terms, (whole, -1.0)]) == 0, f"last_job_{k}_{j}")
        for s in tasks:
            if instance.flexible:
                parts = [problem.add_variable(f"y_{c}_{j}_{s}", 0) for c in categories]
                row = pulp.LpAffineExpression([*((part, 1.0) for part in parts), (amount[j][0], -amount[j][1])])
                problem.addConstraint(row == 0, f"task_{j}_{s}")
            for c, part in zip(categories, parts):
                flow[c, j, s] = (part, float(per_job[s]))
                used.setdefault((c, s), []).append((part, float(per_job[s])))
    rows: list[dict[tuple[int, int], Any]] = [{}, {}]
    for name, terms_of, found, factor in (
        ("hours", used, rows[0], 1 + head_start if has_last else 1.0),
        ("last_hours", used_last, rows[1], 1.0),
    ):
        for (c, s), terms in terms_of.items():
            found[c, s] = pulp.LpAffineExpression(terms) <= factor * float(means[c, s]) / hour
            problem.addConstraint(found[c, s], f"{name}_{c}_{s}")
    for group in (amount, flow):
        factors = [factor for _, factor in group.values()] or [1.0]
        if max(factors) > MOST_SPREAD * min(1.0, *factors) and (
            max(factors) > 1.0 or max(factors) > MOST_SPREAD * min(factors)
        ):
            raise InputError(
                f"arrival_means, job_hours and availability_means differ by a factor above {MOST_SPREAD:.0e}: the programme is "
                "out of reach of floating point; drop or merge the rarest types."
            )
    held = HeldProgramme(problem)
    x, y, prices = np.zeros(n), np.zeros((size, n, skills)), np.zeros((2, size, skills))
    for j in types:
        x[j] = max(0.0, held.values[amount[j][0].index]) * amount[j][1] * job
    for where, (part, factor) in flow.items():
        y[where] = max(0.0, held.values[part.index]) * factor * hour
    unit = job / most if is_load else job
    for k, some_rows in enumerate(rows):
        for place, constraint in some_rows.items():
            prices[k][place] = max(0.0, held.row_multipliers[constraint.index]) * unit / hour
    return Point(held.value * unit + 0.0, x, y, *prices)


def worth(
    instance: FreelanceMarketInstance, certificate: dict[str, Any], head_start: Fraction = Fraction(0)
) -> tuple[Fraction, list[Fraction | None]]:
    """What all hours are worth at a certificate's prices, and the least cost c_j of every job type (None: nobody may serve).

    `last_prices`, of last hours, may be left out.
    """
    prices = _prices(instance, certificate["prices"])
    last = _prices(instance, certificate.get("last_prices", [[0] * instance.n_skills] * instance.n_categories))
    more = 1 + head_start if instance.decomposable else Fraction(1)
    total = Fraction(0)
    for present, brought, row, last_row in zip(instance.availability_means, instance.agent_hours, prices, last):
        for mean, hours in zip(present.tolist(), brought.tolist()):
            total += Fraction(mean) * sum(
                (Fraction(h) * (more * p + q) for h, p, q in zip(hours, row, last_row) if h and (p or q)), Fraction(0)
            )
    costs: list[Fraction | None] = []
    for needs, allowed in zip(instance.job_hours.tolist(), instance.allowed.tolist()):
        tasks = [(s, Fraction(r)) for s, r in enumerate(needs) if r]
        rows = [row for row, may in zip(prices, allowed) if may]
        last_rows = [row for row, may in zip(last, allowed) if may]
        if not rows:
            costs.append(None)
        elif instance.flexible:
            paid = sum((r * min(row[s] for row in rows) for s, r in tasks), Fraction(0))
            costs.append(paid + min(r * min(row[s] for row in last_rows) for s, r in tasks))
        else:
            costs.append(
                min(
                    sum((r * row[s] for s, r in tasks), Fraction(0)) + min(r * last_row[s] for s, r in tasks)
                    for row, last_row in zip(rows, last_rows)
                )
            )
    return total, costs


def _prices(instance: FreelanceMarketInstance, table: Any) -> list[list[Fraction]]:
    """Exact prices (L, S), not below 0; CertificateError for another shape."""
    size, skills = instance.n_categories, instance.n_skills
    prices = [[max(Fraction(0), exact(value)) for value in row] for row in table]
    if len(prices) != size or any(len(row) != skills for row in prices):
        raise CertificateError(f"a certificate needs prices of shape ({size}, {skills}).")
    return prices
