"""From an artefact to records: the gate, the measurement of each entry, and fresh seeds for would-be leaders.

Kinds of records, besides those of seasons:

    bounded     the bounds of a task in a season, and whether each certificate is kept
    submitted   an artefact came in: its sha256, the agent's name, and its kind (baseline, optimum, informed or agent)
    refused     an entry of an artefact cannot play its task, and why
    evaluated   the values of an entry's replications under the seeds of a phase, see `season`

An artefact that was submitted stays listed, whatever it scores, and comes in once per season.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards.artefact import (
    Artefact,
    File,
    load_policy,
    parse_declaration,
    release,
    stored_artefact,
    task_policies,
)
from matchgym.leaderboards.board import BASELINE, assemble, leaders
from matchgym.leaderboards.measuring import bound_task, certified_values, is_unstable, measure
from matchgym.leaderboards.season import Season, latest, season_tasks, seed_of
from matchgym.leaderboards.store import Record, Store
from matchgym.leaderboards.tasks import TASKS, Task

Bar = Callable[[str], AbstractContextManager[Callable[[float], None]]]  # as matchgym.cli.output.progress_bar


def no_bar(label: str) -> AbstractContextManager[Callable[[float], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda share: None)


def kind_of(artefact: Artefact, is_ours: bool) -> str:
    """What others submit is an "agent"; of ours, the exact best policy and those that are told hidden rewards stand apart."""
    if not is_ours:
        return "agent"
    (name,) = {parse_declaration(file.data)["policy"] for file in artefact.entries}
    if name == "optimal":
        return "optimum"
    options = task_policies(artefact.entries[0].task)[name].options
    return "informed" if options.get("known_rewards") else BASELINE


def submit(
    artefact: Artefact,
    store: Store,
    tasks: Sequence[Task] = TASKS,
    is_ours: bool = False,
    is_jailed: bool = True,
    bar: Bar = no_bar,
) -> list[Record]:
    """Evaluate every entry of an artefact in the open season; returns the new records.

    Parameters
    ----------
    is_ours : whether the project itself submits one of its baselines.
    is_jailed : whether networks run in a jail; the records say which.

    Raises InputError, before anything is recorded, if the season is closed, if the artefact or one with the same files came in
    before, or if the gate refuses one of its files.
    """
    season, records = latest(store), store.records()
    if not season.is_open:
        raise InputError(f"season {season.name} is closed; open another with: matchgym leaderboard open NAME.")
    _refuse_copies(artefact, store, records, season, tasks)
    if not is_ours:  # baselines say themselves which instances they cannot play
        for file in artefact.entries:
            release(load_policy(file.practice(), is_jailed))
    store.put_blob(artefact.manifest)
    for file in artefact.entries:
        store.put_blob(file.data)
    body = {"season": season.name, "artefact": artefact.sha256, "name": artefact.agent["name"]}
    method = {key: artefact.method[key] for key in ("algorithm", "training_steps", "train_seed")}
    store.append("submitted", body | {"kind": kind_of(artefact, is_ours), "method": method})
    finish(store, tasks, is_jailed, bar)
    return store.records()[len(records) :]


def finish(store: Store, tasks: Sequence[Task] = TASKS, is_jailed: bool = True, bar: Bar = no_bar) -> None:
    """Evaluate every entry that was submitted in the season and has no result yet, oldest first.

    Records come whole, one per entry, so that an interrupted evaluation is taken up here and never counted twice.
    """
    season = latest(store)
    known = season_tasks(season, store, tasks)
    mine = [record for record in store.records() if record["body"].get("season") == season.name]
    done = {_key(record) for record in mine if record["kind"] == "refused" or _is_phase(record, "season")}
    for digest in (record["body"]["artefact"] for record in mine if record["kind"] == "submitted"):
        for file in stored_artefact(store, digest, tasks).entries:
            file = file.on(known[file.task.name])
            if (digest, file.task.name) in done:
                continue
            ensure_bounds(file.task, season, store)
            _evaluate(file, season, "season", store, digest, is_jailed, bar)


def _key(record: Record) -> tuple[str, str]:
    return record["body"]["artefact"], record["body"]["task"]


def _is_phase(record: Record, phase: str) -> bool:
    return bool(record["kind"] == "evaluated" and record["body"]["phase"] == phase)


def _refuse_copies(artefact: Artefact, store: Store, records: Sequence[Record], season: Season, tasks: Sequence[Task]) -> None:
    mine = {(file.task.name, file.action_mode, file.data) for file in artefact.entries}
    for record in records:
        if record["kind"] != "submitted" or record["body"]["season"] != season.name:
            continue
        name = shorten(record["body"]["name"])
        if record["body"]["artefact"] == artefact.sha256:
            raise InputError(f"this artefact is on the board already, as {name}.")
        other = stored_artefact(store, record["body"]["artefact"], tasks)
        if mine <= {(file.task.name, file.action_mode, file.data) for file in other.entries}:
            raise InputError(f"the artefact's files are those of {name}, which is on the board already.")


def ensure_bounds(task: Task, season: Season, store: Store) -> None:
    """Bound a task, unless the season has its bounds already."""
    for record in store.records():
        if record["kind"] == "bounded" and (record["body"]["season"], record["body"]["task"]) == (season.name, task.name):
            return
    found = bound_task(task, store, seed_of(season.secret(store), task, "season"))
    store.append("bounded", {"season": season.name, **found})


def _evaluate(file: File, season: Season, phase: str, store: Store, digest: str, is_jailed: bool, bar: Bar) -> None:
    """Measure an entry and append the record; a policy that cannot play is refused, with the reason."""
    task = file.task
    known = season_record(store.records(), season, task)
    where = {"season": season.name, "artefact": digest, "task": task.name}
    rival = known["rival"] if phase == "season" and known["has_anchor"] else None
    policy = None
    try:
        policy = load_policy(file, is_jailed)
        with bar(f"{task.name}, {known['names'][digest]}{'' if phase == 'season' else ', fresh seeds'}") as progress:
            found = measure(task, policy, seed_of(season.secret(store), task, phase), rival, progress=progress)
    except InputError as error:
        store.append("refused", where | {"reason": refusal_of(file, error, is_jailed)})
        return
    finally:
        if policy is not None:
            release(policy)
    certified = float(certified_values(known["bound"], 1)[0])
    body = where | {
        "phase": phase,
        "values": found.values.tolist(),
        "batch_means_half_width": found.batch_means_half_width,
        "is_unstable": is_unstable(found, certified),
        "microseconds": found.microseconds,
        "is_jailed": is_jailed and file.kind != "declarative/1",
    }
    store.append("evaluated", body)


def refusal_of(file: File, error: InputError, is_jailed: bool = False) -> str:
    """The sentence that tells why an entry is refused; of a secret instance, nothing but what a public one shows."""
    if not file.task.family:
        return str(error)
    try:
        release(load_policy(file.practice(), is_jailed))
    except InputError as public:
        return f"on the public instance of the family: {public}"
    return "it refuses this secret instance of the family, and not the public one."


def season_record(records: Sequence[Record], season: Season, task: Task) -> dict[str, Any]:
    """What a measurement must know of a task in a season.

    `names` of artefacts, the `bound`, whether the anchor is measured, and the `rival`: the values of the best classical
    baseline that was measured on all replications.
    """
    kinds: dict[str, str] = {}
    found: dict[str, Any] = {"names": {}, "bound": None, "has_anchor": False, "rival": None}
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
        elif _is_phase(record, "season") and kinds[body["artefact"]] == BASELINE:
            values = np.array(body["values"], float)
            found["has_anchor"] |= found["names"][body["artefact"]] == task.anchor
            is_best = found["rival"] is None or values.mean() > found["rival"].mean()
            if len(values) == task.replications and is_best and not body["is_unstable"]:
                found["rival"] = values
    return found


def verify_leaders(store: Store, tasks: Sequence[Task] = TASKS, is_jailed: bool = True, bar: Bar = no_bar) -> None:
    """Measure all would-be leaders of the season, and the best baseline, on fresh seeds, see `leaders`."""
    season = latest(store)
    known = season_tasks(season, store, tasks)
    for record in assemble(store.records(), tasks, season.name)["tasks"]:
        measured = {row["artefact"] for row in record["rows"] if row["fresh_values"] is not None}
        for digest in leaders(record):
            if digest not in measured:
                entries = stored_artefact(store, digest, tasks).entries
                file = next(each for each in entries if each.task.name == record["name"])
                _evaluate(file.on(known[record["name"]]), season, "fresh", store, digest, is_jailed, bar)


def submit_baselines(artefacts: Sequence[Artefact], store: Store, tasks: Sequence[Task] = TASKS, bar: Bar = no_bar) -> None:
    """Submit baselines that are not there yet; an interrupted build goes on where it stopped."""
    finish(store, tasks, bar=bar)
    season = latest(store).name
    submitted = [record["body"] for record in store.records() if record["kind"] == "submitted"]
    done = {body["artefact"] for body in submitted if body["season"] == season}
    for artefact in artefacts:
        if artefact.sha256 not in done:
            submit(artefact, store, tasks, is_ours=True, bar=bar)
