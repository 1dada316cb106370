"""What a board keeps: an append-only chain of records, and files named by their digest.

    records.jsonl            one record per line: {n, kind, at, body, previous, sha256}
    blobs/SHA256             manifests and files of artefacts, as they were submitted
    certificates/SHA256.json proofs of bounds

Each record holds the digest of the one before, so that no record can be changed, dropped or moved without breaking the chain.
Everything else in the folder (board.json and the pages) is computed from these. `Store` is all that the rest of the package
needs of it, so that a database can take the place of the folder.
"""

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from matchgym.agents.files import write_whole
from matchgym.envs.instance import InputError, shorten_path

SCHEMA_VERSION = 2  # of records and of board.json
RECORDS, BOARD, BLOBS, CERTIFICATES, SECRETS = "records.jsonl", "board.json", "blobs", "certificates", ".secrets"
MAX_CERTIFICATE_BYTES = 2_000_000  # a larger certificate is published by its digest only and found anew
RESULTS = Path(__file__).parent / "results"  # what the project publishes
GENESIS = "0" * 64
WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Record = dict[str, Any]


def sha256(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no blanks, shortest round-trip floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump(value: Any) -> str:
    """JSON for files: indented, lists of numbers on one line, the order of keys kept."""
    text = json.dumps(value, indent=1, allow_nan=False)
    return re.sub(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]", _one_line, text) + "\n"


def _one_line(match: re.Match[str]) -> str:
    return "[" + re.sub(r"\s+", " ", match[1]) + "]"


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Store(Protocol):
    """Where records, blobs, certificates and the secrets of open seasons are kept."""

    def records(self) -> list[Record]:
        """All records, oldest first; InputError if the chain is broken."""

    def append(self, kind: str, body: Record) -> Record:
        """Add a record behind all others."""

    def put_blob(self, data: bytes) -> str:
        """Keep data and return its sha256."""

    def blob(self, digest: str) -> bytes:
        """The data with that sha256; InputError if it is missing or altered."""

    def board(self) -> bytes:
        """board.json, as it was published last."""

    def put_certificate(self, certificate: Any, is_secret: bool = False) -> tuple[str, bool]:
        """Keep a certificate unless it is too large; returns its sha256, and whether it is kept.

        One that `is_secret`, as the instance can be read from it, is kept apart until `reveal_certificates`.
        """

    def reveal_certificates(self) -> None:
        """Put the secret certificates among the others."""

    def certificate(self, digest: str) -> Any:
        """The certificate with that sha256, or None if it is not kept; InputError if it is altered."""

    def writing(self) -> AbstractContextManager[None]:
        """For the time in which records are appended: nobody else does; InputError if somebody does already."""

    def without_records(self) -> "Store":
        """The same store for another process, which appends nothing."""

    def put_secret(self, season: str, secret: bytes) -> None:
        """Keep the secret of a season apart from what is published."""

    def secret(self, season: str) -> bytes | None:
        """The secret of a season, if it is here."""


class FolderStore:
    """A store in one folder, for one writer at a time: whoever appends does so within `writing`."""

    def __init__(self, folder: Path, now: Callable[[], str] = utc_now) -> None:
        self.folder, self.now = folder, now
        self._seen: tuple[tuple[int, int], list[Record]] | None = None  # size and time of the file, and its records

    def records(self) -> list[Record]:
        path = self.folder / RECORDS
        if not path.exists():
            return []
        stamp = (path.stat().st_size, path.stat().st_mtime_ns)
        if self._seen is None or self._seen[0] != stamp:
            self._seen = stamp, list(check_chain(read_text(path)))
        return list(self._seen[1])

    def append(self, kind: str, body: Record) -> Record:
        path = self.folder / RECORDS
        before = self.records()
        previous = before[-1]["sha256"] if before else GENESIS
        at = max(self.now(), before[-1]["at"] if before else "")  # clocks are set back at times
        record = {"n": len(before), "kind": kind, "at": at, "body": body, "previous": previous}
        record["sha256"] = sha256(canonical(record))
        path.parent.mkdir(parents=True, exist_ok=True)
        line = canonical(record)
        with open(path, "ab") as file:
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self._seen = (path.stat().st_size, path.stat().st_mtime_ns), [*before, json.loads(line)]
        return record

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from writing here; InputError if one does. A record not written to its end is dropped."""
        try:
            import fcntl
        except ModuleNotFoundError:
            raise InputError("boards can be written on systems with file locks only, such as Linux and macOS.") from None

        is_new = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process is writing to {shorten_path(self.folder)}; wait until it is done.") from None
            self._drop_torn_record()
            yield
        finally:
            os.close(descriptor)
            if is_new and not any(self.folder.iterdir()):  # what was asked for was refused
                self.folder.rmdir()

    def _drop_torn_record(self) -> None:
        path = self.folder / RECORDS
        data = path.read_bytes() if path.exists() else b""
        if data and not data.endswith(b"\n"):
            whole = data[: data.rfind(b"\n") + 1]
            warnings.warn(f"{RECORDS} ended within a record, which is dropped: its writing was interrupted.", stacklevel=3)
            write_whole(path, whole)

    def put_blob(self, data: bytes) -> str:
        digest = sha256(data)
        if not (self.folder / BLOBS / digest).exists():
            write_whole(self.folder / BLOBS / digest, data)
        return digest

    def blob(self, digest: str) -> bytes:
        data = read_bytes(self.folder / BLOBS / digest)
        if sha256(data) != digest:
            raise InputError(f"{BLOBS}/{digest} does not have the sha256 that it is named by.")
        return data

    def board(self) -> bytes:
        return read_bytes(self.folder / BOARD)

    def put_certificate(self, certificate: Any, is_secret: bool = False) -> tuple[str, bool]:
        text = canonical(certificate)
        digest = sha256(text)
        if len(text) > MAX_CERTIFICATE_BYTES:
            return digest, False
        path = certificate_path(self.folder / SECRETS if is_secret else self.folder, digest)
        if not path.exists():
            write_whole(path, text)
        return digest, True

    def reveal_certificates(self) -> None:
        for path in sorted((self.folder / SECRETS / CERTIFICATES).glob("*.json")):
            write_whole(self.folder / CERTIFICATES / path.name, path.read_text())
            path.unlink()

    def certificate(self, digest: str) -> Any:
        places = (certificate_path(folder, digest) for folder in (self.folder, self.folder / SECRETS))
        path = next((place for place in places if place.exists()), None)
        if path is None:
            return None
        text = read_text(path)
        if sha256(text) != digest:
            raise InputError(f"{CERTIFICATES}/{path.name} does not have the sha256 that it is named by.")
        return parse(text, f"{CERTIFICATES}/{path.name}")

    def without_records(self) -> "FolderStore":
        return FolderStore(self.folder, self.now)

    def put_secret(self, season: str, secret: bytes) -> None:
        path = self.folder / SECRETS / season
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)  # left by a season that never came to be recorded
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(secret.hex())

    def secret(self, season: str) -> bytes | None:
        path = self.folder / SECRETS / season
        return bytes.fromhex(read_text(path)) if path.exists() else None


def certificate_path(folder: Path, digest: str) -> Path:
    return folder / CERTIFICATES / f"{digest}.json"


def check_chain(text: str) -> Iterator[Record]:
    """The records of a chain; InputError at the first that is not canonical, does not follow or has another digest."""
    lines = text.split("\n")
    if lines.pop() != "":
        raise InputError(f"{RECORDS} ends within a record.")
    previous, at = GENESIS, ""
    for n, line in enumerate(lines):
        record = parse(line, f"record {n}")
        if not isinstance(record, dict) or set(record) != {"n", "kind", "at", "body", "previous", "sha256"}:
            raise InputError(f"record {n} is none.")
        if not isinstance(record["body"], dict) or not isinstance(record["at"], str) or not WHEN.fullmatch(record["at"]):
            raise InputError(f"record {n} has a body or a time that is none.")
        if record["at"] < at:
            raise InputError(f"record {n} is older than the one before it.")
        bare = {key: value for key, value in record.items() if key != "sha256"}
        is_sound = canonical(record) == line and record["n"] == n and record["previous"] == previous
        if not is_sound or record["sha256"] != sha256(canonical(bare)):
            raise InputError(f"record {n} has been altered or does not follow the one before; the chain is broken there.")
        previous, at = record["sha256"], record["at"]
        yield record


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise InputError(f"{shorten_path(path)} cannot be read; build the board first.") from None


def read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{shorten_path(path)} is not text; build the board anew.") from None


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} is not a number")


def _integer(digits: str) -> int:
    """An integer that a float can hold, as all numbers of a board are; certificates have integers of some 80 bits."""
    number = int(digits)
    float(number)  # OverflowError beyond
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def parse(text: str, what: str) -> Any:
    """JSON values of a text; InputError if there are none."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_integer, object_pairs_hook=_object)
    except (OverflowError, RecursionError, ValueError) as error:
        raise InputError(f"{what} is not JSON ({str(error)[:80]}).") from None


def read_json(path: Path) -> Any:
    """The JSON values of a file; InputError if there are none."""
    return parse(read_text(path), shorten_path(path))
