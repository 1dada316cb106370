"""The map of Euclidean matching: waiting suppliers, the arriving customer, and the last match; texts as for any network."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.rendering import AMBER, BLUE, CARD, FAINT, GREEN, INK, MUTED, PALE_BLUE, TRACK, Canvas, count, cut, number
from matchgym.envs.stationary_matching_view import HEIGHT, WIDTH, Scene, scene, text

LEFT, TOP, SIDE = 32, 56, 400  # of the map
PANEL = 464  # left edge of the cards
LARGEST_DOT = 22.0
GRID = 4  # parts of each side


def draw(instance: Any, state: Any, render_mode: str, *, bound: float | None = None) -> str | NDArray[np.uint8]:
    """Row 0 of `state` as a text ("ansi") or as a (480, 720, 3) picture ("rgb_array").

    `bound` is an upper bound on the reward per unit of time; the score against it is shown if it is given.
    """
    shown = scene(instance, state, bound)
    return text(shown) if render_mode == "ansi" else picture(instance, shown)


def spot(location: NDArray[np.float64]) -> tuple[float, float]:
    """The pixel of a place: the first two coordinates, the second upwards; a line lies halfway up."""
    height = float(location[1]) if len(location) > 1 else 0.5
    return LEFT + SIDE * float(location[0]), TOP + SIDE * (1 - height)


def picture(instance: Any, shown: Scene) -> NDArray[np.uint8]:
    """The map on the left, numbers on the right."""
    canvas = Canvas(HEIGHT, WIDTH)
    canvas.text(18, 20, cut(f"{shown.title} · {shown.name}", WIDTH - 40), MUTED)
    _map(canvas, instance, shown)
    _numbers(canvas, instance, shown)
    return canvas.image()


def _map(canvas: Canvas, instance: Any, shown: Scene) -> None:
    canvas.rectangle(LEFT - 16, TOP - 16, SIDE + 32, SIDE + 32, CARD, 8)
    for k in range(GRID + 1):
        at = k * SIDE / GRID
        canvas.line(LEFT, TOP + at, LEFT + SIDE, TOP + at, 1, TRACK)
        canvas.line(LEFT + at, TOP, LEFT + at, TOP + SIDE, 1, TRACK)
    places = [spot(location) for location in instance.supplier_locations]
    unit = LARGEST_DOT / math.sqrt(max(10.0, float(shown.queue.max())))  # the area of a dot grows with the queue
    for (x, y), waiting in zip(places, shown.queue):
        if waiting == 0:
            canvas.circle(x, y, 2.5, FAINT)
    for i in np.argsort(-shown.queue, kind="stable").tolist():  # small dots above large ones
        if shown.queue[i] > 0:
            (x, y), radius = places[i], max(3.0, unit * math.sqrt(float(shown.queue[i])))
            canvas.circle(x, y, radius, GREEN if i == shown.best else PALE_BLUE)
            canvas.circle(x, y, 2.5, BLUE)
    if shown.last_supplier >= 0:
        x, y = spot(instance.customer_locations[shown.last_customer])
        canvas.line(*places[shown.last_supplier], x, y, 3, AMBER)
        canvas.circle(x, y, 4, AMBER)
    x, y = spot(instance.customer_locations[shown.customer])
    if shown.best >= 0:
        canvas.line(x, y, *places[shown.best], 1.5, GREEN)
    canvas.circle(x, y, 8, CARD)
    canvas.circle(x, y, 6, INK)


def _numbers(canvas: Canvas, instance: Any, shown: Scene) -> None:
    width = WIDTH - PANEL - 16
    canvas.card(PANEL, 40, width, 62, "Time", number(shown.elapsed_time))
    canvas.card(PANEL, 110, width, 62, "Decisions", count(shown.decisions))
    canvas.card(PANEL, 180, width, 62, "Reward per time", number(shown.rate))
    if shown.bound is None:
        canvas.card(PANEL, 250, width, 62, "Total reward", number(shown.total_reward))
    else:
        canvas.card(PANEL, 250, width, 62, f"Of bound {number(shown.bound)}", shown.percentage)
    canvas.rectangle(PANEL, 320, width, 152, CARD, 8)
    legend = (
        (INK, f"customer {shown.customer}, arriving"),
        (BLUE, f"{count(int(shown.queue.sum()))} waiting, by area"),
        (GREEN, f"best: {shown.best}, {shown.offer(shown.best)}" if shown.best >= 0 else "nobody worth the way"),
        (AMBER if shown.last_supplier >= 0 else FAINT, _last(shown)),
    )
    for k, (colour, words) in enumerate(legend):
        canvas.circle(PANEL + 18, 344 + 34 * k, 5, colour)
        canvas.text(PANEL + 34, 344 + 34 * k, cut(words, width - 44), MUTED if colour == FAINT else INK)


def _last(shown: Scene) -> str:
    """The last decision in a few words."""
    if shown.last_customer < 0:
        return "no decision yet"
    if shown.last_supplier < 0:
        return f"customer {shown.last_customer} left"
    return f"{shown.last_supplier} → {shown.last_customer}, reward {number(shown.last_reward)}"
