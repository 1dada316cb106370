"""Instances of matching queues.

`hard` is the paper's instance of Figure 1(b) at any abandonment rate, `random_queue` draws one of Figure 1(a). The networks are
stylised; `random_network` is seeded and reproducible. They state a throughput price: the dual of `optimum`, or else of
`dlp-tilde`, at the target, rounded.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Fields = dict[str, Any]


def _fields(
    name: str,
    supplier_rates: Any,
    abandonment_rate: Any,
    customer_rates: Any,
    costs: Any,
    target: float,
    price: float | None = None,
) -> Fields:
    return {
        "model": "matching_queues",
        "name": name,
        "supplier_rates": np.asarray(supplier_rates, float).tolist(),
        "abandonment_rate": np.asarray(abandonment_rate, float).tolist(),
        "customer_rates": np.asarray(customer_rates, float).tolist(),
        "costs": np.asarray(costs, float).tolist(),
        "throughput_target": target,
        "throughput_price": price,
    }


def toy() -> Fields:
    """One queue, one customer type, all rates 1: throughput at most 1 - 1/(e - 1) = 0.41802..., each match costs 1."""
    return _fields("toy", [1.0], 1.0, [1.0], [[1.0]], 0.4, 2.0)


def hard(abandonment_rate: float) -> Fields:
    """The hard instance of Figure 1(b): a rule that ignores the queue pays up to twice the least cost, by abandonment rate."""
    return _fields(f"hard-{abandonment_rate:g}", [4.0], abandonment_rate, [2.4, 2.4, 7.2], [[0.0, 0.0, 1.0]], 3.0)


def random_queue(seed: int, target: float = 2.5) -> Fields:
    """Figure 1(a): lambda = 4, mu = 1, three customer types; rates with random increments and costs, both increasing."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(1, 2) + np.r_[0.0, rng.uniform(0, 2, 2).cumsum()]
    return _fields(f"random-queue-{seed}", [4.0], 1.0, rates, [np.sort(rng.uniform(0, 2, 3))], target)


def duo() -> Fields:
    """Two queues, three customer types, small enough for the exact optimum; the scarce queue is the cheap one."""
    return _fields("duo", [1.0, 3.0], 1.0, [1.0, 1.5, 2.0], [[0.0, 0.5, 1.5], [1.0, 0.25, 2.0]], 2.0, 1.8727)


def short_long() -> Fields:
    """A short and a long queue, two customer types: where Priority Rounding differs from its linear programme."""
    return _fields("short-long", [1.0, 8.0], 1.0, [2.0, 5.0], [[0.0, 0.5], [1.0, 0.8]], 5.5, 1.0491)


def random_network(n_suppliers: int, n_customers: int, seed: int, load: float = 0.5, price: float | None = None) -> Fields:
    """Rates uniform on (0.5, 2), costs uniform on (0, 2), abandonment 0.5; the target is `load` times the scarcer side."""
    rng = np.random.default_rng(seed)
    suppliers, customers = rng.uniform(0.5, 2, n_suppliers).round(3), rng.uniform(0.5, 2, n_customers).round(3)
    return _fields(
        f"random-{n_suppliers}x{n_customers}",
        suppliers,
        0.5,
        customers,
        rng.uniform(0, 2, (n_suppliers, n_customers)).round(3),
        round(load * float(min(suppliers.sum(), customers.sum())), 3),
        price,
    )


def couriers() -> Fields:
    """Idle couriers (suppliers) and meal orders (customers) in five districts on a line; the unit of time is a minute.

    All numbers are stylised. Downtown (the middle) has most orders, the outskirts most couriers; an idle courier logs off or
    takes another platform's order after 12 minutes on average, an order that finds no courier at once is lost. A match costs
    the minutes of the way: 3 within a district and 6 more for each district between. The target is 70 % of all orders.
    """
    orders = np.array([0.4, 0.8, 1.6, 0.8, 0.4])
    couriers = np.array([1.2, 0.9, 0.6, 0.9, 1.2])
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    return _fields("couriers", couriers, 1 / 12, orders, 3 + 6 * distance, round(0.7 * float(orders.sum()), 6), 9.0151)


CATALOGUE: dict[str, Callable[[], Fields]] = {
    "hard-0.9": partial(hard, 0.9),
    "toy": toy,
    **{f"hard-{rate:g}": partial(hard, rate) for rate in (0.5, 0.76, 1.25, 2.0, 2.5)},
    **{f"random-queue-{seed}": partial(random_queue, seed) for seed in (0, 1)},
    "duo": duo,
    "short-long": short_long,
    "couriers": couriers,
    "random-3x4": partial(random_network, 3, 4, seed=7, price=1.0077),
    "random-10x10": partial(random_network, 10, 10, seed=0, price=0.2465),
    "random-40x40": partial(random_network, 40, 40, seed=0, price=0.045),
}
