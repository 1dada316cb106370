"""Instances of stationary bipartite matching.

B1, B3, B5 are the examples of Appendix B of arXiv 2411.08218, at any size n; `b5eps` makes the trap of B5 unavoidable. The
families (`random_market`, `ride_hailing`) are seeded and reproducible. `organ_abo` rests on published transplant statistics.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Fields = dict[str, Any]


def _fields(name: str, supplier_rates: Any, departure_rates: Any, customer_rates: Any, rewards: Any) -> Fields:
    return {
        "model": "stationary_matching",
        "name": name,
        "supplier_rates": np.asarray(supplier_rates, float).tolist(),
        "departure_rates": np.asarray(departure_rates, float).tolist(),
        "customer_rates": np.asarray(customer_rates, float).tolist(),
        "rewards": np.asarray(rewards, float).tolist(),
    }


def toy() -> Fields:
    """One supplier type, one customer type, all rates 1: every policy that never idles earns 1 - 1/(e - 1) = 0.41802..."""
    return _fields("toy", [1.0], [1.0], [1.0], [[1.0]])


def demo() -> Fields:
    """Two supplier types and three customer types, small enough for the exact optimum, where reward-greedy wastes suppliers."""
    return _fields("demo", [1.0, 0.6], [0.1, 0.25], [2.0, 0.8, 0.3], [[1.0, 2.0, 8.0], [0.6, 3.0, 4.0]])


def b1(n: int) -> Fields:
    """Example B.1: n scarce supplier types, one rare customer; TLP_on / (flow LP) -> 1 - 1/e."""
    return _fields(f"b1-{n}", np.full(n, 1 / n), np.ones(n), [n**-2.0], np.ones((n, 1)))


def b3(n: int) -> Fields:
    """Example B.3: the independent reference chain loses 1/e, the true Algorithm 1 does not (n >= 2)."""
    return _fields(f"b3-{n}", np.full(n, n**-0.5), np.ones(n), [math.sqrt(n) - 1], np.ones((n, 1)))


def b5(n: int) -> Fields:
    """Example B.5: with the degenerate optimal solution that wastes suppliers, Algorithm 1 earns 1 - 1/e of the optimum."""
    return b5eps(n, 0.0) | {"name": f"b5-{n}"}


def b5eps(n: int, reward: float = 0.01) -> Fields:
    """Example B.5 with r_jj = `reward` in (0, 1/2) in place of 0, which makes the wasteful solution the only optimal one."""
    rewards = np.hstack([np.diag(np.full(n, reward)), np.ones((n, 1))])
    return _fields(f"b5eps-{n}", np.ones(n), np.ones(n), [float(n)] * n + [1.0], rewards)


def random_market(n_suppliers: int, n_customers: int, seed: int, density: float = 1.0) -> Fields:
    """Rates uniform on (0.5, 1.5), departures on (0.05, 0.5), rewards uniform on (0, 1) on a `density` share of the pairs."""
    rng = np.random.default_rng(seed)
    rewards = rng.uniform(0, 1, (n_suppliers, n_customers)) * (rng.uniform(size=(n_suppliers, n_customers)) < density)
    return _fields(
        f"random-{n_suppliers}x{n_customers}",
        rng.uniform(0.5, 1.5, n_suppliers),
        rng.uniform(0.05, 0.5, n_suppliers),
        rng.uniform(0.5, 1.5, n_customers),
        rewards,
    )


def organ_abo() -> Fields:
    """Deceased-donor livers for an average US donation service area; the unit of time is a month.

    Suppliers: patients, types 0-3 urgent and 4-7 standard, of blood groups O, A, B, AB. Customers: livers by
    group, in the same order.

    Cited, for the whole country and a year: 12,767 adults newly listed, 13,298 removed from the list, 12,828
    waiting (mean of its start, 13,093, and its end, 12,562), 8,896 transplants of which 524 from living donors,
    children included (OPTN/SRTR 2019 Annual Data Report: Liver). Blood groups O, A, B, AB are 47, 38, 12, 3 %
    of adult candidates and of donors (Lai and Roberts, Am. J. Transplant. 16:2430-2436, 2016).

    Derived: 13,298 removals less 8,372 deceased-donor transplants are a loss of 0.032 per patient and month.

    Stylised: the 58 areas are equal. A fifth of the listings are urgent; urgent patients leave at rate 0.3 and
    standard ones at 0.03, which keeps the mean near the derived one as few urgent patients wait. A transplant
    is worth 1 (urgent) or 0.6 (standard), less 0.05 if the group is compatible but not identical, and 0 if it
    is incompatible (O gives to all, A to A and AB, B to B and AB, AB to AB).
    """
    groups = np.array([0.47, 0.38, 0.12, 0.03])
    listed, donated = 12_767 / 58 / 12, (8_896 - 524) / 58 / 12
    urgent_share = 0.2
    can_receive = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]])  # (patient, donor)
    discount = 0.05 * (1 - np.eye(4))
    return _fields(
        "organ-abo",
        listed * np.concatenate([urgent_share * groups, (1 - urgent_share) * groups]),
        np.repeat([0.3, 0.03], 4),
        donated * groups,
        np.vstack([can_receive * (benefit - discount) for benefit in (1.0, 0.6)]),
    )


def ride_hailing(side: int, seed: int) -> Fields:
    """Idle drivers (suppliers) and riders (customers) on a side x side grid; the unit of time is a minute.

    Zone z is the block (z // side, z % side). All numbers are stylised. Riders: 0.4 per zone, spread by
    lognormal(0, 0.8) weights. Drivers become idle at 0.9 of that total, half of them in proportion to demand
    and half evenly, and log off after 15 minutes on average. A trip earns max(0, fare - 2.5 distance), with a
    fare uniform on (8, 16) per zone of the rider and the Manhattan distance in blocks; beyond 3 blocks it
    earns 0.
    """
    rng = np.random.default_rng(seed)
    n = side * side
    weights = rng.lognormal(0, 0.8, n).round(3)
    riders = (0.4 * n * weights / weights.sum()).round(4)
    fares = rng.uniform(8, 16, n).round(2)
    row, column = np.divmod(np.arange(n), side)
    distance = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    return _fields(
        f"ride-hailing-{side}x{side}",
        (0.9 * (0.5 * riders + 0.5 * 0.4)).round(4),
        np.full(n, 1 / 15),
        riders,
        np.where(distance <= 3, np.maximum(0, fares - 2.5 * distance), 0),
    )


CATALOGUE: dict[str, Callable[[], Fields]] = {
    "demo": demo,
    "toy": toy,
    **{f"b1-{n}": partial(b1, n) for n in (2, 10, 100)},
    **{f"b3-{n}": partial(b3, n) for n in (4, 100)},
    **{f"b5-{n}": partial(b5, n) for n in (2, 3, 10)},
    **{f"b5eps-{n}": partial(b5eps, n) for n in (2, 3, 10)},
    "random-3x4": partial(random_market, 3, 4, seed=7),
    "random-10x10": partial(random_market, 10, 10, seed=0),
    "random-40x40": partial(random_market, 40, 40, seed=0, density=0.5),
    "random-200x200": partial(random_market, 200, 200, seed=0, density=0.5),
    "organ-abo": organ_abo,
    "ride-hailing-5x5": partial(ride_hailing, 5, seed=0),
}
