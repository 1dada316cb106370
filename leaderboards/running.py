"""Measurements that are due, task by task, in this process or in several.

Entries of one task are measured one after the other, in the order in which they came in, as each is compared with the best
baseline so far; tasks know nothing of each other. So the values do not depend on the number of processes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from matchgym.envs.instance import InputError
from matchgym.leaderboards.artefact import File, load_policy, release
from matchgym.leaderboards.board import BASELINE
from matchgym.leaderboards.jail import JailError
from matchgym.leaderboards.measuring import Progress, Values, bound_task, certified_values, is_unstable, measure
from matchgym.leaderboards.probes import decisions
from matchgym.leaderboards.rehearsal import rehearse
from matchgym.leaderboards.season import Season, seed_of
from matchgym.leaderboards.store import Record, Store
from matchgym.leaderboards.task import Task

Bar = Callable[[str], AbstractContextManager[Callable[[float], None]]]  # as matchgym.cli.output.progress_bar
Finding = tuple[str, Record]  # kind and body of a record
ATTEMPTS = 3  # of a measurement that fails in the jail
FRESH = "under fresh seeds: "  # how the reason begins if it was refused there


def no_bar(label: str) -> AbstractContextManager[Callable[[float], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda share: None)


@dataclass(frozen=True)
class Due:
    """An entry that is to be measured under the seeds of a phase."""

    file: File  # on the season's task
    artefact: str
    phase: str


@dataclass(frozen=True)
class Job:
    """All that a measurement needs, for any process."""

    due: Due
    season: str
    name: str
    seed: int
    rival: Values | None
    certified: float
    is_ours: bool
    is_jailed: bool

    @property
    def label(self) -> str:
        return f"{self.due.file.task.name}, {self.name}{'' if self.due.phase == 'season' else ', fresh seeds'}"


def run_due(due: Sequence[Due], season: Season, store: Store, is_jailed: bool, bar: Bar = no_bar, jobs: int = 1) -> None:
    """Measure what is due, in `jobs` processes, and append a record for each as soon as it is known."""
    queues: dict[str, deque[Due]] = {}
    for each in due:
        queues.setdefault(each.file.task.name, deque()).append(each)
    if jobs == 1:
        for queue in queues.values():
            for each in queue:
                if not has_bounds(store.records(), season, each.file.task):
                    store.append(*bound_job(each.file.task, season.name, store, _seed(each, season, store)))
                job = _job(each, season, store, is_jailed)
                with bar(job.label) as progress:
                    finding = run_job(job, progress)
                store.append(*finding)
        return
    total = len(due)
    with bar(f"{total} measurements") as progress, ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        running: dict[Future[Finding], str] = {}
        try:
            while queues or running:
                for name in [name for name in queues if name not in running.values()][: jobs - len(running)]:
                    running[_begin(pool, queues[name], season, store, is_jailed)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    kind, body = future.result()
                    store.append(kind, body)
                    if kind != "bounded":
                        queues[name].popleft()
                        progress(1 - sum(map(len, queues.values())) / total)
                    if not queues[name]:
                        del queues[name]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(pool: ProcessPoolExecutor, queue: deque[Due], season: Season, store: Store, is_jailed: bool) -> "Future[Finding]":
    """Start the first measurement of a task's queue, or the bounds that it needs."""
    task = queue[0].file.task
    if not has_bounds(store.records(), season, task):
        return pool.submit(bound_job, task, season.name, store.without_records(), _seed(queue[0], season, store))
    return pool.submit(run_job, _job(queue[0], season, store, is_jailed))


def _seed(due: Due, season: Season, store: Store) -> int:
    return seed_of(season.secret(store), due.file.task, due.phase)


def _job(due: Due, season: Season, store: Store, is_jailed: bool) -> Job:
    known = season_record(store.records(), season, due.file.task)
    return Job(
        due=due,
        season=season.name,
        name=known["names"][due.artefact],
        seed=_seed(due, season, store),
        rival=known["rival"] if due.phase == "season" and known["has_anchor"] else None,
        certified=float(certified_values(known["bound"], 1)[0]),
        is_ours=known["kinds"][due.artefact] == BASELINE,
        is_jailed=is_jailed,
    )


