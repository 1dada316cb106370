"""Tracks, one per environment id or family: rows aggregated over tasks by mean score, worst task and interquartile mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from matchgym.baselines.statistics import CONFIDENCE
from matchgym.leaderboards.measuring import significant
from matchgym.leaderboards.ranking import beats, rank_intervals, tiers

Record = dict[str, Any]
Values = NDArray[np.float64]


def interquartile_mean(values: Sequence[float]) -> float:
    """The mean without the quarter (rounded down) of smallest and of largest values."""
    ordered = np.sort(np.asarray(values, float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def mean_interval(samples: Sequence[Values]) -> tuple[float, float, float]:
    """(mean, low, high) of the mean over tasks of independent samples, with Satterthwaite's degrees of freedom."""
    mean = float(np.mean([sample.mean() for sample in samples]))
    parts = [float(sample.var(ddof=1)) / len(sample) / len(samples) ** 2 for sample in samples]
    variance = sum(parts)
    if variance == 0.0:
        return mean, mean, mean
    freedom = variance**2 / sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, samples))
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * float(np.sqrt(variance))
    return mean, mean - half, mean + half


def track_rows(tasks: Sequence[Record]) -> list[Record]:
    """The tracks of a board's tasks. Only rows that play all tasks of a track are compared there; others are counted."""
    found = []
    for name in dict.fromkeys(task["track"] for task in tasks):
        mine = [task for task in tasks if task["track"] == name]
        tables = [{row["artefact"]: row for row in task["rows"]} for task in mine]
        everyone = list(dict.fromkeys(key for table in tables for key in table))
        complete = [
            key
            for key in everyone
            if all(key in table and table[key]["scores"] is not None and not table[key]["is_above_bound"] for table in tables)
        ]
        rows = [_aggregate([table[key] for table in tables]) for key in complete]
        order = sorted(range(len(rows)), key=lambda k: (-rows[k]["score"]["mean"], rows[k]["name"]))
        samples = [[table[complete[k]]["scores"] for table in tables] for k in order]
        beaten = beats(samples)
        ranked = [rows[k] for k in order]
        for row, tier, ranks in zip(ranked, tiers(beaten), rank_intervals(beaten)):
            row["tier"], row["ranks"] = tier, list(ranks)
        partial = [next(table[key]["name"] for table in tables if key in table) for key in everyone if key not in complete]
        found.append({"id": name, "tasks": [task["name"] for task in mine], "rows": ranked, "partial": partial})
    return found


def _aggregate(parts: Sequence[Record]) -> Record:
    """A row of a track from its rows on all tasks."""
    centre, low, high = mean_interval([part["scores"] for part in parts])
    means = [float(part["score"]["mean"]) for part in parts]  # of parts that stopped early not the means of their samples
    mean = float(np.mean(means))
    low, high = mean - (centre - low), mean + (high - centre)
    return {
        "artefact": parts[0]["artefact"],
        "name": parts[0]["name"],
        "kind": parts[0]["kind"],
        "tier": None,
        "ranks": None,
        "score": {"mean": significant(mean), "low": significant(low), "high": significant(high)},
        "worst": significant(min(means)),
        "interquartile_mean": significant(interquartile_mean(means)),
        "microseconds": significant(float(np.mean([part["microseconds"] for part in parts]))),
        "is_unstable": any(part["is_unstable"] for part in parts),
    }
