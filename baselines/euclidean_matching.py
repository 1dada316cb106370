"""Policies for Euclidean matching: the paper's algorithm with cells, rules that look at distances, and those of any network."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines import matching_queues as queues
from matchgym.baselines import priority_rounding
from matchgym.baselines.euclidean_cells import EuclideanCells
from matchgym.baselines.exact import best_of
from matchgym.baselines.exact import exact_value as exact_value  # for `scoring`
from matchgym.baselines.policy import Policy, compiled
from matchgym.baselines.preference_lists import PriorityPolicy, priority_kernel
from matchgym.envs.base import Model
from matchgym.envs.euclidean_matching import MODEL, EuclideanMatchingInstance
from matchgym.envs.instance import InputError

MAX_RADII = 24  # that `dispatch-radius` compares
FINEST_LEVEL = 40  # of the dyadic grid, squares of side 2^-40


class DistancePolicy(PriorityPolicy):
    """Base of the rules that look at distances only."""

    model: ClassVar[Model] = MODEL
    env_id: ClassVar[str] = "EuclideanMatching-v0"
    instance: EuclideanMatchingInstance  # type: ignore[assignment]


@compiled(__file__, priority_kernel)
class NearestNeighbour(DistancePolicy):
    """The nearest waiting supplier, if not further away than `radius`; without a radius everybody is served."""

    def __init__(self, radius: float | None = None) -> None:
        if radius is not None and not radius >= 0:
            raise InputError(f"radius must be >= 0, not {radius:g}.")
        self.radius = radius

    def _prepare(self) -> None:
        costs = self.instance.costs
        self._follow(costs <= (np.inf if self.radius is None else self.radius), -costs)


@compiled(__file__, priority_kernel)
class DispatchRadius(DistancePolicy):
    """The nearest waiting supplier within the radius that earns most, which is found when fitting.

    Candidates are distances of the instance up to theta; they are compared exactly where the chain is small, else by
    simulation. `radius_` is the best.
    """

    def _prepare(self) -> None:
        costs, price = self.instance.costs, self.instance.price
        radii = np.unique(costs[costs <= price])
        if len(radii) > MAX_RADII:
            radii = np.quantile(radii, np.linspace(0, 1, MAX_RADII), method="nearest")
        radii = radii if len(radii) else np.zeros(1)
        rules = [NearestNeighbour(float(radius)).fit(self.instance) for radius in radii]
        self.radius_ = float(radii[rules.index(best_of(rules, self.env_id))])
        self._follow(costs <= self.radius_, -costs)


@compiled(__file__, priority_kernel)
class HierarchicalGreedy(DistancePolicy):
    """The nearest waiting supplier in the smallest aligned square of side 1, 1/2, 1/4, ... around the customer that has one.

    `levels_` (n, m) is the largest k such that supplier and customer share a square of side 2^-k.
    """

    def _prepare(self) -> None:
        costs = self.instance.costs
        self.levels_ = shared_levels(self.instance.supplier_locations, self.instance.customer_locations)
        rank = np.empty(costs.shape)
        for j in range(costs.shape[1]):
            rank[np.lexsort((costs[:, j], -self.levels_[:, j])), j] = np.arange(len(costs))
        self._follow(np.ones(costs.shape, np.bool_), -rank)


def shared_levels(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.int64]:
    """The largest k <= FINEST_LEVEL (n, m) such that a point and another lie in one aligned cube of side 2^-k."""
    # The far side of the cube belongs to the last square of every level.
    end = 2**FINEST_LEVEL
    a, b = (np.minimum(np.floor(x * end), end - 1).astype(np.int64) for x in (points, others))
    differing = np.bitwise_or.reduce(a[:, None, :] ^ b[None, :, :], axis=2)
    return FINEST_LEVEL - np.frexp(differing.astype(float))[1]


class Greedy(queues.Greedy):
    """The nearest waiting supplier, if closer than theta: the largest reward theta - distance > 0."""

    model: ClassVar[Model] = MODEL


class Random(queues.Random):
    """A valid action, each equally likely."""

    model: ClassVar[Model] = MODEL


class StaticThreshold(queues.StaticThreshold):
    """Customer types near to some supplier always, one with probability p, others never; each by the nearest waiting supplier.

    The rule (k, p) that meets the throughput target in the pooled queue, where every customer is as far away as from the
    nearest supplier type.
    """

    model: ClassVar[Model] = MODEL


class PriceGreedy(queues.PriceGreedy):
    """The waiting supplier of largest theta - distance - d_i(l_i) > 0, d_i(l) the worth of the l-th supplier of queue i."""

    model: ClassVar[Model] = MODEL


class NLPStatic(queues.NLPStatic):
    """Each customer tries one queue, by the match rates of the Network LP, whatever waits."""

    model: ClassVar[Model] = MODEL


class PriorityRounding(priority_rounding.PriorityRounding):
    """Algorithm 1 on the whole network: short queues as the Network LP has them, long ones at a discount, virtual buffers."""

    model: ClassVar[Model] = MODEL


class Optimal(queues.Optimal):
    """The best policy for the objective theta tau - c, from average-reward dynamic programming; small instances only."""

    model: ClassVar[Model] = MODEL


POLICIES: dict[str, type[Policy]] = {
    "greedy": Greedy,  # the anchor of scores
    "random": Random,
    "nearest-neighbour": NearestNeighbour,
    "dispatch-radius": DispatchRadius,
    "hierarchical-greedy": HierarchicalGreedy,
    "static-threshold": StaticThreshold,
    "price-greedy": PriceGreedy,
    "nlp-static": NLPStatic,
    "priority-rounding": PriorityRounding,
    "euclidean-cells": EuclideanCells,
    "optimal": Optimal,
}
