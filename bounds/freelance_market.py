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
    throughput-run  the same for a run of W epochs and then T, of which only the latter count (`--warmup`, `--decisions`)
    load         max alpha  with alpha lambda in the region
    decline      beta* = 1 - min(1, alpha), the least share of the arrivals that must be declined ((6) with eps = 0)
    capacity     as load, in the exact region C(Gamma) of the class (Theorems 5 and 14)

From an empty start no policy completes more than `throughput` per epoch on average over any horizon: its mean allocation
satisfies the rows, and it completes at most what arrives. With a warm-up this is not so: a policy may let jobs wait, or all but
their last tasks, until the epochs that count. What it completes per counted epoch is at most all that has come by the end,

    x_j <= (Q_j(0) + lambda_j (f_1 + ... + f_(W+T))) / T    with f the factors of `arrival_pattern`,

and within the hours of the T epochs; or, of decomposable jobs, within those of all epochs, with one task of each job within
those of the T epochs (`freelance_region` has the rows). That is `throughput-run`, by which evaluations with a warm-up, initial
jobs or a pattern are scored. Without any of these it is `throughput`. No policy is stable beyond `capacity`, nor therefore
beyond `load`.

Certificates are prices p_ls >= 0 of hours. A job of type j costs at least c_j = sum_s r_js min_{l in N(j)} p_ls (flexible) or
c_j = min_{l in N(j)} sum_s r_js p_ls (inflexible), so that sum_j c_j x_j <= sum_ls p_ls m_ls in the region, whence

    throughput <= sum_ls p_ls m_ls + sum_j lambda_j (1 - c_j)^+      alpha <= sum_ls p_ls m_ls / sum_j c_j lambda_j.

For decomposable jobs after a warm-up there are prices q_ls of last hours besides, p_ls counts 1 + W / T times in the sum, and
c_j gains min_s r_js min_l q_ls (flexible), or the least over l of both together (inflexible).
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.freelance_capacity import capacity, prove_capacity
from matchgym.bounds.freelance_region import solve_outer, worth
from matchgym.bounds.rational import CertificateError
from matchgym.envs.freelance_instances import FreelanceMarketInstance
from matchgym.envs.freelance_market import MODEL
from matchgym.envs.instance import InputError, is_count, shorten, unknown

KINDS = ("throughput", "throughput-started", "throughput-run", "load", "decline", "capacity")
LONGEST_RUN = 10**12  # epochs
ROUNDING = 1e-6  # by which a cost may miss 1
TIGHT = 1e-7  # relative, of what is called a bottleneck


def bound(instance: Any, kind: str = KINDS[0], warmup: int | None = None, decisions: int | None = None) -> Bound:
    """A bound of one of KINDS; `instance` is anything `gym.make` takes.

    The kinds `throughput*`, `load` and `capacity` are upper bounds, in jobs per epoch and in multiples of the arrivals,
    `decline` is a lower bound on a share. `warmup` and `decisions` are W and T of `throughput-run`, by default those of
    evaluations. Raises InputError for an unknown kind, or for `capacity` where the agents' law is not finite.
    """
    if kind not in KINDS:
        raise unknown("kind of bound", kind, KINDS)
    loaded = MODEL.load(instance)
    if kind == "throughput-run":
        return throughput_run(
            loaded, MODEL.run[0] if warmup is None else warmup, MODEL.run[1] if decisions is None else decisions
        )
    for name, value in (("warmup", warmup), ("decisions", decisions)):
        if value is not None:
            raise InputError(f"{name} is for the kind throughput-run; leave it out, or choose that kind.")
    if kind == "capacity":
        return capacity(loaded)
    return {"throughput": throughput, "throughput-started": throughput_started, "load": load, "decline": decline}[kind](loaded)


def bound_for(instance: Any, options: Mapping[str, Any], run: tuple[int, int] | None = None) -> Bound:
    """The bound of a run (W, T), or of runs of any length without warm-up: it holds for every policy of that very run."""
    loaded = MODEL.load(instance)
    is_plain = not _waiting(loaded).any() and loaded.arrival_pattern is None
    if is_plain and (run is None or run[0] == 0):
        return throughput(loaded)
    return throughput_started(loaded) if run is None else throughput_run(loaded, *run)


