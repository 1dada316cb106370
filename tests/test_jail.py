"""The jail: what is in it can do arithmetic and nothing else. Skipped only where bubblewrap cannot run."""

import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from boards import random_network

from matchgym.envs.instance import InputError
from matchgym.leaderboards import jail, jailed
from matchgym.leaderboards.artefact import NetworkPolicy, load_policy, read_artefact, release
from matchgym.leaderboards.jail import JailedNetwork, JailError
from matchgym.leaderboards.measuring import measure
from matchgym.leaderboards.network import Layer, Network
from matchgym.leaderboards.tasks import find_task

pytestmark = pytest.mark.skipif(
    not jail.is_available(),
    reason="bubblewrap cannot run here; install it (apt install bubblewrap) where namespaces are allowed",
)


def network(width: int = 32, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    constants = {"w": rng.normal(size=(5, width)).astype(np.float32), "v": rng.normal(size=(width, 3)).astype(np.float32)}
    layers = (Layer("MatMul", ("x", "w"), "h", {}), Layer("Tanh", ("h",), "g", {}), Layer("MatMul", ("g", "v"), "y", {}))
    return Network(5, 3, "x", "y", constants, layers)


@pytest.mark.parametrize("name", ["small", "every operation"])
def test_scores_in_the_jail_are_those_outside(name):
    """Up to rounding: the environment outside may choose other kernels of the linear algebra."""
    plain = network() if name == "small" else random_network()
    rng = np.random.default_rng(1)
    with JailedNetwork(plain) as jailed_network:
        for rows in (1, 16, 48, 192, 4096):
            x = rng.normal(size=(rows, 5)).astype(np.float32)
            assert np.allclose(jailed_network.run(x), plain.run(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_inputs", "width"), [(50, 64), (200, 64), (10, 128), (600, 8)])
def test_large_products_break_no_rule(n_inputs, width):
    """The linear algebra takes memory of its own for them, by calls that small ones do not need."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(n_inputs, width)).astype(np.float32),
        "v": rng.normal(size=(width, 3)).astype(np.float32),
    }
    layers = (Layer("MatMul", ("x", "w"), "h", {}), Layer("Tanh", ("h",), "g", {}), Layer("MatMul", ("g", "v"), "y", {}))
    plain = Network(n_inputs, 3, "x", "y", constants, layers)
    with JailedNetwork(plain) as jailed_network:
        for rows in (16, 64, 256, 1024):
            x = rng.normal(size=(rows, n_inputs)).astype(np.float32)
            assert np.allclose(jailed_network.run(x), plain.run(x), rtol=1e-4, atol=1e-4)


def test_a_jailed_network_plays_a_task(tmp_path):
    pytest.importorskip("onnx")
    from boards import write_artefact

    from matchgym.leaderboards.onnx_file import write_network

    task = find_task("demo").quick()
    folder = write_artefact(tmp_path / "a", kind="onnx-mlp/1", data=write_network(network()))
    (file,) = read_artefact(folder).entries
    found = []
    for is_jailed in (True, False):
        policy = load_policy(file, is_jailed)
        assert isinstance(policy, NetworkPolicy)
        found.append(measure(task, policy, 3).values)
        release(policy)
    assert (found[0] == found[1]).all()


# Each line of code runs in the jail after `confine`, as code that had got out of the interpreter would.
THREATS = {
    "open a file": "open('/jail/network.py')",
    "read the passwords": "open('/etc/passwd')",
    "write a file": "open('/jail/x', 'w')",
    "list a folder": "os.listdir('/')",
    "open a socket": "__import__('socket').socket()",
    "fork": "os.fork()",
    "start a program": "os.execv('/bin/true', ['true'])",
    "send a signal": "os.kill(1, 9)",
    "trace": "ctypes.CDLL(None).ptrace(0, 0, 0, 0)",
    "executable memory": "ctypes.CDLL(None).mmap(None, 4096, 7, 34, -1, 0)",
    "make memory executable": "ctypes.CDLL(None).mprotect(ctypes.c_void_p(buffer), 4096, 5)",
    "a namespace": "ctypes.CDLL(None).unshare(0x10000000)",
    "the kernel's keys": "ctypes.CDLL(None).syscall(250, 0, 0, 0, 0, 0)",
    "another filter": "jailed.confine()",
    "2 GiB": "bytearray(2 << 30)",
}
HARNESS = """
import ctypes, importlib, mmap, os, socket, sys
sys.path.insert(0, sys.argv[1])
import jailed
ctypes.CDLL(None)
memory = mmap.mmap(-1, 4096)
buffer = ctypes.addressof(ctypes.c_char.from_buffer(memory))
os.write(1, b"before ")
jailed.confine()
os.write(1, b"confined ")
try:
    {code}
except MemoryError:
    os._exit(7)
os.write(1, b"ESCAPED")
"""


def run_inside(tmp_path, code: str, timeout: float = 60) -> subprocess.CompletedProcess:
    program = tmp_path / "threat.py"
    program.write_text(HARNESS.format(code=code))
    return subprocess.run(jail.command(program, jail.PROGRAM), capture_output=True, timeout=timeout, check=False)


@pytest.mark.parametrize("name", THREATS)
def test_what_is_forbidden_kills(name, tmp_path):
    done = run_inside(tmp_path, THREATS[name])
    assert done.stdout == b"before confined ", done
    assert done.returncode != 0


def test_arithmetic_is_allowed(tmp_path):
    done = run_inside(tmp_path, "sum(range(1000)); bytearray(1 << 20)")
    assert done.stdout == b"before confined ESCAPED"  # as the harness says when nothing stopped it


def test_nothing_of_this_machine_is_visible_even_before_the_filter(tmp_path):
    """The file system has libraries and the program, no /etc, /home, /tmp or work tree; there is no network and no process."""
    program = tmp_path / "look.py"
    places = ("/etc/passwd", "/home", "/root", "/tmp", str(Path.cwd()), "/var", "/opt", "/srv")
    hidden = [place for place in places if not Path(sys.base_prefix).is_relative_to(place)]  # Python may live in one of them
    program.write_text(
        "import os\n"
        f"print([p for p in {hidden} if os.path.exists(p)])\n"
        "print(sorted(os.environ.keys() - {'LC_CTYPE', 'PWD'}))\n"
        "print(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 2)\n"
        "print(open('/proc/net/dev').read().count(':'))\n"
        "try:\n    open('/usr/x', 'w')\nexcept OSError:\n    print('read-only')\n"
    )
    done = subprocess.run(jail.command(program), capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert lines == ["[]", "['MKL_NUM_THREADS', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS']", "True", "1", "read-only"]


class Replaced(JailedNetwork):
    """The parent's side of the pipe with another program on the other side."""

    code = ""

    def start(self):
        program = [sys.executable, "-I", "-c", self.code]
        original = jail.command
        jail.command = lambda *files: program
        try:
            super().start()
        finally:
            jail.command = original


HOSTILE = {
    "silence": ("import time; time.sleep(60)", "no answer"),
    "death": ("pass", "was ended"),
    "a flood": ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "longer"),
    "a spin": ("import sys\nsys.stdin.buffer.readline()\nwhile True: pass", "no answer"),
    "other words": ("import sys; sys.stdout.write('hello'); sys.stdout.flush(); import time; time.sleep(60)", "did not start"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_child_that_does_not_play_along_is_ended(name, monkeypatch):
    monkeypatch.setattr(jail, "START_SECONDS", 1.5)
    code, sentence = HOSTILE[name]
    policy = Replaced(network())
    policy.code = code
    start = time.monotonic()
    with pytest.raises(JailError, match=sentence):
        policy.run(np.zeros((2, 5), np.float32))
    assert time.monotonic() - start < 10
    policy.close()


def test_slow_answers_and_a_child_that_dies_midway(monkeypatch):
    monkeypatch.setattr(jail, "CALL_SECONDS", 1.0)
    slow = "import sys, time\nsys.stdin.buffer.readline(); sys.stdout.write('ready'); sys.stdout.flush(); {}"
    policy = Replaced(network())
    for code, sentence in (("time.sleep(60)", "no answer within 1 s"), ("sys.exit()", "was ended")):
        policy.code = slow.format(code)
        with pytest.raises(JailError, match=sentence):
            policy.run(np.zeros((2, 5), np.float32))


def test_a_batch_that_is_too_large_is_refused_inside():
    with JailedNetwork(network()) as policy, pytest.raises(JailError, match="was ended"):
        policy.run(np.zeros((5000, 5), np.float32))


def test_without_bubblewrap_there_is_no_evaluation(monkeypatch):
    """Closed, not open: networks of strangers are refused with a sentence that says what is missing."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not jail.is_available()
    with pytest.raises(InputError, match="bubblewrap"):
        JailedNetwork(network()).run(np.zeros((1, 5), np.float32))


def test_without_a_filter_for_the_machine_nothing_runs(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(KeyError):
        jailed.seccomp_program("pdp11")


def test_the_program_in_the_jail_needs_numpy_alone():
    """Its two files import nothing of the package, so that nothing of it must be visible inside."""
    for path in (jail.PROGRAM, jail.INTERPRETER):
        assert "matchgym" not in "".join(line for line in path.read_text().splitlines() if line.startswith(("import", "from")))
    spec = importlib.util.spec_from_file_location("apart", jail.PROGRAM)
    assert spec is not None
