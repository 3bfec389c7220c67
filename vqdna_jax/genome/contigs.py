"""Names of contigs: what one file calls chr20, another may call 20."""

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

_CHR = re.compile("^chr(?=.)", re.IGNORECASE)
_SHOWN = 3  # names in a line


def resolve(used: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """{name used: name known}, of those that can be told.

    A name that is known is itself. Any other is the known one that differs by a leading "chr" alone, in any case of
    these three letters, where there is just one and no other name used is that one. chrM and MT stay apart: in hg19
    they are different sequences.
    """
    used, known, bare = list(dict.fromkeys(used)), set(known), dict[str, list[str]]()
    for name in known:
        bare.setdefault(_bare(name), []).append(name)
    found = {name: [name] if name in known else bare.get(_bare(name), []) for name in used}
    meant = {name: names[0] for name, names in found.items() if len(names) == 1}
    claims = dict[str, list[str]]()
    for name, contig in meant.items():
        claims.setdefault(contig, []).append(name)
    return {name: contig for name, contig in meant.items() if name == contig or claims[contig] == [name]}


def _bare(name: str) -> str:
    return _CHR.sub("", name)


def describe(resolved: Mapping[str, str]) -> list[str]:
    """A line on the names that are read as others, none where there are none."""
    others = {name: contig for name, contig in resolved.items() if name != contig}
    if not others:
        return []
    more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
    return [f"names of contigs: {', '.join(f'{a} is read as {b}' for a, b in islice(others.items(), _SHOWN))}{more}"]


def few(names: Collection[str]) -> str:
    """Some of the names, in words."""
    shown = ", ".join(repr(name[:80]) for name in islice(names, _SHOWN))
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown
