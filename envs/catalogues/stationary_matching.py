"""Instances of stationary bipartite matching.

B1, B3, B5 are the examples of Appendix B of arXiv 2411.08218, at any size n; `b5eps` makes the trap of B5 unavoidable. The
families (`random_market`, `ride_hailing`) are seeded and reproducible.
"""

import math
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


CATALOGUE = {
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
}
