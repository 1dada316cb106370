"""Time per solve of the barrier programme (7), by its kernel: `python benchmarks/barrier.py`.

Estimates drift as those of a learner do: rewards of a uniform table, moved by normal noise of 0.01 from one solve to the next.
Each solve starts cold, or from the solution of the one before; it ends at the gap that policies ask for or at the last digits.
"""

import time

import numpy as np

from matchgym.baselines.barrier_programme import EXACT_GAP, EXACT_LOADS, R, solve_one, workspace

SIZES = ((2, 6, 2000), (5, 20, 400), (20, 200, 20))  # job types, servers, solves
WEIGHTS = (10.0, 100.0, 1000.0)
ENDS = {"last digits": (EXACT_GAP, EXACT_LOADS), "gap 1e-6": (1e-6, np.inf)}


def measure(n: int, m: int, v: float, target: tuple[float, float], is_warm: bool, solves: int) -> tuple[float, float]:
    """Microseconds and iterations per solve."""
    rng = np.random.default_rng(0)
    lam = rng.uniform(0.2, 1, n)
    lam *= 0.8 * m / lam.sum()
    base, room = rng.uniform(size=n * m), np.ones(m)
    work, flows = workspace(n, m), np.zeros(n * m)
    seconds = iterations = 0.0
    for k in range(solves + 1):  # the first compiles, and gives the second its start
        work[R, : n * m] = np.clip(base + 0.01 * rng.normal(size=n * m), 0, 1)
        began = time.perf_counter()
        _, gap, rounds = solve_one(lam, room, v, *target, flows, is_warm and k > 0, work)
        if k > 0:
            seconds, iterations = seconds + time.perf_counter() - began, iterations + rounds
            assert gap <= target[0]
    return 1e6 * seconds / solves, iterations / solves


def main() -> None:
    print("I x J       V   ends at        cold: us, rounds    warm: us, rounds")
    for n, m, solves in SIZES:
        for v in WEIGHTS:
            for name, target in ENDS.items():
                cold, warm = (measure(n, m, v, target, is_warm, solves) for is_warm in (False, True))
                times = "   ".join(f"{microseconds:8.1f}, {rounds:5.1f}" for microseconds, rounds in (cold, warm))
                print(f"{n:2d} x {m:3d} {v:6g}   {name:12s} {times}", flush=True)


if __name__ == "__main__":
    main()
