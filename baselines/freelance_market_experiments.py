"""The experiments of freelance markets: what the theorems of Chatterjee, Varshney and Vishwanath say, in numbers.

Replications are independent and numbers come with 95 % intervals. The paper proves and does not simulate: the instances are its
examples where it gives some, and crowd-scaled markets elsewhere.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.evaluation import evaluate, play
from matchgym.baselines.experiments import Experiment
from matchgym.baselines.freelance_agents import greedy_agent
from matchgym.baselines.freelance_market import POLICIES
from matchgym.baselines.panels import Line, Panel, Result, claim, interval, panelled
from matchgym.baselines.policy import CompiledPolicy
from matchgym.bounds.freelance_market import bound
from matchgym.envs.catalogues.freelance_admission import overload
from matchgym.envs.catalogues.freelance_market import crowd, empty_capacity, prop12
from matchgym.envs.freelance_market import MODEL, FreelanceMarketVectorEnv
from matchgym.envs.registry import find
from matchgym.envs.rng import seed_words

ID = "FreelanceMarket-v0"
POINTS = 60  # of a curve
Samples = NDArray[np.float64]


def build(name: str, source: Any, **arguments: Any) -> Any:
    """A fitted policy."""
    kind: Any = POLICIES[name]
    return kind(**arguments).fit(MODEL.load(source))


def follow(policy: Any, times: NDArray[np.int64], replications: int, seed: int) -> tuple[Samples, Samples]:
    """Jobs waiting and jobs completed so far (R, K) after `times` (K,) epochs."""
    backlog, completed = [], []
    if isinstance(policy, CompiledPolicy):
        lengths = np.diff(times, prepend=0).tolist()
        for _, state in play(policy, find(ID), policy.instance, replications, lengths, seed):
            backlog.append(state.backlog.astype(float))
            completed.append(state.completed.astype(float))
    else:
        env = FreelanceMarketVectorEnv(policy.instance, num_envs=replications, **policy.options)
        obs, _ = env.reset(seed=seed)
        memory, stops = policy.start(replications, seed), set(times.tolist())
        for epoch in range(1, int(times[-1]) + 1):
            actions, memory = policy.predict(obs, memory)
            obs, *_, infos = env.step(actions)
            if epoch in stops:
                backlog.append(infos["backlog"].astype(float))
                completed.append(infos["completed"].astype(float))
    return np.array(backlog).T, np.array(completed).T


def curves(
    title: str, policies: Mapping[str, Any], epochs: int, replications: int, seed: int
) -> tuple[Panel, dict[str, Samples]]:
    """A panel of waiting jobs over time, and the slope per epoch of every replication over the second half."""
    times = np.unique(np.linspace(1, epochs, POINTS).astype(np.int64))
    panel, slopes = Panel(title, "epoch", "jobs waiting"), {}
    late = times > epochs / 2
    for label, policy in policies.items():
        backlog, _ = follow(policy, times, replications, seed)
        panel.add(label, times, backlog)
        slopes[label] = np.polyfit(times[late], backlog[:, late].T, 1)[0]
    return panel, slopes


SCHEMES: tuple[tuple[str, str, int, str], ...] = (  # label, policy, categories and class of its market
    ("MaxWeight, FND", "maxweight-ilp", 1, "FND"),
    ("MaxWeight LP, FND", "maxweight-lp", 1, "FND"),
    ("GreedyJob, FND", "greedy-job", 1, "FND"),
    ("MaxWeight, FD", "maxweight-ilp", 1, "FD"),
    ("JLTT-MaxWeight, IND", "jltt-maxweight", 2, "IND"),
    ("JLTT-GreedyJob, IND", "jltt-greedy-job", 2, "IND"),
    ("JLTT-MaxWeight, ID", "jltt-maxweight", 2, "ID"),
    ("GreedyAgent, FD", "greedy-agent", 1, "FD"),
)
LOADS = (0.8, 0.9, 0.95, 1.05, 1.1, 1.2)


def shortage(market: Any) -> float:
    """Jobs per epoch by which every policy's backlog grows at least: the hours that are short, over the largest task."""
    demand, supply = market.arrival_means @ market.job_hours, market.mean_hours.sum(0)
    return float(max(0.0, ((demand - supply) / market.job_hours.max(0)).max()))


