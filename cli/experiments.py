"""The commands `frontier` and `reproduce`: an experiment's data as JSON and its picture as PNG."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from matchgym.baselines.experiments import all_experiments, experiments_of
from matchgym.cli.output import Stopwatch, console, finite, make_folder, print_json, progress_bar
from matchgym.envs.instance import InputError, is_count, unknown
from matchgym.envs.registry import find

MOST_REPLICATIONS = 100_000

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def frontier(
    env_id: Annotated[str, typer.Argument(metavar="ID", help="An environment id, see `matchgym envs`.")],
    instance: Annotated[str | None, typer.Option("--instance", help="A catalogue name or the path of a JSON file.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("runs/frontier"),
    as_json: Json = False,
) -> None:
    """Draw cost against throughput: the best there is, static rules and policies (matching queues)."""
    watch = Stopwatch()
    entry = find(env_id)
    module = experiments_of(entry)
    if module is None or not hasattr(module, "run_frontier"):
        raise InputError(f"{entry.id} has no cost-throughput frontier; MatchingQueues-v0 has.")
    loaded = entry.model.load(next(iter(entry.model.catalogue)) if instance is None else instance)
    with progress_bar(f"frontier of {loaded.name}") as progress:
        data = module.run_frontier(loaded, progress)
    written = write(out, f"{entry.id}-{loaded.name}", data, module.draw_frontier)
    if as_json:
        return print_json(data | written | {"seconds": watch.seconds})
    console.print(f"{entry.id}, instance {loaded.name}: frontier {data['frontier']['kind']}")
    for point in data["policies"]:
        console.print(f"  {point['policy']:20s} throughput {point['throughput']:.6g}   cost {point['cost_rate']:.6g}")
    console.print(f"  {written['png']}   {written['data']}   {watch.seconds:.1f} s")
    return None


def reproduce(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A figure or table, see --list.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the names.")] = False,
    replications: Annotated[int | None, typer.Option(help="Independent replications; the default is the experiment's.")] = None,
    seed: Annotated[int, typer.Option(help="Replication b is seeded with SEED + b.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("runs/reproduce"),
    as_json: Json = False,
) -> None:
    """Reproduce a figure or table of a paper as PNG and JSON."""
    watch = Stopwatch()
    known = all_experiments()
    if show_list or name is None:
        rows = [{"name": key, "summary": each.summary} for key, each in known.items()]
        if as_json:
            return print_json({"experiments": rows})
        for row in rows:
            console.print(f"{row['name']:28s} {row['summary']}", markup=False)
        return None
    if name not in known:
        raise unknown("experiment", name, known, "`matchgym reproduce --list` lists them")
    if replications is not None and (not is_count(replications, 2) or replications > MOST_REPLICATIONS):
        raise InputError(f"--replications must be an integer from 2 to {MOST_REPLICATIONS}, not {replications}.")
    size = known[name].replications if replications is None else replications
    if not is_count(seed):
        raise InputError(f"--seed must be an integer >= 0, not {seed}.")
    with progress_bar(name) as progress:
        data = {"name": name, "replications": size, "seed": seed, **known[name].run(progress, size, seed)}
    written = write(out, name, data, known[name].draw)
    if as_json:
        return print_json({**data, **written, "seconds": watch.seconds})
    for each in data.get("claims", ()):
        word = "holds " if each["holds"] else "FAILS " if size >= known[name].replications else "unsure"
        console.print(f"  {word} {each['claim']}", markup=False)
    if size < known[name].replications and "claims" in data:
        console.print(f"  {size} replications decide little; the claims are for {known[name].replications} and more.")
    console.print(f"{name}: {written['png']}   {written['data']}   {watch.seconds:.1f} s")
    return None


def write(out: Path, stem: str, data: dict[str, Any], draw: Callable[[Any, dict[str, Any]], None]) -> dict[str, str]:
    """Write stem.json and stem.png into a folder; their paths."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError(f'drawing needs the package {error.name}; install it with: pip install "matchgym[rl]".') from None
    make_folder("--out", out)
    stem = "".join(character if character.isalnum() or character in "-._" else "_" for character in stem)
    (out / f"{stem}.json").write_text(json.dumps(finite(data), indent=1, allow_nan=False) + "\n")
    figure = Figure(dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, data)
    for axes in figure.axes:
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / f"{stem}.png", format="png")
    return {"png": str(out / f"{stem}.png"), "data": str(out / f"{stem}.json")}
