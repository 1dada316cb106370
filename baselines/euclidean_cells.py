"""The paper's algorithm for Euclidean networks (arXiv 2501.08775, Section 4 and Appendix 8).

1. Cut the cube into cells by a randomly shifted grid; nobody is matched across cells.
2. In each cell, snap locations to an inner grid and merge equal ones: suppliers into queues, customers into groups.
3. Solve the Network LP of each cell, at the common price theta or at the cell's share of the throughput target.
4. Follow Algorithm 1 (Priority Rounding) in the customer's cell, as for the merged network, and take from the chosen queue
   the nearest supplier who waits. Merging hides how far away he is: at the price theta the match is left out if its reward
   is less than the worth of a supplier of that queue, h(l) - h(l - e) with h the bias of the cell's programme.

All cells stand in flat tables, so that one kernel serves them all. A queue beyond its cap is treated as one at the cap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.cell_grid import MERGINGS, Cell, CellProgramme, Grid, share_out, throughput_menu
from matchgym.baselines.exact import best_of, chain_value
from matchgym.baselines.policy import compiled
from matchgym.baselines.preference_lists import MatchingPolicy, customer_kernel, waiting_kernel
from matchgym.baselines.priority_rounding import VARIANTS, algorithm_kernel, rounded_up
from matchgym.baselines.rounding_chain import MAX_STATES, Rounding, rounded_value
from matchgym.bounds.chain import Box, Market
from matchgym.envs.base import Model
from matchgym.envs.compile import Integer, Integers, IntegerTable, Reals, RealTable, WordTable, kernel
from matchgym.envs.euclidean_matching import MODEL, EuclideanMatchingInstance
from matchgym.envs.instance import InputError, shorten

ALLOCATIONS = ("price", "target")
SIDES = (1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12)  # tried where none is given


class CellsParams(NamedTuple):
    cell: Integers  # (m,) of each customer, -1 where nobody can wait
    group: Integers  # (m,) of each customer
    first_queue: Integers  # (C + 1,) the queues of a cell are consecutive, short ones first
    n_short: Integers  # (C,)
    cap: Integers  # (Q,) of a short queue
    first_supplier: Integers  # (Q + 1,)
    suppliers: Integers  # those of each queue
    first_short: Integers  # (G,) where a group's rows of short_choice begin, one row per state of the cell's short queues
    short_choice: Reals  # cumulative probabilities of i_s
    first_long: Integers  # (G,) where a group's row of the next two begins
    long_choice: Reals  # cumulative probabilities of i_l
    surplus_choice: Reals  # and of i+
    is_contentious: Integers  # (G,)
    is_simplified: Integer
    first_reach: Integers  # (C,) where a cell's rows of `reach` begin, one row per state of its short queues
    reach: Reals  # of each queue of the cell: matches of higher cost are left out
    costs: RealTable  # (n, m)


class CellsMemory(NamedTuple):
    stream: WordTable  # (B, 4)
    buffers: IntegerTable  # (B, len(long_choice)) V
    waiting: IntegerTable  # (B, Q) working space


@kernel
def empty_buffers_kernel(memory, b):
    """Start of an episode."""
    memory.buffers[b, :] = 0


@kernel
def cells_kernel(params, memory, b, obs, mask, rng):
    """Algorithm 1 in the customer's cell, and the nearest waiting supplier of the chosen queue."""
    n = params.costs.shape[0]
    j = int(customer_kernel(obs, n))
    cell, group = params.cell[j], params.group[j]
    if cell < 0:
        return n
    first, last, n_short = params.first_queue[cell], params.first_queue[cell + 1], params.n_short[cell]
    state = 0
    for q in range(first, last):
        total = 0
        for place in range(params.first_supplier[q], params.first_supplier[q + 1]):
            total += int(waiting_kernel(obs, params.suppliers[place]))
        memory.waiting[b, q] = total
        if q < first + n_short:
            state = state * (params.cap[q] + 1) + min(total, params.cap[q])
    row = params.first_short[group] + state * n_short
    long, end = params.first_long[group], params.first_long[group] + last - first - n_short
    q = first + algorithm_kernel(
        rng, b, params.short_choice[row : row + n_short], params.long_choice[long:end], params.surplus_choice[long:end],
        params.is_contentious[group], params.is_simplified, memory.waiting[b, first + n_short : last],
        memory.buffers[b, long:end],
    )  # fmt: skip
    nearest = n
    if q < last:
        for place in range(params.first_supplier[q], params.first_supplier[q + 1]):
            i = params.suppliers[place]
            if waiting_kernel(obs, i) > 0 and (nearest == n or params.costs[i, j] < params.costs[nearest, j]):
                nearest = i
    if nearest < n and params.costs[nearest, j] > params.reach[params.first_reach[cell] + state * (last - first) + q - first]:
        return n
    return nearest


