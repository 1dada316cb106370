"""The tasks of the leaderboard as plain data.

A task is never edited: a change of any of its numbers is a new SUITE_VERSION. A change of how rows are computed from a task is
a new SCORER_VERSION. Either makes every published row stale. Everything else iterates over TASKS, so that an entry here is all
that a new task needs.

Warm-up and decisions are chosen against the relaxation time of the model, at most (sum of customer rates) / (least departure
rate) decisions: the warm-up is at least 10 of them and a replication at least 35. Replications times decisions make the 95 %
half-width of the best baseline at most 0.5 % of its mean.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matchgym.envs.instance import InputError, unknown
from matchgym.envs.registry import Entry, find

SUITE_VERSION = "stationary-1"
SCORER_VERSION = "1"
QUICK = 20  # a quick board takes this many times fewer decisions, and half the replications


@dataclass(frozen=True, kw_only=True)
class Task:
    """An instance, the length of its simulation, and what its scores are measured between."""

    name: str
    id: str
    instance: str  # name in the catalogue of the model
    sha256: str  # of the instance
    replications: int  # R >= 2; replication b is seeded with seed + b
    warmup: int  # decisions per replication
    decisions: int  # counted decisions per replication
    seed: int  # public
    note: str = ""  # one sentence for the page
    anchor: str = "greedy"  # the policy whose score is 0
    bound_kind: str = "tlp-online"  # the kind of bound whose value is the score 1

    @property
    def entry(self) -> Entry:
        """The registry's entry of the environment."""
        return find(self.id)

    def load(self) -> Any:
        """The instance. Raises InputError if it is no longer the one that the task was made with."""
        instance = self.entry.model.load(self.instance)
        if instance.sha256 != self.sha256:
            raise InputError(
                f"instance {self.instance} has sha256 {instance.sha256[:12]}..., but task {self.name} was frozen with "
                f"{self.sha256[:12]}...; restore the instance or make a new task."
            )
        return instance

    def quick(self) -> "Task":
        """The same task at a fraction of the length, for trying things out."""
        return dataclasses.replace(
            self,
            replications=max(2, self.replications // 2),
            warmup=self.warmup // QUICK,
            decisions=max(10, self.decisions // QUICK),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


MATCHING = "StationaryMatching-v0"
TASKS = (
    Task(
        name="demo",
        id=MATCHING,
        instance="demo",
        sha256="f96a850af3d28fd829ad1c0db1e2596c062c876994996466aad798474139fd60",
        replications=64,
        warmup=2_000,
        decisions=40_000,
        seed=7_000_000,
        note=("Two supplier types and three customer types; reward-greedy wastes suppliers, and the exact optimum is known."),
    ),
    Task(
        name="random-3x4",
        id=MATCHING,
        instance="random-3x4",
        sha256="2c83db35602b967afc5f5b83a503b8c74946e7f492dbc00dd1a6a97a251fd91e",
        replications=64,
        warmup=2_000,
        decisions=40_000,
        seed=7_010_000,
        note="Random rates and rewards, small enough for the exact optimum.",
    ),
    Task(
        name="b5-10",
        id=MATCHING,
        instance="b5-10",
        sha256="b0c6468e8dc3f4382c146656299b0a486b9487e4de0710b3c0f5bfa373830f45",
        replications=128,
        warmup=2_000,
        decisions=200_000,
        seed=7_020_000,
        note=(
            "A trap for policies that follow a wasteful solution of the linear programme. Reward-greedy, which never matches "
            "for nothing, is optimal here, so that scores count from random instead."
        ),
        anchor="random",
    ),
    Task(
        name="b5eps-10",
        id=MATCHING,
        instance="b5eps-10",
        sha256="8ac20d65bb57fe54472f8a7c76a9dc6c1e4df14d164c8d8fd06e2c204af9da09",
        replications=128,
        warmup=2_000,
        decisions=200_000,
        seed=7_030_000,
        note="The same trap with small rewards in place of zeros, so that it catches reward-greedy too.",
    ),
    Task(
        name="organ-abo",
        id=MATCHING,
        instance="organ-abo",
        sha256="468d4e1902e8678a70cef13033a79a7c5a1c068ac1d65d38f61dff90f3889020",
        replications=32,
        warmup=5_000,
        decisions=15_000,
        seed=7_040_000,
        note=(
            "Livers and patients of four blood groups and two urgencies; rates from published transplant "
            "statistics, benefits stylised."
        ),
    ),
    Task(
        name="ride-hailing-5x5",
        id=MATCHING,
        instance="ride-hailing-5x5",
        sha256="83263a405f5487a8d1c68d2339e407f573c1c6f6fff20f67da76c39804a162a3",
        replications=64,
        warmup=3_000,
        decisions=30_000,
        seed=7_050_000,
        note="Idle drivers and riders on a grid of 25 zones; all numbers stylised.",
    ),
    Task(
        name="random-40x40",
        id=MATCHING,
        instance="random-40x40",
        sha256="aeb70da10ad106ad78f66737e5ff838a8871ce8d51f72cae0cfacb688853c086",
        replications=64,
        warmup=10_000,
        decisions=50_000,
        seed=7_060_000,
        note="Random rates and rewards with half of the pairs incompatible.",
    ),
)


def find_task(name: str, tasks: Sequence[Task] = TASKS) -> Task:
    """The task of that name; InputError for an unknown one."""
    for task in tasks:
        if task.name == name:
            return task
    raise unknown("task", name, [task.name for task in tasks])
