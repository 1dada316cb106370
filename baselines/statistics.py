"""Confidence intervals of steady-state simulation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def t_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval for the mean of independent, about normal values (R,), R >= 2."""
    sample = np.asarray(values, float)
    if sample.ndim != 1 or len(sample) < 2:
        raise ValueError(f"a t interval needs at least two values, got shape {sample.shape}.")
    mean = float(sample.mean())
    half_width = float(stdtrit(len(sample) - 1, 0.5 + confidence / 2) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Interval(mean, mean - half_width, mean + half_width)


def paired_interval(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """t interval for the mean of first - second, whose entries (R,) belong together replication by replication."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape:
        raise ValueError(f"paired values need the same shape, got {a.shape} and {b.shape}.")
    return t_interval(a - b, confidence)


def batch_means_interval(batches: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """t interval from the means of consecutive batches (R, K) of each replication, taken as R K independent values.

    A cross-check on `t_interval` over replications: it is narrower than it should be if batches are too short.
    """
    return t_interval(np.asarray(batches, float).ravel(), confidence)
