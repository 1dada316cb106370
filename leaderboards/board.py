"""The board: every published number, as a pure function of the records of a season and the tasks.

`assemble` derives everything; verification calls it again and compares.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.statistics import Interval, paired_interval, t_interval
from matchgym.envs.instance import InputError
from matchgym.leaderboards.measuring import LOOK_LEVEL, certified_values, significant
from matchgym.leaderboards.methods import method_rows
from matchgym.leaderboards.probes import alike
from matchgym.leaderboards.ranking import LEVEL, beats, holm, paired_p_value, rank_intervals, tiers
from matchgym.leaderboards.season import Season, seasons
from matchgym.leaderboards.store import SCHEMA_VERSION, Record
from matchgym.leaderboards.tasks import SCORER_VERSION, SUITE_VERSION, TASKS, Task
from matchgym.leaderboards.tracks import mean_interval, track_rows

ABOVE_BOUND = 4.0  # standard errors above the bound from which a row is quarantined
UNSTABLE_SCORE = -1.0
BASELINE, AGENT = "baseline", "agent"
HIDDEN = ("values", "fresh_values", "scores", "estimate")  # of a row: kept in the records, or derived and long

Values = NDArray[np.float64]


def interval(found: Interval) -> Record:
    """JSON values of an interval."""
    return {"mean": significant(found.mean), "low": significant(found.low), "high": significant(found.high)}


def score_sample(values: Values, anchor: Values, certified: Values) -> Values:
    """Scores of replications (R,), whose mean is the score of the row and whose spread gives its interval.

    The score is s = mean(D) / mean(G) with D_b = J_b - J0_b and G_b = UB_b - J0_b: 0 for the anchor, 1 at the bound. The
    anchor's mean is an estimate too, so the spread is that of a ratio of means (delta method): s + (D_b - s G_b) / mean(G).
    Each argument may be longer than R; replication b is entry b of all.
    """
    n = len(values)
    difference, gap = values - anchor[:n], certified[:n] - anchor[:n]
    score = difference.mean() / gap.mean()
    sample: Values = score + (difference - score * gap) / gap.mean()
    return sample


def score_interval(values: Values, anchor: Values, certified: Values) -> Interval:
    """The score with its 95 % interval, see `score_sample`."""
    return t_interval(score_sample(values, anchor, certified))


def assemble(records: Sequence[Record], tasks: Sequence[Task] = TASKS, season: str | None = None) -> Record:
    """The board of a season, by default the last: versions, tasks with their rows, tracks, methods, and what changed."""
    known = seasons(list(records))
    chosen = next((each for each in reversed(known) if season in (None, each.name)), None)
    if chosen is None:
        raise InputError("the board has no season; open one with: matchgym leaderboard open NAME.")
    bodies: dict[str, list[Record]] = {kind: [] for kind in ("season-opened", "bounded", "submitted", "refused", "evaluated")}
    for record in records:
        if record["body"].get("season") == chosen.name and record["kind"] in bodies:
            bodies[record["kind"]].append(record["body"])
    opened = bodies["season-opened"][0]
    submitted = _labelled(bodies["submitted"])
    found = [_task(task.quick() if chosen.is_quick else task, bodies, submitted) for task in tasks]
    board_tasks = [each for each in found if each is not None]
    near = _alike(submitted, bodies["evaluated"])
    tracks = track_rows(board_tasks)
    for row in (row for table in (*board_tasks, *tracks) for row in table["rows"]):
        others = [submitted[each["artefact"]]["name"] for each in near.get(row["artefact"], [])]
        row["alike"] = others[0] if others else None
    return {
        "schema_version": SCHEMA_VERSION,
        "suite_version": opened["suite_version"],
        "scorer_version": opened["scorer_version"],
        "package_version": opened["package_version"],
        "season": _season(chosen),
        "records": len(records),
        "head": records[-1]["sha256"],
        "tasks": board_tasks,
        "tracks": tracks,
        "methods": method_rows(board_tasks, {body["artefact"]: body for body in bodies["submitted"]}, near),
        "entries": [
            {key: body[key] for key in ("artefact", "name", "kind", "method")} | {"alike": near.get(body["artefact"], [])}
            for body in submitted.values()
        ],
    }


def _labelled(bodies: Sequence[Record]) -> dict[str, Record]:
    """What was submitted by artefact; agents of one name bear the seeds of their trainings in it."""
    names = [body["name"] for body in bodies]
    return {
        body["artefact"]: {**body, "name": f"{body['name']}, seed {body['method']['train_seed']}"}
        if body["kind"] == AGENT and names.count(body["name"]) > 1
        else body
        for body in bodies
    }


def _alike(submitted: Mapping[str, Record], evaluated: Sequence[Record]) -> dict[str, list[Record]]:
    """For each agent, what came in before and decides alike at the probes; policies of this package need no flags."""
    told: dict[str, dict[str, str]] = {}
    for body in evaluated:
        if body.get("decisions") is not None:  # which records of scorer 2 lack
            told.setdefault(body["task"], {})[body["artefact"]] = body["decisions"]
    found = alike(list(submitted), told) if any(body["kind"] == AGENT for body in submitted.values()) else {}
    return {key: others for key, others in found.items() if submitted[key]["kind"] == AGENT}


def _season(season: Season) -> Record:
    secret = None if season.revealed is None else season.revealed.hex()
    return {"name": season.name, "commitment": season.commitment, "secret": secret, "quick": season.is_quick}


def without_values(board: Record) -> Record:
    """The board as board.json holds it."""
    tasks = [
        {**task, "rows": [{key: value for key, value in row.items() if key not in HIDDEN} for row in task["rows"]]}
        for task in board["tasks"]
    ]
    return {**board, "tasks": tasks}


def is_current(board: Record) -> bool:
    """Whether the board was made with the tasks and the scorer of this version."""
    return (board["suite_version"], board["scorer_version"]) == (SUITE_VERSION, SCORER_VERSION)


def _task(task: Task, bodies: Mapping[str, Sequence[Record]], submitted: Mapping[str, Record]) -> Record | None:
    """The published record of a task; None before its bounds and its anchor are known."""
    bounds = next((body for body in bodies["bounded"] if body["task"] == task.name), None)
    mine = [body for body in bodies["evaluated"] if body["task"] == task.name]
    season = {body["artefact"]: body for body in mine if body["phase"] == "season"}
    fresh = {body["artefact"]: np.array(body["values"], float) for body in mine if body["phase"] == "fresh"}
    anchor = next((body for key, body in season.items() if _is_anchor(submitted[key], task)), None)
    if bounds is None or anchor is None:
        return None
    anchor_values = np.array(anchor["values"], float)
    certified = certified_values(bounds["bound"], len(anchor_values))
    rows = [_row(submitted[key], body, anchor_values, certified) for key, body in season.items()]
    _mark_copies(rows)
    best = best_baseline([row for row in rows if not row["is_above_bound"] and not row["is_unstable"]])
    gap = float(certified.mean() - anchor_values.mean())
    for row in rows:
        if best is not None and row["replications"] < best["replications"]:
            _extend(row, best, float(anchor_values.mean()), gap)
    rows.sort(key=lambda row: (row["is_unstable"], -row["estimate"], row["name"], row["artefact"]))
    _compare([row for row in rows if not row["is_above_bound"] and not row["is_unstable"]], best, fresh)
    optimum = bounds["optimum"]
    refused = [body for body in bodies["refused"] if body["task"] == task.name]
    return {
        **task.to_dict(),
        "bound": {key: value for key, value in bounds["bound"].items() if key != "uppers"},
        "optimum": optimum | _optimum_scores(optimum, float(anchor_values.mean()), gap),
        "anchor_mean": significant(float(anchor_values.mean())),
        "rows": rows,
        "refused": [
            {
                "artefact": body["artefact"],
                "name": submitted[body["artefact"]]["name"],
                "kind": submitted[body["artefact"]]["kind"],
                "reason": body["reason"],
            }
            for body in refused
        ],
    }


def _is_anchor(who: Record, task: Task) -> bool:
    return bool(who["kind"] == BASELINE and who["name"] == task.anchor)


def _row(who: Record, body: Record, anchor: Values, certified: Values) -> Record:
    values = np.array(body["values"], float)
    n = len(values)
    objective = t_interval(values)
    excess = t_interval(values - certified[:n])
    error = float((values - certified[:n]).std(ddof=1)) / np.sqrt(n)
    gap = float((certified[:n] - anchor[:n]).mean())
    is_unstable = body["is_unstable"]
    scores = np.full(n, UNSTABLE_SCORE) if is_unstable else score_sample(values, anchor, certified) if gap > 0 else None
    score = None if scores is None else interval(t_interval(scores))
    if is_unstable:
        score = {"mean": UNSTABLE_SCORE, "low": None, "high": None}
    mean_bound = float(certified[:n].mean())
    is_above = bool(excess.mean > max(ABOVE_BOUND * error, 1e-9 * abs(mean_bound)))
    return {
        "artefact": who["artefact"],
        "name": who["name"],
        "kind": who["kind"],
        "state": "quarantined" if is_above else "unstable" if is_unstable else "measured",
        "tier": None,
        "ranks": None,
        "score": score,
        "objective": interval(objective),
        "ratio": significant(objective.mean / mean_bound) if objective.mean > 0 and mean_bound > 0 else None,
        "verdict": None,  # against the best classical baseline: "best", "better", "tie" or "worse"
        "p_value": None,  # of that verdict, Holm-adjusted over the rows of the task
        "difference": None,  # objective minus that of the best classical baseline
        "fresh": None,  # the same on fresh seeds, for rows that were first on the season's
        "is_above_bound": is_above,
        "is_unstable": is_unstable,
        "alike": None,  # the name of the artefact before it that decides most alike at the probes
        "same_as": None,  # the name of an earlier row with the same values, which decides alike
        "replications": n,
        "batch_means_half_width": body["batch_means_half_width"],
        "microseconds": body["microseconds"],
        "is_jailed": body["is_jailed"],
        "values": values,
        "fresh_values": None,
        "scores": scores,
        "estimate": float(values.mean()),
    }


def extended_interval(values: Values, reference: Values) -> Interval:
    """The mean that n values would have on all N > n replications of a reference: its mean, plus the mean difference from it.

    Values and reference belong together on the first n. A sum of two independent means, of values - (1 - n / N) reference on
    these, and of (1 - n / N) reference on the others. What stopped early is so freed of the luck of the first replications.
    """
    n = len(values)
    rest = 1 - n / len(reference)
    mean, low, high = mean_interval([2 * (values - rest * reference[:n]), 2 * rest * reference[n:]])
    return Interval(mean, low, high)


def _extend(row: Record, best: Record, anchor: float, gap: float) -> None:
    """The objective and the score of a row that stopped early, extended to the replications of the best baseline."""
    found = extended_interval(row["values"], best["values"])
    row["objective"], row["estimate"] = interval(found), found.mean
    row["ratio"] = None if row["ratio"] is None else significant(found.mean / (anchor + gap))
    if row["scores"] is not None and not row["is_unstable"]:
        score = extended_interval(row["scores"], best["scores"])
        mean, half = (found.mean - anchor) / gap, score.high - score.mean
        row["score"] = interval(Interval(mean, mean - half, mean + half))


def _compare(rows: list[Record], best: Record | None, fresh: Mapping[str, Values]) -> None:
    """Fill in the tiers, ranks, verdicts and states of rows that are in order of their means."""
    beaten = beats([[row["values"]] for row in rows])
    for row, tier, ranks in zip(rows, tiers(beaten), rank_intervals(beaten)):
        row["tier"], row["ranks"] = tier, list(ranks)
        row["fresh_values"] = fresh.get(row["artefact"])
    for row, p, difference, verdict in _verdicts(rows, best, "values") if best else []:
        row["p_value"], row["difference"], row["verdict"] = p, difference, verdict
    claimed = claims(rows)
    for row in rows:
        row["state"] = "provisional" if any(row is each for each in claimed) else "measured"
    if best is None:
        return
    best["verdict"] = "best"
    again = [row for row in rows if row["fresh_values"] is not None]
    if best["fresh_values"] is None:
        return
    for row, p, difference, verdict in _verdicts(again, best, "fresh_values"):
        objective = interval(t_interval(row["fresh_values"]))
        row["fresh"] = {"objective": objective, "difference": difference, "p_value": p, "verdict": verdict}
        if verdict == "better" or (verdict == "tie" and row["verdict"] != "better"):
            row["state"] = "verified"
    best["fresh"] = {
        "objective": interval(t_interval(best["fresh_values"])), "difference": None, "p_value": None, "verdict": "best",
    }  # fmt: skip
    best["state"] = "verified"


def _verdicts(rows: Sequence[Record], best: Record, key: str) -> list[tuple[Record, float, Record, str]]:
    """(row, Holm-adjusted p, difference, verdict) of all rows but the best baseline, on the replications that both have.

    A verdict needs p <= LOOK_LEVEL, as a row may have been measured for up to three looks. Copies are no tests of their own, or
    they would weaken those of others; they get Bonferroni's correction.
    """
    others = [row for row in rows if row is not best]
    pairs = [(row[key], best[key]) for row in others]
    pairs = [(a[: min(len(a), len(b))], b[: min(len(a), len(b))]) for a, b in pairs]
    p_values = [paired_p_value(a, b) for a, b in pairs]
    tested = [k for k, row in enumerate(others) if row["same_as"] is None]
    adjusted = [min(1.0, max(1, len(tested)) * p) for p in p_values]
    for k, p in zip(tested, holm([p_values[k] for k in tested])):
        adjusted[k] = p
    found = []
    for row, p, (a, b) in zip(others, adjusted, pairs):
        difference = paired_interval(a, b)
        verdict = "tie" if p > LOOK_LEVEL else "better" if difference.mean > 0 else "worse"
        found.append((row, significant(p), interval(difference), verdict))
    return found


def best_baseline(rows: Sequence[Record]) -> Record | None:
    """The classical baseline with the largest mean among those that were measured on most replications."""
    baselines = [row for row in rows if row["kind"] == BASELINE]
    longest = max((row["replications"] for row in baselines), default=0)
    complete = [row for row in baselines if row["replications"] == longest]
    return min(complete, key=lambda row: (-row["estimate"], row["name"], row["artefact"]), default=None)


def claims(rows: Sequence[Record]) -> list[Record]:
    """What fresh seeds must confirm: complete rows of the first tier, and the best agent said to be better than baselines."""
    longest = max((row["replications"] for row in rows), default=0)
    complete = [row for row in rows if row["replications"] == longest]
    better = next((row for row in complete if row["kind"] == AGENT and row["verdict"] == "better"), None)
    return [row for row in complete if row["tier"] == 1 or row is better]


def leaders(task: Record) -> list[str]:
    """Artefacts of a task's rows that fresh seeds are for, see `claims`, and of the best classical baseline."""
    sound = [row for row in task["rows"] if row["tier"] is not None]
    wanted = [*claims(sound), best_baseline(sound)]
    return [row["artefact"] for row in sound if any(row is each for each in wanted)]


def _mark_copies(rows: Sequence[Record]) -> None:
    """Rows whose values are those of a row that came in before decide alike wherever they were measured."""
    for k, row in enumerate(rows):
        for other in rows[:k]:
            n = min(len(row["values"]), len(other["values"]))
            if other["same_as"] is None and (row["values"][:n] == other["values"][:n]).all():
                row["same_as"] = other["name"]
                break


def _optimum_scores(optimum: Record, anchor: float, gap: float) -> Record:
    if "refused" in optimum or gap <= 0:
        return {}
    return {f"score_{side}": significant((optimum[side] - anchor) / gap) for side in ("lower", "upper")}


def levels() -> Record:
    """What the pages say of error probabilities."""
    return {"family": LEVEL, "look": LOOK_LEVEL}
