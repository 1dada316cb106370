"""Figure 1 of arXiv 2501.08775, and the frontier of cost and throughput of any instance.

The adaptivity gap is static / adaptive: the cost of the best rule (k, p) that ignores the queue over that of the best policy,
at the same throughput; 1 where both are 0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.evaluation import evaluate
from matchgym.baselines.exact import exact_value
from matchgym.baselines.experiments import Experiment, Progress
from matchgym.baselines.matching_queues import POLICIES, static_threshold
from matchgym.baselines.policy import Policy
from matchgym.bounds.pareto import frontier as cost_frontier
from matchgym.bounds.pareto import largest_throughput
from matchgym.envs.catalogues.matching_queues import hard, random_queue
from matchgym.envs.instance import InputError
from matchgym.envs.matching_queues import QueueNetwork, load
from matchgym.envs.single_queue import law_kernel, queue_frontier, static_throughput, sufficient_cap

INSTANCES = 1000
TARGETS = (1.0, 1.5, 2.0, 2.5, 3.0)  # the paper does not say which; at tau* <= 1 there is no gap
RATES = np.round(np.arange(0.02, 3.001, 0.01), 2)  # abandonment rates mu of Figure 1(b), besides those just above mu*
ABOVE = 10.0 ** np.arange(-6, -1.9, 0.25)
NOTHING = 1e-12  # cost that counts as 0, relative to what serving everybody costs
REPLICATIONS, WARMUP, DECISIONS = 16, 2_000, 8_000  # of the simulated points of a frontier
EXACT_STATES = 4_000

INK, MUTED, BLUE, RED, GREEN = "#1f2933", "#7b8794", "#0b6e99", "#b7410e", "#2f7d4f"


def adaptivity_gap(
    rate: float, departure_rate: float, customer_rates: NDArray[np.float64], costs: NDArray[np.float64], target: float
) -> tuple[float, float, float]:
    """(gap, static cost, adaptive cost) of one queue; InputError if the target cannot be attained."""
    adaptive = queue_frontier(rate, departure_rate, customer_rates, costs, target).cost
    _, static = static_threshold(rate, departure_rate, customer_rates, costs, target)
    nothing = NOTHING * float(customer_rates @ costs)
    return (1.0 if static <= nothing else static / adaptive), static, adaptive


def random_gaps(progress: Progress, instances: int, first_seed: int) -> dict[str, Any]:
    """Figure 1(a): gaps of random instances at each target; instances that cannot attain it are left out."""
    rows: list[dict[str, Any]] = []
    for k, target in enumerate(TARGETS):
        gaps = []
        for done in range(instances):
            fields = random_queue(first_seed + done)
            rates, costs = np.array(fields["customer_rates"]), np.array(fields["costs"][0])
            if static_throughput(4.0, 1.0, float(rates.sum())) >= target:
                gaps.append(adaptivity_gap(4.0, 1.0, rates, costs, target)[0])
            progress((k + done / instances) / len(TARGETS))
        extra = 100 * (np.array(gaps) - 1)
        rows.append(
            {
                "throughput_target": target,
                "instances": len(gaps),
                "mean_extra_percent": float(extra.mean()),
                "share_above_5_percent": float((extra > 5).mean()),
                "worst_extra_percent": float(extra.max()),
                "quantiles_percent": dict(
                    zip(("5", "25", "50", "75", "95"), np.quantile(extra, [0.05, 0.25, 0.5, 0.75, 0.95]))
                ),
                "gaps": gaps,
            }
        )
    pooled = 100 * (np.concatenate([row["gaps"] for row in rows if row["throughput_target"] > 1]) - 1)
    return {
        "targets": rows,
        "pooled_above_1": {
            "mean_extra_percent": float(pooled.mean()),
            "share_above_5_percent": float((pooled > 5).mean()),
            "worst_extra_percent": float(pooled.max()),
        },
        "paper": {"mean_extra_percent": 3.2, "share_above_5_percent": 0.25, "worst_extra_percent": 40},
    }


def hard_gap(departure_rate: float) -> tuple[float, float, float]:
    """(gap, static cost, adaptive cost) of the hard instance at an abandonment rate."""
    fields = hard(departure_rate)
    rates, costs = np.array(fields["customer_rates"]), np.array(fields["costs"][0])
    return adaptivity_gap(4.0, departure_rate, rates, costs, fields["throughput_target"])


def critical_rate() -> float:
    """mu*: up to it, serving the two free types of the hard instance meets the target at no cost."""
    low, high = 0.5, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if static_throughput(4.0, middle, 4.8) >= 3.0 else (low, middle)
    return low


def limit_gap(rate: float) -> float:
    """The gap's limit from above at mu*: the static marginal cost (1 - pi_0) / tau'(g) at g = 4.8 over the adaptive one, 1."""
    cap, step = sufficient_cap(4.0 / rate), 1e-4
    law = np.empty(cap + 1)
    law_kernel(4.0, rate, np.full(cap + 1, 4.8), law)
    slope = (static_throughput(4.0, rate, 4.8 + step) - static_throughput(4.0, rate, 4.8 - step)) / (2 * step)
    return float((1 - law[0]) / slope)


def hard_curve(progress: Progress) -> dict[str, Any]:
    """Figure 1(b): the gap of the hard instance over the abandonment rate."""
    critical = critical_rate()
    rates = np.sort(np.r_[RATES, critical + ABOVE])
    found = []
    for k, rate in enumerate(rates.tolist()):
        gap, static, adaptive = hard_gap(rate)
        found.append({"abandonment_rate": rate, "gap": gap, "static_cost": static, "adaptive_cost": adaptive})
        progress(k / len(rates))
    worst = max(found, key=lambda row: row["gap"])
    return {
        "critical_rate": critical,
        "limit_above_critical": limit_gap(critical),
        "largest": {"gap": worst["gap"], "abandonment_rate": worst["abandonment_rate"]},
        "selected": {str(rate): hard_gap(rate)[0] for rate in (0.76, 0.9, 1.25, 2.0, 2.5)},
        "curve": found,
        "paper": {"largest": 2.08, "critical_rate": 0.76},
    }


def run_figure_1(progress: Progress, replications: int, seed: int) -> dict[str, Any]:
    """Both parts; `replications` random instances."""
    return {
        "random": random_gaps(lambda share: progress(0.9 * share), replications, seed),
        "hard": hard_curve(lambda share: progress(0.9 + 0.1 * share)),
    }


def draw_figure_1(figure: Any, data: dict[str, Any]) -> None:
    """Box plots of the gap by target, and the gap of the hard instance."""
    figure.set_size_inches(11, 4.4)
    left, right = figure.subplots(1, 2)
    rows = data["random"]["targets"]
    extras = [[100 * (gap - 1) for gap in row["gaps"]] for row in rows]
    left.boxplot(
        extras, whis=(5, 95), widths=0.5, showmeans=True, flierprops={"markersize": 2, "markeredgecolor": MUTED},
        medianprops={"color": BLUE}, meanprops={"marker": "D", "markersize": 4, "markerfacecolor": RED, "markeredgecolor": RED},
    )  # fmt: skip
    left.set_xticklabels([f"{row['throughput_target']:g}\n(n = {row['instances']})" for row in rows])
    left.set_xlabel("throughput target")
    left.set_ylabel("static cost above adaptive, %")
    left.set_title("Random instances; diamond: mean, box: quartiles, whiskers: 5-95 %", loc="left", fontsize=10)
    curve = data["hard"]["curve"]
    right.plot([row["abandonment_rate"] for row in curve], [row["gap"] for row in curve], color=BLUE, linewidth=1.8)
    largest = data["hard"]["largest"]
    right.annotate(
        f"{largest['gap']:.3f} at {largest['abandonment_rate']:.4f}",
        (largest["abandonment_rate"], largest["gap"]), (12, -3), textcoords="offset points", color=RED, fontsize=9,
    )  # fmt: skip
    right.set_xlabel("abandonment rate")
    right.set_ylabel("static cost / adaptive cost")
    right.set_title("Hard instance", loc="left", fontsize=10)


EXPERIMENTS = {
    "matching-queues-fig1": Experiment(
        "The adaptivity gap of one queue: 1000 random instances, and the hard instance over the abandonment rate (Figure 1)",
        run_figure_1,
        draw_figure_1,
        INSTANCES,
    ),
}


def run_frontier(
    instance: Any, progress: Progress, policies: Mapping[str, type[Policy]] = POLICIES, env_id: str = "MatchingQueues-v0"
) -> dict[str, Any]:  # fmt: skip
    """The frontier c, or a lower bound on it, with static rules and this package's policies as points."""
    instance = load(instance)
    found = cost_frontier(instance, lambda share: progress(0.3 * share))
    points = []
    for k, (name, kind) in enumerate(policies.items()):
        progress(0.3 + 0.7 * k / len(policies))
        if name != "random":
            points.append(_point(instance, name, kind, env_id))
    return {
        "id": env_id,
        "instance": instance.name,
        "sha256": instance.sha256,
        "throughput_target": instance.throughput_target,
        "throughput_price": instance.price,
        "frontier": {
            "kind": found.kind,
            "throughput": [throughput for throughput, _ in found.points],
            "cost_rate": [cost for _, cost in found.points],
        },
        "static": _static_curve(instance),
        "policies": [point for point in points if point],
    }


