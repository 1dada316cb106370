"""The least mean number of tasks that any policy can have that sees all queues, for few servers: a certified bracket.

Let x be the numbers of tasks, c(x) = |x| / N, and for a function h

    B(h)(x) = c(x) + sum_i lambda_i min_{j of i} (h(x + e_j) - h(x)) + sum_{j: x_j > 0} u_j (h(x - e_j) - h(x)).

*From below.* Let the tasks that arrive at |x| = n be turned away. Whatever a policy does with all tasks, the same choices for
those that are let in leave every queue at most as long, so the least cost with tasks turned away is at most the least cost. On
the finitely many states |x| <= n it is at least min_x B(h)(x), without arrivals at |x| = n, for every h.

*From above.* Split the tasks beyond n at random, so that server j gets a_j < u_j of them per unit of time. The function
v(x) = sum_j x_j (x_j + 1) / (2 N (u_j - a_j)) answers the split with drift -c + sum_j a_j / (u_j - a_j) / N. Continue h
beyond n by W = 2 v + K, with h <= W at |x| = n. The policy that takes the minima in B(h) up to n and splits beyond has a mean
cost of at most the largest of B(h)(x), |x| <= n, and of 2 sum_j a_j / (u_j - a_j) / N - (n + 1) / N, which bounds c plus the
drift of W beyond, because h and W are bounded from below.

Both functions come from policy iteration: the first on the chain that turns tasks away, the second on the chain that pays W for
a task beyond n and starts anew, empty. The bracket closes as n grows, like the probability of n tasks.
"""

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from matchgym.bounds.birth_death import refuse_overload
from matchgym.bounds.bound import Bound, Proof, certify
from matchgym.bounds.box_proof import exact_list, on_grid
from matchgym.bounds.chain import poisson_equation, solve_directly
from matchgym.bounds.locality_chain import Chain, make_chain, neighbour_kernel
from matchgym.bounds.rational import CertificateError, exact
from matchgym.envs.instance import InputError, is_count
from matchgym.envs.locality_instances import DataLocalityInstance, draw_graph, neighbours

MAX_STATES = 60_000
TAIL = 1e-10  # of the pooled servers' law, beyond the largest total
WIDTH = 1e-6  # of the bracket, relative
GROWTH = 1.3  # of the largest total, while the bracket is wider
PRECISION = 1e-9  # by which the last policy may be improved, relative
MAX_ROUNDS = 100
HEADROOM = 1.25  # of K over what h needs


class System(NamedTuple):
    """The chain of states up to n tasks, with rows of one task more and one fewer at each server, -1 where there is none."""

    chain: Chain
    above: NDArray[np.int64]  # (S', N) for the states below n
    below: NDArray[np.int64]  # (S, N)
    sources: list[tuple[int, list[int]]]  # dispatchers that have the same servers: how many, and which

    @property
    def states(self) -> NDArray[np.int64]:
        return self.chain.states

    @property
    def edge(self) -> slice:
        """The states of n tasks."""
        return slice(len(self.above), len(self.states))


def make_system(instance: DataLocalityInstance, most: int) -> System:
    """The chain of at most `most` tasks."""
    graph, n = draw_graph(instance), instance.n_servers
    chain = make_chain(n, most, MAX_STATES)
    above = np.zeros((int(chain.starts[most]), n), np.int64)
    below = np.zeros((len(chain.states), n), np.int64)
    neighbour_kernel(chain.states, chain.starts, chain.choose, above, below)
    sources = Counter(tuple(neighbours(graph, i).tolist()) for i in range(instance.n_dispatchers))
    return System(chain, above, below, [(count, list(servers)) for servers, count in sorted(sources.items())])


def largest_total(instance: DataLocalityInstance) -> int:
    """The n to begin with; InputError if nothing is stable or the chain is too large."""
    arrivals, capacity = Fraction(instance.arrival_rate) * instance.n_dispatchers, sum(exact_list(instance.rates), Fraction(0))
    refuse_overload(arrivals, capacity)
    load, size = float(arrivals / capacity), instance.n_servers
    most = math.ceil(math.log(TAIL) / math.log(load)) if load < 1 else MAX_STATES
    if math.comb(most + size, size) > MAX_STATES:
        raise InputError(
            f"n_servers {size} at a load of {load:.3g} needs a chain of {math.comb(most + size, size):.3g} states, "
            f"above {MAX_STATES}, for the optimum; use tightest-any."
        )
    return most


