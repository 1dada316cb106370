"""What reproduced experiments are made of: numbers as JSON values, and panels of lines that become one PNG."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.statistics import t_interval
from matchgym.envs.instance import InputError

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


Experiment = Callable[[int, int], Result]  # (replications, seed)


def interval(samples: NDArray[np.float64]) -> dict[str, float]:
    """Mean and 95 % t interval of samples (R,), as JSON values."""
    return vars(t_interval(samples))


def claim(text: str, holds: bool, **numbers: Any) -> dict[str, Any]:
    """A statement of the paper, or a corrected form of one, and whether the numbers bear it out."""
    return {"claim": text, "holds": bool(holds), **numbers}


def draw_panels(result: Result, path: Path, title: str) -> None:
    """Write the panels side by side as a PNG."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise InputError('pictures need the package matplotlib; install it with: pip install "matchgym[rl]".') from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(result.panels))
    rows = -(-len(result.panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 3.9 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(result.panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, result.panels):
        for k, line in enumerate(panel.lines):
            colour = "#1f2933" if line.is_reference else COLOURS[k % len(COLOURS)]
            is_curve = len(line.x) > 12
            style = "--" if line.is_reference else "-"
            axis.plot(line.x, line.mean, style, color=colour, label=line.label, marker=None if is_curve else "o", markersize=4)
            if line.low is not None and is_curve:
                axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.2, linewidth=0)
            elif line.low is not None:
                spread = np.abs(np.array([line.low, line.high]) - np.array(line.mean))
                axis.errorbar(line.x, line.mean, spread, color=colour, capsize=3, linestyle="none")
        axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def first_line(experiments: Mapping[str, Experiment], name: str) -> str:
    """What an experiment shows."""
    return (experiments[name].__doc__ or "").split("\n")[0]
