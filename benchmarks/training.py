"""Training speed: the native vector environment with wide batches against eight single environments with SB3's defaults.

    python benchmarks/training.py [--instance demo] [--steps 200000]

Prints frames per second of both, their ratio, and which share of MaskablePPO's wall time the environment and its adapter take
(targets: 15 times the frames, at most 3 %). Then the score that each has reached after the same wall time.
"""

import argparse
import time

import gymnasium as gym
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import DummyVecEnv

import matchgym  # noqa: F401
from matchgym.agents import AgentPolicy, hyperparameters_for, make_native
from matchgym.agents.curve import measure
from matchgym.agents.learner import build
from matchgym.agents.sb3 import SB3VecEnv

ID = "StationaryMatching-v0"


class Timed(SB3VecEnv):
    """Adds up the seconds that steps and masks take."""

    seconds = 0.0

    def step_wait(self):
        began = time.perf_counter()
        try:
            return super().step_wait()
        finally:
            self.seconds += time.perf_counter() - began

    def env_method(self, method_name, *arguments, **further):
        began = time.perf_counter()
        try:
            return super().env_method(method_name, *arguments, **further)
        finally:
            self.seconds += time.perf_counter() - began


def score(model, instance: str) -> str:
    point = measure(AgentPolicy(model, ID).fit(instance), ID, instance, 10**6, 128, 300, 1000)
    return f"{point.mean:.4f} [{point.low:.4f}, {point.high:.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instance", default="demo")
    parser.add_argument("--steps", type=int, default=200_000)
    options = parser.parse_args()
    torch.set_num_threads(1)

    table = hyperparameters_for(ID, "maskable_ppo", None, options.instance)
    native = make_native(ID, options.instance, table["n_envs"])
    wide = build("maskable_ppo", native, table, 0)
    old = wide.get_env()
    timed = Timed(native, old.reward_shift, old.reward_scale)
    wide.set_env(timed)
    wide.learn(table["n_envs"] * table["n_steps"])  # everything is compiled now
    timed.seconds, began = 0.0, time.perf_counter()
    wide.learn(options.steps)
    wall = time.perf_counter() - began
    frames = wide.num_timesteps / wall

    def single():
        return gym.make(ID, instance=options.instance)

    narrow = MaskablePPO("MlpPolicy", DummyVecEnv([single] * 8), seed=0, device="cpu")
    narrow.learn(8 * 2048)
    before, began = narrow.num_timesteps, time.perf_counter()
    while time.perf_counter() - began < wall:  # whole updates: at least as long as the other one
        narrow.learn(8 * 2048, reset_num_timesteps=False)
    plain = (narrow.num_timesteps - before) / (time.perf_counter() - began)

    share = timed.seconds / wall
    print(f"native vector environment of {table['n_envs']}: {frames:10,.0f} frames/s, environment and adapter {share:.1%}")
    print(f"DummyVecEnv(8), SB3's defaults:      {plain:10,.0f} frames/s")
    print(f"ratio: {frames / plain:.1f}")
    print(f"objective after {wall:.0f} s: {score(wide, options.instance)} against {score(narrow, options.instance)}")


if __name__ == "__main__":
    main()
