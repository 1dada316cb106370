"""Nanoseconds per task against the number of servers, and against C: `python benchmarks/locality.py [--picture FILE]`.

JSQ(2) on the complete graph at load 0.9, environment and policy compiled together, beside the uniformised loop of locality.c;
and the paper's system on its own graph IRG(p1), which C does not do. The programs take turns for ROUNDS rounds; medians of CPU
time, without the set-up. All start from the queue lengths of the limit, since an empty million takes long to fill.
"""

import argparse
import ctypes
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from matchgym.baselines.data_locality import JSQd
from matchgym.baselines.evaluation import play
from matchgym.envs.catalogues.data_locality import paper, pooled_limit
from matchgym.envs.data_locality import MODEL
from matchgym.envs.registry import find

HERE = Path(__file__).parent
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
TASKS, ROUNDS, LOAD, LEVELS = 1_000_000, 7, 0.9, 7
TARGET = 0.9  # of the C loop's speed at a million servers


def stationary_law() -> np.ndarray:
    """The law of a queue in the limit: Pr[>= l] = load^(2^l - 1)."""
    tails = LOAD ** (2.0 ** np.arange(LEVELS + 1) - 1)
    return -np.diff(np.append(tails, 0.0))


def ours(fields: dict[str, Any]) -> Callable[[], float]:
    """One round of TASKS decisions of JSQ(2), in nanoseconds per task."""
    instance = MODEL.load(fields)
    running = play(JSQd().fit(instance), find("DataLocality-v0"), instance, 1, [TASKS] * (ROUNDS + 1), 0)

    def one_round() -> float:
        began = time.process_time()
        next(running)
        return 1e9 * (time.process_time() - began) / TASKS

    return one_round


def by_hand(n: int, library: ctypes.CDLL) -> Callable[[], float]:
    """One round of TASKS arrivals of the C loop, in nanoseconds per task."""
    rng = np.random.default_rng(0)
    queues = rng.choice(LEVELS + 1, n, p=stationary_law()).astype(np.int32)
    stream = rng.integers(1, 2**63, 4, np.uint64)

    def one_round() -> float:
        began = time.process_time()
        library.simulate(
            ctypes.c_int64(n), ctypes.c_int64(2), ctypes.c_double(LOAD), ctypes.c_int64(TASKS),
            ctypes.c_void_p(stream.ctypes.data), ctypes.c_void_p(queues.ctypes.data),
        )  # fmt: skip
        return 1e9 * (time.process_time() - began) / TASKS

    return one_round


def medians(works: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The first round warms up."""
    seen: dict[str, list[float]] = {name: [] for name in works}
    for k in range(ROUNDS + 1):
        for name, work in works.items():
            found = work()
            if k:
                seen[name].append(found)
    return {name: statistics.median(values) for name, values in seen.items()}


def draw(path: Path, rows: list[dict[str, float]]) -> None:
    """Nanoseconds per task over the number of servers."""
    from matplotlib.figure import Figure

    figure = Figure((6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for name in ("ours", "C", "IRG(p1)"):
        axis.plot([row["n"] for row in rows if name in row], [row[name] for row in rows if name in row], "o-", label=name)
    axis.set(
        xscale="log", xlabel="servers N", ylabel="CPU ns per task", ylim=(0, None), title="JSQ(2), complete graph, load 0.9"
    )
    axis.legend(frameon=False)
    figure.savefig(path, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="where to draw the growth curve, as PNG")
    options = parser.parse_args()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    rows = []
    print("      N   ours, ns   C, ns   ratio   IRG(p1), ns")
    with tempfile.TemporaryDirectory() as folder:
        library = None
        if compiler is not None:
            path = Path(folder) / "locality.so"
            source = HERE / "locality.c"
            subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", path, source], check=True)
            library = ctypes.CDLL(str(path))
            library.simulate.restype = ctypes.c_double
        for n in SIZES:
            works = {
                "ours": ours(pooled_limit(n) | {"initial_lengths": [stationary_law().tolist()]}),
                "IRG(p1)": ours(paper(n, "q")),
            }
            if library is not None:
                works["C"] = by_hand(n, library)
            found = medians(works)
            rows.append({"n": n, **found})
            ratio = f"{found['C'] / found['ours']:5.2f}x" if "C" in found else "     -"
            print(
                f"{n:7d} {found['ours']:10.0f} {found.get('C', float('nan')):7.0f} {ratio:>7s} {found['IRG(p1)']:13.0f}",
                flush=True,
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"target at a million servers: {TARGET}x; peak memory of the process {peak:.1f} GiB")
    if options.picture:
        draw(options.picture, rows)


if __name__ == "__main__":
    main()