def _static_curve(instance: QueueNetwork) -> dict[str, list[float]] | None:
    """Throughput and cost of the rules (k, p) of one queue; None for a network, where they have no formula."""
    if instance.n_suppliers > 1:
        return None
    queue = float(instance.supplier_rates[0]), float(instance.departure_rates[0])
    targets = np.linspace(0, largest_throughput(instance), 101)
    costs = [static_threshold(*queue, instance.customer_rates, instance.costs[0], target)[1] for target in targets.tolist()]
    return {"throughput": targets.tolist(), "cost_rate": costs}


def _point(instance: QueueNetwork, name: str, kind: Any, env_id: str) -> dict[str, Any] | None:
    """A policy's throughput and cost: exact where its chain is small, else with 95 % intervals; None if it cannot be fitted."""
    try:
        policy = kind().fit(instance)
    except InputError:
        return None
    try:
        rates = instance.measures(exact_value(policy, EXACT_STATES).match_rates)
        return {"policy": name, "is_exact": True, **rates}
    except InputError:
        found = evaluate(policy, env_id, instance, REPLICATIONS, WARMUP, DECISIONS).rates
        intervals = {f"{key}_interval": [interval.low, interval.high] for key, interval in found.items()}
        return {"policy": name, "is_exact": False, **{key: each.mean for key, each in found.items()}, **intervals}


