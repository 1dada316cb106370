"""Texts and pictures of the design of a graph: the matrix p of the last period, and the servers' queues by type."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.rendering import BLUE, CARD, INK, MUTED, PALE_BLUE, Canvas, cut, number, text_bar

HEIGHT, WIDTH, COLUMNS = 480, 720, 79
TYPES, KINDS = 8, 6  # types of servers and of dispatchers that are shown
LEVELS = 6  # of q


class Scene(NamedTuple):
    """What both render modes show of row 0 of the state."""

    name: str
    elapsed_time: float
    rho: float
    tasks: float  # per server, of those counted by the levels of q
    bound: float | None  # minus tasks per server
    design: NDArray[np.float64]  # (K, M) p
    q: NDArray[np.float64]  # (M, levels)
    rates: list[float]


def scene(instance: Any, state: Any, bound: float | None) -> Scene:
    """Read row 0 of `state`."""
    q = state.occupancy[0].reshape(instance.n_types, -1)
    return Scene(
        name=instance.name,
        elapsed_time=float(state.elapsed_time[0]),
        rho=float(state.rho[0]),
        tasks=float(instance.server_fractions @ q.sum(1)),
        bound=bound,
        design=state.design[0].reshape(instance.compatibility.shape),
        q=q,
        rates=instance.service_rates.tolist(),
    )


def draw(instance: Any, state: Any, render_mode: str, *, bound: float | None = None) -> str | NDArray[np.uint8]:
    """Row 0 of `state` as a text ("ansi") or as a (480, 720, 3) picture ("rgb_array"); `bound` is shown if it is given."""
    shown = scene(instance, state, bound)
    return text(shown) if render_mode == "ansi" else picture(shown)


def text(shown: Scene) -> str:
    """At most 80 columns of plain Unicode."""
    kinds, types = shown.design.shape
    limit = "" if shown.bound is None else f" (bound {number(-shown.bound)})"
    lines = [
        shown.name[:COLUMNS],
        f"time {number(shown.elapsed_time)}   rho(p) {number(shown.rho)}   tasks per server {number(shown.tasks)}{limit}",
        "─" * COLUMNS,
        f"{'p':<16}" + "".join(f"{'type ' + str(m):>8}" for m in range(min(types, 7))),
    ]
    for k in range(min(kinds, KINDS)):
        lines.append(f"{'dispatchers ' + str(k):<16}" + "".join(f"{p:>8.3f}" for p in shown.design[k, :7]))
    lines += ["─" * COLUMNS, f"{'servers':<10}{'rate':>7}   share with a task"]
    for m in range(min(types, TYPES)):
        busy = float(shown.q[m, 0])
        lines.append(f"{'type ' + str(m):<10}{number(shown.rates[m]):>7}   │{text_bar(busy, 40)}│{busy:>7.1%}")
    if types > 7 or kinds > KINDS:
        lines.append(f"… of {types} types of servers and {kinds} of dispatchers")
    return "\n".join(lines)


def picture(shown: Scene) -> NDArray[np.uint8]:
    """A dashboard: header, the matrix p, q by type."""
    canvas = Canvas(HEIGHT, WIDTH)
    canvas.text(18, 20, cut(f"Design of a graph · {shown.name}", WIDTH - 40), MUTED)
    canvas.card(16, 38, 220, 62, "Time", number(shown.elapsed_time))
    canvas.card(250, 38, 220, 62, "rho(p), stable below 1", number(shown.rho))
    caption = "Tasks per server" if shown.bound is None else f"Tasks/server (≥ {number(-shown.bound)})"
    canvas.card(484, 38, 220, 62, caption, number(shown.tasks))

    kinds, types = (min(size, limit) for size, limit in zip(shown.design.shape, (KINDS, TYPES)))
    canvas.rectangle(16, 112, 688, 176, CARD, 8)
    canvas.text(32, 130, "Edge probabilities p, dispatcher types by server types", MUTED)
    height, width = 140 / max(kinds, 3), 560 / types
    for k in range(kinds):
        y = 146 + height * k
        canvas.text(32, y + height / 2, f"dispatchers {k}", INK)
        for m in range(types):
            p = float(shown.design[k, m])
            red, green, blue = (round(light + p * (dark - light)) for light, dark in zip(CARD, BLUE))
            canvas.rectangle(130 + width * m, y + 2, width - 4, height - 4, (red, green, blue), 3)
            ink = CARD if p > 0.5 else INK
            canvas.text(130 + width * (m + 0.5) - 2, y + height / 2, f"{p:.2f}", ink, align="centre")

    canvas.rectangle(16, 300, 688, 168, CARD, 8)
    canvas.text(32, 318, f"Servers with at least 1..{LEVELS} tasks", MUTED)
    step = 140 / max(types, 3)
    for m in range(types):
        y = 330 + step * (m + 0.5)
        canvas.text(32, y, f"rate {number(shown.rates[m])}", INK)
        for level in range(LEVELS):
            share = float(shown.q[m, level])
            canvas.bar(130 + 95 * level, y - 5, 84, 10, share, BLUE if share else PALE_BLUE)
    return canvas.image()
