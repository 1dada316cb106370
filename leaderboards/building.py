"""What the commands do with a board in a folder: build it, submit to it, replay a row of it."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matchgym.envs.instance import InputError, shorten, unknown
from matchgym.leaderboards.artefact import MANIFEST, Artefact, read_artefact
from matchgym.leaderboards.entrants import baselines
from matchgym.leaderboards.families import FamilyTask
from matchgym.leaderboards.running import Bar, no_bar
from matchgym.leaderboards.season import Season, archive, close_season, latest, open_season, season_tasks, seasons
from matchgym.leaderboards.site import publish
from matchgym.leaderboards.store import FolderStore, Record
from matchgym.leaderboards.submission import due_entries, submit, submit_baselines, verify_leaders
from matchgym.leaderboards.tasks import TASKS, TASKS_LISTED, Task, find_family, find_task
from matchgym.leaderboards.verification import replay

DEFAULT_SEASON = "season-1"


def build_board(
    out: Path,
    tasks: Sequence[Task] = TASKS,
    agents: Sequence[Path] = (),
    is_quick: bool = False,
    bar: Bar = no_bar,
    jobs: int = 1,
) -> Record:
    """Submit the baselines of all tasks and trained agents in the open season of a folder, and write its pages.

    Parameters
    ----------
    tasks : of the board; a season is opened for them if there is none.
    agents : folders written by `train`, or folders of such. Each is exported and submitted as everyone's.
    is_quick : whether a season that is opened has tasks at a fraction of their length; an open one must be of the same kind.
    """
    store = FolderStore(out)
    with store.writing():
        return _build(store, tasks, agents, is_quick, bar, jobs)


def _build(store: FolderStore, tasks: Sequence[Task], agents: Sequence[Path], is_quick: bool, bar: Bar, jobs: int) -> Record:
    opened = seasons(store.records())
    season = opened[-1] if opened else open_season(store, DEFAULT_SEASON, is_quick)
    if season.is_quick != is_quick:
        kinds = ("full", "quick") if is_quick else ("quick", "full")
        raise InputError(
            f"{store.folder} holds a {kinds[0]} board, which a {kinds[1]} one must not replace; give another --out."
        )
    folders = find_agents(agents)
    asked = {task.name: task for task in tasks}
    known = [asked.pop(task.name, task) for task in TASKS]  # the board may have more tasks than are asked for
    known += asked.values()
    submit_baselines(baselines(tasks), store, known, bar, jobs)
    with tempfile.TemporaryDirectory() as name:
        exported = [_exported(folder, Path(name) / str(k), tasks) for k, folder in enumerate(folders)]
    done = {record["body"].get("artefact") for record in store.records()}
    submit([each for each in exported if each.sha256 not in done], store, known, is_jailed=False, bar=bar, jobs=jobs)
    # Without agents of one's own, whoever is measured here has been submitted by somebody else.
    verify_leaders(store, known, is_jailed=not exported, bar=bar, jobs=jobs)
    return publish(store, known)


def _exported(folder: Path, out: Path, tasks: Sequence[Task]) -> Artefact:
    from matchgym.leaderboards.export import export_agents  # torch is imported only if there is an agent

    export_agents([folder], out, folder.resolve().name, ["anonymous"], tasks=tasks)
    return read_artefact(out, tasks)


def find_agents(folders: Sequence[Path]) -> list[Path]:
    """The agents in folders: a folder holds one agent, or sub-folders that hold one each."""
    found: list[Path] = []
    for folder in folders:
        inside = [path.parent for path in sorted(folder.glob("*/config.json"))]
        holders = [folder] if (folder / "config.json").is_file() else inside
        if not holders:
            raise InputError(f"--agents {shorten(str(folder))} holds no trained agent; give a folder written by train.")
        found += holders
    for holder in found:
        try:
            config = json.loads((holder / "config.json").read_text())
            is_agent = isinstance(config, dict) and (holder / "model.zip").is_file()
        except (OSError, ValueError):
            is_agent = False
        if not is_agent:
            raise InputError(
                f"--agents {shorten(str(holder))} lacks a readable config.json or model.zip; give a folder written by train."
            )
    return found


def submit_artefacts(
    out: Path,
    artefacts: Sequence[Artefact],
    is_jailed: bool = True,
    bar: Bar = no_bar,
    tasks: Sequence[Task] = TASKS,
    jobs: int = 1,
) -> Record:
    """Submit artefacts to the open season of a folder, all or, if one is refused, none; returns the board."""
    store = FolderStore(out)
    with store.writing():
        submit(artefacts, store, tasks, is_jailed=is_jailed, bar=bar, jobs=jobs)
        verify_leaders(store, tasks, is_jailed, bar, jobs)
        return publish(store, tasks)


def open_board(out: Path, name: str, is_quick: bool = False) -> Season:
    """Open a season in a folder."""
    store = FolderStore(out)
    with store.writing():
        return open_season(store, name, is_quick)


def close_board(out: Path, tasks: Sequence[Task] = TASKS) -> Season:
    """Close the season of a folder and write its pages; InputError while an entry has neither a row nor a refusal."""
    store = FolderStore(out)
    with store.writing():
        return _close(store, tasks)


def _close(store: FolderStore, tasks: Sequence[Task]) -> Season:
    left = due_entries(store, tasks) if latest(store).is_open else []
    if left:
        names = {record["body"].get("artefact"): record["body"].get("name") for record in store.records()}
        raise InputError(
            f"{len(left)} entries are not measured yet, such as {shorten(names[left[0].artefact])} on "
            f"{left[0].file.task.name}; submit the same artefacts again to finish them."
        )
    season = close_season(store)
    publish(store, tasks)
    return season


def new_season(out: Path, name: str, tasks: Sequence[Task] = TASKS, bar: Bar = no_bar, jobs: int = 1) -> Record:
    """Close the season of a folder if it is open, keep its last board, open the next and submit all baselines to it.

    The same call goes on where it was interrupted.
    """
    store = FolderStore(out)
    with store.writing():
        known = seasons(store.records())
        if not known or known[-1].name != name:
            if known:
                if known[-1].is_open:
                    _close(store, tasks)
                archive(store, known[-1])
            open_season(store, name)
        return _build(store, tasks, (), False, bar, jobs)


def find_artefacts(folders: Sequence[Path]) -> list[Path]:
    """The artefacts in folders: a folder holds one, or sub-folders that hold one each."""
    found: list[Path] = []
    for folder in folders:
        inside = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
        if not (folder / MANIFEST).is_file() and not inside:
            raise InputError(f"{shorten(str(folder))} holds no {MANIFEST}; give a folder that `matchgym export` wrote.")
        found += [folder] if (folder / MANIFEST).is_file() else inside
    return found


def chosen_tasks(names: Sequence[str], tasks: Sequence[Task] = TASKS) -> list[Task]:
    """The tasks of these names; the name of a family stands for all its instances."""
    families = {task.family for task in tasks if task.family}
    return [task for name in names for task in (find_family(name, tasks) if name in families else [find_task(name, tasks)])]


def instance_of(name: str, seed: int | None = None, revealed: Path | None = None, tasks: Sequence[Task] = TASKS) -> Any:
    """The instance of a task; of a family, the public one, that of another seed, or that of a board's closed season."""
    task = find_task(name, tasks)
    if isinstance(task, FamilyTask):
        if seed is not None and revealed is not None:
            raise InputError("--seed and --revealed exclude each other; leave one out.")
        if seed is not None:
            return task.drawn_with(seed).load()
        if revealed is not None:
            store = FolderStore(revealed)
            season = latest(store)
            if season.is_open:
                raise InputError(f"season {season.name} is open, so that the instance of {name} is still secret.")
            return season_tasks(season, store, [task])[name].load()
    elif seed is not None or revealed is not None:
        raise InputError(f"task {name} has one instance; leave out {'--seed' if seed is not None else '--revealed'}.")
    return task.practice().load()


