"""Instances of congestion-aware matching and learning.

`base` is the setting of Section 6 of the paper: two job types, six servers, lambda = (2, 3), T = 1000, with rewards drawn anew
in every episode because the paper does not print its matrix. `tables` fixes a matrix tuned to resemble its Tables 1-3, and
`healthcare` has prices and scores that agree with what the paper says of its hidden ones (both made up here).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Fields = dict[str, Any]

STAND_IN = [[0.51, 0.32, 0.31, 0.75, 0.06, 0.79], [0.35, 0.63, 0.16, 0.64, 0.49, 0.77]]
PRICES = [100, 30, 180, 60, 270, 80, 150, 40, 220, 120, 50, 70]  # CNY
SCORES = [4.38, 3.10, 4.75, 4.05, 4.99, 4.20, 4.60, 3.62, 5.00, 4.12, 3.45, 3.80]  # of 5


def _fields(name: str, arrival_rates: Any, n_servers: int, rewards: Any = None, **others: Any) -> Fields:
    given = None if rewards is None else np.asarray(rewards, float).tolist()
    rates = [float(rate) for rate in arrival_rates]
    return {
        "model": "congestion_learning",
        "name": name,
        "arrival_rates": rates,
        "n_servers": n_servers,
        "rewards": given,
        **others,
    }


def base(rates: tuple[float, ...] = (2.0, 3.0), name: str = "base", **others: Any) -> Fields:
    """The paper's base case: 2 types, 6 servers, load 5/6, rewards drawn from Unif(0, 1) in every episode."""
    return _fields(name, rates, 6, **others)


def load(first: float, second: float) -> Fields:
    """The base case at another load (Figure 3)."""
    return base((first, second), f"load-{first + second:g}")


def law(arrival_law: str) -> Fields:
    """The base case with other arrivals of the same mean (Figure 5)."""
    return base(name=f"base-{arrival_law}", arrival_law=arrival_law)


def noisy(noise: float) -> Fields:
    """The base case with rewards r + Unif(-noise, noise), clipped to [0, 1] (Figure 6)."""
    return base(name=f"noise-{noise:g}", reward_law="uniform_noise", noise=noise)


def toy() -> Fields:
    """One type, two servers, at most one job a slot and so no queues: the oracle earns 0.5 x 0.8 = 0.4 per slot."""
    return _fields("toy", [0.5], 2, [[0.8, 0.3]], arrival_law="binomial", arrival_success=0.5, horizon=100)


def tables() -> Fields:
    """The base case with a fixed matrix made to resemble the paper's Tables 1-3; the oracle earns 3.15 per slot."""
    return _fields("tables", [2.0, 3.0], 6, STAND_IN)


def healthcare() -> Fields:
    """Twelve cardiologists, minor and severe patients, rewards in CNY (Section 6.2; prices and scores are made up)."""
    worth = np.array(PRICES) * np.array(SCORES) / 5
    return _fields(
        "healthcare",
        [7.0, 3.0],
        12,
        np.outer([0.8, 1.5], worth),
        reward_law="uniform_noise",
        noise=5.0,
        reward_cap=410.0,
        job_features=[[1.0, 0.0], [0.0, 1.0]],
        server_features=(worth / 100)[:, None].tolist(),
    )


def random_platform(n_types: int, n_servers: int, seed: int, load: float = 0.8, density: float = 1.0) -> Fields:
    """Rates proportional to Unif(0.5, 1.5), rewards Unif(0, 1), each pair compatible with probability `density`."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.5, 1.5, n_types)
    allowed = rng.uniform(size=(n_types, n_servers)) < density
    allowed[np.arange(n_types), rng.integers(n_servers, size=n_types)] = True
    return _fields(
        f"random-{n_types}x{n_servers}",
        rates / rates.sum() * load * n_servers,
        n_servers,
        rng.uniform(0, 1, (n_types, n_servers)),
        compatibility=allowed.astype(int).tolist(),
    )


CATALOGUE: dict[str, Callable[[], Fields]] = {
    "base": base,
    "toy": toy,
    "tables": tables,
    **{f"load-{a + b:g}": partial(load, a, b) for a, b in ((1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (2.99, 2.99))},
    **{f"base-{name}": partial(law, name) for name in ("geometric", "shifted-geometric", "binomial")},
    **{f"noise-{noise:g}": partial(noisy, noise) for noise in (0.1, 0.5)},
    "healthcare": healthcare,
    "random-3x5": partial(random_platform, 3, 5, seed=1, density=0.7),
    "random-20x200": partial(random_platform, 20, 200, seed=0, load=0.9),
}
