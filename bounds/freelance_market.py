"""What freelance markets can support: the outer regions of Chatterjee, Varshney and Vishwanath as linear programmes, and the
exact capacity region for agents of finite support.

x_j are jobs of type j per epoch, y hours per epoch, m_ls the mean hours of skill s in category l. The outer region is, for
flexible classes, C^out (Theorem 6), one transportation problem per skill,

    sum_{l in N(j)} y_ljs = r_js x_j     for all j, s        (every task finds its hours)
    sum_j y_ljs <= m_ls                  for all l, s        (hours)

and for inflexible ones C^O (Theorem 16), where a job stays in one category:

    x_j = sum_{l in N(j)} x_lj           for all j
    sum_j r_js x_lj <= m_ls              for all l, s        (hours)

    throughput   max sum_j x_j  with 0 <= x <= lambda, x in the region
    throughput-started  the same with lambda + Q(0), Q(0) the jobs that wait at the start: for runs of any length
    load         max alpha  with alpha lambda in the region
    decline      beta* = 1 - min(1, alpha), the least share of the arrivals that must be declined ((6) with eps = 0)
    capacity     as load, in the exact region C(Gamma) of the class (Theorems 5 and 14)

From an empty start no policy completes more than `throughput` per epoch on average over any horizon: its mean allocation
satisfies the rows, and it completes at most what arrives. A run whose warm-up left jobs waiting can complete those as well, and
so exceed `throughput` by the backlog at its end over the epochs counted: evaluate without warm-up to rule that out. No policy
is stable beyond `capacity`, nor therefore beyond `load`.

Certificates are prices p_ls >= 0 of hours. A job of type j costs at least c_j = sum_s r_js min_{l in N(j)} p_ls (flexible) or
c_j = min_{l in N(j)} sum_s r_js p_ls (inflexible), so that sum_j c_j x_j <= sum_ls p_ls m_ls in the region, whence

    throughput <= sum_ls p_ls m_ls + sum_j lambda_j (1 - c_j)^+      alpha <= sum_ls p_ls m_ls / sum_j c_j lambda_j.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.freelance_capacity import capacity, prove_capacity
from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.rational import CertificateError, exact
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.freelance_market import MODEL
from matchgym.envs.instance import InputError, unknown

KINDS = ("throughput", "throughput-started", "load", "decline", "capacity")
MOST_SPREAD = 1e8  # of the numbers of a programme; the solver drops those below 1e-9
TIGHT = 1e-7  # relative, of what is called a bottleneck


def bound(instance: Any, kind: str = KINDS[0]) -> Bound:
    """A bound of one of KINDS; `instance` is anything `gym.make` takes.

    `throughput` and `load` and `capacity` are upper bounds, in jobs per epoch and in multiples of the arrivals, `decline` is a
    lower bound on a share. Raises InputError for an unknown kind, or for `capacity` where the agents' law is not finite.
    """
    if kind not in KINDS:
        raise unknown("kind of bound", kind, KINDS)
    loaded = MODEL.load(instance)
    if kind == "capacity":
        return capacity(loaded)
    return {"throughput": throughput, "throughput-started": throughput_started, "load": load, "decline": decline}[kind](loaded)


def bound_for(instance: Any, options: Mapping[str, Any]) -> Bound:
    """The bound of a run: from jobs that wait at its start more can be completed than arrive."""
    loaded = MODEL.load(instance)
    return throughput_started(loaded) if _waiting(loaded).any() else throughput(loaded)


class Point(NamedTuple):
    """A solution of a programme on the outer region."""

    value: float
    x: NDArray[np.float64]  # (N,)
    y: NDArray[np.float64]  # (L, N, S) hours
    prices: NDArray[np.float64]  # (L, S) of hours


def solve_outer(instance: FreelanceMarketInstance, arrivals: NDArray[np.float64], is_load: bool) -> Point:
    """Solve `load` (is_load) or `throughput` on the outer region at some arrivals (N,), all > 0 where a type counts.

    Hours and jobs are measured in units of their own, so that numbers are near 1.
    """
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
    flow: dict[tuple[int, int, int], tuple[Any, float]] = {}  # hours, in units of `hour`, as variable x factor
    for j in types:
        categories = np.flatnonzero(instance.allowed[j]).tolist()
        per_job = needs[j] * (job / hour)
        if not instance.flexible:
            parts = [problem.add_variable(f"x_{c}_{j}", 0) for c in categories]
            row = pulp.LpAffineExpression([*((part, 1.0) for part in parts), (amount[j][0], -amount[j][1])])
            problem.addConstraint(row == 0, f"job_{j}")
        for s in np.flatnonzero(needs[j]).tolist():
            if instance.flexible:
                parts = [problem.add_variable(f"y_{c}_{j}_{s}", 0) for c in categories]
                row = pulp.LpAffineExpression([*((part, 1.0) for part in parts), (amount[j][0], -amount[j][1])])
                problem.addConstraint(row == 0, f"task_{j}_{s}")
            for c, part in zip(categories, parts):
                flow[c, j, s] = (part, float(per_job[s]))
                used.setdefault((c, s), []).append((part, float(per_job[s])))
    rows = {}
    for (c, s), terms in used.items():
        rows[c, s] = pulp.LpAffineExpression(terms) <= float(means[c, s]) / hour
        problem.addConstraint(rows[c, s], f"hours_{c}_{s}")
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
    x, y, prices = np.zeros(n), np.zeros((size, n, skills)), np.zeros((size, skills))
    for j in types:
        x[j] = max(0.0, held.values[amount[j][0].index]) * amount[j][1] * job
    for where, (part, factor) in flow.items():
        y[where] = max(0.0, held.values[part.index]) * factor * hour
    unit = job / most if is_load else job
    for place, constraint in rows.items():
        prices[place] = max(0.0, held.row_multipliers[constraint.index]) * unit / hour
    return Point(held.value * unit + 0.0, x, y, prices)


def throughput(instance: Any) -> Bound:
    """The most completed jobs per epoch. `solution` has x (N,), hours y (L, N, S); `duals` the prices of hours (L, S)."""
    instance = MODEL.load(instance)
    return _completions(instance, "throughput", instance.arrival_means, prove_throughput)


def throughput_started(instance: Any) -> Bound:
    """As `throughput`, with lambda + Q(0) in place of lambda: for a run of any length from `initial_jobs`."""
    instance = MODEL.load(instance)
    # Over T epochs, completions per epoch are at most lambda + Q(0) / T on average.
    return _completions(instance, "throughput-started", instance.arrival_means + _waiting(instance), prove_started)


def _waiting(instance: FreelanceMarketInstance) -> NDArray[np.float64]:
    """Q(0) (N,)."""
    return np.zeros(instance.n_types) if instance.initial_jobs is None else instance.initial_jobs


def _completions(instance: FreelanceMarketInstance, kind: str, most: NDArray[np.float64], prove: Any) -> Bound:
    found = solve_outer(instance, most, is_load=False)
    return certify(
        kind, "upper", found.value, instance, prove, {"prices": found.prices.tolist()},
        solution={"x": found.x, "y": found.y}, duals={"hours": found.prices},
    )  # fmt: skip


def load(instance: Any) -> Bound:
    """The largest alpha with alpha lambda in the outer region, in multiples of the arrivals."""
    instance = MODEL.load(instance)
    return _load(instance, "load", prove_load)


def decline(instance: Any) -> Bound:
    """beta*, the least share of the arrivals that must be declined for the rest to lie in the outer region."""
    instance = MODEL.load(instance)
    return _load(instance, "decline", prove_decline)


def _load(instance: FreelanceMarketInstance, kind: str, prove: Any) -> Bound:
    found = solve_outer(instance, instance.arrival_means, is_load=True)
    value = found.value if kind == "load" else 1 - min(1.0, found.value)
    sense = "upper" if kind == "load" else "lower"
    return certify(
        kind, sense, value, instance, prove, {"prices": found.prices.tolist()},
        solution={"x": found.x, "y": found.y, "alpha": found.value}, duals={"hours": found.prices},
    )  # fmt: skip


def _worth(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> tuple[Fraction, list[Fraction | None]]:
    """sum p m, and the least cost c_j of every job type (None: no category may serve it)."""
    size, skills = instance.n_categories, instance.n_skills
    prices = [[max(Fraction(0), exact(value)) for value in row] for row in certificate["prices"]]
    if len(prices) != size or any(len(row) != skills for row in prices):
        raise CertificateError(f"a certificate needs prices of shape ({size}, {skills}).")
    total = Fraction(0)
    for present, brought, row in zip(instance.availability_means, instance.agent_hours, prices):
        for mean, hours in zip(present.tolist(), brought.tolist()):
            total += Fraction(mean) * sum((Fraction(h) * p for h, p in zip(hours, row) if h and p), Fraction(0))
    costs: list[Fraction | None] = []
    for needs, allowed in zip(instance.job_hours.tolist(), instance.allowed.tolist()):
        rows = [row for row, may in zip(prices, allowed) if may]
        if not rows:
            costs.append(None)
        elif instance.flexible:
            costs.append(sum((Fraction(r) * min(row[s] for row in rows) for s, r in enumerate(needs) if r), Fraction(0)))
        else:
            costs.append(min(sum((Fraction(r) * row[s] for s, r in enumerate(needs) if r), Fraction(0)) for row in rows))
    return total, costs


def prove_throughput(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The bound of any prices of hours, by weak duality."""
    return _prove_completions(instance, certificate, np.zeros(instance.n_types))


