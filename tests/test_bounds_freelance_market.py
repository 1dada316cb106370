"""Regions of freelance markets: dual and primal, flows and subsets, enumeration, the order of the classes."""

import dataclasses
import itertools

import numpy as np
import pytest
from cases_freelance import CLASSES, capacity_by_enumeration, random_market
from scipy.optimize import linprog

from matchgym.bounds.freelance_capacity import largest_value
from matchgym.bounds.freelance_market import KINDS, bound, stability
from matchgym.bounds.rational import CertificateError
from matchgym.envs.freelance_market import MODEL
from matchgym.envs.instance import InputError


def changed(instance, **values):
    return dataclasses.replace(instance, **values)


def in_class(instance, kind):
    decomposable, flexible = CLASSES[kind]
    return changed(instance, decomposable=decomposable, flexible=flexible)


@pytest.mark.parametrize("seed", range(25))
def test_flexible_region_is_hall_over_all_job_sets(seed):
    """Theorem 6 as printed: sum_{j in J} lambda_j r_js <= m_s(N(J)) for every J and s."""
    instance = random_market(seed, n=4, law="poisson", whole=seed % 2 == 0)
    alpha = np.inf
    for size in range(1, 5):
        for jobs in itertools.combinations(range(4), size):
            jobs = list(jobs)
            demand = instance.arrival_means[jobs] @ instance.job_hours[jobs]
            supply = instance.mean_hours[instance.allowed[jobs].any(0)].sum(0)
            alpha = min([alpha, *(supply[demand > 0] / demand[demand > 0])])
    found = bound(instance, "load")
    assert found.value == pytest.approx(alpha, rel=1e-9, abs=1e-12)
    assert found.verify() >= alpha * (1 - 1e-12)
    assert bound(instance, "decline").verify() == pytest.approx(1 - min(1, alpha), abs=1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_inflexible_region_is_its_dual(seed):
    """Section 4.2: min p.m with sum_j lambda_j q_j = 1, q_j <= sum_s p_ls r_js on edges."""
    instance = random_market(seed, "IND", n=3, law="poisson", whole=seed % 2 == 0)
    size, n, skills = instance.n_categories, instance.n_types, instance.n_skills
    edges = np.argwhere(instance.allowed)
    rows = np.zeros((len(edges), size * skills + n))
    for k, (j, c) in enumerate(edges):
        rows[k, c * skills : (c + 1) * skills] = -instance.job_hours[j]
        rows[k, size * skills + j] = 1
    goal = np.r_[instance.mean_hours.ravel(), np.zeros(n)]
    equal = np.r_[np.zeros(size * skills), instance.arrival_means][None]
    limits = [(0, None)] * (size * skills) + [(None, None)] * n
    dual = linprog(goal, rows, np.zeros(len(edges)), equal, [1.0], limits)
    found = bound(instance, "load")
    assert found.value == pytest.approx(dual.fun, rel=1e-7, abs=1e-9)
    found.verify()
    outer = bound(in_class(instance, "FND"), "load").value
    assert found.value <= outer * (1 + 1e-9)
    if size == 1 or instance.n_skills == 1:
        assert found.value == pytest.approx(outer, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(8))
def test_throughput_in_and_beyond_the_region(seed, kind):
    instance = random_market(seed, kind, law="poisson")
    alpha, total = bound(instance, "load").value, instance.arrival_means.sum()
    values = []
    for factor in (0.5, 1.0, 1.5, 3.0):
        scaled = changed(instance, arrival_means=instance.arrival_means * factor)
        found = bound(scaled, "throughput")
        assert found.verify() >= found.value * (1 - 1e-9)
        values.append(found.value)
        if factor <= alpha:
            assert found.value == pytest.approx(factor * total, rel=1e-8)
        else:
            assert min(1, alpha / factor) * factor * total - 1e-9 <= found.value < factor * total
    assert (np.diff(values) >= -1e-14 * values[-1]).all()  # beyond the region all are equal, but for the last digit
    double = changed(instance, availability_means=[2 * each for each in instance.availability_means])
    assert bound(double, "load").value == pytest.approx(2 * alpha, rel=1e-8, abs=1e-10)
    order = np.random.default_rng(seed).permutation(instance.n_types)
    shuffled = changed(
        instance, **{name: getattr(instance, name)[order] for name in ("arrival_means", "job_hours", "compatible")}
    )
    assert bound(shuffled, "load").value == pytest.approx(alpha, rel=1e-8, abs=1e-10)
    wider = changed(instance, compatible=np.ones_like(instance.compatible))
    assert bound(wider, "load").value >= alpha * (1 - 1e-9)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(7))
