"""Bounds of stationary matching against closed forms, brute force and exact chains (arXiv 2411.08218, Sections 2, B, C)."""

import dataclasses
import itertools
import math

import numpy as np
import pulp
import pytest
from cases import random_instance
from scipy import optimize

from matchgym.bounds import stationary_matching as bounds
from matchgym.bounds.subset_cuts import greedy_prefixes, worst_prefixes
from matchgym.envs.catalogues.stationary_matching import b1, b3, b5, b5eps
from matchgym.envs.instance import InputError
from matchgym.envs.stationary_matching import StationaryMatchingInstance

KINDS = list(bounds.FORMS)


def scaled(instance, **changes):
    return dataclasses.replace(instance, **changes)


def all_subsets_value(instance, kind):
    """The programme with every row of (2) written out, in the paper's own variables."""
    form = bounds.FORMS[kind]
    n, m = instance.rewards.shape
    lam, mu, gamma = instance.supplier_rates, instance.departure_rates, instance.customer_rates
    problem = pulp.LpProblem("all", pulp.LpMaximize)
    x = [[problem.add_variable(f"x{i}_{j}", 0) for j in range(m)] for i in range(n)]
    leave = [problem.add_variable(f"a{i}", 0) for i in range(n)]
    problem += pulp.lpSum(instance.rewards[i, j] * x[i][j] for i in range(n) for j in range(m))
    for i in range(n):
        problem += leave[i] + pulp.lpSum(x[i]) == lam[i]
        for j in range(m):
            if form.pasta:
                problem += x[i][j] * (1 / gamma[j]) <= leave[i] * (1 / mu[i])
    for j in range(m):
        if form.flow:
            problem += pulp.lpSum(x[i][j] for i in range(n)) <= gamma[j]
        for size in range(1, n + 1):
            if form.subsets or (form.singletons and size == 1):
                for subset in itertools.combinations(range(n), size):
                    right = -math.expm1(-sum(lam[i] / mu[i] for i in subset))
                    problem += pulp.lpSum(x[i][j] for i in subset) <= gamma[j] * right
    problem.solve(pulp.HiGHS(msg=False))
    return pulp.value(problem.objective)


