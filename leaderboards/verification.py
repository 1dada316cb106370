"""Verification of a published board without trusting it.

1. The chain of records is whole, and every record is of a known kind with exactly its fields.
2. A revealed secret is what its season committed to.
3. Every artefact is there with its digests, and is what the records say; nothing else lies about.
4. Every certificate has its digest, and proves the stated bound in exact arithmetic, without a solver.
5. board.json and the pages follow from the records, byte for byte.
6. A sample of rows is replayed and must give the same values, bit for bit; what was refused is refused again; bounds found
   anew are no tighter; no baseline is missing.
7. The records go on from a known one, if its digest is given: whoever rewrites all that came after an entry can leave it out.

So any flipped byte is found, and any consistent forgery of values by a replay. Times of records and per decision are reports of
the machine that measured: nothing proves them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.evaluation import drawn_instances
from matchgym.bounds.bound import VALUE_FLOOR, VALUE_TOLERANCE, Proof
from matchgym.bounds.rational import round_down, round_up
from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards import jail
from matchgym.leaderboards.artefact import Artefact, load_policy, release, stored_artefact, task_policies
from matchgym.leaderboards.board import BASELINE, assemble, leaders
from matchgym.leaderboards.entrants import baseline
from matchgym.leaderboards.measuring import certified_values, exact_kind, find_optimum, is_hopeless, is_unstable, measure
from matchgym.leaderboards.probes import decisions
from matchgym.leaderboards.running import Bar, Due, Job, no_bar, phase_of, refusal_of, run_job
from matchgym.leaderboards.season import PHASES, Season, season_tasks, seasons, seed_of
from matchgym.leaderboards.site import files_of
from matchgym.leaderboards.store import (
    BLOBS,
    CERTIFICATES,
    SECRETS,
    FolderStore,
    Record,
    canonical,
    certificate_path,
    parse,
    sha256,
)
from matchgym.leaderboards.submission import kind_of
from matchgym.leaderboards.tasks import SCORER_VERSION, SUITE_VERSION, TASKS, Task

FIELDS = {
    "season-opened": {"season", "commitment", "quick", "suite_version", "scorer_version", "package_version"},
    "season-closed": {"season", "secret"},
    "season-archived": {"season", "board_sha256"},
    "bounded": {"season", "task", "bound", "optimum"},
    "submitted": {"season", "artefact", "name", "kind", "method"},
    "refused": {"season", "artefact", "task", "reason"},
    "evaluated": {
        "season", "artefact", "task", "phase", "values", "batch_means_half_width", "is_unstable", "microseconds", "is_jailed",
        "decisions",
    },
}  # fmt: skip
MALFORMED = (ArithmeticError, KeyError, TypeError, ValueError, AttributeError, IndexError)


@dataclass
class Report:
    """What was checked and what was found wrong, one sentence each."""

    problems: list[str] = field(default_factory=list)
    bounds: int = 0  # bounds derived anew from a stored certificate
    rows: int = 0  # rows whose numbers were derived anew
    replayed: list[str] = field(default_factory=list)  # "task/row"
    not_replayable: list[str] = field(default_factory=list)  # without the season's secret, or without a jail
    older: list[str] = field(default_factory=list)  # seasons of another suite or scorer, whose digests alone are checked here

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify_board(
    out: Path, tasks: Sequence[Task] = TASKS, replays: int = 1, bar: Bar = no_bar, known_head: str | None = None
) -> Report:
    """Check all that is published in a folder; `replays` rows of each task of each season are measured again.

    `known_head` begins the sha256 of a record that was the last one some day, as leaderboards/README.md names it. The replayed
    rows are chosen by the digest of the last record, so the sample cannot be picked without changing the records.
    """
    report, store = Report(), FolderStore(out)
    try:
        records = store.records()
        found = seasons(records)
    except InputError as error:
        return Report([str(error)])
    except MALFORMED as error:
        return Report([f"the records of seasons are malformed ({error!r})."])
    if not found:
        return Report(["there is no season; build the board first."])
    for record in records:
        if not fields_are_right(record, found):
            report.problems.append(f"record {record['n']} of kind {record['kind']!r} has other fields than that kind has.")
    if report.problems:
        return report
    if known_head is not None and not any(record["sha256"].startswith(known_head) for record in records):
        report.problems.append(f"no record has a sha256 that starts with {shorten(known_head)}: the records were rewritten.")
    for season in found:
        mine = [record for record in records if record["body"]["season"] == season.name]
        try:
            if is_of_this_version(season):
                checks = _Checks(out, store, season, mine, season_tasks(season, store, tasks), report, bar)
                checks.run(replays, records[-1]["sha256"])
            elif season is found[-1]:
                old = f"suite {season.versions[0]} and scorer {season.versions[1]}"
                report.problems.append(
                    f"season {season.name} has {old}; open a new one with: matchgym leaderboard season NAME."
                )
            else:
                report.older.append(season.name)
        except InputError as error:
            report.problems.append(str(error))
        except MALFORMED as error:
            report.problems.append(f"season {season.name} is malformed ({error!r}).")
    _verify_files(out, records, found, tasks, report)
    return report


def is_of_this_version(season: Season) -> bool:
    """Whether a season has the tasks and the scorer of this version of the package."""
    return season.versions == (SUITE_VERSION, SCORER_VERSION)


def fields_are_right(record: Record, known: Sequence[Season]) -> bool:
    """Whether a record has exactly the fields of its kind; those of older versions may have fewer."""
    mine, wanted = set(record["body"]), FIELDS.get(record["kind"], set())
    season = next((each for each in known if each.name == record["body"].get("season")), None)
    return mine == wanted or (season is not None and not is_of_this_version(season) and mine < wanted)


@dataclass
class _Checks:
    """The checks of one season."""

    out: Path
    store: FolderStore
    season: Season
    records: list[Record]
    tasks: dict[str, Task]
    report: Report
    bar: Bar
    ours: set[str] = field(default_factory=set)  # artefacts that the project submits

    def wrong(self, sentence: str) -> None:
        self.report.problems.append(f"season {self.season.name}: {sentence}")

    def of(self, kind: str) -> list[Record]:
        return [record["body"] for record in self.records if record["kind"] == kind]

    def run(self, replays: int, digest: str) -> None:
        listed = {body["task"] for kind in ("bounded", "evaluated", "refused") for body in self.of(kind)}
        if not listed <= self.tasks.keys():
            self.wrong(f"there are no tasks {', '.join(sorted(map(repr, listed - self.tasks.keys())))} in this suite.")
            return
        self.order()
        self.artefacts()
        bounded = [body["task"] for body in self.of("bounded")]
        if len(bounded) != len(set(bounded)):
            self.wrong("a task is bounded twice.")
        for body in self.of("bounded"):
            self.bounds(body)
        self.rows()
        self.replays(replays, digest)

    def order(self) -> None:
        """A season's records lie between its opening and its closing, and an artefact comes in before it is measured."""
        kinds = [record["kind"] for record in self.records]
        last = kinds.index("season-closed") if "season-closed" in kinds else len(kinds)
        if kinds[0] != "season-opened" or any(kind != "season-archived" for kind in kinds[last + 1 :]):
            self.wrong("there are records before its opening or after its closing.")
        come: set[str] = set()
        for record in self.records:
            if record["kind"] == "submitted":
                come.add(record["body"]["artefact"])
            elif record["kind"] in ("evaluated", "refused") and record["body"]["artefact"] not in come:
                self.wrong(f"record {record['n']} is of an artefact that has not come in yet.")

    def artefacts(self) -> None:
        submitted = self.of("submitted")
        if len({body["artefact"] for body in submitted}) != len(submitted):
            self.wrong("an artefact was submitted twice.")
        for body in submitted:
            artefact = stored_artefact(self.store, body["artefact"], tuple(self.tasks.values()))
            method = {key: artefact.method[key] for key in ("algorithm", "training_steps", "train_seed")}
            if (body["name"], body["method"]) != (artefact.agent["name"], method):
                self.wrong(f"artefact {body['artefact'][:12]} is not what its record says.")
            is_ours = self.is_ours(artefact)
            if kind_of(artefact, is_ours) != body["kind"]:
                whose = "one" if is_ours else "none"
                self.wrong(f"{body['name']!r} is {whose} of the project's own entries, and not of the kind {body['kind']!r}.")
            if is_ours:
                self.ours.add(artefact.sha256)

    def is_ours(self, artefact: Artefact) -> bool:
        """Whether an artefact is what the project submits for one of its policies."""
        name, entered = artefact.agent["name"], [file.task for file in artefact.entries]
        if not all(task.id == entered[0].id and name in task_policies(task) for task in entered):
            return False
        return baseline(entered, name, artefact.method["library_version"]).sha256 == artefact.sha256

    def bounds(self, body: Record) -> None:
        task, bound = self.tasks[body["task"]], body["bound"]
        if task.family and self.seed(task, "season") is None:
            self.report.not_replayable.append(f"{task.name}/bound")
            return
        instance = task.load()
        if task.family and bound["instance_sha256"] != instance.sha256:
            self.wrong(f"task {task.name}: the season's secret draws another instance than the stated one.")
        layer = task.entry.layer("bounds")
        seed = self.seed(task, "season")
        certificate = self.certificate(task, bound, seed)
        if certificate is None:
            return
        if "uppers" in bound:
            if seed is None:
                return
            drawn = drawn_instances(task.entry, instance, task.replications, seed)
            proofs = [layer.PROVERS[bound["kind"]](each, part) for each, part in zip(drawn, certificate, strict=True)]
            if [_up(proof) for proof in proofs] != bound["uppers"] or bound["upper"] != float(np.mean(bound["uppers"])):
                self.wrong(f"task {task.name}: the certificates do not prove the stated bounds of the replications.")
            self.report.bounds += len(proofs)
        else:
            self.prove(task, instance, bound, certificate)
        optimum = body["optimum"]
        if "refused" not in optimum:
            certificate = self.certificate(task, optimum, seed)
            if optimum["kind"] != exact_kind(task) or optimum["lower"] is None:
                self.wrong(f"task {task.name}: {optimum['kind']} is not the exact optimum.")
            self.prove(task, instance, optimum, certificate)
        elif "uppers" not in bound and isinstance(best := find_optimum(task, instance), str) and best != optimum["refused"]:
            self.wrong(f"task {task.name}: the optimum is not refused for the stated reason.")

    def certificate(self, task: Task, stated: Record, seed: int | None) -> Any:
        """The certificate of a bound, from the store, or found anew if it was too large to be kept."""
        found = self.store.certificate(stated["certificate_sha256"])
        if (found is not None) != stated["is_kept"]:
            self.wrong(f"task {task.name}: the certificate of {stated['kind']} is missing.")
            return None
        if found is None:
            if "uppers" in stated:
                self.wrong(f"task {task.name}: the certificates of its replications are missing.")
                return None
            found = task.entry.layer("bounds").bound(task.load(), stated["kind"]).certificate
            if sha256(canonical(found)) != stated["certificate_sha256"]:
                self.wrong(f"task {task.name}: the bound {stated['kind']} found anew has another certificate.")
        return found

    def prove(self, task: Task, instance: Any, stated: Record, certificate: Any) -> None:
        layer = task.entry.layer("bounds")
        prove = layer.prove_optimum if stated["kind"] == "optimum" and hasattr(layer, "prove_optimum") else None
        proof: Proof = (prove or layer.PROVERS[stated["kind"]])(instance, certificate)
        self.report.bounds += 1
        lower = None if proof.lower is None else round_down(proof.lower)
        proven = proof.lower if proof.upper is None else proof.upper
        tolerance = 0.0 if proven is None else VALUE_TOLERANCE * abs(float(proven)) + VALUE_FLOOR + float(proof.truncation)
        if (lower, _up(proof)) != (stated["lower"], stated["upper"]):
            self.wrong(
                f"task {task.name}: the certificate of {stated['kind']} proves {(lower, _up(proof))}, not what is stated."
            )
        if proven is None or not abs(stated["value"] - float(proven)) <= tolerance:
            self.wrong(f"task {task.name}: the value {stated['value']!r} of {stated['kind']} is not what is proved.")

    def seed(self, task: Task, phase: str) -> int | None:
        """The seed of a task, if the season's secret is revealed or here."""
        if self.season.revealed is None and self.store.secret(self.season.name) is None:
            return None
        return seed_of(self.season.secret(self.store), task, phase)

    def rows(self) -> None:
        submitted = {body["artefact"]: body for body in self.of("submitted")}
        seen: set[tuple[str, str, str]] = set()
        for body in (*self.of("evaluated"), *self.of("refused")):
            task = self.tasks[body["task"]]
            key = (body["artefact"], body["task"], phase_of(body))
            entries = stored_artefact(self.store, body["artefact"], tuple(self.tasks.values())).entries
            if key in seen or body["artefact"] not in submitted or task.name not in {file.task.name for file in entries}:
                self.wrong(f"task {task.name}: a row stands twice, or was not entered.")
            seen.add(key)
            if "values" in body:
                values = np.array(body["values"], float)
                if body["phase"] not in PHASES or values.shape not in {(look,) for look in task.looks}:
                    self.wrong(f"task {task.name}: {submitted[body['artefact']]['name']} has values of no look.")
                if body["is_unstable"] and values.mean() >= 0:
                    self.wrong(f"task {task.name}: {submitted[body['artefact']]['name']} is not unstable with what it earns.")
                if (body["decisions"] is None) != (body["phase"] != PHASES[0]):
                    self.wrong(f"task {task.name}: {submitted[body['artefact']]['name']} lacks its decisions at the probes.")
                self.report.rows += 1
            elif body["artefact"] in self.ours and self.refusal(body) != body["reason"]:
                self.wrong(f"task {task.name}: {submitted[body['artefact']]['name']} is not refused for the stated reason.")
        self.early(submitted)
        if self.season.revealed is not None:
            self.complete(submitted, seen)
        ours = {
            (body["name"], task)
            for body in submitted.values()
            if body["artefact"] in self.ours
            for task in self.played(body, seen)
        }
        for task in (self.tasks[body["task"]] for body in self.of("bounded")):
            for name in task_policies(task):
                if (name, task.name) not in ours:
                    self.wrong(f"task {task.name}: baseline {name} is neither on the board nor refused.")

    def early(self, submitted: dict[str, Record]) -> None:
        """Rows were left at the first look at which they were hopeless beside the best baseline known then, and at no other."""
        rivals: dict[str, NDArray[np.float64]] = {}
        begun = set[str]()  # tasks whose anchor is measured
        for body in self.of("evaluated"):
            if body["phase"] != PHASES[0]:
                continue
            task, who, values = self.tasks[body["task"]], submitted[body["artefact"]], np.array(body["values"], float)
            rival = rivals.get(task.name) if task.name in begun else None
            looks = [look for look in task.looks if look <= len(values)]
            hopeless = [rival is not None and is_hopeless(values[:look], rival) for look in looks]
            if any(hopeless[:-1]) or (len(values) < task.replications and not hopeless[-1]):
                self.wrong(f"task {task.name}: {who['name']} was not left at the look at which it was clearly worse.")
            if who["kind"] == BASELINE:
                begun |= {task.name} if who["name"] == task.anchor else set()
                is_best = task.name not in rivals or values.mean() > rivals[task.name].mean()
                if len(values) == task.replications and is_best and not body["is_unstable"]:
                    rivals[task.name] = values

    def complete(self, submitted: dict[str, Record], seen: set[tuple[str, str, str]]) -> None:
        """Nothing that came in is left out of a closed season, and its leaders were measured on fresh seeds."""
        tasks = tuple(self.tasks.values())
        for artefact, body in submitted.items():
            for file in stored_artefact(self.store, artefact, tasks).entries:
                if (artefact, file.task.name, PHASES[0]) not in seen:
                    self.wrong(f"task {file.task.name}: {body['name']} was entered, and has neither a row nor a refusal.")
        for record in assemble(self.store.records(), tasks, self.season.name)["tasks"]:
            for artefact in leaders(record):
                if (artefact, record["name"], PHASES[1]) not in seen:
                    self.wrong(f"task {record['name']}: {submitted[artefact]['name']} leads, and has no row under fresh seeds.")

    def played(self, body: Record, seen: set[tuple[str, str, str]]) -> list[str]:
        """The tasks on which an artefact has a row or a refusal."""
        return [task for artefact, task, phase in seen if artefact == body["artefact"] and phase == PHASES[0]]

    def refusal(self, body: Record) -> str | None:
        """The sentence with which an entry of ours refuses to play; None if it plays."""
        entries = stored_artefact(self.store, body["artefact"], tuple(self.tasks.values())).entries
        file = next(file for file in entries if file.task.name == body["task"])
        if file.task.family and self.seed(file.task, "season") is None:
            return str(body["reason"])
        try:
            load_policy(file)
        except InputError as error:
            return refusal_of(file, error)
        return None

    def bounds_anew(self) -> None:
        """The bounds are those that the tasks ask for, and as tight as these are; a weaker one would raise no doubt else."""
        for body in self.of("bounded"):
            task, bound = self.tasks[body["task"]], body["bound"]
            if "uppers" not in bound and not (task.family and self.seed(task, "season") is None):
                found = task.entry.layer("bounds").bound(task.load(), task.bound_kind)
                if found.kind != bound["kind"] or not math.isclose(found.upper, bound["upper"], rel_tol=1e-6, abs_tol=1e-9):
                    self.wrong(
                        f"task {task.name} asks for the bound {found.kind} of {found.upper!r}, not for {bound['kind']} of "
                        f"{bound['upper']!r}."
                    )

    def replays(self, number: int, digest: str) -> None:
        names = {body["artefact"]: body["name"] for body in self.of("submitted")}
        if number:
            self.bounds_anew()
        for task in self.tasks.values():
            refused = [body for body in self.of("refused") if body["artefact"] not in self.ours]
            mine = [body for body in (*self.of("evaluated"), *refused) if body["task"] == task.name]
            keyed = sorted(mine, key=lambda body: sha256(f"{digest}/{task.name}/{body['artefact']}/{phase_of(body)}"))
            for body in keyed[:number]:
                label = f"{task.name}/{names[body['artefact']]}"
                again = replay if "values" in body else replay_refusal
                problem = again(self.store, self.season, task, body, tuple(self.tasks.values()), self.bar)
                if problem is None:
                    self.report.replayed.append(label)
                elif problem == "":
                    self.report.not_replayable.append(label)
                else:
                    self.wrong(f"a replay of {label} {problem}.")


