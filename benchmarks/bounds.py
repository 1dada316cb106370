"""How the time of TLP_on grows with the number of types: `python benchmarks/bounds.py`.

Random markets with I = J = n, every pair worth something (density 1) or half of them; and markets that are hard for cutting
planes, with suppliers that leave quickly and rare customers, so that nearly all prefixes of (2) bind, whose rewards are
distinct or (many ties) integers from 0 to 3. Times are CPU seconds on one core; the proof is the certificate derived anew in
rational arithmetic, the gap is between the certified value and a feasible solution.
"""

import time
from typing import Any

import numpy as np

from matchgym.bounds.stationary_matching import tlp_online
from matchgym.envs.catalogues.stationary_matching import random_market

SIZES = (25, 50, 100, 200)
HARD_SIZES = (25, 50, 100)


def hard_market(n: int, has_ties: bool) -> dict[str, Any]:
    """Suppliers that wait for 0.1 to 1 units of time, ten of them arriving for each customer."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.5, 1.5, n), rng.uniform(1, 10, n), rng.uniform(0.05, 0.15, n)
    rewards = rng.integers(0, 4, (n, n)).astype(float) if has_ties else rng.uniform(size=(n, n))
    names = ("supplier_rates", "departure_rates", "customer_rates", "rewards")
    numbers = {name: values.tolist() for name, values in zip(names, (*rates, rewards))}
    return {"model": "stationary_matching", "name": f"hard-{n}", **numbers}


def measure(market: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds to state, solve and certify; seconds to prove; relative gap."""
    began = time.process_time()
    bound = tlp_online(market)
    solved = time.process_time()
    bound.verify()
    proved = time.process_time()
    value = float((bound.instance.rewards * bound.solution["x"]).sum())  # type: ignore[attr-defined]
    return solved - began, proved - solved, (bound.certified_value - value) / bound.certified_value


def main() -> None:
    measure(random_market(5, 5, seed=1))  # imports
    families = {
        "density 0.5": (SIZES, lambda n: random_market(n, n, seed=1, density=0.5)),
        "density 1": (SIZES, lambda n: random_market(n, n, seed=1)),
        "rare customers": (HARD_SIZES, lambda n: hard_market(n, has_ties=False)),
        "rare customers, integer rewards": (HARD_SIZES, lambda n: hard_market(n, has_ties=True)),
    }
    print("| market | I = J | bound | proof | certified gap |\n|---|---|---|---|---|")
    growth = []
    for name, (sizes, market) in families.items():
        times = []
        for n in sizes:
            seconds, proof, gap = measure(market(n))
            times.append(seconds)
            print(f"| {name} | {n} | {seconds:.2f} s | {proof:.2f} s | {gap:.0e} |", flush=True)
        growth.append(f"{name}: time grows like n^{np.polyfit(np.log(sizes), np.log(times), 1)[0]:.1f}")
    print("\n".join(growth))


if __name__ == "__main__":
    main()
