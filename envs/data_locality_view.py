"""Texts and pictures of load balancing with data locality: servers by type, the waiting task and what it may choose from."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.rendering import (
    AMBER,
    BLUE,
    CARD,
    INK,
    MUTED,
    PALE_BLUE,
    Canvas,
    count,
    cut,
    number,
    scale_for,
    text_bar,
)

HEIGHT, WIDTH, COLUMNS = 480, 720, 79
TYPES, OFFERS = 6, 5  # rows of a picture or text


class Group(NamedTuple):
    """The servers of one type."""

    name: str
    rate: float
    size: int
    mean: float  # tasks per server
    busy: float  # share of servers with a task


class Scene(NamedTuple):
    """What both render modes show of row 0 of the state."""

    name: str
    elapsed_time: float
    decisions: int
    response_time: float  # mean per task placed
    tasks: float  # in the system, per server
    bound: float | None  # minus tasks per server
    groups: list[Group]
    dispatcher: str
    offers: list[tuple[str, int]]  # servers drawn, or classes, with their tasks

    @property
    def hidden(self) -> str:
        """A line about types that are not shown."""
        left = len(self.groups) - TYPES
        return f"{left} more {'type' if left == 1 else 'types'} of servers" if left > 0 else ""


def expected_tasks(lengths: NDArray[np.float64], means: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """E (x - D)^+ and P(D < x) for servers with x tasks at some time, D Poisson with the given means since."""
    expected, busy, mass = np.zeros(len(lengths)), np.zeros(len(lengths)), np.exp(-means)
    for left in range(int(lengths.max(initial=0))):
        expected += np.maximum(lengths - left, 0) * mass
        busy += (lengths > left) * mass
        mass = mass * means / (left + 1)
    return expected, busy


def scene(instance: Any, state: Any, bound: float | None) -> Scene:
    """Read row 0 of `state`; servers not seen of late are shown by their expected tasks."""
    now, decisions = float(state.elapsed_time[0]), int(state.decisions[0])
    lengths, ends = state.servers[0].reshape(-1, 2).T
    tasks, busy = lengths, (lengths > 0).astype(float)
    if not state.is_current[0]:
        is_over = ends <= now
        tasks, busy = expected_tasks(lengths - is_over, instance.rates * np.where(is_over, now - ends, 0.0))
    groups, first = [], 0
    for m, (rate, size) in enumerate(zip(instance.service_rates.tolist(), instance.server_counts.tolist())):
        part = slice(first, first + size)
        first += size
        mean, share = (float(each[part].mean()) if size else 0.0 for each in (tasks, busy))
        groups.append(Group(f"type {m}", rate, size, mean, share))
    drawn = state.sampled[0, : int(state.n_sampled[0])].tolist()
    kinds = np.searchsorted(np.cumsum(instance.server_counts), drawn, side="right")
    return Scene(
        name=instance.name,
        elapsed_time=now,
        decisions=decisions,
        response_time=-float(state.total_reward[0]) / decisions if decisions else math.nan,
        tasks=float(tasks.mean()),
        bound=bound,
        groups=groups,
        dispatcher=f"dispatcher {int(state.dispatcher[0])} of type {int(state.dispatcher_type[0])}",
        offers=[
            (f"server {j} of type {m}, rate {number(float(instance.service_rates[m]))}", int(lengths[j]))
            for j, m in zip(drawn, kinds.tolist())
        ],
    )


def draw(instance: Any, state: Any, render_mode: str, *, bound: float | None = None) -> str | NDArray[np.uint8]:
    """Row 0 of `state` as a text ("ansi") or as a (480, 720, 3) picture ("rgb_array"); `bound` is shown if it is given."""
    shown = scene(instance, state, bound)
    return text(shown) if render_mode == "ansi" else picture(shown)


def text(shown: Scene) -> str:
    """At most 80 columns of plain Unicode."""
    end = scale_for(math.ceil(max((group.mean for group in shown.groups), default=1.0)))
    lines = [
        shown.name[:COLUMNS],
        f"time {number(shown.elapsed_time)}   tasks placed {count(shown.decisions)}   "
        f"tasks per server {number(shown.tasks)}" + ("" if shown.bound is None else f" (bound {number(-shown.bound)})"),
        "─" * COLUMNS,
        f"{'servers':<8}{'rate':>9}{'number':>10}{'busy':>8}   tasks per server",
    ]
    for group in shown.groups[:TYPES]:
        head = f"{group.name:<8}{number(group.rate):>9}{count(group.size):>10}{group.busy:>8.0%}   "
        lines.append(head + f"│{text_bar(group.mean / end, 24)}│{number(group.mean):>9}")
    if shown.hidden:
        lines.append(f"… {shown.hidden}")
    lines += ["─" * COLUMNS, f"a task at {shown.dispatcher}"[:COLUMNS]]
    lines += [f"  {name}: {count(tasks)} tasks"[:COLUMNS] for name, tasks in shown.offers[:OFFERS]]
    if len(shown.offers) > OFFERS:
        lines.append(f"  … {len(shown.offers) - OFFERS} more servers drawn")
    return "\n".join(lines)


def picture(shown: Scene) -> NDArray[np.uint8]:
    """A dashboard: header, servers by type, the waiting task."""
    canvas = Canvas(HEIGHT, WIDTH)
    canvas.text(18, 20, cut(f"Data locality · {shown.name}", WIDTH - 40), MUTED)
    canvas.card(16, 38, 163, 62, "Time", number(shown.elapsed_time))
    canvas.card(191, 38, 163, 62, "Tasks placed", count(shown.decisions))
    canvas.card(366, 38, 163, 62, "Response time", number(shown.response_time) if shown.decisions else "-")
    caption = "Tasks per server" if shown.bound is None else f"Tasks/server (≥ {number(-shown.bound)})"
    canvas.card(541, 38, 163, 62, caption, number(shown.tasks))

    canvas.rectangle(16, 112, 688, 196, CARD, 8)
    for x, heading in ((32, "Servers"), (190, "Busy"), (300, "Tasks per server")):
        canvas.text(x, 130, heading, MUTED)
    end = scale_for(math.ceil(max((group.mean for group in shown.groups), default=1.0)))
    for row, group in enumerate(shown.groups[:TYPES]):
        y = 154 + 24 * row
        canvas.text(32, y, cut(f"{count(group.size)} of rate {number(group.rate)}", 150), INK)
        canvas.bar(190, y - 5, 90, 10, group.busy, AMBER)
        canvas.bar(300, y - 6, 320, 12, group.mean / end, BLUE if group.mean else PALE_BLUE)
        canvas.text(690, y, number(group.mean), INK, align="right")
    if shown.hidden:
        canvas.text(32, 298, shown.hidden, MUTED)

    canvas.rectangle(16, 320, 688, 148, CARD, 8)
    canvas.text(32, 338, cut(f"A task at {shown.dispatcher}", 640), MUTED)
    end = scale_for(max((tasks for _, tasks in shown.offers), default=1))
    for row, (name, tasks) in enumerate(shown.offers[:OFFERS]):
        y = 362 + 22 * row
        canvas.text(32, y, cut(name.capitalize(), 260), INK)
        canvas.bar(300, y - 5, 320, 10, tasks / end, BLUE if tasks else PALE_BLUE)
        canvas.text(690, y, count(tasks), INK, align="right")
    return canvas.image()
