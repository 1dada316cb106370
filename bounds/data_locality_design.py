"""Bounds for the design of the graph of a server cluster: least mean tasks per server of any design, stated as minus it.

A design can only choose edges among the pairs of types that the instance allows, and a policy on a graph that does not know
which edges it lacks does no better than one with all of them. So what bounds every policy on all allowed pairs bounds every
design; see `matchgym.bounds.data_locality` for the programmes.

    tightest     the best of those below that hold at the instance's own N: what a simulated design is scored against
    birth-death  as if tasks moved freely to the fastest servers
    pooled       one server of rate sum u
    fluid-types  least busy servers that the tasks of each type need, among the types allowed
    fluid        the same in the limit of many servers: for `reward="fixed-point"`
"""

from collections.abc import Mapping
from typing import Any

from matchgym.bounds import data_locality as base
from matchgym.bounds.bound import Bound
from matchgym.envs.data_locality_design import MODEL
from matchgym.envs.instance import unknown

SINGLE = ("birth-death", "pooled", "fluid-types", "fluid")
KINDS = ("tightest", *SINGLE)
PROVERS = {kind: base.PROVERS[kind] for kind in SINGLE}


def bound(instance: Any, kind: str = "tightest") -> Bound:
    """The bound of a kind: minus a mean number of tasks per server."""
    loaded = MODEL.load(instance)
    if kind in SINGLE:
        return base.bound(loaded, kind)
    if kind != "tightest":
        raise unknown("kind of bound", kind, KINDS)
    found = [base.bound(loaded, each) for each in SINGLE[:3]]
    return min(found, key=lambda each: each.certified_value)


def bound_for(instance: Any, options: Mapping[str, Any], run: tuple[int, int] | None = None) -> Bound:
    """The tightest bound for designs under these options of the environment."""
    return bound(instance, "fluid" if options.get("reward") == "fixed-point" else "tightest")
