"""How kernels are compiled, cached and handed their data.

Three facts about numba shape this file:

* its disk cache watches only the file of the function itself, so a kernel that calls an edited helper in another file would
  silently run the old code: `kernel` therefore names the cache entry after a hash of every kernel source;
* a kernel passed as an argument, or caught in a closure, is never found in the cache by the next process: `specialise`
  therefore binds kernels as *globals* of a copied loop, which numba caches like any module-level function;
* crossing from Python into compiled code costs about 125 ns per array: `pack` therefore lays all arrays of a record into one
  buffer, and the jitted function made by `opener` reads them back as the named record, at no cost inside compiled code.
"""

import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import numba
import numpy as np
from numba import types as numba_types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

# Annotations of the fields of a record: what numba sees is (word type, number of axes).
Real = Annotated[float, np.float64, 0]
Integer = Annotated[int, np.int64, 0]
Reals = Annotated[NDArray[np.float64], np.float64, 1]
Integers = Annotated[NDArray[np.int64], np.int64, 1]
RealTable = Annotated[NDArray[np.float64], np.float64, 2]
IntegerTable = Annotated[NDArray[np.int64], np.int64, 2]
WordTable = Annotated[NDArray[np.uint64], np.uint64, 2]


@functools.cache
def _folder_digest(folder: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


def _source_tag(source: str) -> str:
    """Eight hex digits that change with any source file a kernel of this file may call."""
    folders = (Path(__file__).parent, Path(source).parent)
    return hashlib.sha256(b"".join(_folder_digest(folder) for folder in folders)).hexdigest()[:8]


def kernel(function: Callable, is_inlined: bool = True, is_inner: bool = False) -> Any:
    """Compile `function` with numba; the result is cached on disk and never outlives an edit of the sources.

    Kernels are compiled without numba's reference counting, which more than halves their time. They may therefore not allocate
    arrays, and a function that receives an array from one (as from `opener`) must be compiled by this decorator too.
    """
    function.__qualname__ = f"{function.__qualname__}_{_source_tag(inspect.getfile(function))}"
    doors = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True} if is_inner else {}
    return numba.njit(cache=True, error_model="numpy", nogil=True, forceinline=is_inlined, _nrt=False, **doors)(function)


def inner_kernel(function: Callable) -> Any:
    """As `kernel`, for functions that only kernels call: without the door from Python, which takes much of the time to compile.

    It must not be called from Python, which would crash the process.
    """
    return kernel(function, is_inner=True)


def outlined_kernel(function: Callable) -> Any:
    """As `kernel`, for long functions off the common path, which would crowd the registers of the loops they end up in."""
    return kernel(function, is_inlined=False)


def allocating_kernel(function: Callable) -> Any:
    """As `kernel`, for decisions that need arrays of sizes unknown before: slower, and not to be called by kernels."""
    function.__qualname__ = f"{function.__qualname__}_{_source_tag(inspect.getfile(function))}"
    return numba.njit(cache=True, error_model="numpy", nogil=True)(function)


def specialise(loop: Callable, name: str, file: str, **bound: Any) -> Any:
    """Compile a copy of `loop` in which the global names `bound` mean the given kernels.

    Parameters
    ----------
    loop : a plain Python function that calls kernels by global names it does not define itself.
    name : the name of the copy; with `file`, it names the cache entry, so it must be unique within that file.
    file : the source file on whose behalf the loop is compiled (`__file__` of the model or the policy).
    bound : the kernels.
    """
    code = loop.__code__.replace(co_filename=file)
    copy = types.FunctionType(code, {**loop.__globals__, **bound}, name, loop.__defaults__)
    copy.__qualname__, copy.__doc__ = name, loop.__doc__
    return kernel(copy)


def extend_record(record_type: Any, name: str, **added: Any) -> Any:
    """A record type with the fields of another one and some more: what a model adds to the state of a model it builds on."""
    return NamedTuple(name, [*get_type_hints(record_type, include_extras=True).items(), *added.items()])


def _fields(record_type: type) -> list[tuple[str, type, int]]:
    hints = get_type_hints(record_type, include_extras=True)
    return [(name, *hints[name].__metadata__) for name in record_type._fields]  # type: ignore[attr-defined]


