"""Is an instance of data locality stable under JSQ(d), why, and how its queues look in the limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matchgym.bounds.locality_limit import Limit, MeanField, fixed_point, limit_load, limit_of, random_loads, transient
from matchgym.bounds.locality_load import Diagnostics, Load, diagnose, finite_load
from matchgym.envs.data_locality import MODEL
from matchgym.envs.locality_instances import DataLocalityInstance

SHOWN = 6  # levels of q* on the screen
MOST_DIAGNOSED = 2**21  # pairs of dispatcher and server up to which the graph is diagnosed


@dataclass(frozen=True)
class Stability:
    """The report that `matchgym stability DataLocality-v0` prints."""

    instance: DataLocalityInstance
    limit: Limit
    load: Load  # rho^N
    diagnostics: Diagnostics | None  # None: the graph is too large
    mean_field: MeanField | None  # None: rho(p) >= 1
    transient: tuple[tuple[float, Any], ...]  # (time, q)

    def as_dict(self) -> dict[str, Any]:
        """JSON values, named as in the paper where it has names."""
        rho_limit, types = limit_load(self.limit)
        field, graph = self.mean_field, self.diagnostics
        low, high = self.load.low, self.load.high
        return {
            "rho": self.load.value,
            "rho_bracket": [low, high if np.isfinite(high) else None],
            "rho_servers": list(self.load.servers),
            "rho_limit": rho_limit,
            "rho_limit_types": list(types),
            "rho_0": self.instance.load,
            "lhs": random_loads(self.limit).tolist(),
            "q_star": None if field is None else field.q[:, 1:].tolist(),
            "mean_queue": None if field is None else field.tasks,
            "mean_queue_by_type": None if field is None else field.tasks_by_type.tolist(),
            "mean_response_time": None if field is None else field.response_time,
            "mean_response_time_by_dispatcher": None if field is None else field.response_by_dispatcher.tolist(),
            "mean_response_time_by_server": None if field is None else field.response_by_server.tolist(),
            **({"transient": [q[:, 1:].tolist() for _, q in self.transient]} if self.transient else {}),
            "graph": None
            if graph is None
            else {
                "densities": graph.densities.tolist(),
                "dispatcher_ratio": graph.dispatcher_ratio,
                "server_ratio": graph.server_ratio,
                "certificate": graph.certificate.tolist(),
            },
        }

    def lines(self) -> list[str]:
        """One screen for people."""
        instance, (rho_limit, types) = self.instance, limit_load(self.limit)
        loads = random_loads(self.limit)
        low, high = self.load.low, self.load.high
        own = f"{low:.6g}" if self.load.value is not None else f"between {low:.4g} and {high:.4g}"
        verdict = "stable" if high < 1 else "unstable" if low >= 1 else "undecided"
        lines = [
            f"load          rho_0 = {instance.load:.6g}: offered work over all service; "
            + ("no policy is stable" if instance.load >= 1 else f"{1 - instance.load:.1%} is left"),
            f"JSQ({instance.choices}) here   rho^N = {own}: {verdict}, "
            + (f"bottleneck {_servers(instance, self.load.servers)}" if self.load.servers else "bottleneck unknown"),
            f"many servers  rho(p) = {rho_limit:.6g}: "
            + (f"stable, {1 - rho_limit:.1%} is left" if rho_limit < 1 else "unstable")
            + f"; bottleneck server types {', '.join(map(str, types))}",
            f"random        loads by type {_numbers(loads)}: (3.2) "
            + ("holds" if (loads < 1).all() else f"fails for type {int(loads.argmax())}"),
        ]
        if self.diagnostics is not None:
            graph = self.diagnostics
            lines.append(
                f"graph         degree ratios {graph.dispatcher_ratio:.3g} (dispatchers), {graph.server_ratio:.3g} (servers), "
                f"to 1; clustering {_numbers(graph.certificate)}, to 0"
            )
        if self.mean_field is not None:
            field = self.mean_field
            lines.append(f"fixed point   {field.tasks:.6g} tasks per server, mean response time {field.response_time:.6g}")
            lines.append(f"  {'type':>4} {'rate':>8} {'tasks':>9}   q_1, q_2, ...")
            for m, (rate, tasks) in enumerate(zip(instance.service_rates, field.tasks_by_type)):
                lines.append(f"  {m:>4} {rate:>8.4g} {tasks:>9.5g}   {_numbers(field.q[m, 1 : SHOWN + 1])}")
        for time, q in self.transient:
            lines.append(f"t = {time:<9.6g} tasks by type {_numbers(q[:, 1:].sum(1))}")
        return lines


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _servers(instance: DataLocalityInstance, servers: Sequence[int]) -> str:
    """A set of servers in words, by how many of each type it has."""
    kinds = np.repeat(np.arange(instance.n_types), instance.server_counts)[list(servers)]
    counts = np.bincount(kinds, minlength=instance.n_types)
    return ", ".join(f"{count} of {total} of type {m}" for m, (count, total) in enumerate(zip(counts, instance.server_counts)))


def stability(instance: Any, times: Sequence[float] | None = None) -> Stability:
    """The report on an instance; with `times`, also the state of the limit then, from an empty start."""
    instance = MODEL.load(instance)
    limit = limit_of(instance)
    is_small = instance.n_dispatchers * instance.n_servers <= MOST_DIAGNOSED
    return Stability(
        instance,
        limit,
        finite_load(instance),
        diagnose(instance) if is_small else None,
        MeanField(limit, fixed_point(limit)) if limit_load(limit)[0] < 1 else None,
        () if times is None else tuple(zip(times, transient(limit, times))),
    )
