"""The commands `tune` and `dataset`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from matchgym.cli.output import Stopwatch, console, find_policy, make_folder, named_values, print_json
from matchgym.envs.registry import find

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="An environment id.")]
InstanceOption = Annotated[
    str | None, typer.Option("--instance", metavar="X", help="A catalogue name or a path to a JSON file.")
]


def tune(
    env_id: Id,
    instance: InstanceOption = None,
    algo: Annotated[str | None, typer.Option(help="An algorithm, as for `train`.")] = None,
    trials: Annotated[int, typer.Option(help="Trainings in all, those of an earlier call included.")] = 20,
    timesteps: Annotated[int | None, typer.Option(help="Environment steps of each; the default is the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the search and of every training.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="By default runs/tune-<id>-<instance>-<algo>.")] = None,
    as_json: Json = False,
) -> None:
    """Search the hyperparameters of an instance with Optuna; trials that fall behind are given up early."""
    from matchgym.agents.tuning import tune as search

    watch = Stopwatch()
    entry = find(env_id)
    if folder is not None:
        make_folder("--folder", folder)
    first = next(iter(entry.model.catalogue))
    found = search(
        entry.id, instance or first, algo, trials, timesteps, seed, folder,
        report=lambda line: None if as_json else console.print(line, markup=False),
    )  # fmt: skip
    if as_json:
        counts = {"trials": found.trials, "pruned": found.pruned}
        return print_json({"params": found.params, "value": found.value, **counts, "seconds": watch.seconds})
    console.print(f"best of {found.trials} trials ({found.pruned} more were given up early): {found.value:.6g}")
    console.print(found.recipe, markup=False)


def dataset(
    env_id: Id,
    policy: Annotated[str, typer.Option("--policy", help="A policy, or the folder of a trained agent.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where Minari keeps it (MINARI_DATASETS_PATH).")],
    instance: InstanceOption = None,
    episodes: Annotated[int, typer.Option(help="Episodes; episode b is seeded with seed + b.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the first episode.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="By default matchgym/<instance>/<policy>-v0.")] = None,
    param: Annotated[list[str], typer.Option("--param", help="NAME=VALUE for the policy; repeatable.")] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Write the trajectories of a policy as a Minari dataset."""
    from matchgym.agents.dataset import write_dataset
    from matchgym.cli.commands import load

    entry, loaded = load(env_id, instance)
    acting = find_policy(entry, policy, named_values(param)).fit(loaded)
    label = Path(policy).name if Path(policy).is_dir() else policy
    make_folder("--out", out)
    made = write_dataset(acting, entry.id, loaded, name or f"matchgym/{loaded.name}/{label}-v0", out, episodes, seed)
    record: dict[str, Any] = {
        "name": made.spec.dataset_id,
        "episodes": int(made.total_episodes),
        "steps": int(made.total_steps),
        "folder": str(out),
    }
    if as_json:
        return print_json(record)
    console.print(
        f"{record['name']}: {record['episodes']} episodes, {record['steps']:,} steps; read it with "
        f"MINARI_DATASETS_PATH={out} and minari.load_dataset",
        markup=False,
        soft_wrap=True,
    )
