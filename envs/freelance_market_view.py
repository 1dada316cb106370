"""Texts and pictures of freelance markets: waiting jobs by type, hours used by skill, running score."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.rendering import (
    AMBER,
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
ROWS = 12
COLUMNS = 79


class Scene(NamedTuple):
    """What both render modes show of row 0 of the state."""

    name: str
    kind: str
    epoch: int
    completed: int
    backlog: int
    rate: float  # reward per epoch since the reset
    share: float | None  # of the bound
    bound: float | None
    jobs: NDArray[np.int64]  # (N,) waiting
    arrivals: NDArray[np.int64]  # (N,)
    granted: NDArray[np.int64]  # (N,) tasks or jobs of the last epoch
    used: NDArray[np.float64]  # (S,) hours used in the last epoch
    hours: NDArray[np.float64]  # (S,) hours of this one

    @property
    def percentage(self) -> str:
        """The score against the bound."""
        return "-" if self.share is None else f"{self.share:.1%}" if abs(self.share) < 9.995 else ">999%"

    def types(self, limit: int) -> tuple[list[int], str]:
        """Job types to show in at most `limit` rows, and a line about those left out ("" if none)."""
        if len(self.jobs) <= limit:
            return list(range(len(self.jobs))), ""
        kept = shown_rows(self.jobs, limit - 1)
        return kept, f"{len(self.jobs) - len(kept)} more types, {count(int(self.jobs.sum() - self.jobs[kept].sum()))} jobs"

    def skills(self, limit: int) -> list[int]:
        """Skills to show: the most used."""
        return shown_rows(np.rint(self.used).astype(np.int64), limit)


def scene(instance: Any, state: Any, bound: float | None) -> Scene:
    """Read row 0 of `state`."""
    epochs, total = int(state.elapsed_time[0]), float(state.total_reward[0])
    rate = total / epochs if epochs else 0.0
    width = instance.n_skills if instance.decomposable else 1
    return Scene(
        name=instance.name,
        kind=instance.kind,
        epoch=epochs,
        completed=int(state.completed[0]),
        backlog=int(state.backlog[0]),
        rate=rate,
        share=rate / bound if bound is not None and bound > 0 else None,
        bound=bound,
        jobs=state.jobs[0],
        arrivals=state.arrivals[0],
        granted=state.allocation[0].reshape(-1, instance.n_types, width).sum((0, 2)),
        used=state.used[0].reshape(instance.n_categories, -1).sum(0),
        hours=state.hours[0].reshape(instance.n_categories, -1).sum(0),
    )


def draw(instance: Any, state: Any, render_mode: str, *, bound: float | None = None) -> str | NDArray[np.uint8]:
    """Row 0 of `state` as a text ("ansi") or as a (480, 720, 3) picture ("rgb_array").

    `bound` is an upper bound on the reward per epoch; the score against it is shown if it is given.
    """
    shown = scene(instance, state, bound)
    return text(shown) if render_mode == "ansi" else picture(shown)


def text(shown: Scene) -> str:
    """At most 80 columns of plain Unicode."""
    kept, hidden = shown.types(ROWS)
    end = scale_for(int(shown.jobs.max()))
    lines = [
        f"{shown.name[:40]} ({shown.kind})",
        f"epoch {count(shown.epoch)}   completed {count(shown.completed)}   waiting {count(shown.backlog)}",
        f"reward/epoch {number(shown.rate)}",
    ]
    if shown.share is not None and shown.bound is not None:
        lines[-1] += f" = {shown.percentage} of bound {number(shown.bound)}  │{text_bar(shown.share, 20)}│"
    lines += ["─" * COLUMNS, f"{'jobs waiting by type':<42}{'granted last':>18}{'arriving now':>18}"]
    for j in kept:
        bar = f"{j:>5} │{text_bar(shown.jobs[j] / end, 22)}│{count(int(shown.jobs[j])):>12}"
        lines.append(bar + f"{count(int(shown.granted[j])):>18}{count(int(shown.arrivals[j])):>18}")
    if hidden:
        lines.append(f"    … {hidden}")
    lines.append("─" * COLUMNS)
    hours = [f"{s}: {number(shown.used[s])} / {number(shown.hours[s])}" for s in shown.skills(3)]
    lines.append(f"skills, hours used last / there now   {'   '.join(hours)}"[:COLUMNS])
    return "\n".join(lines)


def picture(shown: Scene) -> NDArray[np.uint8]:
    """A dashboard: header, waiting jobs of each type, hours of each skill."""
    canvas = Canvas(HEIGHT, WIDTH)
    canvas.text(18, 20, cut(f"Freelance market {shown.kind} · {shown.name}", WIDTH - 40), MUTED)
    canvas.card(16, 38, 163, 62, "Epoch", count(shown.epoch))
    canvas.card(191, 38, 163, 62, "Completed jobs", count(shown.completed))
    canvas.card(366, 38, 163, 62, "Waiting jobs", count(shown.backlog))
    canvas.card(541, 38, 163, 62, "Of bound" if shown.bound is None else f"Of bound {number(shown.bound)}", shown.percentage)
    if shown.share is not None:
        canvas.bar(642, 75, 50, 10, shown.share, GREEN)

    canvas.rectangle(16, 112, 440, 352, CARD, 8)
    canvas.text(32, 130, "Waiting jobs by type", MUTED)
    canvas.text(360, 130, "Granted", MUTED, align="right")
    canvas.text(440, 130, "Arriving", MUTED, align="right")
    kept, hidden = shown.types(ROWS)
    pitch = min(300 / (len(kept) + bool(hidden)), 44)
    end = scale_for(int(shown.jobs.max()))
    thickness = 2 * round(min(9, 0.3 * pitch))
    for k, j in enumerate(kept):
        y = 156 + k * pitch
        canvas.text(32, y, f"Type {j}", INK)
        canvas.bar(92, y - thickness / 2, 120, thickness, shown.jobs[j] / end, BLUE if shown.jobs[j] else PALE_BLUE)
        canvas.text(292, y, count(int(shown.jobs[j])), INK if shown.jobs[j] else MUTED, align="right")
        canvas.text(360, y, count(int(shown.granted[j])), INK, align="right")
        canvas.text(440, y, count(int(shown.arrivals[j])), INK, align="right")
    if hidden:
        canvas.text(32, 156 + len(kept) * pitch, hidden, MUTED)

    canvas.rectangle(468, 112, 236, 352, CARD, 8)
    canvas.text(484, 130, "Hours used last / there now", MUTED)
    skills = shown.skills(ROWS)
    pitch = min(300 / len(skills), 44)
    most = max(float(shown.hours.max()), float(shown.used.max()), 1e-9)
    for k, s in enumerate(skills):
        y = 156 + k * pitch
        canvas.text(484, y, f"Skill {s}", INK)
        canvas.bar(540, y - thickness / 2, 60, thickness, shown.used[s] / most, AMBER)
        canvas.text(690, y, f"{number(shown.used[s])} / {number(shown.hours[s])}", INK, align="right")
    return canvas.image()
