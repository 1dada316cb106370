"""Policies for clients of unseen types: the rules of `congestion_learning`, learning client by client (Section EC.3.2).

The observation has seats where that of `congestion_learning` has types, so that the kernels are the same.
"""

from typing import Any, ClassVar

import numpy as np

from matchgym.baselines import congestion_rules as rules
from matchgym.baselines.congestion_learning import CongestionPolicy
from matchgym.baselines.policy import Policy
from matchgym.bounds.slotted_chain import Value
from matchgym.envs.base import Model
from matchgym.envs.floating_clients import MODEL
from matchgym.envs.instance import InputError, shorten

EPS = 0.1  # the paper's
CLOCKS = ("platform", "client")


class FloatingPolicy(CongestionPolicy):
    """Base of the policies of this file."""

    model: ClassVar[Model] = MODEL

    def known(self, instance: Any) -> dict[str, Any]:
        shape = (instance.n_seats, instance.n_servers)
        return {
            "arrival_rates": np.zeros(1),
            "present": np.zeros(1, np.int64),
            "capacities": np.ones(instance.n_servers),
            "allowed": np.ones(shape, np.int64),
            "rewards": np.zeros(shape),
            "features": np.zeros((shape[0] * shape[1], 0)),
            "has_rewards": 0,
        }


class Random(FloatingPolicy):
    """A random server for each client, anew in every slot."""

    belief, rule = rules.NOTHING, rules.RANDOM_SERVER
    is_deterministic: ClassVar[bool] = False


class QueueUCB(FloatingPolicy):
    """The largest r_cj(t) - eps Q_j at upper confidence bounds (6) of client c; clock "platform" or "client" counts t."""

    belief, rule = rules.UPPER, rules.QUEUE_SERVER

    def __init__(self, eps: float = EPS, clock: str = "platform", radius: float = 1.0) -> None:
        if clock not in CLOCKS:
            raise InputError(f"clock must be one of {', '.join(CLOCKS)}, not {shorten(clock)}.")
        self.eps, self.has_own_clocks, self.radius = eps, clock == "client", radius


class GreedyUCB(FloatingPolicy):
    """The largest upper confidence bound of the client, whatever the queues."""

    belief, rule = rules.UPPER, rules.QUEUE_SERVER


class ThompsonQueue(FloatingPolicy):
    """The largest r_cj - eps Q_j at a draw from the posterior of client c."""

    belief, rule = rules.POSTERIOR, rules.QUEUE_SERVER
    is_deterministic: ClassVar[bool] = False

    def __init__(self, eps: float = EPS) -> None:
        self.eps = eps


class JSQ(FloatingPolicy):
    """Join the shortest queue, the smallest index among equals."""

    belief, rule = rules.NOTHING, rules.QUEUE_SERVER

    eps = 1.0


def exact_value(policy: Policy, max_states: int | None = None) -> Value:
    """Refused: the chain of clients and queues is too large."""
    raise InputError("policies of FloatingClients-v0 have no exact value; leave out --exact to simulate them.")


POLICIES: dict[str, type[Policy]] = {
    "random": Random,  # the anchor of scores
    "queue-ucb": QueueUCB,
    "greedy-ucb": GreedyUCB,
    "thompson-queue": ThompsonQueue,
    "jsq": JSQ,
}
