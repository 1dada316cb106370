"""Who is on the board: every baseline that a task admits, and trained agents given as folders."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matchgym.baselines.policy import Policy
from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards.tasks import Task


@dataclass(frozen=True)
class Entrant:
    """Something to evaluate: `prepare(instance)` gives the fitted policy, or raises InputError if it cannot play."""

    name: str
    kind: str  # "baseline", "optimum" (the exact best policy) or "agent"
    prepare: Callable[[Any], Policy]
    about: dict[str, Any] | None = None  # of an agent: how it was trained, and the digest of its model


def _fit(kind: type[Policy], instance: Any) -> Policy:
    return kind().fit(instance)


def baselines(task: Task) -> list[Entrant]:
    """All policies of the task's model, in the order of its list."""
    policies = task.entry.layer("baselines").POLICIES
    return [
        Entrant(name, "optimum" if name == "optimal" else "baseline", partial(_fit, kind)) for name, kind in policies.items()
    ]


@dataclass(frozen=True)
class AgentFolder:
    """A folder that `matchgym train` left."""

    folder: Path
    env_id: str
    instance_sha256: str
    about: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def plays(self, task: Task) -> bool:
        """Whether the agent was trained on the instance of the task."""
        return (self.env_id, self.instance_sha256) == (task.id, task.sha256)

    def entrant(self) -> Entrant:
        def prepare(instance: Any) -> Policy:
            from matchgym.agents import AgentPolicy  # torch is imported only if there is an agent

            return AgentPolicy.load(self.folder).fit(instance)

        return Entrant(self.name, "agent", prepare, self.about)


def find_agents(folders: Sequence[Path]) -> list[AgentFolder]:
    """The agents in folders: a folder holds one agent, or sub-folders that hold one each."""
    found: list[AgentFolder] = []
    for folder in folders:
        inside = [path.parent for path in sorted(folder.glob("*/config.json"))]
        holders = [folder] if (folder / "config.json").is_file() else inside
        if not holders:
            raise InputError(f"--agents {shorten(str(folder))} holds no trained agent; give a folder written by train.")
        found += [_read_agent(holder) for holder in holders]
    names = [agent.name for agent in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two agents are in folders named {shorten(name)}; rename one.")
    return found


def _read_agent(folder: Path) -> AgentFolder:
    try:
        config = json.loads((folder / "config.json").read_text())
        model = (folder / "model.zip").read_bytes()
        about = {
            "algorithm": str(config["algo"]),
            "training_steps": int(config["timesteps"]),
            "training_seed": int(config["seed"]),
            "model_sha256": hashlib.sha256(model).hexdigest(),
        }
        return AgentFolder(folder, str(config["id"]), str(config["instance_sha256"]), about)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"--agents {shorten(str(folder))} lacks a readable config.json or model.zip; give a folder written by train."
        ) from None


def entrants(task: Task, agents: Sequence[AgentFolder] = ()) -> list[Entrant]:
    """Everybody on a task: its baselines, then the agents trained on its instance."""
    found = baselines(task) + [agent.entrant() for agent in agents if agent.plays(task)]
    names = [entrant.name for entrant in found]
    for agent in agents:
        if names.count(agent.name) > 1:
            raise InputError(f"an agent's folder is named {agent.name} like a baseline; rename it.")
    return found