def stability(replications: int, seed: int) -> Result:
    """Theorems 6, 8, 11, 13, 15, 17: stability inside and instability outside the outer region, for every scheme."""
    growth = Panel("growth of the backlog (crowd-scaled, N = 24)", "load, share of the outer region", "jobs per epoch")
    level = Panel("backlog inside the region", "load, share of the outer region", "jobs waiting")
    rows, claims = [], []
    for label, name, categories, kind in SCHEMES:
        slopes, backlogs = [], []
        epochs = 600 if name != "greedy-agent" else 200  # whose jobs are moved one by one
        for load in LOADS:
            market = MODEL.load(crowd(24, 24, categories, kind, load))
            times = np.unique(np.linspace(epochs // 2, epochs, POINTS).astype(np.int64))
            backlog, _ = follow(build(name, market), times, replications, seed)
            slopes.append(np.polyfit(times, backlog.T, 1)[0])
            backlogs.append(backlog.mean(1))
            slope, least = interval(slopes[-1]), shortage(market)
            rows.append({"scheme": label, "load": load, "slope": slope, "backlog": interval(backlogs[-1])})
            if load > 1:
                claims.append(
                    claim(
                        f"{label} at {load}: the backlog grows as fast as hours are short", slope["high"] >= least,
                        least=least, slope=slope,
                    )
                )  # fmt: skip
            elif load <= 0.95:
                claims.append(
                    claim(
                        f"{label} at {load}: the backlog does not grow", slope["low"] < 0.05,
                        slope=slope,
                    )
                )  # fmt: skip
        growth.add(label, LOADS, np.array(slopes).T)
        level.add(label, LOADS[:3], np.array(backlogs[:3]).T)
    floor = [shortage(MODEL.load(crowd(24, 24, load=load))) for load in LOADS]
    growth.lines.append(Line("least growth of any policy (one category)", LOADS, floor, is_reference=True))
    return Result({"schemes": rows, "claims": claims}, [growth, level])


def proposition_12(replications: int, seed: int) -> Result:
    """Proposition 12: agents who choose for themselves complete k^2 / n of n waiting jobs, and the backlog runs away."""
    k, sizes = 20, np.array([5, 10, 20, 30, 40, 60, 80, 120])
    policies = {
        "GreedyAgent, FND": build("greedy-agent", prop12(start=60)),
        "GreedyAgent, FD": build("greedy-agent", prop12(start=60, kind="FD")),
        "GreedyJob, FND": build("greedy-job", prop12(start=60)),
    }
    panel, slopes = curves("18 jobs per epoch, 60 at the start", policies, 300, replications, seed)
    market = MODEL.load(prop12())
    done = np.empty((replications, len(sizes)))
    for b in range(replications):
        stream = np.array([seed_words(seed + b)])
        for place, n in enumerate(sizes.tolist()):
            draws = [
                greedy_agent(market.job_hours, market.hours, np.array([k, k]), np.full((1, 4), n), False, stream, 0)[0, 0]
                for _ in range(40)
            ]
            done[b, place] = np.mean(draws)
    exact = np.minimum(k, sizes) ** 2 / sizes
    drift = Panel("jobs completed in an epoch by GreedyAgent", "jobs waiting n", "jobs")
    drift.add("measured", sizes, done)
    drift.lines.append(Line("min(k, n)^2 / n", sizes, exact, is_reference=True))
    drift.lines.append(Line("arrivals", sizes, np.full(len(sizes), 18.0), is_reference=True))
    claims = [
        claim("GreedyAgent is unstable for jobs that are not decomposable", interval(slopes["GreedyAgent, FND"])["low"] > 5),
        claim("it is stable for decomposable ones", abs(slopes["GreedyAgent, FD"].mean()) < 0.2),
        claim("GreedyJob is stable there", abs(slopes["GreedyJob, FND"].mean()) < 0.2),
        claim("k^2 / n jobs are completed", bool((np.abs(done.mean(0) - exact) < 0.05 * exact + 0.1).all())),
    ]
    slope = {name: interval(values) for name, values in slopes.items()}
    return Result({"k": k, "slopes": slope, "claims": claims}, [panel, drift])


def empty(replications: int, seed: int) -> Result:
    """Section III-B: two skills that are never there together; no capacity if jobs cannot be decomposed, C^out if they can."""
    policies = {
        "FND, 1 job per epoch": build("maxweight-ilp", empty_capacity("FND", 1.0)),
        "FD, 4 jobs per epoch": build("maxweight-ilp", empty_capacity("FD", 4.0)),
        "FD, 5.5 jobs per epoch": build("maxweight-ilp", empty_capacity("FD", 5.5)),
    }
    panel, slopes = curves("MaxWeight in the market of Section III-B", policies, 600, replications, seed)
    capacity = {kind: bound(empty_capacity(kind), "capacity").certified_value for kind in ("FND", "FD")}
    outer = bound(empty_capacity(), "load").certified_value
    claims = [
        claim("capacity 0 in class FND, 5 in class FD, C^out allows 5 in both", capacity["FND"] == 0 and round(outer, 9) == 5),
        claim("FND: every job waits for ever, the backlog grows by 1", abs(slopes["FND, 1 job per epoch"].mean() - 1) < 0.02),
        claim("FD: stable with 4 jobs per epoch", abs(slopes["FD, 4 jobs per epoch"].mean()) < 0.05),
        claim(
            "FD: grows with 5.5, by at least 0.5",
            interval(slopes["FD, 5.5 jobs per epoch"])["low"] > 0 and interval(slopes["FD, 5.5 jobs per epoch"])["high"] > 0.5,
        ),
    ]
    slope = {name: interval(values) for name, values in slopes.items()}
    return Result({"capacity": capacity, "outer": outer, "slopes": slope, "claims": claims}, [panel])


CROWDS = (12, 24, 48, 96, 192, 384)


def scaling(replications: int, seed: int) -> Result:
    """Theorems 13 and 17: under crowd scaling at load 0.9, jobs left after an epoch grow at most like log N."""
    mean = Panel("jobs left after an epoch, load 0.9", "job types N", "jobs, mean over epochs")
    most = Panel("the most jobs left in 400 epochs", "job types N", "jobs")
    per_job = Panel("share of the arrivals that waits", "job types N", "jobs left / arrivals of an epoch")
    rows, claims = [], []
    for label, name, categories, kind in (
        ("GreedyJob", "greedy-job", 1, "FND"), ("MaxWeight LP", "maxweight-lp", 1, "FND"),
        ("JLTT-GreedyJob, two categories", "jltt-greedy-job", 2, "IND"),
    ):  # fmt: skip
        means, largest, shares = [], [], []
        for n in CROWDS:
            market = MODEL.load(crowd(n, n, categories, kind, 0.9))
            backlog, _ = follow(build(name, market), np.arange(100, 501), replications, seed)
            means.append(backlog.mean(1))
            largest.append(backlog.max(1))
            shares.append(backlog.mean(1) / market.arrival_means.sum())
            rows.append({"scheme": label, "n": n, "mean": interval(means[-1]), "most": interval(largest[-1])})
        mean.add(label, CROWDS, np.array(means).T)
        most.add(label, CROWDS, np.array(largest).T)
        per_job.add(label, CROWDS, np.array(shares).T)
        quotients = np.mean(means, 1) / np.log(CROWDS)
        claims.append(
            claim(
                f"{label}: jobs left over log N do not grow with N", quotients[-1] <= quotients[0], quotients=quotients.tolist()
            )
        )
    top = max(line.mean[0] for line in mean.lines) / np.log(CROWDS[0])
    mean.lines.append(Line("c log N", CROWDS, top * np.log(CROWDS), is_reference=True))
    return Result({"rows": rows, "claims": claims}, [mean, most, per_job])


PRICES = (0.1, 0.03, 0.01, 0.003, 0.001)


def admission(replications: int, seed: int) -> Result:
    """Theorem 18: rule (7) accepts at least 1 - beta* up to O(nu), with a backlog of O(1/nu); also as loads change.

    It may accept more: which epochs are declined depends on what arrives in them, so that the types are not declined alike.
    """
    accepted_panel = Panel("accepted, load 1.25", "nu", "share of the arrivals")
    backlog_panel = Panel("backlog times nu", "nu", "jobs waiting x nu")
    rows, claims, names = [], [], [str(nu) for nu in PRICES]
    markets = {
        "MaxWeight": ("admission-maxweight", crowd(24, 24, load=1.25)),
        "JLTT-MaxWeight": ("admission-jltt", overload(12, 1.25, 3, "IND")),
    }
    for label, (name, source) in markets.items():
        market = MODEL.load(source)
        total, target = market.arrival_means.sum(), 1 - bound(market, "decline").certified_value
        shares, scaled = [], []
        for nu in PRICES:
            filling = int(np.ceil(6 / nu))
            times = np.array([filling, filling + 1000])
            backlog, completed = follow(build(name, market, nu=nu), times, replications, seed)
            joined = completed + backlog  # from an empty start
            shares.append((joined[:, 1] - joined[:, 0]) / (1000 * total))
            scaled.append(backlog.mean(1) * nu)
            rows.append({"scheme": label, "nu": nu, "accepted": interval(shares[-1]), "backlog": interval(backlog.mean(1))})
        accepted_panel.add(label, names, np.array(shares).T)
        backlog_panel.add(label, names, np.array(scaled).T)
        claims.append(
            claim(
                f"{label}: for small nu at least 1 - beta* is accepted", shares[-1].mean() > 0.99 * target,
                target=target, accepted=interval(shares[-1]),
            )
        )  # fmt: skip
    accepted_panel.lines.append(Line("1 - beta*", names, np.full(len(names), 0.8), is_reference=True))
    panel, steps = changing(replications, seed)
    return Result({"rows": rows, "changing": steps, "claims": claims + steps["claims"]}, [accepted_panel, backlog_panel, panel])


def changing(replications: int, seed: int) -> tuple[Panel, dict[str, Any]]:
    """Rule (7) with arrivals that alternate between 0.8 and 1.6 of the outer region every 400 epochs."""
    period, width = 400, 25
    source = crowd(24, 24, load=1.2) | {"arrival_pattern": [2 / 3] * period + [4 / 3] * period}
    market = MODEL.load(source)
    times = np.arange(width, 4 * period + 1, width)
    backlog, completed = follow(build("admission-maxweight", market, nu=0.01), times, replications, seed)
    joined = np.diff(completed + backlog, axis=1, prepend=0.0) / width
    phase = (times - 1) // period
    offered = market.arrival_means.sum() * np.where(phase % 2, 4 / 3, 2 / 3)
    target = offered * np.minimum(1.0, np.where(phase % 2, 1 / 1.6, 1.0))
    panel = Panel("arrivals alternate between 0.8 and 1.6 (nu = 0.01)", "epoch", "jobs accepted per epoch")
    panel.add("accepted", times, joined)
    panel.lines.append(Line("(1 - beta*(t)) sum lambda(t)", times, target, is_reference=True))
    late = (times - 1) % period >= period / 2  # once the queues have filled
    shares = [float(joined[:, late & (phase == p)].mean() / target[phase == p][0]) for p in range(4)]
    claims = [claim("in every phase, once queues have settled, at least 0.99 (1 - beta*) is accepted", min(shares) > 0.99)]
    return panel, {"accepted_over_target": shares, "claims": claims}


def section_1(replications: int, seed: int) -> Result:
    """Section I: jobs that pick agents where they like drive others out, though MaxWeight has hours for all."""
    policies = {
        "index order, higher category": build("naive-jobs-pick", "section1", order="index", prefer="high"),
        "index order, lower category": build("naive-jobs-pick", "section1", order="index", prefer="low"),
        "random order and category": build("naive-jobs-pick", "section1"),
        "MaxWeight": build("maxweight-ilp", "section1"),
    }
    panel, slopes = curves("two types, two categories of ten hours, 9 jobs of each", policies, 200, replications, seed)
    found = evaluate(policies["random order and category"], ID, replications=max(2, replications), warmup=500, decisions=1500)
    claims = [
        claim(
            "index order, higher category: 8 more wait in each epoch",
            round(slopes["index order, higher category"].mean(), 6) == 8,
        ),
        claim("lower category: nothing waits", abs(slopes["index order, lower category"].mean()) < 1e-9),
        claim("MaxWeight: nothing waits", abs(slopes["MaxWeight"].mean()) < 1e-9),
        claim("random order and category: stable here", abs(found.trends["backlog_slope"].mean) < 0.1),
    ]
    return Result({"slopes": {name: interval(values) for name, values in slopes.items()}, "claims": claims}, [panel])


EXPERIMENTS: dict[str, Experiment] = {
    "freelance-stability": panelled(stability, 8),
    "freelance-prop12": panelled(proposition_12, 20),
    "freelance-empty-capacity": panelled(empty, 20),
    "freelance-crowd": panelled(scaling, 8),
    "freelance-admission": panelled(admission, 8),
    "freelance-section1": panelled(section_1, 10),
}
