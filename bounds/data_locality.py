"""Bounds for load balancing with data locality: lower bounds on the mean tasks per server, stated as upper bounds on minus it.

For every policy, also one that sees all queues:

    birth-death   E Z / N, as if tasks moved freely to the fastest servers, at the instance's own N (`birth_death`)
    pooled        one server of rate sum u: r / (1 - r) / N
    fluid-graph   min sum_ij f_ij / u_j / N with sum_j f_ij = lambda on the graph's edges, sum_i f_ij <= u_j: a server that is
                  busy holds a task, and P(server j is busy) = sum_i f_ij / u_j
    fluid-types   the same by types, with a pair of types joined unless its compatibility is 0
    fluid         the same in the limit of many servers, per server
    optimum       the least mean of all policies, between two certified values; few servers (`locality_optimum`)
    horizon       the mean of E Z(t) / N over the time that 1000 tasks take, from the instance's start: for runs so short

For policies that choose among the d servers drawn, whatever they know (action "server"):

    sampled-graph the programme of `sampled_programme` on the graph, solved to the end if its servers fall into few groups
                  that are alike, else for some rounds of cuts
    sampled-types the same by types, with the largest number of a dispatcher's servers and the least number of a server's
                  dispatchers: weaker, for graphs that are too large
    sampled       its limit for many servers, y_k = sum_m x_km a_{m,t_m} and phi(y) = y^d

`tightest` is the best of the bounds that hold at the instance's own N and graph for action "server", `tightest-any` for all
policies. The limits `fluid` and `sampled` hold for no finite system and are never used to score one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.birth_death import birth_death_tasks, pooled_tasks, refuse_overload, transient_tasks
from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.locality_groups import Groups, graph_groups, type_degrees
from matchgym.bounds.locality_limit import limit_load, limit_of
from matchgym.bounds.locality_optimum import optimum, prove_optimum
from matchgym.bounds.locality_stability import stability
from matchgym.bounds.programme import HeldProgramme, InfeasibleError
from matchgym.bounds.rational import CertificateError, exact
from matchgym.bounds.sampled_programme import Sampling, prove_sampling, solve_sampling
from matchgym.envs.data_locality import MODEL
from matchgym.envs.instance import InputError, unknown
from matchgym.envs.locality_instances import DataLocalityInstance

__all__ = ["KINDS", "PROVERS", "bound", "bound_for", "stability"]

UNIT = "minus tasks per server"
HORIZON = 1000  # tasks of the run that `horizon` bounds: an episode
MOST_FLOWS = 60_000  # variables of the programme fluid-graph
MOST_CELLS = 60_000  # sources x groups of the programme sampled-graph

Table = NDArray[np.float64]


def bound(instance: Any, kind: str = "tightest") -> Bound:
    """A bound on minus the tasks per server; `instance` is anything `gym.make` takes. InputError for an unknown kind."""
    instance = MODEL.load(instance)
    if kind in TIGHTEST:
        return _tightest(instance, TIGHTEST[kind])
    if kind not in _BOUNDS:
        raise unknown("kind of bound", kind, KINDS)
    return _BOUNDS[kind](instance)


def bound_for(instance: Any, options: Mapping[str, Any], run: tuple[int, int] | None = None) -> Bound:
    """The tightest bound for policies that act under these options of the environment."""
    return bound(instance, "tightest" if options.get("action", "server") == "server" else "tightest-any")


def _tightest(instance: DataLocalityInstance, kinds: tuple[str, ...]) -> Bound:
    """The best of some bounds, leaving out those whose programme is too large or says that nothing is stable."""
    refuse_overload(_arrivals(instance), _capacity(instance))
    found: list[Bound] = []
    for kind in kinds:
        if kind in COARSE and any(each.kind == COARSE[kind] for each in found):
            continue
        try:
            found.append(_BOUNDS[kind](instance))
        except InputError:
            continue
    return min(found, key=lambda each: each.certified_value)


def _arrivals(instance: DataLocalityInstance) -> Fraction:
    return Fraction(instance.arrival_rate) * instance.n_dispatchers


def _capacity(instance: DataLocalityInstance) -> Fraction:
    return sum((Fraction(u) * int(n) for u, n in zip(instance.service_rates.tolist(), instance.server_counts)), Fraction(0))


def _certified(kind: str, instance: DataLocalityInstance, tasks: float, certificate: dict[str, Any], **found: Any) -> Bound:
    """The bound that a certificate proves, `tasks` per server being the solver's value."""
    return certify(
        kind, "upper", -float(tasks), instance, PROVERS[kind], certificate,
        solution=found.get("solution", {}), duals=found.get("duals", {}), unit=UNIT,
        report={"holds_for": HOLDS_FOR.get(kind, "every policy"), **found.get("report", {})},
    )  # fmt: skip


