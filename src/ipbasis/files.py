"""Writing files whole: to a temporary name first, then renamed; by one process at a time, and never over an input."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ipbasis.errors import InputError


def refuse_inputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuse an output that is an input, or another output: the same file by any name, also by a link.

    Raises:
        InputError: names the two.
    """
    for number, output in enumerate(outputs):
        for other in inputs:
            if _same(output, other):
                also = "" if output == other else f", the same file as {other}"
                raise InputError(f"{output}: an input{also}; another name for the output is right")
        for other in outputs[:number]:
            if _same(output, other):
                raise InputError(f"{output}: the same file as {other}; a name of its own for each output is right")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # not there yet
        return os.path.realpath(one) == os.path.realpath(other)


@contextmanager
def claimed(*outputs: Path) -> Iterator[None]:
    """Files that no other process may claim until the block ends; directories that are made for them go if left empty.

    The claim is a lock of the operating system on a hidden file beside each: it ends with the process, however that
    ends.

    Raises:
        InputError: if another process has claimed one of them, or nothing can be written there.
    """
    with ExitStack() as held:
        for path in outputs:
            held.enter_context(_claimed(path))
        yield


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    created = _made(path)
    try:
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, thread_local=False)
        with _told(path):
            try:
                lock.acquire()
            except Timeout:
                what = "another process is writing it; wait until that has ended, or give another name"
                raise InputError(f"{path}: {what}") from None
        try:
            yield
        finally:
            with suppress(OSError):  # while it is held: who opened it before finds that it is gone
                os.unlink(lock.lock_file)
            lock.release()
    finally:
        _unmade(created)


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The block does nothing but write: an error of the operating system in it, such as a full disk, is told as one of
    writing the file.

    Raises:
        InputError: if nothing can be written there, or not all of it.
    """
    path, temporary = Path(path), None
    created = _made(path)
    try:
        with _told(path):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
            temporary = Path(name)
            os.close(handle)
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        _unmade(created)
        raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def _made(path: Path) -> list[Path]:
    """Make the directories above a file; which of them were not there, the deepest first."""
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a null character, which the name of a file cannot have")
    with _told(path):
        created = [parent for parent in path.parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "is a directory")
    return created


def _unmade(created: Sequence[Path]) -> None:
    for parent in created:
        with suppress(OSError):  # not empty: somebody else's by now
            parent.rmdir()
