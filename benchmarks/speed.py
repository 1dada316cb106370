"""Speed against other programs, as ratios measured in one process: `python benchmarks/speed.py [--json] [--no-growth]`.

The programs of a comparison take turns for ROUNDS rounds, and medians of their CPU time are compared: on a shared machine only
such ratios mean anything. Every row of the table says how many times faster matchgym is than the anchor in its name.
"""

import argparse
import ctypes
import importlib.metadata
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import matchgym  # noqa: F401
from matchgym.baselines.evaluation import _compiled_simulation
from matchgym.baselines.stationary_matching import Greedy
from matchgym.envs.catalogues.stationary_matching import random_market
from matchgym.envs.compile import pack
from matchgym.envs.registry import find
from matchgym.envs.stationary_matching import MODEL, StationaryMatchingVectorEnv

HERE = Path(__file__).parent
ID, INSTANCE = "StationaryMatching-v0", "random-10x10"
ROUNDS = 7
ROWS = 1024  # of the vector environments
SIMULATED_ROWS, DECISIONS = 16, 20_000  # of one call of the compiled simulation
SIZES = (5, 10, 20, 40, 80, 160)  # of the growth curve
PACKAGES = ("numpy", "numba", "gymnasium", "envpool", "stochastic-matching")

Work = Callable[[], float]  # does one round of work and returns CPU seconds per unit


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: float | None  # ns per step, or seconds for the times of a start
    anchor: float | None
    target: float
    unit: str = "ns"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster than the anchor."""
        return None if self.ours is None or self.anchor is None else self.anchor / self.ours

    @property
    def is_met(self) -> bool | None:
        if self.unit == "s":
            return None if self.ours is None else bool(self.ours <= self.target)
        return None if self.ratio is None else bool(self.ratio >= self.target)


def medians(works: dict[str, Work], rounds: int = ROUNDS) -> dict[str, float]:
    """Nanoseconds per unit of each program, taking turns; the first round only warms up."""
    seen: dict[str, list[float]] = {name: [] for name in works}
    for k in range(rounds + 1):
        for name, work in works.items():
            seconds = work()
            if k:
                seen[name].append(1e9 * seconds)
    return {name: statistics.median(values) for name, values in seen.items()}


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds of one call, all threads of the process together."""
    start = time.process_time()
    work()
    return time.process_time() - start


# 1. One environment through gym.make.


def single_step(steps: int = 1000, repeats: int = 20) -> list[Row]:
    env = gym.make(f"matchgym:{ID}", instance=INSTANCE)
    actions, rng = [], np.random.default_rng(0)
    _, info = env.reset(seed=0)
    for _ in range(steps):  # the same seed meets the same states again, so that these actions stay valid
        actions.append(int(rng.choice(np.flatnonzero(info["action_mask"]))))
        *_, info = env.step(actions[-1])

    def ours() -> None:
        for _ in range(repeats):
            env.reset(seed=0)
            for action in actions:
                _, _, _, _, info = env.step(action)
        assert info["invalid_actions"] == 0

    cart = gym.make("CartPole-v1")
    cart.reset(seed=0)
    pushes = rng.integers(0, 2, steps * repeats).tolist()

    def anchor() -> None:
        for push in pushes:
            _, _, terminated, truncated, _ = cart.step(push)
            if terminated or truncated:
                cart.reset()

    n = steps * repeats
    found = medians({"ours": lambda: timed(ours) / n, "cart": lambda: timed(anchor) / n})
    return [Row("gym.make, one step / CartPole-v1", found["ours"], found["cart"], 5.0)]


# 2. The native vector environment.


def vector_step(steps: int = 100) -> list[Row]:
    rng = np.random.default_rng(0)
    env = gym.make_vec(f"matchgym:{ID}", num_envs=ROWS, instance=INSTANCE)
    env.reset(seed=0)
    cart = gym.make_vec("CartPole-v1", num_envs=ROWS, vectorization_mode="vector_entry_point")
    cart.reset(seed=0)

    def ours() -> float:
        seconds = 0.0
        for _ in range(steps):
            actions = env.unwrapped.action_masks().argmax(1)
            seconds += timed(lambda actions=actions: env.step(actions))
        return seconds / steps / ROWS

    def stepped(vector: Any, dtype: type) -> Work:
        def work() -> float:
            seconds = 0.0
            for _ in range(steps):
                actions = rng.integers(0, 2, ROWS).astype(dtype)
                seconds += timed(lambda actions=actions: vector.step(actions))
            return seconds / steps / ROWS

        return work

    works = {"ours": ours, "gymnasium": stepped(cart, np.int64)}
    try:
        import envpool
    except ImportError:
        pass
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pool = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=ROWS, num_threads=1)
        pool.reset()
        works["envpool"] = stepped(pool, np.int32)
    found = medians(works)
    name = f"vector of {ROWS}, one row's step"
    pool_time = found.get("envpool")
    return [
        Row(f"{name} / gymnasium's vector CartPole", found["ours"], found["gymnasium"], 1.0),
        Row(f"{name} / EnvPool CartPole, 1 thread", found["ours"], pool_time, 30.0, note="" if pool_time else "not installed"),
    ]


# 3. Environment and policy compiled together.


class Simulation:
    """The compiled simulation of the greedy policy, without synchronisation, warmed up and ready to go on."""

    def __init__(self, instance: Any, rows: int = SIMULATED_ROWS, decisions: int = DECISIONS) -> None:
        self.decisions, self.policy = decisions, Greedy().fit(instance)
        self.env = StationaryMatchingVectorEnv(self.policy.instance, rows)
        self.obs, _ = self.env.reset(seed=0)
        self.masks, self.rewards = self.env.action_masks(), np.zeros(rows)
        self._loop = _compiled_simulation(find(ID), Greedy)
        self._policy, self._memory = pack(self.policy.params_), self.policy.start(rows, 0)
        self.run()
        self.rewards[:] = 0.0

    @property
    def arrivals(self) -> float:
        """Arrivals of suppliers and customers per decision."""
        instance = self.policy.instance
        return 1.0 + instance.supplier_rates.sum() / instance.customer_rates.sum()

    def run(self) -> None:
        starts = np.zeros(len(self.rewards), np.bool_)
        self._loop(
            self.env._params, self.env._state, self._policy, self._memory, starts, self.decisions,
            self.obs, self.masks, self.rewards,
        )  # fmt: skip

    def seconds(self) -> float:
        return timed(self.run) / len(self.rewards) / self.decisions


class CLoop:
    """The loop of stationary_matching.c on the instance, the policy and the size of a `Simulation`."""

    class Market(ctypes.Structure):
        _fields_ = (
            ("n_suppliers", ctypes.c_int64),
            ("n_customers", ctypes.c_int64),
            ("arrival_rate", ctypes.c_double),
            *((name, ctypes.c_void_p) for name in ("departure_rates", "rewards", "threshold", "outcomes", "order", "length")),
        )

    def __init__(self, twin: Simulation, compiler: str, folder: str, entry: str = "simulate") -> None:
        library = Path(folder) / f"{entry}.so"
        source = HERE / "stationary_matching.c"
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source, "-lm"]
        subprocess.run(command, check=True)
        self._entry = getattr(ctypes.CDLL(str(library)), entry)
        instance, lists = twin.policy.instance, twin.policy.params_
        params = MODEL.params(instance, **MODEL.check_options({}))
        tables = (params.departure_rates, params.rewards, params.threshold, params.outcomes, lists.order, lists.length)
        self._tables = [np.ascontiguousarray(table) for table in tables]  # they must outlive the pointers
        pointers = [table.ctypes.data for table in self._tables]
        self._market = self.Market(*instance.rewards.shape, float(params.arrival_rate), *pointers)
        self.rewards, self.decisions = np.zeros(len(twin.rewards)), twin.decisions
        env = StationaryMatchingVectorEnv(instance, len(self.rewards))
        env.reset(seed=10_000)
        state = env.state
        rows = (state.stream, state.queue, state.departure_rate, state.elapsed_time, state.customer)
        observations = np.empty((len(self.rewards), sum(instance.rewards.shape)), np.float32)
        self._rows = [*(np.array(row) for row in rows), self.rewards, observations]
        self.run()
        self.rewards[:] = 0.0

    def run(self) -> None:
        pointers = [ctypes.c_void_p(row.ctypes.data) for row in self._rows]
        sizes = ctypes.c_int64(len(self.rewards)), ctypes.c_int64(self.decisions)
        self._entry(ctypes.byref(self._market), *sizes, *pointers)

    def seconds(self) -> float:
        return timed(self.run) / len(self.rewards) / self.decisions


def compiled_simulation(arrivals: int = 300_000) -> list[Row]:
    simulation = Simulation(INSTANCE)
    works: dict[str, Work] = {"ours": simulation.seconds}
    notes = {}
    with tempfile.TemporaryDirectory() as folder:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        loop = None
        if compiler is None:
            notes["C"] = "skipped: no C compiler found"
        else:
            loop = CLoop(simulation, compiler, folder)
            works["C"] = loop.seconds
            works["C observed"] = CLoop(simulation, compiler, folder, "simulate_observed").seconds
        try:
            import stochastic_matching as other
        except ImportError:
            notes["longest"] = notes["fcfm"] = "not installed"
        else:
            links = np.zeros((20, 20), int)
            links[:10, 10:] = links[10:, :10] = 1
            model = other.Model(adjacency=links, rates=np.ones(20))

            def simulated(simulator: Any) -> Work:
                def work() -> float:
                    simulator.reset()
                    seconds = timed(simulator.run)
                    return seconds / simulator.logs.steps_done

                return work

            for name, kind in (("longest", other.Longest), ("fcfm", other.FCFM)):
                works[name] = simulated(kind(model, n_steps=arrivals, seed=1, max_queue=2000))
        found = medians(works)
        if loop is not None:
            rates = [sums / (ROUNDS + 1) / DECISIONS for sums in (simulation.rewards, loop.rewards)]
            error = np.sqrt(sum(rate.var(ddof=1) / len(rate) for rate in rates))
            sigmas = float(abs(rates[0].mean() - rates[1].mean()) / error)
            notes["C"] = f"rewards per decision {rates[0].mean():.5f} and {rates[1].mean():.5f}, {sigmas:.1f} sigma apart"
            if sigmas > 5:
                raise AssertionError(f"the C loop simulates something else: {notes['C']}.")
    arrival = float(found["ours"] / simulation.arrivals)
    return [
        Row("simulate(greedy), one decision / C loop", found["ours"], found.get("C"), 0.9, note=notes.get("C", "")),
        Row(
            "simulate(greedy), one decision / C loop through observations",
            found["ours"],
            found.get("C observed"),
            0.9,
            note=notes.get("C", ""),
        ),
        *(
            Row(
                f"simulate(greedy), one arrival / stochastic-matching {name}",
                arrival,
                found.get(name),
                4.0,
                note=notes.get(name, ""),
            )
            for name in ("longest", "fcfm")
        ),
    ]


