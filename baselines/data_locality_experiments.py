"""Figures 1 to 3 of Zhao, Mukherjee and Wu (2022), Section 6: local JSQ(2) on the paper's system, and its mean-field limit.

Every run draws its graph and its start anew. The times of Figures 2 and 3 are not printed: [0, 2.5] and [0, 20] are used.
"""

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.experiments import Experiment
from matchgym.baselines.locality_paths import paths
from matchgym.baselines.panels import Line, Panel, Result, claim, interval, panelled
from matchgym.bounds.locality_limit import fixed_point, limit_of, transient
from matchgym.envs.catalogues.data_locality import paper
from matchgym.envs.data_locality import MODEL

RUNS = 100
SHORT = tuple(np.round(np.arange(0.5, 2.51, 0.5), 1).tolist())
FINE = tuple(np.round(np.arange(0.0, 2.51, 0.1), 1).tolist())
LONG = tuple(np.round(np.arange(0.0, 20.01, 0.2), 1).tolist())
SIZES = (100, 500, 1000)
STARTS = ("paper-1000-q", "paper-1000-q1", "paper-1000-q2")
SETTLED = 1e-3


def limit_path(name: str, times: tuple[float, ...]) -> NDArray[np.float64]:
    """q (T, M, L + 1) of an instance's limit."""
    instance = MODEL.load(name)
    return np.array(transient(limit_of(instance), times, instance.initial_lengths))


def figure_1(runs: int, seed: int) -> Result:
    """Figure 1: mean queue lengths on the complete graph, where type 1 grows, and on IRG(p1), where none does; N = 1000."""
    panels, record = [], {}
    for name, title in (("paper-complete-1000-q", "complete graph"), ("paper-1000-q", "IRG(p1)")):
        instance = MODEL.load(name)
        _, tasks = paths(instance, SHORT, runs, 1, seed)
        means = limit_path(name, SHORT)[:, :, 1:].sum(2)
        panel = Panel(title, "time", "mean queue length")
        for m in range(instance.n_types):
            panel.add(f"type {m + 1}", SHORT, tasks[:, :, m])
            panel.lines.append(Line(f"type {m + 1}, limit", SHORT, means[:, m], is_reference=True))
        panels.append(panel)
        slopes = (tasks[:, -1] - tasks[:, 0]) / (SHORT[-1] - SHORT[0])
        record[name] = {
            "slope_by_type": [interval(slopes[:, m]) for m in range(instance.n_types)],
            "last_queue_by_type": [interval(tasks[:, -1, m]) for m in range(instance.n_types)],
            "limit_by_type": means.tolist(),
        }
    # Tasks whose two servers are both of type 1 must go there: type 1 of the complete graph grows by this much at least.
    complete = limit_of(MODEL.load("paper-complete-1000-q"))
    least = float(complete.offered * (complete.w @ complete.x[:, 0] ** complete.d) / complete.v[0] - complete.u[0])
    grows = record["paper-complete-1000-q"]["slope_by_type"][0]
    slopes_then = record["paper-1000-q"]["slope_by_type"]
    return Result(
        {
            **record,
            "least_slope": least,
            "claims": [
                claim("type 1 grows on the complete graph", grows["low"] > 0, **grows),
                claim("and by least_slope at least", grows["high"] >= least, least_slope=least),
                claim("no type grows on IRG(p1)", all(slope["low"] <= 0 for slope in slopes_then)),
            ],
        },
        panels,
    )


def figure_2(runs: int, seed: int) -> Result:
    """Figure 2: occupancies q_m1 and q_m2 on IRG(p1) with N = 100, 500, 1000 against the mean-field limit."""
    limit = limit_path("paper-1000-q", FINE)
    found = {n: paths(MODEL.load(paper(n, "q")), FINE, runs, 2, seed)[0] for n in SIZES}
    panels = []
    for m in range(limit.shape[1]):
        panel = Panel(f"server type {m + 1}", "time", "fraction of servers with at least l tasks")
        for level in (1, 2):
            for n in SIZES:
                panel.add(f"l = {level}, N = {n}", FINE, found[n][:, :, m, level])
            panel.lines.append(Line(f"l = {level}, limit", FINE, limit[:, m, level], is_reference=True))
        panels.append(panel)
    worst = {n: float(np.abs(found[n][:, :, :, 1:3].mean(0) - limit[:, :, 1:3]).max()) for n in SIZES}
    noise = {n: float(4 * found[n][:, :, :, 1:3].std(0, ddof=1).max() / np.sqrt(runs)) for n in SIZES}
    return Result(
        {
            "largest_deviation": {str(n): value for n, value in worst.items()},
            "four_standard_errors": {str(n): value for n, value in noise.items()},
            "claims": [
                claim(
                    "the means approach the limit: their largest deviation is at most 10 / N and four standard errors",
                    all(worst[n] <= 10 / n + noise[n] for n in SIZES),
                ),
            ],
        },
        panels,
    )


def figure_3(runs: int, seed: int) -> Result:
    """Figure 3: the limit from three starts tends to one fixed point (no simulation)."""
    q_star = fixed_point(limit_of(MODEL.load(STARTS[0])))
    found = {name: limit_path(name, LONG) for name in STARTS}
    panels = []
    for m in range(len(q_star)):
        panel = Panel(f"server type {m + 1}", "time", "fraction of busy servers")
        for name, label in zip(STARTS, ("from Q", "from Q1", "from Q2")):
            panel.lines.append(Line(label, LONG, found[name][:, m, 1]))
        panel.lines.append(Line("fixed point", LONG, np.full(len(LONG), q_star[m, 1]), is_reference=True))
        panels.append(panel)
    distance = {name: float(np.abs(path[-1, :, 1] - q_star[:, 1]).max()) for name, path in found.items()}
    return Result(
        {
            "q_star": q_star.tolist(),
            "distance_in_the_end": distance,
            "claims": [claim("all three starts reach the fixed point", max(distance.values()) <= SETTLED, **distance)],
        },
        panels,
    )


EXPERIMENTS: dict[str, Experiment] = {
    "data-locality-fig1": panelled(figure_1, RUNS),
    "data-locality-fig2": panelled(figure_2, RUNS),
    "data-locality-fig3": panelled(figure_3, 1),
}
