"""Which differences between rows are real: paired t tests, Holm's correction, rank intervals and tiers."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

LEVEL = 0.05  # probability of any false claim within a family of tests


def paired_p_value(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p-value of Student's paired t test of equal means; the entries (R,) belong together, R >= 2."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(len(difference))
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2 * stdtr(len(difference) - 1, -abs(mean / error)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the k-th smallest of m becomes the largest of (m - i + 1) p_(i) over i <= k, at most 1.

    Rejecting those <= LEVEL keeps the probability of any false rejection <= LEVEL, whatever the dependence of the tests.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for k, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def beats(values: Sequence[ArrayLike]) -> NDArray[np.bool_]:
    """Entry (i, j) says whether row i is significantly better than row j, over all pairs of rows at once.

    The family is the paired tests of all pairs, Holm-adjusted at LEVEL.
    """
    pairs = list(combinations(range(len(values)), 2))
    adjusted = holm([paired_p_value(values[i], values[j]) for i, j in pairs])
    means = [float(np.asarray(row, float).mean()) for row in values]
    found = np.zeros((len(values), len(values)), np.bool_)
    for (i, j), p in zip(pairs, adjusted):
        if p <= LEVEL:
            found[(i, j) if means[i] > means[j] else (j, i)] = True
    return found


def rank_intervals(beaten: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(best, worst) rank of each row: 1 + the number of rows that beat it, and n - the number of rows that it beats.

    With probability >= 1 - LEVEL every true rank lies in its interval, as all pairs were tested at once.
    """
    n = len(beaten)
    return [(1 + int(beaten[:, i].sum()), n - int(beaten[i].sum())) for i in range(n)]


def tiers(beaten: NDArray[np.bool_]) -> list[int]:
    """The tier, from 1, of each row; rows must come in order of their means, best first.

    The first row leads tier 1. A row that the leader of the present tier beats leads the next tier; any other row joins the
    leader's tier. Within a tier the order is therefore not significant against its leader.
    """
    found, leader = [1] * len(beaten), 0
    for i in range(1, len(beaten)):
        found[i] = found[i - 1]
        if beaten[leader, i]:
            leader, found[i] = i, found[i - 1] + 1
    return found
