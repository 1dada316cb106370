"""The commands `export`, `check` and `zoo`: trained agents become artefacts, which are tried before they are submitted."""

from pathlib import Path
from typing import Annotated, Any

import typer

from matchgym.cli.output import Stopwatch, console, make_folder, print_json, progress_bar, significant
from matchgym.envs.instance import InputError, shorten

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def export(
    agents: Annotated[
        list[Path], typer.Argument(metavar="AGENT...", help="Folders written by `train`, or the model.zip in them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write the artefact.")],
    env: Annotated[str | None, typer.Option("--env", help="The id they were trained for, to be sure.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="The agent's name; by default its folder's.")] = None,
    author: Annotated[list[str], typer.Option("--author", help="Who made it; repeatable.")] = [],  # noqa: B006
    licence: Annotated[str, typer.Option("--licence", help="Licence of the networks.")] = "MIT",
    family: Annotated[
        str | None, typer.Option("--family", help="Enter them for a family, whatever they were trained on.")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="One or two sentences.")] = "Trained with matchgym.",
    as_json: Json = False,
) -> None:
    """Turn trained agents, one for each task, into an artefact: ONNX networks checked against the models, and manifest.json."""
    from matchgym.leaderboards.export import export_agents

    folders = [agent.parent if agent.name == "model.zip" else agent for agent in agents]
    if env is not None:
        from matchgym.agents.policy import AgentPolicy

        for folder in folders:
            trained_for = AgentPolicy.load(folder).env_id
            if env.removeprefix("matchgym:") != trained_for:
                raise InputError(f"the agent was trained for {trained_for}, not for --env {shorten(env)}.")
    make_folder("--out", out)
    manifest = export_agents(
        folders, out, name or folders[0].resolve().name, author or ["anonymous"], licence, description, family=family
    )
    if as_json:
        return print_json({"manifest": str(manifest)})
    console.print(f"every network decides as its model does in 10,000 states; written to {out}")
    console.print(f"try it: matchgym check {out}")


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with a manifest.json.")],
    full: Annotated[bool, typer.Option("--full", help="As many decisions as on the board; by default a twentieth.")] = False,
    as_json: Json = False,
) -> None:
    """Put an artefact through the gate of the leaderboard and evaluate it on the public seeds.

    It runs in this process, without a jail: check your own files.
    """
    from matchgym.leaderboards.artefact import read_artefact
    from matchgym.leaderboards.practice import practise

    watch = Stopwatch()
    artefact = read_artefact(folder)
    rows: list[dict[str, Any]] = []
    for file in artefact.entries:
        with progress_bar(file.task.name) as progress:
            rows.append(practise(file, full, progress))
    if as_json:
        return print_json({"agent": artefact.agent["name"], "entries": rows, "seconds": watch.seconds})
    for row in rows:
        mean, low, high = (significant(row["score"][side], 4) for side in ("mean", "low", "high"))
        console.print(
            f"{row['task']:<20} passes the gate   score {mean} [{low}, {high}]   (0 {row['anchor']}, 1 bound)", soft_wrap=True
        )
    console.print(f"{artefact.agent['name']}: ready to submit   ({watch.seconds:.1f} s)", markup=False)


def zoo(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Environment ids; by default all.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write the artefacts.")] = Path("runs/zoo"),
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where to train.")] = Path("runs/training"),
    seed: Annotated[list[int], typer.Option("--seed", help="A training seed; repeatable; by default 0 to 4.")] = [],  # noqa: B006
    timesteps: Annotated[int | None, typer.Option(help="Environment steps; the default is each recipe's.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the agents on the boards; by default zoo ID.")] = None,
) -> None:
    """Train agents for every task under several seeds, by the recipes, and export them: an artefact for each id and seed.

    Interrupted, it goes on where it was when it is called again.
    """
    from matchgym.envs.registry import find
    from matchgym.leaderboards.zoo import SEEDS, build_zoo

    chosen = [find(env_id).id for env_id in ids or ()]

    def report(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    made = build_zoo(runs, out, chosen, seed or range(SEEDS), timesteps, report, name=name)
    console.print(f"{len(made)} artefacts in {out}; submit each: matchgym submit DIR")
