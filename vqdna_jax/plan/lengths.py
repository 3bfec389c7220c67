"""`vqdna plan --length`: the memory that a sequence takes by what is done with it, and the longest that fits.

Nothing is compiled and nothing is allocated: `runtime.live` reads each program's trace. In fine-tuning and pretraining
a step is of one sequence on each device, or on those that share it; embedding fills its calls, as it does.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh

from vqdna_jax.errors import InputError
from vqdna_jax.inference import footprint
from vqdna_jax.inference.pretrained import SLOTS_PER_CALL
from vqdna_jax.models.attention import Kernel, best_kernel
from vqdna_jax.models.networks import NetworkConfig, PublishedConfig, TrainedConfig
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.partition import abstract_mesh, abstract_state, local_mesh
from vqdna_jax.plan import tasks
from vqdna_jax.plan.compile import GIB, HBM_GIB
from vqdna_jax.runtime import memory
from vqdna_jax.runtime.live import LEAST, peak_bytes
from vqdna_jax.stages import read_settings
from vqdna_jax.stages.abstract import Planned, Tokens, frozen_base, full_length, trace_step
from vqdna_jax.stages.masked_codes import masked_codes_task
from vqdna_jax.tasks.finetune import Finetune, FrozenBase
from vqdna_jax.training.experiments import read_config
from vqdna_jax.training.settings import FinetuneSettings, Kept, MaskedCodesSettings

H100_GIB = 79.1 * 0.75  # of an 80-GB card what jax takes, unless XLA_PYTHON_CLIENT_MEM_FRACTION says more
FIRST = 32_768  # codes of a device's part, from where memory is a straight line: scores in blocks, one row in a call
STEP = 128  # codes, that lengths are told to


class Device(NamedTuple):
    """Where a program would run; `platform` and `kind` in jax's words."""

    name: str
    platform: str
    kind: str
    room: int