@dataclass(frozen=True)
class Plan:
    """A cell and the solution that is followed in it; queues in the order of `solution["short"]`, then the long ones."""

    cell: Cell
    solution: dict[str, Any]
    contentious: NDArray[np.bool_]  # (groups,)

    @property
    def order(self) -> list[int]:
        """The cell's queues, short ones first."""
        short = list(self.solution["short"])
        return short + [q for q in range(len(self.cell.queues)) if q not in short]

    @property
    def n_short(self) -> int:
        return len(self.solution["short"])

    @property
    def has_buffers(self) -> bool:
        return bool((self.contentious & (self.solution["y"].sum(0) > 0)).any())

    @property
    def throughput(self) -> float:
        return float(self.solution["match_rates"].sum())

    @property
    def cost(self) -> float:
        return float((self.cell.network.costs * self.solution["match_rates"]).sum())


@dataclass(frozen=True)
class CellsValue:
    """The exact value of a policy that treats cells apart: `mean` within `error`."""

    mean: float
    error: float
    match_rates: NDArray[np.float64]  # (n, m)


@compiled(__file__, cells_kernel, empty_buffers_kernel)
class EuclideanCells(MatchingPolicy):
    """The paper's algorithm: a randomly shifted grid, the Network LP and Priority Rounding within each cell.

    Parameters
    ----------
    side : of the cells; by default the best of the `SIDES`, compared exactly where their chains are small, else by simulation.
    inner : side of the inner grid, 0 for none; by default in each cell the finest that keeps its network exactly solvable.
    shifts : random shifts that are tried; the one of largest theta tau - c by the programmes is kept.
    allocation : "price" (every cell at theta) or "target" (by the min-knapsack programme on `throughput_target`; if matches
        within cells cannot attain that, on the largest throughput that they can).
    costs : "nearest", "mean" or "snapped" (as printed): of merged suppliers, see `matchgym.baselines.cell_grid.merged`.
    eps : of Algorithm 1 and of the menu of throughputs, in (0, 1).
    variant : of Algorithm 1, "printed" or "simplified".
    seed : of the shifts.

    `grid_` is the grid, `plans_` has the cells with their solutions, `planned_` (throughput, cost) what the programmes promise,
    which with merged suppliers is not exact, and `theory_` the sides that the paper's proofs ask for, given that.
    """

    model: ClassVar[Model] = MODEL
    env_id: ClassVar[str] = "EuclideanMatching-v0"
    Params: ClassVar[type] = CellsParams
    Memory: ClassVar[type] = CellsMemory
    params_: CellsParams
    grid_: Grid
    plans_: list[Plan]
    instance: EuclideanMatchingInstance  # type: ignore[assignment]

    def __init__(
        self,
        side: float | None = None,
        inner: float | None = None,
        shifts: int = 4,
        allocation: str = "price",
        costs: str = "nearest",
        eps: float = 0.1,
        variant: str = "printed",
        seed: int = 0,
    ) -> None:
        if side is not None and not 1e-3 <= side <= 1e3:
            raise InputError(f"side must lie in [0.001, 1000], not {side:g}.")
        if inner is not None and inner != 0 and not 1e-6 <= inner <= 1e3:
            raise InputError(f"inner must be 0 or lie in [0.000001, 1000], not {inner:g}.")
        if not 1 <= shifts <= 1000:
            raise InputError(f"shifts must lie in [1, 1000], not {shifts}.")
        if not 0 < eps < 1:
            raise InputError(f"eps must lie in (0, 1), not {eps:g}.")
        if seed < 0:
            raise InputError(f"seed must be >= 0, not {seed}.")
        for name, value, known in (
            ("allocation", allocation, ALLOCATIONS),
            ("costs", costs, MERGINGS),
            ("variant", variant, VARIANTS),
        ):
            if value not in known:
                raise InputError(f"{name} must be {' or '.join(known)}, not {shorten(value)}.")
        self.side, self.inner, self.shifts, self.allocation = side, inner, shifts, allocation
        self.costs, self.eps, self.variant, self.seed = costs, eps, variant, seed

    def _prepare(self) -> None:
        if self.side is None:
            rest = self.inner, self.shifts, self.allocation, self.costs, self.eps, self.variant, self.seed
            best = best_of([type(self)(side, *rest).fit(self.instance) for side in SIDES], self.env_id)
            self.grid_, self.plans_ = best.grid_, best.plans_
        else:
            solved: dict[bytes, CellProgramme] = {}
            tried = [(grid, self._plans(grid, solved)) for grid in self._grids()]
            self.grid_, self.plans_ = max(tried, key=lambda each: self._worth(each[1]))
        self.planned_ = sum(plan.throughput for plan in self.plans_), sum(plan.cost for plan in self.plans_)
        self.theory_ = theory(self.instance.dimension, self.eps, *self.planned_)
        self.params_ = tables(self.instance, self.plans_, self.eps, self.variant)

    def _grids(self) -> Iterator[Grid]:
        assert self.side is not None
        rng, dimension = np.random.default_rng(self.seed), self.instance.dimension
        for _ in range(self.shifts if self.side < 1 else 1):
            yield Grid(self.instance, self.side, rng.uniform(0.0, self.side, dimension))

    def _worth(self, plans: list[Plan]) -> float:
        return sum(self.instance.price * plan.throughput - plan.cost for plan in plans)

    def _plans(self, grid: Grid, solved: dict[bytes, CellProgramme]) -> list[Plan]:
        """The cells of a grid with their solutions; `solved` keeps programmes, which equal cells share."""
        cells = grid.cells(self.inner, self.costs)
        keys = [cell.network.to_json().encode() for cell in cells]
        for key, cell in zip(keys, cells):
            if key not in solved:
                solved[key] = CellProgramme(cell.network, self.inner is None)
        if self.allocation == "price":
            answers = {key: solved[key].at_price() for key in dict.fromkeys(keys)}
        else:
            kinds = list(dict.fromkeys(keys))
            targets = self._targets([solved[key] for key in kinds], [keys.count(key) for key in kinds])
            answers = {key: solved[key].at_target(target) for key, target in zip(kinds, targets)}
        plans = []
        for key, cell in zip(keys, cells):
            solution = answers[key]
            share = ((1.0 - solution["q"][:, :, -1]) * solution["p"]).sum(1)
            plans.append(Plan(cell, solution, share >= self.eps))
        return plans

    def _targets(self, programmes: list[CellProgramme], multiplicities: list[int]) -> list[float]:
        """t_u of each kind of cell, from the menu D and the largest throughput of the kind."""
        largest = [programme.largest for programme in programmes]
        target = min(self.instance.throughput_target, float(np.dot(largest, multiplicities)) * (1 - 1e-9))
        if target <= 0:
            return [0.0] * len(programmes)
        menu = throughput_menu(target, sum(multiplicities), self.eps)
        menus = [np.r_[menu[menu < most], most] for most in largest]
        return share_out(programmes, multiplicities, target, menus).tolist()

    def memory(self, batch: int) -> CellsMemory:
        places, queues = len(self.params_.long_choice), len(self.params_.cap)
        return CellsMemory(np.zeros((batch, 4), np.uint64), *(np.zeros((batch, k), np.int64) for k in (places, queues)))

    def probabilities(
        self, observation: NDArray[np.float32], action_masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """The law of the action; InputError if some type has virtual buffers, which are memory."""
        if any(plan.has_buffers for plan in self.plans_):
            raise InputError("EuclideanCells decides by its buffers too; it has no law given the observation alone.")
        queues, customers = self._split(np.atleast_2d(observation))
        law = np.zeros((len(queues), queues.shape[1] + 1))
        cells = self.params_.cell[customers]
        for c, plan in enumerate(self.plans_):
            for k in np.flatnonzero(cells == c):
                own = plan.cell.suppliers
                law[k, own] = self._cell_law(plan, queues[k : k + 1, own], int(customers[k]))[0]
        law[:, -1] = 1.0 - law.sum(1)
        return law

    def _cell_law(self, plan: Plan, queues: NDArray[np.float64], j: int) -> NDArray[np.float64]:
        """Pr[customer j takes each of the cell's suppliers] (B, k) given their queues (B, k), without buffers."""
        cell, solution = plan.cell, plan.solution
        group = next(g for g, members in enumerate(cell.groups) if j in members)
        ends = np.cumsum([0, *map(len, cell.queues)])
        totals = np.add.reduceat(queues, ends[:-1], axis=1)
        state = np.zeros(len(queues), np.int64)
        for q, cap in zip(solution["short"], solution["caps"]):
            state = state * (cap + 1) + np.minimum(totals[:, q], cap).astype(np.int64)
        chosen = np.zeros(totals.shape)
        short = solution["q"][group][state]
        chosen[:, list(solution["short"])] = short[:, :-1]
        chosen += short[:, -1:] * (1 - self.eps) * solution["y"][:, group] * (totals > 0)
        law, costs = np.zeros(queues.shape), self.instance.costs[cell.suppliers, j]
        for q in range(len(cell.queues)):
            part = slice(ends[q], ends[q + 1])
            nearest = np.where(queues[:, part] > 0, costs[part], np.inf).argmin(1)
            taken = (totals[:, q] > 0) & (costs[ends[q] + nearest] <= solution["reach"][state, q])
            law[np.arange(len(queues)), ends[q] + nearest] = chosen[:, q] * taken
        return law

    def own_value(self, max_states: int | None) -> CellsValue:
        """Cell by cell, for cells do not meet.

        The chain of a cell has the queues of its suppliers; or, if it has long queues and no merged ones, it is that of
        Priority Rounding. Raises InputError for a cell with neither, or with too many states.
        """
        rates = np.zeros(self.instance.costs.shape)
        error = 0.0
        for plan in self.plans_:
            own = self._chain(plan, max_states) if not plan.has_buffers else self._rounding(plan, max_states)
            rates[own[0]] = own[1]
            error += own[2]
        return CellsValue(float((self.instance.rewards * rates).sum()), error, rates)

    def _rounding(self, plan: Plan, max_states: int | None) -> tuple[Any, NDArray[np.float64], float]:
        """Places and match rates of a cell without merged suppliers, with buffers; error of the reward."""
        cell, network = plan.cell, plan.cell.network
        if cell.is_merged:
            raise InputError(
                f"an exact value of EuclideanCells on {self.instance.name!r} needs inner=0: one of its cells has both virtual "
                "buffers and merged suppliers."
            )
        rounding = Rounding.of(network, plan.solution, self.eps, self.variant == "simplified", plan.contentious)
        found = rounded_value(rounding, MAX_STATES if max_states is None else max_states)
        customers = np.concatenate(cell.groups)
        group = np.repeat(np.arange(len(cell.groups)), [len(members) for members in cell.groups])
        share = self.instance.customer_rates[customers] / network.customer_rates[group]
        return np.ix_(cell.suppliers, customers), found.match_rates[:, group] * share, found.error

    def _chain(self, plan: Plan, max_states: int | None) -> tuple[Any, NDArray[np.float64], float]:
        """The same from the chain of a cell's suppliers."""
        own, customers = plan.cell.suppliers, np.concatenate(plan.cell.groups)
        place, instance = np.ix_(own, customers), self.instance
        market = Market(
            instance.name,
            instance.supplier_rates[own],
            instance.departure_rates[own],
            instance.customer_rates[customers],
            instance.rewards[place],
        )

        def law_of(box: Box) -> NDArray[np.float64]:
            return np.array([self._cell_law(plan, box.queues.T.astype(float), int(j)).T for j in customers])

        value = chain_value(market, law_of, type(self).__name__, max_states)
        return place, value.match_rates, value.error


def theory(dimension: int, eps: float, throughput: float, cost: float) -> dict[str, float]:
    """The sides of the paper's proofs: 16 d c / (eps^2 tau) of the cells, c eps / (4 tau sqrt d) of the inner grid."""
    each = cost / throughput if throughput > 0 else 0.0
    return {"side": 16 * dimension * each / eps**2, "inner": each * eps / (4 * dimension**0.5)}


def tables(instance: EuclideanMatchingInstance, plans: list[Plan], eps: float, variant: str) -> CellsParams:
    """All cells, one after the other."""
    m = instance.n_customers
    cell, group = np.full(m, -1), np.zeros(m, np.int64)
    queues: list[NDArray] = []
    caps: list[int] = []
    n_queues, first_reach = [0], [0]
    n_short: list[int] = []
    first_short: list[int] = []
    first_long: list[int] = []
    contentious: list[int] = []
    reach, short, long, surplus = ([np.zeros(0)] for _ in range(4))
    for c, plan in enumerate(plans):
        order, solution, k = plan.order, plan.solution, plan.n_short
        queues += [plan.cell.queues[q] for q in order]
        caps += [*solution["caps"], *[0] * (len(order) - k)]
        n_queues.append(n_queues[-1] + len(order))
        n_short.append(k)
        reach.append(solution["reach"][:, order].ravel())
        first_reach.append(first_reach[-1] + len(reach[-1]))
        y = solution["y"][order[k:]]
        for g, members in enumerate(plan.cell.groups):
            cell[members], group[members] = c, len(first_short)
            first_short.append(len(short[-1]) + (first_short[-1] if first_short else 0))
            first_long.append(len(long[-1]) + (first_long[-1] if first_long else 0))
            short.append(rounded_up(solution["q"][g][:, :-1].cumsum(1)).ravel())
            long.append(((1 - eps) * y[:, g]).cumsum())
            total = float(y[:, g].sum())
            surplus.append(rounded_up((y[:, g] / (total if total > 0 else 1.0)).cumsum()))
            contentious.append(int(plan.contentious[g]))
    return CellsParams(
        cell=cell,
        group=group,
        first_queue=np.array(n_queues),
        n_short=np.array(n_short, np.int64),
        cap=np.array(caps, np.int64),
        first_supplier=np.cumsum([0, *map(len, queues)]),
        suppliers=np.concatenate(queues) if queues else np.zeros(0, np.int64),
        first_short=np.array(first_short, np.int64),
        short_choice=np.concatenate(short),
        first_long=np.array(first_long, np.int64),
        long_choice=np.concatenate(long),
        surplus_choice=np.concatenate(surplus),
        is_contentious=np.array(contentious, np.int64),
        is_simplified=int(variant == "simplified"),
        first_reach=np.array(first_reach[:-1], np.int64),
        reach=np.concatenate(reach),
        costs=instance.costs,
    )
