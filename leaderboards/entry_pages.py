"""The page of an entry, with its replications, and the comparison of any two entries of a track."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.statistics import paired_interval
from matchgym.leaderboards.artefact import Artefact
from matchgym.leaderboards.board import interval
from matchgym.leaderboards.charts import axis, bar, replications
from matchgym.leaderboards.markup import (
    CHART,
    KINDS,
    STATES,
    VERDICTS,
    Record,
    difference_text,
    entry_link,
    facts,
    minus,
    page,
    plus_minus,
    ranks_text,
    score_text,
    table,
    text,
)
from matchgym.leaderboards.pages import compare_page_name, verdict_text
from matchgym.leaderboards.probes import ALIKE
from matchgym.leaderboards.ranking import LEVEL, paired_p_value
from matchgym.leaderboards.store import BLOBS, sha256

Values = NDArray[np.float64]


def entry_page_name(artefact: str) -> str:
    return f"entries/{artefact[:16]}.html"


def entry_page(entry: Record, artefact: Artefact, board: Record) -> str:
    """Where an entry stands on each task, what it is, and how to replay it."""
    agent, method = artefact.agent, artefact.method
    mine = [(task, row) for task in board["tasks"] for row in task["rows"] if row["artefact"] == entry["artefact"]]
    refused = [(task, row) for task in board["tasks"] for row in task["refused"] if row["artefact"] == entry["artefact"]]
    lines = "".join(_forest_line(task, row) for task, row in mine)
    heads = ["Task", f"{CHART}{axis({'optimum': {}})}", "Score", "Ranks", "Against best baseline", "State"]
    forest = table(f"Scores of {entry['name']} by task", heads, f"<tbody>{lines}</tbody>") if mine else ""
    reasons = "".join(f"<li>{text(task['name'])}: {text(row['reason'])}</li>" for task, row in refused)
    digests = dict.fromkeys(sha256(file.data) for file in artefact.entries)
    files = ", ".join(f'<a href="../{BLOBS}/{digest}"><code>{digest}</code></a>' for digest in digests)
    tracks = list(dict.fromkeys(task["track"] for task, _ in (*mine, *refused)))
    compare = ", ".join(f'<a href="../{compare_page_name(track)}">{text(track)}</a>' for track in tracks)
    items = {
        "Kind": text(KINDS[entry["kind"]]),
        "Authors": ", ".join(text(author) for author in agent["authors"]),
        "Licence": text(agent["licence"]),
        "Method": f"{text(method['algorithm'])}, {text(method['library'])} {text(method['library_version'])}, "
        f"{method['training_steps']:,} training steps, seed {text(method['train_seed'])}, {text(method['hardware'])}",
        "Links": ", ".join(text(agent[key]) for key in ("url", "paper") if key in agent) or "none",
        "Artefact": f"sha256 <code>{text(artefact.sha256)}</code>; files {files}",
        "Decides alike": _alike(entry, board),
        "Replay a row": f"<pre>matchgym leaderboard replay {text(artefact.sha256[:16])} --task TASK</pre>",
        "Compare": compare or "nothing to compare with yet",
    }
    details = "".join(_replications(task, row) for task, row in mine)
    body = (
        f"<p>{text(agent['description'])}</p>{facts(items)}<h2>By task</h2>{forest}"
        + (f"<h2>Not evaluated</h2><ul>{reasons}</ul>" if refused else "")
        + f"<h2>Replications</h2><p>Each line is the score of one replication; the bar and whisker are their mean and its "
        f"95 % interval.</p>{details}"
    )
    return page(entry["name"], body, board, depth=1)


def _alike(entry: Record, board: Record) -> str:
    """What came in before and agrees with an entry at the probes."""
    if entry["kind"] != "agent":
        return "not asked of the policies of this package"
    rows = {each["artefact"]: each for each in board["entries"]}
    found = [
        f"{entry_link(rows[each['artefact']], 1)} in {each['agreement']:.1%} of {each['probes']:,} probe states"
        for each in entry["alike"]
    ]
    note = f" (at least {ALIKE:.0%}; on a small task honest agents may all have learned the one best policy)"
    return ", ".join(found) + note if found else f"nothing that came in before, in {ALIKE:.0%} of the probe states"


def _forest_line(task: Record, row: Record) -> str:
    rank = "–" if row["ranks"] is None else ranks_text(row["ranks"])
    difference = "" if row["difference"] is None else f"<small>{difference_text(row['difference'])}</small>"
    return (
        f'<tr><th scope="row"><a href="../track-{text(task["track"])}.html#{text(task["name"])}">{text(task["name"])}</a></th>'
        f'<td class="chart">{bar(row, task, score_text(row["score"]))}</td><td class="number">{score_text(row["score"])}</td>'
        f'<td class="number">{rank}</td><td class="number {text(row["verdict"] or "")}">{verdict_text(row)}{difference}</td>'
        f"<td>{text(row['state'])}</td></tr>"
    )


def _replications(task: Record, row: Record) -> str:
    items = {
        "Objective": f"{plus_minus(row['objective'])} over {row['replications']} replications",
        "State": text(STATES[row["state"]]),
        "Time": f"{row['microseconds']:#.3g} µs per decision, the simulation included",
    }
    fresh = row["fresh"]
    if fresh is not None:
        against = "" if fresh["difference"] is None else f"; against the best baseline {difference_text(fresh['difference'])}"
        items["Fresh seeds"] = f"{plus_minus(fresh['objective'])}{against}"
    chart = "" if row["scores"] is None else replications(row, task, np.asarray(row["scores"]))
    return f"<section><h3>{text(task['name'])}</h3>{chart}{facts(items)}</section>"


def compare_page(track: Record, board: Record) -> str:
    """A matrix of all pairs of a track's rows, and for each pair its differences task by task."""
    tasks = [task for task in board["tasks"] if task["track"] == track["id"]]
    tables = [{row["artefact"]: row for row in task["rows"]} for task in tasks]
    rows = {key: row for each in tables for key, row in each.items()}
    order = list(dict.fromkeys([*(row["artefact"] for row in track["rows"]), *rows]))
    heads = ["Entry", *(text(rows[key]["name"]) for key in order)]
    lines = []
    for a in order:
        cells = "".join(
            "<td>·</td>" if a == b else f'<td><a href="#{_pair(order, a, b)}">{_sign(tables, a, b)}</a></td>' for b in order
        )
        lines.append(f'<tr><th scope="row">{entry_link(rows[a])}</th>{cells}</tr>')
    matrix = table(f"{track['id']}: the row against the column", heads, f"<tbody>{''.join(lines)}</tbody>", "matrix")
    pairs = "".join(_pair_section(_pair(order, a, b), rows[a], rows[b], tasks, tables) for a, b in combinations(order, 2))
    body = (
        "<p>Cells count the tasks on which the row’s entry is better / tied / worse than the column’s: paired t tests at 5 %, "
        "under the same seeds, not adjusted for the number of pairs. Follow a cell to the differences.</p>"
        f"{matrix}{pairs}"
    )
    return page(f"Compare entries of {track['id']}", body, board)


