"""The board: entrants evaluated on tasks under the same seeds, and everything that is published about them.

`evaluate_task` measures; `assemble` derives every published number from the measurements, and verification calls it again.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import matchgym
from matchgym.agents.files import write_whole
from matchgym.baselines.evaluation import Evaluation, evaluate
from matchgym.baselines.policy import Policy
from matchgym.baselines.statistics import Interval, paired_interval, t_interval
from matchgym.bounds.bound import Bound
from matchgym.envs.instance import InputError
from matchgym.leaderboards.entrants import AgentFolder, Entrant, entrants
from matchgym.leaderboards.pages import render
from matchgym.leaderboards.ranking import LEVEL, beats, holm, paired_p_value, rank_intervals, tiers
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
    sha256,
)
from matchgym.leaderboards.tasks import SCORER_VERSION, SUITE_VERSION, TASKS, Task

ABOVE_BOUND = 4.0  # standard errors above the bound from which a row is quarantined
DIGITS = 12  # significant digits of derived numbers; measurements and bounds are kept in full

Bar = Callable[[str], AbstractContextManager[Callable[[float], None]]]  # as matchgym.cli.output.progress_bar
Record = dict[str, Any]


def no_bar(label: str) -> AbstractContextManager[Callable[[float], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda share: None)


def evaluate_task(task: Task, agents: Sequence[AgentFolder] = (), bar: Bar = no_bar) -> tuple[Record, Record, Record]:
    """Bound a task and evaluate everybody on it.

    Returns
    -------
    record : what board.json says about the task.
    timings : name of a row -> microseconds per decision, the simulation of the environment included.
    certificates : {"bound": {"kind", "certificate"}, "optimum": ...}, for who wants to check the bounds.
    """
    instance, players = task.load(), entrants(task, agents)
    bound, optimum = find_bounds(task, instance)
    rows, refused, timings = [], [], {}
    with bar(f"{task.name}, {len(players)} entries") as progress:
        for k, player in enumerate(players):
            progress(k / len(players))
            try:
                policy = player.prepare(instance)
            except InputError as error:
                refused.append({"name": player.name, "kind": player.kind, "reason": str(error)})
                continue
            evaluate(policy, task.id, instance, 2, 0, 10, task.seed)  # compiles, so that the clock does not see it
            start = time.perf_counter()
            found = evaluate_policy(task, policy, instance, partial(_share, progress, k, len(players)))
            seconds = time.perf_counter() - start
            timings[player.name] = round(1e6 * seconds / (task.replications * (task.warmup + task.decisions)), 4)
            rows.append(measurement(player, found))
    certificates = {
        name: {"kind": part.kind, "certificate": part.certificate}
        for name, part in (("bound", bound), ("optimum", optimum))
        if isinstance(part, Bound)
    }
    best = bound_record(optimum) if isinstance(optimum, Bound) else {"refused": optimum}
    return assemble(task, bound_record(bound), best, rows, refused), timings, certificates


def _share(progress: Callable[[float], None], done: int, players: int, share: float) -> None:
    progress((done + share) / players)


def find_bounds(task: Task, instance: Any) -> tuple[Bound, Bound | str]:
    """The bound that scores a task, and the exact optimum or the sentence that refuses it."""
    bound = task.entry.layer("bounds").bound(instance, task.bound_kind)
    if bound.sense != "upper":
        raise InputError(f"task {task.name} needs an upper bound, but {task.bound_kind} is a {bound.sense} one.")
    return bound, find_optimum(task, instance)


def find_optimum(task: Task, instance: Any) -> Bound | str:
    """The exact optimum, or the sentence that refuses it."""
    try:
        return task.entry.layer("bounds").bound(instance, "optimum")
    except InputError as error:
        return str(error)


def evaluate_policy(task: Task, policy: Policy, instance: Any, progress: Callable[[float], None] | None = None) -> Evaluation:
    """The measurement behind a row; the same task and policy give the same values, bit for bit."""
    size = (task.replications, task.warmup, task.decisions, task.seed)
    return evaluate(policy, task.id, instance, *size, progress=progress)


def measurement(player: Entrant, found: Evaluation) -> Record:
    """What was measured of an entrant."""
    return {
        "name": player.name,
        "kind": player.kind,
        "about": player.about,
        "batch_means_half_width": significant(found.batch_means.half_width),
        "values": found.values.tolist(),
    }


def bound_record(bound: Bound) -> Record:
    """What board.json says about a bound."""
    return {
        "kind": bound.kind,
        "value": bound.value,
        "lower": bound.lower,
        "upper": bound.upper,
        "certificate_sha256": sha256(canonical(bound.certificate)),
    }


def significant(value: float) -> float:
    """A derived number with DIGITS significant digits, which no machine's last digits reach."""
    return float(f"{value:.{DIGITS}g}")


