"""Instances of load balancing with data locality: servers, dispatchers, and the graph that says who may use whom.

Servers are numbered type by type, and so are dispatchers. The graph is a function of the instance: an edge of IRG(p) is there
iff a hash of (graph_seed, dispatcher, server) is below p_km, so that a graph of 10^12 edges need not be stored, and a stored
one is the same graph. Deterministic graphs (per pair of types, with n servers and t = floor(p_km n + 1/2)) join dispatcher a =
0, 1, ... of its type to the servers (s_a + c) mod n, c in T, |T| = t, with s_a = floor(a n / W_k) if W_k < n, else a mod n:
`contiguous` has T = {0..t-1}, `random` a t-subset drawn once per pair of types.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import kernel, outlined_kernel
from matchgym.envs.instance import InputError, Instance, as_array, as_number, is_count, shorten

GRAPHS = ("irg", "regular-random", "regular-contiguous", "complete")
LISTED, HASHED, RING = range(3)  # how neighbourhoods are known: from lists, by asking edge by edge, by arithmetic

MOST_LISTED = 2**23  # edges of a graph that is stored
MOST_ASKED = 2**33  # pairs that may be asked once to list the edges of a sparse graph
SAFE_DEGREE = 256  # mean number of compatible servers from which fewer than MOST_CHOICES have probability < 1e-20
MOST_CHOICES, MOST_SERVERS, MOST_TYPES = 64, 2 * 10**7, 16
ROUNDING = 1e-9  # of fractions: their sum may differ from 1 by it
GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def largest_remainder(fractions: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Integers (n,) with sum `total` nearest to fractions x total; what is left goes to the largest remainders, lowest index
    first.
    """
    wanted = fractions / fractions.sum() * total
    counts = np.floor(wanted + ROUNDING).astype(np.int64)
    remainders = np.round(wanted - counts, 9)
    for k in np.argsort(-remainders, kind="stable")[: total - int(counts.sum())]:
        counts[k] += 1
    return counts


