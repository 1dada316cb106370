"""Where a jump overtakes the loop over events: `python benchmarks/jumps.py`, the source of JUMP_ABOVE.

The vector environment is stepped with both kernels on markets with n supplier types and a given number of events per decision
and type; the printed crossover is where their times are equal, by interpolation of the logarithms.
"""

import math
import statistics
import time

import numpy as np

from matchgym.envs.compile import pack
from matchgym.envs.stationary_matching import JUMP_ABOVE, MODEL, StationaryMatchingInstance, StationaryMatchingVectorEnv

ROWS, STEPS, ROUNDS = 64, 40, 7
SIZES = (2, 10, 50)
EVENTS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # per decision and supplier type


def market(n: int, events: float, offered: float) -> StationaryMatchingInstance:
    """A market in which every type sees events / 2 arrivals and as many departures per decision; `offered` wait on average."""
    rng = np.random.default_rng(0)
    arrivals = rng.uniform(0.5, 1.5, n)
    arrivals *= n * events / 2 / arrivals.sum()
    return StationaryMatchingInstance(
        name=f"jumps-{n}",
        supplier_rates=arrivals,
        departure_rates=arrivals / offered,
        customer_rates=np.ones(1),
        rewards=np.ones((n, 1)),
    )


def stepper(instance: StationaryMatchingInstance, is_jumping: bool) -> StationaryMatchingVectorEnv:
    env = StationaryMatchingVectorEnv(instance, ROWS, initial_state="stationary-unmatched")
    params = MODEL.params(instance, **MODEL.check_options({"initial_state": "stationary-unmatched"}))
    env._params = pack(params._replace(is_jumping=int(is_jumping)))
    env.reset(seed=0)
    return env


def nanoseconds(instance: StationaryMatchingInstance) -> tuple[float, float]:
    """Per decision, by events and by jumps, taking turns."""
    envs = [stepper(instance, is_jumping) for is_jumping in (False, True)]
    idle = np.full(ROWS, instance.n_suppliers)
    seen: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for env, times in zip(envs, seen):
            start = time.process_time()
            for _ in range(STEPS):
                env.step(idle)
            times.append(1e9 * (time.process_time() - start) / ROWS / STEPS)
    return statistics.median(seen[0]), statistics.median(seen[1])


def main() -> None:
    crossovers = []
    for offered in (1.0, 10.0, 100.0):
        for n in SIZES:
            ratios = []
            for events in EVENTS:
                loop, jump = nanoseconds(market(n, events, offered))
                ratios.append(math.log(loop / jump))
            crossover = float(np.exp(np.interp(0.0, ratios, np.log(EVENTS))))
            crossovers.append(crossover)
            times = ", ".join(f"{events:g}: {math.exp(ratio):.2f}" for events, ratio in zip(EVENTS, ratios))
            print(
                f"n = {n}, {offered:g} waiting: crossover {crossover:.1f}; time of events / time of jumps at {times}",
                flush=True,
            )
    print(f"median crossover {statistics.median(crossovers):.1f}; JUMP_ABOVE = {JUMP_ABOVE}")


if __name__ == "__main__":
    main()