def test_capacity_is_that_of_the_enumeration(seed, kind):
    instance = random_market(100 + seed, kind, n=2, categories=1 + seed % 2, skills=2)
    found = bound(instance, "capacity")
    exact = capacity_by_enumeration(instance)
    assert found.value == pytest.approx(exact, rel=1e-8, abs=1e-9)
    assert found.verify() == pytest.approx(exact, rel=1e-7, abs=1e-8)
    assert found.certified_value >= exact * (1 - 1e-8)


@pytest.mark.parametrize("seed", range(15))
def test_order_of_the_classes(seed):
    """C^IND <= C^ID <= C^FD <= C^out, C^IND <= C^FND <= C^FD, C^ID <= C^O; one category: ID = FD, IND = FND."""
    instance = random_market(200 + seed, n=2)
    exact = {kind: bound(in_class(instance, kind), "capacity").value for kind in CLASSES}
    outer = {kind: bound(in_class(instance, kind), "load").value for kind in CLASSES}
    slack = 1e-8
    assert exact["IND"] <= exact["ID"] + slack
    assert exact["ID"] <= exact["FD"] + slack
    assert exact["IND"] <= exact["FND"] + slack
    assert exact["FND"] <= exact["FD"] + slack
    assert exact["FD"] <= outer["FD"] + slack
    assert exact["ID"] <= outer["ID"] + slack
    if instance.n_categories == 1:
        assert exact["ID"] == pytest.approx(exact["FD"], abs=slack)
        assert exact["IND"] == pytest.approx(exact["FND"], abs=slack)
    plus = changed(in_class(instance, "FD"), arrival_means=instance.arrival_means + 1)
    if bound(plus, "load").value >= 1 + slack:  # lambda + 1 in C^out: lambda in C(Gamma) of FD
        assert exact["FD"] >= 1 - slack


def test_classes_differ_and_named_values():
    values = [bound(f"finite-2x3-{kind.lower()}", "capacity").value for kind in CLASSES]
    assert len(set(np.round(values, 6))) == 4
    assert bound("empty-capacity-fnd", "capacity").certified_value == 0
    assert bound("empty-capacity-fnd", "load").value == pytest.approx(5)
    four = bound("empty-capacity-fd", "capacity")  # arrivals 4, capacity 5
    assert four.value == pytest.approx(1.25)
    assert bound("inflexible-gap-fnd", "load").value == pytest.approx(7 / 3)
    assert bound("inflexible-gap-ind", "load").value == pytest.approx(1.5)
    assert bound("toy").certified_value == 2


def test_one_type_formulas():
    """One type, one category: E min_s floor(H_s / r_s) jobs not decomposable, min_s E floor(H_s / r_s) decomposable."""
    for seed in range(6):
        instance = random_market(300 + seed, n=1, categories=1, skills=2)
        needs = instance.needs[0]
        outcomes = instance.outcomes("availability")
        fits = np.floor((outcomes.counts @ instance.hours)[:, needs] / instance.job_hours[0, needs] + 1e-12)
        for kind, jobs in (("FND", outcomes.probabilities @ fits.min(1)), ("FD", (outcomes.probabilities @ fits).min())):
            found = bound(in_class(instance, kind), "capacity").value
            assert found * instance.arrival_means[0] == pytest.approx(jobs, abs=1e-8)


def test_altered_certificates_never_prove_too_much():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        found = bound("finite-2x3-ind", kind)
        certificate = dict(found.certificate)
        key = "weights" if kind == "capacity" else "prices"
        for _ in range(5):
            if kind == "capacity":
                certificate[key] = [int(w * rng.uniform(0.5, 1.5)) for w in found.certificate[key]]
            else:
                certificate[key] = (np.array(found.certificate[key]) * rng.uniform(0.5, 1.5, (2, 3)) + 0.01).tolist()
            proof = found.prove(found.instance, certificate)
            assert proof.upper is None or float(proof.upper) >= found.value * (1 - 1e-9)
            assert proof.lower is None or float(proof.lower) <= found.value + 1e-9
            if kind != "decline":  # whose value is 0, which weaker prices prove too
                with pytest.raises(CertificateError):
                    dataclasses.replace(found, certificate=certificate).verify()
        with pytest.raises(CertificateError):
            dataclasses.replace(found, certificate={"kind": kind, key: "x"}).verify()
    with pytest.raises(CertificateError, match="prices"):
        bound("toy", "load").prove(MODEL.load("toy"), {"prices": [[0.0]]})


