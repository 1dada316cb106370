"""From artefacts to records: the gate, the measurement of each entry, and fresh seeds for would-be leaders.

Kinds of records, besides those of seasons:

    bounded     the bounds of a task in a season, and whether each certificate is kept
    submitted   an artefact came in: its sha256, the agent's name, and its kind (baseline, optimum, informed or agent)
    refused     an entry of an artefact cannot play its task, and why (for fresh seeds, the reason says so)
    evaluated   the values of an entry's replications under the seeds of a phase, see `season`; with the season's seeds also
                what it decides at the probes, see `probes`

An artefact that was submitted stays listed, whatever it scores, and comes in once per season.
"""

import re
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
from matchgym.leaderboards.running import Bar, Due, no_bar, phase_of, run_due, season_record
from matchgym.leaderboards.season import Season, latest, season_tasks
from matchgym.leaderboards.store import Record, Store, canonical
from matchgym.leaderboards.tasks import TASKS, Task


def kind_of(artefact: Artefact, is_ours: bool) -> str:
    """Whoever declares the exact best policy, or one that is told hidden rewards, stands apart; else ours is a "baseline"."""
    kinds = set[str]()
    for file in artefact.entries:
        if file.kind == "declarative/1":
            name = parse_declaration(file.data)["policy"]
            if task_policies(file.task)[name].options.get("known_rewards"):
                kinds.add("informed")
            elif name == "optimal":
                kinds.add("optimum")
    return next((kind for kind in ("informed", "optimum") if kind in kinds), BASELINE if is_ours else "agent")


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

    What came in before and has not been measured on all its tasks is taken up. Raises InputError, before anything is recorded,
    if the season is closed, if an artefact or one with the same files came in before, if the baselines of one of its tasks have
    not, or if the gate refuses one of the files.
    """
    season, before = latest(store), store.records()
    if not season.is_open:
        raise InputError(f"season {season.name} is closed; open another with: matchgym leaderboard season NAME.")
    known = Known(store, season, tasks)
    begun = {each.artefact for each in due_entries(store, tasks)}
    is_again = any(artefact.sha256 in begun for artefact in artefacts)  # then those that are finished may come along
    new = [each for each in artefacts if each.sha256 not in (known.digests if is_again else begun)]
    for artefact in new:
        known.add(artefact)
        if not is_ours:  # baselines say themselves which instances they cannot play
            _check_name(artefact)
            _check_company(artefact, before, season)
            pass_gate(artefact, is_jailed)
    for artefact in new:
        store.put_blob(artefact.manifest)
        for file in artefact.entries:
            store.put_blob(file.data)
        body = {"season": season.name, "artefact": artefact.sha256, "name": artefact.agent["name"]}
        method = {key: artefact.method[key] for key in ("algorithm", "training_steps", "train_seed")}
        store.append("submitted", body | {"kind": kind_of(artefact, is_ours), "method": method})
    finish(store, tasks, is_jailed, bar, jobs)
    return store.records()[len(before) :]


def _check_name(artefact: Artefact) -> None:
    """InputError if an agent has the name of a baseline, or one that boards give themselves."""
    name = artefact.agent["name"]
    if any(name in task_policies(file.task) for file in artefact.entries):
        raise InputError(f"agent.name {shorten(name)} is that of a policy of matchgym; choose another name.")
    if re.search(r", seed \d+$", name):
        raise InputError(
            f"agent.name {shorten(name)} ends like those of several seeds, which boards add themselves; leave it out."
        )


def _check_company(artefact: Artefact, records: Sequence[Record], season: Season) -> None:
    """InputError if one of the artefact's tasks has no baselines in the season, from which scores count."""
    for file in artefact.entries:
        if not season_record(records, season, file.task)["has_anchor"]:
            raise InputError(
                f"this board has no baselines on task {file.task.name}; build it with: matchgym leaderboard build --task "
                f"{file.task.name}."
            )


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
    run_due(due_entries(store, tasks), latest(store), store, is_jailed, bar, jobs)


def due_entries(store: Store, tasks: Sequence[Task] = TASKS) -> list[Due]:
    """The entries of the last season that have neither a row nor a refusal, by task and then oldest first."""
    season = latest(store)
    known = season_tasks(season, store, tasks)
    mine = [record for record in store.records() if record["body"].get("season") == season.name]
    done = {_key(record) for record in mine if record["kind"] in ("evaluated", "refused")}
    due = [
        Due(file.on(known[file.task.name]), digest, "season")
        for digest in (record["body"]["artefact"] for record in mine if record["kind"] == "submitted")
        for file in stored_artefact(store, digest, tasks).entries
        if (digest, file.task.name, "season") not in done
    ]
    places = {name: k for k, name in enumerate(known)}
    return sorted(due, key=lambda each: places[each.file.task.name])


def _key(record: Record) -> tuple[str, str, str]:
    return record["body"]["artefact"], record["body"]["task"], phase_of(record["body"])


class Known:
    """What came in during a season, to refuse copies."""

    def __init__(self, store: Store, season: Season, tasks: Sequence[Task]) -> None:
        self.digests: dict[str, str] = {}  # artefact -> name
        self.files: dict[tuple[str, str, bytes], set[str]] = {}  # task, mode and data -> artefacts
        for record in store.records():
            if record["kind"] == "submitted" and record["body"]["season"] == season.name:
                self._keep(stored_artefact(store, record["body"]["artefact"], tasks))

    def add(self, artefact: Artefact) -> None:
        """Take note of an artefact; InputError if it is known, or each of its files."""
        if artefact.sha256 in self.digests:
            raise InputError(f"this artefact is on the board already, as {shorten(self.digests[artefact.sha256])}.")
        holders = [self.files.get(key, set()) for key in self._keys(artefact)]
        if all(holders):
            names = ", ".join(dict.fromkeys(shorten(self.digests[min(mine)]) for mine in holders))
            raise InputError(f"the artefact's files are all on the board already, as those of {names}.")
        self._keep(artefact)

    def _keep(self, artefact: Artefact) -> None:
        self.digests[artefact.sha256] = artefact.agent["name"]
        for key in self._keys(artefact):
            self.files.setdefault(key, set()).add(artefact.sha256)

    def _keys(self, artefact: Artefact) -> list[tuple[str, str, bytes]]:
        """What an entry decides by: of a declaration, what it says, however it is written."""
        return [
            (file.task.name, "", canonical(parse_declaration(file.data)).encode())
            if file.kind == "declarative/1"
            else (file.task.name, file.action_mode, file.data)
            for file in artefact.entries
        ]


def verify_leaders(
    store: Store, tasks: Sequence[Task] = TASKS, is_jailed: bool = True, bar: Bar = no_bar, jobs: int = 1
) -> None:
    """Measure all would-be leaders of the season, and the best baseline, on fresh seeds, see `leaders`."""
    season = latest(store)
    known = season_tasks(season, store, tasks)
    due = []
    mine = [record for record in store.records() if record["body"].get("season") == season.name]
    tried = {_key(record) for record in mine if record["kind"] in ("evaluated", "refused")}
    for record in assemble(store.records(), tasks, season.name)["tasks"]:
        for digest in leaders(record):
            if (digest, record["name"], "fresh") not in tried:
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
