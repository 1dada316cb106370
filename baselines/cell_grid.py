"""The unit cube cut into cells, the network of a cell, and how a throughput target is shared out among cells.

This is Appendix 8 of arXiv 2501.08775. A random grid of side eta, shifted by s uniform on [0, eta]^d, has the cells
prod_k [s_k + t_k eta, s_k + (t_k + 1) eta) with t_k integer; a match of length Delta_k along axis k is cut with probability at
most sum_k Delta_k / eta. Within a cell, locations are snapped to the middle points of an inner grid and equal points are
merged, so that the network of the cell stays small. Cells are independent of each other; with phi(C, t) the least cost of
throughput t in cell C, the target is shared out by the fractional min-knapsack programme

    min  sum_{u,k} z(u, k) x(u, k)                      z(u, k) = phi(C_u, zeta_k), u a kind of cell that appears r_u times
    s.t. sum_k x(u, k) <= r_u                           each u
         sum_{u,k} zeta_k x(u, k) >= tau*
         x >= 0

and every cell of kind u gets t_u = sum_k zeta_k x(u, k) / r_u, which costs no more since phi is convex. The exact analogue is
to let every cell maximise theta t - phi(C, t) at one common price theta.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pulp
from numpy.typing import NDArray

from matchgym.bounds.chain import Market, make_box
from matchgym.bounds.matching_queues import FEASIBLE, LONG_QUEUE, programme_solution, short_queues
from matchgym.bounds.programme import HeldProgramme
from matchgym.bounds.queue_blocks import BlockPolicy, Mixture, Prices, make_block, mix
from matchgym.envs.euclidean_matching import EuclideanMatchingInstance, distances
from matchgym.envs.instance import SMALLEST, InputError
from matchgym.envs.matching_queues import MatchingQueuesInstance
from matchgym.envs.single_queue import sufficient_cap, walk_hull

JOINT_STATES = 1_000  # of the queues of a cell where the inner grid is chosen by rule
FINEST = 12  # halvings of a cell's side, at most
TAIL = 1e-3  # share of a cell's suppliers who meet a queue at the cap of such a cell
TIE = 1e-9  # of a cost with a reach, relative: keeps the choices of the programme
MERGINGS = ("nearest", "mean", "snapped")


def grid_cells(locations: NDArray[np.float64], side: float, shift: NDArray[np.float64]) -> NDArray[np.int64]:
    """The integers t (k, d) of the cells that hold locations (k, d)."""
    return np.floor((locations - shift) / side).astype(np.int64)


@dataclass(frozen=True)
class Cell:
    """Some suppliers and customers, merged into queues and groups, as a small network."""

    queues: list[NDArray[np.int64]]  # the suppliers of each queue
    groups: list[NDArray[np.int64]]  # the customers of each group
    network: MatchingQueuesInstance

    @property
    def suppliers(self) -> NDArray[np.int64]:
        return np.concatenate(self.queues)

    @property
    def is_merged(self) -> bool:
        """Whether some queue has several suppliers, so that the network does not tell which of them is matched."""
        return len(self.suppliers) > len(self.queues)


@dataclass(frozen=True)
class Grid:
    """Cells of one side and shift; one cell if the side is 1 or more."""

    instance: EuclideanMatchingInstance
    side: float
    shift: NDArray[np.float64]  # (d,)

    @property
    def extent(self) -> float:
        """Side of a cell within the cube."""
        return min(self.side, 1.0)

    def numbers(self, locations: NDArray[np.float64]) -> NDArray[np.int64]:
        """The cell (k, d) of each location, all zeros in one cell."""
        if self.side >= 1:
            return np.zeros(locations.shape, np.int64)
        return grid_cells(locations, self.side, self.shift)

    def corner(self, number: NDArray[np.int64]) -> NDArray[np.float64]:
        """Where a cell begins (d,)."""
        return np.zeros(len(number)) if self.side >= 1 else self.shift + number * self.side

    def cells(self, inner: float | None, merging: str) -> list[Cell]:
        """The cells with both suppliers and customers, in the order of their places.

        `inner` is the side of the inner grid: 0 for none, and None for the finest in each cell of side 0, or eta, eta / 2, ...
        that leaves at most JOINT_STATES joint queue lengths.
        """
        suppliers, customers = (
            self.numbers(places) for places in (self.instance.supplier_locations, self.instance.customer_locations)
        )
        found = []
        for number in np.unique(suppliers, axis=0):
            own, theirs = np.flatnonzero((suppliers == number).all(1)), np.flatnonzero((customers == number).all(1))
            if len(theirs):
                corner = self.corner(number)
                if inner is None:
                    found.append(self._finest(own, theirs, corner, merging))
                else:
                    found.append(merged(self.instance, own, theirs, corner, self.extent, inner, merging))
        return found

    def _finest(
        self, suppliers: NDArray[np.int64], customers: NDArray[np.int64], corner: NDArray[np.float64], merging: str
    ) -> Cell:
        for inner in (0.0, *(self.extent * 2.0**-k for k in range(FINEST, -1, -1))):
            cell = merged(self.instance, suppliers, customers, corner, self.extent, inner, merging)
            if coarse_caps(cell.network) is not None:
                break
        return cell


def merged(
    instance: EuclideanMatchingInstance,
    suppliers: NDArray[np.int64],
    customers: NDArray[np.int64],
    corner: NDArray[np.float64],
    extent: float,
    inner: float,
    merging: str,
) -> Cell:
    """A cell of side `extent` that begins at `corner` (d,); suppliers of an inner square are one queue per abandonment rate.

    merging "snapped" is the paper's: customers of one inner square are one group, and costs are the distances between middle
    points of squares. Otherwise customers stay apart, and a cost is a mean over the suppliers of the queue: with "mean" in
    proportion to their rates, with "nearest" by the probability that they are the nearest who waits, if somebody does, when
    nobody is ever matched. All are within inner sqrt(d), half of it at each end, of the distance of any match.
    """
    own, theirs = instance.supplier_locations[suppliers], instance.customer_locations[customers]
    if inner > 0:
        last = np.ceil(extent / inner - 1e-9) - 1  # the far side of the cube belongs to the last square
        squares, squares_of_customers = (np.minimum(np.floor((x - corner) / inner), last) for x in (own, theirs))
    else:
        squares, squares_of_customers = own, theirs
    rates, gamma, mu = (
        instance.supplier_rates[suppliers],
        instance.customer_rates[customers],
        instance.departure_rates[suppliers],
    )
    queue_of = np.unique(np.column_stack([squares, mu]), axis=0, return_inverse=True)[1].ravel()
    queues = [np.flatnonzero(queue_of == q) for q in range(queue_of.max() + 1)]
    if merging != "snapped":
        groups = [np.array([j]) for j in range(len(customers))]
        distance = instance.costs[np.ix_(suppliers, customers)]
        mean_cost = nearest_cost if merging == "nearest" else average_cost
        costs = np.array([mean_cost(rates[queue] / mu[queue], distance[queue]) for queue in queues])
    else:
        group_of = np.unique(squares_of_customers, axis=0, return_inverse=True)[1].ravel()
        groups = [np.flatnonzero(group_of == g) for g in range(group_of.max() + 1)]
        ends = [np.array([square[part[0]] for part in parts]) for square, parts in
                ((squares, queues), (squares_of_customers, groups))]  # fmt: skip
        costs = distances(*((corner + (end + 0.5) * inner if inner > 0 else end) for end in ends))
    network = MatchingQueuesInstance(
        name=instance.name,
        supplier_rates=np.array([rates[queue].sum() for queue in queues]),
        abandonment_rate=np.array([mu[queue[0]] for queue in queues]),
        customer_rates=np.array([gamma[group].sum() for group in groups]),
        costs=np.where(costs < SMALLEST, 0.0, costs),
        throughput_target=0.0,
        throughput_price=instance.price if instance.price >= SMALLEST else 0.0,
    )
    return Cell([suppliers[queue] for queue in queues], [customers[group] for group in groups], network)


def average_cost(offered: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean distance (l,) of suppliers (k,) to customers (l,), from distance (k, l)."""
    return offered @ distance / offered.sum()