def test_exhaustion_finds_what_the_point_misses():
    rng = np.random.default_rng(1)
    from fractions import Fraction

    for _ in range(60):
        rows, b, w = rng.integers(0, 4, (2, 3)).astype(float), rng.integers(0, 9, 2), rng.integers(0, 9, 3)
        rows[0] += rows.sum(0) == 0
        best = max(
            int(w @ a) for a in itertools.product(range(10), repeat=3) if (rows @ a <= b).all()
        )  # fmt: skip
        guide = rng.uniform(0, 3, 2).tolist()
        assert largest_value(rows.tolist(), [Fraction(int(x)) for x in b], w.tolist(), [0, 0, 0], guide) == best


def test_types_that_nobody_serves_and_refusals():
    instance = changed(random_market(1, n=2, categories=2), compatible=[[True, True], [False, False]])
    for kind in CLASSES:
        lone = in_class(instance, kind)
        assert bound(lone, "load").verify() == 0
        assert bound(lone, "capacity").verify() == 0
        assert bound(lone, "decline").verify() == 1
        found = bound(lone, "throughput")
        assert found.verify() == pytest.approx(found.value, abs=1e-9)
        assert found.value <= instance.arrival_means[0] + 1e-9
    with pytest.raises(InputError, match="availability_law"):
        bound("asymmetric", "capacity")
    with pytest.raises(InputError, match="kind"):
        bound("toy", "tlp")


def test_stability_names_the_bottleneck():
    report = stability("section1").as_dict()
    assert report["load"] == pytest.approx(10 / 9)
    assert report["capacity"] == pytest.approx(10 / 9)
    assert report["is_stable"] is True
    assert report["bottleneck"][0]["skill"] == 0
    assert stability("empty-capacity-fnd").is_stable is False
    assert stability("crowd-24-fnd").is_stable is None
    crowd = MODEL.load("crowd-24-fnd")
    scarce = stability(crowd).bottleneck[0]
    demand = crowd.arrival_means @ crowd.job_hours / crowd.mean_hours[0]
    assert scarce == {"skill": int(demand.argmax()), "categories": [0], "share": pytest.approx(1.0)}
    assert all(isinstance(line, str) for line in stability("inflexible-gap-ind").lines())


def test_stability_tells_what_hours_do_not():
    """Types that nobody takes, whole tasks that do not fit, and markets on the boundary."""
    values = {
        "model": "freelance_market", "arrival_means": [1, 2], "job_hours": [[1], [1]], "availability_means": [[2]],
        "agent_hours": [[[1]]], "compatible": [[True], [False]],
    }  # fmt: skip
    alone = stability(values)
    assert (alone.load, alone.is_stable, alone.stranded, alone.job_types) == (0.0, False, [1], [])
    assert any("no category takes job types 1" in line for line in alone.lines())
    assert any("by hours alone" in line for line in stability("empty-capacity-fnd").lines())
    edge = stability({**values, "arrival_means": [2, 0], "availability_law": "deterministic"})
    assert (edge.load, edge.is_stable, edge.stranded) == (1.0, None, [])
    assert any("on the boundary" in line for line in edge.lines())
    assert bound("toy", "load").unit == bound("toy", "capacity").unit == "times the arrivals"


MARKET = {
    "model": "freelance_market",
    "arrival_means": [2.0],
    "job_hours": [[1.0]],
    "availability_means": [[10.0]],
    "agent_hours": [[[1.0]]],
}


def test_rates_that_are_far_apart():
    """alpha = 10^9 is found; numbers that the solver would drop are refused in one sentence."""
    found = bound(MARKET | {"arrival_means": [1e-6], "availability_means": [[1000.0]]}, "load")
    assert found.verify() == pytest.approx(1e9, rel=1e-9)
    with pytest.raises(InputError, match="out of reach of floating point"):
        bound(MARKET | {"arrival_means": [9e7, 2000.0], "job_hours": [[2.0], [1e-9]]}, "load")


def test_certificates_are_tight_where_arrivals_dwarf_the_hours():
    """Up to 10^8 jobs per epoch and a millionth of an agent: the proof is within 10^-12 of the solver's value."""
    refused = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        market = random_market(seed, list(CLASSES)[seed % 4], n=6, categories=3, skills=3, law="poisson")
        market = changed(
            market,
            arrival_means=10.0 ** rng.uniform(-1, 8, 6) / 1.1,
            availability_means=[each * 10.0 ** rng.uniform(-9, -3) for each in market.availability_means],
        )
        try:
            found = bound(market)
        except InputError:  # the hours themselves are too far apart
            refused += 1
            continue
        assert found.verify() == pytest.approx(found.value, rel=1e-12)
    assert refused < 8
