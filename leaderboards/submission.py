"""From artefacts to records: the gate, the measurement of each entry, and fresh seeds for would-be leaders.

Kinds of records, besides those of seasons:

    bounded     the bounds of a task in a season, and whether each certificate is kept
    submitted   an artefact came in: its sha256, the agent's name, and its kind (baseline, optimum, informed or agent)
    refused     an entry of an artefact cannot play its task, and why
    evaluated   the values of an entry's replications under the seeds of a phase, see `season`; with the season's seeds also
                what it decides at the probes, see `probes`

An artefact that was submitted stays listed, whatever it scores, and comes in once per season.
"""

from collections.abc import Sequence

from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards.artefact import (
    Artefact,
    load_policy,
    parse_declaration,
    release,
    stored_artefact,
    task_policies,
)
from matchgym.leaderboards.board import BASELINE, assemble, leaders
from matchgym.leaderboards.rehearsal import rehearse
from matchgym.leaderboards.running import Bar, Due, is_phase, no_bar, run_due
from matchgym.leaderboards.season import Season, latest, season_tasks
from matchgym.leaderboards.store import Record, Store
from matchgym.leaderboards.tasks import TASKS, Task


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
    artefacts: Sequence[Artefact],
    store: Store,
    tasks: Sequence[Task] = TASKS,
    is_ours: bool = False,
    is_jailed: bool = True,
    bar: Bar = no_bar,
    jobs: int = 1,
) -> list[Record]:
    """Evaluate every entry of some artefacts in the open season; returns the new records.

    Parameters
    ----------
    is_ours : whether the project itself submits its baselines.
    is_jailed : whether networks run in a jail; the records say which.
    jobs : processes that measure.

    Raises InputError, before anything is recorded, if the season is closed, if an artefact or one with the same files came in
    before, or if the gate refuses one of the files.
    """
    season, before = latest(store), store.records()
    if not season.is_open:
        raise InputError(f"season {season.name} is closed; open another with: matchgym leaderboard season NAME.")
    known = Known(store, season, tasks)
    for artefact in artefacts:
        known.add(artefact)
        if not is_ours:  # baselines say themselves which instances they cannot play
            pass_gate(artefact, is_jailed)
    for artefact in artefacts:
        store.put_blob(artefact.manifest)
        for file in artefact.entries:
            store.put_blob(file.data)
        body = {"season": season.name, "artefact": artefact.sha256, "name": artefact.agent["name"]}
        method = {key: artefact.method[key] for key in ("algorithm", "training_steps", "train_seed")}
        store.append("submitted", body | {"kind": kind_of(artefact, is_ours), "method": method})
    finish(store, tasks, is_jailed, bar, jobs)
    return store.records()[len(before) :]


def pass_gate(artefact: Artefact, is_jailed: bool) -> None:
    """Load each file as a stranger's, on what is public of its task; InputError for the first that is refused."""
    seen = set()
    for file in artefact.entries:
        if (file.task.family or file.task.name, file.data) in seen:  # the instances of a family have the same sizes
            continue
        seen.add((file.task.family or file.task.name, file.data))
        if file.kind == "declarative/1":
            rehearse(file.practice())
        else:
            release(load_policy(file.practice(), is_jailed))


def finish(store: Store, tasks: Sequence[Task] = TASKS, is_jailed: bool = True, bar: Bar = no_bar, jobs: int = 1) -> None:
    """Evaluate every entry that was submitted in the season and has no result yet, by task and then oldest first.

    Records come whole, one per entry, so that an interrupted evaluation is taken up here and never counted twice.
    """
    season = latest(store)
    known = season_tasks(season, store, tasks)
    mine = [record for record in store.records() if record["body"].get("season") == season.name]
    done = {_key(record) for record in mine if record["kind"] == "refused" or is_phase(record, "season")}
    due = [
        Due(file.on(known[file.task.name]), digest, "season")
        for digest in (record["body"]["artefact"] for record in mine if record["kind"] == "submitted")
        for file in stored_artefact(store, digest, tasks).entries
        if (digest, file.task.name) not in done
    ]
    places = {name: k for k, name in enumerate(known)}
    run_due(sorted(due, key=lambda each: places[each.file.task.name]), season, store, is_jailed, bar, jobs)


def _key(record: Record) -> tuple[str, str]:
    return record["body"]["artefact"], record["body"]["task"]


class Known:
    """What came in during a season, to refuse copies."""

    def __init__(self, store: Store, season: Season, tasks: Sequence[Task]) -> None:
        self.digests: dict[str, str] = {}  # artefact -> name
        self.files: dict[tuple[str, str, bytes], set[str]] = {}  # task, mode and data -> artefacts
        for record in store.records():
            if record["kind"] == "submitted" and record["body"]["season"] == season.name:
                self._keep(stored_artefact(store, record["body"]["artefact"], tasks))

    def add(self, artefact: Artefact) -> None:
        """Take note of an artefact; InputError if it, or one with all its files, is known."""
        if artefact.sha256 in self.digests:
            raise InputError(
                f"this artefact is on the board already, as {shorten(self.digests[artefact.sha256])}; if its evaluation was "
                "interrupted, go on with: matchgym leaderboard build."
            )
        holders = [self.files.get(key, set()) for key in self._keys(artefact)]
        if copied := set.intersection(*holders):
            name = shorten(self.digests[min(copied)])
            raise InputError(f"the artefact's files are those of {name}, which is on the board already.")
        self._keep(artefact)

    def _keep(self, artefact: Artefact) -> None:
        self.digests[artefact.sha256] = artefact.agent["name"]
        for key in self._keys(artefact):
            self.files.setdefault(key, set()).add(artefact.sha256)

    def _keys(self, artefact: Artefact) -> list[tuple[str, str, bytes]]:
        return [(file.task.name, file.action_mode, file.data) for file in artefact.entries]


def verify_leaders(
    store: Store, tasks: Sequence[Task] = TASKS, is_jailed: bool = True, bar: Bar = no_bar, jobs: int = 1
) -> None:
    """Measure all would-be leaders of the season, and the best baseline, on fresh seeds, see `leaders`."""
    season = latest(store)
    known = season_tasks(season, store, tasks)
    due = []
    for record in assemble(store.records(), tasks, season.name)["tasks"]:
        measured = {row["artefact"] for row in record["rows"] if row["fresh_values"] is not None}
        for digest in leaders(record):
            if digest not in measured:
                entries = stored_artefact(store, digest, tasks).entries
                file = next(each for each in entries if each.task.name == record["name"])
                due.append(Due(file.on(known[record["name"]]), digest, "fresh"))
    run_due(due, season, store, is_jailed, bar, jobs)


def submit_baselines(
    artefacts: Sequence[Artefact], store: Store, tasks: Sequence[Task] = TASKS, bar: Bar = no_bar, jobs: int = 1
) -> None:
    """Submit baselines that are not there yet; an interrupted build goes on where it stopped."""
    season = latest(store).name
    submitted = [record["body"] for record in store.records() if record["kind"] == "submitted"]
    done = {body["artefact"] for body in submitted if body["season"] == season}
    new = [artefact for artefact in artefacts if artefact.sha256 not in done]
    if new:
        submit(new, store, tasks, is_ours=True, bar=bar, jobs=jobs)
    else:
        finish(store, tasks, bar=bar, jobs=jobs)
