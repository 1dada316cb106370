"""Instances of Euclidean matching, on a line or in a square of side 1.

All are stylised; `uniform` is seeded and reproducible. They state a throughput price: the dual of `optimum`, or else of
`dlp-tilde`, at the target, rounded.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Fields = dict[str, Any]


def _fields(
    name: str,
    supplier_locations: Any,
    customer_locations: Any,
    supplier_rates: Any,
    customer_rates: Any,
    abandonment_rate: float,
    target: float,
    price: float | None = None,
) -> Fields:
    return {
        "model": "euclidean_matching",
        "name": name,
        "supplier_rates": np.asarray(supplier_rates, float).tolist(),
        "abandonment_rate": abandonment_rate,
        "customer_rates": np.asarray(customer_rates, float).tolist(),
        "supplier_locations": np.asarray(supplier_locations, float).tolist(),
        "customer_locations": np.asarray(customer_locations, float).tolist(),
        "throughput_target": target,
        "throughput_price": price,
    }


def toy() -> Fields:
    """On a line, a supplier at 0, a customer at 0.5, all rates 1: throughput at most 0.41802..., each match costs 0.5.

    The number waiting is a birth-death chain with births 1 and deaths l + 1 if everybody is served, so that Pr[L = 0] is
    1 / (e - 1): at the price 1 the best reward is (1 - 1 / (e - 1)) (1 - 0.5) per unit of time.
    """
    return _fields("toy", [[0.0]], [[0.5]], [1.0], [1.0], 1.0, 0.4, 1.0)


def corners() -> Fields:
    """Two suppliers at opposite corners, two customers near them and one in the middle; small enough for the exact optimum."""
    suppliers, customers = [[0.0, 0.0], [1.0, 1.0]], [[0.1, 0.0], [1.0, 0.8], [0.5, 0.5]]
    return _fields("corners", suppliers, customers, [1.0, 2.0], [1.0, 1.0, 1.5], 1.0, 1.6, PRICES["corners"])


def line() -> Fields:
    """Three suppliers and four customers on a line, in two clusters with a gap between them; the exact optimum is known."""
    suppliers, customers = [[0.1], [0.2], [0.9]], [[0.05], [0.25], [0.6], [0.95]]
    return _fields("line", suppliers, customers, [1.0, 0.6, 1.2], [0.8, 0.8, 0.5, 1.0], 1.0, 1.4, PRICES["line"])


def uniform(n: int, m: int, dimension: int, seed: int, load: float = 0.6, name: str = "") -> Fields:
    """Places uniform in the unit cube, rates uniform on (0.5, 1.5), abandonment 1; the target is `load` of the scarcer side."""
    rng = np.random.default_rng(seed)
    suppliers, customers = rng.uniform(size=(n, dimension)).round(4), rng.uniform(size=(m, dimension)).round(4)
    supplier_rates, customer_rates = rng.uniform(0.5, 1.5, n).round(3), rng.uniform(0.5, 1.5, m).round(3)
    target = round(load * float(min(supplier_rates.sum(), customer_rates.sum())), 3)
    name = name or f"{('line', 'plane', 'space')[dimension - 1] if dimension <= 3 else f'cube{dimension}'}-{n}x{m}"
    return _fields(name, suppliers, customers, supplier_rates, customer_rates, 1.0, target, PRICES.get(name))


def town() -> Fields:
    """Couriers and meal orders in a town of 5 km by 5 km: restaurants around three centres; the unit of time is a minute.

    All numbers are stylised. 60 places where couriers become idle and 60 restaurants with orders, each drawn around one of
    three centres (seed 11). Orders come at 6 a minute, couriers become idle at 7 a minute; an idle courier takes another
    platform's order after 10 minutes on average, and an order that finds no courier at once is lost. Costs are straight
    distances in units of 5 km. The target is 80 % of all orders.
    """
    rng = np.random.default_rng(11)
    centres, shares = np.array([[0.3, 0.35], [0.7, 0.6], [0.45, 0.8]]), np.array([0.5, 0.3, 0.2])

    def places(spread: float) -> Any:
        around = centres[rng.choice(3, 60, p=shares)]
        return (around + rng.normal(0, spread, (60, 2))).clip(0, 1).round(4)

    suppliers, customers = places(0.14), places(0.08)
    couriers, orders = rng.gamma(2.0, size=60), rng.gamma(1.0, size=60) + 0.1
    rates = (7 * couriers / couriers.sum()).round(4), (6 * orders / orders.sum()).round(4)
    return _fields("town", suppliers, customers, *rates, 0.1, 4.8, PRICES["town"])


PRICES = {"corners": 1.0246, "line": 0.4768, "plane-12x12": 0.3581, "town": 0.2033, "plane-200x200": 0.0846}

CATALOGUE: dict[str, Callable[[], Fields]] = {
    "corners": corners,
    "toy": toy,
    "line": line,
    "plane-12x12": partial(uniform, 12, 12, 2, seed=3),
    "town": town,
    "plane-200x200": partial(uniform, 200, 200, 2, seed=1),
}
