"""The commands envs, bound, evaluate and train."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import matchgym
from matchgym.baselines import evaluate as run_evaluation
from matchgym.baselines.evaluation import check_counts, run_length
from matchgym.baselines.policy import parse_arguments
from matchgym.baselines.scoring import Score, score_exactly, score_simulated
from matchgym.cli.artefacts import check, export, zoo
from matchgym.cli.experiments import frontier, reproduce
from matchgym.cli.leaderboard import leaderboard, submit
from matchgym.cli.learning import dataset, tune
from matchgym.cli.output import (
    Stopwatch,
    console,
    find_policy,
    make_folder,
    named_values,
    print_json,
    progress_bar,
    significant,
)
from matchgym.cli.stability import stability
from matchgym.envs.instance import InputError
from matchgym.envs.registry import ENTRIES, find

app = typer.Typer(
    help="Reinforcement-learning environments for stochastic matching, scored against certified bounds.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(leaderboard, name="leaderboard")
app.command()(frontier)
app.command()(reproduce)
app.command()(stability)
app.command()(tune)
app.command()(dataset)
app.command()(export)
app.command()(check)
app.command()(zoo)
app.command()(submit)

Id = Annotated[str, typer.Argument(metavar="ID", help="An environment id, see `matchgym envs`.")]
InstanceOption = Annotated[str | None, typer.Option("--instance", help="A catalogue name or the path of a JSON file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Short = Annotated[str | None, typer.Option("--short", metavar="I,J", help="Short queues, from 0 (matching queues).")]
Caps = Annotated[str | None, typer.Option("--caps", metavar="C,D", help="Their caps, in the same order.")]
Param = Annotated[list[str], typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the policy or algorithm.")]


def load(env_id: str, instance: str | None) -> tuple[Any, Any]:
    """The registry's entry and the instance meant by two arguments."""
    entry = find(env_id)
    return entry, entry.model.load(next(iter(entry.model.catalogue)) if instance is None else instance)


