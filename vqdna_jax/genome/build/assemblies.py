"""A list of assemblies by address and checksum, made into files of this machine.

    name<TAB>url<TAB>checksum<TAB>bytes
    e_coli<TAB>https://example.org/e_coli.fa.gz<TAB>md5:d41d8cd98f00b204e9800998ecf8427e<TAB>1393121

The first line that is no comment names the columns, in any order; `bytes` may be left out. An address is https, http,
anything fsspec reads (gs://, s3://), or a path, relative to the list.
"""

import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import tqdm

from vqdna_jax.errors import InputError, VqdnaError, cannot_write
from vqdna_jax.genome.build.sources import SPECIES_NAME, Source
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.runtime.remote import places
from vqdna_jax.runtime.remote.cache import cache_directory, one_at_a_time
from vqdna_jax.runtime.remote.download import PATIENCE, Patience, fetch
from vqdna_jax.runtime.remote.places import Checksum

AT_ONCE = 4  # downloads
MAX_LIST_BYTES = 1 << 24
_REQUIRED, _OPTIONAL = ("name", "url", "checksum"), ("bytes",)
_HEX_DIGITS = {"md5": 32, "sha256": 64}
_WEB = ("https://", "http://")


class Assembly(NamedTuple):
    """One line of a list."""

    name: str  # of its species in a corpus
    url: str
    checksum: Checksum
    size: int | None
    where: str  # file:line, for messages


