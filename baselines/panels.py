"""Experiments whose picture is a row of panels of lines: numbers as JSON values, and how the panels are drawn."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.experiments import Experiment, Progress
from matchgym.baselines.statistics import t_interval

COLOURS = ("#0b6e99", "#b7410e", "#2f7d4f", "#7a4fa3", "#9a7b00", "#5b6770", "#c2185b", "#00838f")


@dataclass(frozen=True)
class Line:
    """A line with a band, over the numbers or names `x`."""

    label: str
    x: Any
    mean: Any
    low: Any = None
    high: Any = None
    is_reference: bool = False


@dataclass
class Panel:
    """One picture of an experiment."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line] = field(default_factory=list)

    def add(self, label: str, x: Any, samples: NDArray[np.float64]) -> None:
        """A line through the means of samples (R, K), with their 95 % t intervals."""
        found = [t_interval(column) for column in samples.T]
        mean, low, high = ([getattr(each, name) for each in found] for name in ("mean", "low", "high"))
        self.lines.append(Line(label, x, mean, low, high))


@dataclass(frozen=True)
class Result:
    """An experiment's numbers and panels."""

    record: dict[str, Any]
    panels: list[Panel]


def interval(samples: NDArray[np.float64]) -> dict[str, float]:
    """Mean and 95 % t interval of samples (R,), as JSON values."""
    return vars(t_interval(samples))


def claim(text: str, holds: bool, **numbers: Any) -> dict[str, Any]:
    """A statement of the paper, or a corrected form of one, and whether the numbers bear it out."""
    return {"claim": text, "holds": bool(holds), **numbers}


def panelled(measure: Callable[[int, int], Result], replications: int = 200) -> Experiment:
    """The experiment that a function (replications, seed) -> Result describes; its docstring's first line is the summary."""

    def run(progress: Progress, replications: int, seed: int) -> dict[str, Any]:
        result = measure(replications, seed)
        progress(1.0)
        panels = [asdict(panel) for panel in result.panels]
        for line in (line for panel in panels for line in panel["lines"]):
            line |= {key: np.asarray(line[key]).tolist() for key in ("x", "mean", "low", "high") if line[key] is not None}
        return {**result.record, "panels": panels}

    return Experiment((measure.__doc__ or "").split("\n")[0], run, draw_panels, replications)


def draw_panels(figure: Any, data: dict[str, Any]) -> None:
    """Draw the panels of an experiment's data side by side."""
    panels = data["panels"]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure.set_size_inches(5.2 * columns, 3.9 * rows)
    for place, panel in enumerate(panels, 1):
        axis = figure.add_subplot(rows, columns, place)
        for k, line in enumerate(panel["lines"]):
            x, mean, low, high = (line[key] for key in ("x", "mean", "low", "high"))
            colour = "#1f2933" if line["is_reference"] else COLOURS[k % len(COLOURS)]
            is_curve = len(x) > 12
            style = "--" if line["is_reference"] else "-"
            axis.plot(x, mean, style, color=colour, label=line["label"], marker=None if is_curve else "o", markersize=4)
            if low is not None and is_curve:
                axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            elif low is not None:
                spread = np.abs(np.array([low, high]) - np.array(mean))
                axis.errorbar(x, mean, spread, color=colour, capsize=3, linestyle="none")
        axis.set(title=panel["title"], xlabel=panel["x_label"], ylabel=panel["y_label"])
        axis.legend(frameon=False, fontsize=8)
