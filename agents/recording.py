"""What a training leaves behind: its measurements, its files, its checkpoints and its result."""

import csv
import io
import json
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from matchgym.agents.curve import CurvePoint, measure
from matchgym.agents.extra import BaseCallback
from matchgym.agents.files import write_whole
from matchgym.agents.learner import snapshot, spread_seed
from matchgym.agents.policy import AgentPolicy
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.registry import find

# What unpickling raises on a file that is not a checkpoint of this version.
UNREADABLE = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError, OSError, TypeError, ValueError,
)  # fmt: skip
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
