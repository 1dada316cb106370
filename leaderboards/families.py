"""The `generalise` track: families of instances that nobody has seen while submissions are open.

A family is a published generator with fixed sizes, so that all its instances have the same observations and actions. A season
plays MEMBERS instances of each: member k is drawn with the seed HMAC-SHA256(secret, task name | "instance") of the season's
secret, see `season`. While the season is open its records show the digest of each instance and of its certificate, and what was
measured; once the secret is revealed, anyone can draw the instances again. Practice is on the same generator's instances
with the tasks' public seeds. An artefact enters with one entry for the whole family.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from matchgym.envs.catalogues import euclidean_matching, freelance_market, general_matching, matching_queues
from matchgym.envs.catalogues.congestion_learning import random_platform
from matchgym.envs.catalogues.data_locality import random_cluster
from matchgym.envs.catalogues.stationary_matching import random_market
from matchgym.envs.instance import InputError
from matchgym.leaderboards.task import Task

MEMBERS = 4  # instances of a family in a season
TRIES = 100
REPLICATIONS = 64  # of each instance, as a family's score is a mean over several

Fields = dict[str, Any]
Generator = Callable[[int], Fields]  # from a seed to the fields of an instance


@dataclass(frozen=True, kw_only=True)
class FamilyTask(Task):
    """A task whose instance is drawn; `draw` is the seed of it, None as long as it is secret."""

    generator: Generator
    draw: int | None = None

    def load(self) -> Any:
        """The drawn instance. Raises InputError while it is secret."""
        if self.draw is None:
            raise InputError(f"the instance of task {self.name} is secret until its season is closed.")
        return _drawn(self)

    def drawn_with(self, seed: int) -> "FamilyTask":
        """The same task with the instance of a seed."""
        return replace(self, draw=seed)

    def practice(self) -> "FamilyTask":
        """The same task with the public instance."""
        return self.drawn_with(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without what is secret."""
        return {key: value for key, value in asdict(self).items() if key not in ("generator", "draw")} | {"track": self.track}


@lru_cache(maxsize=128)
def _drawn(task: FamilyTask) -> Any:
    """The first valid instance of the seeds draw, draw + 1, ...: a random graph may leave a server without neighbours."""
    assert task.draw is not None
    refusal = None
    for k in range(TRIES):
        fields = task.generator(task.draw + k)
        try:
            return task.entry.model.load(fields | {"name": task.name})
        except InputError as error:
            refusal = error
    raise InputError(f"the generator of family {task.family} gives no valid instance near seed {task.draw}: {refusal}")


def floating_platform(seed: int, n_types: int = 2, n_servers: int = 6, present: float = 2.0) -> Fields:
    """Clients of random types: `present` of them on average, so that the number of seats is fixed; random rewards."""
    rng = np.random.default_rng(seed)
    shares, departure = rng.dirichlet(np.full(n_types, 5.0)), float(rng.uniform(0.05, 0.2))
    return {
        "model": "floating_clients",
        "client_arrivals": (present * departure * shares).tolist(),
        "client_departures": [departure] * n_types,
        "job_rates": rng.uniform(1.0, 3.0, n_types).tolist(),
        "n_servers": n_servers,
        "rewards": rng.uniform(0, 1, (n_types, n_servers)).tolist(),
        "horizon": 2_000,
    }


def priced_square(seed: int) -> Fields:
    """Eight places of each side on the square, at a price that makes most matches worth their way."""
    return euclidean_matching.uniform(8, 8, 2, seed) | {"throughput_price": 0.6}


def free_cluster(seed: int) -> Fields:
    """A random cluster of 40 servers where every pair of types may be joined."""
    return random_cluster(40, 3, 2, seed, load=0.8) | {"compatibility": [[1.0] * 3] * 2}


def overloaded(seed: int) -> Fields:
    """A crowd with two categories that is asked for a quarter more than it can do."""
    return freelance_market.crowd(9, seed, 2, "IND", load=1.25) | {"holding_cost": 0.001}


def family(name: str, env_id: str, generator: Generator, note: str, seed: int, **numbers: Any) -> tuple[FamilyTask, ...]:
    """The tasks of a family; member k practises on the instance of the public seed + 1000 k."""
    return tuple(
        FamilyTask(
            name=f"{name}-{k + 1}",
            id=env_id,
            instance=name,
            sha256="",
            family=name,
            generator=generator,
            seed=seed + 1000 * k,
            note=note,
            replications=REPLICATIONS,
            **numbers,
        )
        for k in range(MEMBERS)
    )


MEMBER_TASKS: tuple[FamilyTask, ...] = (
    *family(
        "generalise-stationary", "StationaryMatching-v0", partial(random_market, 6, 8, density=0.6),
        "Six supplier and eight customer types, random rates and rewards, two in five pairs incompatible.",
        7_500_000, warmup=2_000, decisions=10_000, bound_kind="tlp-online",
    ),
    *family(
        "generalise-graph", "GeneralMatching-v0", partial(general_matching.random_graph, 8, density=0.5),
        "Eight types on a random graph with half of the pairs compatible.",
        7_510_000, warmup=2_000, decisions=10_000, bound_kind="tlp-joint",
    ),
    *family(
        "generalise-queues", "MatchingQueues-v0", partial(matching_queues.random_network, 5, 6, load=0.6, price=1.0),
        "Five queues and six customer types with random rates and costs.",
        7_520_000, warmup=2_000, decisions=10_000, bound_kind="priced",
    ),
    *family(
        "generalise-euclid", "EuclideanMatching-v0", priced_square,
        "Eight places of suppliers and eight of customers, uniform on the square.",
        7_530_000, warmup=2_000, decisions=10_000, bound_kind="priced",
    ),
    *family(
        "generalise-locality", "DataLocality-v0", partial(random_cluster, 40, 3, 2, load=0.8),
        "Forty servers of three random types and two types of dispatchers on a random graph.",
        7_540_000, warmup=8_000, decisions=20_000, bound_kind="tightest-any", anchor="jsq-d",
    ),
    *family(
        "generalise-design", "DataLocalityDesign-v0", free_cluster,
        "Forty servers of three random types and two types of dispatchers: which edges should there be?",
        7_550_000, warmup=100, decisions=250, bound_kind="tightest", anchor="proportional",
    ),
    *family(
        "generalise-learning", "CongestionLearning-v0", partial(random_platform, 3, 5),
        "Three job types and five servers with random rates and hidden rewards that no one has seen.",
        7_560_000, warmup=0, decisions=1_000, bound_kind="oracle", anchor="random",
    ),
    *family(
        "generalise-floating", "FloatingClients-v0", floating_platform,
        "Two client types who come and go at random rates, six servers, hidden rewards that no one has seen.",
        7_570_000, warmup=0, decisions=2_000, bound_kind="oracle", anchor="random",
    ),
    *family(
        "generalise-market", "FreelanceMarket-v0", partial(freelance_market.random_market, 4, 2, 3, kind="ID", load=1.5),
        "Four job types, two categories, three skills, asked for more than they can do; class ID.",
        7_580_000, warmup=0, decisions=1_000, bound_kind="throughput", anchor="random",
    ),
    *family(
        "generalise-admission", "FreelanceAdmission-v0", overloaded,
        "Nine job types and two categories asked for a quarter more than they can do.",
        7_590_000, warmup=0, decisions=1_000, bound_kind="throughput", anchor="accept-all",
    ),
)  # fmt: skip