def prove_started(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The same with the jobs that wait at the start."""
    return _prove_completions(instance, certificate, _waiting(instance))


def _prove_completions(instance: FreelanceMarketInstance, certificate: dict[str, Any], start: NDArray[np.float64]) -> Proof:
    total, costs = _worth(instance, certificate)
    for rate, jobs, cost in zip(instance.arrival_means.tolist(), start.tolist(), costs):
        total += (Fraction(rate) + Fraction(jobs)) * (max(Fraction(0), 1 - cost) if cost is not None else 0)
    return Proof(upper=total)


def prove_load(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The bound of any prices of hours on alpha; 0 where a type that arrives finds no category."""
    total, costs = _worth(instance, certificate)
    paid = Fraction(0)
    for rate, cost in zip(instance.arrival_means.tolist(), costs):
        if rate and cost is None:
            return Proof(upper=Fraction(0))
        paid += Fraction(rate) * (cost or 0)
    if not paid:
        raise CertificateError("a certificate of load needs prices at which the arrivals cost something.")
    return Proof(upper=total / paid)


def prove_decline(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """1 - min(1, alpha) with the proved upper bound on alpha."""
    upper = prove_load(instance, certificate).upper
    assert upper is not None
    return Proof(lower=1 - min(Fraction(1), upper))


PROVERS = {
    "throughput": prove_throughput,
    "throughput-started": prove_started,
    "load": prove_load,
    "decline": prove_decline,
    "capacity": prove_capacity,
}


@dataclass(frozen=True)
class Stability:
    """How much load a market bears, and where it ends."""

    name: str
    kind: str  # FD, FND, ID or IND
    load: float  # the certified largest alpha in the outer region
    decline: float
    capacity: float | None  # in the exact region, where the law of the agents is finite
    bottleneck: list[dict[str, Any]]  # skills and categories whose hours run out first, the share of the limit each makes
    job_types: list[int]  # that need what runs out

    @property
    def is_stable(self) -> bool | None:
        """Whether some policy is stable: surely not beyond a bound; None on its boundary, or where only the outer is known."""
        if min(self.load, np.inf if self.capacity is None else self.capacity) < 1:
            return False
        return True if self.capacity is not None and self.capacity > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "kind": self.kind,
            "load": self.load,
            "load_left": self.load - 1,
            "decline": self.decline,
            "capacity": self.capacity,
            "is_stable": self.is_stable,
            "bottleneck": self.bottleneck,
            "job_types": self.job_types,
        }

    def lines(self) -> list[str]:
        """For people."""
        beyond = f"{self.load - 1:+.1%} to the outer region's boundary"
        found = [f"class {self.kind}: arrivals may be multiplied by at most {self.load:.6g} ({beyond})"]
        if self.capacity is not None:
            found.append(f"exact capacity: multiplied by {self.capacity:.6g}")
        verdict = {True: "some policy is stable", False: "no policy is stable", None: "inside the outer region only"}
        found.append(verdict[self.is_stable] + (f"; decline at least {self.decline:.4%}" if self.decline > 0 else ""))
        for each in self.bottleneck[:8]:
            place = ", ".join(map(str, each["categories"]))
            found.append(f"bottleneck: skill {each['skill']} in categories {place} ({each['share']:.1%} of the limit)")
        found.append(
            f"job types that need it: {', '.join(map(str, self.job_types[:20]))}"
            + (", ..." if len(self.job_types) > 20 else "")
        )
        return found


def stability(instance: Any) -> Stability:
    """The load, the exact capacity where it can be computed, and the bottleneck, read off the prices of hours.

    At an optimal solution only hours with a price are scarce: the share of p_ls m_ls in their sum is what one per cent more of
    these hours would add to the load, in per cent.
    """
    loaded = MODEL.load(instance)
    outer, refused = load(loaded), decline(loaded)
    exact_load = None
    if loaded.outcomes("availability") is not None:
        try:
            exact_load = capacity(loaded).certified_value
        except InputError:  # too many states or points to list: the outer region is all that is known
            exact_load = None
    prices, means = outer.duals["hours"], loaded.mean_hours
    worth = prices * means
    share = worth / worth.sum() if worth.sum() > 0 else np.where(prices > 0, 1 / max(1, (prices > 0).sum()), 0.0)
    bottleneck = []
    for s in np.argsort(-share.sum(0), kind="stable").tolist():
        scarce = np.flatnonzero(prices[:, s] > TIGHT * prices.max()) if prices.any() else np.zeros(0, int)
        if len(scarce):
            bottleneck.append({"skill": s, "categories": scarce.tolist(), "share": float(share[:, s].sum())})
    skills = [each["skill"] for each in bottleneck]
    types = np.flatnonzero((loaded.job_hours[:, skills] > 0).any(1) & (loaded.arrival_means > 0)).tolist()
    return Stability(loaded.name, loaded.kind, outer.certified_value, refused.certified_value, exact_load, bottleneck, types)
