"""What a learner should look ahead: discounts against the mean reward itself, and loads that rise during training.

    python benchmarks/horizons.py [--steps 300000] [--seeds 3] [--output FILE]

First table: the same training with discounts from 0.9 to 0.999 and with `average_reward`, on rows without end.
Second table: servers learnt at their own load from the start, or at 0.6 and 0.8 of it for a quarter of the steps each before.
Objectives with the standard error over the seeds of the trainings; every network is the last of its training.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

import matchgym  # noqa: F401
from matchgym.agents import AgentPolicy, hyperparameters_for, make_native
from matchgym.agents.curve import measure
from matchgym.agents.learner import build
from matchgym.agents.sb3 import SB3VecEnv
from matchgym.envs.registry import find

# Environment, instance, and the baseline that is copied first.
MARKETS = (
    ("StationaryMatching-v0", "demo", None),
    ("StationaryMatching-v0", "random-40x40", "static-threshold"),
    ("GeneralMatching-v0", "random-30", "price-greedy"),
    ("DataLocality-v0", "small", None),
)
HORIZONS = {
    **{f"gamma {gamma}": {"gamma": gamma} for gamma in (0.9, 0.98, 0.99, 0.995, 0.999)},
    "average reward": {"average_reward": True},
}
LOADED = (("DataLocality-v0", "small"), ("DataLocality-v0", "cluster-200-irg"))
RISING = ((0.6, 0.25), (0.8, 0.25), (1.0, 0.5))  # share of the load, share of the steps
ALGO = "maskable_ppo"


def final(model, env_id: str, instance) -> float:
    """The objective of the last network, over 128 runs that all trainings share."""
    return measure(AgentPolicy(model, env_id).fit(instance), env_id, instance, 10**6, 128, 1000, 2000).mean


def learner(env_id: str, instance, changes: dict, seed: int, teacher: str | None = None):
    """A learner that has at most copied a teacher, on rows without end."""
    table = hyperparameters_for(env_id, ALGO, {**changes, "endless": True})
    native = make_native(env_id, instance.to_dict(), table["n_envs"], -1)
    teaching = None if teacher is None else find(env_id).layer("baselines").POLICIES[teacher]().fit(instance)
    return build(ALGO, native, table, seed, teaching)


def with_rising_load(env_id: str, instance, steps: int, seed: int):
    """A network trained at the loads of RISING, one after another; what it is shown is scaled as at the last."""
    model = learner(env_id, instance, {}, seed)
    own, rows = model.get_env(), model.get_env().num_envs
    for share, part in RISING:
        values = {**instance.to_dict(), "arrival_rate": share * instance.arrival_rate}
        stage = SB3VecEnv(make_native(env_id, values, rows, -1), own.reward_shift, own.reward_scale)
        model.set_env(stage)
        model.learn(int(part * steps), reset_num_timesteps=False)
    return model


def row(name: str, values: list[float]) -> str:
    return f"{name:<18}{np.mean(values):>12.4f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}

    for env_id, name, teacher in MARKETS:
        instance = find(env_id).model.load(name)
        print(f"{env_id}, {name}, {'from nothing' if teacher is None else f'from a copy of {teacher}'}")
        for label, changes in HORIZONS.items():
            values = []
            for seed in range(options.seeds):
                model = learner(env_id, instance, changes, seed, teacher).learn(options.steps)
                values.append(final(model, env_id, instance))
            found.setdefault(f"{env_id} {name}", {})[label] = values
            print(row(label, values), flush=True)

    for env_id, name in LOADED:
        instance = find(env_id).model.load(name)
        print(f"{env_id}, {name}")
        for label in ("own load", "rising load"):
            values = []
            for seed in range(options.seeds):
                if label == "own load":
                    model = learner(env_id, instance, {}, seed).learn(options.steps)
                else:
                    model = with_rising_load(env_id, instance, options.steps, seed)
                values.append(final(model, env_id, instance))
            found.setdefault(f"{env_id} {name}", {})[label] = values
            print(row(label, values), flush=True)

    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