# Bounds without a programme: the instance is its own certificate.


def birth_death(instance: DataLocalityInstance) -> Bound:
    """E Z / N of the best N servers could do if tasks moved freely."""
    return _certified("birth-death", instance, -float(_prove_birth_death(instance, {}).upper or 0), {})


def pooled(instance: DataLocalityInstance) -> Bound:
    """r / (1 - r) / N of one server with all rates."""
    return _certified("pooled", instance, -float(_prove_pooled(instance, {}).upper or 0), {})


def horizon(instance: DataLocalityInstance) -> Bound:
    """The mean of E Z(t) / N while HORIZON tasks are expected to arrive, from the instance's start."""
    return _certified("horizon", instance, -float(_prove_horizon(instance, {}).upper or 0), {}, report={"tasks": HORIZON})


def _prove_birth_death(instance: DataLocalityInstance, certificate: dict[str, Any]) -> Proof:
    tasks = birth_death_tasks(_arrivals(instance), instance.service_rates, instance.server_counts)
    return Proof(upper=-tasks / instance.n_servers)


def _prove_pooled(instance: DataLocalityInstance, certificate: dict[str, Any]) -> Proof:
    tasks = pooled_tasks(_arrivals(instance), instance.service_rates, instance.server_counts)
    return Proof(upper=-tasks / instance.n_servers)


def _prove_horizon(instance: DataLocalityInstance, certificate: dict[str, Any]) -> Proof:
    arrivals, start = _arrivals(instance), [Fraction(1)]
    if instance.initial_lengths is not None:
        for row, count in zip(instance.initial_lengths.tolist(), instance.server_counts.tolist()):
            for _ in range(count):
                start = _convolve(start, [Fraction(p) for p in row])
    tasks = transient_tasks(arrivals, instance.service_rates, instance.server_counts, start, HORIZON / arrivals)
    return Proof(upper=-tasks / instance.n_servers)


def _convolve(first: list[Fraction], second: list[Fraction]) -> list[Fraction]:
    """The law of a sum, each probability rounded down to a multiple of 2^-128."""
    result = [Fraction(0)] * (len(first) + len(second) - 1)
    for i, p in enumerate(first):
        for j, q in enumerate(second):
            result[i + j] += p * q
    return [Fraction(int(p * 2**128), 2**128) for p in result]


# Fluid programmes.


@dataclass(frozen=True)
class Flows:
    """A transport problem: tasks of sources to servers in groups, all per server of the system."""

    supply: list[Fraction]  # (S,) tasks per unit of time
    capacity: list[Fraction]  # (G,) services per unit of time
    rates: list[Fraction]  # (G,) u
    allowed: NDArray[np.bool_]  # (S, G)


def _fluid_flows(instance: DataLocalityInstance) -> Flows:
    w, v, u = (
        [Fraction(x) for x in each.tolist()]
        for each in (instance.dispatcher_fractions, instance.server_fractions, instance.service_rates)
    )
    offered = Fraction(instance.arrival_rate) * Fraction(instance.dispatchers_per_server)
    return Flows([offered * x for x in w], [x * y for x, y in zip(v, u)], u, instance.compatibility > 0)


def _type_flows(instance: DataLocalityInstance) -> Flows:
    n, u = instance.n_servers, [Fraction(x) for x in instance.service_rates.tolist()]
    supply = [Fraction(instance.arrival_rate) * int(count) / n for count in instance.dispatcher_counts]
    capacity = [int(count) * rate / n for count, rate in zip(instance.server_counts, u)]
    return Flows(supply, capacity, u, instance.compatibility > 0)


def _graph_flows(instance: DataLocalityInstance) -> Flows:
    groups, n = graph_groups(instance), instance.n_servers
    u = [Fraction(float(instance.service_rates[kind])) for kind in groups.kinds]
    supply = [Fraction(instance.arrival_rate) * int(count) / n for count in groups.sources]
    return Flows(supply, [int(size) * rate / n for size, rate in zip(groups.sizes, u)], u, groups.edges > 0)


