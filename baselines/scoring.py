"""Scores: where an objective stands between an anchor policy and a certified bound."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.evaluation import Evaluation, evaluate, run_length
from matchgym.baselines.policy import Policy
from matchgym.baselines.statistics import Interval, t_interval
from matchgym.bounds.bound import Bound
from matchgym.envs.instance import InputError
from matchgym.envs.registry import Entry


@dataclass(frozen=True)
class MeanBound:
    """The mean over replications of the bounds that belong to them, where each draws an instance of its own."""

    kind: str
    sense: str
    value: float
    certified_value: float


@dataclass(frozen=True)
class Score:
    """score = (J - J0) / (UB - J0) with J the objective, J0 the anchor's and UB the certified bound; ratio = J / UB."""

    objective: Interval
    replications: int  # 0: exact
    anchor_policy: str
    anchor: Interval
    difference: Interval  # objective minus anchor, in pairs under the same seeds
    bound: Bound | MeanBound
    rates: Mapping[str, Interval] = field(default_factory=dict)  # the model's further quantities per unit of time
    trends: Mapping[str, Interval] = field(default_factory=dict)  # the model's slopes per unit of time
    match_rates: NDArray[np.float64] | None = None  # (n, m) per unit of time, where they are known exactly
    ratios: Interval | None = None  # of J / UB, where every replication has its own UB
    anchor_replications: int = 0  # 0: exact

    @property
    def score(self) -> float | None:
        """None where the anchor is as good as the bound, as far as both are resolved."""
        certified = self.bound.certified_value
        gap, resolution = certified - self.anchor.mean, abs(certified - self.bound.value) + 1e-10 * abs(certified)
        return self.difference.mean / gap if gap > max(10 * resolution, self.anchor.high - self.anchor.mean) else None

    @property
    def ratio(self) -> float | None:
        if self.ratios is not None:
            return self.ratios.mean
        positive = self.objective.mean > 0 and self.bound.certified_value > 0
        return self.objective.mean / self.bound.certified_value if positive else None

    @property
    def is_above_bound(self) -> bool:
        """Whether the objective exceeds the bound by more than its interval, which no correct program can show."""
        if self.ratios is not None:
            return self.bound.sense == "upper" and self.ratios.low > 1 + 1e-9
        slack = 1e-9 * abs(self.bound.certified_value)
        return self.bound.sense == "upper" and self.objective.low > self.bound.certified_value + slack

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "objective": {**vars(self.objective), "replications": self.replications},
            "bound": {
                "kind": self.bound.kind,
                "sense": self.bound.sense,
                "value": self.bound.value,
                "certified_value": self.bound.certified_value,
            },
            "anchor": {"policy": self.anchor_policy, **vars(self.anchor), "replications": self.anchor_replications},
            "difference": vars(self.difference),
            "score": self.score,
            "ratio": self.ratio,
            **({} if self.ratios is None else {"ratio_interval": vars(self.ratios)}),
            "is_above_bound": self.is_above_bound,
            **{name: interval.mean for name, interval in self.rates.items()},
            **({"rates": {name: vars(interval) for name, interval in self.rates.items()}} if self.rates else {}),
            **{name: vars(interval) for name, interval in self.trends.items()},
            **({} if self.match_rates is None else {"match_rates": self.match_rates.tolist()}),
        }


def _anchor(entry: Entry, instance: Any) -> tuple[str, Policy]:
    """The policy whose score is 0: the first of the model's list."""
    name, kind = next(iter(entry.layer("baselines").POLICIES.items()))
    return name, kind().fit(instance)


def _bound(entry: Entry, instance: Any, policy: Policy, run: tuple[int, int] | None) -> Bound:
    """The bound that holds for a policy: the model's own choice, where its bounds depend on what policies may see or do.

    run : decisions that are skipped, and then counted; None: an exact value.
    """
    layer = entry.layer("bounds")
    chosen = getattr(layer, "bound_for", None)
    return layer.bound(instance) if chosen is None else chosen(instance, policy.acting.options, run)


def score_exactly(entry: Entry, policy: Policy) -> Score:
    """Score a fitted policy by the exact values of its chain and the anchor's; the latter is simulated if its is too large."""
    exact_value = entry.layer("baselines").exact_value
    name, anchor = _anchor(entry, policy.instance)
    value, simulated = exact_value(policy), 0
    try:
        base = _as_interval(exact_value(anchor))
    except InputError:
        found = evaluate(anchor, entry.id, policy.instance)
        base, simulated = found.objective, found.replications
    objective = _as_interval(value)
    difference = Interval(objective.mean - base.mean, objective.low - base.high, objective.high - base.low)
    shared = (objective, 0, name, base, difference, _bound(entry, policy.instance, policy, None))
    if not entry.model.rates:
        return Score(*shared, anchor_replications=simulated)
    measures = policy.instance.measures(value.match_rates)
    rates = {key: Interval(rate, rate, rate) for key, rate in measures.items()}
    return Score(*shared, rates, match_rates=value.match_rates, anchor_replications=simulated)


def _as_interval(value: Any) -> Interval:
    return Interval(float(value.mean), float(value.mean - value.error), float(value.mean + value.error))


def score_simulated(
    entry: Entry, policy: Policy, found: Evaluation, warmup: int | None = None, decisions: int | None = None
) -> Score:
    """Score an evaluation; the anchor is simulated under the same seeds."""
    name, anchor = _anchor(entry, found.instance)
    base = evaluate(anchor, entry.id, found.instance, found.replications, warmup, decisions, found.seed)
    bound_of = entry.layer("bounds").bound
    shared = (found.objective, found.replications, name, base.objective, found.minus(base))
    size = base.replications
    if not found.drawn:
        run = run_length(entry.model, found.instance, warmup, decisions)
        return Score(*shared, _bound(entry, found.instance, policy, run), found.rates, found.trends, anchor_replications=size)
    own = [bound_of(instance) for instance in found.drawn]
    means = [sum(values) / len(own) for values in zip(*((each.value, each.certified_value) for each in own))]
    ratios = t_interval([value / each.certified_value for value, each in zip(found.values, own)])
    bound = MeanBound(own[0].kind, own[0].sense, *means)
    return Score(*shared, bound, found.rates, found.trends, ratios=ratios, anchor_replications=size)