# 4. Starting up.


def start_up(rounds: int = 5) -> list[Row]:
    first = (
        "import time, gymnasium as gym, matchgym\n"
        "start = time.process_time()\n"
        f"env = gym.make({ID!r}, instance={INSTANCE!r})\n"
        "env.reset(seed=0)\nenv.step(0)\nprint(time.process_time() - start)"
    )
    imported = "import time\nstart = time.process_time()\nimport {}\nprint(time.process_time() - start)"
    programs = {"gymnasium": imported.format("gymnasium"), "matchgym": imported.format("matchgym"), "first": first}
    seen: dict[str, list[float]] = {name: [] for name in programs}
    for k in range(rounds + 1):
        for name, program in programs.items():
            run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
            if k:
                seen[name].append(float(run.stdout))
    found = {name: statistics.median(values) for name, values in seen.items()}
    extra = found["matchgym"] - found["gymnasium"]
    return [
        Row("import matchgym, over import gymnasium", extra, found["gymnasium"], 0.3, "s"),
        Row("gym.make, reset and first step, warm cache", found["first"], None, 1.0, "s"),
    ]


# 5. Growth.


def growth() -> dict[str, Any]:
    """ns per decision against I = J, and the exponents of fitted power laws, over all sizes and over the three largest."""
    works = {str(n): Simulation(random_market(n, n, seed=0), rows=4, decisions=max(1000, 200_000 // n)).seconds for n in SIZES}
    found = [medians(works, rounds=5)[str(n)] for n in SIZES]
    exponents = [float(np.polyfit(np.log(SIZES[-k:]), np.log(found[-k:]), 1)[0]) for k in (len(SIZES), 3)]
    return {"sizes": list(SIZES), "ns": found, "exponent": exponents[0], "exponent_largest": exponents[1]}


def draw_growth(curve: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(curve["sizes"], curve["ns"], "o-", color="#3b74e7")
    axes.set_xticks(curve["sizes"], [str(n) for n in curve["sizes"]])
    axes.set_xlabel("supplier types = customer types")
    axes.set_ylabel("ns per decision")
    axes.set_title(
        f"simulate(greedy): time grows like n^{curve['exponent']:.2f} (largest: n^{curve['exponent_largest']:.2f})", size=10
    )
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=150)


def machine() -> dict[str, str]:
    """The CPU's model and the versions of what was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {"cpu": cpu, **versions}


def table(rows: list[Row]) -> str:
    lines = ["| what | ours | anchor | ratio | target | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        ours, anchor = (
            "-" if value is None else f"{value:.2f} s" if row.unit == "s" else f"{value:,.1f} ns"
            for value in (row.ours, row.anchor)
        )
        ratio = "-" if row.unit == "s" or row.ratio is None else f"{row.ratio:.2f}x"
        target = f"<= {row.target:g} s" if row.unit == "s" else f">= {row.target:g}x"
        met = row.note if row.is_met is None else "yes" if row.is_met else "no"
        lines.append(f"| {row.what} | {ours} | {anchor} | {ratio} | {target} | {met} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--no-growth", action="store_true", help="leave out the growth curve; saves nothing")
    arguments = parser.parse_args()
    rows = [*single_step(), *vector_step(), *compiled_simulation(), *start_up()]
    result = {
        "machine": machine(),
        "rows": [asdict(row) | {"ratio": row.ratio if row.unit == "ns" else None, "met": row.is_met} for row in rows],
    }
    if not arguments.no_growth:
        result["growth"] = growth()
        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        (folder / "speed.json").write_text(json.dumps(result, indent=2) + "\n")
        try:
            draw_growth(result["growth"], folder / "growth.png")
        except ImportError:
            print("matplotlib is not installed: no growth.png.", file=sys.stderr)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(table(rows))
    for row in rows:
        if row.note:
            print(f"{row.what}: {row.note}.")
    if "growth" in result:
        curve = result["growth"]
        print("I = J:", ", ".join(f"{n}: {ns:.0f} ns" for n, ns in zip(curve["sizes"], curve["ns"])))
        print(f"exponent {curve['exponent']:.2f}; over the three largest {curve['exponent_largest']:.2f}")


if __name__ == "__main__":
    main()