def _solve_flows(kind: str, instance: DataLocalityInstance) -> Bound:
    """min sum f / u over the flows; the certificate has the prices alpha of the groups' capacity."""
    flows = _FLOWS[kind](instance)
    pairs = np.argwhere(flows.allowed).tolist()
    if len(pairs) > MOST_FLOWS:
        raise InputError(f"n_servers {instance.n_servers} gives {len(pairs)} flows, above {MOST_FLOWS}; use fluid-types.")
    problem = pulp.LpProblem(kind, pulp.LpMaximize)
    f = {(s, g): problem.add_variable(f"f_{s}_{g}", 0) for s, g in pairs}
    problem += pulp.LpAffineExpression([(f[s, g], -1 / float(flows.rates[g])) for s, g in pairs])
    of_source: list[list[Any]] = [[] for _ in flows.supply]
    of_group: list[list[Any]] = [[] for _ in flows.rates]
    for (s, g), flow in f.items():
        of_source[s].append((flow, 1.0))
        of_group[g].append((flow, 1.0))
    for s, terms in enumerate(of_source):
        problem.addConstraint(pulp.LpAffineExpression(terms) == float(flows.supply[s]), f"supply_{s}")
    rows = {}
    for g, terms in enumerate(of_group):
        if terms:
            rows[g] = pulp.LpAffineExpression(terms) <= float(flows.capacity[g])
            problem.addConstraint(rows[g], f"capacity_{g}")
    try:
        held = HeldProgramme(problem)
    except InfeasibleError:
        raise InputError(
            f"arrival_rate is too large: on this graph the servers of some dispatchers cannot keep up, so {kind} is infinite; "
            "lower it."
        ) from None
    alpha = np.zeros(len(flows.rates))
    for g, row in rows.items():
        alpha[g] = max(0.0, held.row_multipliers[row.index])
    split = np.zeros(flows.allowed.shape)
    for (s, g), column in zip(pairs, held.indices(list(f.values())).tolist()):
        split[s, g] = max(0.0, held.values[column])
    found = {"solution": {"f": split}, "duals": {"capacity": alpha}}
    return _certified(kind, instance, -held.value, {"alpha": alpha.tolist()}, **found)


def _prove_flows(kind: str) -> Callable[[DataLocalityInstance, dict[str, Any]], Proof]:
    def prove(instance: DataLocalityInstance, certificate: dict[str, Any]) -> Proof:
        """sum_s supply_s min_g (1 / u_g + alpha_g) - sum_g alpha_g capacity_g, for any alpha >= 0 (weak duality)."""
        flows = _FLOWS[kind](instance)
        alpha = [max(Fraction(0), exact(value)) for value in certificate["alpha"]]
        if len(alpha) != len(flows.rates):
            raise CertificateError(f"a certificate has {len(alpha)} prices where {len(flows.rates)} are needed.")
        costs = [1 / rate + price for rate, price in zip(flows.rates, alpha)]
        tasks = -sum((price * capacity for price, capacity in zip(alpha, flows.capacity)), Fraction(0))
        for supply, row in zip(flows.supply, flows.allowed.tolist()):
            tasks += supply * min(cost for cost, may in zip(costs, row) if may)
        return Proof(upper=-tasks)

    return prove


# Programmes for policies that choose among d uniform samples.


def _limit_sampling(instance: DataLocalityInstance) -> tuple[Sampling, NDArray[np.int64]]:
    w, v, u = (
        [Fraction(x) for x in each.tolist()]
        for each in (instance.dispatcher_fractions, instance.server_fractions, instance.service_rates)
    )
    offered = Fraction(instance.arrival_rate) * Fraction(instance.dispatchers_per_server)
    coupling = []
    for row in instance.compatibility.tolist():
        weights = [Fraction(p) * share for p, share in zip(row, v)]
        coupling.append([weight / sum(weights) for weight in weights])
    kinds = np.arange(instance.n_types)
    return Sampling(instance.choices, v, u, [offered * x for x in w], coupling, None), kinds


def _sampling_of(instance: DataLocalityInstance, groups: Groups) -> tuple[Sampling, NDArray[np.int64]]:
    n = instance.n_servers
    return Sampling(
        instance.choices,
        [Fraction(int(size), n) for size in groups.sizes],
        [Fraction(float(instance.service_rates[kind])) for kind in groups.kinds],
        [Fraction(instance.arrival_rate) * int(count) / n for count in groups.sources],
        [[Fraction(int(edge)) for edge in row] for row in groups.edges],
        groups.degrees,
    ), groups.kinds


