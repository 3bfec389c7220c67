"""What is wrong with a FASTA file, in words: looked for only where the fast reader has seen that something is."""

import re
from collections.abc import Container

from vqdna_jax.genome.alphabet import AMBIGUOUS_LETTERS, letter_at

MAX_HEADER_BYTES = 1 << 16
TOO_LONG = f"the header line is longer than {MAX_HEADER_BYTES} bytes; shorten it"

_NOT_DNA = re.compile(rb"[^\nACGTN%b]" % AMBIGUOUS_LETTERS.encode(), re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00\x02-\x08\x0b-\x1f\x7f]")  # Ctrl-A stands between the titles that NCBI merged
_EXPLAIN_LETTER = [
    (b"-.*", "is an alignment gap; remove the gaps first"),
    (b"Uu", "is RNA; replace U by T first"),
    (b"EFILPQXZJOefilpqxzjo", "is not a DNA letter (protein?); expected A C G T N or IUPAC"),
    (b"0123456789 \t", "is a digit or blank; expected bare sequence lines without numbering"),
    (b">", "inside a sequence line; a header must start its own line"),
    (b";", "starts a comment; remove comment lines"),
    (b"@+", "looks like FASTQ; convert it to FASTA"),
]
_EXPLAIN_START = [
    (b"@", "this is FASTQ; convert it to FASTA"),
    (b";", "';' comments are not supported; remove them"),
    (b"\xff\xfe", "this is UTF-16; save it as plain text"),
    (b"\xfe\xff", "this is UTF-16; save it as plain text"),
    (b"BZh", "this is bzip2; decompress it first or use gzip"),
    (b"\xfd7zXZ", "this is xz; decompress it first or use gzip"),
    (b"\x28\xb5\x2f\xfd", "this is zstd; decompress it first or use gzip"),
    (b"PK", "this is a zip archive; extract it first"),
    (b"\x43\x27\x41\x1a", "this is .2bit, which is read from a file alone; name it"),
    (b"\x1a\x41\x27\x43", "this is .2bit, which is read from a file alone; name it"),
    (b"\x1f\x8b", "this is gzip inside gzip; decompress it once"),
]


def first_fault(text: bytes, at_line_start: bool, any_record: bool, taken: Container[str]) -> tuple[int, str] | None:
    """How many lines of `text` are before the first fault, and what it is; None where all is well.

    Args:
        at_line_start: whether `text` begins with a new line of the file.
        any_record: whether there was a header before.
        taken: names that a record may not have.
    """
    known: set[str] = set()
    lines = text.split(b"\n")
    for number, line in enumerate(lines):
        if line.startswith(b">") and (number or at_line_start):
            any_record, reason = True, _header_fault(line[1:], taken, known)
        elif any_record:
            reason = letter_fault(line.rstrip(b" \t"))
        else:
            reason = start_fault(b"\n".join(lines[number:])) if line.rstrip(b" \t") else ""
        if reason:
            return number, reason
    return None


def names_of(headers: str) -> list[str]:
    """The first word of each line."""
    plain = headers.replace("\t", " ").replace("\x01", " ")
    return [header.strip().partition(" ")[0] for header in plain.split("\n")]


def _header_fault(header: bytes, taken: Container[str], known: set[str]) -> str:
    if len(header) > MAX_HEADER_BYTES:
        return TOO_LONG
    if _CONTROL.search(header):
        return "control characters in the header; the file is binary or UTF-16, expected plain text"
    try:
        (name,) = names_of(header.decode())
    except UnicodeDecodeError as error:
        return f"the header is not UTF-8 at byte {error.start + 1}; re-encode the file"
    if not name:
        return "the header has no name; expected '>name'"
    if name in taken or name in known:
        return f"a second record is named {name[:80]!r}; rename it, or let --on-duplicate=rename number it"
    known.add(name)
    return ""


def letter_fault(line: bytes) -> str:
    """What is wrong with a line of sequence; nothing where it is DNA."""
    if not (found := _NOT_DNA.search(line)):
        return ""
    reason = next((why for letters, why in _EXPLAIN_LETTER if found[0] in letters), "is not DNA; the file is damaged")
    return f"{letter_at(line, found.start())} {reason}"


def start_fault(text: bytes) -> str:
    """What a file is that does not begin with a header."""
    reason = next((why for start, why in _EXPLAIN_START if text.startswith(start)), None)
    if reason is None and _CONTROL.search(text[:4096].replace(b"\n", b"")):
        reason = "this is binary, not text"
    return f"{reason or 'sequence before any header'}; expected FASTA, a '>' header line first"