def _pair(order: Sequence[str], a: str, b: str) -> str:
    """The anchor of a pair on the page, in the order of the matrix."""
    first, second = sorted((a, b), key=order.index)
    return f"{text(first[:12])}-{text(second[:12])}"


def _paired(rows: Record, a: str, b: str) -> tuple[Values, Values] | None:
    if a not in rows or b not in rows:
        return None
    first, second = rows[a]["values"], rows[b]["values"]
    n = min(len(first), len(second))
    return first[:n], second[:n]


def _outcome(first: Values, second: Values) -> str:
    if paired_p_value(first, second) > LEVEL:
        return "tie"
    return "better" if first.mean() > second.mean() else "worse"


def _sign(tables: Sequence[Record], a: str, b: str) -> str:
    pairs = [pair for pair in (_paired(rows, a, b) for rows in tables) if pair is not None]
    found = [_outcome(*pair) for pair in pairs]
    return "/".join(str(found.count(kind)) for kind in ("better", "tie", "worse")) if found else "–"


def _pair_section(name: str, first: Record, second: Record, tasks: Sequence[Record], tables: Sequence[Record]) -> str:
    lines = []
    for task, rows in zip(tasks, tables):
        pair = _paired(rows, first["artefact"], second["artefact"])
        if pair is None:
            continue
        scores = [rows[row["artefact"]]["score"] for row in (first, second)]
        means = ["–" if score is None else minus(f"{score['mean']:.3f}") for score in scores]
        difference = difference_text(interval(paired_interval(*pair)))
        lines.append(
            f'<tr><th scope="row">{text(task["name"])}</th><td class="number">{means[0]}</td><td class="number">{means[1]}</td>'
            f'<td class="number">{difference}<small>{len(pair[0])} replications</small></td>'
            f"<td>{VERDICTS[_outcome(*pair)]}</td></tr>"
        )
    if not lines:
        return ""
    label = f"{first['name']} against {second['name']}"
    heads = ["Task", text(first["name"]), text(second["name"]), "Difference of objectives", "First against second"]
    body = table(label, heads, f"<tbody>{''.join(lines)}</tbody>")
    return f'<section id="{name}"><h2>{text(label)}</h2>{body}</section>'
