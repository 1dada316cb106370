"""Evaluation of an artefact on the public seeds, for whoever wants to know where it would stand."""

from collections.abc import Callable
from typing import Any

from matchgym.baselines.statistics import t_interval
from matchgym.leaderboards.artefact import File, load_policy, task_policies
from matchgym.leaderboards.board import evaluate_policy, interval, score_interval


def practise(file: File, is_full: bool, progress: Callable[[float], None] | None = None) -> dict[str, Any]:
    """What the board would say of one entry of an artefact; at a fraction of the length unless `is_full`.

    Raises InputError if the gate refuses the file.
    """
    policy = load_policy(file)
    task = file.task if is_full else file.task.quick()
    instance = task.load()
    bound = task.entry.layer("bounds").bound(instance, task.bound_kind).certified_value
    anchor = evaluate_policy(task, task_policies(task)[task.anchor]().fit(instance), instance).values
    values = evaluate_policy(task, policy, instance, progress).values
    return {
        "task": task.name,
        "kind": file.kind,
        "replications": task.replications,
        "decisions": task.decisions,
        "objective": interval(t_interval(values)),
        "score": interval(score_interval(values, anchor, bound)),
        "bound": bound,
        "anchor": task.anchor,
    }