def least_load_split(instance: DataLocalityInstance, sources: list[tuple[int, list[int]]]) -> list[list[float]]:
    """For each source the fractions of its tasks for each of its servers, such that the largest load is least."""
    n = instance.n_servers
    ends = np.cumsum([0, *(len(servers) for _, servers in sources)])
    loads, shares = np.zeros((n, ends[-1] + 1)), np.zeros((len(sources), ends[-1] + 1))
    loads[:, -1] = -instance.rates
    for row, (start, (count, servers)) in enumerate(zip(ends, sources)):
        shares[row, start : start + len(servers)] = 1.0
        loads[servers, start + np.arange(len(servers))] = count * instance.arrival_rate
    cost = np.r_[np.zeros(ends[-1]), 1.0]
    found = linprog(cost, loads, np.zeros(n), shares, np.ones(len(sources)), method="highs")
    if found.x[-1] >= 1:
        raise InputError("arrival_rate is too large: on this graph the servers of some dispatchers cannot keep up; lower it.")
    return [found.x[start:end].tolist() for start, end in pairwise(ends)]


class Tail(NamedTuple):
    """W = 2 v + K, in exact numbers."""

    weights: list[Fraction]  # (N,) of x_j (x_j + 1)
    gain: Fraction  # 2 sum_j a_j / (u_j - a_j) / N
    constant: Fraction

    def at(self, states: NDArray[np.int64]) -> list[Fraction]:
        """W at states (S, N)."""
        squares = (states * (states + 1)).tolist()
        return [sum(map(Fraction.__mul__, self.weights, map(Fraction, row)), self.constant) for row in squares]


def make_tail(instance: DataLocalityInstance, sources: list[tuple[int, list[int]]], split: Any, constant: Fraction) -> Tail:
    """The tail of a split, whose fractions are brought to sum 1."""
    rates, arrival, n = exact_list(instance.rates), Fraction(instance.arrival_rate), instance.n_servers
    if len(split) != len(sources) or any(len(part) != len(servers) for part, (_, servers) in zip(split, sources)):
        raise CertificateError("a certificate has a split that does not fit the graph.")
    flows = [Fraction(0)] * n
    for part, (count, servers) in zip(split, sources):
        fractions = [max(Fraction(0), exact(value)) for value in part]
        for j, fraction in zip(servers, fractions):
            flows[j] += arrival * count * fraction / sum(fractions)
    spare = [rate - flow for rate, flow in zip(rates, flows)]
    if min(spare) <= 0:
        raise CertificateError("a certificate has a split under which a server cannot keep up.")
    gain = sum((flow / room for flow, room in zip(flows, spare)), Fraction(0)) * 2 / n
    return Tail([1 / (n * room) for room in spare], gain, constant)


def backup(system: System, h: Any, beyond: Any, arrival: Any, rates: Any, cost: Any) -> Any:
    """B(h) (S,) in the arithmetic of h, with values `beyond` (E, N) of n + 1 tasks, or None to turn tasks away at n."""
    value = cost * system.states.sum(1).astype(h.dtype)
    more = h[system.above] if beyond is None else np.concatenate([h[system.above], beyond])
    here = h[: len(more)]
    for count, servers in system.sources:
        value[: len(more)] += arrival * count * (more[:, servers].min(1) - here)
    for j, rate in enumerate(rates):
        value += np.where(system.states[:, j] > 0, rate * (h[system.below[:, j]] - h), 0)
    return value


def solve(
    system: System, instance: DataLocalityInstance, beyond: NDArray[np.float64] | None, h: NDArray[np.float64]
) -> NDArray[np.float64]:
    """h (S,), h[0] = 0, by policy iteration from the policy that suits the given h, until B(h) is all but constant."""
    states, size = system.states, len(system.states)
    inner, edge = np.arange(len(system.above)), np.arange(size)[system.edge]
    linear_solver = (solve_directly,) if states.shape[1] <= 3 else ()
    services, tasks = sparse.csr_matrix((size, size)), states.sum(1) / instance.n_servers
    for j, rate in enumerate(instance.rates):
        busy = np.flatnonzero(states[:, j] > 0)
        services += sparse.csr_matrix((np.full(len(busy), rate), (busy, system.below[busy, j])), (size, size))
    gain, chosen = 0.0, np.zeros((len(system.sources), len(inner)), np.int64)
    for step in range(MAX_ROUNDS):
        moves, cost, regret = services, tasks.copy(), np.zeros(len(inner))
        for k, (count, servers) in enumerate(system.sources):
            rate, targets = count * instance.arrival_rate, system.above[:, servers]
            regret += rate * (h[targets[inner, chosen[k]]] - h[targets].min(1))
            chosen[k] = h[targets].argmin(1)
            moves = moves + sparse.csr_matrix((np.full(len(inner), rate), (inner, targets[inner, chosen[k]])), (size, size))
            if beyond is not None:
                cost[edge] += rate * beyond[:, servers].min(1)
                moves = moves + sparse.csr_matrix((np.full(len(edge), rate), (edge, np.zeros_like(edge))), (size, size))
        if step > 0 and regret.max() <= PRECISION * gain:
            return h
        loss, bias = poisson_equation(moves - sparse.diags(np.asarray(moves.sum(1)).ravel()), -cost, *linear_solver)
        gain, h = -loss, -bias
    raise RuntimeError(f"policy iteration did not settle within {MAX_ROUNDS} rounds on {instance.name!r}.")


