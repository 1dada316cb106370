"""`matchgym reproduce`: the experiments of the papers, each as a PNG and a JSON file."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from matchgym.cli.congestion_experiments import EXPERIMENTS as CONGESTION
from matchgym.cli.experiments import Experiment, draw_panels, first_line
from matchgym.cli.output import Stopwatch, console, finite, print_json
from matchgym.envs.instance import InputError, is_count, unknown

EXPERIMENTS: dict[str, Experiment] = {**CONGESTION}


def reproduce(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="An experiment, see --list.")] = None,
    is_listed: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
    replications: Annotated[int, typer.Option(help="Independent replications, at least 2.")] = 200,
    seed: Annotated[int, typer.Option(help="Replication b is seeded with SEED + b.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for the PNG and the JSON file.")] = Path("runs/reproduce"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Repeat a figure or table of a paper; its statements are checked, in a corrected form too where they need one."""
    if is_listed or name is None:
        if as_json:
            return print_json({"experiments": {each: first_line(EXPERIMENTS, each) for each in EXPERIMENTS}})
        for each in EXPERIMENTS:
            console.print(f"{each:22s} {first_line(EXPERIMENTS, each)}", markup=False)
        return None
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS, "`matchgym reproduce --list` lists them")
    if not is_count(replications, 2) or replications > 10**5:
        raise InputError(f"--replications must be an integer from 2 to 100000, not {replications}.")
    if not is_count(seed):
        raise InputError(f"--seed must be an integer >= 0, not {seed}.")
    watch = Stopwatch()
    result = EXPERIMENTS[name](replications, seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror}); give another one.") from None
    what = first_line(EXPERIMENTS, name)
    record: dict[str, Any] = {"experiment": name, "what": what, "replications": replications, "seed": seed}
    record |= result.record | {"picture": str(out / f"{name}.png"), "seconds": watch.seconds}
    draw_panels(result, out / f"{name}.png", what)
    (out / f"{name}.json").write_text(json.dumps(finite(record), indent=2, allow_nan=False) + "\n")
    if as_json:
        return print_json(record)
    console.print(f"{what}   {replications} replications, {watch.seconds:.1f} s", markup=False)
    for each in result.record["claims"]:
        console.print(f"  {'holds ' if each['holds'] else 'FAILS '} {each['claim']}", markup=False)
    console.print(f"  {out / name}.png, {name}.json", markup=False)
    return None
