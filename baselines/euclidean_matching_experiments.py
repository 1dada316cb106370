"""What cells cost and gain in the plane (arXiv 2501.08775, Section 4), and the frontier of any Euclidean instance."""

from typing import Any

import numpy as np

from matchgym.baselines.euclidean_cells import SIDES, EuclideanCells
from matchgym.baselines.euclidean_matching import POLICIES
from matchgym.baselines.evaluation import evaluate, play
from matchgym.baselines.experiments import Experiment, Progress
from matchgym.baselines.matching_queues_experiments import draw_frontier as draw_frontier
from matchgym.baselines.matching_queues_experiments import run_frontier as network_frontier
from matchgym.baselines.panels import claim
from matchgym.bounds.euclidean_matching import bound
from matchgym.envs.euclidean_matching import MODEL
from matchgym.envs.registry import find

ID = "EuclideanMatching-v0"
INSTANCE = "plane-200x200"
REFERENCES = ("price-greedy", "dispatch-radius", "greedy")
REPLICATIONS, WARMUP, DECISIONS = 16, 4_000, 20_000
SHOWN_WARMUP, SHOWN = 4_000, 3_000  # decisions of the run whose matches are drawn

INK, MUTED, BLUE, RED, GREEN, AMBER = "#1f2933", "#9aa5b1", "#0b6e99", "#b7410e", "#2f7d4f", "#d97706"


def run_frontier(instance: Any, progress: Progress) -> dict[str, Any]:
    """The frontier c, or a lower bound on it, with this model's policies as points."""
    return network_frontier(MODEL.load(instance), progress, POLICIES, ID)


def run_cells(progress: Progress, replications: int, seed: int) -> dict[str, Any]:
    """The objective over the side of the cells, and the matches of the best side."""
    instance, upper = MODEL.load(INSTANCE), bound(INSTANCE)
    progress(0.1)
    rows: list[dict[str, Any]] = []
    policies = []
    for k, side in enumerate(SIDES):
        policy = EuclideanCells(side).fit(instance)
        found = evaluate(policy, ID, instance, replications, WARMUP, DECISIONS, seed)
        throughput, cost = policy.planned_
        rows.append(
            {
                "side": side,
                "cells": len(policy.plans_),
                "objective": vars(found.objective),
                **{name: interval.mean for name, interval in found.rates.items()},
                "planned": {"throughput": throughput, "cost_rate": cost, "objective": instance.price * throughput - cost},
            }
        )
        policies.append(policy)
        progress(0.1 + 0.7 * (k + 1) / len(SIDES))
    best = policies[int(np.argmax([row["objective"]["mean"] for row in rows]))]
    references = {
        name: vars(evaluate(POLICIES[name]().fit(instance), ID, instance, replications, WARMUP, DECISIONS, seed).objective)
        for name in REFERENCES
    }
    progress(0.95)
    matches = matched_pairs(best, seed)
    own, theirs = best.grid_.numbers(instance.supplier_locations), best.grid_.numbers(instance.customer_locations)
    crossing = sum(count for i, j, count in matches if (own[i] != theirs[j]).any())
    return {
        "instance": instance.name,
        "sha256": instance.sha256,
        "bound": upper.certified_value,
        "sides": rows,
        "references": references,
        "best": {
            "side": best.grid_.side,
            "shift": best.grid_.shift.tolist(),
            "matches": matches,
            "theory": best.theory_,
        },
        "suppliers": instance.supplier_locations.tolist(),
        "customers": instance.customer_locations.tolist(),
        "claims": [
            claim("nobody is matched across cells", crossing == 0, crossing=crossing),
            claim("no side earns more than the bound", all(row["objective"]["low"] <= upper.certified_value for row in rows)),
        ],
    }


def matched_pairs(policy: EuclideanCells, seed: int) -> list[list[int]]:
    """[supplier, customer, number of matches] of one run of SHOWN decisions."""
    counts: dict[tuple[int, int], int] = {}
    for _, state in play(policy, find(ID), policy.instance, 1, [SHOWN_WARMUP] + [1] * SHOWN, seed):
        i, j = int(state.last_supplier[0]), int(state.last_customer[0])
        if i >= 0:
            counts[i, j] = counts.get((i, j), 0) + 1
    return [[i, j, count] for (i, j), count in sorted(counts.items())]


def draw_cells(figure: Any, data: dict[str, Any]) -> None:
    """The map with cells and matches, and the objective over the side."""
    figure.set_size_inches(12, 5.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.05, 1))
    _draw_map(left, data)
    rows = data["sides"]
    sides = [row["side"] for row in rows]
    means = np.array([row["objective"]["mean"] for row in rows])
    spread = np.abs(np.array([[row["objective"][end] for row in rows] for end in ("low", "high")]) - means)
    right.errorbar(sides, means, spread, color=BLUE, marker="o", markersize=4, capsize=3, label="euclidean-cells")
    planned = [row["planned"]["objective"] for row in rows]
    right.plot(sides, planned, color=BLUE, linewidth=1, linestyle=":", label="what its programmes promise")
    for (name, found), colour in zip(data["references"].items(), (GREEN, AMBER, RED)):
        right.axhline(found["mean"], color=colour, linewidth=1.2, linestyle="--", label=name)
    right.axhline(data["bound"], color=INK, linewidth=1.4, label="certified bound")
    right.set_xscale("log")
    right.set_xticks(sides, [f"1/{round(1 / side)}" if side < 1 else "1" for side in sides])
    right.minorticks_off()
    right.set_ylim(bottom=min(0.0, float(means.min())) - 0.05 * data["bound"])
    right.set_xlabel("side of the cells")
    right.set_ylabel("theta x throughput - cost, per unit of time")
    right.set_title("Objective, 95 % intervals", loc="left", fontsize=10)
    right.legend(frameon=False, fontsize=8, loc="lower center")


def _draw_map(axes: Any, data: dict[str, Any]) -> None:
    best, suppliers, customers = data["best"], np.array(data["suppliers"]), np.array(data["customers"])
    most = max(count for _, _, count in best["matches"])
    for i, j, count in best["matches"]:
        ends = np.array([suppliers[i], customers[j]])
        axes.plot(*ends.T, color=AMBER, linewidth=0.5 + 2.5 * count / most, alpha=0.75, zorder=2, solid_capstyle="round")
    for axis, draw in enumerate((axes.vlines, axes.hlines)):
        if best["side"] < 1:
            draw(np.arange(best["shift"][axis], 1, best["side"]), 0, 1, color=INK, linewidth=0.9, zorder=1)
    axes.plot(*suppliers.T, "o", color=BLUE, markersize=4, markeredgewidth=0, label="suppliers", zorder=3)
    axes.plot(*customers.T, "^", color=RED, markersize=4, markeredgewidth=0, label="customers", zorder=3)
    axes.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color=INK, linewidth=1.4)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(f"{data['instance']}: cells of the best side and their matches", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)


EXPERIMENTS = {
    "euclidean-cells": Experiment(
        "Euclidean matching in the plane: cells and matches, and the objective over the side of the cells (Section 4)",
        run_cells,
        draw_cells,
        REPLICATIONS,
    ),
}
