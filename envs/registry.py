"""The registry: one line per environment id. Every other layer, the command line, the tests and the docs iterate over it."""

import importlib
from dataclasses import dataclass
from types import ModuleType

import gymnasium as gym

from matchgym.envs.instance import unknown


@dataclass(frozen=True)
class Entry:
    """An environment id, the stem of its model, its paper and the length of an episode in decisions."""

    id: str
    stem: str
    paper: str
    max_episode_steps: int | None  # None: an episode ends by itself

    @property
    def prefix(self) -> str:
        """The prefix of its class names: "StationaryMatching"."""
        return self.id.rpartition("-v")[0]

    def layer(self, name: str) -> ModuleType:
        """The model's module in a layer: "envs", "bounds" or "baselines"."""
        return importlib.import_module(f"matchgym.{name}.{self.stem}")

    @property
    def model(self):
        """The `matchgym.envs.base.Model` behind the id."""
        return getattr(self.layer("envs"), f"{self.prefix}Env").model


LOCALITY = "Zhao, Mukherjee, Wu: Exploiting Data Locality in Server Clusters"
FREELANCE = "Chatterjee, Varshney, Vishwanath: Work Capacity of Freelance Markets"

ENTRIES = (
    Entry("StationaryMatching-v0", "stationary_matching", "arXiv:2411.08218", 1000),
    Entry("GeneralMatching-v0", "general_matching", "arXiv:2411.08218", 1000),
    Entry("MatchingQueues-v0", "matching_queues", "arXiv:2501.08775", 1000),
    Entry("EuclideanMatching-v0", "euclidean_matching", "arXiv:2501.08775", 1000),
    Entry("DataLocality-v0", "data_locality", LOCALITY, 1000),
    Entry("DataLocalityDesign-v0", "data_locality_design", LOCALITY, 20),
    Entry("CongestionLearning-v0", "congestion_learning", "Sun, Chai, Zhao: Congestion-Aware Matching and Learning", None),
    Entry("FloatingClients-v0", "floating_clients", "Sun, Chai, Zhao: Congestion-Aware Matching and Learning", None),
    Entry("FreelanceMarket-v0", "freelance_market", FREELANCE, 1000),
    Entry("FreelanceAdmission-v0", "freelance_admission", FREELANCE, 1000),
)  # fmt: skip

REGISTRY = {entry.id: entry for entry in ENTRIES}


def find(env_id: str) -> Entry:
    """The entry of an id, which may carry the prefix "matchgym:"; raises InputError for an unknown one."""
    entry = REGISTRY.get(env_id.removeprefix("matchgym:"))
    if entry is None:
        raise unknown("environment id", env_id, REGISTRY)
    return entry


def register_all() -> None:
    """Make every id known to gymnasium; calling it again does nothing."""
    for entry in ENTRIES:
        if entry.id not in gym.registry:
            gym.register(
                entry.id,
                entry_point=f"matchgym.envs.{entry.stem}:{entry.prefix}Env",
                vector_entry_point=f"matchgym.envs.{entry.stem}:{entry.prefix}VectorEnv",
                max_episode_steps=entry.max_episode_steps,
                order_enforce=False,  # the base class enforces the order itself
                disable_env_checker=True,  # the conformance tests run the checkers on every id
            )