def nearest_cost(offered: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean distance (l,) to the nearest supplier who waits, given that one does, if queue i is Poisson(offered[i])."""
    order = np.argsort(distance, axis=0, kind="stable")
    ranked, present = np.take_along_axis(distance, order, 0), offered[order]
    before = present.cumsum(0) - present
    weights = -np.exp(-before) * np.expm1(-present)
    return (weights * ranked).sum(0) / -np.expm1(-offered.sum())


def coarse_caps(network: MatchingQueuesInstance) -> tuple[int, ...] | None:
    """Caps that a share TAIL of the suppliers meets at most; None if they leave more than JOINT_STATES joint states."""
    if network.n_suppliers == 1:  # one queue is solved at any length
        cap = sufficient_cap(float(network.offered[0]))
        return (cap,) if cap <= LONG_QUEUE else None
    market = Market(network.name, network.supplier_rates, network.departure_rates, network.customer_rates, network.costs)
    tail = TAIL * float(network.supplier_rates.sum())
    try:
        return make_box(market, tail, network.supplier_rates, "a cell", JOINT_STATES).caps
    except InputError:
        return None


class CellProgramme:
    """The Network LP of a cell, at a price or at a target; with all queues short it is exact up to its caps.

    A cell whose inner grid was chosen by rule has coarse caps; otherwise short queues and caps are those of the bound `nlp`.
    """

    def __init__(self, network: MatchingQueuesInstance, is_coarse: bool) -> None:
        self.network = network
        caps = coarse_caps(network) if is_coarse else None
        if caps is None:
            self.short, self.caps = short_queues(network, None, None)
        else:
            self.short, self.caps = tuple(range(network.n_suppliers)), caps
        self.blocks = [make_block(network, self.short, self.caps)] if self.short else []
        self._costs: dict[float, float] = {}
        self._most: Mixture | None = None
        self._known: Sequence[Sequence[BlockPolicy]] | None = None

    def at_price(self) -> dict[str, Any]:
        """The solution for the price theta, as `matchgym.bounds.matching_queues.nlp` has it; and `reach` (S, queues), the
        costs up to which a match is worth it: theta less the worth of the supplier, where that is known.
        """
        n, price = self.network.n_suppliers, self.network.price
        if len(self.short) < n:
            found = mix(self.network, self.blocks, self.network.rewards)
            states = len(found.policies[0][0][1].law) if self.short else 1
            reach = np.full((states, n), price)
        else:
            best = self.blocks[0].best(self.network.rewards)
            found, reach = self._alone(best), reaches(price, best.bias, self.caps)
        return programme_solution(self.network, self.short, self.caps, found) | {"reach": reach}

    @property
    def largest(self) -> float:
        """The largest throughput."""
        if self._most is None:
            everybody = np.ones(self.network.costs.shape)
            if len(self.short) == self.network.n_suppliers:
                self._most = self._alone(self.blocks[0].best(everybody))
            else:
                self._most = mix(self.network, self.blocks, everybody)
                self._known = self._most.found
        return self._most.value

    def _alone(self, policy: BlockPolicy) -> Mixture:
        """A policy of the one block where all queues are short, so that nothing couples it to anything."""
        free = Prices(0.0, np.zeros(self.network.n_customers), np.zeros(self.network.n_suppliers))
        return Mixture(policy.gain, free, policy.match_rates, [[(1.0, policy)]], [[policy]])

    def at_target(self, target: float) -> dict[str, Any]:
        """The solution of least cost for a throughput of at least `target`, at most the largest; any cost is within `reach`."""
        found = programme_solution(self.network, self.short, self.caps, self._mixture(target))
        return found | {"reach": np.full((len(found["p"]), self.network.n_suppliers), np.inf)}

    def cost(self, target: float) -> float:
        """phi(C, target)."""
        if target not in self._costs:
            self._costs[target] = max(0.0, -self._mixture(target).value) if target > 0 else 0.0
        return self._costs[target]

    def _mixture(self, target: float) -> Mixture:
        aim, costs = min(target, self.largest * (1 - FEASIBLE)), self.network.costs
        if len(self.short) < self.network.n_suppliers:
            found = mix(self.network, self.blocks, -costs, aim, self._known)
            self._known = found.found  # policies met once are good starts for the next target
            return found
        assert self._most is not None
        block, (_, most) = self.blocks[0], self._most.policies[0][0]
        idle = block.best(-np.ones(costs.shape))
        segment = walk_hull(lambda price: block.best(price - costs), most, aim, idle)
        weights = [(segment.weight, segment.right), (1 - segment.weight, segment.left)]
        parts = sorted(((w, policy) for w, policy in weights if w > 0), key=lambda part: -part[0])
        rates = sum((w * policy.match_rates for w, policy in parts), np.zeros(costs.shape))
        prices = Prices(segment.price, np.zeros(self.network.n_customers), np.zeros(self.network.n_suppliers))
        return Mixture(-segment.cost, prices, rates, [parts], [])


def reaches(price: float, bias: NDArray[np.float64], caps: Sequence[int]) -> NDArray[np.float64]:
    """theta - (h(l) - h(l - e_q)) (S, queues) for a bias h (S,) on a box of caps; theta where queue q is empty."""
    h = bias.reshape([cap + 1 for cap in caps])
    worth = [np.diff(h, axis=q, prepend=h.take([0], axis=q)).ravel() for q in range(len(caps))]
    return price + TIE * (price + np.abs(bias).max()) - np.array(worth).T


def throughput_menu(target: float, n_cells: int, eps: float) -> NDArray[np.float64]:
    """D: 0 and eps tau / (2 g) (1 + eps)^k for 0 <= k <= ceil(log(2 g / eps) / log(1 + eps))."""
    steps = math.ceil(math.log(2 * n_cells / eps) / math.log1p(eps))
    return np.r_[0.0, eps * target / (2 * n_cells) * (1 + eps) ** np.arange(steps + 1)]


def share_out(
    programmes: Sequence[CellProgramme], multiplicities: Sequence[int], target: float, menus: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """t_u of the min-knapsack programme above, for a menu of throughputs per kind of cell that it can attain."""
    problem = pulp.LpProblem("cells", pulp.LpMaximize)
    x, costs, throughputs = {}, {}, {}
    for u, (programme, menu) in enumerate(zip(programmes, menus)):
        for k, throughput in enumerate(menu.tolist()):
            x[u, k] = problem.add_variable(f"x_{u}_{k}", 0)
            costs[u, k], throughputs[u, k] = programme.cost(throughput), throughput
    problem += pulp.LpAffineExpression([(x[key], -costs[key]) for key in x])
    for u, count in enumerate(multiplicities):
        row = pulp.LpAffineExpression([(x[u, k], 1.0) for k in range(len(menus[u]))])
        problem.addConstraint(row <= count, f"cells_{u}")
    problem.addConstraint(pulp.LpAffineExpression([(x[key], throughputs[key]) for key in x]) >= target, "target")
    held = HeldProgramme(problem)
    shares = np.zeros(len(programmes))
    for (u, k), variable in x.items():
        shares[u] += throughputs[u, k] * max(0.0, held.values[variable.index])
    return shares / np.array(multiplicities)
