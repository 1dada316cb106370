"""The project's own entries, as artefacts of the kind declarative/1: every baseline comes through the same door as everyone."""

import json
from collections.abc import Sequence

import matchgym
from matchgym.leaderboards.artefact import SCHEMA_VERSION, SUITE, Artefact, parse_artefact, task_policies
from matchgym.leaderboards.store import canonical, sha256
from matchgym.leaderboards.tasks import SUITE_VERSION, TASKS, Task

FILE = "policy.json"


def baseline(tasks: Sequence[Task], policy: str, version: str = matchgym.__version__) -> Artefact:
    """The artefact of a policy of one environment id for tasks of that id, as a version of the package submits it."""
    data = canonical({"policy": policy, "parameters": {}}).encode()
    entry = {"kind": "declarative/1", "file": FILE, "sha256": sha256(data), "bytes": len(data), "action_mode": "greedy"}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "suite": {"name": SUITE, "version": SUITE_VERSION},
        "entries": [{**key, **entry} for key in entry_keys(tasks)],
        "agent": {
            "name": policy,
            "authors": ["The matchgym developers"],
            "description": f"The policy {policy} of matchgym for {tasks[0].id}, with its default parameters.",
            "licence": "MIT",
        },
        "method": {
            "algorithm": policy,
            "library": "matchgym",
            "library_version": version,
            "training_steps": 0,
            "wall_s": 0.0,
            "hardware": "any",
            "train_seed": 0,
        },
        "declares": {"used_public_seeds_only": True, "uses_model_parameters": True},
    }
    text = json.dumps(manifest, indent=1) + "\n"
    return parse_artefact(text.encode(), lambda name, digest, place: data, tasks)


def entry_keys(tasks: Sequence[Task]) -> list[dict[str, str]]:
    """What the entries of a manifest say they are for: each task, and each family once."""
    keys = [("family", task.family) if task.family else ("task", task.name) for task in tasks]
    return [{kind: name} for kind, name in dict.fromkeys(keys)]


def baselines(tasks: Sequence[Task] = TASKS) -> list[Artefact]:
    """The artefacts of all policies on all tasks; per id, the anchors of its tasks come first, as scores count from them."""
    found = []
    for env_id in dict.fromkeys(task.id for task in tasks):
        mine = [task for task in tasks if task.id == env_id]
        anchors = dict.fromkeys(task.anchor for task in mine)
        found += [baseline(mine, policy) for policy in dict.fromkeys([*anchors, *task_policies(mine[0])])]
    return found