def replay(
    store: FolderStore, season: Season, task: Task, body: Record, tasks: Sequence[Task] = TASKS, bar: Bar = no_bar
) -> str | None:
    """Measure an evaluated row again: None if it gives the same, "" if that is not possible here, else what differs."""
    entries = stored_artefact(store, body["artefact"], tasks).entries
    file = next(each for each in entries if each.task.name == task.name).on(task)
    if (season.revealed is None and store.secret(season.name) is None) or (body["is_jailed"] and not jail.is_available()):
        return ""
    seed = seed_of(season.secret(store), task, body["phase"])
    policy = load_policy(file, body["is_jailed"])
    try:
        with bar(f"{task.name}, replay") as progress:
            told = None if body["decisions"] is None else decisions(task, policy)
            found = measure(task, policy, seed, replications=len(body["values"]), progress=progress)
    finally:
        release(policy)
    place = first_difference(body["values"], found.values.tolist(), "values")
    if place is not None:
        return f"gives other values: {place}"
    if told != body["decisions"]:
        return "decides otherwise at the probes"
    if found.batch_means_half_width != body["batch_means_half_width"]:
        return "gives another half-width from batch means"
    bounded = [r["body"] for r in store.records() if r["kind"] == "bounded" and r["body"]["task"] == task.name]
    bound = next(each["bound"] for each in bounded if each["season"] == season.name)
    if is_unstable(found, float(certified_values(bound, 1)[0])) != body["is_unstable"]:
        return "says otherwise whether it is stable"
    return None


