"""Instances of matching on a graph where everybody waits."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

Fields = dict[str, Any]


def _fields(name: str, arrival_rates: Any, departure_rates: Any, rewards: Any) -> Fields:
    return {
        "model": "general_matching",
        "name": name,
        "arrival_rates": np.asarray(arrival_rates, float).tolist(),
        "departure_rates": np.asarray(departure_rates, float).tolist(),
        "rewards": np.asarray(rewards, float).tolist(),
    }


def toy() -> Fields:
    """One type that matches itself, all rates 1: matching at once is best; at most one node waits; 1/3 per unit of time.

    The queue goes from 0 to 1 at rate 1 (arrival) and back at rate 2 (match or departure), so that a node waits a third of the
    time.
    """
    return _fields("toy", [1.0], [1.0], [[1.0]])


def demo() -> Fields:
    """Three types, of which two prefer the third to each other: greedy matching wastes the partners of the better matches."""
    return _fields("demo", [0.6, 1.0, 0.3], [0.1, 0.3, 0.5], [[0.5, 1.0, 8.0], [1.0, 0.0, 3.0], [8.0, 3.0, 0.0]])


def two_sides(n: int, seed: int) -> Fields:
    """A bipartite graph: n supplier types (0 to n-1) and n customer types that wait for a shorter time; rewards on (0, 1)."""
    rng = np.random.default_rng(seed)
    rewards = np.zeros((2 * n, 2 * n))
    rewards[:n, n:] = rng.uniform(0, 1, (n, n)).round(3)
    arrivals, departures = rng.uniform(0.5, 1.5, 2 * n).round(3), rng.uniform(0.8, 1.6, 2 * n).round(3)
    departures[n:] *= 2
    return _fields(f"two-sides-{n}x{n}", arrivals, departures, rewards + rewards.T)


def random_graph(n: int, seed: int, density: float) -> Fields:
    """Rates uniform on (0.5, 1.5), departures on (0.2, 1), rewards on (0, 1) on a `density` share of the pairs."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.uniform(0, 1, (n, n)).round(3) * (rng.uniform(size=(n, n)) < density))
    rewards = upper + np.triu(upper, 1).T
    return _fields(f"random-{n}", rng.uniform(0.5, 1.5, n).round(3), rng.uniform(0.2, 1.0, n).round(3), rewards)


def kidney_abo() -> Fields:
    """Two-way kidney exchange between patient-donor pairs, by blood groups; the unit of time is a month.

    Type 4 p + d is a patient of group p and a donor of group d, groups O, A, B, AB. Two pairs are compatible when each donor's
    group suits the other's patient (O gives to all, A to A and AB, B to B and AB, AB to AB); a match is worth 2 transplants.

    Cited: groups O, A, B, AB are 48.14, 33.73, 14.28, 3.85 % of patients and of donors, and a group-compatible donor fails the
    crossmatch with probability 0.05, 0.10, 0.90 for patients of low, medium, high sensitisation, who are 70.19, 20, 9.81 %
    (Saidman, Roth, Sonmez, Unver, Delmonico, Transplantation 81:773-782, 2006).

    Derived: pairs come in proportion to p and d, group-compatible ones only if the crossmatch fails (14.3 %).

    Stylised: 100 couples a month of whom the incompatible ones enter; a pair stays for 12 months on average; crossmatches
    between pairs are negative.
    """
    shares = np.array([0.4814, 0.3373, 0.1428, 0.0385])
    fails = 0.7019 * 0.05 + 0.2 * 0.1 + 0.0981 * 0.9
    suits = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], bool)  # (patient, donor)
    pairs = list(product(range(4), range(4)))
    rates = [100 * shares[p] * shares[d] * (fails if suits[p, d] else 1.0) for p, d in pairs]
    rewards = [[2.0 * (suits[p, e] and suits[q, d]) for q, e in pairs] for p, d in pairs]
    return _fields("kidney-abo", np.round(rates, 4), np.full(16, round(1 / 12, 4)), rewards)


CATALOGUE: dict[str, Callable[[], Fields]] = {
    "demo": demo,
    "toy": toy,
    "two-sides-2x2": partial(two_sides, 2, seed=1),
    "two-sides-10x10": partial(two_sides, 10, seed=0),
    "random-3": partial(random_graph, 3, seed=0, density=0.7),
    "random-30": partial(random_graph, 30, seed=0, density=0.3),
    "kidney-abo": kidney_abo,
}
