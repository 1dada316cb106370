"""Bounds for admission to freelance markets: those of `freelance_market`, which hold for every admission and every scheme.

`throughput`, the most completed jobs per epoch in the outer region, bounds the objective, because costs are not negative;
`decline` is beta*, the least share of the arrivals that must be declined if all types are declined alike (programme (6) with
eps = 0).
"""

from collections.abc import Mapping
from typing import Any

from matchgym.bounds import freelance_market as market
from matchgym.bounds.bound import Bound
from matchgym.envs.freelance_admission import MODEL

KINDS, PROVERS = market.KINDS, market.PROVERS


def bound(instance: Any, kind: str = KINDS[0], warmup: int | None = None, decisions: int | None = None) -> Bound:
    """A bound of one of KINDS, see `freelance_market`; names are those of this model's catalogue."""
    return market.bound(MODEL.load(instance), kind, warmup, decisions)


def bound_for(instance: Any, options: Mapping[str, Any], run: tuple[int, int] | None = None) -> Bound:
    """The bound of a run, see `freelance_market.bound_for`."""
    return market.bound_for(MODEL.load(instance), options, run)


def stability(instance: Any) -> market.Stability:
    """How much load the market bears, and where it ends."""
    return market.stability(MODEL.load(instance))
