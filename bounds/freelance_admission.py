"""Bounds for admission to freelance markets: those of `freelance_market`, which hold for every admission and every scheme.

`throughput`, the most completed jobs per epoch in the outer region, bounds the objective, because costs are not negative;
`decline` is beta*, the least share of the arrivals that must be declined if all types are declined alike (programme (6) with
eps = 0).
"""

from matchgym.bounds.freelance_market import KINDS, bound, stability

__all__ = ["KINDS", "bound", "stability"]
