"""Learning curves: the points that training measures, and their picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matchgym.baselines import Policy, evaluate
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find


@dataclass(frozen=True)
class CurvePoint:
    """The objective of a policy, estimated by simulation, at one moment of its training."""

    timesteps: int  # environment steps trained so far
    seconds: float  # wall time of the training so far
    mean: float  # objective units: reward per unit of time
    low: float  # 95 % interval over the rows of the simulation
    high: float


def measure(
    policy: Policy,
    env_id: str,
    instance: Any,
    seed: int,
    rows: int,
    warmup: int,
    decisions: int,
    timesteps: int = 0,
    seconds: float = 0.0,
) -> CurvePoint:
    """A point of the learning curve: `matchgym.baselines.evaluate` with `rows` replications, of whole episodes if they end."""
    is_endless = find(env_id).model.episode is None
    skipped, counted = (warmup, decisions) if is_endless else (None, None)
    found = evaluate(policy, env_id, instance, rows, skipped, counted, seed).objective
    return CurvePoint(timesteps, seconds, found.mean, found.low, found.high)


_INK, _MUTED, _LINE = "#1f2933", "#7b8794", "#0b6e99"
_REFERENCES = ("#b7410e", "#2f7d4f", "#7a4fa3", "#9a7b00", "#5b6770")


def draw_curve(
    evaluations: Sequence[CurvePoint],
    path: str | Path,
    lines: Mapping[str, float | None] | None = None,
    title: str = "",
    unit: str = "reward per unit of time",
    final: CurvePoint | None = None,
) -> Path:
    """Draw a learning curve as a PNG: the objective with its 95 % interval against environment steps.

    Parameters
    ----------
    evaluations : the points, as in `TrainingResult.evaluations`.
    path : where to write the PNG.
    lines : horizontal lines to compare with, label -> objective ("LP bound", "exact optimum", "greedy"...).
    title : above the picture.
    unit : label of the vertical axis.
    final : the measurement that the agent's label states; None takes the last point.
    """
    if not evaluations:
        raise InputError("a learning curve needs at least one evaluation; train for longer.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    except ModuleNotFoundError as error:
        raise InputError(f'drawing needs the package {error.name}; install it with: pip install "matchgym[rl]".') from None

    steps = np.array([point.timesteps for point in evaluations], float)
    mean, low, high = (np.array([getattr(point, name) for point in evaluations]) for name in ("mean", "low", "high"))
    references = {label: value for label, value in (lines or {}).items() if value is not None and np.isfinite(value)}

    figure = Figure(figsize=(8, 4.6), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.fill_between(steps, low, high, color=_LINE, alpha=0.18, linewidth=0)
    axes.plot(steps, mean, color=_LINE, linewidth=2, marker="o", markersize=3.5, zorder=3, clip_on=False)

    bottom, top = _limits(mean, low, high, [*references.values(), (final or evaluations[-1]).mean])
    axes.set_ylim(bottom, top)
    axes.set_xlim(0, max(steps[-1], 1.0))
    # Labels stand right of the axes; those that would overlap are pushed apart.
    stated = final or evaluations[-1]
    agent = f"trained agent  {stated.mean:.4g} ± {(stated.high - stated.low) / 2:.1g}"
    labels = [(agent, stated.mean, _LINE)]
    for (label, value), colour in zip(references.items(), _REFERENCES * (1 + len(references) // len(_REFERENCES))):
        axes.axhline(value, color=colour, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
        labels.append((f"{label}  {value:.4g}", value, colour))
    labels.sort(key=lambda entry: entry[1])
    heights = _spread([(value - bottom) / (top - bottom) for _, value, _ in labels], gap=0.058)
    for (label, value, colour), height in zip(labels, heights):
        axes.annotate(
            label, (1, (value - bottom) / (top - bottom)), (1.035, height), "axes fraction",
            color=colour, fontsize=9.5, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip

    axes.set_xlabel("environment steps", color=_INK)
    axes.set_ylabel(unit, color=_INK)
    if title:
        axes.set_title(title, loc="left", color=_INK, fontsize=12, fontweight="bold", pad=12)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(colors=_MUTED, length=0, labelcolor=_INK)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _limits(mean: Any, low: Any, high: Any, references: list[float]) -> tuple[float, float]:
    """The visible range: all of the curve and of the lines, with a margin."""
    bottom = float(min([low.min(), mean.min(), *references]))
    top = float(max([high.max(), mean.max(), *references]))
    margin = 0.06 * (top - bottom) or 0.05 * abs(top) or 1.0
    return bottom - margin, top + margin


def _spread(heights: list[float], gap: float) -> list[float]:
    """Ascending heights moved as little as needed for neighbours to be `gap` apart."""
    groups: list[list[float]] = []  # runs of labels in contact: their wanted heights
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _foot(groups[-1], gap) < _foot(groups[-2], gap) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_foot(group, gap) + gap * k for group in groups for k in range(len(group))]


def _foot(group: list[float], gap: float) -> float:
    """Height of the lowest label of a run centred on its wanted heights."""
    return sum(group) / len(group) - gap * (len(group) - 1) / 2
