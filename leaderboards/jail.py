"""The jail: a network of a stranger runs in a child process that sees observations and nothing else.

bubblewrap gives the child namespaces of its own (no network, no other processes) and a file system of read-only libraries and
the two files it runs; the child then confines itself further, see `jailed`. The simulator, the seeds and the records stay
here. Every answer must have the right size, come in time and be finite. Without bubblewrap there is no jail: `start` refuses.
"""

import json
import os
import selectors
import shutil
import struct
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.instance import InputError
from matchgym.leaderboards.network import Array, Network

HERE = Path(__file__).parent
PROGRAM, INTERPRETER = HERE / "jailed.py", HERE / "network.py"
CALL_SECONDS, TOTAL_SECONDS, START_SECONDS = 10.0, 1800.0, 60.0


class JailError(InputError):
    """What is in the jail broke a rule, died or was too slow."""


def command(program: Path, *files: Path) -> list[str]:
    """The command that runs a Python program in the jail, with `files` beside it and NumPy at hand."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise InputError(
            "networks of strangers are run in a jail only, which needs bubblewrap; install it (Debian: apt install bubblewrap)."
        )
    words = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    words += ["--setenv", "OPENBLAS_NUM_THREADS", "1", "--setenv", "OMP_NUM_THREADS", "1", "--setenv", "MKL_NUM_THREADS", "1"]
    for place in ("/usr", "/lib", "/lib64", "/bin"):
        if os.path.islink(place):
            words += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            words += ["--ro-bind", place, place]
    numpy_home = Path(np.__file__).parent
    libraries = {Path(sys.base_prefix), Path(sysconfig.get_path("stdlib")), Path(sys.executable).resolve().parent}
    for library in sorted(library for library in libraries if not library.is_relative_to("/usr")):
        words += ["--ro-bind", str(library), str(library)]
    for beside in (numpy_home, numpy_home.with_name("numpy.libs")):
        if beside.is_dir():
            words += ["--ro-bind", str(beside), f"/jail/{beside.name}"]
    for path in (program, *files):
        words += ["--ro-bind", str(path), f"/jail/{path.name}"]
    python = str(Path(sys.executable).resolve())
    return [*words, "--proc", "/proc", "--chdir", "/jail", "--", python, "-I", "-B", f"/jail/{program.name}", "/jail"]


def is_available() -> bool:
    """Whether a program can be run in the jail here."""
    if shutil.which("bwrap") is None:
        return False
    words = command(PROGRAM, INTERPRETER)
    probe = [*words[: words.index("--") + 1], words[words.index("--") + 1], "-I", "-c", "pass"]
    return subprocess.run(probe, capture_output=True, check=False, timeout=START_SECONDS).returncode == 0


class JailedNetwork:
    """A network in a jail, with the interface of `Network`; close it, or use it as a context."""

    def __init__(self, network: Network) -> None:
        self.n_inputs, self.n_outputs, self.n_parameters = network.n_inputs, network.n_outputs, network.n_parameters
        self._network = network
        self._child: subprocess.Popen[bytes] | None = None
        self._until = 0.0

    def start(self) -> None:
        """Start the child and hand it the network; InputError if there is no jail here."""
        words = command(PROGRAM, INTERPRETER)
        quiet = subprocess.DEVNULL
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, close_fds=True)
        self._until = time.monotonic() + TOTAL_SECONDS
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        head: dict[str, Any] = {
            "n_inputs": self.n_inputs,
            "n_outputs": self.n_outputs,
            "input": self._network.input,
            "output": self._network.output,
            "constants": [[name, list(array.shape)] for name, array in self._network.constants.items()],
            "layers": [[each.operation, list(each.inputs), each.output, dict(each.settings)] for each in self._network.layers],
        }
        constants = b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in self._network.constants.values())
        if self._exchange(json.dumps(head).encode() + b"\n" + constants, 5, START_SECONDS) != b"ready":
            raise JailError("the network did not start in its jail.")

    def run(self, observations: NDArray[np.float32]) -> Array:
        """Scores (B, n_outputs) of observations (B, n_inputs); JailError if they do not come as they should."""
        if self._child is None:
            self.start()
        table = np.ascontiguousarray(observations, np.float32)
        message = struct.pack("=I", len(table)) + table.tobytes()
        answer = self._exchange(message, 4 * len(table) * self.n_outputs, CALL_SECONDS)
        return np.frombuffer(answer, np.float32).reshape(len(table), self.n_outputs)

    def _exchange(self, message: bytes, size: int, seconds: float) -> bytes:
        """Send a message and receive an answer of `size` bytes, neither more nor less, before the time is over."""
        assert self._child is not None
        source, sink = self._child.stdout, self._child.stdin
        assert source is not None
        assert sink is not None
        deadline = min(time.monotonic() + seconds, self._until)
        answer, left = bytearray(), memoryview(message)
        with selectors.DefaultSelector() as waiting:
            waiting.register(source, selectors.EVENT_READ)
            waiting.register(sink, selectors.EVENT_WRITE)
            while left or len(answer) < size:
                ready = waiting.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    self.close()
                    raise JailError(f"the network gave no answer within {seconds:g} s.")
                for key, _ in ready:
                    try:
                        if key.fileobj is sink:
                            left = left[os.write(sink.fileno(), left[: 1 << 16]) :]
                            if not left:
                                waiting.unregister(sink)
                            continue
                        part = os.read(source.fileno(), size - len(answer) + 1)
                    except BrokenPipeError:
                        part = b""
                    if not part:
                        self.close()
                        raise JailError("the network broke the rules of its jail or ran out of memory, and was ended.")
                    answer += part
                    if len(answer) > size:
                        self.close()
                        raise JailError("the network's answer is longer than its scores.")
        return bytes(answer)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
