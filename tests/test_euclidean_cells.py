"""The policies of EuclideanMatching-v0: grids, cells, the sharing of a target, and exact values."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t as student
from test_euclidean_matching import ID, random_map

from matchgym.baselines import evaluate
from matchgym.baselines.cell_grid import CellProgramme, Grid, average_cost, merged, nearest_cost, share_out, throughput_menu
from matchgym.baselines.euclidean_cells import EuclideanCells, theory
from matchgym.baselines.euclidean_matching import POLICIES, exact_value, shared_levels
from matchgym.baselines.matching_queues import POLICIES as NETWORK_POLICIES
from matchgym.baselines.priority_rounding import PriorityRounding
from matchgym.bounds import matching_queues
from matchgym.bounds.euclidean_matching import bound
from matchgym.bounds.pareto import hull
from matchgym.envs.euclidean_matching import MODEL, EuclideanMatchingInstance
from matchgym.envs.instance import InputError
from matchgym.envs.single_queue import Rest

LEVEL = 4.0  # standard errors: a false alarm in 16,000
REPLICATIONS = 16  # a t law of 15 degrees of freedom exceeds 4 in one of 860: seeds are fixed


def agrees(interval, exact):
    """Whether an exact value lies within LEVEL standard errors of a simulated mean with a 95 % t interval."""
    error = (interval.high - interval.mean) / student.ppf(0.975, REPLICATIONS - 1)
    return abs(interval.mean - exact) <= LEVEL * error + 1e-12


SNAPPED = {"side": 0.6, "inner": 0.3, "costs": "snapped"}

# Grids and cells.


@pytest.mark.parametrize("side", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_crossing_frequency(side, d):
    """A match is cut with probability 1 - prod_k (1 - Delta_k / side)^+, at most sum_k Delta_k / side."""
    instance, rng = random_map(d, 3, 3, d), np.random.default_rng(17)
    shifts = 4000
    cut = np.zeros((3, 3))
    for _ in range(shifts):
        grid = Grid(instance, side, rng.uniform(0, side, d))
        a, b = grid.numbers(instance.supplier_locations), grid.numbers(instance.customer_locations)
        cut += (a[:, None] != b[None]).any(2)
    delta = np.abs(instance.supplier_locations[:, None] - instance.customer_locations[None])
    exact = 1 - (1 - delta / side).clip(0).prod(2)
    assert (exact <= delta.sum(2) / side + 1e-12).all()
    assert (np.abs(cut / shifts - exact) <= LEVEL * np.sqrt(exact * (1 - exact) / shifts) + 1e-12).all()


def test_cells_hold_everybody_once_and_agree_with_their_squares():
    instance = random_map(3, 30, 30)
    grid = Grid(instance, 0.25, np.array([0.1, 0.03]))
    own, theirs = grid.numbers(instance.supplier_locations), grid.numbers(instance.customer_locations)
    for inner, merging in ((None, "mean"), (0.0, "mean"), (0.1, "snapped")):
        cells = grid.cells(inner, merging)
        suppliers = np.concatenate([cell.suppliers for cell in cells])
        customers = np.concatenate([np.concatenate(cell.groups) for cell in cells])
        assert len(set(suppliers.tolist())) == len(suppliers)
        assert len(set(customers.tolist())) == len(customers)
        for i in range(30):
            assert (i in suppliers) == (own[i] == theirs).all(1).any()
        for cell in cells:
            assert (own[cell.suppliers] == own[cell.suppliers[0]]).all()
            assert (theirs[np.concatenate(cell.groups)] == own[cell.suppliers[0]]).all()
            assert cell.network.supplier_rates.sum() == pytest.approx(instance.supplier_rates[cell.suppliers].sum())
    assert len(Grid(instance, 1.0, np.zeros(2)).cells(0.0, "mean")) == 1


@pytest.mark.parametrize("merging", ["nearest", "mean", "snapped"])
@pytest.mark.parametrize("inner", [0.0, 0.05, 0.3, 1.0])
def test_merged_costs_lie_within_the_displacement(merging, inner):
    """Each end moves by at most inner sqrt(d) / 2, so that a cost changes by at most inner sqrt(d)."""
    everyone = np.arange(12)
    for d in (1, 2, 3):
        instance = random_map(d, 12, 12, d)
        with_corner = np.vstack([instance.supplier_locations[:-1], np.ones((1, d))])
        instance = dataclasses.replace(instance, supplier_locations=with_corner)
        cell = merged(instance, everyone, everyone, np.zeros(d), 1.0, inner, merging)
        for q, queue in enumerate(cell.queues):
            for g, group in enumerate(cell.groups):
                moved = np.abs(instance.costs[np.ix_(queue, group)] - cell.network.costs[q, g]).max()
                assert moved <= inner * d**0.5 + 1e-12
        assert cell.is_merged or inner < 1
        assert not cell.is_merged or inner > 0
        assert inner < 1 or len(cell.queues) == 1


def test_cost_of_the_nearest_who_waits():
    """Summed over all sets of suppliers who wait, given that one does; and between the nearest of all and the mean."""
    rng = np.random.default_rng(3)
    offered, distance = rng.uniform(0.2, 1.5, 4), rng.uniform(size=(4, 3))
    waiting = np.array([[bool(k >> i & 1) for i in range(4)] for k in range(1, 16)])
    chances = np.where(waiting, 1 - np.exp(-offered), np.exp(-offered)).prod(1)
    nearest = np.where(waiting[:, :, None], distance, np.inf).min(1)
    assert nearest_cost(offered, distance) == pytest.approx(chances @ nearest / chances.sum(), rel=1e-12)
    assert nearest_cost(1e-9 * offered, distance) == pytest.approx(average_cost(offered, distance), rel=1e-6)
    assert nearest_cost(1e3 * offered, distance) == pytest.approx(distance.min(0), rel=1e-12)


def test_different_abandonment_rates_are_not_merged():
    instance = dataclasses.replace(random_map(2, 4, 3), abandonment_rate=np.array([1.0, 2.0, 1.0, 2.0]))
    cell = merged(instance, np.arange(4), np.arange(3), np.zeros(2), 1.0, 1.0, "mean")
    assert sorted(queue.tolist() for queue in cell.queues) == [[0, 2], [1, 3]]


def test_theory_of_the_paper():
    """Sides of Appendix 8, with the inner side that makes the cost change at most eps c / tau per match (both ends move)."""
    found = theory(2, 0.5, 4.0, 0.4)
    assert found["side"] == pytest.approx(16 * 2 * 0.1 / 0.25)
    assert found["inner"] == pytest.approx(0.1 * 0.5 / (4 * 2**0.5))
    assert found["inner"] * 2**0.5 <= 0.5 * 0.1


# The sharing of a target among cells.


def clusters(seed=0, twins=False):
    """Three cells of a grid of side 0.5 with two customers each and one or two suppliers; or the same cell twice."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0.0, 0.0], [0.5, 0.5]] if twins else [[0.0, 0.0], [0.5, 0.5], [0.0, 0.5]])
    counts = [1, 1] if twins else [1, 2, 1]
    # Multiples of 1/64 are exact, so that translates have the same distances to the last bit.
    local = [rng.integers(4, 28, (4, 2)) / 64 for _ in counts]
    rates = rng.uniform(0.5, 2.0, (len(counts), 4)).round(3)
    if twins:
        local, rates = [local[0]] * 2, np.tile(rates[:1], (2, 1))
    return EuclideanMatchingInstance(
        name="clusters",
        supplier_rates=np.concatenate([row[:k] for row, k in zip(rates, counts)]),
        abandonment_rate=1.0,
        customer_rates=np.concatenate([row[2:] for row in rates]),
        supplier_locations=np.concatenate([c + points[:k] for c, points, k in zip(corners, local, counts)]),
        customer_locations=np.concatenate([c + points[2:] for c, points in zip(corners, local)]),
        throughput_target=1.0,
        throughput_price=0.2,
    )


