"""Random instances for the tests."""

import numpy as np

from matchgym.envs.stationary_matching import StationaryMatchingInstance


def random_instance(
    seed: int, n: int | None = None, m: int | None = None, scale: float = 1.0, zeros: float = 0.3
) -> StationaryMatchingInstance:
    """A random instance of stationary matching with n <= 3 supplier and m <= 4 customer types."""
    rng = np.random.default_rng(seed)
    n, m = n or int(rng.integers(1, 4)), m or int(rng.integers(1, 5))
    return StationaryMatchingInstance(
        name=f"random-{seed}",
        supplier_rates=scale * rng.uniform(0.2, 1.5, n),
        departure_rates=scale * rng.uniform(0.5, 2.0, n),
        customer_rates=scale * rng.uniform(0.2, 2.0, m),
        rewards=rng.uniform(0.1, 3.0, (n, m)) * (rng.uniform(size=(n, m)) > zeros),
    )