def read_assemblies(path: str | os.PathLike) -> list[Assembly]:
    """The lines of a list. Raises InputError, as `file:line: what; what to do`, for anything not as described."""
    columns: list[str] | None = None
    found: list[Assembly] = []
    names: dict[str, int] = {}
    for number, line in enumerate(_text_of(path).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.startswith("#"):
            continue
        cells, where = [cell.strip() for cell in line.split("\t")], f"{path}:{number}"
        if columns is None:
            columns = _columns(cells, where)
            continue
        if len(cells) != len(columns):
            raise InputError(f"{where}: {len(cells)} columns, expected {len(columns)}, with a tab between two")
        assembly = _assembly(dict(zip(columns, cells)), Path(path).parent, where)
        for value in (assembly.name, assembly.url):
            if value in names:
                raise InputError(f"{where}: {value!r} is also in line {names[value]}; expected each assembly once")
            names[value] = number
        found.append(assembly)
    if not found:
        raise InputError(
            f"{path}: no assembly; expected a line of column names, name url checksum, and a line for each"
        )
    return found


def _text_of(path: str | os.PathLike) -> str:
    try:
        with open(path, "rb") as file:  # a device may have no end
            content = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if len(content) > MAX_LIST_BYTES:
        raise InputError(f"{path}: is larger than {MAX_LIST_BYTES} bytes; expected a list of addresses, not sequence")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: is not UTF-8 text; expected tab-separated columns") from error


def _columns(cells: list[str], where: str) -> list[str]:
    if missing := [name for name in _REQUIRED if name not in cells]:
        raise InputError(f"{where}: no column {missing[0]!r}; expected {' '.join(_REQUIRED)}, with a tab between two")
    for cell in cells:
        if cell not in _REQUIRED + _OPTIONAL or cells.count(cell) > 1:
            raise InputError(f"{where}: column {cell!r}; expected each of {' '.join(_REQUIRED + _OPTIONAL)} once")
    return cells


def _assembly(row: dict[str, str], directory: Path, where: str) -> Assembly:
    if not SPECIES_NAME.fullmatch(row["name"]):
        raise InputError(f"{where}: name is {row['name'][:120]!r}; expected letters, digits and . _ + -, up to 100")
    algorithm, _, digits = row["checksum"].partition(":")
    if not re.fullmatch(rf"[0-9a-fA-F]{{{_HEX_DIGITS.get(algorithm, 0)}}}", digits) or not digits:
        raise InputError(f"{where}: checksum is {row['checksum'][:80]!r}; expected md5: or sha256: and its hex digits")
    size = row.get("bytes", "")
    if size and not re.fullmatch(r"[1-9][0-9]{0,14}", size):
        raise InputError(f"{where}: bytes is {size[:40]!r}; expected a whole number, or nothing")
    checksum = Checksum(algorithm, digits.lower())
    return Assembly(row["name"], _address(row["url"], directory, where), checksum, int(size) if size else None, where)


def _address(url: str, directory: Path, where: str) -> str:
    if url.lower().startswith("file://"):
        url = unquote(urlsplit(url).path)
    if not url or any(character.isspace() for character in url):
        raise InputError(f"{where}: url is {url[:120]!r}; expected an address or a path, without blanks")
    return url if places.is_remote(url) else os.path.join(directory, url)


def fetch_assemblies(
    assemblies: Sequence[Assembly],
    downloads: str | os.PathLike | None = None,
    patience: Patience = PATIENCE,
    progress: bool = True,
) -> list[Source]:
    """Brings all of a list here, a few at once, and compares each with its checksum.

    What is in `downloads` (in the cache directory by default) already is not fetched again, and what broke off is
    continued. Raises the first error, when all others have come to their end: those of `download.fetch`.
    """
    directory = Path(downloads or cache_directory() / "downloads")
    stop = threading.Event()
    with progress_bar("downloads", 0, "B", progress) as bar, ThreadPoolExecutor(AT_ONCE) as pool:
        shown = _Progress(bar)
        waiting = [pool.submit(_bring, assembly, directory, shown, patience, stop) for assembly in assemblies]
        try:
            for _ in as_completed(waiting):
                pass
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    failed = [error for future in waiting if (error := future.exception())]
    if failed:
        others = f" (and {len(failed) - 1} more of {len(waiting)} assemblies)" if failed[1:] else ""
        raise type(failed[0])(f"{failed[0]}{others}") if isinstance(failed[0], VqdnaError) else failed[0]
    return [future.result() for future in waiting]


class _Progress:
    """A bar that several threads move, and of which they say how long it is as soon as they know."""

    def __init__(self, bar: tqdm.tqdm):
        self._bar, self._lock = bar, threading.Lock()

    def advance(self, file_bytes: int) -> None:
        with self._lock:
            self._bar.update(file_bytes)

    def expect(self, file_bytes: int) -> None:
        with self._lock:
            self._bar.total += file_bytes


def _bring(assembly: Assembly, directory: Path, shown: _Progress, patience: Patience, stop: threading.Event) -> Source:
    name = _file_name(assembly.url)
    try:
        if not places.is_remote(assembly.url):
            _check(assembly, Path(assembly.url))
            return Source(assembly.name, assembly.url, name)
        file = directory / f"{assembly.checksum.hex[:16]}-{name}"
        if assembly.url.lower().startswith(_WEB):
            fetch(assembly.url, file, assembly.checksum, assembly.size, shown.advance, shown.expect, patience, stop)
        else:
            _copy(assembly, file, shown)
    except VqdnaError as error:
        raise type(error)(f"{assembly.where}: {error}") from error
    return Source(assembly.name, os.fspath(file), name, assembly.url)


def _file_name(url: str) -> str:
    """The end of an address as a name that is safe in any directory."""
    last = unquote(urlsplit(url).path if places.is_remote(url) else url).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._+-]", "_", last)[-80:].lstrip(".-") or "genome"


def _check(assembly: Assembly, file: Path) -> None:
    try:
        intact = assembly.checksum.matches(file)
    except OSError as error:
        raise places.cannot_read(assembly.url, error) from error
    if not intact:
        raise InputError(f"{assembly.url}: is not {assembly.checksum}; correct the list or fetch the file again")


def _copy(assembly: Assembly, file: Path, shown: _Progress) -> None:
    try:
        size = places.file_size(assembly.url)
    except OSError as error:
        raise places.cannot_read(assembly.url, error) from error
    shown.expect(size)
    try:
        with one_at_a_time(file):
            if file.exists() and assembly.checksum.matches(file):
                shown.advance(size)
                return
            with places.writing(file) as path:
                places.download(assembly.url, path, shown.advance)
                _check(assembly, path)
    except OSError as error:
        raise (places.cannot_read(assembly.url, error) if error.errno is None else cannot_write(file, error)) from error
