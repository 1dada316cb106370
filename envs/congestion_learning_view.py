"""Texts and pictures of congestion-aware learning: queues, what is known of each pair, running score."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.rendering import (
    BLUE,
    CARD,
    GREEN,
    INK,
    MUTED,
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
PICTURE_ROWS, TEXT_ROWS, TYPES = 12, 16, 4
COLUMNS = 79


class Scene(NamedTuple):
    """What both render modes show of row 0 of the state."""

    name: str
    slot: int
    horizon: int
    total_reward: float
    rate: float  # reward per slot since the reset
    share: float | None  # of the bound
    bound: float | None
    queue: NDArray[np.int64]  # (J,)
    served: NDArray[np.int64]  # (I, J)
    mean: NDArray[np.float64]  # (I, J)
    arrivals: NDArray[np.int64]  # (I,)
    who: str  # whose jobs they are: "type" or "client"

    @property
    def jobs(self) -> str:
        """This slot's jobs in words."""
        kinds = [f"{count(int(n))} of {self.who} {i}" for i, n in enumerate(self.arrivals) if n > 0]
        return ", ".join(kinds[:5]) + (", ..." if len(kinds) > 5 else "") or "none"

    @property
    def percentage(self) -> str:
        """The score against the bound."""
        return "-" if self.share is None else f"{self.share:.1%}" if self.share < 9.995 else ">999%"

    def rows(self, limit: int) -> tuple[list[int], str]:
        """Servers to show in at most `limit` rows, and a line about those left out ("" if none)."""
        if len(self.queue) <= limit:
            return list(range(len(self.queue))), ""
        kept = shown_rows(self.queue, limit - 1)
        return kept, f"{len(self.queue) - len(kept)} more servers, {count(int(self.queue.sum() - self.queue[kept].sum()))} jobs"

    def estimate(self, i: int, j: int) -> str:
        """The mean reward of a pair and the number of jobs behind it."""
        return f"{number(self.mean[i, j])} ({count(int(self.served[i, j]))})" if self.served[i, j] else "–"


def scene(instance: Any, state: Any, bound: float | None, who: str = "type") -> Scene:
    """Read row 0 of `state`."""
    shape, slots, total = (state.arrivals.shape[1], -1), int(state.elapsed_time[0]), float(state.total_reward[0])
    rate = total / slots if slots else 0.0
    return Scene(
        name=instance.name,
        slot=slots,
        horizon=instance.horizon,
        total_reward=total,
        rate=rate,
        share=rate / bound if bound is not None and bound > 0 else None,
        bound=bound,
        queue=state.queue[0],
        served=state.served[0].reshape(shape),
        mean=state.mean[0].reshape(shape),
        arrivals=state.arrivals[0],
        who=who,
    )


def draw(
    instance: Any, state: Any, render_mode: str, *, bound: float | None = None, who: str = "type"
) -> str | NDArray[np.uint8]:
    """Row 0 of `state` as a text ("ansi") or as a (480, 720, 3) picture ("rgb_array").

    `bound` is an upper bound on the reward per slot; the score against it is shown if it is given.
    """
    shown = scene(instance, state, bound, who)
    return text(shown) if render_mode == "ansi" else picture(shown)


def text(shown: Scene) -> str:
    """At most 80 columns of plain Unicode."""
    kept, hidden = shown.rows(TEXT_ROWS)
    end, types = scale_for(int(shown.queue.max())), range(min(2, len(shown.arrivals)))
    lines = [
        shown.name[:36],
        f"slot {count(shown.slot)} of {count(shown.horizon)}   total reward {number(shown.total_reward)}",
        f"reward/slot {number(shown.rate)}",
    ]
    if shown.share is not None and shown.bound is not None:
        lines[-1] += f" = {shown.percentage} of bound {number(shown.bound)}  │{text_bar(shown.share, 20)}│"
    lines.append("─" * COLUMNS)
    lines.append(f"{'jobs waiting at each server':<40}" + "".join(f"{f'mean of {shown.who} {i}':>19}" for i in types))
    for j in kept:
        bar = f"{j:>5} │{text_bar(shown.queue[j] / end, 22)}│{count(int(shown.queue[j])):>10}"
        lines.append(bar + "".join(f"{shown.estimate(i, j):>19}" for i in types))
    if hidden:
        lines.append(f"    … {hidden}")
    lines.append("─" * COLUMNS)
    lines.append(f"jobs to be sent: {shown.jobs}"[:COLUMNS])
    return "\n".join(lines)


def picture(shown: Scene) -> NDArray[np.uint8]:
    """A dashboard: header, queues with the estimates of each pair, this slot's jobs."""
    canvas = Canvas(HEIGHT, WIDTH)
    canvas.text(18, 20, cut(f"Congestion and learning · {shown.name}", WIDTH - 40), MUTED)
    canvas.card(16, 38, 163, 62, "Slot", f"{count(shown.slot)} / {count(shown.horizon)}")
    canvas.card(191, 38, 163, 62, "Total reward", number(shown.total_reward))
    canvas.card(366, 38, 163, 62, "Reward per slot", number(shown.rate))
    canvas.card(541, 38, 163, 62, "Of bound" if shown.bound is None else f"Of bound {number(shown.bound)}", shown.percentage)
    if shown.share is not None:
        canvas.bar(642, 75, 50, 10, shown.share, GREEN)

    canvas.rectangle(16, 112, 688, 304, CARD, 8)
    types = list(range(min(TYPES, len(shown.arrivals))))
    columns = [690 - 100 * (len(types) - 1 - k) for k in range(len(types))]
    canvas.text(32, 130, "Waiting · mean (served)", MUTED)
    for i, x in zip(types, columns):
        canvas.text(x, 130, f"{shown.who.capitalize()} {i}", MUTED, align="right")
    kept, hidden = shown.rows(PICTURE_ROWS)
    pitch = min(260 / (len(kept) + bool(hidden)), 44)
    right = (columns[0] if columns else 690) - 110
    end = scale_for(int(shown.queue.max()))
    best = {i: int(shown.mean[i].argmax()) for i in types if shown.mean[i].max() > 0}
    for k, j in enumerate(kept):
        y = 156 + k * pitch
        thickness = 2 * round(min(9, 0.3 * pitch))
        canvas.text(32, y, cut(f"Server {j}", 70), INK)
        canvas.bar(104, y - thickness / 2, right - 164, thickness, shown.queue[j] / end, BLUE if shown.queue[j] else PALE_BLUE)
        canvas.text(right - 10, y, count(int(shown.queue[j])), INK if shown.queue[j] else MUTED, align="right")
        for i, x in zip(types, columns):
            canvas.text(x, y, shown.estimate(i, j), GREEN if best.get(i) == j else INK, align="right")
    if hidden:
        canvas.text(32, 156 + len(kept) * pitch, hidden, MUTED)

    canvas.rectangle(16, 428, 688, 40, CARD, 8)
    canvas.text(32, 448, "Jobs to be sent", MUTED)
    canvas.text(148, 448, cut(shown.jobs, 540))
    return canvas.image()