def pack(record: NamedTuple) -> NDArray[np.float64]:
    """Lay the fields of a record of arrays and numbers into one buffer of 64-bit words.

    The buffer starts with a header, for each field its offset and its two extents, and is read by `opener(type(record))` in
    compiled code and by `views(type(record), buffer)` in Python.
    """
    fields = _fields(type(record))
    values: list[NDArray[Any]] = [np.asarray(value, dtype, order="C") for value, (_, dtype, _) in zip(record, fields)]
    for value, (name, _, axes) in zip(values, fields):
        if value.ndim != axes:
            raise TypeError(f"{type(record).__name__}.{name} needs {axes} axes, got {value.ndim}")
    header = np.zeros((len(fields), 3), np.int64)
    offset = header.size
    for row, value in zip(header, values):
        row[:] = [offset, *value.shape, 1, 1][:3]
        offset += value.size
    buffer = np.empty(offset, np.float64)
    buffer[: header.size] = header.ravel().view(np.float64)
    for row, value in zip(header, values):
        buffer[row[0] : row[0] + value.size] = value.ravel().view(np.float64)
    return buffer


def views(record_type: type, buffer: NDArray[np.float64]) -> Any:
    """The record whose arrays are windows onto `buffer` (numbers are copied out)."""
    fields = _fields(record_type)
    header = buffer[: 3 * len(fields)].view(np.int64).reshape(-1, 3)
    opened: list[Any] = []
    for (_, dtype, axes), (offset, rows, columns) in zip(fields, header):
        block: NDArray[Any] = buffer[offset : offset + rows * columns].view(dtype)
        opened.append(block[0].item() if axes == 0 else block.reshape((rows, columns)[:axes]))
    return record_type(*opened)


@intrinsic
def _window(context, words, start, shape):
    """The array of this shape that begins at words[start], without numba's checks, which cost time, also to compile."""
    array_type = numba_types.Array(words.dtype, len(shape), "C")

    def generate(context, builder, signature, arguments):
        whole = context.make_array(signature.args[0])(context, builder, arguments[0])
        part = context.make_array(array_type)(context, builder)
        extents = cgutils.unpack_tuple(builder, arguments[2])
        strides = [whole.itemsize] if len(extents) == 1 else [builder.mul(extents[1], whole.itemsize), whole.itemsize]
        data = builder.gep(whole.data, [arguments[1]])
        populate_array(part, data, extents, strides, whole.itemsize, whole.meminfo, whole.parent)
        return part._getvalue()

    return array_type(words, start, shape), generate


def _window_in_python(words: NDArray[Any], start: int, shape: tuple[int, ...]) -> NDArray[Any]:
    return words[start : start + int(np.prod(shape))].reshape(shape)


_inner = numba.njit(
    error_model="numpy", nogil=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # of functions made of a text, which have no file to be cached beside, and which only kernels call


def opener(record_type: type) -> Any:
    """A jitted function buffer -> record, the compiled twin of `views`."""
    lines = []
    for index, (_, dtype, axes) in enumerate(_fields(record_type)):
        offset, rows, columns = (f"int64[{3 * index + k}]" for k in range(3))
        words, shape = dtype.__name__, (f"({rows},)", f"({rows}, {columns})")[axes > 1]
        lines.append(f"window({words}, {offset}, {shape})" if axes else f"{words}[{offset}]")
    source = (
        f"def open_{record_type.__name__.lower()}(buffer):\n"
        "    float64, int64, uint64 = buffer, buffer.view(np.int64), buffer.view(np.uint64)\n"
        f"    return Record({', '.join(lines)})\n"
    )
    namespace: dict[str, Any] = {
        "np": np,
        "window": _window_in_python if numba.config.DISABLE_JIT else _window,
        "Record": record_type,
    }
    exec(source, namespace)
    return _inner(namespace[f"open_{record_type.__name__.lower()}"])


def reporter(names: Sequence[str]) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """Two functions that report the named fields of a state, one number per row.

    The first is jitted, (state, b) -> tuple of numbers. The second makes a dict of that tuple, (numbers, mask) -> dict with the
    mask as "action_mask"; written out, it is twice as fast as a loop over the names.
    """
    namespace: dict[str, Any] = {}
    numbers = "".join(f"state.{name}[b], " for name in names)
    entries = ", ".join(f"{name!r}: numbers[{k}]" for k, name in enumerate(names))
    exec(f"def report(state, b):\n    return ({numbers})\n", namespace)
    exec(f"def describe(numbers, mask):\n    return {{{entries}, 'action_mask': mask}}\n", namespace)
    report = _inner(namespace["report"])
    return report, namespace["describe"]


def entry_point(function: Any, *arguments: Any) -> Callable[..., Any]:
    """The machine code of a kernel for arguments of these types.

    Calling it saves numba's choice among signatures, about 190 ns; in return nothing checks the types of what it is given.
    """
    if numba.config.DISABLE_JIT:
        return function
    return function.compile(tuple(numba.typeof(argument) for argument in arguments))
