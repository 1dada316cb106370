"""Training: Stable-Baselines3's algorithms on the native vector environments, with checkpoints and a learning curve.

The tasks never end and are scored by their mean reward, so the curve shows the long-run objective, as `matchgym evaluate`
estimates it, and the best policy along it is kept.
"""

import csv
import io
import json
import pickle
import platform
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import matchgym
from matchgym.agents.curve import CurvePoint, draw_curve, measure
from matchgym.agents.extra import BaseCallback, Logger, configure, torch
from matchgym.agents.files import write_whole
from matchgym.agents.hyperparameters import default_timesteps, hyperparameters_for, preferred_algorithm, recipe_for
from matchgym.agents.learner import build, restore, snapshot, spread_seed
from matchgym.agents.policy import AgentPolicy
from matchgym.agents.sb3 import make_native
from matchgym.baselines.evaluation import BATCHES
from matchgym.baselines.policy import Policy
from matchgym.envs.instance import InputError, Instance, is_count, shorten, unknown
from matchgym.envs.registry import Entry, find

PACKAGES = ("gymnasium", "numpy", "numba", "torch", "stable-baselines3", "sb3-contrib")
# What unpickling raises on a file that is not a checkpoint of this version.
UNREADABLE = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError, OSError, TypeError, ValueError,
)  # fmt: skip
Lines = Mapping[str, float | None]
MOST = 10**12  # steps, rows or decisions
MUST_AGREE = (
    "id",
    "instance_sha256",
    "algo",
    "params",
    "options",
    "teacher",
    "patience",
    "timesteps",
    "seed",
    "measurement",
)  # to resume


@dataclass(frozen=True)
class Measurement:
    """How the policy is measured during training and after it."""

    points: int = 20  # of the learning curve, after the one before training
    rows: int = 256  # independent replications
    warmup: int | None = None  # decisions per row that are not counted; None: as long as a start is remembered, 300 to 3000
    decisions: int = 300  # counted decisions per row, at each point of the curve
    final_decisions: int = 4000  # counted decisions per row, at the end, under seeds never used before


@dataclass(frozen=True)
class TrainingResult:
    """What `train` leaves."""

    folder: Path  # model.zip, config.json, progress.csv, curve.json, curve.png
    policy: AgentPolicy  # the best policy of the learning curve
    timesteps: int  # environment steps trained
    seconds: float  # wall time, over all sessions of a resumed training
    frames_per_second: float  # environment steps per second of training, measuring and saving left out
    evaluations: list[CurvePoint]  # the learning curve
    final: CurvePoint  # `policy`, measured under fresh seeds


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
    measurement: Measurement = Measurement(),
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


