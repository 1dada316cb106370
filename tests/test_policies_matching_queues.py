"""Policies of matching queues: exact values, Priority Rounding against a literal chain, the paper's guarantees."""

import dataclasses
import itertools

import numpy as np
import pytest
from cases_queues import random_queues
from scipy import sparse, stats

from matchgym.baselines import evaluate, rounding_chain
from matchgym.baselines.exact import exact_value
from matchgym.baselines.matching_queues import POLICIES, DynamicThreshold, NLPStatic, PriorityRounding, StaticThreshold
from matchgym.baselines.rounding_chain import Rounding, rounded_value
from matchgym.bounds import matching_queues as bounds
from matchgym.bounds.chain import stationary_law
from matchgym.bounds.pareto import largest_throughput
from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import MODEL, MatchingQueuesInstance
from matchgym.envs.single_queue import law_kernel, queue_frontier, static_throughput

ID = "MatchingQueues-v0"
LEVEL = 1e-4  # of every statistical test; seeds are fixed


def network(**fields):
    return MatchingQueuesInstance(**({"abandonment_rate": 1.0, "throughput_price": 1.0} | fields))


SHORT_LONG = network(
    name="short-long", supplier_rates=np.array([1.0, 4.0]), customer_rates=np.array([1.5, 2.0]),
    costs=np.array([[0.0, 0.5], [1.0, 0.8]]), throughput_target=2.7,
)  # fmt: skip
SHARED = network(  # two long queues that serve the same contentious type
    name="shared", supplier_rates=np.array([1.0, 1.2, 1.0]), customer_rates=np.array([3.0, 0.5]),
    costs=np.array([[0.0, 0.4], [1.0, 1.5], [1.1, 0.7]]), throughput_target=2.0,
)  # fmt: skip


# Threshold policies.


@pytest.mark.parametrize("seed", range(6))
def test_static_threshold(seed):
    """The target is met exactly, at the cost of the formula (1 - pi_0) (sum of gamma c over the types served)."""
    instance = random_queues(seed, n=1, m=3, load=0.75)
    policy = StaticThreshold().fit(instance)
    value = exact_value(policy)
    served = policy.served_
    assert value.match_rates.sum() == pytest.approx(instance.throughput_target, rel=1e-9)
    busy = instance.throughput_target / (served @ instance.customer_rates)
    assert np.allclose(value.match_rates[0], busy * served * instance.customer_rates, rtol=1e-9)
    ranked = served[np.argsort(instance.costs[0])]
    assert (np.diff(ranked) <= 0).all()
    assert ((ranked > 0) & (ranked < 1)).sum() <= 1


@pytest.mark.parametrize("seed", range(10))
def test_dynamic_threshold(seed):
    """The optimum of the DLP: target and cost exactly, served sets that grow with the queue, one randomising state."""
    instance = random_queues(seed, n=1, m=4, load=0.75)
    policy = DynamicThreshold().fit(instance)
    rates = exact_value(policy).match_rates
    assert rates.sum() == pytest.approx(instance.throughput_target, rel=1e-9)
    assert (instance.costs * rates).sum() == pytest.approx(bounds.dlp(instance).value, rel=1e-8)
    chance = policy.chance_
    assert ((chance > 0) & (chance < 1)).any(0).sum() <= 1
    assert (np.diff(chance, axis=1) >= 0).all()
    static = exact_value(StaticThreshold().fit(instance)).match_rates
    assert (instance.costs * static).sum() >= (instance.costs * rates).sum() - 1e-9


def test_no_gap():
    """One customer type, equal costs, or a target that the cheapest type meets alone: static is as good as adaptive."""
    for seed, m, flat in ((0, 1, False), (1, 3, True), (2, 3, False)):
        instance = random_queues(seed, n=1, m=m, load=0.7)
        if flat:
            instance = dataclasses.replace(instance, costs=np.ones((1, m)))
        if m == 3 and not flat:
            first = instance.customer_rates[instance.costs[0].argmin()]
            most = static_throughput(instance.supplier_rates[0], instance.departure_rates[0], first)
            instance = dataclasses.replace(instance, throughput_target=0.9 * most)
        costs = [
            (instance.costs * exact_value(kind().fit(instance)).match_rates).sum()
            for kind in (StaticThreshold, DynamicThreshold)
        ]
        assert costs[0] == pytest.approx(costs[1], rel=1e-9)


