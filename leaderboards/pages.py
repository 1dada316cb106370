"""The board: an overview of the tracks, and one page per track with the tables of its tasks."""

from collections.abc import Sequence
from itertools import groupby

from matchgym.leaderboards.charts import axis, bar
from matchgym.leaderboards.markup import (
    CHART,
    STATES,
    VERDICTS,
    Record,
    decimals,
    difference_text,
    entry_link,
    facts,
    legend,
    minus,
    page,
    plus_minus,
    ranks_text,
    score_text,
    table,
    text,
)

HOW_TO_READ = """<p><strong>How to read a score.</strong> A score says how far a policy gets from an anchor, 0, to a
certified
upper bound, 1, which no policy can exceed and the best one need not reach. Bars end at the estimated score; whiskers
and every
± are 95 % intervals over independent replications. Rows of one tier, shaded alike, do not differ significantly from
the first
row of the tier, and their order is not significant; the true rank lies within the printed ranks with 95 % confidence:
read a tie
as a tie. <a href="ranks.html">More on ranks.</a></p>"""

PLAIN_SCALE: Record = {"optimum": {}}  # of bars of aggregates, on which no optimum is marked


def track_page_name(track: Record) -> str:
    return f"track-{track['id']}.html"


def compare_page_name(env_id: str) -> str:
    return f"compare-{env_id}.html"


def index_page(board: Record) -> str:
    """Who leads each track, and the aggregate tables."""
    parts = [HOW_TO_READ, legend(), _methods(board["methods"])]
    for track in board["tracks"]:
        name = text(track["id"])
        parts.append(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">'
            f'<a href="{track_page_name(track)}">{name}</a></h2>{aggregate_table(track)}</section>'
        )
    return page("Leaderboard", "\n".join(parts), board, "index.html")


def aggregate_table(track: Record) -> str:
    """The rows of a track by their mean score over its tasks."""
    bodies = []
    for tier, rows in groupby(track["rows"], key=lambda row: row["tier"]):
        group = list(rows)
        lines = []
        for k, row in enumerate(group):
            first = f'<th scope="rowgroup" class="tier" rowspan="{len(group)}">{tier}</th>' if k == 0 else ""
            notes = "<small>unstable on a task</small>" if row["is_unstable"] else ""
            notes += "" if row["alike"] is None else f"<small>decides nearly as {text(row['alike'])}</small>"
            lines.append(
                f'<tr>{first}<th scope="row">{entry_link(row)}{notes}</th>'
                f'<td class="number">{score_text(row["score"])}</td><td class="number">{ranks_text(row["ranks"])}</td>'
                f'<td class="chart">{bar(row, PLAIN_SCALE, score_text(row["score"]))}</td>'
                f'<td class="number">{_plain(row["worst"])}</td>'
                f'<td class="number">{_plain(row["interquartile_mean"])}</td>'
                f'<td class="number">{row["microseconds"]:#.3g}</td></tr>'
            )
        bodies.append(f'<tbody class="{"odd" if tier % 2 else "even"}">{"".join(lines)}</tbody>')
    heads = [
        "Tier",
        "Policy",
        "Mean score",
        "Ranks",
        f"{CHART}{axis(PLAIN_SCALE)}",
        "Worst task",
        "Interquartile mean",
        "µs / decision",
    ]
    count = len(track["tasks"])
    partial = ", ".join(text(name) for name in track["partial"])
    note = f'<p class="muted">Not on all {count} tasks, so not ranked here: {partial}.</p>' if partial else ""
    label = f"{track['id']}: mean over {count} task{'s' if count > 1 else ''}"
    return table(label, heads, "".join(bodies)) + note


def _plain(score: float) -> str:
    return minus(f"{score:.3f}")


