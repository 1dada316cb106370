"""The current board as a table in leaderboards/README.md, between two markers."""

from collections.abc import Sequence

from matchgym.envs.instance import InputError
from matchgym.leaderboards.board import assemble
from matchgym.leaderboards.markup import markdown, minus, ranks_text
from matchgym.leaderboards.store import Record
from matchgym.leaderboards.tasks import TASKS, Task

BEGIN, END = "<!-- board: begin -->", "<!-- board: end -->"
SHOWN = 3  # rows of a track


def board_table(records: Sequence[Record], tasks: Sequence[Task] = TASKS) -> str:
    """The first rows of each track, as Markdown."""
    board = assemble(records, tasks)
    lines = [
        f"Season {board['season']['name']}, suite {board['suite_version']}, scorer {board['scorer_version']}, last record "
        f"`{board['head'][:16]}`.",
        "",
        "| track | tasks | policy | ranks | mean score | worst task |",
        "|---|---|---|---|---|---|",
    ]
    for track in board["tracks"]:
        for k, row in enumerate(track["rows"][:SHOWN]):
            score = row["score"]
            half = (score["high"] - score["low"]) / 2
            head = f"{track['id']} | {len(track['tasks'])}" if k == 0 else "|"
            numbers = minus(f"{score['mean']:.3f} ± {half:.3f} | {row['worst']:.3f}")
            lines.append(f"| {head} | {markdown(row['name'])} | {ranks_text(row['ranks'])} | {numbers} |")
    return "\n".join(lines) + "\n"


def updated(text: str, records: Sequence[Record], tasks: Sequence[Task] = TASKS) -> str:
    """The text with the board between its markers; InputError if they are not there."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(f"the text needs the markers {BEGIN} and {END}, once each and in this order.")
    head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
    return f"{head}{BEGIN}\n{board_table(records, tasks)}{tail}"