@pytest.mark.parametrize("kind", [StaticThreshold, DynamicThreshold])
def test_thresholds_in_a_network_meet_the_target(kind):
    """With a common abandonment rate the total number waiting is one queue, whoever serves."""
    for seed in range(3):
        instance = random_queues(seed, n=2, m=3, load=0.7, common=True)
        assert exact_value(kind().fit(instance)).match_rates.sum() == pytest.approx(instance.throughput_target, rel=1e-8)


# All policies.


@pytest.mark.parametrize("name", POLICIES)
def test_values_are_bounded_and_consistent(name):
    """J = theta tau - c at the exact match rates; nobody exceeds `priced`, and `optimal` attains it; conservation (G7)."""
    for seed in range(4):
        instance = random_queues(seed, n=2, m=2, load=0.5)
        value = exact_value(POLICIES[name]().fit(instance))
        measures = instance.measures(value.match_rates)
        assert value.mean == pytest.approx(instance.price * measures["throughput"] - measures["cost_rate"], abs=1e-8)
        priced = bounds.priced(instance)
        assert value.mean <= priced.certified_value + value.error
        if name == "optimal":
            assert value.mean >= priced.lower - value.error
        assert (value.match_rates.sum(1) <= instance.supplier_rates).all()
        assert (value.match_rates.sum(0) <= instance.customer_rates).all()


def test_price_greedy_is_optimal_for_one_queue():
    for seed in range(5):
        instance = random_queues(seed, n=1, m=3, price=1.3)
        assert exact_value(POLICIES["price-greedy"]().fit(instance)).mean == pytest.approx(
            bounds.priced(instance).value, abs=1e-9
        )


@pytest.mark.parametrize("kind", [StaticThreshold, DynamicThreshold, NLPStatic])
def test_kernels_follow_their_law(kind):
    """Frequencies of actions of the compiled kernel in a few states, against `probabilities`."""
    instance = dataclasses.replace(MODEL.load("duo"), throughput_target=2.3)
    policy, rows = kind().fit(instance), 20_000
    for queues, customer in itertools.product(([1, 1], [0, 2], [3, 0]), range(3)):
        obs = np.tile(np.r_[queues, np.eye(3)[customer]].astype(np.float32), (rows, 1))
        actions, _ = policy.predict(obs, policy.start(rows, 5), np.ones(rows, bool))
        law, counts = policy.probabilities(obs[:1])[0], np.bincount(actions, minlength=3)
        assert (counts[law <= 1e-12] == 0).all()
        if (law > 1e-12).sum() > 1:
            possible = law > 1e-12
            assert stats.chisquare(counts[possible], rows * law[possible] / law[possible].sum()).pvalue > LEVEL


@pytest.mark.parametrize(
    "name", ["cheapest-first", "static-threshold", "dynamic-threshold", "price-greedy", "priority-rounding"]
)
def test_simulation_agrees_with_the_exact_value(name):
    """Objective, throughput and cost rate, each within 4.5 standard errors of 64 replications."""
    policy = POLICIES[name]().fit("duo")
    value, found = exact_value(policy), evaluate(policy, ID, replications=64, warmup=500, decisions=6_000, seed=3)
    measures = policy.instance.measures(value.match_rates)
    for truth, interval in (
        (value.mean, found.objective),
        (measures["throughput"], found.rates["throughput"]),
        (measures["cost_rate"], found.rates["cost_rate"]),
    ):
        assert abs(truth - interval.mean) <= 4.5 * interval.half_width / 1.998


# Priority Rounding.

