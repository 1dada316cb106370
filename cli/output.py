"""What the commands share: printing, progress bars, policies and bounds by name."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from matchgym.baselines.policy import Policy, build
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.registry import Entry

console = Console(highlight=False)


def print_json(record: dict[str, Any]) -> None:
    """One JSON object on stdout; numbers that are not finite become null."""
    print(json.dumps(finite(record), indent=2, allow_nan=False))


def finite(value: Any) -> Any:
    """JSON values in which numbers that are not finite have become null."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def make_folder(option: str, path: Path) -> None:
    """Make the folder that an option names; InputError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{option} {shorten(str(path))} is not a folder; give another one.") from None
    except OSError as error:
        raise InputError(f"{option} {shorten(str(path))} cannot be written ({error.strerror}); give another one.") from None


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, shown only to a person; yields a function that takes the share done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task(label, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def named_values(texts: list[str]) -> dict[str, str]:
    """The NAME=VALUE arguments of --param."""
    values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InputError(f"--param {shorten(text)} must have the form NAME=VALUE.")
        if name in values:
            raise InputError(f"--param {name} is given twice; keep one.")
        values[name] = value
    return values


def find_policy(entry: Entry, name: str, params: dict[str, str]) -> Policy:
    """A baseline by its name, or the agent in a folder that `matchgym train` left."""
    try:
        is_agent = bool(name) and (Path(name) / "config.json").is_file()
    except (OSError, ValueError):  # too long a name, or one with a null character
        is_agent = False
    if is_agent:
        if params:
            raise InputError("--param is for the baselines; a trained agent has no parameters to set.")
        from matchgym.agents import AgentPolicy

        return AgentPolicy.load(name)
    return build(entry.layer("baselines").POLICIES, name, params)


def significant(value: float | None, digits: int = 6) -> str:
    """A number for people."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return round(time.perf_counter() - self.start, 3)
