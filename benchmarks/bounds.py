"""How the time of TLP_on grows with the number of types: `python benchmarks/bounds.py`.

Random markets with I = J = n, every pair worth something (density 1) or half of them. Times are CPU seconds on one core; the
proof is the certificate derived anew in rational arithmetic, the gap is between the certified value and a feasible solution.
"""

import time

import numpy as np

from matchgym.bounds.stationary_matching import tlp_online
from matchgym.envs.catalogues.stationary_matching import random_market

SIZES = (25, 50, 100, 200)


def measure(n: int, density: float) -> tuple[float, float, float]:
    """Seconds to state, solve and certify; seconds to prove; relative gap."""
    began = time.process_time()
    bound = tlp_online(random_market(n, n, seed=1, density=density))
    solved = time.process_time()
    bound.verify()
    proved = time.process_time()
    value = float((bound.instance.rewards * bound.solution["x"]).sum())  # type: ignore[attr-defined]
    return solved - began, proved - solved, (bound.certified_value - value) / bound.certified_value


def main() -> None:
    measure(5, 1.0)  # imports
    print("| I = J | density | bound | proof | certified gap |\n|---|---|---|---|---|")
    for density in (0.5, 1.0):
        times = []
        for n in SIZES:
            seconds, proof, gap = measure(n, density)
            times.append(seconds)
            print(f"| {n} | {density:g} | {seconds:.2f} s | {proof:.2f} s | {gap:.0e} |")
        exponent = np.polyfit(np.log(SIZES), np.log(times), 1)[0]
        print(f"time grows like n^{exponent:.1f} at density {density:g}, that is, like (number of pairs)^{exponent / 2:.2f}")


if __name__ == "__main__":
    main()
