"""`matchgym train`: train, measure against bound and baselines, draw."""

import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from matchgym.baselines import evaluate
from matchgym.baselines.evaluation import Evaluation, drawn_instances, run_length
from matchgym.baselines.scoring import Score, score_simulated
from matchgym.cli.output import progress_bar
from matchgym.envs.instance import InputError
from matchgym.envs.registry import Entry

REPLICATIONS = 32  # of the final score, as `matchgym evaluate` has them
SEED = 0


def reference_lines(entry: Entry, instance: Any) -> dict[str, float]:
    """What a learning curve is compared with: the certified bound, the optimum if it can be had, and the best baseline."""
    layer = entry.layer("bounds")
    skipped, counted = run_length(entry.model, instance, None, None)
    size = (skipped // 2, counted // 4) if entry.model.episode is None else (skipped, counted)
    drawn = drawn_instances(entry, instance, REPLICATIONS, SEED)
    ceilings = [layer.bound(each).certified_value for each in drawn or (instance,)]
    lines = {f"bound ({layer.KINDS[0]})": sum(ceilings) / len(ceilings)}
    with contextlib.suppress(InputError):  # too large, or no such kind: the curve goes without
        best_policy = layer.bound(instance, getattr(layer, "EXACT", "optimum"))
        if best_policy.lower is not None:
            lines["exact optimum"] = best_policy.value
    best: tuple[str, Evaluation] | None = None
    policies = entry.layer("baselines").POLICIES
    with progress_bar("baselines") as progress:
        for done, (name, kind) in enumerate(policies.items()):
            progress(done / len(policies))
            if name == "optimal":  # stands there as the exact optimum
                continue
            try:
                policy = kind().fit(instance)
            except InputError as error:  # one baseline less
                print(f"without {name}: {error}", file=sys.stderr)
                continue
            found = evaluate(policy, entry.id, instance, REPLICATIONS, *size, SEED)
            if name == next(iter(policies)):
                lines[name] = found.objective.mean
            if best is None or found.objective.mean > best[1].objective.mean:
                best = name, found
    assert best is not None
    lines[f"best baseline ({best[0]})"] = best[1].objective.mean
    return lines


def train_and_score(
    entry: Entry,
    instance: Any,
    algo: str,
    timesteps: int | None,
    seed: int,
    folder: Path | None,
    resume: bool,
    params: dict[str, str],
    **further: Any,
) -> tuple[Any, Score]:
    """Train an agent, draw its curve with the reference lines, and score it as `matchgym evaluate` would."""
    from matchgym.agents import hyperparameters_for, train

    hyperparameters_for(entry.id, algo, params, instance.name)  # refuses what is unknown before the baselines are run
    lines = partial(reference_lines, entry, instance)
    result = train(entry.id, instance, algo, timesteps, seed, params, folder=folder, resume=resume, lines=lines, **further)
    policy = result.policy
    with progress_bar("scoring") as progress:
        found = evaluate(policy, entry.id, instance, REPLICATIONS, seed=SEED, progress=progress)
    return result, score_simulated(entry, policy, found)
