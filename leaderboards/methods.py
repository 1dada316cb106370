"""The board of methods: at least five independently trained agents of one name, with the noise of training in the interval.

The score of a method is the interquartile mean over its runs and the tasks they share; its interval is a stratified bootstrap:
within each task, runs are drawn with replacement. (The board of policies has the noise of evaluation alone.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.statistics import CONFIDENCE
from matchgym.leaderboards.measuring import significant
from matchgym.leaderboards.ranking import RESAMPLES, RESAMPLING_SEED

Record = dict[str, Any]
LEAST_RUNS = 5


def method_interval(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """(interquartile mean, low, high) of scores (runs, tasks): a percentile interval, stratified by task."""
    runs, tasks = scores.shape
    rng = np.random.default_rng(RESAMPLING_SEED)
    drawn = rng.integers(runs, size=(RESAMPLES, runs, tasks))
    again = scores[drawn, np.arange(tasks)].reshape(RESAMPLES, -1)
    low, high = np.quantile(_trimmed(again), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(_trimmed(scores.reshape(1, -1))[0]), float(low), float(high)


def _trimmed(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The interquartile mean of each row."""
    ordered = np.sort(table, axis=1)
    cut = ordered.shape[1] // 4
    means: NDArray[np.float64] = ordered[:, cut : ordered.shape[1] - cut].mean(1)
    return means


def method_rows(
    tasks: Sequence[Record], submitted: Mapping[str, Record], near: Mapping[str, Sequence[Record]] | None = None
) -> list[Record]:
    """Methods, by name, best first: agents of one name, algorithm and set of tasks that were trained with different seeds.

    `near` has for each agent what came in before and decides alike; runs that decide as an earlier entry are counted.
    """
    tables = {task["name"]: {row["artefact"]: row["score"] for row in task["rows"] if row["score"]} for task in tasks}
    groups: dict[tuple[str, str, tuple[str, ...]], dict[int, str]] = {}
    for artefact, body in submitted.items():
        played = tuple(task for task, table in tables.items() if artefact in table)
        if body["kind"] == "agent" and body["method"]["training_steps"] > 0 and played:
            runs = groups.setdefault((body["name"], body["method"]["algorithm"], played), {})
            runs.setdefault(body["method"]["train_seed"], artefact)
    rows = []
    for (name, algorithm, played), seeds in groups.items():
        artefacts = list(seeds.values())
        if len(artefacts) < LEAST_RUNS:
            continue
        scores = np.array([[tables[task][each]["mean"] for task in played] for each in artefacts])
        mean, low, high = method_interval(scores)
        score = {"mean": significant(mean), "low": significant(low), "high": significant(high)}
        found = {"name": name, "algorithm": algorithm, "runs": len(artefacts), "tasks": list(played), "score": score}
        rows.append({**found, "copies": sum(bool((near or {}).get(each)) for each in artefacts)})
    return sorted(rows, key=lambda row: (-row["score"]["mean"], row["name"], row["tasks"]))
