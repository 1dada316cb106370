"""The command `stability`: is an instance stable, how much load is left, and what is the bottleneck.

A model that can tell has `stability(instance, ...)` in its module of bounds, which returns a `Report`.
"""

import inspect
from typing import Annotated, Any, Protocol

import typer

from matchgym.baselines.policy import parse_arguments
from matchgym.cli.output import Stopwatch, console, print_json
from matchgym.envs.instance import InputError
from matchgym.envs.registry import ENTRIES, find


class Report(Protocol):
    """What a model's `stability` returns."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        ...

    def lines(self) -> list[str]:
        """The same for people, one screen at most."""
        ...


def stability(
    env_id: Annotated[str, typer.Argument(metavar="ID", help="An environment id, see `matchgym envs`.")],
    instance: Annotated[str | None, typer.Option("--instance", help="A catalogue name or the path of a JSON file.")] = None,
    times: Annotated[str | None, typer.Option("--times", metavar="T,...", help="Also the state at these times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Tell whether an instance is stable, how much load is left, and what the bottleneck is."""
    watch, entry = Stopwatch(), find(env_id)
    report_of = getattr(entry.layer("bounds"), "stability", None)
    if report_of is None:
        able = [each.id for each in ENTRIES if hasattr(each.layer("bounds"), "stability")]
        raise InputError(f"{entry.id} has no report of stability; {', '.join(able)} have.")
    if times is not None and "times" not in inspect.signature(report_of).parameters:
        raise InputError(f"--times is not for {entry.id}; leave it out.")
    given = {} if times is None else {"times": times}
    loaded = entry.model.load(next(iter(entry.model.catalogue)) if instance is None else instance)
    report: Report = report_of(loaded, **parse_arguments(report_of, given, "stability"))
    if as_json:
        return print_json(
            {"id": entry.id, "instance": loaded.name, "sha256": loaded.sha256, **report.as_dict(), "seconds": watch.seconds}
        )
    console.print(f"stability of {entry.id}, instance {loaded.name}")
    for line in report.lines():
        console.print(f"  {line}", markup=False)
    console.print(f"  {watch.seconds:.2f} s")
    return None
