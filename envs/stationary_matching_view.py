"""Texts and pictures of matching with waiting suppliers: queues, arriving customer, last match, running score."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.rendering import (
    AMBER,
    BLUE,
    CARD,
    FAINT,
    GREEN,
    INK,
    MUTED,
    PALE_AMBER,
    PALE_BLUE,
    Canvas,
    count,
    cut,
    number,
    scale_for,
    shown_rows,
    text_bar,
)

HEIGHT, WIDTH = 480, 720
CENTRE_X, CENTRE_Y, RADIUS = 616, 276, 42  # of the customer
PICTURE_ROWS, TEXT_ROWS = 10, 16
COLUMNS = 79


class Scene(NamedTuple):
    """What both render modes show of row 0 of the state."""

    title: str  # of the model
    words: tuple[str, str, str]  # for who waits, who arrives, and what becomes of the latter without a match
    name: str
    elapsed_time: float
    decisions: int
    total_reward: float
    rate: float  # reward per unit of time since the reset
    share: float | None  # of the bound
    bound: float | None
    queue: NDArray[np.int64]  # (I,)
    offers: NDArray[np.float64]  # (I,) reward of each supplier type for the arriving customer
    largest_reward: float  # of the instance
    customer: int
    best: int  # waiting supplier type with the largest positive reward, -1 for none
    last_supplier: int  # -1 for none
    last_customer: int  # -1 before the first decision
    last_reward: float

    @property
    def last_decision(self) -> str:
        """The last decision in words."""
        if self.last_customer < 0:
            return "none yet"
        if self.last_supplier < 0:
            return f"{self.words[1]} {self.last_customer} {self.words[2]}"
        match = f"{self.words[0]} {self.last_supplier} → {self.words[1]} {self.last_customer}"
        return f"{match}, reward {number(self.last_reward)}"

    @property
    def percentage(self) -> str:
        """The score against the bound, in at most six characters."""
        return "-" if self.share is None else f"{self.share:.1%}" if self.share < 9.995 else ">999%"

    def offer(self, i: int) -> str:
        """The reward that supplier type i brings with the arriving customer; a dash for none."""
        return number(self.offers[i]) if self.offers[i] > 0 else "–"

    def rows(self, limit: int) -> tuple[list[int], str]:
        """Supplier types to show in at most `limit` rows, and a line about those left out ("" if none)."""
        if len(self.queue) <= limit:
            return list(range(len(self.queue))), ""
        kept = shown_rows(self.queue, limit - 1, [self.best] if self.best >= 0 else [])
        hidden = len(self.queue) - len(kept)
        waiting = int(self.queue.sum() - self.queue[kept].sum())
        return kept, f"{hidden} more {'type' if hidden == 1 else 'types'}, {count(waiting)} waiting"


def scene(instance: Any, state: Any, bound: float | None) -> Scene:
    """Read row 0 of `state`."""
    queue, customer = state.queue[0], int(state.customer[0])
    offers = instance.rewards[:, customer]
    available = np.where(queue > 0, offers, 0.0)
    elapsed, total = float(state.elapsed_time[0]), float(state.total_reward[0])
    rate = total / elapsed if elapsed > 0 else 0.0
    last_supplier, last_customer = int(state.last_supplier[0]), int(state.last_customer[0])
    return Scene(
        title=instance.model.replace("_", " ").capitalize(),
        words=instance.words,
        name=instance.name,
        elapsed_time=elapsed,
        decisions=int(state.decisions[0]),
        total_reward=total,
        rate=rate,
        share=rate / bound if bound is not None and bound > 0 else None,
        bound=bound,
        queue=queue,
        offers=offers,
        largest_reward=float(instance.rewards.max()),
        customer=customer,
        best=int(available.argmax()) if available.max() > 0 else -1,
        last_supplier=last_supplier,
        last_customer=last_customer,
        last_reward=float(instance.rewards[last_supplier, last_customer]) if last_supplier >= 0 else 0.0,
    )


def draw(instance: Any, state: Any, render_mode: str, *, bound: float | None = None) -> str | NDArray[np.uint8]:
    """Row 0 of `state` as a text ("ansi") or as a (480, 720, 3) picture ("rgb_array").

    `bound` is an upper bound on the reward per unit of time; the score against it is shown if it is given.
    """
    shown = scene(instance, state, bound)
    return text(shown) if render_mode == "ansi" else picture(shown)


def text(shown: Scene) -> str:
    """At most 80 columns of plain Unicode."""
    kept, hidden = shown.rows(TEXT_ROWS)
    end = scale_for(int(shown.queue.max()))
    lines = [
        shown.name[:36],
        f"time {number(shown.elapsed_time)}   decisions {count(shown.decisions)}   total reward {number(shown.total_reward)}",
        f"reward/time {number(shown.rate)}",
    ]
    if shown.share is not None and shown.bound is not None:
        lines[-1] += f" = {shown.percentage} of bound {number(shown.bound)}  │{text_bar(shown.share, 20)}│"
    lines.append("─" * COLUMNS)
    lines.append(f"{f'waiting {shown.words[0]}s':<46}{f'arriving {shown.words[1]} {shown.customer}: reward':>26}")
    for i in kept:
        filled = text_bar(shown.queue[i] / end, 32)
        line = f"{i:>5} │{filled}│{count(int(shown.queue[i])):>10}  {shown.offer(i):>20}"
        lines.append(line + (" ◀ best" if i == shown.best else ""))
    if hidden:
        lines.append(f"    … {hidden}")
    lines.append("─" * COLUMNS)
    lines.append(f"last decision: {shown.last_decision}")
    return "\n".join(lines)


def picture(shown: Scene) -> NDArray[np.uint8]:
    """A dashboard: header, waiting suppliers linked to the arriving customer, last decision."""
    canvas = Canvas(HEIGHT, WIDTH)
    canvas.text(18, 20, cut(f"{shown.title} · {shown.name}", WIDTH - 40), MUTED)
    _header(canvas, shown)

    canvas.rectangle(16, 112, 688, 304, CARD, 8)
    canvas.text(32, 130, f"Waiting {shown.words[0]}s", MUTED)
    canvas.text(424, 130, "Reward", MUTED, align="right")
    canvas.text(CENTRE_X, 130, f"Arriving {shown.words[1]}", MUTED, align="centre")
    kept, hidden = shown.rows(PICTURE_ROWS)
    n_lines = len(kept) + bool(hidden)
    pitch = min(264 / n_lines, 60)
    top = CENTRE_Y - pitch * (n_lines - 1) / 2
    heights = {i: top + k * pitch for k, i in enumerate(kept)}
    _links(canvas, shown, heights)
    _suppliers(canvas, shown, heights, 2 * round(min(9, 0.24 * pitch)))
    if hidden:
        canvas.text(42, top + (n_lines - 1) * pitch, f"+ {hidden}", MUTED)
    _customer(canvas, shown)

    canvas.rectangle(16, 428, 688, 40, CARD, 8)
    canvas.circle(32, 448, 4, AMBER if shown.last_supplier >= 0 else FAINT)
    canvas.text(42, 448, "Last decision", MUTED)
    canvas.text(148, 448, cut(shown.last_decision, 540))
    return canvas.image()


def _header(canvas: Canvas, shown: Scene) -> None:
    canvas.card(16, 38, 163, 62, "Time", number(shown.elapsed_time))
    canvas.card(191, 38, 163, 62, "Decisions", count(shown.decisions))
    canvas.card(366, 38, 163, 62, "Reward per time", number(shown.rate))
    if shown.share is None or shown.bound is None:
        canvas.card(541, 38, 163, 62, "Total reward", number(shown.total_reward))
    else:
        canvas.card(541, 38, 163, 62, f"Of bound {number(shown.bound)}", shown.percentage)
        canvas.bar(642, 75, 50, 10, shown.share, GREEN)


def _links(canvas: Canvas, shown: Scene, heights: dict[int, float]) -> None:
    """One stroke per compatible type, as thick as its reward; the absent below, the best on top."""
    compatible = [i for i in heights if shown.offers[i] > 0]
    for i in sorted(compatible, key=lambda i: (i == shown.best, shown.queue[i] > 0, shown.offers[i])):
        is_waiting = shown.queue[i] > 0
        width = 1.5 + 6.5 * shown.offers[i] / shown.largest_reward if is_waiting else 1.0
        colour = GREEN if i == shown.best else PALE_BLUE if is_waiting else FAINT
        target = CENTRE_Y + 0.2 * (heights[i] - CENTRE_Y)
        canvas.link(434, heights[i], CENTRE_X - RADIUS + 4, target, width, colour)


def _suppliers(canvas: Canvas, shown: Scene, heights: dict[int, float], thickness: int) -> None:
    """Name, bar, count and reward of each type."""
    end = scale_for(int(shown.queue.max()))
    units = end if end <= 20 else 1
    for i, y in heights.items():
        if i == shown.last_supplier:
            canvas.rectangle(22, y - thickness / 2 - 6, 344, thickness + 12, PALE_AMBER, 6)
            canvas.circle(32, y, 4, AMBER)
        is_best, colour = i == shown.best, INK if shown.queue[i] > 0 else MUTED
        canvas.text(42, y, cut(f"Type {i}", 66), colour)
        bar_colour = GREEN if is_best else BLUE
        canvas.bar(112, y - thickness / 2, 170, thickness, shown.queue[i] / end, bar_colour, units)
        canvas.text(356, y, count(int(shown.queue[i])), colour, align="right")
        canvas.text(424, y, shown.offer(i), GREEN if is_best else colour, align="right")


def _customer(canvas: Canvas, shown: Scene) -> None:
    canvas.circle(CENTRE_X, CENTRE_Y, RADIUS, INK)
    canvas.text(CENTRE_X, CENTRE_Y - 14, "type", FAINT, align="centre")
    canvas.text(CENTRE_X, CENTRE_Y + 8, str(shown.customer), CARD, "large", "centre")
    if shown.best >= 0:
        offer, colour = f"best: type {shown.best}, {shown.offer(shown.best)}", GREEN
    else:
        offer, colour = f"no compatible {shown.words[0]}", MUTED
    canvas.text(CENTRE_X, CENTRE_Y + RADIUS + 20, offer, colour, align="centre")