def programmes_of(instance):
    return [CellProgramme(cell.network, True) for cell in Grid(instance, 0.5, np.zeros(2)).cells(None, "mean")]


def vertices_of(programme):
    """The vertices (throughput, cost) of phi(C, .)."""
    block, costs = programme.blocks[0], programme.network.costs
    most = block.best(np.ones(costs.shape))
    return [(point.throughput, point.cost) for point in hull(lambda price: block.best(price - costs), Rest(), most)]


@pytest.mark.parametrize("seed", range(2))
def test_knapsack_is_the_equal_price_allocation(seed):
    """min sum phi_C(t_C) = max over theta of theta tau - sum_C max_t (theta t - phi_C(t)), attained at a slope of some phi."""
    programmes = programmes_of(clusters(seed))
    assert len(programmes) == 3
    curves = [vertices_of(programme) for programme in programmes]
    menus = [np.array([t for t, _ in curve]) for curve in curves]
    slopes = sorted({(b[1] - a[1]) / (b[0] - a[0]) for curve in curves for a, b in pairwise(curve)})
    most = sum(curve[-1][0] for curve in curves)
    for share in (0.2, 0.6, 0.9):
        target = share * most
        dual = max(theta * target - sum(max(theta * t - c for t, c in curve) for curve in curves) for theta in slopes)
        targets = share_out(programmes, [1, 1, 1], target, menus)
        assert targets.sum() >= target * (1 - 1e-9)
        assert sum(programme.cost(t) for programme, t in zip(programmes, targets)) == pytest.approx(dual, rel=1e-7)
    # At a price between two slopes, every cell has one best throughput; the programme at their sum finds the same ones.
    for k in (len(slopes) // 3, 2 * len(slopes) // 3):
        theta = (slopes[k] + slopes[k + 1]) / 2
        best = [max(curve, key=lambda point: theta * point[0] - point[1])[0] for curve in curves]
        assert share_out(programmes, [1, 1, 1], sum(best), menus) == pytest.approx(np.array(best), abs=1e-6)
        for programme, throughput in zip(programmes, best):
            priced = dataclasses.replace(programme.network, throughput_price=float(theta))
            assert CellProgramme(priced, True).at_price()["match_rates"].sum() == pytest.approx(throughput, abs=1e-9)


def test_menu_of_the_paper_costs_no_more_at_a_slightly_smaller_target():
    """Rounding shares down to D loses a factor 1 + eps, and eps / 2 of the target below its least entry."""
    programmes = programmes_of(clusters(1))
    curves = [vertices_of(programme) for programme in programmes]
    target, eps = 0.7 * sum(curve[-1][0] for curve in curves), 0.1
    exact = share_out(programmes, [1] * 3, target, [np.array([t for t, _ in curve]) for curve in curves])
    cost = sum(programme.cost(t) for programme, t in zip(programmes, exact))
    menu = throughput_menu(target, 3, eps)
    assert menu[1] == pytest.approx(eps * target / 6)
    assert menu[-1] >= target
    menus = [menu[menu < programme.largest] for programme in programmes]
    found = share_out(programmes, [1] * 3, (1 - 1.5 * eps) * target, menus)
    assert sum(programme.cost(t) for programme, t in zip(programmes, found)) <= cost * (1 + 1e-9)


def test_identical_cells_are_solved_once():
    """Two translates of a cell are one kind with r = 2: the same cost as two kinds; the policy solves one programme."""
    instance = clusters(twins=True)
    policy = EuclideanCells(side=0.5, shifts=1)
    policy.instance = instance
    solved = {}
    plans = policy._plans(Grid(instance, 0.5, np.zeros(2)), solved)
    assert (len(plans), len(solved)) == (2, 1)
    programmes = programmes_of(instance)
    menu = [np.linspace(0, programmes[0].largest, 20)]
    together = share_out(programmes[:1], [2], programmes[0].largest * 1.3, menu)
    apart = share_out(programmes, [1, 1], programmes[0].largest * 1.3, menu * 2)
    cost = programmes[0].cost
    assert 2 * cost(together[0]) == pytest.approx(cost(apart[0]) + cost(apart[1]), rel=1e-2)
    assert 2 * cost(together[0]) <= (cost(apart[0]) + cost(apart[1])) * (1 + 1e-9)


# The policy.


def test_one_cell_at_a_price_is_optimal():
    """One cell, nobody merged, all queues short: the optimum of theta tau - c."""
    for seed in range(3):
        instance = random_map(seed, 2, 3)
        policy = EuclideanCells(side=1.0, inner=0.0).fit(instance)
        best = bound(instance).value
        assert exact_value(policy).mean == pytest.approx(best, abs=1e-6)
        assert policy.planned_[0] * instance.price - policy.planned_[1] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("variant", ["printed", "simplified"])
def test_one_cell_at_the_target_is_priority_rounding(variant, monkeypatch):
    """With a short and a long queue and contentious types, the network solver and the cell's agree in all match rates; and the
    cell's kernel agrees with them in a simulation."""
    monkeypatch.setattr(matching_queues, "SHORT_STATES", 20)
    instance = dataclasses.replace(
        random_map(4, 2, 2, price=1.0, target=4.5),
        supplier_rates=np.array([1.0, 8.0]),
        customer_rates=np.array([2.0, 3.0]),
    )
    policy = EuclideanCells(side=1.0, inner=0.0, allocation="target", variant=variant).fit(instance)
    whole = PriorityRounding(variant=variant).fit(instance.network)
    assert policy.plans_[0].has_buffers
    assert policy.plans_[0].solution["short"] == whole.solution_["short"]
    own, network = exact_value(policy), exact_value(whole)
    assert own.match_rates == pytest.approx(network.match_rates, abs=1e-7)
    assert own.mean == pytest.approx(network.mean, abs=1e-7)
    found = evaluate(policy, ID, replications=REPLICATIONS, warmup=1000, decisions=20_000)
    assert agrees(found.objective, own.mean)
    assert agrees(found.rates["throughput"], own.match_rates.sum())
    with pytest.raises(InputError, match="buffers"):
        policy.predict(np.eye(4, dtype=np.float32)[2:], deterministic=True)


def test_merged_suppliers_against_their_chain():
    """The nearest who waits: the exact chain of three suppliers in fewer queues, and the kernel in a simulation."""
    instance = random_map(8, 3, 4, price=0.7)
    for arguments in (
        {"side": 1.0, "inner": 0.5},
        {"side": 1.0, "inner": 1.0, "costs": "mean"},
        {"side": 0.6, "inner": 0.3, "costs": "snapped"},
        {"side": 0.5},
    ):
        policy = EuclideanCells(**arguments).fit(instance)
        own = exact_value(policy)
        found = evaluate(policy, ID, replications=REPLICATIONS, warmup=500, decisions=20_000)
        assert agrees(found.objective, own.mean)
        assert agrees(found.rates["cost_rate"], instance.measures(own.match_rates)["cost_rate"])
        assert own.mean <= bound(instance).certified_value + 1e-9


def test_merging_keeps_the_throughput():
    """A queue of merged suppliers is one birth-death process: the programme's throughput is the chain's."""
    policy = EuclideanCells(side=1.0, inner=1.0, allocation="target").fit(random_map(8, 3, 4))
    assert len(policy.plans_[0].cell.queues) == 1
    assert exact_value(policy).match_rates.sum() == pytest.approx(policy.planned_[0], abs=1e-6)


def test_nobody_is_matched_across_cells():
    instance = random_map(11, 20, 20)
    policy = EuclideanCells(side=0.4, shifts=3).fit(instance)
    own = policy.grid_.numbers(instance.supplier_locations)
    theirs = policy.grid_.numbers(instance.customer_locations)
    rng = np.random.default_rng(0)
    obs = np.zeros((4000, 40), np.float32)
    obs[:, :20] = rng.poisson(1.0, (4000, 20))
    customers = rng.integers(20, size=4000)
    obs[np.arange(4000), 20 + customers] = 1
    actions, _ = policy.predict(obs)
    matched = actions < 20
    assert matched.sum() > 500
    assert (obs[matched, actions[matched]] > 0).all()
    assert (own[actions[matched]] == theirs[customers[matched]]).all()
    law = policy.probabilities(obs)
    assert (law[np.arange(4000), actions] > 0).all()
    assert law.sum(1) == pytest.approx(np.ones(4000))


def test_target_is_met_by_the_plan():
    """The shares of a target add up to it where cells can attain it, else to the most that they can."""
    instance = random_map(12, 4, 6, target=0.8)
    policy = EuclideanCells(side=0.5, allocation="target", shifts=2).fit(instance)
    assert policy.planned_[0] == pytest.approx(0.8, abs=1e-6)
    most = EuclideanCells(side=0.5, allocation="target").fit(dataclasses.replace(instance, throughput_target=2.6))
    assert 0.8 < most.planned_[0] < 2.6
    none = EuclideanCells(side=0.5, allocation="target").fit(dataclasses.replace(instance, throughput_target=0.0))
    assert exact_value(none).match_rates.sum() == pytest.approx(0.0, abs=1e-9)


def test_cells_without_suppliers_or_customers():
    """Where nobody can be matched, nobody is."""
    ends = {"supplier_locations": np.array([[0.0, 0.0]]), "customer_locations": np.array([[1.0, 1.0]])}
    policy = EuclideanCells(side=0.3).fit(dataclasses.replace(random_map(1, 1, 1), **ends))
    assert policy.plans_ == []
    assert exact_value(policy).mean == 0.0
    assert evaluate(policy, ID, replications=2, decisions=100).objective.mean == 0.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"side": 0.0}, {"side": float("nan")}, {"inner": -1.0}, {"shifts": 0}, {"allocation": "both"}, {"costs": "exact"},
        {"eps": 1.0}, {"variant": "other"}, {"seed": -1},
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        EuclideanCells(**arguments)


