"""The published results in one table: what algorithms and trained agents earn on every task, and what is possible."""

from collections.abc import Mapping, Sequence
from typing import Any

from matchgym.leaderboards.markup import markdown

Record = Mapping[str, Any]
HEAD = "| task | anchor | best algorithm | best agent | of the best possible | against the best algorithm |"


def results_table(board: Record, env_id: str) -> str:
    """The Markdown table of an id's tasks; empty if the board has none."""
    lines = [_line(task) for task in board["tasks"] if task["id"] == env_id and not task.get("family")]
    return "\n".join([HEAD, "|---|---|---|---|---|---|", *lines]) + "\n" if lines else ""


def _line(task: Record) -> str:
    baseline, agent = (_best(task["rows"], kind) for kind in ("baseline", "agent"))
    cells = [f"{task['name']}", task["anchor"]]
    cells += [f"{markdown(row['name'])} {_interval(row['objective'])}" if row else "none yet" for row in (baseline, agent)]
    return "| " + " | ".join([*cells, _share(task, agent or baseline), _verdict(agent)]) + " |"


def _best(rows: Sequence[Record], kind: str) -> Record | None:
    """The row of a kind with the largest mean; those that know what is hidden, or the optimum itself, are other kinds."""
    mine = [row for row in rows if row["kind"] == kind and row["objective"] is not None and not row["is_above_bound"]]
    return max(mine, key=lambda row: float(row["objective"]["mean"]), default=None)


def _interval(interval: Record) -> str:
    half = (interval["high"] - interval["low"]) / 2
    return f"{interval['mean']:.5g} ± {half:.1g}"


def _share(task: Record, row: Record | None) -> str:
    """The objective as a share of the exact optimum, else the score between anchor and bound."""
    if row is None:
        return ""
    optimum = task["optimum"].get("value")
    if optimum is not None and optimum != 0:
        mean = row["objective"]["mean"]
        return f"{(mean / optimum if optimum > 0 else optimum / mean):.2%} of the optimum"
    return f"score {row['score']['mean']:.3f}" if row["score"] else "no score"


def _confirmed(row: Record) -> Any:
    """The verdict on a row; one that fresh seeds do not confirm to be better counts as a tie."""
    is_confirmed = row["fresh"] is not None and row["fresh"]["verdict"] == "better"
    return "tie" if row["verdict"] == "better" and not is_confirmed else row["verdict"]


def _verdict(agent: Record | None) -> str:
    if agent is None:
        return ""
    gain, verdict = agent["difference"], _confirmed(agent)
    return f"{verdict} ({gain['mean']:+.2g} ± {(gain['high'] - gain['low']) / 2:.1g})" if gain else verdict


def verdicts(board: Record) -> dict[str, int]:
    """On how many tasks the best agent is better than the best algorithm, as good, or worse."""
    found = {"better": 0, "tie": 0, "worse": 0}
    for task in board["tasks"]:
        agent = None if task.get("family") else _best(task["rows"], "agent")
        if agent is not None and _confirmed(agent) in found:
            found[_confirmed(agent)] += 1
    return found


def methods_table(board: Record) -> str:
    """The Markdown table of methods: interquartile means over five trainings with bootstrap intervals."""
    lines = ["| method | algorithm | runs | tasks | interquartile mean score |", "|---|---|---|---|---|"]
    for row in board["methods"]:
        score = row["score"]
        lines.append(
            f"| {markdown(row['name'])} | {markdown(row['algorithm'])} | {row['runs']} | {len(row['tasks'])} | "
            f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}] |"
        )
    return "\n".join(lines) + "\n"
