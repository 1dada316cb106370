"""Bounds of matching queues against literal programmes, dynamic programming and each other (arXiv 2501.08775)."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
from cases_queues import literal_dlp_tilde, literal_nlp, random_queues, solve
from scipy.special import pdtrc

from matchgym.bounds import matching_queues as bounds
from matchgym.bounds.pareto import frontier, largest_throughput
from matchgym.bounds.queue_blocks import make_block, mix
from matchgym.bounds.rational import CertificateError
from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import MODEL, MatchingQueuesInstance

COST_KINDS = ("dlp", "optimum", "nlp", "dlp-tilde", "pooled", "fluid")


def one(seed, load=0.7):
    return random_queues(seed, n=1, m=3, load=load)


def block_cost(instance, caps, target):
    """c_caps(target), all queues jointly: the hull walk on a given box, and its price."""
    block = make_block(instance, range(instance.n_suppliers), caps)
    segment, _ = bounds._walk(block, instance.costs, target)
    return segment


# Literal programmes.


@pytest.mark.parametrize("seed", range(8))
def test_network_programme(seed):
    """The projected NLP = the paper's NLP over all partial assignments, for every split into short and long queues."""
    instance = random_queues(seed, n=2 + seed % 2, m=2, load=0.5)
    n = instance.n_suppliers
    for count in range(n + 1):
        for short in itertools.combinations(range(n), count):
            caps = tuple(1 + (seed + i) % 3 for i in short)
            literal = literal_nlp(instance, short, caps, instance.throughput_target)
            if literal is None:
                with pytest.raises(InputError, match="cannot be attained"):
                    bounds.nlp(instance, short, caps)
                continue
            found = bounds.nlp(instance, short, caps)
            assert found.value == pytest.approx(literal, abs=1e-8)
            assert found.verify() <= found.value + 1e-9
            rates = found.solution["match_rates"]
            assert (instance.costs * rates).sum() == pytest.approx(found.value, abs=1e-8)
            assert rates.sum() == pytest.approx(instance.throughput_target, rel=1e-8)
            assert (rates.sum(0) <= instance.customer_rates * (1 + 1e-9)).all()