# The simple rules.


def test_shared_levels():
    """By halving squares one by one; a point on the far side belongs to the last square."""
    rng = np.random.default_rng(0)
    points = np.vstack([rng.uniform(size=(20, 2)), [[1.0, 0.5]]])
    others = np.vstack([rng.uniform(size=(20, 2)), [[0.99, 0.5]]])
    found = shared_levels(points, others)

    def square(x, level):
        return np.minimum(np.floor(x * 2**level), 2**level - 1)

    for i, a in enumerate(points):
        for j, b in enumerate(others):
            level = 0
            while level < 40 and (square(a, level + 1) == square(b, level + 1)).all():
                level += 1
            assert found[i, j] == level
    assert (np.diagonal(shared_levels(points, points)) == 40).all()


def test_hierarchical_greedy_prefers_the_smaller_square_to_the_shorter_way():
    """A customer at 0.49: the supplier at 0.3 shares [0.25, 0.5), the one at 0.51 only [0, 1), though it is nearer."""
    instance = dataclasses.replace(
        random_map(0, 2, 1, 1), supplier_locations=np.array([[0.51], [0.3]]), customer_locations=np.array([[0.49]])
    )
    obs = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]], np.float32)
    assert POLICIES["hierarchical-greedy"]().fit(instance).predict(obs)[0].tolist() == [1, 0, 2]
    nearest = POLICIES["nearest-neighbour"]
    assert nearest().fit(instance).predict(obs)[0].tolist() == [0, 0, 2]
    assert nearest(0.1).fit(instance).predict(np.array([[1, 1, 1], [0, 1, 1]], np.float32))[0].tolist() == [0, 2]
    with pytest.raises(InputError, match="radius"):
        nearest(-1.0)


