"""The load rho^N of local JSQ(d) on a finite graph, and whether a graph is near its limit (Zhao, Mukherjee, Wu 2022).

With h_i(n) = C(n, d) / C(delta_i, d) the probability that all d servers drawn by dispatcher i are among n of its servers (n /
delta_i if it has fewer than d),

    rho^N = max over nonempty sets U of servers of lambda sum_i h_i(|U and N_i|) / sum_{j in U} u_j

((3.1), with the lambda that its second term lacks in print), and JSQ(d) is ergodic iff rho^N < 1 (Lemma 3.1). By duality rho^N
is the least max_j load_j / u_j over all ways to split the rate of every d-subset among its members: if rho^N >= 1, no rule that
chooses among d uniform samples is stable.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import linprog

from matchgym.envs.locality_instances import RING, DataLocalityInstance, Graph, adjacency, draw_graph

MOST_SUBSETS = 80_000  # d-subsets of the dual programme
MOST_EDGES = 2**22  # of a graph that is searched for bounds
BRUTE_FORCE = 20  # servers up to which all sets may be tried

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """rho^N, exactly or between two bounds, and servers that come near to attaining it."""

    low: float
    high: float
    servers: tuple[int, ...]  # of the lower bound

    @property
    def value(self) -> float | None:
        """rho^N where the bounds meet."""
        return self.high if self.high - self.low <= 1e-9 * max(1.0, self.high) else None


def drawn_inside(d: int, degrees: NDArray[np.int64], inside: NDArray[np.int64]) -> Table:
    """h_i(n) for dispatchers with `degrees` servers of which `inside` are in the set."""
    result = np.where(degrees < d, inside / degrees, 1.0)
    for r in range(d):
        result = np.where(degrees >= d, result * np.maximum(inside - r, 0) / np.maximum(degrees - r, 1), result)
    return result


def is_complete(graph: Graph) -> bool:
    """Whether every dispatcher may use every server."""
    return graph.kind == RING and bool((graph.widths == np.diff(graph.server_ends)).all())


def finite_load(instance: DataLocalityInstance) -> Load:
    """rho^N: a formula for d = 1 and for complete graphs, the dual programme if it is small, else bounds."""
    graph, d = draw_graph(instance), instance.choices
    if is_complete(graph):
        return complete_load(instance)
    if instance.n_dispatchers * instance.n_servers > 4 * MOST_EDGES:
        return Load(0.0, math.inf, ())
    edges = adjacency(graph)
    degrees = edges.sum(1)
    load = instance.arrival_rate * (edges / degrees[:, None]).sum(0) / instance.rates
    if d == 1:
        return Load(float(load.max()), float(load.max()), (int(load.argmax()),))
    subsets = sum(math.comb(int(n), d) if n >= d else int(n) for n in np.unique(edges, axis=0).sum(1))
    if subsets <= 50 * MOST_SUBSETS:
        rates = subset_rates(edges, d, instance.arrival_rate, MOST_SUBSETS)
        if rates is not None:
            return dual_load(rates, instance.rates)
    low, servers = peeled_load(instance, edges)
    return Load(low, max(low, float(load.max())), servers)


def complete_load(instance: DataLocalityInstance) -> Load:
    """On a complete graph only the sets of the n slowest servers matter."""
    order = np.argsort(instance.rates, kind="stable")
    n, d = instance.n_servers, instance.choices
    sizes = np.arange(1, n + 1)
    inside = instance.total_rate * drawn_inside(d, np.full(n, n), sizes) / np.cumsum(instance.rates[order])
    size = int(inside.argmax()) + 1
    return Load(float(inside.max()), float(inside.max()), tuple(order[:size].tolist()) if size <= 1000 else ())


def subset_rates(
    edges: NDArray[np.bool_], d: int, arrival_rate: float, most: int | None = None
) -> dict[tuple[int, ...], float] | None:
    """The rate at which each set of servers is drawn, merged over dispatchers; None if there are more than `most` sets."""
    rates: dict[tuple[int, ...], float] = defaultdict(float)
    rows, counts = np.unique(edges, axis=0, return_counts=True)
    for row, count in zip(rows, counts.tolist()):
        members = np.flatnonzero(row).tolist()
        size = d if len(members) >= d else 1
        each = arrival_rate * count / math.comb(len(members), size)
        for chosen in combinations(members, size):
            rates[chosen] += each
        if most is not None and len(rates) > most:
            return None
    return dict(rates)


def dual_load(rates: dict[tuple[int, ...], float], service_rates: Table) -> Load:
    """Split every set's rate among its members so that the largest load is least: a linear programme."""
    n, sets = len(service_rates), list(rates)
    owner = np.repeat(np.arange(len(sets)), [len(each) for each in sets])
    server = np.array([j for each in sets for j in each])
    size = len(owner)
    shares = sp.csr_matrix((np.ones(size), (owner, np.arange(size))), (len(sets), size + 1))
    weight = np.array([rates[each] for each in sets])
    loads = sp.csr_matrix((weight[owner] / service_rates[server], (server, np.arange(size))), (n, size + 1))
    loads = loads + sp.csr_matrix((-np.ones(n), (np.arange(n), np.full(n, size))), (n, size + 1))
    cost = np.zeros(size + 1)
    cost[-1] = 1.0
    found = linprog(cost, loads, np.zeros(n), shares, np.ones(len(sets)), method="highs")
    if not found.success:
        raise RuntimeError(f"the dual programme of rho^N could not be solved: {found.message}")
    worst = np.flatnonzero(found.ineqlin.marginals < -1e-9)
    return Load(float(found.fun), float(found.fun), tuple(worst.tolist()))