def bound_job(task: Task, season: str, store: Store, seed: int) -> Finding:
    """The record of the bounds of a task."""
    return "bounded", {"season": season, **bound_task(task, store, seed)}


def run_job(job: Job, progress: Progress | None = None) -> Finding:
    """Measure an entry; a policy that cannot play is refused, with the reason.

    What fails in its jail, where memory and time depend on what else the machine does, is tried ATTEMPTS times.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            return _try(job, progress)
        except JailError as error:
            if not left:
                return _refused(job, error)
    raise AssertionError("the last attempt returns")


def _try(job: Job, progress: Progress | None) -> Finding:
    file, phase = job.due.file, job.due.phase
    policy = None
    try:
        if file.kind == "declarative/1" and file.task.family and not job.is_ours and phase == "season":
            rehearse(file)  # the gate has seen the public instance only
        policy = load_policy(file, job.is_jailed)
        told = decisions(file.task, policy) if phase == "season" else None
        found = measure(file.task, policy, job.seed, job.rival, progress=progress)
    except JailError:
        raise
    except InputError as error:
        return _refused(job, error)
    finally:
        if policy is not None:
            release(policy)
    return "evaluated", _where(job) | {
        "phase": phase,
        "values": found.values.tolist(),
        "batch_means_half_width": found.batch_means_half_width,
        "is_unstable": is_unstable(found, job.certified),
        "microseconds": found.microseconds,
        "is_jailed": job.is_jailed and file.kind != "declarative/1",
        "decisions": told,
    }


def _where(job: Job) -> Record:
    return {"season": job.season, "artefact": job.due.artefact, "task": job.due.file.task.name}


def _refused(job: Job, error: InputError) -> Finding:
    reason = refusal_of(job.due.file, error, job.is_jailed)
    return "refused", _where(job) | {"reason": reason if job.due.phase == "season" else FRESH + reason}


def phase_of(body: Record) -> str:
    """The phase of a row or of a refusal."""
    return str(body["phase"]) if "phase" in body else "fresh" if body["reason"].startswith(FRESH) else "season"


def refusal_of(file: File, error: InputError, is_jailed: bool = False) -> str:
    """The sentence that tells why an entry is refused; of a secret instance, nothing but what a public one shows."""
    if not file.task.family:
        return str(error)
    try:
        release(load_policy(file.practice(), is_jailed))
    except InputError as public:
        return f"on the public instance of the family: {public}"
    return "it refuses this secret instance of the family, and not the public one."


def has_bounds(records: Sequence[Record], season: Season, task: Task) -> bool:
    """Whether the bounds of a task are known in a season."""
    mine = (record["body"] for record in records if record["kind"] == "bounded")
    return any((body["season"], body["task"]) == (season.name, task.name) for body in mine)


def is_phase(record: Record, phase: str) -> bool:
    """Whether a record holds values of that phase."""
    return bool(record["kind"] == "evaluated" and record["body"]["phase"] == phase)


def season_record(records: Sequence[Record], season: Season, task: Task) -> dict[str, Any]:
    """What a measurement must know of a task in a season.

    `names` and `kinds` of artefacts, the `bound`, whether the anchor is measured, and the `rival`: the values of the best
    classical baseline that was measured on all replications.
    """
    kinds: dict[str, str] = {}
    found: dict[str, Any] = {"names": {}, "kinds": kinds, "bound": None, "has_anchor": False, "rival": None}
    for record in records:
        body = record["body"]
        if body.get("season") != season.name:
            continue
        if record["kind"] == "submitted":
            kinds[body["artefact"]], found["names"][body["artefact"]] = body["kind"], body["name"]
        elif body.get("task") != task.name:
            continue
        elif record["kind"] == "bounded":
            found["bound"] = body["bound"]
        elif is_phase(record, "season") and kinds[body["artefact"]] == BASELINE:
            values = np.array(body["values"], float)
            found["has_anchor"] |= found["names"][body["artefact"]] == task.anchor
            is_best = found["rival"] is None or values.mean() > found["rival"].mean()
            if len(values) == task.replications and is_best and not body["is_unstable"]:
                found["rival"] = values
    return found