def test_dispatch_radius_is_the_best_radius():
    nearest = POLICIES["nearest-neighbour"]
    for seed in (0, 1):
        instance = random_map(seed, 2, 3)
        found = POLICIES["dispatch-radius"]().fit(instance)
        values = [exact_value(nearest(float(radius)).fit(instance)).mean for radius in np.unique(instance.costs)]
        assert exact_value(found).mean == pytest.approx(max(values), abs=1e-12)
    far = dataclasses.replace(random_map(0, 2, 3), throughput_price=1e-6)
    assert exact_value(POLICIES["dispatch-radius"]().fit(far)).mean == 0.0


def test_policies_of_any_network_are_those_of_the_network():
    instance = MODEL.load("corners")
    most = bound(instance)
    for name in ("greedy", "random", "static-threshold", "price-greedy", "nlp-static", "priority-rounding", "optimal"):
        own = exact_value(POLICIES[name]().fit(instance)).mean
        assert own == pytest.approx(exact_value(NETWORK_POLICIES[name]().fit(instance.network)).mean, abs=1e-12), name
        assert own <= most.certified_value + 1e-9
    assert exact_value(POLICIES["optimal"]().fit(instance)).mean == pytest.approx(most.value, abs=1e-7)
    everybody = exact_value(POLICIES["nearest-neighbour"]().fit(instance)).mean
    assert everybody == pytest.approx(exact_value(NETWORK_POLICIES["cheapest-first"]().fit(instance.network)).mean, abs=1e-12)
