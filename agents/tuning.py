"""The search for hyperparameters of an instance: Optuna's sampler and pruner around `train`.

Each trial is a training; one that is worse than the median of earlier ones at the same point of the learning curve is given up.
Trials are kept in the folder, so that a search can be interrupted and continued.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matchgym.agents.curve import CurvePoint
from matchgym.agents.files import write_whole
from matchgym.agents.hyperparameters import default_timesteps, hyperparameters_for
from matchgym.agents.recording import Measurement
from matchgym.agents.training import default_algorithm, instance_or_default, train
from matchgym.envs.instance import InputError, is_count, shorten
from matchgym.envs.registry import find

# What is searched: name -> (lowest, highest) of a number whose logarithm is uniform, or a list of choices.
_ON_POLICY: Mapping[str, Any] = {
    "learning_rate": (1e-4, 5e-3),
    "gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.998],
    "gae_lambda": [0.7, 0.8, 0.9, 0.95, 1.0],
    "n_steps": [16, 32, 64, 128],
    "ent_coef": (1e-5, 1e-1),
    "net_arch": ["32", "64", "64,64", "128,128"],
    "endless": [False, True],
}
_CLIPPED: Mapping[str, Any] = {
    **_ON_POLICY,
    "n_epochs": [2, 4, 8],
    "batch_size": [512, 1024, 2048],
    "clip_range": [0.1, 0.2, 0.3],
}
_VALUES: Mapping[str, Any] = {
    "learning_rate": (1e-4, 5e-3),
    "gamma": [0.9, 0.95, 0.98, 0.99, 0.995],
    "batch_size": [256, 512, 1024],
    "target_update_interval": [500, 1000, 4000],
    "exploration_fraction": [0.1, 0.3, 0.5],
    "net_arch": ["32", "64", "64,64", "128,128"],
}
_SOFT: Mapping[str, Any] = {
    "learning_rate": (1e-4, 3e-3),
    "gamma": [0.0, 0.5, 0.9, 0.95, 0.98, 0.99],
    "tau": [0.005, 0.01, 0.05],
    "batch_size": [256, 512],
    "net_arch": ["32", "64", "64,64"],
}
SPACES: Mapping[str, Mapping[str, Any]] = {
    "maskable_ppo": _CLIPPED,
    "ppo": _CLIPPED,
    "recurrent_ppo": {name: values for name, values in _CLIPPED.items() if name != "n_steps"},
    "a2c": _ON_POLICY,
    "dqn": _VALUES,
    "qrdqn": _VALUES,
    "sac": _SOFT,
    "tqc": _SOFT,
}
MEASUREMENT = Measurement(points=8, rows=128, decisions=600, final_decisions=2000)


@dataclass(frozen=True)
class Tuning:
    """What `tune` has found."""

    params: dict[str, Any]  # the best trial's changes to the algorithm's table
    value: float  # its objective, measured under fresh seeds
    trials: int  # finished, pruned ones not counted
    pruned: int
    recipe: str  # an entry for recipes.toml


def tune(
    env_id: str,
    instance: Any = None,
    algo: str | None = None,
    trials: int = 20,
    timesteps: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    measurement: Measurement = MEASUREMENT,
    report: Callable[[str], None] = lambda line: None,
) -> Tuning:
    """Search the hyperparameters of `algo` (default: as `train`) on an instance by `trials` trainings of `timesteps` each.

    Called again with the same folder (default: runs/tune-<id>-<instance>-<algo>), it goes on to `trials` trials in all. Raises
    InputError if an argument is wrong or Optuna is missing.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError as error:
        raise InputError(f'tuning needs the package {error.name}; install it with: pip install "matchgym[tune]".') from None
    entry = find(env_id)
    chosen = instance_or_default(entry, instance)
    algo = default_algorithm(entry.id, chosen) if algo is None else algo
    total = default_timesteps(entry.id, algo, chosen.name) if timesteps is None else timesteps
    if not is_count(trials, 1):
        raise InputError(f"trials must be an integer >= 1, not {shorten(trials)}.")
    home = Path("runs") / f"tune-{entry.id}-{chosen.name}-{algo}" if folder is None else Path(folder)
    home.mkdir(parents=True, exist_ok=True)

    table = hyperparameters_for(entry.id, algo, None, chosen.name)

    def suggest(trial: Any) -> dict[str, Any]:
        found = {}
        for name, values in SPACES[algo].items():
            is_range = isinstance(values, tuple)
            found[name] = trial.suggest_float(name, *values, log=True) if is_range else trial.suggest_categorical(name, values)
        found = within_rollout(found, table)
        trial.set_user_attr("params", found)
        return found

    def objective(trial: Any) -> float:
        points = [0]

        def watch(point: CurvePoint) -> None:
            trial.report(point.mean, points[0])
            points[0] += 1
            if trial.should_prune():
                raise optuna.TrialPruned

        result = train(
            entry.id, chosen, algo, total, seed, suggest(trial), folder=home / f"trial-{trial.number}",
            measurement=measurement, progress=False, watch=watch,
        )  # fmt: skip
        report(f"trial {trial.number}: {result.final.mean:.6g}")
        return result.final.mean

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name="matchgym",
        direction="maximize",
        storage=JournalStorage(JournalFileBackend(str(home / "trials.log"))),
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        load_if_exists=True,
    )
    over = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    study.optimize(objective, n_trials=max(0, trials - len(study.get_trials(states=over))))
    best = study.best_trial
    params = best.user_attrs["params"]
    recipe = _recipe(entry.id, algo, chosen.name, total, params)
    write_whole(home / "recipe.toml", recipe)
    counts = [len(study.get_trials(states=(state,))) for state in over]
    return Tuning(params, float(study.best_value), counts[0], counts[1], recipe)


def within_rollout(found: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The suggested parameters, with a batch that is no larger than what is played between two updates."""
    both = {**table, **found}
    if "n_steps" not in both or "batch_size" not in found:
        return dict(found)
    return {**found, "batch_size": min(found["batch_size"], both["n_envs"] * both["n_steps"])}


def _recipe(env_id: str, algo: str, instance: str, timesteps: int, params: Mapping[str, Any]) -> str:
    """An entry for recipes.toml."""
    lines = [f"[{env_id}.{algo}.{json.dumps(instance)}]", f"timesteps = {timesteps}"]
    for name, value in sorted(params.items()):
        listed = [int(width) for width in value.split(",")] if name == "net_arch" else value
        lines.append(f"{name} = {json.dumps(listed)}")
    return "\n".join(lines) + "\n"
