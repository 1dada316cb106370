"""Evaluation of an artefact on the public seeds, for whoever wants to know where it would stand."""

from collections.abc import Callable
from typing import Any

from matchgym.baselines.evaluation import drawn_instances
from matchgym.baselines.statistics import t_interval
from matchgym.leaderboards.artefact import File, load_policy, release, task_policies
from matchgym.leaderboards.board import interval, score_interval
from matchgym.leaderboards.measuring import certified_values, measure


def practise(
    file: File, is_full: bool, progress: Callable[[float], None] | None = None, is_jailed: bool = False
) -> dict[str, Any]:
    """What the board would say of one entry of an artefact; at a fraction of the length unless `is_full`.

    Raises InputError if the gate refuses the file.
    """
    file = file.practice()
    policy = load_policy(file, is_jailed)
    task = file.task if is_full else file.task.quick()
    instance = task.load()
    layer = task.entry.layer("bounds")
    drawn = drawn_instances(task.entry, instance, task.replications, task.seed)
    uppers = [layer.bound(each, task.bound_kind).certified_value for each in drawn or (instance,)]
    certified = certified_values({"uppers": uppers} if drawn else {"upper": uppers[0]}, task.replications)
    anchor = measure(task, task_policies(task)[task.anchor]().fit(instance), task.seed).values
    try:
        values = measure(task, policy, task.seed, progress=progress).values
    finally:
        release(policy)
    return {
        "task": task.name,
        "kind": file.kind,
        "replications": task.replications,
        "decisions": task.decisions,
        "objective": interval(t_interval(values)),
        "score": interval(score_interval(values, anchor, certified)),
        "bound": float(certified.mean()),
        "anchor": task.anchor,
    }
