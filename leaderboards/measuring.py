"""The measurement behind a row: replications in looks, and the bounds that rows are scored against.

A row is measured on the first 16 replications of a task, then on 64 and then on all 256, in batches that continue each other:
replication b has the task's seed + b whatever the look. After a look, a row that is significantly worse than the best classical
baseline known so far (paired t test at LEVEL / 3, so that three looks err with probability LEVEL at most) is left at that.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.evaluation import drawn_instances, evaluate
from matchgym.baselines.policy import Policy
from matchgym.baselines.statistics import batch_means_interval, t_interval
from matchgym.bounds.bound import Bound
from matchgym.envs.instance import InputError
from matchgym.leaderboards.ranking import LEVEL, paired_p_value
from matchgym.leaderboards.store import Record, Store
from matchgym.leaderboards.tasks import LOOKS, Task

DIGITS = 12  # significant digits of derived numbers; measurements and bounds are kept in full
LOOK_LEVEL = LEVEL / len(LOOKS)
TREND_LEVEL, TREND_GROWTH = 1e-3, 1.5  # of the backlog-trend test
CAP = 1000.0  # times the bound: a mean cost beyond is unstable, whatever its trend

Values = NDArray[np.float64]
Progress = Callable[[float], None]


def significant(value: float) -> float:
    """A derived number with DIGITS significant digits, which no machine's last digits reach."""
    return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Measured:
    """What was measured of a policy on a task."""

    values: Values  # (R,) objective of each replication
    batches: Values  # (R, K) of consecutive batches of decisions
    microseconds: float  # per decision, the simulation of the environment included

    @property
    def batch_means_half_width(self) -> float:
        return significant(batch_means_interval(self.batches).half_width)


def measure(
    task: Task,
    policy: Policy,
    seed: int,
    rival: Values | None = None,
    replications: int | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measure a policy look by look; the same task, policy and seed give the same values, bit for bit.

    Parameters
    ----------
    rival : (R,) values of the best classical baseline, against which hopeless rows stop early; None: no row does.
    replications : stop at this look in any case, as a replay does.
    """
    instance = task.load()
    wanted = task.replications if replications is None else replications
    if wanted not in task.looks:
        raise InputError(f"task {task.name} is measured on {', '.join(map(str, task.looks))} replications, not on {wanted}.")
    evaluate(policy, task.id, instance, 2, 0, 10, seed)  # compiles, so that the clock does not see it
    values: list[Values] = []
    batches: list[Values] = []
    done, start = 0, time.perf_counter()
    for look in task.looks:

        def share(part: float, done: int = done, look: int = look) -> None:
            if progress is not None:
                progress((done + part * (look - done)) / wanted)

        found = evaluate(policy, task.id, instance, look - done, task.warmup, task.decisions, seed + done, progress=share)
        values.append(found.values)
        batches.append(found.batches)
        done = look
        if look >= wanted or (rival is not None and is_hopeless(np.concatenate(values), rival)):
            break
    seconds = time.perf_counter() - start
    microseconds = 1e6 * seconds / (done * (task.warmup + task.decisions))
    return Measured(np.concatenate(values), np.concatenate(batches), round(microseconds, 4))


def is_hopeless(values: Values, rival: Values) -> bool:
    """Whether a row is significantly worse than the rival at one look."""
    both = min(len(values), len(rival))
    is_below = values[:both].mean() < rival[:both].mean()
    return bool(is_below and paired_p_value(values[:both], rival[:both]) <= LOOK_LEVEL)


def is_unstable(measured: Measured, certified: float) -> bool:
    """Whether a backlog grows: costs rise along the run, beyond doubt and by half; or they are beyond CAP times the bound.

    Only objectives below 0, costs of what waits, can be unstable in this sense.
    """
    batches = measured.batches
    half = batches.shape[1] // 2
    if half == 0 or measured.values.mean() >= 0:
        return False
    early, late = batches[:, :half].mean(1), batches[:, -half:].mean(1)
    is_growing = t_interval(early - late, 1 - 2 * TREND_LEVEL).low > 0 and late.mean() < TREND_GROWTH * early.mean()
    return bool(is_growing or measured.values.mean() < -CAP * max(abs(certified), 1e-9))


# Bounds.


def bound_task(task: Task, store: Store, seed: int) -> Record:
    """The record of the bounds of a task, with certificates in the store.

    Where every replication draws its own instance, it has its own bound, and `uppers` lists them.
    """
    instance = task.load()
    layer = task.entry.layer("bounds")
    drawn = drawn_instances(task.entry, instance, task.replications, seed)
    if drawn:
        found = [layer.bound(each, task.bound_kind) for each in drawn]
        certificate = [each.certificate for each in found]
        digest, is_kept = store.put_certificate(certificate)
        uppers = [upper_of(task, each) for each in found]
        bound: Record = {
            "kind": found[0].kind,
            "value": float(np.mean([each.value for each in found])),
            "lower": None,
            "upper": float(np.mean(uppers)),
            "uppers": uppers,
        }
        best: Bound | str = "every replication draws an instance of its own."
    else:
        proved = layer.bound(instance, task.bound_kind)
        digest, is_kept = store.put_certificate(proved.certificate, is_secret=bool(task.family))
        upper_of(task, proved)
        bound = {"kind": proved.kind, "value": proved.value, "lower": proved.lower, "upper": proved.upper}
        if task.family:
            bound["instance_sha256"] = instance.sha256
        best = find_optimum(task, instance)
    bound |= {"certificate_sha256": digest, "is_kept": is_kept}
    return {"task": task.name, "bound": bound, "optimum": optimum_record(best, store)}


def upper_of(task: Task, bound: Bound) -> float:
    if bound.sense != "upper" or bound.upper is None:
        raise InputError(f"task {task.name} needs an upper bound, but {task.bound_kind} is a {bound.sense} one.")
    return bound.upper


def exact_kind(task: Task) -> str | None:
    """The kind of bound that is the best policy's objective, exactly, where the model has one."""
    layer = task.entry.layer("bounds")
    kind = getattr(layer, "EXACT", "optimum")
    return kind if kind in layer.KINDS else None


def find_optimum(task: Task, instance: Any) -> Bound | str:
    """The exact optimum, or the sentence that refuses it."""
    kind = exact_kind(task)
    if task.family:
        return "it is not sought for secret instances."
    if kind is None:
        return "no programme of this model gives the exact optimum."
    try:
        found: Bound = task.entry.layer("bounds").bound(instance, kind)
    except InputError as error:
        return str(error)
    return found if found.lower is not None else f"{kind} is only an upper bound on this instance."


def optimum_record(optimum: Bound | str, store: Store) -> Record:
    if isinstance(optimum, str):
        return {"refused": optimum}
    digest, is_kept = store.put_certificate(optimum.certificate)
    return {
        "kind": optimum.kind,
        "value": optimum.value,
        "lower": optimum.lower,
        "upper": optimum.upper,
        "certificate_sha256": digest,
        "is_kept": is_kept,
    }


def certified_values(bound: Record, replications: int) -> Values:
    """The certified bound of each of the first replications (R,)."""
    given: Sequence[float] = bound.get("uppers") or [bound["upper"]] * replications
    return np.array(given[:replications], float)
