"""Constraint (2) of the stationary matching programmes, one row per customer type j and set H of supplier types:

    y_j(H) <= 1 - exp(-rho(H))

The right-hand side is submodular in H, so that for each j the feasible y_j form a polymatroid: the most violated row is found
by sorting, and so is the best point for given weights (Edmonds' greedy algorithm).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VIOLATION = 1e-10  # of (2), relative, from which a row is worth adding
BY_SHARE, BY_WORTH = 5, 20  # rows added per round and customer type; more make the programme slow, fewer make more rounds


class Prefixes(NamedTuple):
    """The first 1, 2, ..., I supplier types of an order, as sets H of each customer type."""

    order: NDArray[np.int64]  # (I, J)
    slack: NDArray[np.float64]  # (I, J) 1 - left-hand side / right-hand side of (2), negative if violated

    @property
    def ratio(self) -> NDArray[np.float64]:
        """(J,) The largest left-hand side over right-hand side."""
        return 1.0 - self.slack.min(0)


def prefixes(y: NDArray[np.float64], offered: NDArray[np.float64], order: NDArray[np.int64]) -> Prefixes:
    """(2) at y (I, J) for the prefixes of a given order (I, J) of the supplier types."""
    left = np.take_along_axis(y, order, 0).cumsum(0)
    right = -np.expm1(-offered[order].cumsum(0))
    return Prefixes(order, 1.0 - left / right)


def worst_prefixes(y: NDArray[np.float64], offered: NDArray[np.float64]) -> Prefixes:
    """Separation of (2), for each customer type (Claim 2.2, Appendix C.2).

    Sort the supplier types by y_ij / rho_i, decreasing; only prefixes of that order can be the most violated set, or the one
    with the largest ratio of the two sides.
    """
    return prefixes(y, offered, np.argsort(-y / offered[:, None], axis=0, kind="stable"))


def greedy_prefixes(
    y: NDArray[np.float64], offered: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[Prefixes, NDArray[np.float64]]:
    """The prefixes of the order of decreasing weights (I, J), and the largest sum_i w_ij y_ij that (2) allows (J,).

    These are the rows that are tight at the best y for the weights.
    """
    order = np.argsort(-weights, axis=0, kind="stable")
    gains = np.diff(-np.expm1(-offered[order].cumsum(0)), axis=0, prepend=0.0)
    return prefixes(y, offered, order), (np.take_along_axis(weights, order, 0).clip(0) * gains).sum(0)


def violated(found: Prefixes, most: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Pairs (j, H): for each customer type, up to `most` violated prefixes, the most violated first."""
    for j in np.nonzero(found.slack.min(0) < -VIOLATION)[0].tolist():
        slack = found.slack[:, j]
        for last in np.argsort(slack)[:most]:
            if slack[last] > min(-VIOLATION, 0.1 * slack.min()):
                break
            yield j, found.order[: last + 1, j]
