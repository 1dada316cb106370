"""The leaderboard: frozen tasks, entries evaluated under the same seeds, results that anyone can verify, and static pages."""

from matchgym.leaderboards.board import build_board, evaluate_task
from matchgym.leaderboards.tasks import SCORER_VERSION, SUITE_VERSION, TASKS, Task, find_task
from matchgym.leaderboards.verification import verify_board

__all__ = [
    "SCORER_VERSION",
    "SUITE_VERSION",
    "TASKS",
    "Task",
    "build_board",
    "evaluate_task",
    "find_task",
    "verify_board",
]