TIGHT = network(  # caps of 2 discard a third of the short suppliers, and the buffer is in use
    name="tight", supplier_rates=np.array([2.0, 6.0]), customer_rates=np.array([4.0]), costs=np.array([[0.0], [1.0]]),
    throughput_target=3.7, throughput_price=1.5,
)  # fmt: skip
TWO_SHORT = network(
    name="two-short", supplier_rates=np.array([2.0, 1.5, 6.0]), customer_rates=np.array([2.0, 1.0]),
    costs=np.array([[0.0, 0.3], [0.5, 0.0], [1.0, 1.5]]), throughput_target=2.6, throughput_price=1.5,
)  # fmt: skip


def farthest(policy, seed=1):
    """The largest deviation of simulated objective, throughput and cost rate from the exact ones, in standard errors."""
    value = exact_value(policy)
    found = evaluate(policy, ID, replications=64, warmup=500, decisions=8_000, seed=seed)
    measures = policy.instance.measures(value.match_rates)
    pairs = [(value.mean, found.objective), *((measures[key], each) for key, each in found.rates.items())]
    return max(abs(truth - each.mean) / (each.half_width / 1.998) for truth, each in pairs)


@pytest.mark.parametrize("variant", ["printed", "simplified"])
@pytest.mark.parametrize(("instance", "short", "caps"), [(TIGHT, (0,), (2,)), (TWO_SHORT, (1, 0), (2, 1))])
def test_discarded_suppliers_are_told_apart(instance, short, caps, variant):
    """Simulation from observations follows the law of queues with small caps; without telling suppliers apart it does not."""
    policy = PriorityRounding(0.1, variant, short, caps).fit(instance)
    assert policy.params_.is_tracking
    assert exact_value(policy).mean_buffer.max() > 0.1
    assert farthest(policy) <= 4.5
    policy.params_ = policy.params_._replace(is_tracking=0)
    assert farthest(policy) > 6


def test_discards_when_customers_are_rare():
    """Many suppliers come and go between two customers."""
    rare = dataclasses.replace(TIGHT, customer_rates=np.array([0.05]), throughput_target=0.045)
    assert farthest(PriorityRounding(0.2, short=(0,), caps=(1,)).fit(rare)) <= 4.5


def literal_rates(instance, solution, eps, is_simplified, contentious, long_caps, buffer_cap):
    """Match rates (n, m) of Algorithm 1, line by line, from the chain of all its variables on capped queues and buffers."""
    lam, mu, gamma = instance.supplier_rates, instance.departure_rates, instance.customer_rates
    n, m = instance.costs.shape
    short, caps, q, y = solution["short"], solution["caps"], solution["q"], solution["y"]
    long = [i for i in range(n) if i not in short]
    pairs = [(i, j) for i in long for j in range(m) if contentious[j] and y[i, j] > 0]
    extents = [cap + 1 for cap in caps] + [cap + 1 for cap in long_caps] + [buffer_cap + 1] * len(pairs)
    s, size = len(short), int(np.prod(extents))
    sources, targets, rates, matches = [], [], [], []

    for source in range(size):
        state = list(map(int, np.unravel_index(source, extents)))
        place_of_short = int(np.ravel_multi_index(state[:s], [cap + 1 for cap in caps])) if s else 0

        def go(changes, rate, match=None, source=source, state=state):
            if rate <= 0:
                return
            target = list(state)
            for place, change in changes:
                target[place] = min(target[place] + change, extents[place] - 1)
            sources.append(source)
            targets.append(int(np.ravel_multi_index(target, extents)))
            rates.append(rate)
            matches.append(match)

        for place, i in enumerate([*short, *long]):
            if state[place] < extents[place] - 1:
                go([(place, 1)], lam[i])
            go([(place, -1)], mu[i] * state[place])
        for j in range(m):
            total = sum(y[i, j] for i in long)
            choices = [(i, (1 - eps) * y[i, j]) for i in long] + [(None, 1 - (1 - eps) * total)]
            for i_l, chance in choices:
                rate = gamma[j] * chance
                for a, i_s in enumerate(short):  # lines 13-16
                    changes = [(a, -1)]
                    if contentious[j] and i_l is not None and y[i_l, j] > 0:
                        changes.append((s + len(long) + pairs.index((i_l, j)), 1))
                    go(changes, rate * q[j, place_of_short, a], (i_s, j))
                rate = rate * q[j, place_of_short, -1]
                if i_l is not None and state[s + long.index(i_l)] > 0:  # lines 17-18
                    go([(s + long.index(i_l), -1)], rate, (i_l, j))
                elif contentious[j] and total > 0 and not (is_simplified and i_l is not None):  # lines 20-24
                    for i in long:
                        if y[i, j] > 0:
                            buffer, queue = s + len(long) + pairs.index((i, j)), s + long.index(i)
                            if state[buffer] > 0 and state[queue] > 0:
                                go([(buffer, -1), (queue, -1)], rate * y[i, j] / total, (i, j))
                            elif state[buffer] > 0:
                                go([(buffer, -1)], rate * y[i, j] / total)
    flows = sparse.csr_matrix((rates, (sources, targets)), (size, size))
    law = stationary_law(flows - sparse.diags(np.asarray(flows.sum(1)).ravel()))
    found = np.zeros((n, m))
    for source, rate, match in zip(sources, rates, matches):
        if match is not None:
            found[match] += law[source] * rate
    return found


