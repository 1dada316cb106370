"""The tasks of the leaderboard, as plain data in `matching_tasks` and `service_tasks`.

A task is never edited: a change of any of its numbers is a new SUITE_VERSION. A change of how rows are computed from a task is
a new SCORER_VERSION. Either makes every published row stale. Everything else iterates over TASKS, so that an entry there is
all that a new task needs.

A task has 256 replications, see `measuring`. Its warm-up is at least the time after which the model forgets its start, and
warm-up and decisions make the 95 % half-width of the best baseline at most 0.5 % of its mean (of its share of the bound, where
every replication draws an instance of its own). Where rewards are drawn anew, longer runs do not make shares alike, so that it
takes more replications: up to 2,048, with looks in proportion.
"""

from collections.abc import Sequence

from matchgym.envs.instance import unknown
from matchgym.leaderboards.families import MEMBER_TASKS
from matchgym.leaderboards.matching_tasks import MATCHING_TASKS
from matchgym.leaderboards.service_tasks import SERVICE_TASKS
from matchgym.leaderboards.task import LOOKS as LOOKS
from matchgym.leaderboards.task import Task as Task

SUITE_VERSION = "4"
SCORER_VERSION = "3"

FIXED_TASKS = (*MATCHING_TASKS, *SERVICE_TASKS)
TASKS: tuple[Task, ...] = (*FIXED_TASKS, *MEMBER_TASKS)
TASKS_LISTED = "tasks.html of the leaderboard lists them"


def find_task(name: str, tasks: Sequence[Task] = TASKS) -> Task:
    """The task of that name; InputError for an unknown one."""
    for task in tasks:
        if task.name == name:
            return task
    raise unknown("task", name, [task.name for task in tasks], TASKS_LISTED)


def find_family(name: str, tasks: Sequence[Task] = TASKS) -> list[Task]:
    """The tasks of the family of that name; InputError for an unknown one."""
    found = [task for task in tasks if name and task.family == name]
    if not found:
        raise unknown("family", name, dict.fromkeys(task.family for task in tasks if task.family), TASKS_LISTED)
    return found
