"""All files that follow from the records: board.json and the pages, a pure function, byte for byte."""

from collections.abc import Sequence

from matchgym.agents.files import write_whole
from matchgym.leaderboards.artefact import stored_artefact
from matchgym.leaderboards.board import assemble, without_values
from matchgym.leaderboards.entry_pages import compare_page, entry_page, entry_page_name
from matchgym.leaderboards.pages import compare_page_name, index_page, tasks_page, track_page, track_page_name
from matchgym.leaderboards.store import BOARD, FolderStore, Record, Store, dump
from matchgym.leaderboards.tasks import TASKS, Task
from matchgym.leaderboards.text_pages import changes_page, ranks_page, rules_page
from matchgym.leaderboards.theme import STYLE

PAGE = "index.html"


def files_of(board: Record, records: Sequence[Record], store: Store, tasks: Sequence[Task] = TASKS) -> dict[str, str]:
    """Name in the folder -> text; `board` as `assemble` gives it."""
    files = {
        BOARD: dump(without_values(board)),
        PAGE: index_page(board),
        "style.css": STYLE,
        "tasks.html": tasks_page(board),
        "changes.html": changes_page(board, records),
        "rules.html": rules_page(board),
        "ranks.html": ranks_page(board),
    }
    for track in board["tracks"]:
        files[track_page_name(track)] = track_page(track, board)
        files[compare_page_name(track["id"])] = compare_page(track, board)
    for entry in board["entries"]:
        artefact = stored_artefact(store, entry["artefact"], tasks)
        files[entry_page_name(entry["artefact"])] = entry_page(entry, artefact, board)
    return files


def publish(store: FolderStore, tasks: Sequence[Task] = TASKS) -> Record:
    """Write board.json and the pages beside the records, in place of those of the season before; returns the board."""
    records = store.records()
    board = assemble(records, tasks)
    files = files_of(board, records, store, tasks)
    for name, text in files.items():
        write_whole(store.folder / name, text)
    for page in (store.folder / "entries").glob("*.html"):
        if f"entries/{page.name}" not in files:
            page.unlink()
    return board