def _graph_sampling(instance: DataLocalityInstance) -> tuple[Sampling, NDArray[np.int64]]:
    groups = graph_groups(instance)
    if groups.edges.size > MOST_CELLS:
        raise InputError(f"n_servers {instance.n_servers} gives too large a programme on the graph; use sampled-types.")
    return _sampling_of(instance, groups)


def _type_sampling(instance: DataLocalityInstance) -> tuple[Sampling, NDArray[np.int64]]:
    """By types: h of the largest degree, and y_k = sum_m |V_m| min_j deg_v(k, j) / W_k a_{m, t_m}, both on the safe side."""
    known, n = type_degrees(instance), instance.n_servers
    servers, dispatchers = instance.server_counts, instance.dispatcher_counts
    present, arriving = np.flatnonzero(servers > 0), np.flatnonzero(dispatchers > 0)
    return Sampling(
        instance.choices,
        [Fraction(int(servers[m]), n) for m in present],
        [Fraction(float(instance.service_rates[m])) for m in present],
        [Fraction(instance.arrival_rate) * int(dispatchers[k]) / n for k in arriving],
        [[Fraction(int(servers[m] * known.least[k, m]), int(dispatchers[k])) for m in present] for k in arriving],
        [int(known.largest[k]) for k in arriving],
    ), present


def _solve_sampled(kind: str, instance: DataLocalityInstance) -> Bound:
    """The programme by cutting planes; `solution` has the tails a (G, L + 1)."""
    refuse_overload(_arrivals(instance), _capacity(instance))
    if kind == "sampled":
        rho, types = limit_load(limit_of(instance))
        if rho >= 1:
            raise InputError(
                f"arrival_rate is too large: rho(p) = {rho:.6g} >= 1 on server types {list(types)}, so no policy that chooses "
                "among d uniform samples is stable; lower it or change compatibility."
            )
    sampling, kinds = _SAMPLINGS[kind](instance)
    try:
        found = solve_sampling(sampling, kinds)
    except InfeasibleError:
        raise InputError(
            "arrival_rate is too large: no policy that chooses among d uniform samples is stable on this graph; lower it."
        ) from None
    levels = found.tails.shape[1] - 1
    certificate = {"levels": levels, "eta": found.eta, "cuts": found.cuts}
    return _certified(kind, instance, found.value, certificate, solution={"a": found.tails})


def _prove_sampled(kind: str) -> Callable[[DataLocalityInstance, dict[str, Any]], Proof]:
    def prove(instance: DataLocalityInstance, certificate: dict[str, Any]) -> Proof:
        return Proof(upper=-prove_sampling(_SAMPLINGS[kind](instance)[0], certificate))

    return prove


_FLOWS = {"fluid": _fluid_flows, "fluid-types": _type_flows, "fluid-graph": _graph_flows}
_SAMPLINGS = {"sampled": _limit_sampling, "sampled-types": _type_sampling, "sampled-graph": _graph_sampling}
_ANY = ("birth-death", "fluid-graph", "fluid-types")
TIGHTEST = {"tightest": ("sampled-graph", "sampled-types", *_ANY), "tightest-any": _ANY}
COARSE = {"sampled-types": "sampled-graph", "fluid-types": "fluid-graph"}  # kind -> a finer one that makes it needless
CHOOSERS = "policies that choose among d uniform samples"
HOLDS_FOR = {
    **dict.fromkeys(("sampled-types", "sampled-graph"), CHOOSERS),
    "sampled": f"{CHOOSERS}, in the limit of many servers",
    "fluid": "every policy, in the limit of many servers",
    "horizon": f"every policy, over the first {HORIZON} tasks",
}

_BOUNDS: dict[str, Callable[[DataLocalityInstance], Bound]] = {
    "sampled-graph": partial(_solve_sampled, "sampled-graph"),
    "sampled-types": partial(_solve_sampled, "sampled-types"),
    "fluid-graph": partial(_solve_flows, "fluid-graph"),
    "fluid-types": partial(_solve_flows, "fluid-types"),
    "birth-death": birth_death,
    "pooled": pooled,
    "horizon": horizon,
    "optimum": optimum,
    "sampled": partial(_solve_sampled, "sampled"),
    "fluid": partial(_solve_flows, "fluid"),
}
KINDS = (*TIGHTEST, *_BOUNDS)
PROVERS = {
    **{kind: _prove_sampled(kind) for kind in _SAMPLINGS},
    **{kind: _prove_flows(kind) for kind in _FLOWS},
    "birth-death": _prove_birth_death,
    "pooled": _prove_pooled,
    "horizon": _prove_horizon,
    "optimum": prove_optimum,
}
