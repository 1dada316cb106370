"""What a task of the leaderboard is, and the looks at which it is measured."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from matchgym.envs.instance import InputError
from matchgym.envs.registry import Entry, find

LOOKS = (16, 64, 256)  # replications after which a row may stop; in proportion for a task with more than the last
QUICK = 20  # a quick board takes this many times fewer decisions, and 16 replications


@dataclass(frozen=True, kw_only=True)
class Task:
    """An instance, the length of its simulation, and what its scores are measured between."""

    name: str
    id: str
    instance: str  # name in the catalogue of the model
    sha256: str  # of the instance
    warmup: int  # decisions per replication
    decisions: int  # counted decisions per replication
    seed: int  # public, for practice; replication b is seeded with seed + b
    note: str  # one sentence for the page
    bound_kind: str  # the kind of bound whose value is the score 1
    anchor: str = "greedy"  # the policy whose score is 0
    replications: int = LOOKS[-1]
    family: str = ""  # the family that the instance is drawn from, see `families`

    @property
    def entry(self) -> Entry:
        """The registry's entry of the environment."""
        return find(self.id)

    @property
    def track(self) -> str:
        """The name of the track that the task belongs to: its id, or its family."""
        return self.family or self.id

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of replications after which a row may stop, the last one being all."""
        scale = max(1.0, self.replications / LOOKS[-1])
        return (*(look for look in (round(scale * look) for look in LOOKS) if look < self.replications), self.replications)

    def load(self) -> Any:
        """The instance. Raises InputError if it is no longer the one that the task was made with."""
        instance = self.entry.model.load(self.instance)
        if instance.sha256 != self.sha256:
            raise InputError(
                f"instance {self.instance} has sha256 {instance.sha256[:12]}..., but task {self.name} was frozen with "
                f"{self.sha256[:12]}...; restore the instance or make a new task."
            )
        return instance

    def practice(self) -> "Task":
        """The task as it is open to everyone."""
        return self

    def quick(self) -> "Task":
        """The same task at a fraction of the length, for trying things out."""
        if self.entry.model.episode is not None:  # an episode is played to its end
            return dataclasses.replace(self, replications=LOOKS[0])
        return dataclasses.replace(
            self,
            replications=min(self.replications, LOOKS[0]),
            warmup=self.warmup // QUICK,
            decisions=max(10, self.decisions // QUICK),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self) | {"track": self.track}
