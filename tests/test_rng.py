"""The random stream is numpy's SFC64 bit for bit, and every sampler has the law of scipy.stats."""

import math

import numba
import numpy as np
import pytest
from scipy import stats

from matchgym.envs.rng import (
    TAIL,
    alias_table,
    binomial,
    exponential,
    logarithm,
    next_word,
    pick,
    poisson,
    seed_words,
    uniform,
    ziggurat,
)

LEVEL = 1e-4  # of each goodness-of-fit test; the seeds are fixed, so a pass is a pass for ever
DRAWS = 200_000


@numba.njit
def words(stream, out):
    for k in range(len(out)):
        out[k] = next_word(stream, 0)


@numba.njit
def uniforms(stream, out):
    for k in range(len(out)):
        out[k] = uniform(stream, 0)


@numba.njit
def exponentials(stream, out):
    for k in range(len(out)):
        out[k] = exponential(stream, 0)


@numba.njit
def poissons(stream, mean, out):
    for k in range(len(out)):
        out[k] = poisson(stream, 0, mean)


@numba.njit
def binomials(stream, n, p, out):
    for k in range(len(out)):
        out[k] = binomial(stream, 0, n, p)


@numba.njit
def picks(stream, threshold, alias, out):
    for k in range(len(out)):
        out[k] = pick(uniform(stream, 0), threshold, alias)


def stream(seed: int) -> np.ndarray:
    return seed_words(seed)[None].copy()


def fits(draws: np.ndarray, law) -> bool:
    """Chi-square test of integer draws against a scipy law, cells with expectation >= 20, the rest pooled."""
    values = np.arange(law.ppf(1e-12), law.ppf(1 - 1e-12) + 1)
    expected = law.pmf(values) * len(draws)
    cells = values[expected >= 20]
    observed = [np.sum(draws == cell) for cell in cells]
    observed.append(len(draws) - sum(observed))
    expected = np.append(expected[expected >= 20], len(draws) - expected[expected >= 20].sum())
    keep = expected > 1
    statistic = ((np.array(observed) - expected) ** 2 / np.maximum(expected, 1e-12))[keep].sum()
    assert np.array(observed)[~keep].sum() <= 10
    return keep.sum() < 2 or stats.chi2.sf(statistic, keep.sum() - 1) > LEVEL


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63])
def test_words_are_numpys_sfc64(seed):
    out = np.empty(1000, np.uint64)
    words(stream(seed), out)
    assert (out == np.random.SFC64(seed).random_raw(1000)).all()


def test_uniform_is_numpys_random():
    out = np.empty(1000)
    uniforms(stream(7), out)
    assert (out == np.random.Generator(np.random.SFC64(7)).random(1000)).all()


def test_exponential_law():
    out = np.empty(10 * DRAWS)
    exponentials(stream(1), out)
    assert stats.kstest(out, "expon").pvalue > LEVEL
    tail = out[out > 7.7]  # beyond the layers, the same law begins anew
    assert len(tail) > 500
    assert stats.kstest(tail - 7.7, "expon").pvalue > LEVEL


def test_exponential_is_numpys_standard_exponential_up_to_rounding():
    """Numpy's tables bear errors of a few units in the last place."""
    out = np.empty(10 * DRAWS)
    exponentials(stream(5), out)
    theirs = np.random.Generator(np.random.SFC64(5)).standard_exponential(len(out))
    np.testing.assert_allclose(out, theirs, rtol=2e-15, atol=0)


def test_layers_of_the_ziggurat_have_one_area():
    """Each layer is as wide as the curve at its lower height; the lowest has the tail below it."""
    widths, _, heights = ziggurat()
    x = widths * 2.0**53
    area = (TAIL + 1) * math.exp(-TAIL)
    np.testing.assert_allclose(heights[1:], np.exp(-x[1:]), rtol=1e-14)
    np.testing.assert_allclose(x[1:] * (heights[:-1] - heights[1:]), area, rtol=1e-11)
    assert x[0] * heights[255] == pytest.approx(area, rel=1e-14)
    assert x[255] == TAIL


@numba.njit
def logarithms(x, out):
    for k in range(len(x)):
        out[k] = logarithm(x[k])


def test_logarithm_is_within_one_unit_in_the_last_place():
    rng = np.random.default_rng(0)
    near, far = 1 - rng.uniform(0, 1e-6, 50_000), 10 ** rng.uniform(-300, 300, 50_000)
    edges = [1.0, math.nextafter(1.0, 0), math.sqrt(0.5), math.nextafter(math.sqrt(0.5), 0)]
    x = np.concatenate([1 - rng.uniform(0, 1, 200_000), near, far, 2.0 ** -np.arange(54), edges])
    out = np.empty_like(x)
    logarithms(x, out)
    truth = np.array([math.log(value) for value in x])
    assert (np.abs(out - truth) <= np.spacing(np.abs(truth))).all()


@pytest.mark.parametrize("mean", [0.0, 1e-6, 0.3, 1.0, 4.5, 9.99, 10.0, 17.3, 80.0, 1234.5, 1e6])
def test_poisson_law(mean):
    out = np.empty(DRAWS, np.int64)
    poissons(stream(2), mean, out)
    if mean == 0:
        assert not out.any()
    elif mean < 1000:
        assert fits(out, stats.poisson(mean))
    else:  # too many cells: compare distribution functions, a conservative test for a discrete law
        grid = stats.poisson(mean).ppf(np.linspace(0.01, 0.99, 99))
        gaps = np.abs([np.mean(out <= x) - stats.poisson(mean).cdf(x) for x in grid])
        assert gaps.max() < stats.kstwobign.isf(LEVEL) / np.sqrt(DRAWS)


@pytest.mark.parametrize(
    ("n", "p"),
    [
        (0, 0.5),
        (1, 0.3),
        (5, 0.0),
        (5, 1.0),
        (12, 0.5),
        (12, 0.97),
        (19, 0.52),
        (20, 0.5),
        (40, 0.26),
        (100, 0.5),
        (500, 0.9),
        (10**6, 3e-6),
    ],
)
def test_binomial_law(n, p):
    out = np.empty(DRAWS, np.int64)
    binomials(stream(3), n, p, out)
    if p in (0.0, 1.0) or n == 0:
        assert (out == n * p).all()
    else:
        assert fits(out, stats.binom(n, p))


@pytest.mark.parametrize("rates", [[1.0], [1.0, 1.0], [0.1, 5.0, 2.0, 1e-3], list(range(1, 60))])
def test_alias_table_is_exact(rates):
    threshold, alias = alias_table(rates)
    law = np.zeros(len(rates))
    for i, keep in enumerate(threshold):
        law[i] += keep / len(rates)
        law[alias[i]] += (1 - keep) / len(rates)
    assert np.allclose(law, np.array(rates) / np.sum(rates), rtol=0, atol=1e-15)
    out = np.empty(DRAWS, np.int64)
    picks(stream(4), threshold, alias, out)
    assert fits(out, stats.rv_discrete(values=(np.arange(len(rates)), law)))


def test_samplers_tell_a_wrong_law():
    """The goodness-of-fit test has power: a Poisson of mean 4.5 is not one of mean 4.55."""
    out = np.empty(DRAWS, np.int64)
    poissons(stream(2), 4.5, out)
    assert not fits(out, stats.poisson(4.55))
