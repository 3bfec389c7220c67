"""Builds a corpus with Apache Beam: the bytes of the single-machine builder, the work spread over machines.

    species file -> spool (chunks and a summary) in the work directory         parallel by species
    counts of all species -> which records make which shard -> shards          parallel by shard
    spools, read once more in order -> digest, index, manifest                 where the command runs

The last step neither parses nor compresses. Workers hold one chunk, the table of one species and what one shard's
writer holds; elements of the pipeline are a few numbers. An input that is bad is recorded beside the spools and ends
the run with its line; all else that fails is the runner's to try again.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.genome import chunks
from vqdna_jax.genome.build import shards
from vqdna_jax.genome.build.one_species import fill_spool, replay
from vqdna_jax.genome.build.records import make_records
from vqdna_jax.genome.build.sources import Source
from vqdna_jax.genome.build.spool import Spool, validation_starts
from vqdna_jax.genome.build.staging import Staging
from vqdna_jax.genome.build.writer import CorpusWriter
from vqdna_jax.genome.fasta import OnDuplicate
from vqdna_jax.runtime.remote import places

if TYPE_CHECKING:
    import apache_beam


class Job(NamedTuple):
    """A species to parse, or parsed; all that a worker needs to know of it."""

    source: Source
    spool: str  # path without ending
    validation_share: float
    on_duplicate: OnDuplicate


class Segment(NamedTuple):
    """Records [first, stop) of a species, counted within a split."""

    job: Job
    first: int
    stop: int


class ShardJob(NamedTuple):
    split: str
    number: int
    segments: tuple[Segment, ...]


class Run:
    """One build."""

    def __init__(self, sources: Sequence[Source], staging: Staging, validation_share: float, on_duplicate: OnDuplicate):
        self._staging = staging
        spools = (places.join(staging.work, f"{index:06d}") for index in range(len(sources)))
        self.jobs = [Job(source, spool, validation_share, on_duplicate) for source, spool in zip(sources, spools)]

    def build(
        self, runner: str, options: Sequence[str], header: dict[str, Any], report: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Returns the manifest. Raises InputError for bad input, and for a runner or options that Beam refuses."""
        if not places.is_remote(self._staging.work):
            os.makedirs(self._staging.work)
        with _pipeline(runner, options) as (beam, pipeline):
            parsed = pipeline | "species" >> beam.Create(self.jobs) | beam.Reshuffle() | "parse" >> beam.Map(parse)
            planned = parsed | beam.combiners.ToList() | "plan" >> beam.FlatMap(plan, shards.RECORDS_PER_SHARD)
            spread = planned | "spread" >> beam.Reshuffle()
            spread | "write" >> beam.Map(write_shard, self._staging.shards, self._staging.work)
        return self.finish(header, report)

    def finish(self, header: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """What is left when all species are parsed and all shards are written."""
        outcomes = [json.loads(places.read_bytes(f"{job.spool}.json")) for job in self.jobs]
        for outcome in outcomes:
            if "error" in outcome:
                raise InputError(outcome["error"])
        counted = [(job, outcome["records"]) for job, outcome in zip(self.jobs, outcomes)]
        written: dict[str, list[dict]] = {split: [] for split in chunks.SPLITS}
        for shard in plan(counted, shards.RECORDS_PER_SHARD):
            written[shard.split].append(json.loads(places.read_bytes(_facts_path(shard, self._staging.work))))
        for rest in self._staging.local.glob(".*"):  # of a worker that was killed
            rest.unlink()
        writer = CorpusWriter(
            self._staging.local,
            {
                split: shards.WrittenShards(
                    split, self._staging.local, [one["records"] for one in facts], sum(one["size"] for one in facts)
                )
                for split, facts in written.items()
            },
        )
        for job, outcome in zip(self.jobs, outcomes):
            with _opened(job) as spool:
                report(replay(writer, job.source.species, spool, job.validation_share, outcome["source"]))
        return writer.finish(header, {one["name"]: one["file"] for facts in written.values() for one in facts})


def parse(job: Job) -> tuple[Job, dict[str, int]]:
    """Spools a species; returns how many records it has of each split, none if it is bad, which is then recorded."""
    records: dict[str, int] = {}
    outcome: dict[str, Any] = {}
    try:
        with places.writing(f"{job.spool}.chunks") as path, open(path, "wb+") as file:
            spool = Spool(file)
            outcome["source"] = fill_spool(spool, job.source, job.on_duplicate)
        with places.writing(f"{job.spool}.npz") as path:
            path.write_bytes(spool.summary())
        starts = validation_starts(spool.names, spool.lengths, job.validation_share)
        outcome["records"] = records = {split: int(spool.counts(split, starts).sum()) for split in chunks.SPLITS}
    except InputError as error:
        outcome["error"] = str(error)
    with places.writing(f"{job.spool}.json") as path:
        path.write_text(json.dumps(outcome))
    return job, records


def plan(counted: Sequence[tuple[Job, dict[str, int]]], records_per_shard: int) -> Iterator[ShardJob]:
    """Which records make which shard: those of a split in the order of the species, so many a shard.

    Nothing where a species is bad.
    """
    counted = sorted(counted, key=lambda pair: pair[0].spool)
    for split in chunks.SPLITS if all(records for _, records in counted) else ():
        index, room, segments = 0, records_per_shard, []
        for job, records in counted:
            first = 0
            while first < records[split]:
                stop = min(records[split], first + room)
                segments.append(Segment(job, first, stop))
                room -= stop - first
                first = stop
                if not room:
                    yield ShardJob(split, index, tuple(segments))
                    index, room, segments = index + 1, records_per_shard, []
        if segments:
            yield ShardJob(split, index, tuple(segments))


def write_shard(job: ShardJob, directory: str, work: str) -> None:
    """Writes one shard from the spools, and facts about it into the work directory."""
    name = shards.shard_name(job.split, job.number)
    with places.writing(places.join(directory, name)) as path:
        shard = shards.Shard(path)
        for segment in job.segments:
            _add_segment(shard, job.split, segment)
        shard.close()
        file = {"bytes": places.file_size(path), "sha256": places.sha256_of(path)}
    facts = {"name": name, "records": shard.records, "size": shard.bytes, "file": file}
    with places.writing(_facts_path(job, work)) as path:
        path.write_text(json.dumps(facts))


def _add_segment(shard: shards.Shard, split: str, segment: Segment) -> None:
    with _opened(segment.job) as spool:
        starts = validation_starts(spool.names, spool.lengths, segment.job.validation_share)
        counts = spool.counts(split, starts)
        before = np.cumsum(counts) - counts
        blocks = np.flatnonzero((before < segment.stop) & (before + counts > segment.first))
        for first, (block, in_validation) in zip(before[blocks].tolist(), spool.blocks(starts, blocks)):
            rows = np.flatnonzero(in_validation == (split == "validation")).tolist()
            rows = rows[max(0, segment.first - first) : segment.stop - first]
            shard.add(make_records(block, block.contents(), rows, segment.job.source.species, spool.names))


@contextlib.contextmanager
def _opened(job: Job) -> Iterator[Spool]:
    with places.open_binary(f"{job.spool}.chunks") as file:
        yield Spool(file, places.read_bytes(f"{job.spool}.npz"))


def _facts_path(job: ShardJob, work: str) -> str:
    return places.join(work, f"{job.split}-{job.number:06d}.json")


@contextlib.contextmanager
def _pipeline(runner: str, options: Sequence[str]) -> Iterator[tuple[ModuleType, "apache_beam.Pipeline"]]:
    """(apache_beam, pipeline); the pipeline runs to its end when the context closes."""
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            "--beam-runner: Apache Beam is not installed; pip install 'vqdna-jax[beam]', or leave the option out"
        ) from error
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            parsed = PipelineOptions(list(options), runner=runner)
            parsed.get_all_options()  # which is when it refuses a value
            pipeline = apache_beam.Pipeline(options=parsed)
    except (AttributeError, ImportError, TypeError, ValueError, SystemExit) as error:  # of a name with dots it imports
        reason = refusal.getvalue().strip().rpartition("\n")[2] if isinstance(error, SystemExit) else str(error)
        raise InputError(f"--beam-runner={runner}: {' '.join(reason.split())}; see --beam-option") from error
    print(refusal.getvalue(), end="", file=sys.stderr)
    yield apache_beam, pipeline
    _run(pipeline, runner)


def _run(pipeline: "apache_beam.Pipeline", runner: str) -> None:
    """A failure of the runner has its own log; the line names what came last."""
    try:
        pipeline.run().wait_until_finish()
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[-300:]
        raise StorageError(f"{runner}: the pipeline failed ({reason}); see its log above and run it again") from error