@pytest.mark.parametrize("seed", range(6))
def test_separate_queues_programme(seed):
    instance = random_queues(seed, n=2, m=2, load=0.55)
    caps = [16, 16]
    blocks = [make_block(instance, [i], [caps[i]]) for i in range(2)]
    most = mix(instance, blocks, np.ones((2, 2)))
    found = mix(instance, blocks, -instance.costs, instance.throughput_target, most.found)
    assert -found.value == pytest.approx(literal_dlp_tilde(instance, caps), abs=1e-8)
    assert bounds.dlp_tilde(instance).value == pytest.approx(-found.value, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_fluid(seed):
    """The fluid LP, and the NLP without short queues."""
    instance = random_queues(seed, n=3, m=3)
    n, m = instance.costs.shape
    rows = [np.repeat(np.eye(n)[i], m) for i in range(n)] + [np.tile(np.eye(m)[j], n) for j in range(m)] + [-np.ones(n * m)]
    right = np.r_[instance.supplier_rates, instance.customer_rates, -instance.throughput_target]
    literal = solve(instance.costs.ravel(), rows, right, None, None)
    assert bounds.fluid(instance).value == pytest.approx(literal, abs=1e-9)
    assert bounds.nlp(instance, [], []).value == pytest.approx(literal, abs=1e-9)


# Relations.


@pytest.mark.parametrize("seed", range(6))
def test_one_queue(seed):
    """dlp = optimum = nlp = dlp-tilde = pooled, and the bracket contains them."""
    instance = one(seed)
    found = {kind: bounds.bound(instance, kind) for kind in COST_KINDS}
    for kind in ("optimum", "nlp", "dlp-tilde", "pooled"):
        assert found[kind].value == pytest.approx(found["dlp"].value, abs=1e-7)
    for kind in ("dlp", "optimum"):
        assert found[kind].lower <= found["dlp"].value + 1e-10
        assert found[kind].upper >= found["dlp"].value - 1e-10
        assert found[kind].upper - found[kind].lower <= 1e-7
    assert found["fluid"].value <= found["dlp"].value + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_order_of_the_bounds(seed):
    """fluid <= dlp-tilde <= optimum, pooled <= optimum, nlp <= optimum; whatever is certified is below the optimum."""
    instance = random_queues(seed, n=2, load=0.6)
    found = {kind: bounds.bound(instance, kind) for kind in COST_KINDS if kind != "dlp"}
    top = found["optimum"]
    assert top.lower <= top.value <= top.upper + 1e-10
    assert top.upper - top.lower <= 1e-6
    assert found["fluid"].value <= found["dlp-tilde"].value + 1e-8
    for kind, bound in found.items():
        assert bound.verify() <= top.upper
        assert bound.value <= top.value + 1e-7, kind
        assert bound.certified_value == pytest.approx(bound.value, abs=1e-6)
    long = bounds.nlp(instance, [0])
    assert long.certified_value <= top.upper
    with pytest.raises(InputError, match="dlp is the programme of one queue"):
        bounds.dlp(instance)


@pytest.mark.parametrize("seed", range(4))
def test_identical_queues_are_one(seed):
    """Two queues of equal rates and costs are one pooled queue, exactly; the separate programmes do not see it."""
    single = one(seed)
    half = float(single.supplier_rates[0] / 2)
    mu, costs = float(single.departure_rates[0]), np.vstack([single.costs, single.costs])
    double = dataclasses.replace(single, supplier_rates=np.array([half, half]), abandonment_rate=mu, costs=costs)
    value = bounds.dlp(single).value
    assert bounds.optimum(double).value == pytest.approx(value, abs=1e-7)
    assert bounds.pooled(double).value == pytest.approx(value, abs=1e-9)
    assert bounds.dlp_tilde(double).value <= value + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_priced_is_the_conjugate(seed):
    """At a dual price theta of c at tau*, the best objective is theta tau* - c(tau*); at any price it is at least that."""
    instance = random_queues(seed, n=1 + seed % 2, load=0.6)
    top = bounds.optimum(instance)
    for price in (top.duals["throughput"], 0.3, 1.0, 2.5):
        priced = bounds.priced(dataclasses.replace(instance, throughput_price=float(price)))
        assert priced.verify() >= price * instance.throughput_target - top.value - 1e-9
        assert priced.lower <= priced.value <= priced.upper
        if price == top.duals["throughput"]:
            assert priced.value == pytest.approx(price * instance.throughput_target - top.value, abs=1e-7)


def test_priced_of_large_networks():
    """Where the joint queues are too many, DLPtilde at the price; it is above the exact value where both can be had."""
    for seed in range(4):
        instance = random_queues(seed, n=2, price=1.0)
        exact = bounds.priced(instance)
        blocks = bounds.separate_blocks(instance)
        assert mix(instance, blocks, instance.rewards).value >= exact.value - 1e-9
    large = bounds.priced("random-10x10")
    assert large.lower is None
    assert large.verify() == pytest.approx(large.value, abs=1e-7)
    long = dataclasses.replace(MODEL.load("duo"), abandonment_rate=np.array([1.0, 1e-6]))
    assert bounds.priced(long).verify() == pytest.approx(bounds.priced(long).value, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_caps_cost_at_most_what_is_certified(seed):
    """0 <= c_cap(tau*) - c(tau*) <= theta eta(cap), for one queue and for two; `nlp` with small caps stays a bound on c."""
    instance = random_queues(seed, n=1 + seed % 2, load=0.5)
    truth = bounds.optimum(instance)
    for cap in (3, 5, 8, 11):
        caps = [cap] * instance.n_suppliers
        try:
            capped = block_cost(instance, caps, instance.throughput_target)
        except InputError:
            continue
        eta = sum(rate * pdtrc(cap - 1, offered) for rate, offered in zip(instance.supplier_rates, instance.offered))
        assert -1e-9 <= capped.cost - truth.value <= capped.price * eta + 1e-9
        programme = bounds.nlp(instance, range(instance.n_suppliers), caps)
        assert programme.value == pytest.approx(capped.cost, abs=1e-8)
        assert programme.verify() <= truth.upper


def test_lift_satisfies_the_balance_of_every_state():
    """p and q of the NLP's solution: (8) in each state, and their rates are the match rates."""
    for seed in range(4):
        instance = random_queues(seed, n=3, m=3, load=0.5)
        found = bounds.nlp(instance, (0, 2), (3, 4)).solution
        p, q = found["p"].reshape(4, 5), found["q"].reshape(3, 4, 5, 3)
        lam, mu, gamma = instance.supplier_rates, instance.departure_rates, instance.customer_rates
        served = np.einsum("j,jaby->yab", gamma, q)  # rate at which each short queue, or none, is asked for
        flow = np.zeros((4, 5))
        for a, b in itertools.product(range(4), range(5)):
            for axis, i in enumerate((0, 2)):
                here = (a, b)[axis]
                up, down = [a, b], [a, b]
                up[axis] += 1
                down[axis] -= 1
                if here < (3, 4)[axis]:
                    flow[tuple(up)] += lam[i] * p[a, b]
                    flow[a, b] -= lam[i] * p[a, b]
                if here > 0:
                    flow[tuple(down)] += (here * mu[i] + served[axis, a, b]) * p[a, b]
                    flow[a, b] -= (here * mu[i] + served[axis, a, b]) * p[a, b]
        assert np.abs(flow).max() <= 1e-9
        assert q[:, 0, :, 0].max() == q[:, :, 0, 1].max() == 0.0
        assert np.allclose(q.sum(3), 1)
        assert np.allclose(np.einsum("j,jaby,ab->yj", gamma, q, p)[:2], found["match_rates"][[0, 2]], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_largest_throughput(seed):
    """Complete networks of one abandonment rate match as much as the pooled queue; more is refused by every kind."""
    instance = random_queues(seed, n=2, common=True)
    most = largest_throughput(instance)
    block = make_block(instance, [0, 1], [25, 25])
    assert block.best(np.ones(instance.costs.shape)).throughput == pytest.approx(most, abs=1e-8)
    at_most = dataclasses.replace(instance, throughput_target=most * (1 - 1e-9))
    assert bounds.optimum(at_most).value <= bounds.optimum(at_most).duals["throughput"] * most
    beyond = dataclasses.replace(instance, throughput_target=most * 1.001)
    for kind in COST_KINDS[1:]:
        with pytest.raises(InputError, match="throughput_target"):
            bounds.bound(beyond, kind)


def test_a_target_of_zero_costs_nothing():
    instance = dataclasses.replace(MODEL.load("duo"), throughput_target=0.0)
    for kind in COST_KINDS[1:]:
        found = bounds.bound(instance, kind)
        assert found.verify() == 0.0
        assert found.value == pytest.approx(0.0, abs=1e-12)


# Certificates.


@pytest.mark.parametrize("kind", ["priced", *COST_KINDS])
def test_bad_multipliers_only_weaken(kind):
    """Whatever is done to a certificate, what it proves stays on the right side of the truth, and verify() notices."""
    instance = one(3) if kind == "dlp" else random_queues(3, n=2, m=2, price=1.2)
    found = bounds.bound(instance, kind)
    truth = bounds.priced(instance).lower if kind == "priced" else bounds.optimum(instance).upper
    rng = np.random.default_rng(0)
    for _ in range(6):
        changed = copy.deepcopy(found.certificate)
        if kind != "priced":
            changed["theta"] *= rng.uniform(0.5, 1.5)
        changed["beta"] = [value + rng.uniform(-0.2, 0.2) for value in changed["beta"]]
        changed["u"] = [value + rng.uniform(-0.2, 0.2) for value in changed["u"]]
        for block in changed["blocks"]:
            block["h"] = [value + int(rng.integers(-(2**40), 2**40)) for value in block["h"]]
        proof = found.prove(instance, changed)
        if kind == "priced":
            assert float(proof.upper) >= truth
        else:
            assert float(proof.lower) <= truth
        with pytest.raises(CertificateError):
            dataclasses.replace(found, certificate=changed).verify()


def test_the_upper_side_of_the_optimum_is_proved_by_policies():
    """Policies that are altered prove a higher cost, or nothing at all."""
    instance = random_queues(1, n=2, m=2)
    found = bounds.optimum(instance)
    assert found.value - 1e-9 <= found.upper <= found.value + 1e-6
    changed = copy.deepcopy(found.certificate)
    for policy in changed["policies"]:
        policy["actions"] = [[2] * len(row) for row in policy["actions"]]
    assert found.prove(instance, changed).upper is None
    changed["policies"][0]["actions"][0][0] = 7
    with pytest.raises(CertificateError, match="actions"):
        found.prove(instance, changed)
    for broken in ({"blocks": [{"queues": [0, 0], "caps": [3, 3], "bits": 3, "h": [0] * 16}]}, {"beta": []}):
        with pytest.raises(CertificateError):
            dataclasses.replace(found, certificate=found.certificate | broken).verify()


@pytest.mark.parametrize("name", ["hard-0.9", "duo", "random-3x4", "random-10x10", "couriers"])
def test_prices_of_the_catalogue(name):
    """A network's stated price is the rounded dual of its target."""
    instance = MODEL.load(name)
    tight = bounds.bound(instance, "optimum" if instance.n_suppliers <= 2 else "dlp-tilde")
    assert instance.price == pytest.approx(tight.duals["throughput"], abs=2e-3)


# Options and the frontier.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caps": [3]}, "without short"),
        ({"short": [0, 0], "caps": [3, 3]}, "short must name"),
        ({"short": [2], "caps": [3]}, "short must name"),
        ({"short": [0], "caps": [0]}, "caps must be 1 integers"),
        ({"short": [0], "caps": [3, 4]}, "caps must be 1 integers"),
    ],
)
def test_short_queues_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        bounds.bound("duo", "nlp", **options)
    with pytest.raises(InputError, match="belong to the kind nlp"):
        bounds.bound("duo", "fluid", **options)


def test_order_of_short_queues():
    first = bounds.bound("duo", "nlp", short=[0, 1], caps=[4, 6])
    second = bounds.bound("duo", "nlp", short=[1, 0], caps=[6, 4])
    assert first.value == pytest.approx(second.value, abs=1e-9)


def test_frontier():
    """The vertices of c: convex, on the bound at every target between them; a lower bound for large networks."""
    instance = MODEL.load("duo")
    found = frontier(instance)
    throughput, cost = np.array(found.points).T
    assert found.kind == "optimum"
    assert (np.diff(np.diff(cost) / np.diff(throughput)) >= -1e-6).all()
    for target in (0.7, 1.5, 2.3):
        value = bounds.optimum(dataclasses.replace(instance, throughput_target=target)).value
        assert np.interp(target, throughput, cost) == pytest.approx(value, abs=1e-6)
    assert frontier("random-10x10").kind == "dlp-tilde"


def test_instances_of_the_paper():
    """Policies below mu* meet the target of the hard instance at no cost."""
    assert bounds.dlp("hard-0.5").value == pytest.approx(0.0, abs=1e-12)
    assert isinstance(MODEL.load("hard-0.5"), MatchingQueuesInstance)
    assert bounds.dlp("hard-0.9").value == pytest.approx(0.1405053992, abs=1e-9)
