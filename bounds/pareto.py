"""The Pareto frontier of cost and throughput of matching queues, as far as it can be had."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from matchgym.bounds.matching_queues import dlp_tilde, joint_block
from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import QueueNetwork, load
from matchgym.envs.single_queue import FLAT, Point, Rest, static_throughput

SMALL_STATES = 1_500  # joint states up to which the hull of a network is walked
MAX_VERTICES = 400
GRID = 25  # targets of a lower bound


@dataclass(frozen=True)
class Frontier:
    """A convex curve, linear between its points (throughput, cost): c if the kind is "optimum", else a lower bound on it."""

    kind: str
    points: list[tuple[float, float]]


def frontier(instance: Any, progress: Callable[[float], None] | None = None) -> Frontier:
    """All vertices of c for one queue and small networks, else the bound `dlp-tilde` on a grid of targets."""
    instance = load(instance)
    block = joint_block(instance)
    if block is not None and (instance.n_suppliers == 1 or math.prod(cap + 1 for cap in block.caps) <= SMALL_STATES):
        most: Point = block.best(np.ones(instance.costs.shape))
        vertices = hull(lambda price: block.best(price - instance.costs), Rest(), most)
        return Frontier("optimum", [(point.throughput, point.cost) for point in vertices])
    points = [(0.0, 0.0)]
    for k in range(1, GRID + 1):
        target = largest_throughput(instance) * min(k / GRID, 1 - 1e-6)
        try:
            points.append((target, dlp_tilde(dataclasses.replace(instance, throughput_target=target)).value))
        except InputError:  # with different abandonment rates the largest throughput is only bounded
            break
        if progress is not None:
            progress(k / GRID)
    return Frontier("dlp-tilde", points)


def largest_throughput(instance: QueueNetwork) -> float:
    """That of the pooled queue: the largest there is if abandonment rates agree, else a bound on it."""
    return static_throughput(
        float(instance.supplier_rates.sum()), float(instance.departure_rates.min()), float(instance.customer_rates.sum())
    )


def hull(solve: Callable[[float], Point], left: Point, right: Point) -> list[Point]:
    """Vertices of the lower hull from `left` to `right`, the widest gaps first, MAX_VERTICES of them at most."""
    vertices, open_gaps = [left, right], [(left, right)]
    while open_gaps and len(vertices) < MAX_VERTICES:
        open_gaps.sort(key=lambda gap: gap[1].throughput - gap[0].throughput)
        low, high = open_gaps.pop()
        width = high.throughput - low.throughput
        if width <= FLAT * right.throughput:
            continue
        price = max(0.0, (high.cost - low.cost) / width)
        found = solve(price)
        if price * (found.throughput - low.throughput) - (found.cost - low.cost) <= FLAT * (
            price * high.throughput + high.cost
        ):
            continue
        if found.throughput >= right.throughput * (1 - FLAT):  # as many matches at less cost
            vertices[vertices.index(right)] = found
            right = found
            open_gaps.append((low, found))
            continue
        vertices.append(found)
        open_gaps += [(low, found), (found, high)]
    return sorted(vertices, key=lambda point: point.throughput)
