"""What all pages share: the frame with its navigation, and numbers for people. No scripts, no outside resources."""

from collections.abc import Mapping
from html import escape
from typing import Any

Record = dict[str, Any]

KINDS = {"baseline": "baseline", "optimum": "exact optimum", "informed": "told hidden rewards", "agent": "submitted"}
VERDICTS = {"best": "★ best baseline", "better": "▲ better", "tie": "= tie", "worse": "▼ worse"}
STATES = {
    "verified": "verified on fresh seeds",
    "provisional": "provisional: first or better on the season’s seeds, not confirmed on fresh ones",
    "measured": "measured on the season’s seeds",
    "unstable": "unstable: its backlog grows",
    "quarantined": "quarantined: above the certified bound",
}
MARKDOWN = set("\\`*_{}[]<>()#!|~&@:/")  # characters that Markdown or what renders it may take for more than text
CHART = "\0"  # marks the head of a column of bars
NAVIGATION = {
    "index.html": "Board",
    "tasks.html": "Tasks",
    "changes.html": "Changes",
    "rules.html": "Rules",
    "ranks.html": "How to read ranks",
}


def markdown(name: str) -> str:
    """A name that a stranger gave, as plain text in Markdown."""
    return "".join(f"\\{c}" if c in MARKDOWN else c if c.isprintable() else "?" for c in name)


def page(title: str, body: str, board: Record, here: str = "", depth: int = 0) -> str:
    """A whole page; `here` is its place in the navigation, `depth` how many folders it lies in."""
    up = "../" * depth
    links = "".join(
        f'<li><a href="{up}{name}"{" aria-current=" + chr(34) + "page" + chr(34) if name == here else ""}>{label}</a></li>'
        for name, label in NAVIGATION.items()
    )
    season = board["season"]
    quick = '<p class="alarm">A quick board: short simulations to try things out, not results.</p>' if season["quick"] else ""
    versions = ", ".join(f"{part} {text(board[f'{part}_version'])}" for part in ("suite", "scorer", "package"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'">
<title>{text(title)} · matchgym leaderboard</title>
<link rel="stylesheet" href="{up}style.css">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<p class="name">matchgym leaderboard</p>
<nav aria-label="Pages"><ul>{links}</ul></nav>
</header>
<main id="main">
<h1>{text(title)}</h1>
{quick}
{body}
</main>
<footer>
<p>Season {text(season["name"])}, {versions}; {text(board["records"])} records, the last with sha256
<code>{text(board["head"])}</code>. Everything here follows from <a href="{up}records.jsonl">records.jsonl</a>; derived numbers
are in <a href="{up}board.json">board.json</a>. <code>matchgym leaderboard verify</code> checks every digest, proves every bound
anew in exact arithmetic, derives every number anew and replays rows bit for bit.</p>
</footer>
</body>
</html>
"""


def text(value: object) -> str:
    """Anything as HTML text."""
    return escape(str(value))


def decimals(half: float) -> int:
    """Decimals that show two significant digits of a half-width, 0 to 6."""
    if half <= 0:
        return 0
    return min(6, max(0, 1 - int(f"{half:.1e}".partition("e")[2])))


def minus(number: str) -> str:
    """A number with a typographic minus sign, and no sign on zero."""
    return number.replace("-", "−")


def plus_minus(found: Record, sign: str = "") -> str:
    """An interval as "mean ± half-width", with two significant digits of the half-width."""
    half = (found["high"] - found["low"]) / 2
    if half == 0:
        return minus(f"{found['mean']:{sign}.6g}")
    digits = decimals(half)
    return minus(f"{found['mean']:{sign},.{digits}f} ± {half:,.{digits}f}")


def score_text(score: Record | None) -> str:
    """A score for people, with three decimals where they mean something."""
    if score is None:
        return "–"
    if score["low"] is None:
        return minus(f"{score['mean']:g}")
    mean, half = score["mean"], (score["high"] - score["low"]) / 2
    digits = min(3, decimals(half)) if half >= 0.1 else 3
    return "0" if mean == half == 0 else minus(f"{mean:,.{digits}f} ± {half:,.{digits}f}")


def ranks_text(ranks: list[int]) -> str:
    low, high = ranks
    return str(low) if low == high else f"{low}–{high}"


def difference_text(found: Record) -> str:
    return "identical values" if found["low"] == found["high"] == 0 else plus_minus(found, "+")


def entry_link(row: Record, depth: int = 0) -> str:
    """The name of a row as a link to the page of its artefact."""
    return f'<a href="{"../" * depth}entries/{text(row["artefact"][:16])}.html">{text(row["name"])}</a>'


def table(label: str, heads: list[str], bodies: str, kind: str = "") -> str:
    """A table that scrolls within its region on narrow screens; a head that starts with CHART is a picture."""
    cells = "".join(
        f'<th scope="col" class="chart">{head[1:]}</th>' if head.startswith(CHART) else f'<th scope="col">{head}</th>'
        for head in heads
    )
    return (
        f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0"><table class="{kind}">'
        f'<caption class="hidden">{text(label)}</caption><thead><tr>{cells}</tr></thead>{bodies}</table></div>'
    )


def facts(items: Mapping[str, str]) -> str:
    """A list of terms and what they are, already as HTML."""
    return "<dl>" + "".join(f"<dt>{text(key)}</dt><dd>{value}</dd>" for key, value in items.items()) + "</dl>"


def legend() -> str:
    marks = "".join(f'<li><span class="swatch {kind}"></span>{text(name)}</li>' for kind, name in KINDS.items())
    return f'<ul class="legend" aria-label="Colours of the bars">{marks}</ul>'
