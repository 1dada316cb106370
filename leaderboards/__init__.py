"""The leaderboard: frozen tasks, submissions that are evaluated here, results that anyone can verify, and static pages."""

from matchgym.leaderboards.tasks import SCORER_VERSION, SUITE_VERSION, TASKS, Task, find_task

__all__ = ["SCORER_VERSION", "SUITE_VERSION", "TASKS", "Task", "find_task"]