@pytest.mark.parametrize("variant", ["printed", "simplified"])
@pytest.mark.parametrize("eps", [0.1, 0.3])
def test_exact_value_is_that_of_the_literal_algorithm(variant, eps):
    policy = PriorityRounding(eps, variant, short=(0,), caps=(3,)).fit(SHORT_LONG)
    assert policy.contentious_.any()
    assert (policy.solution_["y"][1, policy.contentious_] > 0).any()
    value = exact_value(policy)
    literal = literal_rates(SHORT_LONG, policy.solution_, eps, variant == "simplified", policy.contentious_, [20], 20)
    assert np.allclose(value.match_rates, literal, rtol=0, atol=1e-7)
    assert value.error < 1e-6


@pytest.mark.parametrize("variant", ["printed", "simplified"])
def test_long_queues_that_share_a_type(variant):
    """Two long queues with one contentious type: coupled in the printed variant, apart in the simplified one."""
    solution = dict(bounds.nlp(SHARED, (0,), (2,)).solution)
    shares = (1 - solution["q"][:, :, -1] @ solution["p"] * 0 - (1 - solution["q"][:, :, -1]) @ solution["p"]).clip(0)
    solution["y"] = np.array([[0.0, 0.0], [0.5 * shares[0], 0.3 * shares[1]], [0.4 * shares[0], 0.5 * shares[1]]])
    contentious, eps = np.array([True, False]), 0.5
    rounding = Rounding.of(SHARED, solution, eps, variant == "simplified", contentious)
    assert len(rounding.parts()) == (1 if variant == "printed" else 2)
    value = rounded_value(rounding)
    literal = literal_rates(SHARED, solution, eps, variant == "simplified", contentious, [9, 9], 6)
    assert np.allclose(value.match_rates, literal, rtol=0, atol=1e-5)  # the literal chain is cut off coarsely