def _methods(methods: Sequence[Record]) -> str:
    """The board of methods; a sentence while nobody has five runs."""
    head = "<h2>Methods</h2>"
    if not methods:
        return (
            f'<section id="methods">{head}<p class="muted">A method is listed once five agents of one name, trained with five '
            "seeds, are submitted. Below, each row is one policy.</p></section>"
        )
    lines = "".join(
        f'<tr><th scope="row">{text(row["name"])}<small>{text(row["algorithm"])}</small>{_copies(row)}</th>'
        f'<td class="number">{score_text(row["score"])}</td><td class="number">{row["runs"]}</td>'
        f'<td class="names">{", ".join(map(text, row["tasks"]))}</td></tr>'
        for row in methods
    )
    heads = ["Method", "Interquartile mean", "Runs", "Tasks"]
    return f'<section id="methods">{head}{table("Methods", heads, f"<tbody>{lines}</tbody>")}</section>'


def track_page(track: Record, board: Record) -> str:
    """All tasks of one environment id, or of one family."""
    tasks = [task for task in board["tasks"] if task["track"] == track["id"]]
    links = ", ".join(f'<a href="#{text(task["name"])}">{text(task["name"])}</a>' for task in tasks)
    compare = f'<a href="{compare_page_name(track["id"])}">Compare any two entries</a>'
    body = f"<p>Tasks: {links}. {compare}.</p>{legend()}<h2>All tasks together</h2>{aggregate_table(track)}"
    return page(track["id"], body + "\n".join(task_section(task) for task in tasks), board)


COLUMNS = ("Score", "Ranks", None, "Objective", "Against best baseline", "State", "µs / decision")  # None: the bars


def task_section(task: Record) -> str:
    """The table of a task."""
    name = text(task["name"])
    sound = [row for row in task["rows"] if row["tier"] is not None]
    bodies = [_alarm(row) for row in task["rows"] if row["is_above_bound"]]
    bodies += [_tier(tier, list(rows), task) for tier, rows in groupby(sound, key=lambda row: row["tier"])]
    bodies += [_unstable(row) for row in task["rows"] if row["is_unstable"]]
    refused = "".join(
        f'<tr><td class="tier">–</td><th scope="row">{entry_link(row)}</th>'
        f'<td colspan="{len(COLUMNS)}" class="muted reason">not evaluated: {text(row["reason"])}</td></tr>'
        for row in task["refused"]
    )
    if refused:
        bodies.append(f'<tbody class="refused">{refused}</tbody>')
    heads = ["Tier", "Policy", *(f"{CHART}{axis(task)}" if head is None else head for head in COLUMNS)]
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{name}</h2><p>{text(task["note"])} '
        f'<a href="tasks.html#{name}">Instance, bound and certificate.</a></p>'
        f"{table(f'Policies on {name}, best first', heads, ''.join(bodies))}</section>"
    )


def _copies(method: Record) -> str:
    return f"<small>{method['copies']} of the runs decide nearly as another entry</small>" if method["copies"] else ""


def _tier(tier: int, rows: Sequence[Record], task: Record) -> str:
    lines = []
    for k, row in enumerate(rows):
        first = f'<th scope="rowgroup" class="tier" rowspan="{len(rows)}">{tier}</th>' if k == 0 else ""
        lines.append(f"<tr>{first}{_cells(row, task)}</tr>")
    return f'<tbody class="{"odd" if tier % 2 else "even"}">{"".join(lines)}</tbody>'


def _cells(row: Record, task: Record) -> str:
    ratio = "" if row["ratio"] is None else f"<small>{row['ratio']:.1%} of the bound</small>"
    difference = "" if row["difference"] is None else f"<small>{difference_text(row['difference'])}</small>"
    half = row["batch_means_half_width"]
    same = "" if row["same_as"] is None else f"<small>decides as {text(row['same_as'])}</small>"
    if row["alike"] not in (None, row["same_as"]):
        same += f"<small>decides nearly as {text(row['alike'])}</small>"
    return (
        f'<th scope="row">{entry_link(row)}{same}</th>'
        f'<td class="number">{score_text(row["score"])}{ratio}</td>'
        f'<td class="number">{ranks_text(row["ranks"])}</td>'
        f'<td class="chart">{bar(row, task, score_text(row["score"]))}</td>'
        f'<td class="number">{plus_minus(row["objective"])}<small>{row["replications"]} replications, batch means ± '
        f"{half:,.{decimals(half)}f}</small></td>"
        f'<td class="number {text(row["verdict"] or "")}">{verdict_text(row)}{difference}</td>'
        f"<td>{text(row['state'])}{_jail(row)}</td>"
        f'<td class="number">{row["microseconds"]:#.3g}</td>'
    )