@dataclass(frozen=True, kw_only=True, eq=False)
class DataLocalityInstance(Instance):
    """Rates per unit of time of N servers of M types and of dispatchers of K types, and the law of their graph."""

    model: ClassVar[str] = "data_locality"

    arrival_rate: float  # lambda > 0, tasks per dispatcher and unit of time
    dispatchers_per_server: float  # xi > 0
    dispatcher_fractions: NDArray[np.float64]  # w (K,) > 0, sum 1
    server_fractions: NDArray[np.float64]  # v (M,) > 0, sum 1
    service_rates: NDArray[np.float64]  # u (M,) > 0
    compatibility: NDArray[np.float64]  # p (K, M) in [0, 1], edge probabilities
    choices: int = 2  # d >= 1, servers sampled for a task
    n_servers: int = 100  # N >= 2
    graph: str = "irg"
    graph_seed: int = 0
    initial_lengths: NDArray[np.float64] | None = None  # (M, n) law of a server's tasks 0, 1, ... at the start; None: empty

    def __post_init__(self) -> None:
        super().__post_init__()
        w = as_array("dispatcher_fractions", self.dispatcher_fractions, 1, (None,), positive=True)
        v = as_array("server_fractions", self.server_fractions, 1, (None,), positive=True)
        checked: dict[str, Any] = {
            "arrival_rate": as_number("arrival_rate", self.arrival_rate, positive=True),
            "dispatchers_per_server": as_number("dispatchers_per_server", self.dispatchers_per_server, positive=True),
            "dispatcher_fractions": w,
            "server_fractions": v,
            "service_rates": as_array("service_rates", self.service_rates, 1, (len(v),), positive=True),
            "compatibility": as_array("compatibility", self.compatibility, 2, (len(w), len(v)), positive=False),
        }
        for field in ("dispatcher_fractions", "server_fractions"):
            if abs(checked[field].sum() - 1) > ROUNDING:
                raise InputError(f"{field} must sum to 1, not {checked[field].sum():.9g}.")
            if len(checked[field]) > MOST_TYPES:
                raise InputError(f"{field} has {len(checked[field])} types, above {MOST_TYPES}; merge types that are alike.")
        p = checked["compatibility"]
        if p.max() > 1:
            raise InputError(f"compatibility holds probabilities, so at most 1, not {p.max():g}.")
        if not p.any(1).all():
            raise InputError(f"compatibility[{int(np.argmin(p.any(1)))}] is all 0; give its tasks a server type.")
        for field, low, high in (
            ("choices", 1, MOST_CHOICES),
            ("n_servers", 2, MOST_SERVERS),
            ("graph_seed", 0, 2**63 - 1),
        ):
            value = getattr(self, field)
            if not is_count(value, low) or value > high:
                raise InputError(f"{field} must be an integer from {low} to {high}, not {shorten(value)}.")
            checked[field] = int(value)
        if self.graph not in GRAPHS:
            raise InputError(f"graph must be one of {', '.join(GRAPHS)}, not {shorten(self.graph)}.")
        if self.graph == "complete" and (p != 1).any():
            raise InputError('compatibility must be all 1 where graph is "complete"; choose another graph.')
        if self.initial_lengths is not None:
            law = as_array("initial_lengths", self.initial_lengths, 2, (len(v), None), positive=False)
            if np.abs(law.sum(1) - 1).max() > ROUNDING:
                raise InputError("initial_lengths must have rows that sum to 1, each the law of a server's number of tasks.")
            checked["initial_lengths"] = law
        for field, value in checked.items():
            object.__setattr__(self, field, value)
        if self.n_dispatchers < 1:
            raise InputError("dispatchers_per_server x n_servers rounds to 0 dispatchers; raise either.")
        if self.n_dispatchers > 10 * MOST_SERVERS:
            raise InputError(f"dispatchers_per_server x n_servers is above {10 * MOST_SERVERS}; lower either.")

    @property
    def n_types(self) -> int:
        """M."""
        return len(self.server_fractions)

    @property
    def n_dispatcher_types(self) -> int:
        """K."""
        return len(self.dispatcher_fractions)

    @property
    def n_dispatchers(self) -> int:
        """W = round(xi N)."""
        return round(self.dispatchers_per_server * self.n_servers)

    @property
    def server_counts(self) -> NDArray[np.int64]:
        """|V_m| (M,)."""
        return largest_remainder(self.server_fractions, self.n_servers)

    @property
    def dispatcher_counts(self) -> NDArray[np.int64]:
        """|W_k| (K,)."""
        return largest_remainder(self.dispatcher_fractions, self.n_dispatchers)

    @property
    def rates(self) -> NDArray[np.float64]:
        """u_j of every server (N,)."""
        return np.repeat(self.service_rates, self.server_counts)

    @property
    def total_rate(self) -> float:
        """lambda W, tasks per unit of time."""
        return self.arrival_rate * self.n_dispatchers

    @property
    def offered(self) -> float:
        """lambda xi, tasks per server and unit of time in the limit of many servers."""
        return self.arrival_rate * self.dispatchers_per_server

    @property
    def shares(self) -> NDArray[np.float64]:
        """x_km = v_m p_km / delta_k (K, M): the type of a uniformly drawn compatible server (Section 3)."""
        weights = self.server_fractions * self.compatibility
        return weights / weights.sum(1, keepdims=True)

    @property
    def load(self) -> float:
        """rho_0 = lambda xi / sum_m v_m u_m, below 1 by condition (2.1)."""
        return self.offered / float(self.server_fractions @ self.service_rates)

    @property
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.n_servers} servers, {self.n_dispatchers} dispatchers, {self.n_types} x {self.n_dispatcher_types} types"

    @property
    def objective_scale(self) -> float:
        """Tasks per server and unit of time: by Little's law, objective = objective_scale x mean reward per task."""
        return self.total_rate / self.n_servers


class Graph(NamedTuple):
    """A compatibility graph in the form that kernels read; see `neighbours`."""

    kind: int  # LISTED, HASHED or RING
    starts: NDArray[np.int64]  # (W + 1,) if listed: where a dispatcher's servers stand in `members`
    members: NDArray[np.int64]  # if listed, the servers; if a ring of random sets, the offsets T of each type, K rows of N
    widths: NDArray[np.int64]  # (K, M) t, if a ring
    levels: NDArray[np.int64]  # (K, M) p 2^53, if hashed
    word: np.uint64  # the hash's key
    server_ends: NDArray[np.int64]  # (M + 1,)
    dispatcher_ends: NDArray[np.int64]  # (K + 1,)


@kernel
def has_edge(word, n, i, j, level):
    """Whether dispatcher i and server j of n are joined: the SplitMix64 hash of their pair against p 2^53."""
    z = word + GOLDEN * (np.uint64(i) * np.uint64(n) + np.uint64(j) + np.uint64(1))
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) < level


@outlined_kernel
def list_kernel(word, server_ends, dispatcher_ends, levels, starts, members):
    """Count the edges of every dispatcher into starts (W + 1,), and write them if there is room in `members`."""
    n, count = server_ends[-1], 0
    for k in range(len(dispatcher_ends) - 1):
        for i in range(dispatcher_ends[k], dispatcher_ends[k + 1]):
            for m in range(len(server_ends) - 1):
                if levels[k, m] > 0:
                    for j in range(server_ends[m], server_ends[m + 1]):
                        if has_edge(word, n, i, j, levels[k, m]):
                            if count < len(members):
                                members[count] = j
                            count += 1
            starts[i + 1] = count


