"""Which differences between rows are real: paired t tests, Holm's correction, simultaneous rank intervals and tiers.

Rows may have been measured on different numbers of replications: each is a sample (R_i,) whose entry b is of replication b, and
two rows are compared on the replications that both have. An aggregate over tasks is a row with one such sample per task.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

LEVEL = 0.05  # probability of any false claim within a family of tests
RESAMPLES, RESAMPLING_SEED = 2000, 20_260_101
BLOCK = 256  # replications whose signs are drawn together
ROUNDING = 1e-12  # relative, of what is computed in two ways

Sample = NDArray[np.float64]
Row = Sequence[Sample]  # one sample per task


def paired_p_value(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p-value of Student's paired t test of equal means; the entries (R,) belong together, R >= 2."""
    difference = gaps(np.asarray(first, float), np.asarray(second, float))
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


def gaps(first: Sample, second: Sample) -> Sample:
    """first - second, where differences within the rounding of sums of rewards are none."""
    found = first - second
    return np.where(np.abs(found) <= ROUNDING * np.maximum(np.abs(first), np.abs(second)), 0.0, found)


def statistic(first: Row, second: Row) -> float:
    """t of the mean over tasks of first - second, in pairs of replications; tasks have independent seeds.

    0 if the two are equal, infinite if they differ by the same everywhere.
    """
    mean = variance = 0.0
    for a, b in zip(first, second, strict=True):
        n = min(len(a), len(b))
        difference = gaps(a[:n], b[:n])
        mean += float(difference.mean()) / len(first)
        variance += float(difference.var(ddof=1)) / n / len(first) ** 2
    if variance == 0.0:
        return 0.0 if mean == 0.0 else float(np.copysign(np.inf, mean))
    return mean / float(np.sqrt(variance))


def beats(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Entry (i, j) says whether row i is significantly better than row j, over all pairs of rows at once.

    Studentised max-|t| bootstrap: the law of the largest |t| over all pairs, if no row were better than another, is drawn
    RESAMPLES times by turning the signs of whole replications at random, the same for all rows, so that it has the rows'
    correlations. If differences are symmetric around 0 that is exact for any number of replications. Pairs with fewer
    replications have heavier tails; a largest |t| is therefore taken on the scale of p-values.
    """
    n = len(rows)
    found = np.zeros((n, n), np.bool_)
    pairs = list(combinations(range(n), 2))
    if not pairs:
        return found
    first, second = np.array(pairs).T
    sizes = np.array([[min(len(a), len(b)) for a, b in zip(rows[i], rows[j])] for i, j in pairs])  # (pairs, tasks)
    smallest = np.ones(RESAMPLES)
    for kind in np.unique(sizes, axis=0):
        chosen = np.flatnonzero((sizes == kind).all(1))
        largest = _largest(rows, first[chosen], second[chosen], kind)
        smallest = np.minimum(smallest, 2 * stdtr(kind.min() - 1, -largest))
    critical = np.quantile(smallest, LEVEL, method="lower")
    for (i, j), kind in zip(pairs, sizes):
        t = statistic(rows[i], rows[j])
        if 2 * stdtr(kind.min() - 1, -abs(t)) < critical * (1 - ROUNDING):
            found[(i, j) if t > 0 else (j, i)] = True
    return found


def _largest(
    rows: Sequence[Row], first: NDArray[np.int64], second: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Draws (RESAMPLES,) of the largest |t| over pairs that are compared on `sizes` replications of the tasks."""
    used, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    first, second = places[: len(first)], places[len(first) :]
    signs = [
        np.hstack([_signs(task, block) for block in range(-(-size // BLOCK))])[:, :size] for task, size in enumerate(sizes)
    ]
    largest = np.zeros(RESAMPLES)
    tables = [np.array([rows[k][task][:size] for k in used]) for task, size in enumerate(sizes)]  # (rows, size) each
    centred = [table - table.mean(0) for table in tables]  # differences are unchanged, and digits saved
    turned = [table @ sign.T / len(table.T) for table, sign in zip(centred, signs)]  # (rows, RESAMPLES) each
    for a, b in zip(np.array_split(first, len(first) // 200 + 1), np.array_split(second, len(first) // 200 + 1)):
        mean, variance = np.zeros((len(a), RESAMPLES)), np.zeros((len(a), RESAMPLES))
        for table, turn, size in zip(tables, turned, sizes):
            squares = (gaps(table[a], table[b]) ** 2).mean(1)[:, None]
            part = np.where(squares > 0, turn[a] - turn[b], 0.0)
            mean += part
            variance += (squares - part**2) / (size - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(mean) / np.sqrt(np.maximum(variance, 0))
        largest = np.maximum(largest, np.nan_to_num(t, nan=0.0, posinf=np.inf).max(0))
    return largest


@lru_cache(maxsize=64)
def _signs(task: int, block: int) -> NDArray[np.float64]:
    """Random signs (RESAMPLES, BLOCK) of BLOCK replications of a task, the same for all comparisons."""
    seed = (RESAMPLING_SEED, task, block) if block else (RESAMPLING_SEED, task)
    return 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (RESAMPLES, BLOCK), np.int8)


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