def brute_force_load(edges: NDArray[np.bool_], d: int, arrival_rate: float, service_rates: Table) -> float:
    """rho^N by trying all sets of at most BRUTE_FORCE servers."""
    n = len(service_rates)
    if n > BRUTE_FORCE:
        raise ValueError(f"{n} servers have too many sets.")
    degrees, best = edges.sum(1), 0.0
    for bits in range(1, 1 << n):
        chosen = np.array([bits >> j & 1 for j in range(n)], np.bool_)
        inside = drawn_inside(d, degrees, edges[:, chosen].sum(1))
        best = max(best, arrival_rate * float(inside.sum()) / float(service_rates[chosen].sum()))
    return best


def peeled_load(instance: DataLocalityInstance, edges: NDArray[np.bool_]) -> tuple[float, tuple[int, ...]]:
    """A lower bound on rho^N: from each union of server types, drop the server that costs the least load per rate, again and
    again, and keep the best set on the way.
    """
    d, rates = instance.choices, instance.rates
    degrees, kinds = edges.sum(1), np.repeat(np.arange(instance.n_types), instance.server_counts)
    best, best_set = 0.0, np.zeros(0, np.int64)
    unions = range(1, 1 << instance.n_types) if instance.n_types <= 4 else [(1 << instance.n_types) - 1]
    for bits in unions:
        chosen = (bits >> kinds & 1).astype(bool)
        while chosen.any():
            inside = edges[:, chosen].sum(1)
            drawn = drawn_inside(d, degrees, inside)
            ratio = instance.arrival_rate * float(drawn.sum()) / float(rates[chosen].sum())
            if ratio > best:
                best, best_set = ratio, np.flatnonzero(chosen)
            lost = drawn - drawn_inside(d, degrees, np.maximum(inside - 1, 0))
            marginal = np.where(chosen, (lost @ edges) / rates, np.inf)
            drop = max(1, int(chosen.sum()) // 50)
            chosen[np.argsort(marginal)[:drop]] = False
    return best, tuple(best_set.tolist())


@dataclass(frozen=True)
class Diagnostics:
    """How far a graph is from its limit; all tend to the values named for a sequence of graphs that has the limit."""

    densities: Table  # (K, M), to p
    dispatcher_ratio: float  # largest over smallest number of type-m servers of a type-k dispatcher, to 1 (Condition 2.1)
    server_ratio: float  # largest over smallest number of type-k dispatchers of a type-m server, to 1 (Condition 2.1)
    certificate: Table  # (K,) ||B_k||_2^2 N / W_k, to 0 where (3.9) holds


def diagnose(instance: DataLocalityInstance) -> Diagnostics:
    """Condition 2.1 and the certificate of clustered proportional sparsity (3.9), of a graph that is not too large.

    B_k(i, j) = A_ij / delta_i - deg_v(k, j) / |E_k|: the share of a dispatcher's servers in a set U minus that of all its
    type's edges is (B_k 1_U)_i, so at most ||B_k||_2^2 |U| / eps^2 dispatchers deviate by eps, whatever U.
    """
    graph = draw_graph(instance)
    edges = adjacency(graph).astype(float)
    n_kinds, n_types = instance.compatibility.shape
    densities = np.zeros((n_kinds, n_types))
    ratios, certificate = [1.0, 1.0], np.zeros(n_kinds)
    for k in range(n_kinds):
        rows = edges[graph.dispatcher_ends[k] : graph.dispatcher_ends[k + 1]]
        for m in range(n_types):
            block = rows[:, graph.server_ends[m] : graph.server_ends[m + 1]]
            if block.size and instance.compatibility[k, m] > 0:
                densities[k, m] = block.mean()
                for axis in (1, 0):
                    counts = block.sum(axis)
                    ratios[1 - axis] = max(ratios[1 - axis], counts.max() / counts.min() if counts.min() else math.inf)
        if len(rows):
            deviation = rows / rows.sum(1, keepdims=True) - rows.sum(0) / rows.sum()
            certificate[k] = np.linalg.norm(deviation, 2) ** 2 * instance.n_servers / len(rows)
    return Diagnostics(densities, float(ratios[0]), float(ratios[1]), certificate)