def replay_refusal(
    store: FolderStore, season: Season, task: Task, body: Record, tasks: Sequence[Task] = TASKS, bar: Bar = no_bar
) -> str | None:
    """Let an entry that was refused try again: None if it is refused, "" if that is not possible here, else that it plays.

    The reason may be another one, as what a jail has no time or memory for depends on the machine.
    """
    entries = stored_artefact(store, body["artefact"], tasks).entries
    file = next(each for each in entries if each.task.name == task.name).on(task)
    is_jailed = file.kind != "declarative/1"
    if (season.revealed is None and store.secret(season.name) is None) or (is_jailed and not jail.is_available()):
        return ""
    due = Due(file, body["artefact"], phase_of(body))
    seed = seed_of(season.secret(store), task, due.phase)
    job = Job(due, season.name, file.task.name, seed, rival=None, certified=math.inf, is_ours=False, is_jailed=is_jailed)
    with bar(f"{task.name}, replay") as progress:
        kind, _ = run_job(job, progress)
    return None if kind == "refused" else "plays, where the record says that it is refused"


def _up(proof: Proof) -> float | None:
    return None if proof.upper is None else round_up(proof.upper)


def _verify_files(out: Path, records: Sequence[Record], known: Sequence[Season], tasks: Sequence[Task], report: Report) -> None:
    """board.json and the pages follow from the records; blobs and certificates are those that the records name.

    While the last season is an older version's, its pages do not follow from the tasks of this one and are not checked.
    """
    store, wanted = FolderStore(out), dict[str, str]()
    is_current = is_of_this_version(known[-1])
    try:
        if is_current:
            wanted = files_of(assemble(records, tasks), records, store, tasks)
    except InputError as error:
        report.problems.append(str(error))
        return
    except MALFORMED as error:
        report.problems.append(f"the records cannot be put together ({error!r}).")
        return
    for name, text in wanted.items():
        path = out / name
        if not path.is_file() or path.read_bytes() != text.encode():
            report.problems.append(f"{name} is not what the records give.")
    blobs, certificates = set[str](), set[str]()
    try:
        for record in records:
            blobs |= blobs_of(record, store)
            if record["kind"] == "bounded":
                stated = [part for part in (record["body"]["bound"], record["body"]["optimum"]) if part.get("is_kept")]
                certificates |= {part["certificate_sha256"] for part in stated}
        for digest in blobs:
            store.blob(digest)
        for digest in certificates:
            store.certificate(digest)
    except InputError as error:
        report.problems.append(str(error))
        return
    except MALFORMED as error:
        report.problems.append(f"the records name files in a way that is malformed ({error!r}).")
        return
    if not is_current:
        return
    named = {f"{BLOBS}/{digest}" for digest in blobs}
    named |= {f"{CERTIFICATES}/{certificate_path(out, digest).name}" for digest in certificates}
    expected = set(wanted) | named | {"records.jsonl"}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        is_apart = path.relative_to(out).parts[0] in (SECRETS, "__pycache__")
        is_marker = name == "__init__.py" and not path.read_bytes()
        if path.is_symlink() or (path.is_file() and not is_apart and not is_marker and name not in expected):
            report.problems.append(f"{name} belongs to no record.")


