"""Training: Stable-Baselines3's algorithms on the native vector environments, with checkpoints and a learning curve.

The tasks never end and are scored by their mean reward, so the curve shows the long-run objective, as `matchgym evaluate`
estimates it, and the best policy along it is kept.
"""

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console

import matchgym
from matchgym.agents.curve import CurvePoint, draw_curve, measure
from matchgym.agents.extra import Logger, configure, torch
from matchgym.agents.hyperparameters import default_timesteps, hyperparameters_for, preferred_algorithm, recipe_for
from matchgym.agents.learner import build, restore, spread_seed
from matchgym.agents.policy import AgentPolicy
from matchgym.agents.recording import Files, Measurement, Recorder, TrainingResult
from matchgym.agents.sb3 import make_native
from matchgym.baselines.evaluation import BATCHES
from matchgym.baselines.policy import Policy
from matchgym.envs.instance import InputError, Instance, is_count, shorten, unknown
from matchgym.envs.registry import Entry, find

PACKAGES = ("gymnasium", "numpy", "numba", "torch", "stable-baselines3", "sb3-contrib")
Lines = Mapping[str, float | None]
MOST = 10**12  # steps, rows or decisions
MEASUREMENT = Measurement()


def default_algorithm(env_id: str, instance: Instance, options: Mapping[str, Any] | None = None) -> str:
    """What the recipes say of the instance; else maskable_ppo, or ppo where actions are not choices but numbers."""
    preferred = preferred_algorithm(env_id, instance.name) if options is None else None
    if preferred is not None:
        return preferred
    model = find(env_id).model
    space = model.action_space(instance, model.check_options(options or {}))
    return "ppo" if isinstance(space, gym.spaces.Box) else "maskable_ppo"


def tensorboard_logger(folder: str | Path, name: str) -> Logger:
    """Stable-Baselines3's logger for TensorBoard, into a folder of its own under `folder`."""
    try:
        return configure(str(Path(folder) / name), ["tensorboard"])
    except AssertionError:  # it has looked for the package
        raise InputError(
            "logs for TensorBoard need the package tensorboard; install it with: pip install tensorboard."
        ) from None


def instance_or_default(entry: Entry, instance: Any) -> Any:
    """The instance meant, or the environment's default for None."""
    native: Any = make_native(entry.id).unwrapped if instance is None else None
    return native.instance if instance is None else entry.model.load(instance)


def teacher_of(entry: Entry, name: str, instance: Any) -> Policy:
    """The baseline of that name, fitted."""
    policies = entry.layer("baselines").POLICIES
    if name not in policies:
        raise unknown("policy to imitate", name, policies)
    return policies[name]().fit(instance)


