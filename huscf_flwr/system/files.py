"""Files that are whole, or not there; and as many as there may be."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a file aside: the path to write to, which is renamed to `path` at the end.

    If the writing raises, what `path` held before stays, and nothing else is left. The path to
    write to is hidden, ends as `path` does, and differs between processes and threads. Where it is
    to be `durable`, the file survives from then on that the machine loses power.

    Raises
    ------
    OSError: the file cannot be put there.
    """
    aside = path.with_name(f".{path.stem}-{os.getpid()}-{threading.get_ident()}{path.suffix}")
    try:
        yield aside
        if durable:
            _to_disk(aside)
        aside.replace(path)
        if durable:
            _to_disk(path.parent)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def kept(path: Path, content: bytes) -> bytes:
    """What a file holds that is written once, by whoever is first, and only its user can read.

    Raises
    ------
    OSError: it cannot be written or read.
    """
    if not path.exists():
        aside = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
            _to_disk(aside)
            try:
                os.link(aside, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links: who is first may be seen half done
                if not path.exists():
                    aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return path.read_bytes()


def allow_many_files() -> None:
    """Let this process have as many files and connections open as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS calls that unlimited which it does not allow
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
