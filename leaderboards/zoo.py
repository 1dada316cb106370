"""The zoo: agents trained for every task under several seeds, one artefact per id and seed.

`build_zoo` makes all of it anew; what has been trained already is kept, so that it can be interrupted and called again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from matchgym.agents import Measurement, train
from matchgym.agents.training import default_algorithm
from matchgym.leaderboards.artefact import MANIFEST
from matchgym.leaderboards.export import export_agents
from matchgym.leaderboards.tasks import FIXED_TASKS, Task

SEEDS = 5
AUTHORS = ["matchgym"]
MEASUREMENT = Measurement(points=5, rows=64, decisions=500, final_decisions=1000)


def build_zoo(
    runs: Path,
    out: Path,
    ids: Sequence[str] = (),
    seeds: Sequence[int] = tuple(range(SEEDS)),
    timesteps: int | None = None,
    report: Callable[[str], None] = lambda line: None,
    tasks: Sequence[Task] = FIXED_TASKS,
    name: str | None = None,
) -> list[Path]:
    """Train an agent for each task of the ids (default: of all) under each seed, by the recipes of matchgym.agents.

    They are named "zoo ID", or `name`: agents of another recipe are another method and want another name.
    Trainings go to `runs/<task>/seed-<k>`, artefacts to `out/<id>/seed-<k>`; returns the artefacts' folders.
    """
    made = []
    for env_id in ids or dict.fromkeys(task.id for task in tasks):
        mine = [task for task in tasks if task.id == env_id]
        for seed in seeds:
            folders = []
            for task in mine:
                folder = runs / task.name / f"seed-{seed}"
                algo = default_algorithm(task.id, task.load())
                result = train(
                    task.id, task.instance, algo, timesteps, seed, folder=folder, resume=True, measurement=MEASUREMENT
                )
                report(f"{task.name}, seed {seed}: {result.final.mean:.5g} after {result.timesteps:,} steps")
                folders.append(folder)
            target = out / env_id / f"seed-{seed}"
            about = "Trained by `matchgym zoo`."
            export_agents(folders, target, name or f"zoo {env_id}", AUTHORS, description=about, tasks=mine, entered=mine)
            report(f"{target / MANIFEST}")
            made.append(target)
    return made