def replay_rows(
    out: Path, digest: str, task_name: str, bar: Bar = no_bar, tasks: Sequence[Task] = TASKS
) -> list[dict[str, Any]]:
    """Measure the rows of an artefact on a task again, in the last season, and say what differs (None: nothing)."""
    store = FolderStore(out)
    season = latest(store)
    known = season_tasks(season, store, tasks)
    if task_name not in known:
        raise unknown("task", task_name, known, TASKS_LISTED)
    mine = [record["body"] for record in store.records() if record["body"].get("season") == season.name]
    names = {body["artefact"]: body["name"] for body in mine if "name" in body}
    chosen = [key for key in names if key.startswith(digest)] if len(digest) >= 8 else []
    if len(chosen) != 1:
        raise InputError(
            f"no artefact or several on the board have a sha256 that starts with {shorten(digest)}; give more digits."
        )
    found = []
    for body in mine:
        if body.get("artefact") == chosen[0] and body.get("task") == task_name and "values" in body:
            problem = replay(store, season, known[task_name], body, tasks, bar)
            if problem == "":
                raise InputError("this row cannot be replayed: the season's secret is not revealed, or there is no jail here.")
            row = {"task": task_name, "name": names[chosen[0]], "phase": body["phase"], "replications": len(body["values"])}
            found.append(row | {"problem": problem})
    if not found:
        raise InputError(f"{names[chosen[0]]} has no row on task {task_name}.")
    return found