def test_iteration_agrees_with_the_direct_solution(monkeypatch):
    policy = PriorityRounding(0.1, short=(0,), caps=(4,)).fit(SHORT_LONG)
    direct = exact_value(policy)
    monkeypatch.setattr(rounding_chain, "DIRECT_STATES", 10)
    assert np.allclose(exact_value(policy).match_rates, direct.match_rates, rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", ["printed", "simplified"])
@pytest.mark.parametrize("seed", range(6))
def test_guarantees(seed, variant):
    """G1 - G4 and G7 from the solution of the NLP."""
    instance = random_queues(seed, n=2 + seed % 2, m=2 + seed % 2, load=0.5, price=1.0)
    eps, cap = (0.1, 0.25, 0.4)[seed % 3], 4
    policy = PriorityRounding(eps, variant, short=(0,), caps=(cap,)).fit(instance)
    value, y, gamma = exact_value(policy), policy.solution_["y"], instance.customer_rates
    programme, hot, x_short = policy.solution_["match_rates"], policy.contentious_, policy.short_share_
    n = instance.n_suppliers
    assert np.allclose(value.match_rates[0], programme[0], rtol=0, atol=1e-8)  # G1
    assert (hot == (x_short >= eps)).all()
    queue, mu = value.mean_queue, instance.departure_rates
    for i in range(1, n):
        assert (value.match_rates[i] <= (1 - eps) * gamma * y[i] + 1e-8).all()  # G2
        assert (value.match_rates[i] <= np.where(hot, 1, 1 - x_short) * (1 - eps) * gamma * y[i] + 1e-8).all()
        demand = (1 - eps) * (gamma * y[i])[~hot].sum() + gamma[hot].sum()
        law = np.empty(80)
        law_kernel(instance.supplier_rates[i], mu[i], np.full(80, demand), law)
        assert value.empty[i] <= law[0] + 1e-8  # G3
        if variant == "simplified":  # G4
            least = (1 - eps) * (1 - law[0]) * np.where(hot, 1, 1 - x_short) * gamma * y[i]
            assert (value.match_rates[i] >= least - 1e-8).all()
        lost = instance.supplier_rates[i] - value.match_rates[i].sum() - mu[i] * queue[i]
        assert lost == pytest.approx(0, abs=1e-7)  # G7
    assert (instance.costs * value.match_rates).sum() <= bounds.nlp(instance, (0,), (cap,)).value + 1e-8
    at_cap = policy.solution_["p"][-1]
    balance = value.match_rates[0].sum() + mu[0] * queue[0] + instance.supplier_rates[0] * at_cap
    assert balance == pytest.approx(instance.supplier_rates[0], rel=1e-8)
    assert np.isfinite(value.mean_buffer).all()


def test_all_short_is_the_optimum_and_all_long_is_simple():
    """Without long queues the policy attains c(tau*); without short ones nothing is contentious."""
    instance = dataclasses.replace(SHORT_LONG, throughput_target=2.4)
    both = exact_value(PriorityRounding(short=(0, 1)).fit(instance)).match_rates
    assert (instance.costs * both).sum() == pytest.approx(bounds.optimum(instance).value, abs=1e-7)
    assert both.sum() == pytest.approx(2.4, rel=1e-8)
    none = PriorityRounding(0.1, short=()).fit(instance)
    assert not none.contentious_.any()
    rates = exact_value(none).match_rates
    for i in range(2):
        demand = 0.9 * none.solution_["match_rates"][i].sum()
        assert rates[i].sum() == pytest.approx(static_throughput(instance.supplier_rates[i], 1.0, demand), rel=1e-9)


def test_a_discount_of_zero():
    """eps = 0: all types are contentious; a buffer that fills as fast as it empties, (11) being tight, is refused."""
    fields = {
        "name": "one-type", "supplier_rates": np.array([1.0, 9.0]), "customer_rates": np.array([2.0]),
        "costs": np.array([[0.0], [1.0]]),
    }  # fmt: skip
    slack = PriorityRounding(0.0, short=(0,), caps=(4,)).fit(network(**fields, throughput_target=1.5))
    assert slack.contentious_.all()
    assert slack.solution_["y"].sum() + slack.short_share_[0] < 0.8
    assert exact_value(slack).match_rates.sum() == pytest.approx(1.5, abs=1e-2)
    tight = dataclasses.replace(SHORT_LONG, throughput_price=1.0)
    with pytest.raises(InputError, match="eps: the buffer of queue 1 and customer type 1 has no steady state"):
        exact_value(PriorityRounding(0.0, short=(0,), caps=(4,)).fit(tight))


def test_what_is_refused():
    for arguments, message in (
        ({"eps": 1.0}, "eps must lie"),
        ({"eps": -0.1}, "eps must lie"),
        ({"variant": "other"}, "variant must be"),
    ):
        with pytest.raises(InputError, match=message):
            PriorityRounding(**arguments)
    with pytest.raises(InputError, match="short must name"):
        PriorityRounding(short=(5,)).fit("duo")
    with pytest.raises(InputError, match="states"):
        exact_value(PriorityRounding(0.01, short=(0,), caps=(4,)).fit(SHORT_LONG), max_states=100)
    with pytest.raises(InputError, match="optimal needs more"):
        POLICIES["optimal"]().fit("random-10x10")


# Figure 1.


def test_hard_instance():
    """Figure 1(b): no gap up to mu*, a jump above it, decreasing afterwards, within 4 % of 1 at mu = 2.5."""
    from matchgym.baselines.matching_queues_experiments import critical_rate, hard_gap, limit_gap

    critical = critical_rate()
    assert critical == pytest.approx(0.7597, abs=1e-4)
    assert static_throughput(4.0, critical, 4.8) == pytest.approx(3.0, abs=1e-12)
    for rate in (0.05, 0.4, critical - 1e-6):
        assert hard_gap(rate)[0] == 1.0
    above = [hard_gap(rate)[0] for rate in (critical + 1e-6, critical + 1e-4, 0.76, 0.9, 1.25, 2.0, 2.5, 3.0)]
    assert (np.diff(above) < 0).all()
    assert 2.0 < above[2] < above[0] < limit_gap(critical)
    assert above[6] < 1.04
    assert hard_gap(critical + 5e-4)[0] == pytest.approx(2.08, abs=0.01)  # the paper's 208 %


def test_random_instances():
    """Figure 1(a) at tau* = 2.5: mean about 3.3 %, a quarter above 5 %. 200 instances leave a standard error of 0.25 %."""
    from matchgym.baselines.matching_queues_experiments import adaptivity_gap
    from matchgym.envs.catalogues.matching_queues import random_queue

    gaps = []
    for seed in range(200):
        fields = random_queue(seed)
        rates, costs = np.array(fields["customer_rates"]), np.array(fields["costs"][0])
        if static_throughput(4.0, 1.0, rates.sum()) >= 2.5:
            gaps.append(adaptivity_gap(4.0, 1.0, rates, costs, 2.5)[0])
    assert min(gaps) >= 1 - 1e-9
    assert 1.025 < np.mean(gaps) < 1.042
    assert 0.15 < np.mean(np.array(gaps) > 1.05) < 0.35


def test_gap_against_independent_formulas():
    """Static by 1F1 and root finding, adaptive by the literal programme."""
    from cases_queues import literal_dlp
    from scipy.optimize import brentq
    from scipy.special import hyp1f1

    from matchgym.baselines.matching_queues_experiments import adaptivity_gap

    gamma, costs = np.array([1.2, 1.9, 2.6]), np.array([0.2, 0.7, 1.5])

    def throughput(g):
        return g * (1 - 1 / hyp1f1(1, g + 1, 4.0))

    for target in (1.8, 2.5, 3.0):
        g = brentq(lambda g, target=target: throughput(g) - target, 0.1, gamma.sum(), xtol=1e-13)
        served = np.clip((g - np.r_[0, gamma.cumsum()[:-1]]) / gamma, 0, 1)
        static = target / g * (served * gamma) @ costs
        nested = [(), (0,), (0, 1), (0, 1, 2)]
        adaptive = literal_dlp(4.0, 1.0, gamma, costs, target, 45, nested)
        found = adaptivity_gap(4.0, 1.0, gamma, costs, target)
        assert found == pytest.approx((static / adaptive, static, adaptive), rel=1e-6)
        assert queue_frontier(4.0, 1.0, gamma, costs, target).cost == pytest.approx(adaptive, rel=1e-7)


def test_largest_throughput_is_attained_by_serving_everybody():
    instance = random_queues(4, n=3, m=2, common=True)
    found = exact_value(POLICIES["cheapest-first"]().fit(instance)).match_rates.sum()
    assert found == pytest.approx(largest_throughput(instance), rel=1e-9)
