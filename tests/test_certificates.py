"""Certificates: exact arithmetic, and that no certificate, however altered, proves a false bound."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from cases import random_instance
from scipy import stats

from matchgym.bounds import stationary_matching as bounds
from matchgym.bounds.rational import CertificateError, exp_minus, poisson_tail, round_down, round_up

KINDS = list(bounds.FORMS)


# Rational arithmetic.


@pytest.mark.parametrize("x", ["0", "1/1000000000", "1/3", "1", "17/4", "50", "700", "100000"])
def test_exp_minus_encloses(x):
    low, high = exp_minus(Fraction(x))
    assert 0 <= low <= high <= 1
    assert float(low) == pytest.approx(math.exp(-float(Fraction(x))), rel=1e-15, abs=1e-70)
    assert high - low <= Fraction(1, 2**200)
    other_low, other_high = exp_minus(Fraction(x) / 2)  # e^-x = (e^-x/2)^2
    assert other_low**2 <= high
    assert low <= other_high**2


def test_exp_minus_is_a_strict_enclosure_of_the_series():
    x = Fraction(3, 7)
    partial, term = Fraction(0), Fraction(1)
    sums = []
    for k in range(1, 80):
        partial += term
        sums.append(partial)
        term *= -x / k
    low, high = exp_minus(x)
    assert low <= max(sums[-1], sums[-2])
    assert high >= min(sums[-1], sums[-2])


@pytest.mark.parametrize(("mean", "count"), [(1, 12), (1, 0), (1, 1), (30, 70), (0, 1)])
def test_poisson_tail(mean, count):
    assert float(poisson_tail(Fraction(mean), count)) == pytest.approx(stats.poisson(mean).sf(count - 1), rel=1e-9)


@pytest.mark.parametrize(("mean", "count"), [(215, 318), (225, 330), (262, 350), (300, 350), (500, 600)])
def test_poisson_tails_of_long_queues(mean, count):
    """Where e^-mean is below the resolution of its enclosure, the bound is still near the tail."""
    tail, truth = float(poisson_tail(Fraction(mean), count)), stats.poisson(mean).sf(count - 1)
    assert truth * (1 - 1e-9) <= tail <= 1.1 * truth


def test_directed_rounding():
    third = Fraction(1, 3)
    assert Fraction(round_down(third)) < third < Fraction(round_up(third))
    assert math.nextafter(round_down(third), 1) == round_up(third)
    assert round_up(Fraction(1, 2)) == round_down(Fraction(1, 2)) == 0.5


# Certificates.


def tampered(certificate, rng):
    """The same certificate with some multipliers changed at random, signs included."""

    def change(value):
        return value * float(rng.normal(1, 2)) if rng.uniform() < 0.4 else value

    return {
        "alpha": [change(value) for value in certificate["alpha"]],
        "z": [[i, j, change(value)] for i, j, value in certificate["z"] if rng.uniform() < 0.9],
        "beta": [[j, subset, change(value)] for j, subset, value in certificate["beta"] if rng.uniform() < 0.9],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_tampered_multipliers_never_prove_a_false_bound(kind):
    rng = np.random.default_rng(1)
    for seed in range(6):
        instance = random_instance(seed, n=3, m=3)
        found = bounds.bound(instance, kind)
        value = (instance.rewards * found.solution["x"]).sum()
        for _ in range(20):
            proof = found.prove(instance, tampered(found.certificate, rng))
            assert proof.upper >= Fraction(value) * (1 - Fraction(1, 10**9))


def test_negative_multipliers_count_as_nothing():
    """Where every reduced cost is negative, a negative multiplier would otherwise lower the bound at will."""
    instance = bounds.MODEL.load("demo")
    plain = {"alpha": [100.0, 100.0], "z": [], "beta": []}
    truth = bounds.PROVERS["tlp-online"](instance, plain).upper
    for change in ({"beta": [[0, [0], -1000.0]]}, {"z": [[0, 0, -1000.0]]}):
        assert bounds.PROVERS["tlp-online"](instance, {**plain, **change}).upper == truth


def test_tampered_values_are_caught():
    found = bounds.tlp_online("demo")
    lower = math.nextafter(found.certified_value, 0)
    for change in ({"upper": lower}, {"upper": found.upper * 1.5}, {"certificate": {**found.certificate, "alpha": [0.0, 0.0]}}):
        with pytest.raises(CertificateError, match="proves"):
            dataclasses.replace(found, **change).verify()
    for change in ({"value": 0.1}, {"value": math.nan}, {"kind": "tlp-offline"}, {"sense": "lower"}):
        with pytest.raises(CertificateError):
            dataclasses.replace(found, **change).verify()


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": [1.0]},
        {"alpha": [math.nan, 1.0]},
        {"alpha": None},
        {"z": None},
        {"z": [[]]},
        {"beta": 3},
        {"alpha": ["1", 1.0]},
        {"z": [[0, 9, 1.0]]},
        {"beta": [[0, [-1], 1.0]]},
        {"beta": [[0, [0], math.inf]]},
    ],
)
def test_malformed_certificates_are_refused(change):
    found = bounds.tlp_online("demo")
    with pytest.raises(CertificateError):
        dataclasses.replace(found, certificate={**found.certificate, **change}).verify()


def test_certificates_may_only_use_the_constraints_of_their_kind():
    instance = bounds.MODEL.load("demo")
    online = bounds.tlp_online(instance).certificate
    with pytest.raises(CertificateError, match=r"constraint \(3\)"):
        bounds.PROVERS["tlp-offline"](instance, online)
    with pytest.raises(CertificateError, match=r"constraint \(2\)"):
        bounds.PROVERS["fluid"](instance, {**online, "beta": [[0, [0], 1.0]]})


def test_bracket_from_any_h_is_valid():
    """A certificate with a wrong h proves a wider bracket, never a false one."""
    rng = np.random.default_rng(0)
    found = bounds.optimum(random_instance(2, n=2, m=2))
    truth = found.value
    for _ in range(20):
        h = [int(value) + int(rng.integers(-(2**58), 2**58)) for value in found.certificate["h"]]
        proof = found.prove(found.instance, {**found.certificate, "h": h})
        assert proof.lower <= truth <= proof.upper
    with pytest.raises(CertificateError):
        dataclasses.replace(found, upper=found.lower).verify()
    with pytest.raises(CertificateError):
        found.prove(found.instance, {**found.certificate, "caps": [0, 1]})
    with pytest.raises(CertificateError):
        found.prove(found.instance, {**found.certificate, "h": found.certificate["h"][:-1]})


@pytest.mark.parametrize("value", [0.0, 6.4e-5, 1.5e-4, -3e-5, None, "6.3e-5"])
def test_a_tampered_value_of_a_small_bound_is_caught(value):
    """The tolerance is relative: B1 with n = 100 earns 6.3212e-5 per unit of time."""
    found = bounds.tlp_online("b1-100")
    with pytest.raises(CertificateError, match="value"):
        dataclasses.replace(found, value=value).verify()


@pytest.mark.parametrize("multiplier", [10**400, 1.7e308, -1.7e308])
def test_absurd_multipliers_are_refused(multiplier):
    found = bounds.tlp_online("demo")
    certificate = found.certificate | {"alpha": [multiplier, 0.0]}
    with pytest.raises(CertificateError):
        dataclasses.replace(found, certificate=certificate).verify()