def draw_frontier(figure: Any, data: dict[str, Any]) -> None:
    """The curve, the static rules, the policies, and the target."""
    figure.set_size_inches(8, 5)
    axes = figure.subplots()
    curve = data["frontier"]
    label = "best policies" if curve["kind"] == "optimum" else "lower bound (DLPtilde)"
    axes.plot(curve["throughput"], curve["cost_rate"], color=BLUE, linewidth=2, label=label)
    if data["static"]:
        static = data["static"]
        axes.plot(
            static["throughput"], static["cost_rate"], color=RED, linewidth=1.5, linestyle=(0, (5, 2)), label="static rules"
        )
    axes.axvline(data["throughput_target"], color=MUTED, linewidth=1, linestyle=":", label="target")
    markers = "osD^vPXh<>"
    for k, point in enumerate(data["policies"]):
        x, y = point["throughput"], point["cost_rate"]
        name = point["policy"] + ("" if point["is_exact"] else " (simulated)")
        axes.plot(
            [x],
            [y],
            markers[k % len(markers)],
            markersize=8,
            label=name,
            zorder=4,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linestyle="none",
        )
        if not point["is_exact"]:
            low, high = point["cost_rate_interval"]
            axes.plot([x, x], [low, high], color=INK, linewidth=1, zorder=3)
    axes.set_xlabel("throughput, matches per unit of time")
    axes.set_ylabel("cost per unit of time")
    axes.set_title(f"{data['id']}, {data['instance']}", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
