"""Bars of scores as inline SVG, all on the same scale."""

from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]

LOW, HIGH = -0.25, 1.0  # scores shown; what lies below ends in an arrow
LEFT, UNIT, MARGIN = 10, 184, 8  # pixels: before LOW, per unit of score, after HIGH
WIDTH = round(LEFT + UNIT * (HIGH - LOW) + MARGIN)
HEIGHT, HEAD = 54, 36


def place(score: float) -> float:
    """The x coordinate of a score, cut to what is shown."""
    return round(LEFT + UNIT * (min(HIGH, max(LOW, score)) - LOW), 2)


def _line(score: float, top: float, bottom: float, kind: str) -> str:
    x = place(score)
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'


def _marks(task: Record, top: float, bottom: float) -> str:
    best = task["optimum"].get("score_lower")
    lines = _line(0, top, bottom, "zero") + _line(1, top, bottom, "one")
    return lines + ("" if best is None else _line(best, top, bottom, "best"))


def axis(task: Record) -> str:
    """The heading of the column of bars: where 0, 1 and the exact optimum are."""
    best = task["optimum"].get("score_lower")
    labels = f'<text x="{place(0)}" y="27" text-anchor="middle">0 anchor</text>'
    labels += f'<text x="{place(1)}" y="27" text-anchor="end">1 bound</text>'
    if best is not None:
        labels += f'<text x="{place(best)}" y="12" text-anchor="middle">optimum {best:.3f}</text>'
    label = "Scale of the bars: 0 is the anchor, 1 the bound" + ("" if best is None else f", {best:.3f} the exact optimum")
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{WIDTH}" height="{HEAD}" viewBox="0 0 {WIDTH} {HEAD}">'
        f"{labels}{_marks(task, 30, HEAD)}</svg>"
    )


def bar(row: Record, task: Record, label: str) -> str:
    """The bar of a row from 0 to its score, with a whisker for the interval; empty without a score."""
    name = escape(f"{row['name']}: score {label}")
    return (
        f'<svg role="img" aria-label="{name}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{_shapes(row)}{_marks(task, 0, HEIGHT)}</svg>"
    )


def _shapes(row: Record) -> str:
    score, middle, kind = row["score"], HEIGHT / 2, escape(row["kind"])
    if score is None:
        return ""
    x, end = sorted((place(0), place(score["mean"])))
    shapes = f'<rect class="{kind}" x="{x}" y="{middle - 6}" width="{round(end - x, 2)}" height="12"/>'
    if score["mean"] < LOW:
        x = place(LOW)
        return shapes + f'<path class="{kind}" d="M{x} {middle - 9}L{x - 7} {middle}L{x} {middle + 9}Z"/>'
    if score["low"] is not None and score["low"] < score["high"]:
        a, b = place(score["low"]), place(score["high"])
        return shapes + (
            f'<path class="whisker" d="M{a} {middle}H{b}M{a} {middle - 5}V{middle + 5}M{b} {middle - 5}V{middle + 5}"/>'
        )
    return shapes + f'<circle class="{kind}" cx="{place(score["mean"])}" cy="{middle}" r="4"/>'


def replications(row: Record, task: Record, scores: NDArray[np.float64]) -> str:
    """The scores of single replications as thin lines around the bar of their mean."""
    ticks = "".join(f"M{place(float(score))} 6V{HEIGHT - 6}" for score in scores)
    label = f"{row['name']} on {task['name']}: {len(scores)} replications"
    head = f'<svg role="img" aria-label="{escape(label)}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
    return f'{head}<path class="ticks" d="{ticks}"/>{_shapes(row)}{_marks(task, 0, HEIGHT)}</svg>'