def ends(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where consecutive groups end, from 0 on."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@functools.lru_cache(maxsize=16)
def draw_graph(instance: DataLocalityInstance) -> Graph:
    """The instance's graph; InputError if a dispatcher has no server, or if the graph is too large to be known."""
    servers, dispatchers = instance.server_counts, instance.dispatcher_counts
    p, nothing = instance.compatibility, np.zeros(1, np.int64)
    word = np.random.SeedSequence(instance.graph_seed).generate_state(1, np.uint64)[0]
    shared = {"word": word, "server_ends": ends(servers), "dispatcher_ends": ends(dispatchers)}
    levels, widths = (p * 2.0**53).astype(np.int64), np.zeros(p.shape, np.int64)
    if instance.graph != "irg" or (p == 1).all():
        widths = np.floor(p * servers + 0.5).astype(np.int64)
        _refuse_isolated(instance, np.repeat(widths.sum(1), dispatchers))
        members = nothing
        if instance.graph == "regular-random":
            rng = np.random.default_rng(instance.graph_seed)
            members = np.zeros(instance.n_dispatcher_types * instance.n_servers, np.int64)
            for (k, m), width in np.ndenumerate(widths):
                start = k * instance.n_servers + shared["server_ends"][m]
                members[start : start + width] = np.sort(rng.choice(servers[m], width, replace=False))
        return Graph(RING, nothing, members, widths, levels, **shared)
    degrees = (p * servers).sum(1)
    edges = float(degrees @ dispatchers)
    if edges > MOST_LISTED and degrees.min() >= SAFE_DEGREE:
        return Graph(HASHED, nothing, nothing, widths, levels, **shared)
    if edges > 2 * MOST_LISTED or float(instance.n_servers) * instance.n_dispatchers > MOST_ASKED:
        raise InputError(
            f"n_servers {instance.n_servers} gives a graph of {edges:.2g} edges with too few per dispatcher to sample them; "
            "lower n_servers or raise compatibility."
        )
    starts = np.zeros(instance.n_dispatchers + 1, np.int64)
    frame = (word, shared["server_ends"], shared["dispatcher_ends"], levels, starts)
    list_kernel(*frame, nothing[:0])
    members = np.zeros(starts[-1], np.int64)
    list_kernel(*frame, members)
    _refuse_isolated(instance, np.diff(starts))
    return Graph(LISTED, starts, members, widths, levels, **shared)


def _refuse_isolated(instance: DataLocalityInstance, degrees: NDArray[np.int64]) -> None:
    if not degrees.all():
        raise InputError(
            f"compatibility leaves {int((degrees == 0).sum())} dispatchers without a server, the first being "
            f"{int(np.argmin(degrees))}, on the graph of graph_seed {instance.graph_seed}; raise it or choose another seed."
        )


def ring_start(place: int, n: int, dispatchers: int) -> int:
    """s_a, the server at which the neighbourhood of dispatcher a = `place` of its type starts, among n of a type."""
    return place * n // dispatchers if dispatchers < n else place % n


def neighbours(graph: Graph, i: int) -> NDArray[np.int64]:
    """The servers of dispatcher i, in increasing order."""
    if graph.kind == LISTED:
        return graph.members[graph.starts[i] : graph.starts[i + 1]]
    k = int(np.searchsorted(graph.dispatcher_ends, i, side="right")) - 1
    n, found = int(graph.server_ends[-1]), []
    for m, (start, end) in enumerate(zip(graph.server_ends[:-1].tolist(), graph.server_ends[1:].tolist())):
        if graph.kind == HASHED:
            level = graph.levels[k, m]
            found += [j for j in range(start, end) if has_edge(graph.word, n, i, j, level)]
            continue
        first, width = int(graph.dispatcher_ends[k]), int(graph.widths[k, m])
        offsets = np.arange(width)
        if len(graph.members) > 1:
            offsets = graph.members[k * n + start : k * n + start + width]
        if end > start:
            begin = ring_start(i - first, end - start, int(graph.dispatcher_ends[k + 1]) - first)
            found += (start + np.sort((begin + offsets) % (end - start))).tolist()
    return np.array(found, np.int64)


def adjacency(graph: Graph) -> NDArray[np.bool_]:
    """The edges as a matrix (W, N); InputError if that is too large."""
    n_dispatchers, n = int(graph.dispatcher_ends[-1]), int(graph.server_ends[-1])
    if n_dispatchers * n > 2 * MOST_LISTED:
        raise InputError(f"n_servers {n} is too many for a matrix of edges; lower it.")
    edges = np.zeros((n_dispatchers, n), np.bool_)
    for i in range(n_dispatchers):
        edges[i, neighbours(graph, i)] = True
    return edges
