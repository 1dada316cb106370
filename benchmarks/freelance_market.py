"""How the time of an epoch of a freelance market grows with the number of job types: `python benchmarks/freelance_market.py`.

Crowd-scaled markets at load 0.9 of one category (jobs not decomposable, flexible) or two (inflexible, with pools), scaled to a
given number of jobs per epoch. Times are CPU milliseconds per epoch on one core, environment and policy together, the median of
three runs of 20 epochs.
"""

import time
from typing import Any

import numpy as np

from matchgym.baselines.evaluation import evaluate
from matchgym.baselines.freelance_market import POLICIES
from matchgym.envs.catalogues.freelance_market import crowd
from matchgym.envs.freelance_market import MODEL

SIZES = (100, 300, 1000, 3000)
EPOCHS = 20


def market_of(n: int, jobs: float, categories: int = 1, kind: str = "FND") -> Any:
    """A crowd-scaled market in which `jobs` arrive per epoch."""
    fields = crowd(n, n, categories, kind, 0.9)
    factor = jobs / sum(fields["arrival_means"])
    fields["arrival_means"] = [factor * mean for mean in fields["arrival_means"]]
    fields["availability_means"] = [[factor * mean for mean in part] for part in fields["availability_means"]]
    return MODEL.load(fields)


def milliseconds(name: str, market: Any) -> float:
    """CPU time of an epoch, in ms."""
    policy = POLICIES[name]().fit(market)
    evaluate(policy, "FreelanceMarket-v0", replications=2, warmup=0, decisions=10)
    times = []
    for seed in range(3):
        began = time.process_time()
        evaluate(policy, "FreelanceMarket-v0", replications=2, warmup=0, decisions=EPOCHS, seed=seed)
        times.append((time.process_time() - began) / (2 * EPOCHS))
    return 1e3 * float(np.median(times))


def main() -> None:
    rows = {
        "greedy-job, 100,000 jobs": ("greedy-job", lambda n: market_of(n, 1e5)),
        "greedy-job, n^1.5 jobs": ("greedy-job", lambda n: market_of(n, n**1.5)),
        "jltt-greedy-job, 100,000 jobs, two pools": ("jltt-greedy-job", lambda n: market_of(n, 1e5, 2, "IND")),
        "maxweight-lp, n^1.5 jobs": ("maxweight-lp", lambda n: market_of(n, n**1.5)),
    }
    print(f"| policy | {' | '.join(f'N = {n}' for n in SIZES)} | growth |\n|---{'|---' * (len(SIZES) + 1)}|")
    for label, (name, market) in rows.items():
        found = [milliseconds(name, market(n)) for n in SIZES]
        exponent = np.polyfit(np.log(SIZES), np.log(found), 1)[0]
        print(f"| {label} | {' | '.join(f'{each:.2f} ms' for each in found)} | n^{exponent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