def show_version(wanted: bool) -> None:
    if wanted:
        print(matchgym.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options before the command."""


@app.command()
def envs(as_json: Json = False) -> None:
    """List the environments with their paper, instances, bounds and policies."""
    rows = [
        {
            "id": entry.id,
            "paper": entry.paper,
            "instances": list(entry.model.catalogue),
            "bounds": list(entry.layer("bounds").KINDS),
            "policies": list(entry.layer("baselines").POLICIES),
        }
        for entry in ENTRIES
    ]
    if as_json:
        return print_json({"environments": rows})
    for row in rows:
        table = Table(title=f"{row['id']}  ({row['paper']})", title_justify="left", show_header=False, box=None, padding=(0, 2))
        for key in ("instances", "bounds", "policies"):
            table.add_row(key, ", ".join(row[key]))
        console.print(table)


@app.command()
def bound(
    env_id: Id,
    instance: InstanceOption = None,
    kind: Annotated[str | None, typer.Option("--kind", help="A kind of bound, see `matchgym envs`.")] = None,
    short: Short = None,
    caps: Caps = None,
    warmup: Annotated[int | None, typer.Option(help="Decisions skipped (kind throughput-run of freelance markets).")] = None,
    decisions: Annotated[int | None, typer.Option(help="Decisions counted after them.")] = None,
    as_json: Json = False,
) -> None:
    """Bound what any policy can earn, and check the certificate in exact arithmetic."""
    watch = Stopwatch()
    entry, loaded = load(env_id, instance)
    layer = entry.layer("bounds")
    run = [(name, None if value is None else str(value)) for name, value in (("warmup", warmup), ("decisions", decisions))]
    given = {name: text for name, text in (("short", short), ("caps", caps), *run) if text is not None}
    found = layer.bound(loaded, layer.KINDS[0] if kind is None else kind, **parse_arguments(layer.bound, given, "bound"))
    found.verify()
    record = {
        "id": entry.id,
        "instance": loaded.name,
        "sha256": loaded.sha256,
        "kind": found.kind,
        "sense": found.sense,
        "value": found.value,
        "certified_value": found.certified_value,
        "lower": found.lower,
        "upper": found.upper,
        **found.report,
        "seconds": watch.seconds,
    }
    if as_json:
        return print_json(record)
    console.print(f"{found.kind} ({found.sense} bound) on {entry.id}, instance {loaded.name}")
    console.print(f"  certified value  {found.certified_value:.10g}   {found.unit}")
    if found.lower is not None and found.upper is not None:
        console.print(f"  bracket          [{found.lower:.12g}, {found.upper:.12g}]")
    console.print(f"  solver's value   {found.value:.10g}")
    console.print(f"  verified in exact arithmetic; {watch.seconds:.2f} s")
    return None


@app.command()
def evaluate(
    env_id: Id,
    policy: Annotated[str, typer.Option("--policy", help="A policy, see `matchgym envs`, or the folder of a trained agent.")],
    instance: InstanceOption = None,
    replications: Annotated[int, typer.Option(help="Independent replications, at least 2.")] = 32,
    warmup: Annotated[
        int | None,
        typer.Option(help="Decisions skipped in each replication; 2000 or more, or 0 of an episode or a freelance market."),
    ] = None,
    decisions: Annotated[
        int | None, typer.Option(help="Decisions counted; 20000 or more (designs 500), or an episode.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Replication b is seeded with SEED + b.")] = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Solve the policy's Markov chain instead (small instances).")] = False,
    short: Short = None,
    caps: Caps = None,
    param: Param = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Score a policy against the bound: 0 is the anchor (reward-greedy or alike), 1 the certified bound."""
    watch = Stopwatch()
    entry, loaded = load(env_id, instance)
    queues = [f"{name}={text}" for name, text in (("short", short), ("caps", caps)) if text is not None]
    fitted = find_policy(entry, policy, named_values(param + queues)).fit(loaded)
    if exact:
        check_counts(replications, seed)
        run_length(entry.model, loaded, warmup, decisions)
        score = score_exactly(entry, fitted)
    else:
        with progress_bar(f"{policy} on {loaded.name}") as progress:
            found = run_evaluation(fitted, entry.id, loaded, replications, warmup, decisions, seed, progress=progress)
        score = score_simulated(entry, fitted, found, warmup, decisions)
    record = {"id": entry.id, "policy": policy, "instance": loaded.name, "sha256": loaded.sha256, **score.to_dict()}
    record["seconds"] = watch.seconds
    if as_json:
        print_json(record)
    else:
        show_score(policy, entry.id, loaded.name, score)
        console.print(f"  {watch.seconds:.2f} s")
    if score.is_above_bound:
        print(
            f"BUG: the mean of {policy} exceeds the certified bound by more than its interval; please report it.",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def show_score(policy: str, env_id: str, instance: str, score: Score) -> None:
    """Print a score for people."""
    objective = score.objective
    console.print(f"{policy} on {env_id}, instance {instance}")
    how = "exact" if score.replications == 0 else f"95 % over {score.replications} replications"
    console.print(f"  objective  {objective.mean:.6g}   [{objective.low:.6g}, {objective.high:.6g}]  {how}")
    console.print(f"  bound      {score.bound.certified_value:.6g}   {score.bound.kind}, certified")
    for name, rate in score.rates.items():
        console.print(f"  {name:10s} {rate.mean:.6g}   [{rate.low:.6g}, {rate.high:.6g}]  per unit of time")
    for name, slope in score.trends.items():
        console.print(f"  {name:10s} {slope.mean:.6g}   [{slope.low:.6g}, {slope.high:.6g}]  per unit of time, least squares")
    console.print(f"  anchor     {score.anchor.mean:.6g}   {score.anchor_policy}")
    console.print(
        f"  score      {significant(score.score, 4)}   (0 anchor, 1 bound); objective / bound {significant(score.ratio, 4)}"
    )


@app.command()
def train(
    env_id: Id,
    algo: Annotated[
        str | None,
        typer.Option(
            help="maskable_ppo, ppo, a2c, recurrent_ppo, dqn, qrdqn, sac or tqc; by default the first, or ppo for Box actions."
        ),
    ] = None,
    timesteps: Annotated[int | None, typer.Option(help="Environment steps; the default is the recipe's.")] = None,
    imitate: Annotated[
        str | None, typer.Option(help="A baseline whose decisions are copied first, or none; the default is the recipe's.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many points of the learning curve without a better one.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="A folder for TensorBoard's logs.")] = None,
    instance: InstanceOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the network and of the environment.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Where to write; by default runs/<id>-<instance>-<algo>-s<seed>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    param: Param = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Train an agent with Stable-Baselines3, draw its learning curve and score it."""
    from matchgym.agents.training import default_algorithm
    from matchgym.cli.training import train_and_score

    watch = Stopwatch()
    entry, loaded = load(env_id, instance)
    algo = default_algorithm(entry.id, loaded) if algo is None else algo
    if folder is not None and not folder.name:
        raise InputError(f"--folder {str(folder)!r} names no folder of its own; give a new one.")
    result, score = train_and_score(
        entry, loaded, algo, timesteps, seed, folder, resume, named_values(param),
        teacher=imitate, patience=patience, tensorboard=tensorboard,
    )  # fmt: skip
    record = {
        "id": entry.id,
        "instance": loaded.name,
        "sha256": loaded.sha256,
        "algorithm": algo,
        "folder": str(result.folder),
        "timesteps": result.timesteps,
        "frames_per_second": result.frames_per_second,
        **score.to_dict(),
        "seconds": watch.seconds,
    }
    if as_json:
        return print_json(record)
    show_score(algo, entry.id, loaded.name, score)
    console.print(f"  {result.timesteps:,} steps at {result.frames_per_second:,.0f} per second; {result.folder}/curve.png")
    return None


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where to write the agent and the page.")] = Path("runs/demo"),
    timesteps: Annotated[int | None, typer.Option(help="Training steps of the agent.")] = None,
) -> None:
    """The main job in about two minutes: bounds, baselines, a trained agent, a leaderboard page."""
    from matchgym.cli.demo import run_demo

    if timesteps is not None and timesteps < 1:
        raise InputError(f"--timesteps must be >= 1, not {timesteps}.")
    make_folder("--folder", folder)
    run_demo(folder, timesteps)
