"""How the time of an epoch of a freelance market grows with the number of job types: `python benchmarks/freelance_market.py`.

Crowd-scaled markets at load 0.9 of one category (jobs not decomposable, flexible) or two (inflexible, with pools), scaled to a
given number of jobs per epoch. Times are CPU milliseconds per epoch on one core, environment and policy together, the median of
three runs of 20 epochs; and of the relaxation of MaxWeight alone, epoch after epoch, by several methods, at several loads.
"""

import time
from collections.abc import Callable
from typing import Any

import highspy
import numpy as np

from matchgym.baselines.evaluation import evaluate
from matchgym.baselines.freelance_market import POLICIES
from matchgym.envs.catalogues.freelance_market import crowd
from matchgym.envs.freelance_blocks import blocks_of
from matchgym.envs.freelance_market import MODEL, FreelanceMarketEnv
from matchgym.envs.freelance_requests import columns_of
from matchgym.envs.kept_basis import resume
from matchgym.envs.packing import relax, room

SIZES = (100, 300, 1000, 3000)
LOADS = (0.9, 1.0, 1.1)
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


def epochs_of(n: int, load: float) -> tuple[Any, list[tuple[Any, Any]]]:
    """The rows A of programme (10) and, epoch by epoch of `maxweight-lp`, its limits b and what waits of every type."""
    market = MODEL.load(crowd(n, n, load=load))
    policy, env = POLICIES["maxweight-lp"]().fit(market), FreelanceMarketEnv(market)
    (block,) = blocks_of(market)
    memory, found = policy.start(1, 0), []
    obs, _ = env.reset(seed=0)
    for _ in range(2 * EPOCHS):
        parts = {name: obs[part].astype(float) for name, part in env.observation_layout.items()}
        found.append((block.limits(parts["hours"].reshape(1, -1)), parts["queue"] + parts["arrivals"]))
        actions, memory = policy.predict(obs[None], memory)
        obs = env.step(actions[0])[0]
    return block.rows, found


def relaxations(n: int, load: float) -> dict[str, float]:
    """CPU milliseconds of the relaxation alone, by method; all find the same optimum."""
    rows, epochs = epochs_of(n, load)
    m, tasks = len(rows), (rows > 0).sum(0)
    x, scratch, columns = np.zeros(n), room(n, m), columns_of(rows)
    basis, upper, inverse = np.zeros(m, np.int64), np.zeros(n, np.int64), np.zeros((m, m))

    def tableau() -> list[float]:
        return [relax(rows, b, tasks * u, np.zeros(n), u, x, *scratch) for b, u in epochs]

    def revised(is_kept: bool) -> list[float]:
        values, has_basis = [], False
        for b, u in epochs:
            value, is_proved = resume(*columns, b, tasks * u, u, x, basis, upper, inverse, has_basis, *scratch)
            assert is_proved
            values.append(value)
            has_basis = is_kept
        return values

    def highs() -> list[float]:
        solver, values, every = highspy.Highs(), [], np.arange(n, dtype=np.int32)
        solver.setOptionValue("output_flag", False)
        solver.addVars(n, np.zeros(n), np.zeros(n))
        for row in rows:
            at = np.flatnonzero(row).astype(np.int32)
            solver.addRow(-np.inf, 0.0, len(at), at, row[at])
        for b, u in epochs:
            solver.changeColsBounds(n, every, np.zeros(n), u)
            solver.changeColsCost(n, every, -tasks * u)
            for i in range(m):
                solver.changeRowBounds(i, -np.inf, b[i])
            solver.run()
            values.append(-solver.getInfo().objective_function_value)
        return values

    methods: dict[str, Callable[[], list[float]]] = {
        "tableau, from nothing": tableau,
        "revised, from the upper bounds": lambda: revised(False),
        "revised, kept basis": lambda: revised(True),
        "HiGHS, kept basis": highs,
    }
    times, values = {}, {}
    for name, run in methods.items():
        values[name] = run()  # compiles
        began = [time.process_time()]
        for _ in range(5):
            run()
            began.append(time.process_time())
        times[name] = 1e3 * float(np.median(np.diff(began))) / len(epochs)
        assert np.allclose(values[name], values["tableau, from nothing"], rtol=1e-9)
    return times


def print_row(label: str, found: list[float]) -> None:
    exponent = np.polyfit(np.log(SIZES), np.log(found), 1)[0]
    print(f"| {label} | {' | '.join(f'{each:.3g} ms' for each in found)} | n^{exponent:.1f} |", flush=True)


def main() -> None:
    rows = {
        "greedy-job, 100,000 jobs": ("greedy-job", lambda n: market_of(n, 1e5)),
        "greedy-job, n^1.5 jobs": ("greedy-job", lambda n: market_of(n, n**1.5)),
        "jltt-greedy-job, 100,000 jobs, two pools": ("jltt-greedy-job", lambda n: market_of(n, 1e5, 2, "IND")),
        "maxweight-lp, n^1.5 jobs": ("maxweight-lp", lambda n: market_of(n, n**1.5)),
    }
    print(f"| policy | {' | '.join(f'N = {n}' for n in SIZES)} | growth |\n|---{'|---' * (len(SIZES) + 1)}|")
    for label, (name, market) in rows.items():
        print_row(label, [milliseconds(name, market(n)) for n in SIZES])
    for load in LOADS:
        by_size = [relaxations(n, load) for n in SIZES]
        for label in by_size[0]:
            print_row(f"{label}, load {load}", [each[label] for each in by_size])


if __name__ == "__main__":
    main()
