"""Verification of a published board without trusting it.

1. board.json is a board of this suite and scorer, written as `dump` writes it.
2. Every task is the frozen one, and its instance has the digest that the task was frozen with.
3. Every certificate has its digest, and proves the stated bound in exact arithmetic, without a solver.
4. Every derived number (scores, intervals, ranks, tiers, verdicts, flags) follows from the published measurements.
5. A sample of rows is replayed and must give the same values, bit for bit; no baseline is missing.
6. index.html is what board.json and timings.json render to; it names the sha256 of board.json, so that any flipped digit shows.

Times per decision are reports of the machine that built the board: nothing proves them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matchgym.bounds.bound import VALUE_FLOOR, VALUE_TOLERANCE
from matchgym.bounds.rational import round_down, round_up
from matchgym.envs.instance import InputError
from matchgym.leaderboards.board import Bar, Record, assemble, evaluate_policy, find_optimum, is_same_task, no_bar, significant
from matchgym.leaderboards.entrants import Entrant, baselines
from matchgym.leaderboards.pages import render
from matchgym.leaderboards.store import (
    BOARD,
    MAX_CERTIFICATE_BYTES,
    PAGE,
    SCHEMA_VERSION,
    TIMINGS,
    canonical,
    certificate_path,
    dump,
    read_board,
    read_json,
    read_text,
    sha256,
)
from matchgym.leaderboards.tasks import SCORER_VERSION, SUITE_VERSION, TASKS, Task


@dataclass
class Report:
    """What was checked and what was found wrong, one sentence each."""

    problems: list[str] = field(default_factory=list)
    bounds: int = 0  # bounds derived anew from a stored certificate
    rows: int = 0  # rows whose numbers were derived anew
    replayed: list[str] = field(default_factory=list)  # "task/row"
    not_replayable: list[str] = field(default_factory=list)  # agents, whose models are not part of a board

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify_board(out: Path, tasks: Sequence[Task] = TASKS, replays: int = 1, bar: Bar = no_bar) -> Report:
    """Check a board against its instances, certificates and measurements; `replays` rows of each task are measured again.

    The replayed rows are chosen by the digest of board.json, so the sample cannot be picked without changing the board.
    """
    report = Report()
    board, text = read_board(out), read_text(out / BOARD)
    if text != dump(board):
        report.problems.append("board.json is not written as the build writes it.")
    versions = {"schema_version": SCHEMA_VERSION, "suite_version": SUITE_VERSION, "scorer_version": SCORER_VERSION}
    for key, version in versions.items():
        if board[key] != version:
            report.problems.append(f"board.json has {key} {board[key]!r}, not {version!r}; build the board anew.")
    names = [record.get("name") for record in board["tasks"] if isinstance(record, dict)]
    if not names or len(names) != len(set(map(str, names))) or len(names) != len(board["tasks"]):
        report.problems.append("board.json must hold at least one task, each once.")
    known = {task.name: task.quick() if board["quick"] else task for task in tasks}
    for record in board["tasks"]:
        try:
            _verify_task(out, record, known, sha256(text), replays, report, bar)
        except InputError as error:
            report.problems.append(str(error))
        except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            name = record.get("name") if isinstance(record, dict) else None
            report.problems.append(f"task {name!r} of board.json is malformed ({error!r}).")
    _verify_page(out, board, text, report)
    return report


def _verify_task(
    out: Path, record: Record, known: dict[str, Task], digest: str, replays: int, report: Report, bar: Bar
) -> None:
    name = record["name"]
    if not is_same_task(record, {key: task.to_dict() for key, task in known.items()}):
        report.problems.append(f"task {name}: it is not the task of that name of suite {SUITE_VERSION}.")
        return
    task = known[name]
    instance = task.load()

    # Certificates.
    stored = read_json(certificate_path(out, name))
    if not stored.keys() <= {"bound", "optimum"}:
        report.problems.append(f"task {name}: its certificates are filed under {sorted(stored)}.")
    bound = _verify_bound(task, instance, "bound", record["bound"], stored, report)
    optimum = {key: value for key, value in record["optimum"].items() if not key.startswith("score_")}
    if "refused" in optimum:
        if find_optimum(task, instance) != optimum["refused"]:
            report.problems.append(f"task {name}: the optimum is not refused for the stated reason.")
    else:
        optimum = _verify_bound(task, instance, "optimum", optimum, stored, report)

    # Derived numbers.
    keys = ("name", "kind", "about", "batch_means_half_width", "values")
    rows = [{key: row[key] for key in keys} for row in record["rows"]]
    expected = assemble(task, bound, optimum, rows, record["refused"])
    place = first_difference(record, expected, name)
    if place is not None:
        report.problems.append(f"task {name}: {place}, which does not follow from the published measurements.")
    report.rows += len(rows)

    # Replays.
    players = {player.name: player for player in baselines(task)}
    names = [row["name"] for row in (*rows, *record["refused"])]
    listed = set(names)
    if len(names) != len(listed):
        report.problems.append(f"task {name}: a row stands twice.")
    for row in (*rows, *record["refused"]):
        if row["kind"] != (players[row["name"]].kind if row["name"] in players else "agent"):
            report.problems.append(f"task {name}: {row['name']} is not of the kind {row['kind']!r}.")
    for row in record["refused"]:
        if row["name"] in players and _refusal(players[row["name"]], instance) != row["reason"]:
            report.problems.append(f"task {name}: {row['name']} is not refused for the stated reason.")
    for missing in sorted(players.keys() - listed):
        report.problems.append(f"task {name}: baseline {missing} is neither on the board nor refused.")
    report.not_replayable += [f"{name}/{row['name']}" for row in rows if row["name"] not in players]
    mine = [row for row in rows if row["name"] in players]
    sample = sorted(mine, key=lambda row: sha256(f"{digest}/{name}/{row['name']}"))[:replays]
    for row in sample:
        with bar(f"{name}, replay of {row['name']}") as progress:
            policy = players[row["name"]].prepare(instance)
            found = evaluate_policy(task, policy, instance, progress)
        again = {"values": found.values.tolist(), "width": significant(found.batch_means.half_width)}
        place = first_difference(
            {"values": row["values"], "width": row["batch_means_half_width"]}, again, f"{name}/{row['name']}"
        )
        if place is not None:
            report.problems.append(f"task {name}: a replay of {row['name']} gives other values: {place}.")
        report.replayed.append(f"{name}/{row['name']}")


def _refusal(player: Entrant, instance: Any) -> str | None:
    """The sentence with which a baseline refuses to play an instance; None if it plays."""
    try:
        player.prepare(instance)
    except InputError as error:
        return str(error)
    return None


def _verify_bound(task: Task, instance: Any, part: str, stated: Record, stored: Record, report: Report) -> Record:
    """The stated record of a bound with what its certificate proves in place of what it says."""
    layer, kind = task.entry.layer("bounds"), task.bound_kind if part == "bound" else "optimum"
    if part in stored:
        certificate = stored[part]["certificate"]
        if stored[part] != {"kind": kind, "certificate": certificate}:
            report.problems.append(f"task {task.name}: the certificate of {kind} is filed as one of another kind.")
        if sha256(canonical(certificate)) != stated["certificate_sha256"]:
            report.problems.append(f"task {task.name}: the certificate of {kind} does not have the stated sha256.")
    else:  # too large to be stored: found anew
        certificate = layer.bound(instance, kind).certificate
        if len(canonical(certificate)) <= MAX_CERTIFICATE_BYTES:
            report.problems.append(f"task {task.name}: the certificate of {kind} is missing.")
        if sha256(canonical(certificate)) != stated["certificate_sha256"]:
            report.problems.append(f"task {task.name}: the bound {kind} found anew has another certificate.")
    prove = layer.prove_optimum if kind == "optimum" else layer.PROVERS[kind]
    proof = prove(instance, certificate)
    report.bounds += 1
    proven = proof.lower if proof.upper is None else proof.upper
    if proven is None or abs(stated["value"] - float(proven)) > VALUE_TOLERANCE * abs(float(proven)) + VALUE_FLOOR:
        report.problems.append(f"task {task.name}: the value {stated['value']!r} of {kind} is not what its certificate proves.")
    return {
        "kind": kind,
        "value": stated["value"],
        "lower": None if proof.lower is None else round_down(proof.lower),
        "upper": None if proof.upper is None else round_up(proof.upper),
        "certificate_sha256": sha256(canonical(certificate)),
    }


def _verify_page(out: Path, board: Record, text: str, report: Report) -> None:
    try:
        page = render(board, read_json(out / TIMINGS), sha256(text))
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        report.problems.append(f"board.json and timings.json cannot be rendered ({error!r}).")
        return
    if read_text(out / PAGE) != page:
        report.problems.append("index.html is not what board.json and timings.json render to.")


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