# Linear programmes.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_cutting_planes_solve_the_full_programme(kind, seed):
    instance = random_instance(seed, n=2 + seed, m=3)
    found = bounds.bound(instance, kind)
    reference = all_subsets_value(instance, kind)
    assert found.value == pytest.approx(reference, rel=1e-7)
    assert found.verify() == found.certified_value
    assert found.certified_value == pytest.approx(found.value, rel=1e-9)
    assert found.certified_value >= found.value * (1 - 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_solution_is_feasible_and_certifies_the_gap(kind, seed):
    instance, form = random_instance(seed, n=6, m=4), bounds.FORMS[kind]
    found = bounds.bound(instance, kind)
    x, leave = found.solution["x"], found.solution["abandonment"]
    y, waiting = x / instance.customer_rates, leave / instance.departure_rates
    assert (x >= 0).all()
    assert np.allclose(leave + x.sum(1), instance.supplier_rates, rtol=1e-12)
    assert (leave >= -1e-12).all()
    if form.pasta:
        assert (y <= waiting[:, None] * (1 + 1e-9) + 1e-12).all()
    for size in range(1, 7):
        for subset in itertools.combinations(range(6), size):
            right = -np.expm1(-instance.offered[list(subset)].sum())
            if form.subsets:
                assert (y[list(subset)].sum(0) <= right * (1 + 1e-12)).all()
    value = (instance.rewards * x).sum()
    assert value <= found.certified_value
    assert found.certified_value - value <= 1e-8 * found.value
    assert (x[instance.rewards == 0] == 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_order_of_the_programmes(seed):
    instance = random_instance(seed)
    value = {kind: bounds.bound(instance, kind).value for kind in KINDS}
    slack = 1 + 1e-9
    assert value["tlp-online"] <= value["flow-singleton"] * slack
    assert value["flow-singleton"] <= min(value["flow"], value["singleton"]) * slack
    assert max(value["flow"], value["singleton"]) <= value["fluid"] * slack
    assert value["tlp-online"] <= value["tlp-offline"] * slack


@pytest.mark.parametrize("n", [2, 4, 10, 100])
def test_example_b1(n):
    instance = b1(n)
    tlp = -math.expm1(-1) / n**2
    assert bounds.bound(instance, "tlp-online").certified_value == pytest.approx(tlp, rel=1e-9)
    assert bounds.bound(instance, "tlp-offline").certified_value == pytest.approx(tlp, rel=1e-9)
    for kind in ("fluid", "flow"):
        assert bounds.bound(instance, kind).certified_value == pytest.approx(1 / (n**2 + 1), rel=1e-9)
    both = min(1 / (n**2 + 1), -math.expm1(-1 / n) / n)
    assert bounds.bound(instance, "flow-singleton").certified_value == pytest.approx(both, rel=1e-9)


@pytest.mark.parametrize("n", [2, 4, 25, 100])
def test_example_b3(n):
    tlp = (math.sqrt(n) - 1) * -math.expm1(-math.sqrt(n))
    for kind in ("tlp-online", "tlp-offline"):
        assert bounds.bound(b3(n), kind).certified_value == pytest.approx(tlp, rel=1e-9)
    for kind in ("fluid", "flow", "singleton", "flow-singleton"):
        assert bounds.bound(b3(n), kind).certified_value == pytest.approx(math.sqrt(n) - 1, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_example_b5(n):
    for kind in ("tlp-online", "tlp-offline"):
        assert bounds.bound(b5(n), kind).certified_value == pytest.approx(-math.expm1(-n), rel=1e-9)
    for kind in ("flow", "flow-singleton"):
        assert bounds.bound(b5(n), kind).certified_value == pytest.approx(1.0, rel=1e-9)
    for kind in ("fluid", "singleton"):
        assert bounds.bound(b5(n), kind).certified_value == pytest.approx(n / 2, rel=1e-9)
    c, e = -math.expm1(-n) / n, 0.01
    found = bounds.bound(b5eps(n, e), "tlp-online")
    assert found.certified_value == pytest.approx(c * n + e * (n - 2 * c * n), rel=1e-9)
    x = found.solution["x"]
    assert x[:, n].sum() == pytest.approx(c * n)  # suppliers beyond what the valuable customer needs are wasted
    assert np.trace(x[:, :n]) == pytest.approx(n - 2 * c * n)


@pytest.mark.parametrize("kind", KINDS)
def test_invariances(kind):
    instance = random_instance(3, n=3, m=3)
    value = bounds.bound(instance, kind).certified_value
    rates = {name: 7.0 * getattr(instance, name) for name in ("supplier_rates", "departure_rates", "customer_rates")}
    assert bounds.bound(scaled(instance, **rates), kind).certified_value == pytest.approx(7 * value, rel=1e-9)
    assert bounds.bound(scaled(instance, rewards=1e4 * instance.rewards), kind).certified_value == pytest.approx(1e4 * value)
    order = [2, 0, 1]
    shuffled = scaled(
        instance,
        supplier_rates=instance.supplier_rates[order],
        departure_rates=instance.departure_rates[order],
        rewards=instance.rewards[order],
    )
    assert bounds.bound(shuffled, kind).certified_value == pytest.approx(value, rel=1e-9)
    split = StationaryMatchingInstance(
        supplier_rates=np.r_[instance.supplier_rates[0] * 0.3, instance.supplier_rates[0] * 0.7, instance.supplier_rates[1:]],
        departure_rates=np.r_[instance.departure_rates[0], instance.departure_rates],
        customer_rates=instance.customer_rates,
        rewards=np.vstack([instance.rewards[:1], instance.rewards]),
    )
    if kind in ("tlp-online", "tlp-offline"):
        assert bounds.bound(split, kind).certified_value == pytest.approx(value, rel=1e-8)
    worthless = StationaryMatchingInstance(
        supplier_rates=np.r_[instance.supplier_rates, 1.0],
        departure_rates=np.r_[instance.departure_rates, 1.0],
        customer_rates=np.r_[instance.customer_rates, 1.0],
        rewards=np.pad(instance.rewards, ((0, 1), (0, 1))),
    )
    assert bounds.bound(worthless, kind).certified_value == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", ["supplier_rates", "customer_rates", "departure_rates"])
def test_rate_monotonicity(name):
    for seed in range(5):
        instance = random_instance(seed)
        factor = 0.8 if name == "departure_rates" else 1.25
        richer = scaled(instance, **{name: factor * getattr(instance, name)})
        for kind in ("tlp-online", "tlp-offline", "optimum"):
            assert bounds.bound(richer, kind).certified_value >= bounds.bound(instance, kind).value * (1 - 1e-8)


@pytest.mark.parametrize("seed", range(12))
def test_extreme_rates_keep_the_gap(seed):
    """Offered loads from 1e-3 to 50 and rates over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 8)), int(rng.integers(1, 8))
    departures = 10 ** rng.uniform(-3, 3, n)
    instance = StationaryMatchingInstance(
        supplier_rates=departures * 10 ** rng.uniform(-3, math.log10(50), n),
        departure_rates=departures,
        customer_rates=10 ** rng.uniform(-3, 3, m),
        rewards=rng.uniform(0, 1, (n, m)),
    )
    for kind in KINDS:
        found = bounds.bound(instance, kind)
        value = (instance.rewards * found.solution["x"]).sum()
        assert value <= found.certified_value * (1 + 1e-14)  # a sum of floats, exact to rounding
        if kind in ("tlp-online", "tlp-offline"):
            assert found.certified_value - value <= 1e-7 * found.certified_value


def test_nothing_to_earn():
    instance = scaled(random_instance(1, n=2, m=2), rewards=np.zeros((2, 2)))
    for kind in bounds.KINDS:
        assert bounds.bound(instance, kind).certified_value == 0.0


def test_separation_finds_the_worst_set():
    """Prefixes by y / rho contain the most violated set and the set of worst ratio (Appendix C.2)."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 8))
        offered, y = rng.uniform(0.05, 3, n), rng.uniform(0, 0.6, n) * (rng.uniform(size=n) < 0.8)
        if rng.uniform() < 0.3:
            y = offered * 0.2  # ties
        subsets = [list(s) for size in range(1, n + 1) for s in itertools.combinations(range(n), size)]
        slacks = [-np.expm1(-offered[s].sum()) - y[s].sum() for s in subsets]
        ratios = [y[s].sum() / -np.expm1(-offered[s].sum()) for s in subsets]
        found = worst_prefixes(y[:, None], offered)
        slack = found.slack[:, 0] * -np.expm1(-offered[found.order[:, 0]].cumsum())
        assert found.ratio[0] == pytest.approx(max(ratios), rel=1e-12)
        if min(slacks) < 0:
            assert slack.min() == pytest.approx(min(slacks), rel=1e-9)
        else:
            assert slack.min() >= -1e-12


def test_greedy_point_is_the_best_under_all_subsets():
    """The value that weights can earn under (2) is that of the linear programme with all subsets (Edmonds)."""
    rng = np.random.default_rng(1)
    for n in (1, 2, 4, 6) * 5:
        offered, weights = rng.uniform(0.05, 3, n), rng.uniform(-0.5, 1, n)
        subsets = [np.isin(np.arange(n), s) for size in range(1, n + 1) for s in itertools.combinations(range(n), size)]
        right = [-np.expm1(-offered[s].sum()) for s in subsets]
        best = -optimize.linprog(-weights, np.array(subsets, float), right).fun
        _, value = greedy_prefixes(np.zeros((n, 1)), offered, weights[:, None])
        assert value[0] == pytest.approx(best, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rewards", ["distinct", "integer", "equal"])
def test_rare_customers_and_ties(rewards):
    """Many subsets bind where customers are rare, and ties leave the solver many equal solutions: still certified."""
    rng = np.random.default_rng(2)
    n = 30
    table = {
        "distinct": rng.uniform(size=(n, n)),
        "integer": rng.integers(0, 4, (n, n)).astype(float),
        "equal": np.tile(rng.uniform(size=n), (n, 1)),
    }[rewards]
    instance = StationaryMatchingInstance(
        name="rare",
        supplier_rates=rng.uniform(0.5, 1.5, n),
        departure_rates=rng.uniform(1, 30, n),
        customer_rates=rng.uniform(0.05, 0.15, n),
        rewards=table,
    )
    found = bounds.tlp_online(instance)
    value = (table * found.solution["x"]).sum()
    assert found.verify() >= value
    assert found.certified_value - value <= 2e-8 * value


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "tlp-offline",
            {
                "supplier_rates": [1.0] * 4,
                "departure_rates": [1.0] * 4,
                "customer_rates": [1.4027170470570154, 1.5807002762680435],
                "rewards": [[2.0, 0.0], [2.0, 1.0], [0.0, 1.0], [2.0, 1.0]],
            },
        ),
        (
            "tlp-online",
            {
                "supplier_rates": [1.0] * 6,
                "departure_rates": [0.5] * 6,
                "customer_rates": [1.3900681345860868, 0.7856099477938752],
                "rewards": [[0.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 2.0], [0.0, 0.0], [0.0, 2.0]],
            },
        ),
    ],
)
def test_ties_that_a_slack_master_does_not_show(kind, fields):
    """The first round's dual bound is tight while rows are still missing from the master problem."""
    instance = StationaryMatchingInstance(name="ties", **fields)
    found = bounds.bound(instance, kind)
    assert found.value == pytest.approx(all_subsets_value(instance, kind), rel=1e-9)
    assert found.verify() == pytest.approx(found.value, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_own_solution_gives_proposal_probabilities(seed):
    """x satisfies (1) and (3) to rounding even if rates differ by six orders of magnitude, so that p_ij <= 1."""
    rng = np.random.default_rng(seed)
    n, m = 5, 4
    instance = StationaryMatchingInstance(
        name="stiff",
        supplier_rates=10 ** rng.uniform(-3, 3, n),
        departure_rates=10 ** rng.uniform(-3, 3, n),
        customer_rates=10 ** rng.uniform(-3, 3, m),
        rewards=rng.uniform(0, 1, (n, m)),
    )
    for kind in KINDS:
        found = bounds.bound(instance, kind)
        x, leave = found.solution["x"], found.solution["abandonment"]
        assert (leave >= -1e-15 * instance.supplier_rates).all()
        if bounds.FORMS[kind].pasta:
            assert (x / instance.customer_rates <= (leave / instance.departure_rates)[:, None] * (1 + 1e-9)).all()
        assert found.certified_value - (instance.rewards * x).sum() <= 1e-7 * found.value


def test_identical_types_are_merged_and_shared_out():
    """A programme with a hundred copies of a type is solved as one type, and its solution is spread by arrival rate."""
    one = random_instance(2, n=2, m=3, zeros=0.0)
    copies = 50
    many = StationaryMatchingInstance(
        supplier_rates=np.r_[np.full(copies, one.supplier_rates[0] / copies), one.supplier_rates[1]],
        departure_rates=np.r_[np.full(copies, one.departure_rates[0]), one.departure_rates[1]],
        customer_rates=one.customer_rates,
        rewards=np.vstack([np.tile(one.rewards[0], (copies, 1)), one.rewards[1]]),
    )
    found, reference = bounds.tlp_online(many), bounds.tlp_online(one)
    assert found.verify() == pytest.approx(reference.certified_value, rel=1e-9)
    assert np.allclose(found.solution["x"][:copies].sum(0), reference.solution["x"][0], rtol=1e-7, atol=1e-9)
    assert np.ptp(found.solution["x"][:copies], axis=0).max() < 1e-12


def test_prices_are_never_negative():
    for seed in range(30):
        for kind in KINDS:
            assert (bounds.bound(random_instance(seed), kind).duals["supplier"] >= 0).all()


def test_rates_out_of_reach_are_refused():
    fields = {
        "supplier_rates": [1e8, 1e-8],
        "departure_rates": [1e8, 1e-8],
        "customer_rates": [1e8],
        "rewards": [[1e8], [1e-8]],
    }
    with pytest.raises(InputError, match="customer_rates and supplier_rates"):
        bounds.bound({"model": "stationary_matching", "name": "far", **fields})


def test_large_programme_in_time():
    """200 x 200 types to a certified relative gap of 1e-6 (in under 30 s on one core: see benchmarks)."""
    found = bounds.tlp_online("random-200x200")
    value = (found.instance.rewards * found.solution["x"]).sum()
    assert 0 <= found.certified_value - value <= 1e-6 * found.certified_value
    assert found.verify() == found.certified_value