def verdict_text(row: Record) -> str:
    """The verdict against the best baseline; "better" only once fresh seeds have said so too."""
    if row["verdict"] == "better" and row["state"] != "verified":
        return "▲ better, if fresh seeds confirm"
    return VERDICTS.get(row["verdict"] or "", "")


def _jail(row: Record) -> str:
    return "" if row["is_jailed"] or row["kind"] != "agent" else "<small>run without a jail</small>"


def _alarm(row: Record) -> str:
    return (
        f'<tbody class="alarm"><tr><td class="tier">!</td><th scope="row">{entry_link(row)}</th>'
        f'<td colspan="{len(COLUMNS)}">ABOVE BOUND, quarantined: {plus_minus(row["objective"])} exceeds the certified '
        "bound by more than four standard errors, which no policy can: a bug in matchgym; it is not compared.</td></tr></tbody>"
    )


def _unstable(row: Record) -> str:
    return (
        f'<tbody class="refused"><tr><td class="tier">∞</td><th scope="row">{entry_link(row)}</th>'
        f'<td colspan="{len(COLUMNS)}" class="reason">{text(STATES["unstable"])}; score −1, no interval and no rank.'
        "</td></tr></tbody>"
    )


def tasks_page(board: Record) -> str:
    """Every task: what it is, what its scores are measured between, and the proof."""
    sections = [_task_facts(task) for task in board["tasks"]]
    links = "".join(f'<li><a href="#{text(task["name"])}">{text(task["name"])}</a></li>' for task in board["tasks"])
    body = (
        "<p>A task is frozen: the sha256 of its instance, its length and its bound are fixed, and any change is a new suite. "
        "Certificates are dual multipliers; from them and the instance <code>matchgym leaderboard verify</code> derives the "
        f'bound in exact rational arithmetic, without a solver.</p><ul class="columns">{links}</ul>'
    )
    return page("Tasks", body + "\n".join(sections), board, "tasks.html")


def _certificate(stated: Record) -> str:
    digest = text(stated["certificate_sha256"])
    if not stated["is_kept"]:
        return f"certificate too large to be kept, sha256 <code>{digest}</code>"
    return f'<a href="certificates/{digest}.json">certificate</a>, sha256 <code>{digest}</code>'


def _instance(task: Record) -> str:
    if not task["family"]:
        return f"instance {text(task['instance'])}, sha256 <code>{text(task['sha256'])}</code>"
    return (
        f"an instance of the family {text(task['family'])} that is secret until the season is closed, sha256 "
        f"<code>{text(task['bound']['instance_sha256'])}</code>; from then on <code>matchgym leaderboard instance "
        f"{text(task['name'])} --revealed BOARD</code> prints it, and without the option its public sibling"
    )


def _task_facts(task: Record) -> str:
    name, bound, optimum = text(task["name"]), task["bound"], task["optimum"]
    if "refused" in optimum:
        best = f"not known: {text(optimum['refused'])}"
    else:
        best = f"between {optimum['lower']!r} and {optimum['upper']!r}; {_certificate(optimum)}"
    items = {
        "Environment": f'<a href="track-{text(task["track"])}.html">{text(task["id"])}</a>, {_instance(task)}',
        "Score 0": f"{text(task['anchor'])}, {task['anchor_mean']:.6g} on average",
        "Score 1": f"{text(bound['kind'])}, certified value {bound['upper']!r}; {_certificate(bound)}",
        "Exact optimum": best,
        "Simulation": f"{task['replications']:,} replications at most, of {task['warmup']:,} warm-up and "
        f"{task['decisions']:,} counted decisions",
        "Practice": f"<pre>matchgym check DIR --full</pre>on the public seeds {task['seed']} + b",
    }
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{name}</h2>'
        f"<p>{text(task['note'])}</p>{facts(items)}</section>"
    )
