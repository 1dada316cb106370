"""How kernels are compiled, cached and handed their data.

Three facts about numba shape this file:

* its disk cache watches only the file of the function itself, so a kernel that calls an edited helper in another file would
  silently run the old code: `kernel` therefore names the cache entry after a hash of every kernel source;
* a kernel passed as an argument, or caught in a closure, is never found in the cache by the next process: `specialise`
  therefore binds kernels as *globals* of a copied loop, which numba caches like any module-level function;
* crossing from Python into compiled code costs about 125 ns per array, and a record handed from kernel to kernel by value
  takes long to compile: `pack` therefore lays all arrays of a record into one buffer, and what `opener` makes turns it into the
  named record, which to compiled code is a pointer with typed fields.
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
from llvmlite import ir
from numba import types as numba_types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model
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


def kernel(function: Callable, is_inlined: bool = True) -> Any:
    """Compile `function` with numba; the result is cached on disk and never outlives an edit of the sources.

    Kernels are compiled without numba's reference counting, which more than halves their time. They may therefore not allocate
    arrays, and a function that receives an array from one (as from `opener`) must be compiled by this decorator too.
    """
    function.__qualname__ = f"{function.__qualname__}_{_source_tag(inspect.getfile(function))}"
    return numba.njit(cache=True, error_model="numpy", nogil=True, forceinline=is_inlined, _nrt=False)(function)


def outlined_kernel(function: Callable) -> Any:
    """As `kernel`, for long functions off the common path, which would crowd the registers of the loops they end up in."""
    return kernel(function, is_inlined=False)


def pasted_kernel(function: Callable) -> Any:
    """As `kernel`, for a few lines that choose among long kernels: pasted into the caller before anything is compiled.

    Every level of calls is optimised with all that is below it; this one is none.
    """
    function.__qualname__ = f"{function.__qualname__}_{_source_tag(inspect.getfile(function))}"
    return numba.njit(cache=True, error_model="numpy", nogil=True, inline="always", _nrt=False)(function)


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


class OpenedRecord(numba_types.Type):
    """The type, in compiled code, of a record in a buffer: no more than where the buffer is.

    A kernel that is handed a record of thirty arrays by value has three hundred arguments, which take far longer to compile
    than what it does. Fields are read where they are used instead. As nothing writes to a header after `pack`, and fields that
    are numbers do not change either, the compiler is told that these words are invariant and reads each of them once.
    """

    def __init__(self, name: str, fields: tuple[tuple[str, Any, int], ...]) -> None:
        self.fields = fields
        super().__init__(f"OpenedRecord({name}, {fields})")


class _Pointer(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, cgutils.voidptr_t)


register_model(OpenedRecord)(_Pointer)


@infer_getattr
class _OpenedRecordAttributes(AttributeTemplate):
    key = OpenedRecord

    def generic_resolve(self, record: Any, attribute: str) -> Any:
        for name, word, axes in record.fields:
            if name == attribute:
                return numba_types.Array(word, axes, "C") if axes else word
        return None


@lower_getattr_generic(OpenedRecord)
def _read_field(context: Any, builder: Any, record: Any, start: Any, attribute: str) -> Any:
    """A field of a record: a number, or an array that is a window onto the buffer."""
    place = [name for name, _, _ in record.fields].index(attribute)
    _, word, axes = record.fields[place]

    def invariant(kind: Any, position: Any) -> Any:
        pointer = builder.gep(builder.bitcast(start, kind.as_pointer()), [position])
        value = builder.load(pointer)
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value

    whole = context.get_value_type(numba_types.int64)
    offset, *extents = (invariant(whole, whole(3 * place + k)) for k in range(1 + axes))
    kind = context.get_value_type(word)
    if not axes:
        return invariant(kind, offset)
    item, array_type = whole(8), numba_types.Array(word, axes, "C")
    strides = [item] if axes == 1 else [builder.mul(extents[1], item), item]
    window = context.make_array(array_type)(context, builder)
    data = builder.gep(builder.bitcast(start, kind.as_pointer()), [offset])
    populate_array(window, data, extents, strides, item, None, None)
    return window._getvalue()


@intrinsic
def _prefetch(context, table, row, column):
    """Compiled as an instruction that the processor may ignore."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        columns = cgutils.unpack_tuple(builder, array.shape)[1]
        place = builder.add(builder.mul(arguments[1], columns), arguments[2])
        address = builder.bitcast(builder.gep(array.data, [place]), cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, cgutils.int32_t, cgutils.int32_t, cgutils.int32_t])
        name = "llvm.prefetch.p0" if str(cgutils.voidptr_t) == "ptr" else "llvm.prefetch.p0i8"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        is_written, keep, is_data = (ir.Constant(cgutils.int32_t, value) for value in (1, 3, 1))
        builder.call(function, [address, is_written, keep, is_data])
        return context.get_dummy_value()

    return numba_types.void(table, numba_types.int64, numba_types.int64), generate


def _no_prefetch(table: Any, row: int, column: int) -> None:
    """The same without compilation: nothing."""


# Fetch an entry of a table into the cache, for a later kernel that would have to wait for it.
prefetch = _no_prefetch if numba.config.DISABLE_JIT else _prefetch


def opener(record_type: type) -> Any:
    """A jitted function buffer -> record, the compiled twin of `views`."""
    if numba.config.DISABLE_JIT:
        return lambda buffer: views(record_type, buffer)
    fields = tuple((name, numba.from_dtype(np.dtype(word)), axes) for name, word, axes in _fields(record_type))
    kind = OpenedRecord(record_type.__name__, fields)

    @intrinsic
    def open_record(context, buffer):
        def generate(context, builder, signature, arguments):
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            return builder.bitcast(array.data, cgutils.voidptr_t)

        return kind(buffer), generate

    return open_record


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
    report = numba.njit(error_model="numpy", nogil=True, forceinline=True, _nrt=False)(namespace["report"])
    return report, namespace["describe"]


def entry_point(function: Any, *arguments: Any) -> Callable[..., Any]:
    """The machine code of a kernel for arguments of these types.

    Calling it saves numba's choice among signatures, about 190 ns; in return nothing checks the types of what it is given.
    """
    if numba.config.DISABLE_JIT:
        return function
    return function.compile(tuple(numba.typeof(argument) for argument in arguments))
