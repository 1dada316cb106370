"""The experiments of Sun, Chai and Zhao (Section 6, EC.3), over random rewards with common random numbers.

The paper draws one hidden matrix of rewards and prints single runs. Here every replication draws its own, all policies meet the
same rewards and arrivals in a replication, and numbers come with 95 % intervals. Where the paper's statement holds only in a
corrected form, both forms are reported.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines import congestion_learning as policies
from matchgym.baselines import floating_clients
from matchgym.baselines.evaluation import drawn_instances, play
from matchgym.baselines.experiments import Experiment
from matchgym.baselines.panels import Line, Panel, Result, claim, interval, panelled
from matchgym.baselines.policy import Policy
from matchgym.baselines.statistics import paired_interval
from matchgym.envs.registry import find

ID, FLOATING = "CongestionLearning-v0", "FloatingClients-v0"
POINTS = 50  # of a curve
PUBLISHED: Mapping[str, tuple[float, ...]] = {  # mean queues of servers 1-6, mean waits of types 1 and 2; single runs
    "greedy-ucb": (14.386, 28.798, 1.253, 341.975, 11.735, 686.537, 165.703, 187.765),
    "barrier-ucb V=1000": (5.215, 7.968, 0.116, 21.366, 6.408, 13.385, 13.327, 9.062),
    "queue-ucb eps=0.01": (1.545, 14.178, 0.226, 23.723, 3.841, 26.250, 13.106, 14.214),
    "barrier-ucb V=10000": (11.023, 8.955, 0.080, 20.066, 4.585, 17.610, 15.133, 10.209),
    "barrier-ucb V=100": (4.227, 4.655, 0.060, 11.974, 3.996, 7.492, 7.554, 5.375),
    "queue-ucb eps=0.001": (3.585, 78.152, 0.191, 151.593, 3.030, 161.694, 67.838, 81.140),
    "queue-ucb eps=0.1": (1.221, 2.939, 0.495, 3.001, 2.143, 3.898, 2.289, 3.047),
}


class Run(NamedTuple):
    """What R episodes of a policy have brought, at POINTS times."""

    slots: NDArray[np.int64]  # (K,)
    collected: NDArray[np.float64]  # (R, K) sum of mean rewards of the jobs served so far
    queue: NDArray[np.float64]  # (K, J) mean over replications
    queue_means: NDArray[np.float64]  # (R, J) over the slots
    waits: NDArray[np.float64]  # (R, I) per served job
    served: NDArray[np.float64]  # (R,)
    star: NDArray[np.float64]  # (R,) R* of each replication

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Collected / (R* T) of each replication."""
        return self.collected[:, -1] / (self.star * self.slots[-1])

    @property
    def regret(self) -> NDArray[np.float64]:
        """R* - collected / t (R, K)."""
        return self.star[:, None] - self.collected / self.slots


@lru_cache(maxsize=64)
def stars(env_id: str, instance: Any, replications: int, seed: int) -> NDArray[np.float64]:
    """R* of every replication."""
    entry = find(env_id)
    bound = entry.layer("bounds").bound
    drawn = drawn_instances(entry, instance, replications, seed)
    values = [bound(each).certified_value for each in drawn or (instance,)]
    return np.array(values) if drawn else np.full(replications, values[0])


def run(policy: Policy, source: Any, replications: int, seed: int, env_id: str = ID) -> Run:
    """Play an instance with a policy."""
    entry = find(env_id)
    instance = entry.model.load(source)
    fitted: Any = policy.fit(instance)
    slots = np.unique(np.linspace(0, instance.horizon, POINTS + 1).round().astype(np.int64))
    collected, queues, state = [], [], None
    for rewards, state in play(fitted, entry, instance, replications, np.diff(slots).tolist(), seed):
        collected.append(rewards)
        queues.append(state.queue.mean(0))
    assert state is not None
    is_typed = hasattr(state, "waiting_time")
    served = state.served.reshape(replications, state.arrivals.shape[1], -1).sum(2)
    return Run(
        slots[1:],
        np.cumsum(collected, 0).T,
        np.array(queues),
        state.queue_time / instance.horizon if is_typed else np.zeros((replications, 1)),
        state.waiting_time / np.maximum(served, 1) if is_typed else np.zeros((replications, 1)),
        served.sum(1) if is_typed else (state.jobs - state.queue.sum(1)).astype(float),
        stars(env_id, instance, replications, seed),
    )


def named(name: str, **arguments: Any) -> Policy:
    """A policy with its parameters."""
    kind: Any = policies.POLICIES[name]
    return kind(**arguments)


def both() -> dict[str, Policy]:
    """The paper's three policies."""
    return {"greedy-ucb": named("greedy-ucb"), "barrier-ucb": named("barrier-ucb"), "queue-ucb": named("queue-ucb")}


def summary(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """A row per policy."""
    return [
        {
            "policy": name,
            "ratio": interval(each.ratio),
            "reward_per_slot": interval(each.collected[:, -1] / each.slots[-1]),
            "total_mean_queue": interval(each.queue_means.sum(1)),
        }
        for name, each in runs.items()
    ]


def reward_panel(title: str, runs: Mapping[str, Run]) -> Panel:
    """Cumulative rewards against R* t."""
    panel = Panel(title, "slot", "cumulative reward")
    for name, each in runs.items():
        panel.add(name, each.slots, each.collected)
    first = next(iter(runs.values()))
    panel.lines.append(Line("R* t", first.slots, first.star.mean() * first.slots, is_reference=True))
    return panel


def fig1(replications: int, seed: int) -> Result:
    """Figure 1: cumulative rewards and average regret in the base case."""
    runs = {name: run(policy, "base", replications, seed) for name, policy in both().items()}
    regret = Panel("average regret", "slot", "R* - reward / t")
    rate = np.sqrt(np.log(runs["queue-ucb"].slots) / runs["queue-ucb"].slots)
    for name, each in runs.items():
        regret.add(name, each.slots, each.regret)
    regret.lines.append(Line("sqrt(log t / t)", runs["queue-ucb"].slots, rate, is_reference=True))
    late = runs["queue-ucb"].slots >= 100
    claims = []
    for name in ("barrier-ucb", "queue-ucb"):
        mean = runs[name].regret.mean(0)
        quotient, slope = mean[late] / rate[late], np.polyfit(np.log(runs[name].slots[late]), np.log(mean[late]), 1)[0]
        claims.append(claim(f"C1: {name} ends near R* T", runs[name].ratio.mean() > 0.9, ratio=interval(runs[name].ratio)))
        claims.append(
            claim(
                f"C2: average regret of {name} over sqrt(log t / t) stays bounded for t >= 100",
                0.5 * quotient.max() < quotient.min() and quotient.max() < 5,
                least=float(quotient.min()), most=float(quotient.max()), slope=float(slope),
            )
        )  # fmt: skip
    greedy = runs["greedy-ucb"]
    claims.append(claim("C1: greedy ends far below", greedy.ratio.mean() < 0.6, ratio=interval(greedy.ratio)))
    claims.append(
        claim(
            "C2: greedy's average regret does not fall towards 0", greedy.regret[:, -1].mean() > 0.3 * greedy.star.mean(),
            last=interval(greedy.regret[:, -1]),
        )
    )  # fmt: skip
    difference = paired_interval(runs["queue-ucb"].ratio, runs["barrier-ucb"].ratio)
    record = {"rows": summary(runs), "queue_minus_barrier": vars(difference), "claims": claims}
    return Result(record, [reward_panel("cumulative reward", runs), regret])


def queue_table(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Mean queues and waits, beside the published numbers."""
    rows = []
    for name, each in runs.items():
        columns = np.hstack([each.queue_means, each.waits])
        found = [interval(column) for column in columns.T]
        rows.append({"policy": name, "queues": found[:6], "waits": found[6:], "published": PUBLISHED.get(name)})
    return rows


def fig2(replications: int, seed: int) -> Result:
    """Figure 2 and Table 1: queues and waits on a matrix that resembles the paper's hidden one."""
    labels = {"greedy-ucb": "greedy-ucb", "barrier-ucb": "barrier-ucb V=1000", "queue-ucb": "queue-ucb eps=0.01"}
    runs = {labels[name]: run(policy, "tables", replications, seed) for name, policy in both().items()}
    panels = []
    for server in (5, 4):
        panel = Panel(f"queue of server {server + 1}", "slot", "jobs (mean)")
        panel.lines = [Line(name, each.slots, each.queue[:, server]) for name, each in runs.items()]
        panels.append(panel)
    waits = {name: each.waits.mean() for name, each in runs.items()}
    piled = runs["greedy-ucb"].queue_means.mean(0)
    claims = [
        claim(
            "C3: greedy piles up on the best server, and its jobs wait more than 10 times longer",
            piled.argmax() == 5
            and waits["greedy-ucb"] > 10 * max(value for name, value in waits.items() if "greedy" not in name),
            mean_waits={name: float(value) for name, value in waits.items()},
        )
    ]
    return Result({"rows": queue_table(runs), "claims": claims}, panels)


def fig3(replications: int, seed: int) -> Result:
    """Figure 3: the same at loads 1/3, 1/2, 2/3 and 0.9967."""
    loads = ("load-2", "load-3", "load-4", "load-5.98")
    runs = {name: {load: run(policy, load, replications, seed) for load in loads} for name, policy in both().items()}
    x = [find(ID).model.load(load).load for load in loads]
    panel = Panel("distance from the oracle", "load", "1 - collected / (R* T)")
    for name, each in runs.items():
        panel.add(name, x, np.column_stack([1 - one.ratio for one in each.values()]))
    gaps = {name: [float(1 - one.ratio.mean()) for one in each.values()] for name, each in runs.items()}
    claims = [
        claim("C4: greedy's gap widens with the load", bool(np.all(np.diff(gaps["greedy-ucb"]) > 0)), gaps=gaps["greedy-ucb"])
    ]
    claims += [
        claim(f"C4: the relative gap of {name} narrows with the load", gaps[name][-1] < gaps[name][0], gaps=gaps[name])
        for name in ("barrier-ucb", "queue-ucb")
    ]
    rows = []
    for load, rho in zip(loads, x):
        rows += [{"load": rho, **row} for row in summary({name: each[load] for name, each in runs.items()})]
    return Result({"rows": rows, "claims": claims}, [panel])


def by_parameter(source: str, name: str, key: str, values: tuple[float, ...], replications: int, seed: int) -> dict[str, Run]:
    """Runs of a policy at several values of a parameter."""
    return {f"{name} {key}={value:g}": run(named(name, **{key: value}), source, replications, seed) for value in values}


def fig4(replications: int, seed: int) -> Result:
    """Figure 4, Tables 2 and 3: V = 100, 1000, 10000 and eps = 0.001, 0.01, 0.1."""
    panels, rows, tables, claims = [], [], [], []
    for name, key, values in (("barrier-ucb", "V", (100.0, 1000.0, 10000.0)), ("queue-ucb", "eps", (0.001, 0.01, 0.1))):
        base, fixed = (by_parameter(source, name, key, values, replications, seed) for source in ("base", "tables"))
        panels.append(reward_panel(name, base))
        rows += summary(base)
        tables += queue_table(fixed)
        ratios = [each.ratio for each in base.values()]
        queues = [float(each.queue_means.sum(1).mean()) for each in base.values()]
        step = 1 if key == "V" else -1
        claims.append(
            claim(
                f"{'C5: queues grow with V' if key == 'V' else 'C6: queues fall as eps grows'}",
                bool(np.all(step * np.diff(queues) > 0)), total_mean_queues=queues,
            )
        )  # fmt: skip
        if key == "V":
            spread = [float(ratio.mean()) for ratio in ratios]
            claims.append(claim("C5: rewards are almost equal (within 0.02 of R* T)", np.ptp(spread) < 0.02, ratios=spread))
        else:
            worse = paired_interval(ratios[1], ratios[0])
            claims.append(claim("C6: eps = 0.001 earns slightly less than eps = 0.01", worse.low > 0, difference=vars(worse)))
    return Result({"rows": rows, "tables": tables, "claims": claims}, panels)


def fig5(replications: int, seed: int) -> Result:
    """Figure 5: geometric and binomial arrivals of the same means."""
    panels, rows, claims = [], [], []
    for law in ("base-geometric", "base-shifted-geometric", "base-binomial"):
        runs = {name: run(policy, law, replications, seed) for name, policy in both().items()}
        panels.append(reward_panel(law, runs))
        rows += [{"instance": law, **row} for row in summary(runs)]
        low = min(runs[name].ratio.mean() for name in ("barrier-ucb", "queue-ucb"))
        claims.append(claim(f"C7: the barrier and queue rules end near R* T with {law}", low > 0.88, least_ratio=float(low)))
    return Result({"rows": rows, "claims": claims}, panels)


def fig6(replications: int, seed: int) -> Result:
    """Figure 6: noisy rewards, clipped to [0, 1], against the oracle of their means and that of r."""
    panels, rows, claims = [], [], []
    model = find(ID).model
    found: dict[str, dict[str, Run]] = {}
    for source in ("noise-0.1", "noise-0.5"):
        runs = {name: run(policy, source, replications, seed) for name, policy in both().items()}
        found[source] = runs
        panels.append(reward_panel(source, runs))
        rows += [{"instance": source, **row} for row in summary(runs)]
    entry = find(ID)
    drawn: Any = drawn_instances(entry, model.load("noise-0.1"), replications, seed)
    plain = [replace(each, noise=0.0) for each in drawn]
    star = np.array([entry.layer("bounds").bound(each).certified_value for each in plain])
    for name in ("barrier-ucb", "queue-ucb"):
        first, second = (found[source][name] for source in found)
        scale = star * first.slots[-1]
        printed = paired_interval(first.collected[:, -1] / scale, second.collected[:, -1] / scale)
        corrected = paired_interval(first.ratio, second.ratio)
        claims.append(
            claim(f"C8 as printed: {name} declines with the noise, against R* of r", printed.low > 0, difference=vars(printed))
        )
        claims.append(
            claim(
                f"C8 corrected: {name} does not decline against R* of the means after clipping", corrected.high < 0.01,
                difference=vars(corrected),
            )
        )  # fmt: skip
    return Result({"rows": rows, "claims": claims}, panels)


def fig8(replications: int, seed: int) -> Result:
    """Figures 7 and 8: healthcare, with made-up prices and scores; estimates capped at 410, and as printed at 1."""
    made = {
        "greedy-ucb": named("greedy-ucb"),
        "barrier-ucb V=50": named("barrier-ucb", V=50.0),
        "queue-ucb eps=5": named("queue-ucb", eps=5.0),
        "barrier-ucb V=50 cap=1": named("barrier-ucb", V=50.0, cap=1.0),
    }
    runs = {name: run(policy, "healthcare", replications, seed) for name, policy in made.items()}
    ratios = {name: float(each.ratio.mean()) for name, each in runs.items()}
    claims = [
        claim(
            "C9: the barrier and queue rules end near R* T, greedy far below",
            min(ratios["barrier-ucb V=50"], ratios["queue-ucb eps=5"]) > 0.95 and ratios["greedy-ucb"] < 0.4, ratios=ratios,
        ),
        claim("with the cap of (6) at 1 nothing is learnt", ratios["barrier-ucb V=50 cap=1"] < 0.8),
    ]  # fmt: skip
    return Result({"rows": summary(runs), "claims": claims}, [reward_panel("healthcare", runs)])


def ec1(replications: int, seed: int) -> Result:
    """Figure EC.1: two-stage algorithms with a first stage of 25, 50, 100, 200 slots."""
    stages = (25, 50, 100, 200)
    panel, rows, claims = Panel("two stages", "slots of the first stage", "collected / (R* T)"), [], []
    for name, rival in (("two-stage-barrier", "barrier-ucb"), ("two-stage-queue", "queue-ucb")):
        runs = {stage: run(named(name, stage=stage), "base", replications, seed) for stage in stages}
        learner = run(named(rival), "base", replications, seed)
        panel.add(name, stages, np.column_stack([each.ratio for each in runs.values()]))
        panel.lines.append(Line(rival, stages, [learner.ratio.mean()] * len(stages), is_reference=True))
        rows += [{"stage": stage, **row} for stage, each in runs.items() for row in summary({name: each})]
        differences = {stage: paired_interval(each.ratio, learner.ratio) for stage, each in runs.items()}
        tails = {stage: float(np.quantile(each.ratio, 0.05)) for stage, each in runs.items()} | {
            0: float(np.quantile(learner.ratio, 0.05))
        }
        claims += [
            claim(
                f"C10: {name} with 25 or 50 slots matches {rival} (within 0.02)",
                max(abs(differences[stage].mean) for stage in (25, 50)) < 0.02,
                differences={str(stage): vars(each) for stage, each in differences.items()},
            ),
            claim(f"C10: 200 slots are worse than 50 for {name}", paired_interval(runs[200].ratio, runs[50].ratio).high < 0),
            claim(
                f"C10: 25 slots have a longer lower tail than {rival} (5 % quantiles, 0 standing for {rival})",
                tails[25] < tails[0], quantiles={str(stage): value for stage, value in tails.items()},
            ),
        ]  # fmt: skip
    return Result({"rows": rows, "claims": claims}, [panel])


def ec2(replications: int, seed: int) -> Result:
    """Figure EC.2: clients of unseen types, mu = nu = 0.5, 0.1, 0.01."""
    sources = ("floating-0.5", "floating-0.1", "floating-0.01")
    runs = {source: run(floating_clients.QueueUCB(), source, replications, seed, FLOATING) for source in sources}
    base = run(named("queue-ucb"), "base", replications, seed)
    per_job = {source: each.collected[:, -1] / each.served / (each.star / 5.0) for source, each in runs.items()}
    rows = [
        {"instance": source, "ratio": interval(each.ratio), "reward_per_served_job_over_oracle": interval(per_job[source])}
        for source, each in runs.items()
    ]
    totals = [float(each.ratio.mean()) for each in runs.values()]
    jobs = [float(values.mean()) for values in per_job.values()]
    claims = [
        claim("C11: clearly below the base case", max(totals) < base.ratio.mean() - 0.1, base=interval(base.ratio)),
        claim("C11 as printed: the total reward improves as nu falls", bool(np.all(np.diff(totals) > 0)), ratios=totals),
        claim("C11 corrected: the reward per served job improves as nu falls", bool(np.all(np.diff(jobs) > 0)), ratios=jobs),
    ]
    return Result({"rows": rows, "claims": claims}, [reward_panel("queue-ucb, client by client", runs)])


EXPERIMENTS: dict[str, Experiment] = {
    "congestion-fig1": panelled(fig1),
    "congestion-fig2": panelled(fig2),
    "congestion-fig3": panelled(fig3),
    "congestion-fig4": panelled(fig4),
    "congestion-fig5": panelled(fig5),
    "congestion-fig6": panelled(fig6),
    "congestion-fig8": panelled(fig8),
    "congestion-table1": panelled(fig2),
    "congestion-table2": panelled(fig4),
    "congestion-table3": panelled(fig4),
    "congestion-ec1": panelled(ec1),
    "congestion-ec2": panelled(ec2),
}