def throughput(instance: Any) -> Bound:
    """The most completed jobs per epoch. `solution` has x (N,), hours y (L, N, S); `duals` the prices of hours (L, S)."""
    instance = MODEL.load(instance)
    return _completions(instance, "throughput", _plain_supply(instance), prove_throughput)


def throughput_started(instance: Any) -> Bound:
    """As `throughput`, with lambda + Q(0) in place of lambda: for a run of any length from `initial_jobs`.

    With `arrival_pattern`, lambda counts times the largest mean of its first factors.
    """
    instance = MODEL.load(instance)
    # Over T epochs, completions per epoch are at most (f_1 + ... + f_T) lambda / T + Q(0) / T on average.
    return _completions(instance, "throughput-started", _started_supply(instance), prove_started)


def throughput_run(instance: Any, warmup: int, decisions: int) -> Bound:
    """The most completed jobs per counted epoch of a run of `warmup` epochs and then `decisions`, which count."""
    instance = MODEL.load(instance)
    run = {"warmup": warmup, "decisions": decisions}
    _check_run(run, InputError)
    supply = _run_supply(instance, warmup, decisions)
    return _completions(instance, "throughput-run", supply, prove_run, Fraction(warmup, decisions), run)


def _check_run(run: Mapping[str, Any], error: type[Exception]) -> None:
    for name, least in (("warmup", 0), ("decisions", 1)):
        if not is_count(run[name], least) or run[name] > LONGEST_RUN:
            raise error(f"{name} must be an integer from {least} to {LONGEST_RUN}, not {shorten(run[name])}.")


def _waiting(instance: FreelanceMarketInstance) -> NDArray[np.float64]:
    """Q(0) (N,)."""
    return np.zeros(instance.n_types) if instance.initial_jobs is None else instance.initial_jobs


def _pattern(instance: FreelanceMarketInstance) -> list[Fraction]:
    """f_1, ..., f_P."""
    return [Fraction(1)] if instance.arrival_pattern is None else [Fraction(f) for f in instance.arrival_pattern.tolist()]


def _plain_supply(instance: FreelanceMarketInstance) -> list[Fraction]:
    return [Fraction(mean) for mean in instance.arrival_means.tolist()]


def _started_supply(instance: FreelanceMarketInstance) -> list[Fraction]:
    sums = list(itertools.accumulate(_pattern(instance)))
    # Later means of first factors lie between those of the first period and its own mean.
    most = max(total / (k + 1) for k, total in enumerate(sums))
    return [most * mean + Fraction(jobs) for mean, jobs in zip(_plain_supply(instance), _waiting(instance).tolist())]


def _run_supply(instance: FreelanceMarketInstance, warmup: int, decisions: int) -> list[Fraction]:
    factors = _pattern(instance)
    periods, rest = divmod(warmup + decisions, len(factors))
    total = periods * sum(factors, Fraction(0)) + sum(factors[:rest], Fraction(0))
    return [
        (total * mean + Fraction(jobs)) / decisions for mean, jobs in zip(_plain_supply(instance), _waiting(instance).tolist())
    ]


def _completions(
    instance: FreelanceMarketInstance,
    kind: str,
    supply: list[Fraction],
    prove: Any,
    head_start: Fraction = Fraction(0),
    run: Mapping[str, int] | None = None,
) -> Bound:
    """The bound on completions at a supply (N,) of jobs per epoch; `run` is stated in the certificate."""
    found = solve_outer(instance, _attainable(instance, supply, float(head_start)), is_load=False, head_start=float(head_start))

    def priced(factor: float) -> dict[str, Any]:
        last = {"last_prices": (factor * found.last_prices).tolist()} if found.last_prices.any() else {}
        return {**(run or {}), "prices": (factor * found.prices).tolist(), **last}

    # A cost that rounding leaves below 1 counts for all jobs of a type; prices a hair higher cost a hair.
    _, costs = worth(instance, priced(1.0), head_start)
    short = [float(cost) for cost in costs if cost is not None and 1 - ROUNDING < cost < 1]
    candidates = [priced(factor) for factor in (1.0, *(1 / cost * (1 + 1e-15) for cost in short))]
    certificate = min(candidates, key=lambda each: prove(instance, each).upper or Fraction(0))
    last = {"last_hours": found.last_prices} if found.last_prices.any() else {}
    return certify(
        kind, "upper", found.value, instance, prove, certificate,
        solution={"x": found.x, "y": found.y}, duals={"hours": found.prices, **last},
    )  # fmt: skip


