"""The commands `leaderboard open|build|close|verify|rank|replay` and `submit`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from matchgym.cli.output import Stopwatch, console, make_folder, print_json, progress_bar, significant

leaderboard = typer.Typer(help="Build, rank or verify a leaderboard.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Out = Annotated[Path, typer.Option("--out", help="The board's folder.")]
Published = Annotated[Path | None, typer.Option("--out", help="The board's folder; by default the published one.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Processes that measure; the values are the same.")]
RUNS = Path("runs/leaderboard")


@leaderboard.command("open")
def open_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the season: a-z, 0-9, . and -.")],
    out: Out = RUNS,
    quick: Annotated[bool, typer.Option("--quick", help="Short simulations, to try things out; the pages say so.")] = False,
    as_json: Json = False,
) -> None:
    """Open a season: commit to a secret, which stays in .secrets beside the board until the season is closed."""
    from matchgym.leaderboards.building import open_board

    make_folder("--out", out)
    season = open_board(out, name, quick)
    if as_json:
        return print_json({"season": season.name, "commitment": season.commitment})
    console.print(f"season {season.name} is open; commitment {season.commitment}", markup=False, soft_wrap=True)


@leaderboard.command("close")
def close_command(out: Out = RUNS, as_json: Json = False) -> None:
    """Close the season: reveal its secret, so that anyone can replay any row."""
    from matchgym.leaderboards.building import close_board

    season = close_board(out)
    if as_json:
        return print_json({"season": season.name, "secret": (season.revealed or b"").hex()})
    console.print(f"season {season.name} is closed and its secret revealed", markup=False)


@leaderboard.command("season")
def season_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the new season: a-z, 0-9, . and -.")],
    out: Out = RUNS,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Close the present season and keep its board, open the next, and submit all baselines on every task to it.

    An interrupted command keeps what it finished; the same command goes on.
    """
    from matchgym.leaderboards.building import new_season

    watch = Stopwatch()
    make_folder("--out", out)
    try:
        board = new_season(out, name, bar=progress_bar, jobs=jobs)
    except KeyboardInterrupt:
        print(f"Interrupted; the finished rows are kept in {out}.", file=sys.stderr)
        raise typer.Exit(1) from None
    _finish(board, out, watch, as_json)


