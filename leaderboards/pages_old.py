"""The board as one static page: a pure function of board.json and timings.json, without scripts and outside resources."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

from matchgym.leaderboards.charts import axis, bar
from matchgym.leaderboards.theme import STYLE

Record = dict[str, Any]

KINDS = {"baseline": "baseline", "optimum": "exact optimum", "agent": "trained agent"}
VERDICTS = {"best": "★ best baseline", "better": "▲ better", "tie": "= tie", "worse": "▼ worse"}
COLUMNS = ("Tier", "Policy", None, "Score", "Ranks", "Objective", "Against best baseline", "µs / decision")

HOW_TO_READ = """<p><strong>How to read a score.</strong> A score says how far a policy gets from an anchor, 0, to a certified
upper bound, 1, which no policy can exceed and the best one need not reach (a dashed line marks the exact optimum where it is
known). A bar ends at the estimated score, its whisker and every ± are 95 % intervals over independent replications, and all
rows of a task are simulated under the same seeds, so that differences are measured in pairs. Rows of one tier, shaded alike, do
not differ significantly from the first row of the tier, and the true rank lies within the printed ranks with 95 % confidence:
read a tie as a tie.</p>"""


def render(board: Record, timings: Record, digest: str) -> str:
    """index.html; `digest` is the sha256 of board.json."""
    versions = ", ".join(f"{part} {text(board[f'{part}_version'])}" for part in ("suite", "scorer", "package"))
    quick = '<p class="alarm">A quick board: short simulations to try things out, not results.</p>' if board["quick"] else ""
    tasks = "\n".join(_task(task, timings.get(task["name"], {})) for task in board["tasks"])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>matchgym leaderboard</title>
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1>matchgym leaderboard</h1>
<p class="muted">Stochastic matching, scored against certified bounds; {versions}.</p>
{quick}
{HOW_TO_READ}
{_legend()}
</header>
<main>
{_overview(board["tasks"])}
{tasks}
</main>
<footer>
<p>Everything on this page comes from <a href="board.json">board.json</a>, sha256 <code>{text(digest)}</code>, and the measured
times in <a href="timings.json">timings.json</a>. <code>matchgym leaderboard verify</code> proves the bounds anew in exact
arithmetic, derives every number anew and replays rows bit for bit.</p>
</footer>
</body>
</html>
"""


def text(value: object) -> str:
    """Anything as HTML text."""
    return escape(str(value))


def plus_minus(found: Record, sign: str = "") -> str:
    """An interval as "mean ± half-width", with two significant digits of the half-width."""
    half = (found["high"] - found["low"]) / 2
    if half == 0:
        return minus(f"{found['mean']:{sign}.6g}")
    digits = decimals(half)
    return minus(f"{found['mean']:{sign},.{digits}f} ± {half:,.{digits}f}")


def decimals(half: float) -> int:
    """Decimals that show two significant digits of a half-width, 0 to 6."""
    if half <= 0:
        return 0
    return min(6, max(0, 1 - int(f"{half:.1e}".partition("e")[2])))


def minus(number: str) -> str:
    """A number with a typographic minus sign, and no sign on zero."""
    return number.replace("-", "−")


def _legend() -> str:
    marks = "".join(f'<li><span class="swatch {kind}"></span>{text(name)}</li>' for kind, name in KINDS.items())
    return f'<ul class="legend" aria-label="Colours of the bars">{marks}</ul>'