class Recorder(BaseCallback):
    """Measures, saves and shows progress between two updates of the learner, where its state is whole."""

    def __init__(
        self,
        files: "Files",
        config: Mapping[str, Any],
        measurement: Measurement,
        console: Console,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.files, self.config, self.measurement = files, config, measurement
        self.watch: Callable[[CurvePoint], None] | None = None
        self.evaluations: list[CurvePoint] = saved["evaluations"] if saved else []
        self.rows: list[dict[str, float]] = saved["rows"] if saved else []
        self.earlier: float = saved["seconds"] if saved else 0.0
        self.aside: float = saved["aside"] if saved else 0.0  # seconds spent on measuring and saving
        self.saved_at: int = saved["timesteps"] if saved else 0
        self.started = self.shown = time.perf_counter()
        entry = find(config["id"])
        self.instance = entry.model.load(config["instance"])
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(), console=console, disable=console.quiet, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task(f"training {config['algo']}", total=config["timesteps"], note="")

    def seconds(self) -> float:
        """Wall time so far, over all sessions."""
        return self.earlier + time.perf_counter() - self.started

    def frames_per_second(self) -> float:
        return self.model.num_timesteps / max(self.seconds() - self.aside, 1e-9)

    def _on_rollout_start(self) -> None:
        done, total = self.model.num_timesteps, self.config["timesteps"]
        if time.perf_counter() - self.shown > 0.1:
            self.shown = time.perf_counter()
            note = f"{self.frames_per_second():,.0f} steps/s"
            if self.evaluations:
                note += f"  objective {self.evaluations[-1].mean:.4g}"
            self.bar.update(self.task, completed=done, note=note)
        points = self.measurement.points
        if not self.evaluations or done * points // total > self.evaluations[-1].timesteps * points // total:
            self.evaluate()
        if done >= self.saved_at + self.config["checkpoint_every"] and not self.is_over():
            self.save()

    def _on_step(self) -> bool:
        """Whether to go on."""
        return not self.is_over()

    def is_over(self) -> bool:
        """Whether `patience` points of the curve have brought nothing better."""
        patience, means = self.config["patience"], [point.mean for point in self.evaluations]
        return patience is not None and len(means) - 1 - int(np.argmax(means)) >= patience

    def evaluate(self) -> None:
        """Add a point to the learning curve; the best policy so far becomes model.zip."""
        began = time.perf_counter()
        setting = self.measurement
        policy = AgentPolicy(self.model, self.config["id"], self.config["options"])
        point = measure(
            policy.fit(self.instance), self.config["id"], self.instance,
            spread_seed(self.config["seed"], 1), setting.rows, setting.warmup or 0, setting.decisions,
            self.model.num_timesteps, self.seconds(),
        )  # fmt: skip
        if not self.evaluations or point.mean >= max(earlier.mean for earlier in self.evaluations):
            network = io.BytesIO()
            self.model.save(network)
            write_whole(self.files.model, network.getvalue())
        self.evaluations.append(point)
        self.logger.record("matchgym/objective", point.mean)
        self.rows.append(self._row(point))
        self.files.write_progress(self.rows)
        self.files.write_curve(self.evaluations, self.frames_per_second(), None)
        self.aside += time.perf_counter() - began
        if self.watch is not None:
            self.watch(point)

    def _row(self, point: CurvePoint) -> dict[str, float]:
        row = asdict(point) | {"frames_per_second": self.frames_per_second()}
        recent = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if recent:
            row["episode_reward"] = float(np.mean(recent))
        return row | {
            name.removeprefix("train/"): float(value)
            for name, value in self.logger.name_to_value.items()
            if name.startswith("train/") and isinstance(value, int | float | np.number)
        }

    def save(self, is_interrupted: bool = False) -> None:
        """Write a checkpoint, in one stroke."""
        began = time.perf_counter()
        record = snapshot(self.model, is_interrupted)
        self.saved_at = self.model.num_timesteps
        record |= {"config": dict(self.config), "timesteps": self.saved_at, "evaluations": self.evaluations}
        record |= {"rows": self.rows, "seconds": self.seconds(), "aside": self.aside}
        write_whole(self.files.checkpoint, pickle.dumps(record))
        self.aside += time.perf_counter() - began

    def finish(self) -> None:
        """The last point of the curve."""
        if not self.evaluations or self.evaluations[-1].timesteps < self.model.num_timesteps:
            self.evaluate()
        self.bar.update(self.task, completed=self.model.num_timesteps)


class Files:
    """The files of a training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.model = folder / "config.json", folder / "model.zip"
        self.progress, self.curve, self.picture = (
            folder / "progress.csv",
            folder / "curve.json",
            folder / "curve.png",
        )
        self.checkpoint = folder / "checkpoint.pkl"

    def start(self, config: Mapping[str, Any]) -> None:
        """Make the folder, free of the files of an earlier training."""
        kept = [path for path in (self.model, self.progress, self.curve, self.picture, self.checkpoint) if path.exists()]
        if kept and not self.config.is_file():
            raise InputError(f"folder {shorten(str(self.folder))} holds a {kept[0].name} of something else; name another.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self.model, self.progress, self.curve, self.picture, self.checkpoint):
                path.unlink(missing_ok=True)
            write_whole(self.config, json.dumps(config, indent=1).encode())
        except OSError as error:
            raise InputError(
                f"folder {shorten(str(self.folder))} cannot be written ({error.strerror}); name another."
            ) from None

    def read_checkpoint(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The checkpoint of the same training, if there is one; InputError if it is of another training."""
        if not self.checkpoint.is_file():
            return None
        try:
            saved = pickle.loads(self.checkpoint.read_bytes())
            before = saved["config"]
        except UNREADABLE:
            raise InputError(f"checkpoint.pkl in {shorten(str(self.folder))} cannot be read; train without resume.") from None
        self._check_agreement(before, config)
        return saved

    def read_result(self, config: Mapping[str, Any]) -> TrainingResult | None:
        """The result of a training that came to its end."""
        try:
            curve, before = json.loads(self.curve.read_text()), json.loads(self.config.read_text())
        except (OSError, ValueError):
            return None
        if not curve.get("final") or not self.model.is_file():
            return None
        self._check_agreement(before, config)
        evaluations, final = (
            [CurvePoint(**point) for point in curve["evaluations"]],
            CurvePoint(**curve["final"]),
        )
        return TrainingResult(
            self.folder, AgentPolicy.load(self.folder, config["torch_threads"]).fit(config["instance"]), final.timesteps,
            final.seconds, curve["frames_per_second"], evaluations, final,
        )  # fmt: skip

    def _check_agreement(self, before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        for name in MUST_AGREE:
            if before.get(name) != config[name]:
                raise InputError(
                    f"{name} differs from the training in {shorten(str(self.folder))}; give the same, or do not resume."
                )

    def write_progress(self, rows: list[dict[str, float]]) -> None:
        """progress.csv, a row per point of the learning curve."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.progress, text.getvalue().encode())

    def write_curve(self, evaluations: list[CurvePoint], frames_per_second: float, final: CurvePoint | None) -> None:
        """curve.json; `final` is null until the training has come to its end."""
        record = {
            "evaluations": [asdict(point) for point in evaluations],
            "final": asdict(final) if final else None,
            "frames_per_second": frames_per_second,
        }
        write_whole(self.curve, json.dumps(record, indent=1).encode())