def interval(found: Interval) -> Record:
    """JSON values of an interval."""
    return {"mean": significant(found.mean), "low": significant(found.low), "high": significant(found.high)}


def assemble(task: Task, bound: Record, optimum: Record, rows: Sequence[Record], refused: Sequence[Record]) -> Record:
    """The published record of a task, a pure function of what was measured.

    A score of 0 is the anchor and 1 the certified bound, see `score_interval`. A row whose mean exceeds the bound by more than
    ABOVE_BOUND standard errors is not compared.
    """
    values = {row["name"]: np.array(row["values"], float) for row in rows}
    anchor, certified = values[task.anchor], bound["upper"]
    gap = certified - float(anchor.mean())
    order = sorted(rows, key=lambda row: (-float(values[row["name"]].mean()), row["name"]))
    published = [_row(row, values[row["name"]], anchor, gap, certified) for row in order]
    sound = [row for row in published if not row["is_above_bound"]]
    _compare(sound, values)
    return {
        **task.to_dict(),
        "bound": bound,
        "optimum": optimum | _optimum_scores(optimum, float(anchor.mean()), gap),
        "anchor_mean": significant(float(anchor.mean())),
        "rows": published,
        "refused": list(refused),
    }


def score_interval(values: NDArray[np.float64], anchor: NDArray[np.float64], certified: float) -> Interval:
    """The mean of the scores of the replications, s_b = (J_b - J0_b) / (UB - mean of J0), with its 95 % interval.

    The anchor's mean is an estimate too. Since s = mean(D) / mean(G) with D_b = J_b - J0_b and G_b = UB - J0_b, the interval is
    that of a ratio of means (delta method): Student's, over s + (D_b - s G_b) / mean(G).
    """
    difference, gap = values - anchor, certified - anchor
    score = difference.mean() / gap.mean()
    return t_interval(score + (difference - score * gap) / gap.mean())


def _row(row: Record, values: NDArray[np.float64], anchor: NDArray[np.float64], gap: float, certified: float) -> Record:
    objective = t_interval(values)
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    excess = objective.mean - certified
    return {
        "name": row["name"],
        "kind": row["kind"],
        "about": row["about"],
        "tier": None,
        "ranks": None,
        "score": interval(score_interval(values, anchor, certified)) if gap > 0 else None,
        "objective": interval(objective),
        "ratio": significant(objective.mean / certified) if objective.mean > 0 and certified > 0 else None,
        "verdict": None,  # against the best classical baseline: "best", "better", "tie" or "worse"
        "p_value": None,  # of that verdict, Holm-adjusted over the rows of the task
        "difference": None,  # objective minus that of the best classical baseline
        "is_above_bound": bool(excess > max(ABOVE_BOUND * error, 1e-9 * abs(certified))),
        "batch_means_half_width": row["batch_means_half_width"],
        "values": row["values"],
    }


def _compare(rows: list[Record], values: dict[str, NDArray[np.float64]]) -> None:
    """Fill in the tiers, ranks and verdicts of rows that are in order of their means."""
    samples = [values[row["name"]] for row in rows]
    beaten = beats(samples)
    for row, tier, ranks in zip(rows, tiers(beaten), rank_intervals(beaten)):
        row["tier"], row["ranks"] = tier, list(ranks)
    best = next((row for row in rows if row["kind"] == "baseline"), None)
    if best is None:
        return
    others = [row for row in rows if row is not best]
    adjusted = holm([paired_p_value(values[row["name"]], values[best["name"]]) for row in others])
    for row, p in zip(others, adjusted):
        difference = paired_interval(values[row["name"]], values[best["name"]])
        row["p_value"], row["difference"] = significant(p), interval(difference)
        row["verdict"] = "tie" if p > LEVEL else "better" if difference.mean > 0 else "worse"
    best["verdict"] = "best"


