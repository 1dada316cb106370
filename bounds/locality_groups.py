"""Servers and dispatchers of a compatibility graph in groups that are alike, so that programmes on the graph become small.

A partition is equitable if all dispatchers of a group have equally many servers in every group of servers, and the other way
round. The programmes on the graph are convex and symmetric under averaging over groups of such a partition, so their optimal
values are those of the programmes on groups. On a complete graph the groups are the types; on IRG they are single servers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchgym.bounds.locality_load import is_complete
from matchgym.envs.instance import InputError
from matchgym.envs.locality_instances import LISTED, DataLocalityInstance, adjacency, draw_graph, neighbours

MOST_PAIRS = 2**23  # entries of a matrix of edges that is looked at


@dataclass(frozen=True)
class Groups:
    """An equitable partition, or a coarser view of the graph."""

    kinds: NDArray[np.int64]  # (G,) type of the servers of a group
    sizes: NDArray[np.int64]  # (G,) servers
    sources: NDArray[np.int64]  # (S,) dispatchers
    edges: NDArray[np.int64]  # (S, G) servers of group g that a dispatcher of source s has

    @property
    def degrees(self) -> list[int]:
        """Servers of a dispatcher of each source (S,)."""
        return self.edges.sum(1).tolist()


def graph_groups(instance: DataLocalityInstance) -> Groups:
    """The coarsest equitable partition of the instance's graph; InputError if the graph is too large to be looked at."""
    graph = draw_graph(instance)
    servers, kinds = instance.server_counts, np.arange(instance.n_types)
    if is_complete(graph):
        present = servers > 0
        return Groups(kinds[present], servers[present], np.array([instance.n_dispatchers]), servers[None, present])
    if instance.n_dispatchers * instance.n_servers > MOST_PAIRS:
        raise InputError(f"n_servers {instance.n_servers} is too many for a programme on the graph; use birth-death or -types.")
    edges = adjacency(graph)
    server = np.repeat(kinds, servers)
    dispatcher = np.zeros(len(edges), np.int64)
    while True:
        before = (int(server.max()), int(dispatcher.max()))
        dispatcher = _refine(dispatcher, edges, server)
        server = _refine(server, edges.T, dispatcher)
        if (int(server.max()), int(dispatcher.max())) == before:
            break
    n, sources = int(server.max()) + 1, int(dispatcher.max()) + 1
    _, first_server, sizes = np.unique(server, return_index=True, return_counts=True)
    _, first, counts = np.unique(dispatcher, return_index=True, return_counts=True)
    member = np.eye(n, dtype=np.int64)[server]
    assert len(first) == sources
    return Groups(np.repeat(kinds, servers)[first_server], sizes, counts, edges[first].astype(np.int64) @ member)


def _refine(labels: NDArray[np.int64], edges: NDArray[np.bool_], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split groups whose members have different numbers of neighbours in some group of the other side."""
    counts = edges.astype(np.int64) @ np.eye(int(others.max()) + 1, dtype=np.int64)[others]
    return np.unique(np.column_stack([labels, counts]), axis=0, return_inverse=True)[1].ravel()


@dataclass(frozen=True)
class TypeDegrees:
    """What is certain of a graph whose types are taken as groups."""

    largest: NDArray[np.int64]  # (K,) servers of a type-k dispatcher, at most
    least: NDArray[np.int64]  # (K, M) type-k dispatchers of a type-m server, at least


def type_degrees(instance: DataLocalityInstance) -> TypeDegrees:
    """Extreme degrees by type; InputError if the graph is too large to be looked at."""
    graph = draw_graph(instance)
    servers, dispatchers = instance.server_counts, instance.dispatcher_counts
    if is_complete(graph):
        return TypeDegrees(np.full(len(dispatchers), instance.n_servers), np.tile(dispatchers[:, None], (1, len(servers))))
    if graph.kind != LISTED and instance.n_dispatchers * instance.n_servers > MOST_PAIRS:
        raise InputError(f"n_servers {instance.n_servers} is too many to count the edges; use birth-death or fluid-types.")
    largest, least = np.zeros(len(dispatchers), np.int64), np.zeros((len(dispatchers), len(servers)), np.int64)
    for k, (start, end) in enumerate(zip(graph.dispatcher_ends[:-1].tolist(), graph.dispatcher_ends[1:].tolist())):
        lists = [neighbours(graph, i) for i in range(start, end)]
        largest[k] = max((len(each) for each in lists), default=0)
        counts = np.bincount(np.concatenate([*lists, np.zeros(0, np.int64)]), minlength=instance.n_servers)
        for m, (first, last) in enumerate(zip(graph.server_ends[:-1], graph.server_ends[1:])):
            least[k, m] = counts[first:last].min(initial=end - start)
    return TypeDegrees(largest, least)
