"""Files on this machine and in object stores (gs://, s3://, whatever fsspec has a plugin for) by the same few calls.

A path with "://" is remote, and "-" is standard input. What goes wrong with a remote one, whichever library it comes
from, is an OSError of one line, as it is for a local path; only a protocol that is not installed is an InputError.
"""

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec

from vqdna_jax.errors import InputError, PeerError, StorageError, VqdnaError, cannot_write, first_line, shown

STANDARD_INPUT = "-"
BLOCK_BYTES = 1 << 22  # of a copy, and read ahead of a remote file
LEFT_FREE = 1 << 30  # bytes that the copy of a stream, which may have no end, leaves to other programs
STORES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "az": "adlfs", "abfs": "adlfs"}  # of stores


def is_remote(path: str | os.PathLike) -> bool:
    return "://" in os.fspath(path)


def is_stream(path: str | os.PathLike) -> bool:
    """Standard input, or a pipe or a device by its name: what can be read once only, in order."""
    if os.fspath(path) == STANDARD_INPUT:
        return True
    try:
        mode = 0 if is_remote(path) else os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def check_spelling(path: str | os.PathLike, library: str = "ArrayRecord") -> None:
    """Raises InputError for a path that is not UTF-8, where a `library` takes no other."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: is not UTF-8, which {library} needs; name another place") from error


def absolute(path: str | os.PathLike) -> str:
    """The same place for a process that runs in another directory."""
    return os.fspath(path) if is_remote(path) else os.path.abspath(path)


def join(directory: str | os.PathLike, *names: str) -> str:
    if is_remote(directory):
        return "/".join([os.fspath(directory).rstrip("/"), *names])
    return os.path.join(directory, *names)


@contextlib.contextmanager
def _remote(url: str) -> Iterator[tuple[Any, str]]:
    """(file system, path within it); what its library raises inside becomes an OSError."""
    with in_words(url):
        yield fsspec.url_to_fs(url)


@contextlib.contextmanager
def in_words(url: str) -> Iterator[None]:
    """What a library of object stores raises inside becomes an OSError; InputError where it is not installed."""
    protocol = url.partition("://")[0]
    if protocol not in {*fsspec.available_protocols(), *fsspec.registry}:
        raise InputError(f"{url}: nothing is known of {protocol}://; correct it, or install its fsspec plugin")
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:  # often without a number and words
        number = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EACCES
        raise OSError(number, os.strerror(number), url) from error
    except (OSError, VqdnaError):
        raise
    except ImportError as error:
        package = STORES.get(protocol, "its fsspec plugin")
        raise InputError(f"{url}: {package} is not installed; pip install {package}, or name a local path") from error
    except Exception as error:  # each plugin has exceptions of its own: of the network, of credentials
        if "Credential" in type(error).__name__:
            raise InputError(f"{url}: {first_line(error)}; give this machine the store's credentials") from error
        raise OSError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def cannot_read(path: str | os.PathLike, error: OSError) -> VqdnaError:
    """PeerError for a store that does not answer, which may be better later; else InputError."""
    kind = PeerError if is_remote(path) and error.errno is None else InputError
    return kind(f"{shown(path)}: cannot be read ({error.strerror or error}); check the path and the way to it")


def open_binary(path: str | os.PathLike) -> BinaryIO:
    """Opens a file for reading, with seek. Raises OSError; reading a remote one raises what its plugin does."""
    if not is_remote(path):
        return open(path, "rb")
    with _remote(os.fspath(path)) as (system, inside):
        return system.open(inside, "rb", block_size=BLOCK_BYTES)


def read_bytes(path: str | os.PathLike) -> bytes:
    if not is_remote(path):
        return Path(path).read_bytes()
    with _remote(os.fspath(path)) as (system, inside):
        return system.cat_file(inside)


def file_size(path: str | os.PathLike) -> int:
    """Bytes. Raises OSError when there is no such file."""
    if not is_remote(path):
        return os.stat(path).st_size
    with _remote(os.fspath(path)) as (system, inside):
        return system.size(inside)


def is_directory(path: str | os.PathLike) -> bool:
    if not is_remote(path):
        return os.path.isdir(path)
    with _remote(os.fspath(path)) as (system, inside):
        return system.isdir(inside)


def files_in(directory: str | os.PathLike) -> list[str]:
    """The files of a directory, not of those below it, as whole paths in order."""
    if not is_remote(directory):
        return sorted(entry.path for entry in os.scandir(os.fspath(directory)) if entry.is_file())
    with _remote(os.fspath(directory)) as (system, inside):
        found = system.ls(inside, detail=True)
        return sorted(system.unstrip_protocol(file["name"]) for file in found if file["type"] == "file")


def matching(pattern: str | os.PathLike) -> list[str]:
    """The files that a path or a pattern names, in order."""
    if not is_remote(pattern):
        found = [os.fspath(pattern)] if os.path.isfile(pattern) else glob.glob(os.fspath(pattern), recursive=True)
        return sorted(filter(os.path.isfile, found))
    with _remote(os.fspath(pattern)) as (system, inside):
        found = [inside] if system.isfile(inside) else [path for path in system.glob(inside) if system.isfile(path)]
        return sorted(map(system.unstrip_protocol, found))


def is_vacant(directory: str | os.PathLike) -> bool:
    """Nothing is there, or an empty directory."""
    if not is_remote(directory):
        return not os.path.lexists(directory) or (os.path.isdir(directory) and not os.listdir(directory))
    with _remote(os.fspath(directory)) as (system, inside):
        system.invalidate_cache()
        return not system.isfile(inside) and not (system.exists(inside) and system.find(inside))


def remove_tree(directory: str | os.PathLike) -> None:
    """Takes a directory away as far as it can; one that is not there is no error."""
    if not is_remote(directory):
        shutil.rmtree(directory, ignore_errors=True)
        return
    with contextlib.suppress(OSError), _remote(os.fspath(directory)) as (system, inside):
        system.rm(inside, recursive=True)


def download(url: str, file: Path, advance: Callable[[int], None] = lambda file_bytes: None) -> str:
    """Copies a remote file to a local one; returns its sha256. Raises OSError, also for one that was cut short."""
    expected, digest = file_size(url), hashlib.sha256()
    with open(file, "wb") as target, _remote(url), open_binary(url) as source:
        while block := source.read(BLOCK_BYTES):
            target.write(block)
            digest.update(block)
            advance(len(block))
    if (copied := file.stat().st_size) != expected:
        raise OSError(f"{copied} of {expected} bytes arrived; try again")
    return digest.hexdigest()


def upload(file: Path, url: str) -> None:
    """Copies a local file to a remote place and reads it back. Raises OSError when what is there differs."""
    with _remote(url) as (system, inside):
        if url.partition("://")[0] not in STORES:  # a store has no directories, and would make a bucket of a typo
            system.makedirs(system._parent(inside), exist_ok=True)
        system.put_file(os.fspath(file), inside)
        system.invalidate_cache()
        with open_binary(url) as stored, open(file, "rb") as sent:
            if sha256_of_file(stored) != sha256_of_file(sent):
                raise OSError("what was uploaded differs from what was sent; try again")


class Copy(os.PathLike):
    """Opens the file `where`; messages name what it is a copy of."""

    def __init__(self, where: Path, original: str | os.PathLike):
        self._where, self._original = where, original

    def __fspath__(self) -> str:
        return os.fspath(self._where)

    def __str__(self) -> str:
        return os.fspath(self._original)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory for as long as the context lasts. Raises InputError or StorageError where none can be made."""
    try:
        directory = tempfile.mkdtemp(prefix="vqdna-")
    except OSError as error:
        raise cannot_write(f"TMPDIR={os.environ.get('TMPDIR') or '/tmp'}", error) from error
    try:
        yield Path(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


Fault = Callable[[bytes], str]  # "LINE: what is wrong" with the next block of a stream; "" where nothing is


@contextlib.contextmanager
def local_copy(path: str | os.PathLike, fault: Fault) -> Iterator[str | os.PathLike]:
    """A local file with the content of `path`, to be read as often as one likes: `path` itself, or for as long as the
    context lasts a copy of what is remote or a stream. A stream ends where a block of it has a `fault`, for it may have
    no end of its own. Raises OSError, InputError for a fault, StorageError where there is no room for a copy.
    """
    if not is_remote(path) and not is_stream(path):
        yield path
        return
    with scratch() as directory:
        copy = directory / "copy"
        if is_remote(path):
            with _room(directory):
                download(os.fspath(path), copy)
        else:
            _save(path, copy, fault)
        yield Copy(copy, _title(path))


@contextlib.contextmanager
def readable(path: str | os.PathLike, fault: Fault) -> Iterator[str | os.PathLike]:
    """As `local_copy`, of what can be opened. Raises as `cannot_read`."""
    with contextlib.ExitStack() as copies:
        try:
            copy = copies.enter_context(local_copy(path, fault))
            open(copy, "rb").close()
        except OSError as error:
            raise cannot_read(path, error) from error
        yield copy


def _title(path: str | os.PathLike) -> str:
    return "standard input" if os.fspath(path) == STANDARD_INPUT else os.fspath(path)


def _save(stream: str | os.PathLike, copy: Path, fault: Fault) -> None:
    """Raises OSError when the stream cannot be read, StorageError before it fills the disk, InputError for a fault."""
    source, copied = 0 if os.fspath(stream) == STANDARD_INPUT else stream, 0
    # Around the files, too: one that cannot be flushed fails again when it is closed.
    with _room(copy.parent), open(source, "rb", closefd=source != 0) as incoming, open(copy, "wb") as target:
        while block := incoming.read(BLOCK_BYTES):
            if reason := fault(block):
                raise InputError(f"{_title(stream)}:{reason}")
            target.write(block)
            target.flush()
            copied += len(block)
            _check_left(stream, copy.parent, copied)


def _check_left(stream: str | os.PathLike, directory: Path, copied: int) -> None:
    """Raises StorageError where little is left on the disk, less than a stream took of it."""
    free = shutil.disk_usage(directory).free
    if free < min(copied, LEFT_FREE):
        found = f"{copied >> 20:,} MiB of {_title(stream)} without an end, {free >> 20:,} MiB are free"
        raise StorageError(f"TMPDIR={directory.parent}: {found}; name a larger place, or a file in place of the pipe")


@contextlib.contextmanager
def _room(directory: Path) -> Iterator[None]:
    """Names the place where a full disk stops a copy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise cannot_write(f"TMPDIR={directory.parent}", error) from error
        raise


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Path]:
    """A local file to write that takes its place at `path` if all goes well: renamed, or uploaded and compared.

    Two writers of the same path do not meet.
    """
    with tempfile.TemporaryDirectory() if is_remote(path) else contextlib.nullcontext(Path(path).parent) as directory:
        temporary = Path(directory) / f".{os.path.basename(path)}.{uuid.uuid4().hex[:8]}"
        try:
            yield temporary
            if is_remote(path):
                upload(temporary, os.fspath(path))
            else:
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def sha256_of_file(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def sha256_of(path: str | os.PathLike) -> str:
    with open_binary(path) as file:
        return sha256_of_file(file)


class Checksum(NamedTuple):
    algorithm: str  # md5 or sha256
    hex: str

    def of(self, file: Path) -> str:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, self.algorithm).hexdigest()

    def matches(self, file: Path) -> bool:
        return self.of(file) == self.hex

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