def _attainable(instance: FreelanceMarketInstance, supply: list[Fraction], head_start: float) -> NDArray[np.float64]:
    """The supply (N,), but no more than twice what a type could have done alone: a programme of numbers that are alike."""
    hours, needs = instance.allowed @ instance.mean_hours, instance.job_hours  # (N, S)
    alone = np.divide(hours, needs, out=np.full(needs.shape, np.inf), where=needs > 0).min(1) * (1 + head_start)
    return np.where(alone > 0, np.minimum(np.array(supply, float), 2 * alone), np.array(supply, float))


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
        solution={"x": found.x, "y": found.y, "alpha": found.value}, duals={"hours": found.prices}, unit=UNITS[kind],
    )  # fmt: skip


def prove_throughput(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The bound of any prices of hours, by weak duality."""
    return _prove_completions(instance, certificate, _plain_supply(instance))


def prove_started(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The same with the jobs that wait at the start."""
    return _prove_completions(instance, certificate, _started_supply(instance))


def prove_run(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The same for the run that the certificate states."""
    _check_run(certificate, CertificateError)
    warmup, decisions = certificate["warmup"], certificate["decisions"]
    return _prove_completions(instance, certificate, _run_supply(instance, warmup, decisions), Fraction(warmup, decisions))


def _prove_completions(
    instance: FreelanceMarketInstance,
    certificate: dict[str, Any],
    supply: list[Fraction],
    head_start: Fraction = Fraction(0),
) -> Proof:
    total, costs = worth(instance, certificate, head_start)
    for jobs, cost in zip(supply, costs):
        total += jobs * (max(Fraction(0), 1 - cost) if cost is not None else 0)
    return Proof(upper=total)


def prove_load(instance: FreelanceMarketInstance, certificate: dict[str, Any]) -> Proof:
    """The bound of any prices of hours on alpha; 0 where a type that arrives finds no category."""
    total, costs = worth(instance, certificate)
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


UNITS = {"load": "times the arrivals", "decline": "of the arrivals"}
PROVERS = {
    "throughput": prove_throughput,
    "throughput-started": prove_started,
    "throughput-run": prove_run,
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
    stranded: list[int]  # job types that arrive and have no category

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
            "stranded": self.stranded,
        }

    def lines(self) -> list[str]:
        """For people."""
        beyond = f"{self.load - 1:+.1%} to the outer region's boundary"
        found = [f"class {self.kind}: arrivals may be multiplied by at most {self.load:.6g} ({beyond})"]
        if self.capacity is not None:
            found.append(f"exact capacity: multiplied by {self.capacity:.6g}")
        found.append(self._verdict() + (f"; decline at least {self.decline:.4%}" if self.decline > 0 else ""))
        if self.stranded:
            found.append(f"no category takes job types {_listed(self.stranded)}: their jobs can only be declined")
        if self.capacity is not None and self.capacity < 1 <= self.load:
            found.append("whole tasks do not fit the agents' hours; by hours alone:")
        for each in self.bottleneck[:8]:
            place = ", ".join(map(str, each["categories"]))
            found.append(f"bottleneck: skill {each['skill']} in categories {place} ({each['share']:.1%} of the limit)")
        if self.job_types:
            found.append(f"job types that need it: {_listed(self.job_types)}")
        return found

    def _verdict(self) -> str:
        if self.is_stable is not None:
            return "some policy is stable" if self.is_stable else "no policy is stable"
        if min(self.load, np.inf if self.capacity is None else self.capacity) == 1:
            return "on the boundary, where the means do not decide"
        return "inside the outer region; the exact one is not known"


def _listed(types: list[int]) -> str:
    return ", ".join(map(str, types[:20])) + (", ..." if len(types) > 20 else "")


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
        if len(scarce) and share[:, s].sum() > TIGHT:
            bottleneck.append({"skill": s, "categories": scarce.tolist(), "share": float(share[:, s].sum())})
    skills = [each["skill"] for each in bottleneck]
    types = np.flatnonzero((loaded.job_hours[:, skills] > 0).any(1) & (loaded.arrival_means > 0)).tolist()
    stranded = np.flatnonzero((loaded.arrival_means > 0) & ~loaded.allowed.any(1)).tolist()
    values = outer.certified_value, refused.certified_value, exact_load
    return Stability(loaded.name, loaded.kind, *values, bottleneck, types, stranded)
