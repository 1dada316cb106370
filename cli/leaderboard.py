"""The commands `leaderboard build` and `leaderboard verify`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from matchgym.cli.output import Stopwatch, console, make_folder, print_json, progress_bar, significant

leaderboard = typer.Typer(help="Build or verify a leaderboard.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@leaderboard.command()
def build(
    agents: Annotated[
        list[Path], typer.Option("--agents", metavar="DIR", help="A trained agent's folder, or a folder of such; repeatable.")
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option("--out", help="Where to write.")] = Path("runs/leaderboard"),
    task: Annotated[list[str], typer.Option("--task", metavar="NAME", help="Only this task; repeatable.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="Short simulations, to try things out; the page says so.")] = False,
    as_json: Json = False,
) -> None:
    """Evaluate all baselines and the given agents on every task; write board.json, timings.json and index.html."""
    from matchgym.leaderboards import TASKS, build_board, find_task
    from matchgym.leaderboards.entrants import find_agents

    watch = Stopwatch()
    make_folder("--out", out)
    names = [find_task(name).name for name in task] or None
    tasks = [each.quick() if quick else each for each in TASKS]
    try:
        board = build_board(out, tasks, find_agents(agents), quick, progress_bar, names)
    except KeyboardInterrupt:
        print(f"Interrupted; the finished tasks are kept in {out}.", file=sys.stderr)
        raise typer.Exit(1) from None
    alarms = [f"{each['name']}/{row['name']}" for each in board["tasks"] for row in each["rows"] if row["is_above_bound"]]
    if as_json:
        record = {"folder": str(out), "quick": quick, **_summary(board), "above_bound": alarms}
        print_json(record | {"seconds": watch.seconds})
    else:
        _show(board)
        console.print(f"written to {out}; check it with: matchgym leaderboard verify --out {out}   ({watch.seconds:.1f} s)")
        for alarm in alarms:
            console.print(
                f"ABOVE BOUND: {alarm} exceeds its certified bound: a bug in matchgym, please report it", style="bold red"
            )
    if alarms:
        raise typer.Exit(1)


@leaderboard.command()
def verify(
    out: Annotated[Path | None, typer.Option("--out", help="The board's folder; by default the published one.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows of each task to replay.")] = 1,
    as_json: Json = False,
) -> None:
    """Derive every bound and every number of a board anew, replay a sample of its rows and compare exactly."""
    from matchgym.leaderboards.store import RESULTS
    from matchgym.leaderboards.verification import verify_board

    watch = Stopwatch()
    folder = RESULTS if out is None else out
    report = verify_board(folder, replays=rows, bar=progress_bar)
    if as_json:
        print_json({"folder": str(folder), "is_sound": report.is_sound, **vars(report), "seconds": watch.seconds})
    else:
        for problem in report.problems:
            console.print(f"WRONG: {problem}", style="bold red", markup=False, soft_wrap=True)
        console.print(f"{report.bounds} bounds proved anew, {report.rows} rows derived anew, {len(report.replayed)} replayed:")
        console.print("  " + (", ".join(report.replayed) or "none"), markup=False)
        if report.not_replayable:
            console.print("  not replayed, the model is needed: " + ", ".join(report.not_replayable), markup=False)
        console.print(f"{'sound' if report.is_sound else 'NOT SOUND'}   ({watch.seconds:.1f} s)")
    if not report.is_sound:
        raise typer.Exit(1)


def _summary(board: dict[str, Any]) -> dict[str, Any]:
    return {
        "tasks": [
            {
                "name": task["name"],
                "bound": task["bound"]["upper"],
                "rows": [
                    {key: row[key] for key in ("name", "kind", "tier", "ranks", "score", "objective", "verdict")}
                    for row in task["rows"]
                ],
                "refused": task["refused"],
            }
            for task in board["tasks"]
        ]
    }


def _show(board: dict[str, Any]) -> None:
    for task in board["tasks"]:
        console.print(f"{task['name']}   bound {task['bound']['upper']:.6g}", markup=False)
        for row in task["rows"]:
            score = row["score"] and row["score"]["mean"]
            tier = "-" if row["tier"] is None else row["tier"]
            console.print(
                f"  tier {tier:<3} {row['name']:<24} score {significant(score, 4):>9}   {row['verdict'] or 'ABOVE BOUND'}",
                markup=False,
            )
