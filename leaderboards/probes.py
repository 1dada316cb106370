"""Copies: who decides alike in the probe states of a task.

The probe states are the first PROBES at which there is a choice on runs of ROWS rows under random valid actions, from the
task's public seed: the same for everyone, and nothing that an artefact does changes them. A policy that draws at random does so
from streams of its own public seed, as its copy does. The decisions are kept as digests of two bytes each. An agent that agrees
with what came in before at ALIKE of all probes of the tasks that both play is flagged as alike: on its page, on the board and
in board.json. A flag is no verdict: on a small task honest agents may all have learned the one best policy, and an agent may
have learned a baseline.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.policy import Policy
from matchgym.envs.registry import Entry
from matchgym.leaderboards.task import Task

ROWS, PROBES, LONGEST = 16, 512, 512  # rows, decisions that are kept, and steps after which that is it
ALIKE = 0.99  # share of the probes
LEAST = 64  # probes that two must share before anything is said

Digests = NDArray[np.uint16]


def vector_env(entry: Entry, instance: Any, options: Mapping[str, Any]) -> Any:
    """Rows of the environment as the policy wants it."""
    env_type = getattr(entry.layer("envs"), f"{entry.prefix}VectorEnv")
    return env_type(instance, num_envs=ROWS, **{**entry.model.evaluation_options, **options})


def decisions(task: Task, policy: Policy) -> str:
    """What a fitted policy decides at the probes, as base64 of little-endian digests (up to PROBES,) of 16 bits."""
    policy = policy.acting
    env = vector_env(task.entry, task.load(), policy.options)
    obs, _ = env.reset(seed=task.seed)
    env.action_space.seed(task.seed)
    rng = np.random.default_rng(task.seed)
    state, starts = policy.start(ROWS, task.seed), np.ones(ROWS, np.bool_)
    found: list[int] = []
    is_list = isinstance(env.single_action_space, gym.spaces.Discrete)
    for _ in range(LONGEST):
        masks = env.action_masks()
        actions, state = policy.predict(obs, state, starts, False, masks)
        found += [_digest(actions[b]) for b in range(ROWS) if masks[b].sum() > 1 or not is_list]
        if len(found) >= PROBES:
            break
        at_random = np.where(masks, rng.uniform(size=masks.shape), -1.0).argmax(1) if is_list else env.action_space.sample()
        obs, *_ = env.step(at_random)
        starts[:] = False
    return base64.b64encode(np.array(found[:PROBES], "<u2").tobytes()).decode()


def _digest(action: Any) -> int:
    """Sixteen bits of an action; numbers of an action are told apart to four digits."""
    numbers = np.round(np.atleast_1d(np.asarray(action, float)), 4) + 0.0  # no negative zeros
    return int.from_bytes(hashlib.sha256(numbers.astype("<f8").tobytes()).digest()[:2], "little")


def digests(text: str) -> Digests:
    """The digests that `decisions` wrote."""
    return np.frombuffer(base64.b64decode(text), "<u2")


def alike(order: Sequence[str], told: Mapping[str, Mapping[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """For each artefact, those before it in `order` that decide alike, most alike first, with the number of shared probes.

    Parameters
    ----------
    told : task -> artefact -> decisions at the probes.
    """
    place = {artefact: k for k, artefact in enumerate(order)}
    same, total = np.zeros((len(order), len(order)), np.int64), np.zeros((len(order), len(order)), np.int64)
    for texts in told.values():
        known = {artefact: digests(text) for artefact, text in texts.items()}
        for a, mine in known.items():
            for b, other in known.items():
                if place[b] < place[a]:
                    both = min(len(mine), len(other))
                    same[place[a], place[b]] += int((mine[:both] == other[:both]).sum())
                    total[place[a], place[b]] += both
    found: dict[str, list[dict[str, Any]]] = {}
    for k, artefact in enumerate(order):
        near = [j for j in range(k) if total[k, j] >= LEAST and same[k, j] >= ALIKE * total[k, j]]
        near.sort(key=lambda j: (-same[k, j] / total[k, j], j))
        found[artefact] = [
            {"artefact": order[j], "agreement": round(float(same[k, j] / total[k, j]), 4), "probes": int(total[k, j])}
            for j in near
        ]
    return found
