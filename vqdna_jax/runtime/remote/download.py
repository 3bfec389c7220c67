"""One file over HTTP, whatever the server does: continued where it broke off, checked against its checksum, whole.

    fetch(url, file, checksum)  ->  `file`, complete and verified; until then file.part and file.part.version

A connection that fails, stalls or ends early, and the answers 408, 429 and 5xx, are tried again after a pause that
doubles (or the server's Retry-After); the part that arrived is kept, also for the next run.
"""

import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import requests
import urllib3

from vqdna_jax.errors import InputError, PeerError, cannot_write
from vqdna_jax.runtime.remote.cache import one_at_a_time
from vqdna_jax.runtime.remote.places import Checksum

BLOCK_BYTES = 1 << 18
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Patience(NamedTuple):
    """How long a server is put up with."""

    connect_s: float = 30.0
    stall_s: float = 60.0  # without a byte
    tries: int = 6  # in a row, without at least `progress_bytes` more
    pause_s: float = 1.0  # before the second try, doubled for each that follows
    longest_pause_s: float = 120.0
    progress_bytes: int = 1 << 20


PATIENCE = Patience()


class _TryAgainError(Exception):
    """Says why; `pause_s` is what the server asked for."""

    def __init__(self, reason: str, pause_s: float | None = None):
        super().__init__(reason)
        self.pause_s = pause_s


class _Session(requests.Session):
    """Follows no redirect from https to anything else, and none but to the web."""

    def get_redirect_target(self, response: requests.Response) -> str | None:
        target = super().get_redirect_target(response)
        if target is None:
            return None
        whole = urljoin(response.url, target)
        allowed = ("https://",) if response.url.startswith("https://") else ("https://", "http://")
        if not whole.lower().startswith(allowed):
            raise InputError(f"{response.url}: is redirected to {whole[:200]}, which is not safe; correct the address")
        return target


def fetch(
    url: str,
    file: Path,
    checksum: Checksum,
    size: int | None = None,
    advance: Callable[[int], object] = lambda file_bytes: None,
    expect: Callable[[int], object] = lambda file_bytes: None,
    patience: Patience = PATIENCE,
    stop: threading.Event | None = None,
) -> None:
    """Makes `file` the content of `url`; does nothing where that is already so. Processes may ask for the same file.

    `advance` hears how many more bytes there are, or fewer; `expect` how many there will be, once. `stop` ends it
    between two blocks, and keeps what arrived. Raises InputError: no such address, refused, wrong size or checksum;
    PeerError: patience is at its end; StorageError: the disk is full.
    """
    try:
        with one_at_a_time(file):
            if file.exists():
                if checksum.matches(file):
                    expect(file.stat().st_size)
                    advance(file.stat().st_size)
                    return
                file.unlink()  # a copy that was damaged, or another version
            _Download(url, file, checksum, size, advance, expect, patience, stop or threading.Event()).run()
    except OSError as error:
        raise cannot_write(file, error) from error