def blobs_of(record: Record, store: FolderStore) -> set[str]:
    """The digests of the blobs that a record is about: a manifest of any version, and the files that it names."""
    if record["kind"] == "season-archived":
        return {record["body"]["board_sha256"]}
    if record["kind"] != "submitted":
        return set()
    manifest = parse(store.blob(record["body"]["artefact"]).decode(), "a manifest")
    return {record["body"]["artefact"], *(entry["sha256"] for entry in manifest["entries"])}


def first_difference(stated: Any, expected: Any, place: str) -> str | None:
    """Where two JSON values first differ, for people; None if they are equal."""
    if isinstance(stated, dict) and isinstance(expected, dict):
        if stated.keys() != expected.keys():
            return f"{place} has the keys {sorted(stated)} where {sorted(expected)} are expected"
        pairs = [(stated[key], expected[key], f"{place}.{key}") for key in expected]
    elif isinstance(stated, list) and isinstance(expected, list) and len(stated) == len(expected):
        pairs = [(a, b, f"{place}[{k}]") for k, (a, b) in enumerate(zip(stated, expected))]
    else:
        same = type(stated) is type(expected) and stated == expected
        return None if same else f"{place} is {stated!r} where {expected!r} is expected"
    return next((found for found in (first_difference(*pair) for pair in pairs) if found is not None), None)