def _overview(tasks: Sequence[Record]) -> str:
    lines = []
    for task in tasks:
        leaders = [row for row in task["rows"] if row["tier"] == 1]
        names = ", ".join(text(row["name"]) for row in leaders) or "–"
        score = _score(leaders[0]) if leaders else "–"
        best = task["optimum"].get("score_lower")
        lines.append(
            f'<tr><th scope="row"><a href="#{text(task["name"])}">{text(task["name"])}</a></th><td class="names">{names}</td>'
            f'<td class="number">{score}</td><td class="number">{"–" if best is None else minus(f"{best:.3f}")}</td>'
            f'<td class="number">{task["bound"]["upper"]:.6g}</td></tr>'
        )
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("Task", "First tier", "Best score", "Optimum’s score", "Certified bound")
    )
    return (
        '<div class="scroll" role="region" aria-label="Overview of the tasks" tabindex="0"><table class="overview">'
        f"<caption>The tasks and who leads them</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _task(task: Record, timings: Record) -> str:
    name = text(task["name"])
    heads = "".join(
        f'<th scope="col" class="chart">{axis(task)}</th>' if head is None else f'<th scope="col">{head}</th>'
        for head in COLUMNS
    )
    sound = [row for row in task["rows"] if not row["is_above_bound"]]
    bodies = [_alarm(row) for row in task["rows"] if row["is_above_bound"]]
    bodies += [_tier(tier, list(rows), task, timings) for tier, rows in groupby(sound, key=lambda row: row["tier"])]
    refused = "".join(
        f'<tr><td class="tier">–</td><th scope="row">{text(row["name"])}</th>'
        f'<td colspan="6" class="muted reason">not evaluated: {text(row["reason"])}</td></tr>'
        for row in task["refused"]
    )
    if refused:
        bodies.append(f'<tbody class="refused">{refused}</tbody>')
    return f"""<section id="{name}" aria-labelledby="{name}-title">
<h2 id="{name}-title">{name}</h2>
<p>{text(task["note"])}</p>
<div class="scroll" role="region" aria-label="Results on {name}" tabindex="0">
<table>
<caption class="hidden">Policies on {name}, best score first</caption>
<thead><tr>{heads}</tr></thead>
{"".join(bodies)}
</table>
</div>
{_facts(task)}
</section>"""


def _tier(tier: int, rows: Sequence[Record], task: Record, timings: Record) -> str:
    lines = []
    for k, row in enumerate(rows):
        first = f'<th scope="rowgroup" class="tier" rowspan="{len(rows)}">{text(tier)}</th>' if k == 0 else ""
        lines.append(f"<tr>{first}{_cells(row, task, timings)}</tr>")
    return f'<tbody class="{"odd" if tier % 2 else "even"}">{"".join(lines)}</tbody>'


def _cells(row: Record, task: Record, timings: Record) -> str:
    low, high = (text(rank) for rank in row["ranks"])
    ratio = "" if row["ratio"] is None else f"<small>{row['ratio']:.1%} of the bound</small>"
    difference = "" if row["difference"] is None else f"<small>{_difference(row['difference'])}</small>"
    verdict = row["verdict"] or ""
    time = timings.get(row["name"])
    return (
        f'<th scope="row">{text(row["name"])}{_about(row)}</th>'
        f'<td class="chart">{bar(row, task, _score(row))}</td>'
        f'<td class="number">{_score(row)}{ratio}</td>'
        f'<td class="number">{low if low == high else f"{low}–{high}"}</td>'
        f'<td class="number">{plus_minus(row["objective"])}<small>batch means ± {_half_width(row)}</small></td>'
        f'<td class="number {text(verdict)}">{VERDICTS.get(verdict, "")}{difference}</td>'
        f'<td class="number">{"–" if time is None else f"{time:#.3g}".rstrip(".")}</td>'
    )


def _difference(found: Record) -> str:
    return "identical values" if found["low"] == found["high"] == 0 else plus_minus(found, "+")


def _half_width(row: Record) -> str:
    half = row["batch_means_half_width"]
    return f"{half:,.{decimals(half)}f}"


def _score(row: Record) -> str:
    if row["score"] is None:
        return "–"
    mean, half = row["score"]["mean"], (row["score"]["high"] - row["score"]["low"]) / 2
    digits = min(3, decimals(half)) if half >= 0.1 else 3
    return "0" if mean == half == 0 else minus(f"{mean:,.{digits}f} ± {half:,.{digits}f}")


def _about(row: Record) -> str:
    about = row["about"]
    return "" if about is None else f"<small>{text(about['algorithm'])}, {about['training_steps']:,} steps</small>"


def _training(row: Record) -> str:
    about = row["about"]
    return (
        f"{text(row['name'])}: {text(about['algorithm'])}, {about['training_steps']:,} steps, training seed "
        f"{text(about['training_seed'])}, model.zip sha256 <code>{text(about['model_sha256'])}</code>"
    )


def _alarm(row: Record) -> str:
    return (
        f'<tbody class="alarm"><tr><td class="tier">!</td><th scope="row">{text(row["name"])}{_about(row)}</th>'
        f'<td colspan="6">ABOVE BOUND: {plus_minus(row["objective"])} exceeds the certified bound by more than four '
        "standard errors, which no policy can: a bug in matchgym; the row takes no part in comparisons.</td></tr></tbody>"
    )


def _facts(task: Record) -> str:
    name, bound, optimum = text(task["name"]), task["bound"], task["optimum"]
    if "refused" in optimum:
        best = f"not known: {text(optimum['refused'])}"
    else:
        digest = text(optimum["certificate_sha256"])
        best = f"between {text(optimum['lower'])} and {text(optimum['upper'])}; certificate sha256 <code>{digest}</code>"
    policy = next((row["name"] for row in task["rows"] if row["kind"] == "baseline"), task["anchor"])
    command = (
        f"matchgym evaluate {task['id']} --instance {task['instance']} --policy {policy} --replications {task['replications']} "
        f"--warmup {task['warmup']} --decisions {task['decisions']} --seed {task['seed']}"
    )
    facts = {
        "Environment": f"{text(task['id'])}, instance {text(task['instance'])}, sha256 <code>{text(task['sha256'])}</code>",
        "Score 0": f"{text(task['anchor'])}, {task['anchor_mean']:.6g} per unit of time",
        "Score 1": f"{text(bound['kind'])}, certified value {text(bound['upper'])}; "
        f'<a href="certificates/{name}.json">certificate</a> sha256 <code>{text(bound["certificate_sha256"])}</code>',
        "Exact optimum": best,
        "Simulation": f"{task['replications']:,} replications of {task['warmup']:,} warm-up and {task['decisions']:,} counted "
        f"decisions, replication b seeded with {text(task['seed'])} + b",
        "Replay a row": f"<pre>{text(command)}</pre>",
    }
    agents = [_training(row) for row in task["rows"] if row["about"] is not None]
    if agents:
        facts["Trained agents"] = "<br>".join(agents)
    items = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in facts.items())
    return f"<details><summary>Instance, bound, seeds and how to replay</summary><dl>{items}</dl></details>"