class _Download:
    """One call of `fetch`."""

    def __init__(
        self,
        url: str,
        file: Path,
        checksum: Checksum,
        size: int | None,
        advance: Callable[[int], object],
        expect: Callable[[int], object],
        patience: Patience,
        stop: threading.Event,
    ):
        self.url, self.file, self.checksum, self.size = url, file, checksum, size
        self.advance, self.expect, self.patience, self.stop = advance, expect, patience, stop
        self.expected = False
        self.part, self.note = Path(f"{file}.part"), Path(f"{file}.part.version")
        self.have = self.part.stat().st_size if self.part.exists() else 0
        self.responses = 2 if self.have else 0  # that the part is made of, if no more than one
        self.advance(self.have)

    def run(self) -> None:
        failures, best, mismatches = 0, self.have, 0
        while True:
            try:
                self._try()
                found, one_version = self.checksum.of(self.part), self.responses == 1
                if found == self.checksum.hex:
                    break
                self._forget()
                mismatches += 1
                if one_version or mismatches == 2:
                    kind = self.checksum.algorithm
                    raise InputError(f"{self.url}: {kind} is {found}, expected {self.checksum.hex}; correct the list")
            except _TryAgainError as error:
                failures = 1 if self.have >= best + self.patience.progress_bytes else failures + 1
                best = max(best, self.have)
                if failures >= self.patience.tries:
                    raise PeerError(f"{self.url}: {error} (tries: {failures}); run it again to go on") from error
                self.stop.wait(self._pause(error.pause_s, failures))
        self.note.unlink(missing_ok=True)
        os.replace(self.part, self.file)

    def _pause(self, asked_s: float | None, failures: int) -> float:
        pause_s = self.patience.pause_s * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
        return min(self.patience.longest_pause_s, max(pause_s, asked_s or 0.0))

    def _forget(self) -> None:
        self.advance(-self.have)
        self.have = self.responses = 0
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _try(self) -> None:
        if self.stop.is_set():
            raise PeerError(f"{self.url}: stopped; run it again to go on")
        if self.size is not None and self.have > self.size:
            self._forget()
        if self.have == self.size:
            return
        times = (self.patience.connect_s, self.patience.stall_s)
        try:
            with (
                _Session() as session,
                session.get(self.url, headers=self._headers(), stream=True, timeout=times) as response,
            ):
                self._take(response)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise InputError(f"{self.url}: {_reason(error)}; correct the address or the certificates") from error
            raise _TryAgainError(_reason(error)) from error
        except requests.RequestException as error:
            raise InputError(f"{self.url}: {_reason(error)}; correct the address") from error

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}  # the checksum is of the file as it lies there
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            if self.note.exists() and (validator := self.note.read_text()):
                headers["If-Range"] = validator
        return headers

    def _take(self, response: requests.Response) -> None:
        status = response.status_code
        if status == 416:  # the part is whole, or longer than the file now is
            whole = response.headers.get("Content-Range", "").endswith(f"/{self.have}")
            if not whole:
                self._forget()
                raise _TryAgainError("the file there is shorter than what arrived before")
            return
        if status in _AGAIN:
            raise _TryAgainError(f"the server says {status} {response.reason}", _retry_after(response))
        if status not in (200, 206):
            raise InputError(f"{self.url}: the server says {status} {response.reason}; correct the address")
        total = self._start(response, status)
        if self.size is not None and total is not None and total != self.size:
            raise InputError(f"{self.url}: has {total} bytes, expected {self.size}; correct the list")
        if total is not None and not self.expected:
            self.expected = True
            self.expect(total)
        self._write_note(response)
        self._append(response, self.size if total is None else total)

    def _append(self, response: requests.Response, limit: int | None) -> None:
        self.responses += 1
        with open(self.part, "ab" if self.have else "wb") as target:
            while block := response.raw.read1(BLOCK_BYTES, decode_content=False):
                target.write(block)
                self.have += len(block)
                self.advance(len(block))
                if self.stop.is_set():
                    raise PeerError(f"{self.url}: stopped; run it again to go on")
                if limit is not None and self.have > limit:
                    self._forget()
                    raise InputError(f"{self.url}: has more than {limit} bytes; correct the list")
        if limit is not None and self.have < limit:
            raise _TryAgainError(f"{self.have} of {limit} bytes arrived")

    def _start(self, response: requests.Response, status: int) -> int | None:
        """Where the body starts must be where the part ends; returns the size of the whole file, if it is said."""
        if status == 200:
            self._forget()
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdigit() else None
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != self.have:
            self._forget()
            raise _TryAgainError("the server sent another range than it was asked for")
        return None if found[2] == "*" else int(found[2])

    def _write_note(self, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        strong = etag if etag.startswith('"') else ""
        self.note.write_text(strong or response.headers.get("Last-Modified", ""))


def _reason(error: BaseException) -> str:
    """The innermost words: requests wraps urllib3, which wraps the socket."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "the server stalls"
    if "IncompleteRead" in str(error):
        return "the connection ended early"
    while inner := error.__cause__ or error.__context__:
        error = inner
    return " ".join(str(error).split())[:200] or type(error).__name__


def _retry_after(response: requests.Response) -> float | None:
    """Seconds, or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