def train(
    env_id: str,
    instance: Any = None,
    algo: str | None = None,
    timesteps: int | None = None,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    measurement: Measurement = MEASUREMENT,
    lines: Lines | Callable[[], Lines] | None = None,
    progress: bool = True,
    torch_threads: int = 1,
    teacher: str | None = None,
    patience: int | None = None,
    tensorboard: str | Path | None = None,
    watch: Callable[[CurvePoint], None] | None = None,
) -> TrainingResult:
    """Train an agent and save it with its configuration and learning curve.

    Parameters
    ----------
    env_id : an id of the registry.
    instance : a catalogue name, a path to a JSON file or a dict of JSON values; None takes the environment's
        default.
    algo : one of `matchgym.agents.ALGORITHMS`; None takes what the recipe of the instance says, else
        maskable_ppo, or ppo where actions are not choices but numbers.
    timesteps : environment steps in total, rounded up to whole updates; None takes the recipe's or the algorithm's default.
    seed : of the network, of the training environment (row b gets seed + b) and, spread far apart, of the
        measurements.
    params : changes to the hyperparameters, see `matchgym.agents.hyperparameters`; values may be strings.
    options : further arguments of the environment; None takes the recipe's.
    folder : where to write; None means runs/<id>-<instance>-<algo>-s<seed>. A training that is there is
        replaced.
    checkpoint_every : environment steps between two checkpoints; None means a tenth of `timesteps`.
    resume : continue from the folder's last checkpoint to the same `timesteps`. Without a checkpoint training
        starts anew; a finished training is returned as it is. From a regular checkpoint of an on-policy
        algorithm the result is the same as if nothing had happened.
    measurement : how often and how long the policy is measured.
    lines : horizontal lines of the picture, label -> objective, such as {"LP bound": 4.71}; or a function that finds them,
        called only if there is something to train.
    progress : whether to show a progress bar and notices on stderr.
    torch_threads : set for the whole process.
    teacher : a baseline whose decisions are copied before training, see `matchgym.agents.imitation`; "none" for none, None
        takes what the recipe of the instance says.
    patience : stop after so many points of the learning curve without a better one; None never stops early.
    tensorboard : a folder for TensorBoard's logs; None writes none.
    watch : called with every point of the learning curve; what it raises ends the training.

    Raises
    ------
    InputError : an argument is wrong; the sentence names it.
    KeyboardInterrupt : after a checkpoint has been saved.
    """
    entry = find(env_id)
    chosen = instance_or_default(entry, instance)
    algo = default_algorithm(entry.id, chosen, options) if algo is None else algo
    recipe = recipe_for(entry.id, algo, chosen.name)
    table = hyperparameters_for(entry.id, algo, params, chosen.name)
    total = default_timesteps(entry.id, algo, chosen.name) if timesteps is None else timesteps
    options = recipe.get("options", {}) if options is None else options
    taught_by = recipe.get("imitate", "none") if teacher is None else teacher
    every = max(1, total // 10) if checkpoint_every is None and is_count(total, 1) else checkpoint_every
    if measurement.warmup is None:
        settling = entry.model.settling(chosen) if entry.model.settling is not None else 0.0
        measurement = replace(measurement, warmup=int(min(max(settling, 300), 3000)))
    counts = {"timesteps": total, "checkpoint_every": every, "torch_threads": torch_threads}
    counts |= {} if patience is None else {"patience": patience}
    for name, value in (counts | {f"measurement {name}": value for name, value in asdict(measurement).items()}).items():
        low = {"measurement rows": 2, "measurement warmup": 0, "measurement decisions": BATCHES}.get(name, 1)
        if not is_count(value, low) or value > MOST:
            raise InputError(f"{name} must be an integer from {low} to {MOST}, not {shorten(value)}.")
    if not is_count(seed) or seed >= 2**31:
        raise InputError(f"seed must be an integer from 0 to {2**31 - 1}, not {shorten(seed)}.")

    torch.set_num_threads(torch_threads)
    console = Console(stderr=True, quiet=not progress, highlight=False)
    teaching = None if taught_by == "none" else teacher_of(entry, taught_by, chosen)
    options = {**(teaching.options if teaching else {}), **options}
    entry.model.check_options(options)
    options = {name: value for name, value in options.items() if value != entry.model.options[name][0]}
    longest = -1 if table["endless"] and entry.model.episode is None else None
    native = make_native(entry.id, chosen.to_dict(), table["n_envs"], longest, options)
    if folder is None:
        folder = Path("runs") / re.sub(r"[^\w.+-]", "_", f"{entry.id}-{chosen.name}-{algo}-s{seed}")
    folder = Path(folder)
    config = {
        "id": entry.id,
        "instance": chosen.to_dict(),
        "instance_sha256": chosen.sha256,
        "algo": algo,
        "params": table,
        "options": options,
        "teacher": taught_by,
        "patience": patience,
        "timesteps": int(total),
        "seed": int(seed),
        "measurement": asdict(measurement),
        "checkpoint_every": int(every),  # type: ignore[arg-type]
        "torch_threads": int(torch_threads),
        "versions": {"matchgym": matchgym.__version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }
    files = Files(folder)
    saved = files.read_checkpoint(config) if resume else None
    if resume and saved is None and files.curve.is_file():
        finished = files.read_result(config)
        if finished is not None:
            console.print(f"{folder} is finished already; nothing to resume.")
            return finished
    lines = lines() if callable(lines) else lines
    if saved is None:
        if resume:
            console.print(f"{folder} holds no checkpoint; training starts from the beginning.")
        model = build(algo, native, table, seed, teaching)
        files.start(config)
        recorder = Recorder(files, config, measurement, console)
    else:
        model = restore(saved, algo, native, seed)
        recorder = Recorder(files, config, measurement, console, saved)
        console.print(f"Resuming {folder} at {model.num_timesteps:,} of {total:,} environment steps.")

    if tensorboard is not None:
        model.set_logger(tensorboard_logger(tensorboard, folder.name))
    recorder.watch = watch
    recorder.init_callback(model)
    heading = f"{entry.id}, {chosen.name}: {algo}"
    with recorder.bar:
        try:
            model.learn(max(int(total) - model.num_timesteps, 0), callback=recorder, reset_num_timesteps=saved is None)
            recorder.finish()
            policy = AgentPolicy.load(folder, torch_threads).fit(chosen)
            fresh = measure(
                policy, entry.id, chosen, spread_seed(seed, 2), measurement.rows, measurement.warmup or 0,
                measurement.final_decisions, model.num_timesteps, recorder.seconds(),
            )  # fmt: skip
        except KeyboardInterrupt:
            recorder.save(is_interrupted=True)
            if recorder.evaluations:
                draw_curve(recorder.evaluations, files.picture, lines, heading)
            console.print(f"Interrupted: a checkpoint is in {folder}; resume the training to continue.")
            raise
    files.write_curve(recorder.evaluations, recorder.frames_per_second(), fresh)
    draw_curve(recorder.evaluations, files.picture, lines, heading, final=fresh)
    files.checkpoint.unlink(missing_ok=True)
    return TrainingResult(
        folder,
        policy,
        model.num_timesteps,
        fresh.seconds,
        recorder.frames_per_second(),
        recorder.evaluations,
        fresh,
    )