class Subject(NamedTuple):
    """What is planned.

    Attributes:
        window_bp: bases of the window of a trained model, whose longer sequences go through several; 0: of a config,
            whose window is the sequence.
        pretraining: None where it cannot be.
        frozen: the weights that embedding and fine-tuning read, as shapes.
        known: bytes by use, platform and length.
    """

    name: str
    network: NetworkConfig
    tokenizer: TokenizerConfig | Tokens
    window_bp: int
    pretraining: MaskedCodesSettings | None
    finetuning: FinetuneSettings
    frozen: FrozenBase
    known: dict[tuple[str, str, int], int]

    def with_window(self, length: int) -> "Subject":
        """Of a config, for sequences of so many bases."""
        if self.window_bp or self.pretraining is None:
            return self
        return self._replace(network=self.pretraining.model.network(length // self.per_code))

    @property
    def per_code(self) -> int:
        return self.tokenizer.bases_per_code if isinstance(self.tokenizer, TokenizerConfig) else 1

    def codes(self, length: int) -> int:
        """Of so many bases; of byte pairs, which are of no one length, about."""
        if isinstance(self.tokenizer, Tokens):
            return -(-length * self.tokenizer.length // self.window_bp)
        return length // self.per_code


def devices() -> list[Device]:
    """This machine's CPU, a GPU, and chips of two kinds of TPU."""
    tpus = (("v5e", "TPU v5 lite"), ("v5p", "TPU v5"))
    return [
        Device("CPU", "cpu", "cpu", memory.of_machine()),
        Device("H100", "gpu", "NVIDIA H100 80GB HBM3", round(H100_GIB * GIB)),
        *(Device(name, "tpu", kind, round(HBM_GIB[kind] * GIB)) for name, kind in tpus),
    ]


def plan(config: str, model: str, length: int, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each use and device, plain JSON types.

    Args:
        config: FILE or FILE:PRESET of an experiment of stage 2, whose windows are the sequences; or empty.
        model: instead, the directory or the name of a pretrained model.
        length: bases of a sequence.
        overrides: KEY=VALUE of config keys, those of configs/mcm.py with a model.

    Raises InputError: both or none of them, another stage, a length that the codes or mesh.context do not divide, a
    network that mesh.fsdp or mesh.tensor do not divide.
    """
    if bool(config) == bool(model):
        raise InputError("--length: needs --config=configs/mcm.py:PRESET or --model=MODEL, one of them")
    subject = of_model(model, overrides) if model else of_config(config, overrides)
    _check(subject, length)
    uses = list(USES) if subject.pretraining else list(USES)[:-1]
    return [row_of(subject, use, device, length) for use in uses for device in devices()]


def of_config(source: str, overrides: Sequence[str]) -> Subject:
    settings = read_settings(read_config(source, overrides))
    if not isinstance(settings, MaskedCodesSettings):
        raise InputError(f"--config={source}: --length is of experiments of stage 2; expected configs/mcm.py:PRESET")
    tokenizer = tasks.tokenizer_of(settings, source)
    network, tuned = settings.model.network(FIRST), _finetuning_like(settings, source)
    return Subject(source, network, tokenizer, 0, settings, tuned, _frozen(tuned, network, tokenizer), {})


def of_model(model: str, overrides: Sequence[str]) -> Subject:
    network, tokenizer, window_bp = tasks.base_of(model)
    settings = read_settings(read_config("mcm", overrides))
    assert isinstance(settings, MaskedCodesSettings), "that is its stage"
    tuned, published = _finetuning_like(settings, "mcm"), isinstance(network, PublishedConfig)
    frozen = _frozen(tuned, network, tokenizer)
    return Subject(model, network, tokenizer, window_bp, None if published else settings, tuned, frozen, {})


def _finetuning_like(settings: MaskedCodesSettings, source: str) -> FinetuneSettings:
    """Fine-tuning that runs its layers in the same way, on the same mesh."""
    compute = {f"compute.{name}": value for name, value in dataclasses.asdict(settings.compute).items()}
    mesh = {f"mesh.{name}": value for name, value in dataclasses.asdict(settings.mesh).items()}
    return tasks.beside_of(source, "finetune", FinetuneSettings).changed(compute | mesh)


def _check(subject: Subject, length: int) -> None:
    settings, r = subject.finetuning, subject.per_code
    if length < 64 * r or length % r:
        raise InputError(f"--length={length}: expected a multiple of the {r} bases of a code, at least {64 * r}")
    if settings.mesh.data not in (1, -1):
        raise InputError("config key mesh.data: --length tells the memory of one device, whatever it is; leave it out")
    if not subject.window_bp:
        assert subject.pretraining is not None, "a config is of stage 2"
        _of_a_sequence(subject.pretraining).check(settings.mesh.fsdp)
        settings.check_length("codes of a sequence", length // r)


def row_of(subject: Subject, use: str, device: Device, length: int) -> dict[str, Any]:
    needs, room = peak_of(subject, use, device.platform, length), LEAST * device.room
    return {
        "name": subject.name,
        "use": use,
        "device": device.name,
        "room_bytes": device.room,
        "parameters": sum(x.size for x in jax.tree.leaves(subject.frozen.transformer)),
        "length": length,
        "peak_bytes": needs,
        "fits": needs <= room,
        "longest": longest(subject, use, functools.partial(peak_of, subject, use, device.platform), room),
    }


def longest(subject: Subject, use: str, peak: Callable[[int], int], room: float) -> int | None:
    """Bases, 0: none fits, None: any does. From two lengths on a straight line, or by halving where it is none yet."""
    window, context = subject.window_bp, subject.finetuning.mesh.context
    if window and use == "inference":
        return None if peak(window) <= room else 0  # in windows, of which a call has what it has
    in_windows = bool(window) and use == "fine-tuning"
    unit = window if in_windows else STEP * context * subject.per_code
    first = max(1, FIRST * context * subject.per_code // unit)
    size = first
    while size and peak(size * unit) > room:
        size //= 2
    if size < first:
        return size * unit
    low, high = peak(first * unit), peak(2 * first * unit)
    found = first + int((room - low) / max(1, high - low) * first)
    return (1 << found.bit_length() - 1 if in_windows else found) * unit  # windows are powers of two


def inference(subject: Subject, platform: str, length: int) -> int:
    """Bytes of embedding on one device, which reads longer sequences than a trained model's window in windows."""
    network, tokenizer = subject.network, subject.tokenizer
    codes, window = subject.codes(length), full_length(tokenizer, subject.window_bp or length, network.cls)
    slots = min(codes, window) + network.cls
    rows = max(1, SLOTS_PER_CALL.get(platform, SLOTS_PER_CALL["elsewhere"]) // slots)
    frozen, full = subject.frozen, codes > window
    kernel = _kernel(platform, slots if full else 0, network)
    mesh = _mesh(platform)
    return footprint.of_call(
        network, kernel, frozen.transformer, frozen.vectors_KxE, rows, slots - network.cls, mesh, platform, full
    )


def finetuning(subject: Subject, platform: str, length: int) -> int:
    """Bytes of a step of one sequence, in windows where it is longer than a trained model's."""
    network, tokenizer, settings = subject.network, subject.tokenizer, subject.finetuning
    window_bp = min(subject.window_bp or length, length)
    kernel = _kernel(platform, 0, network)
    run = _of_a_sequence(settings, **{"compute.attention": kernel})
    window = full_length(tokenizer, window_bp, network.cls)
    windows = -(-subject.codes(length) // window) if subject.window_bp else 1
    planned = tasks.finetuning(run, network, tokenizer, window_bp)._replace(windows=1 << (windows - 1).bit_length())
    return _step(run, planned, platform)


def pretraining(subject: Subject, platform: str, length: int) -> int:
    """Bytes of a step of one window of this length."""
    assert subject.pretraining is not None and isinstance(subject.tokenizer, TokenizerConfig), "it is one of stage 2"
    network, run = subject.network, subject.pretraining
    assert isinstance(network, TrainedConfig), "a published one is not pretrained"
    part = length // subject.per_code // run.mesh.context
    values = {"compute.attention": _kernel(platform, part, network), "data.window_bp": length}
    run = _of_a_sequence(run, **values)
    task = dataclasses.replace(masked_codes_task(run, subject.tokenizer, platform), model=network)
    return _step(run, Planned(task, subject.tokenizer, length), platform)


USES = {"inference": inference, "fine-tuning": finetuning, "pretraining": pretraining}


def peak_of(subject: Subject, use: str, platform: str, length: int) -> int:
    """Bytes on each of the devices that share the sequence; chips of one platform need the same."""
    if (use, platform, length) not in subject.known:
        subject.known[use, platform, length] = USES[use](subject.with_window(length), platform, length)
    return subject.known[use, platform, length]


def _step(run: FinetuneSettings | MaskedCodesSettings, planned: Planned, platform: str) -> int:
    sizes = {axis: getattr(run.mesh, axis) for axis in ("fsdp", "tensor", "context")}
    return peak_bytes(trace_step(run, planned, _mesh(platform, **sizes))[1], platform)


def _of_a_sequence(run: Kept, **changes: Any) -> Kept:
    """With a step of one sequence for each part of the batch."""
    rows = dict.fromkeys(("data.global_batch", "eval.batch"), run.mesh.fsdp)
    return run.changed({"train.microbatches": 1} | rows | changes)


def _mesh(platform: str, **sizes: int) -> AbstractMesh:
    return abstract_mesh(platform, next(each.kind for each in devices() if each.platform == platform), **sizes)


def _kernel(platform: str, length: int, network: NetworkConfig) -> Kernel:
    """Of a GPU XLA's, for cuDNN's is not traced where there is none; it has no scores either where they are many."""
    return "xla" if platform == "gpu" else best_kernel(platform, length or 1, network.window, network.dtype)


def _frozen(run: FinetuneSettings, network: NetworkConfig, tokenizer: TokenizerConfig | Tokens) -> FrozenBase:
    r = tokenizer.bases_per_code if isinstance(tokenizer, TokenizerConfig) else 1
    task = tasks.finetuning(run, network, tokenizer, FIRST * r).task
    assert isinstance(task, Finetune), "that is its stage"
    return abstract_state(functools.partial(frozen_base, task, tokenizer), local_mesh())


def describe(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `plan` as a table in Markdown, one column per device."""
    first, names = rows[0], list(dict.fromkeys(row["device"] for row in rows))
    rooms = {row["device"]: f"{row['device']}, {row['room_bytes'] / GIB:.1f} GiB" for row in rows}
    title = f"{first['name']}: {first['parameters'] / 1e6:,.1f} M parameters, without heads; jax {jax.__version__}"
    lines = [["", *rooms.values()], ["---"] * (1 + len(names))]
    for use in dict.fromkeys(row["use"] for row in rows):
        of_use = {row["device"]: row for row in rows if row["use"] == use}
        lines.append([f"{use} of {first['length']:,} bases", *(_needs(of_use[name]) for name in names)])
        lines.append(["longest sequence", *(_longest(of_use[name]["longest"]) for name in names)])
    return "\n".join([title, "", *("| " + " | ".join(line) + " |" for line in lines)])


def _needs(row: dict[str, Any]) -> str:
    return f"{row['peak_bytes'] / GIB:.2f} GiB" + ("" if row["fits"] else ": may not fit")


def _longest(bases: int | None) -> str:
    return "any, in windows" if bases is None else f"{bases:,}" if bases else "none"
