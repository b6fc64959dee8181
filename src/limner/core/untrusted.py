"""Guards for values from files of others: ZIP files, pickles that ask for memory, YAML that expands without end."""

import lzma
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import yaml

# what `zipfile` raises for a damaged file besides OSError and ValueError; RuntimeError: it is encrypted, or of a
# compression or version that zipfile does not know
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, RuntimeError)
MOST_HEADER = 16 << 20  # bytes of the header of a safetensors file, about a hundred for each tensor
MOST_YAML_VALUES = 1_000_000  # of a document with its aliases written out; recipes have some hundred
LENGTHS = {  # how a pickle's opcode gives the length of the text or bytes that follow it
    pickletools.TAKEN_FROM_ARGUMENT1: "<B",
    pickletools.TAKEN_FROM_ARGUMENT4: "<i",
    pickletools.TAKEN_FROM_ARGUMENT4U: "<I",
    pickletools.TAKEN_FROM_ARGUMENT8U: "<Q",
}
OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
LINES = {"stringnl_noescape_pair": 2}  # arguments of more than one line


def check_safetensors(path: str | Path) -> None:
    """Check that the header of a safetensors file is not so large that reading it takes gigabytes and minutes.

    Raises ValueError.  Whether the file is one, and whole, is found out by safetensors.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = file.seek(0, 2)
    if MOST_HEADER < length <= size:
        raise ValueError(
            f"{path} has a header of {length:,} bytes, and at most {MOST_HEADER:,} are read: no model needs more; get "
            "the file again from whom you trust"
        )


def check_pickle(file: BufferedIOBase) -> None:
    """Check that the next pickle in `file` asks for no more memory than its objects need; the position is restored.

    A pickle numbers its objects, and Python's unpickler makes a table up to the largest number.  Ten bytes with the
    number 0x0fffffff would take 4.3 GB.  Numbers that are written by a program follow each other, so a number far
    beyond the count of objects is refused.  Raises pickle.UnpicklingError.
    """
    start, numbered = file.tell(), 0
    while code := file.read(1):
        opcode = OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise pickle.UnpicklingError(f"unknown instruction {code!r} at byte {file.tell() - start - 1}")
        argument = _argument(file, opcode.arg)
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = _number(opcode.name, argument)
            if number > 2 * numbered + 1000:
                raise pickle.UnpicklingError(f"it gives object {numbered} the number {number}, which is damage or harm")
            numbered += 1
        if opcode.name == "STOP":
            break
    file.seek(start)


def _argument(file: BufferedIOBase, kind: pickletools.ArgumentDescriptor | None) -> bytes:
    """Read the argument of an opcode; text and bytes with a length are skipped."""
    if kind is None:
        return b""
    if kind.n == pickletools.UP_TO_NEWLINE:
        return b"".join(file.readline() for _ in range(LINES.get(kind.name, 1)))
    if kind.n >= 0:
        return file.read(kind.n)
    layout = LENGTHS[kind.n]
    size = file.read(struct.calcsize(layout))
    if len(size) < struct.calcsize(layout):
        raise EOFError("it ends too early")
    (length,) = struct.unpack(layout, size)
    file.seek(min(max(length, 0), 1 << 62), 1)
    return b""


def _number(opcode: str, argument: bytes) -> int:
    """The number that an opcode gives to an object."""
    if opcode == "PUT":
        digits = argument.strip()
        if not digits.isdigit() or len(digits) > 18:
            raise pickle.UnpicklingError(f"{argument[:40]!r} is no number of an object")
        return int(digits)
    return int.from_bytes(argument, "little")


def bounded_lines(readline: Callable[[int], bytes], most: int, where: str) -> Iterator[bytes]:
    """The lines of a binary file from its method `readline`, each with at most `most` bytes.

    Raises ValueError, which names `where`, for a longer line before all of it is in memory.

    >>> import io
    >>> list(bounded_lines(io.BytesIO(b"a b\\nc").readline, 10, "x.txt"))
    [b'a b\\n', b'c']
    """
    while line := readline(most + 1):
        if len(line) > most:
            raise ValueError(f"{where} has a line of more than {most:,} bytes: it is damaged, or no such file")
        yield line


def load_yaml(text: str) -> Any:
    """`yaml.safe_load`, which refuses documents whose aliases grow without bounds.  Raises yaml.YAMLError.

    >>> load_yaml("a: &x [1, 2]\\nb: *x")
    {'a': [1, 2], 'b': [1, 2]}
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > MOST_YAML_VALUES:
            raise yaml.YAMLError(f"its aliases (*name) stand for more than {MOST_YAML_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deep, or an alias (*name) contains itself") from error
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node has when every alias in it is written out; a node that contains itself recurses."""
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(_written_out(part, known) for part in inner)
    return known[id(node)]