@leaderboard.command()
def build(
    agents: Annotated[
        list[Path], typer.Option("--agents", metavar="DIR", help="A trained agent's folder, or a folder of such; repeatable.")
    ] = [],  # noqa: B006
    out: Out = RUNS,
    task: Annotated[list[str], typer.Option("--task", metavar="NAME", help="Only this task or family; repeatable.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="Short simulations, to try things out; the pages say so.")] = False,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Submit all baselines and the given agents on every task, and write board.json and the pages.

    Opens a season if there is none. An interrupted build keeps what it finished; the same command goes on.
    """
    from matchgym.leaderboards import TASKS
    from matchgym.leaderboards.building import build_board, chosen_tasks

    watch = Stopwatch()
    make_folder("--out", out)
    tasks = chosen_tasks(task) or list(TASKS)
    try:
        board = build_board(out, tasks, agents, quick, progress_bar, jobs)
    except KeyboardInterrupt:
        print(f"Interrupted; the finished rows are kept in {out}.", file=sys.stderr)
        raise typer.Exit(1) from None
    _finish(board, out, watch, as_json)


def submit(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders with a manifest.json, or folders of such.")],
    out: Out = RUNS,
    unjailed: Annotated[bool, typer.Option("--unjailed", help="Run networks without a jail: your own files only.")] = False,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Submit artefacts to the open season of a board: gate, evaluation under the season's seeds, fresh seeds for leaders.

    All are submitted or, if the gate refuses one, none. An interrupted evaluation goes on when the same are submitted again.
    """
    from matchgym.leaderboards.artefact import read_artefact
    from matchgym.leaderboards.building import find_artefacts, submit_artefacts

    watch = Stopwatch()
    artefacts = [read_artefact(folder) for folder in find_artefacts(folders)]
    board = submit_artefacts(out, artefacts, not unjailed, progress_bar, jobs=jobs)
    _finish(board, out, watch, as_json)


@leaderboard.command()
def rank(out: Published = None, as_json: Json = False) -> None:
    """Show a board: every task's rows with tiers, ranks, scores and verdicts, derived anew from the records."""
    from matchgym.leaderboards.board import assemble
    from matchgym.leaderboards.store import RESULTS, FolderStore

    watch, folder = Stopwatch(), RESULTS if out is None else out
    board = assemble(FolderStore(folder).records())
    if as_json:
        return print_json({"folder": str(folder), **_summary(board), "seconds": watch.seconds})
    _show(board)


@leaderboard.command()
def replay(
    artefact: Annotated[str, typer.Argument(metavar="SHA256", help="Of the artefact; its first digits are enough.")],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="The task.")],
    out: Published = None,
    as_json: Json = False,
) -> None:
    """Measure one row of a board again, under its season's seeds, and compare every value."""
    from matchgym.leaderboards.building import replay_rows
    from matchgym.leaderboards.store import RESULTS

    watch, folder = Stopwatch(), RESULTS if out is None else out
    found = replay_rows(folder, artefact, task, progress_bar)
    if as_json:
        print_json({"rows": found, "seconds": watch.seconds})
    else:
        for row in found:
            verdict = row["problem"] or f"{row['replications']} values, the same bit for bit"
            console.print(f"{row['task']}/{row['name']}, {row['phase']} seeds: {verdict}", markup=False, soft_wrap=True)
    if any(row["problem"] for row in found):
        raise typer.Exit(1)


@leaderboard.command()
def instance(
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task; of a family, its public instance.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of a family: draw the instance of this seed.")] = None,
    revealed: Annotated[
        Path | None, typer.Option("--revealed", metavar="BOARD", help="Of a family: the instance of the board's closed season.")
    ] = None,
) -> None:
    """Print the instance of a task as JSON, for `--instance` elsewhere: to train on, or to see what a closed season played."""
    from matchgym.leaderboards.building import instance_of

    print_json(instance_of(name, seed, revealed).to_dict())


@leaderboard.command()
def verify(
    out: Published = None,
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="Rows of each task to replay; 0: no bound is found anew either.")
    ] = 1,
    head: Annotated[
        str | None, typer.Option("--head", metavar="SHA256", help="A record that was the last one when you looked before.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every digest, derive every bound and every number anew, replay a sample of the rows and compare exactly."""
    from matchgym.leaderboards.store import RESULTS
    from matchgym.leaderboards.verification import verify_board

    watch = Stopwatch()
    folder = RESULTS if out is None else out
    report = verify_board(folder, replays=rows, bar=progress_bar, known_head=head)
    if as_json:
        print_json({"folder": str(folder), "is_sound": report.is_sound, **vars(report), "seconds": watch.seconds})
    else:
        for problem in report.problems:
            console.print(f"WRONG: {problem}", style="bold red", markup=False, soft_wrap=True)
        console.print(f"{report.bounds} bounds proved anew, {report.rows} rows derived anew, {len(report.replayed)} replayed:")
        console.print("  " + (", ".join(report.replayed) or "none"), markup=False)
        if report.not_replayable:
            names = ", ".join(report.not_replayable)
            console.print(f"  not replayed, for want of the season's secret or of a jail: {names}", markup=False)
        if report.older:
            console.print(
                f"  of an older suite or scorer, digests checked only: season {', '.join(report.older)}", markup=False
            )
        console.print(f"{'sound' if report.is_sound else 'NOT SOUND'}   ({watch.seconds:.1f} s)")
    if not report.is_sound:
        raise typer.Exit(1)


@leaderboard.command()
def readme(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A text with the two markers.")] = Path("leaderboards/README.md"),
    out: Published = None,
) -> None:
    """Write the current board between the markers of leaderboards/README.md."""
    from matchgym.leaderboards.readme import updated
    from matchgym.leaderboards.store import RESULTS, FolderStore, read_text

    text = read_text(path)
    path.write_text(updated(text, FolderStore(RESULTS if out is None else out).records()))


def _finish(board: dict[str, Any], out: Path, watch: Stopwatch, as_json: bool) -> None:
    alarms = [f"{each['name']}/{row['name']}" for each in board["tasks"] for row in each["rows"] if row["is_above_bound"]]
    if as_json:
        record = {"folder": str(out), "quick": board["season"]["quick"], **_summary(board), "above_bound": alarms}
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


def _summary(board: dict[str, Any]) -> dict[str, Any]:
    keys = ("artefact", "name", "kind", "state", "tier", "ranks", "score", "objective", "verdict", "replications")
    return {
        "season": board["season"],
        "tasks": [
            {
                "name": task["name"],
                "bound": task["bound"]["upper"],
                "rows": [{key: row[key] for key in keys} for row in task["rows"]],
                "refused": task["refused"],
            }
            for task in board["tasks"]
        ],
        "tracks": board["tracks"],
        "methods": board["methods"],
    }


def _show(board: dict[str, Any]) -> None:
    for task in board["tasks"]:
        console.print(f"{task['name']}   bound {task['bound']['upper']:.6g}", markup=False)
        for row in task["rows"]:
            score = row["score"] and row["score"]["mean"]
            tier = "-" if row["tier"] is None else row["tier"]
            ranks = "-" if row["ranks"] is None else "-".join(map(str, dict.fromkeys(row["ranks"])))
            told = "ABOVE BOUND" if row["is_above_bound"] else row["verdict"] or row["state"]
            console.print(
                f"  tier {tier:<3} {shorten_name(row['name']):<24} ranks {ranks:<7} "
                f"score {significant(score, 4):>9}   {told}   {row['state']}",
                markup=False,
                soft_wrap=True,
            )


def shorten_name(name: str) -> str:
    """A name that a stranger gave, on one line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in name)[:40]