def optimum(instance: DataLocalityInstance) -> Bound:
    """The bracket; `solution` has the states (S, N), and the best server for a task of each source at states below n."""
    most = largest_total(instance)
    while True:
        found = bracket(instance, most)
        assert found.lower is not None
        if found.lower >= found.certified_value * (1 + WIDTH):
            return found
        most = math.ceil(GROWTH * most)
        if math.comb(most + instance.n_servers, instance.n_servers) > MAX_STATES:
            raise InputError(
                f"the optimum is only known to lie between {found.lower:.9g} and {found.certified_value:.9g}: arrival_rate is "
                "too near the edge of stability; use tightest-any."
            )


def bracket(instance: DataLocalityInstance, most: int) -> Bound:
    """What the states of at most `most` tasks prove."""
    system = make_system(instance, most)
    split = least_load_split(instance, system.sources)
    low = solve(system, instance, None, (system.states * (system.states + 1.0) / instance.rates).sum(1))
    edge = system.states[system.edge]
    above_edge = edge[:, None, :] + np.eye(instance.n_servers, dtype=np.int64)
    constant, high = 0.0, low
    for _ in range(MAX_ROUNDS):
        tail = make_tail(instance, system.sources, split, Fraction(constant))
        values = np.array(tail.at(above_edge.reshape(-1, instance.n_servers)), float).reshape(above_edge.shape[:2])
        high = solve(system, instance, values, high) if constant else low
        lacking = float((high[system.edge] - np.array(tail.at(edge), float)).max())
        if constant and lacking < 0:
            break
        constant = HEADROOM * (constant + max(0.0, lacking)) + 1.0
    certificate = {"most": most, "below": on_grid(low), "above": on_grid(high), "split": split, "constant": constant}
    servers = [np.array(which)[low[system.above[:, which]].argmin(1)] for _, which in system.sources]
    cost = backup(system, low, None, instance.arrival_rate, instance.rates, 1 / instance.n_servers).min()
    return certify(
        "optimum", "upper", -float(cost), instance, prove_optimum, certificate,
        solution={"states": system.states, "sources": system.sources, "servers": np.array(servers)}, duals={},
        unit="minus tasks per server", report={"holds_for": "every policy"},
    )  # fmt: skip


def prove_optimum(instance: DataLocalityInstance, certificate: dict[str, Any]) -> Proof:
    """The bracket that any two functions, a split and a constant prove."""
    most, n = certificate["most"], instance.n_servers
    if not is_count(most, 1) or math.comb(most + n, n) > MAX_STATES:
        raise CertificateError(f"a certificate has {most!r} where a largest total is needed.")
    system = make_system(instance, most)
    rates, arrival = exact_list(instance.rates), Fraction(instance.arrival_rate)
    scale = math.lcm(arrival.denominator, *(rate.denominator for rate in rates))

    def backed_up(part: str, beyond: Any) -> tuple[Any, Fraction]:
        """B(h) in integers of a unit, and the unit."""
        h, one = _grid(certificate[part], len(system.states))
        whole = [int(rate * scale * n) for rate in (arrival, *rates)]
        return backup(system, h, beyond(one), whole[0], whole[1:], scale * one), Fraction(1, scale * n * one)

    values, unit = backed_up("below", lambda one: None)
    least = int(values.min()) * unit

    tail = make_tail(instance, system.sources, certificate["split"], exact(certificate["constant"]))
    edge = system.states[system.edge]
    above_edge = (edge[:, None, :] + np.eye(n, dtype=np.int64)).reshape(-1, n)

    def continued(one: int) -> Any:
        return np.array([math.ceil(value * one) for value in tail.at(above_edge)], object).reshape(len(edge), n)

    values, unit = backed_up("above", continued)
    h, one = _grid(certificate["above"], len(system.states))
    if any(inner > outer * one for inner, outer in zip(h[system.edge].tolist(), tail.at(edge))):
        raise CertificateError("a certificate has a function that exceeds its continuation.")
    most_cost = max(int(values.max()) * unit, tail.gain - Fraction(most + 1, n))
    return Proof(lower=-most_cost, upper=-least)


def _grid(table: Any, size: int) -> tuple[NDArray[Any], int]:
    """Numbers h (S,) in integers, and how many of them make 1."""
    bits, h = table["bits"], table["h"]
    if not is_count(bits, 0) or bits > 4096 or len(h) != size or not all(type(value) is int for value in h):
        raise CertificateError(f"a certificate needs {size} integers and their bits.")
    return np.array(h, object), 1 << bits