def _optimum_scores(optimum: Record, anchor: float, gap: float) -> Record:
    if "refused" in optimum or gap <= 0:
        return {}
    return {f"score_{side}": significant((optimum[side] - anchor) / gap) for side in ("lower", "upper")}


def build_board(
    out: Path,
    tasks: Sequence[Task] = TASKS,
    agents: Sequence[AgentFolder] = (),
    is_quick: bool = False,
    bar: Bar = no_bar,
    names: Sequence[str] | None = None,
) -> Record:
    """Evaluate tasks and write board.json, timings.json, index.html and the certificates into `out`, task by task.

    After each task everything is on disk, so that an interrupted build keeps what it finished.

    Parameters
    ----------
    tasks : all tasks of the board, which gives their order.
    agents : each is evaluated on the tasks of the instance that it was trained on.
    is_quick : the tasks are at a fraction of their length; such a board says so and never mixes with a full one.
    bar : a progress bar, as `matchgym.cli.output.progress_bar`.
    names : tasks to evaluate, by default all; a board of the same versions in `out` keeps its other tasks.
    """
    chosen = [task for task in tasks if names is None or task.name in names]
    for agent in agents:
        if not any(agent.plays(task) for task in chosen):
            raise InputError(f"agent {agent.name} was trained on an instance that none of the chosen tasks uses.")
    board, timings = _start(out, tasks, is_quick, names is None)
    for task in chosen:
        record, times, certificates = evaluate_task(task, agents, bar)
        kept = {old_task["name"]: old_task for old_task in board["tasks"]} | {task.name: record}
        board["tasks"] = [kept[each.name] for each in tasks if each.name in kept]
        timings[task.name] = times
        timings = {each.name: timings[each.name] for each in tasks if each.name in timings}
        write_board(out, board, timings, {task.name: certificates})
    return board


def _start(out: Path, tasks: Sequence[Task], is_quick: bool, is_whole: bool) -> tuple[Record, Record]:
    """The board and the timings to add tasks to: those in `out` if they are of the same versions, else empty ones."""
    board: Record = {
        "schema_version": SCHEMA_VERSION,
        "suite_version": SUITE_VERSION,
        "scorer_version": SCORER_VERSION,
        "package_version": matchgym.__version__,
        "quick": is_quick,
        "tasks": [],
    }
    if not (out / BOARD).exists():
        return board, {}
    old = read_board(out)
    if old["quick"] != is_quick:
        kinds = ("full", "quick") if is_quick else ("quick", "full")
        raise InputError(f"{out} holds a {kinds[0]} board, which a {kinds[1]} one must not replace; give another --out.")
    if {**old, "tasks": []} != board:
        if is_whole:
            return board, {}
        raise InputError(f"{out} holds a board of other versions; build all tasks, or give another --out.")
    known = {task.name: task.to_dict() for task in tasks}
    board["tasks"] = [record for record in old["tasks"] if is_same_task(record, known)]
    return board, read_json(out / TIMINGS) if (out / TIMINGS).exists() else {}


def is_same_task(record: Record, known: dict[str, Record]) -> bool:
    """Whether a published task is the task of that name, unchanged."""
    task = known.get(record["name"])
    return task is not None and all(record.get(key) == value for key, value in task.items())


def write_board(out: Path, board: Record, timings: Record, certificates: dict[str, Record]) -> None:
    """Write the files of a board; board.json comes last but for the page, which names its digest."""
    for name, parts in certificates.items():
        small = {key: part for key, part in parts.items() if len(canonical(part["certificate"])) <= MAX_CERTIFICATE_BYTES}
        write_whole(certificate_path(out, name), canonical(small) + "\n")
    write_whole(out / TIMINGS, dump(timings))
    text = dump(board)
    write_whole(out / BOARD, text)
    write_whole(out / PAGE, render(board, timings, sha256(text)))
