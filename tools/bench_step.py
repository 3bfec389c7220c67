"""Speed of the masked-code training step, beside the same model in PyTorch on the same machine in the same run.

    python tools/bench_step.py --preset=base --torch-python=PATH [--batch=B --window=BP --layers=N] [--json=FILE]

PATH: a Python with torch and numpy; torch is no dependency of this project, and without it there are only JAX rows.
Both sides read codes, so that the work is the same; two more JAX rows have the frozen tokenizer in the step, as it is
in training: what they lose is the most that a corpus of codes could save. First the losses and gradient norms of both
sides are compared. Then the rows take turns, a block of steps each, and nothing runs beside a block.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import runpy
import subprocess
import tempfile
import time
from typing import Any

from vqdna_jax.runtime import memory

memory.keep()  # as main.py does; before jax is imported

import jax
import numpy as np
from jax import Array

from vqdna_jax.genome.windows import Windows
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig
from vqdna_jax.partition import batch_to_devices, make_mesh, whole_on
from vqdna_jax.stages import read_settings
from vqdna_jax.tasks.base import Task
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.masking import Masked
from vqdna_jax.training.metrics import PEAK_FLOPS
from vqdna_jax.training.optimizer import DECAY_RULES, by_rule, learning_rate_schedule, make_optimizer
from vqdna_jax.training.settings import MaskedCodesSettings
from vqdna_jax.training.step import init_state, jit_step, train_step

HERE = pathlib.Path(__file__).resolve().parent
BATCHES = {"base": 64}  # windows: what one of 32 chips has of the global batch; else the preset's
WARM_STEPS, CHECK_STEPS, CHECK_RTOL = 2, 3, 1e-4
JAX, EAGER, COMPILED = "JAX", "PyTorch, eager", "PyTorch, torch.compile"
ENCODING = {"codes": "JAX, 1 encode in the step", "bases": "JAX, 2 encodes in the step"}  # by kind of masking
TORCH_DEVICES = {"cpu": "cpu", "gpu": "cuda"}


class CodedWindows(Windows, kw_only=True):
    """Windows, and codes int32 [B, L, N] in the place of theirs: those that are read, and those that are named."""

    inputs_BxLxN: Array | np.ndarray
    targets_BxLxN: Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class GivenCodes(MaskedCodes):
    """MaskedCodes on codes that come with the batch: the step without the frozen tokenizer."""

    def prepare(self, batch: CodedWindows, key: Array) -> Masked[CodedWindows]:
        bases_alone = super().prepare(batch, key)
        return Masked(batch.replace(bases_BxS=bases_alone.rows.bases_BxS), bases_alone.masks)

    def codes(self, frozen: FrozenTokenizer, batch: Masked[CodedWindows]) -> tuple[Array, Array]:
        return batch.rows.inputs_BxLxN, batch.rows.targets_BxLxN

    def flops_per_base(self, window_bp: int) -> float:
        encodes = (1 + self.masking.hides_bases) * self.tokenizer.encoder_flops_per_base()
        return super().flops_per_base(window_bp) - encodes


def make_inputs(
    settings: MaskedCodesSettings, tokenizer: TokenizerConfig, unknown_share: float = 0.0
) -> tuple[FrozenTokenizer, CodedWindows]:
    """A frozen tokenizer of random weights, and a batch of random bases and codes."""
    rng, mesh, windows = np.random.default_rng(0), jax.sharding.get_mesh(), settings.data.global_batch
    shape = (windows, settings.data.window_bp // tokenizer.bases_per_code - settings.model.cls)
    bases_BxS = rng.integers(0, 4, (windows, settings.data.window_bp), np.uint8)
    bases_BxS = np.where(rng.random(bases_BxS.shape) < unknown_share, np.uint8(4), bases_BxS)
    inputs, targets = (
        np.stack([rng.integers(0, k, shape, np.int32) for k in tokenizer.codebook_sizes], axis=-1) for _ in range(2)
    )
    codes_KxE = tuple(rng.standard_normal((k, tokenizer.width), np.float32) for k in tokenizer.codebook_sizes)
    rows = CodedWindows(bases_BxS=bases_BxS, inputs_BxLxN=inputs, targets_BxLxN=targets)
    batch = batch_to_devices(rows, mesh, windows)
    encoder = jax.jit(Encoder(tokenizer).init)(jax.random.key(1), batch.bases_BxS)["params"]
    return FrozenTokenizer(encoder, whole_on(mesh, codes_KxE)), batch


class Stepper:
    """A task's state and its compiled step."""

    def __init__(self, task: Task, settings: Any, frozen: Any, batch: Any):
        self.task, self._inputs, self._key = task, (frozen, batch), jax.random.key(settings.seed)
        self.flops = batch.bases_BxS.size * task.flops_per_base(settings.data.window_bp)
        fixed = task, make_optimizer(settings.optimizer, settings.train.total_steps or 1000)
        step = functools.partial(train_step, *fixed, skip_above=settings.optimizer.skip_above)
        self._step = jit_step(step)
        self.state = jax.jit(functools.partial(init_state, *fixed))(self._key, frozen, batch)

    def step(self) -> dict[str, jax.Array]:
        self.state, metrics = self._step(self.state, *self._inputs, self._key)
        return metrics

    def block(self, steps: int) -> dict[str, float]:
        for _ in range(WARM_STEPS):
            self.step()
        jax.block_until_ready(self.state)
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            metrics = self.step()
        jax.block_until_ready((self.state, metrics))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        return {"seconds": seconds / steps, "cpu_seconds": cpu_seconds / steps, "loss": float(metrics["loss"])}


class JaxHalf(Stepper):
    """The step of masked-code modelling, and what its other half needs."""

    def __init__(
        self,
        kind: type[MaskedCodes],
        settings: MaskedCodesSettings,
        tokenizer: TokenizerConfig,
        frozen: FrozenTokenizer,
        batch: CodedWindows,
    ):
        self._settings, model = settings, settings.model
        codes = settings.data.window_bp // tokenizer.bases_per_code
        kernel = best_kernel(jax.default_backend(), codes, model.window, model.dtype)
        compute = dataclasses.replace(settings.compute, attention=kernel)
        task = kind(tokenizer, model, compute, settings.masking, settings.base_weight)
        super().__init__(task, settings, frozen, batch)

    def disturb(self) -> None:
        """Noise on every parameter, so that heads of zeros and norms of ones hide nothing."""
        rng, scale = np.random.default_rng(1), 0.5 * self._settings.model.width**-0.5
        noisy = jax.tree.map(lambda p: p + scale * rng.standard_normal(p.shape, np.float32), self.state.params)
        self.state = self.state.replace(params=noisy)

    def arrays(self, steps: int) -> dict[str, np.ndarray]:
        """Parameters, code vectors, the batch, and for so many steps what it is once strands and masks are drawn."""
        frozen, batch = self._inputs
        tree = {"params": self.state.params, "codes": frozen.codes_KxE, "batch": batch}
        tree |= {str(i): self.task.prepare(batch, jax.random.fold_in(self._key, i)) for i in range(steps)}
        return {name: np.asarray(x) for name, x in by_name(tree).items()}

    def torch_config(self) -> dict:
        """The same model and optimizer in plain values."""
        c, per_code = self._settings, self.task.tokenizer.bases_per_code
        codes = c.data.window_bp // per_code - c.model.cls
        rates = learning_rate_schedule(c.optimizer, c.train.total_steps)(np.arange(1000))
        return {
            **dataclasses.asdict(c.model),
            **dataclasses.asdict(c.optimizer),
            "codes": codes,
            "masked": self.task.masking.count(codes),
            "kind": c.masking.kind,
            "bases_per_code": per_code,
            "base_weight": c.base_weight,
            "device": TORCH_DEVICES[jax.default_backend()],
            "learning_rates": np.asarray(rates).tolist(),
            "decay": by_name(by_rule(self.state.params, DECAY_RULES)),
        }


def by_name(tree) -> dict:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class TorchHalf(subprocess.Popen):
    """bench_step_torch.py in a process of its own, which waits while it is not asked."""

    def __init__(self, python: str):
        super().__init__([python, HERE / "bench_step_torch.py"], stdin=-1, stdout=-1, text=True)  # -1: PIPE
        self.version = self.ask(do="hello", device=TORCH_DEVICES.get(jax.default_backend()))["torch"]

    def ask(self, **command) -> dict:
        """Raises RuntimeError with what went wrong there."""
        print(json.dumps(command), file=self.stdin, flush=True)
        reply = json.loads(self.stdout.readline() or '{"error": "the process ended"}')
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def start(self, ours: JaxHalf, do: str, steps: int = 0, **arguments) -> dict:
        """A model there of the weights and the batch that `ours` has here."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "arrays.npz")
            np.savez(path, **ours.arrays(steps))
            return self.ask(do=do, config=ours.torch_config(), path=path, steps=steps, **arguments)


def agreement(settings: MaskedCodesSettings, tokenizer: TokenizerConfig, torch: TorchHalf) -> np.ndarray:
    """[JAX or PyTorch, step, loss or gradient norm] in f32, from the same weights, on the same masks."""
    small = settings.changed(
        {
            "data.global_batch": 8,
            "data.window_bp": 64 * tokenizer.bases_per_code,
            "model.layers": min(2, settings.model.layers),
            "model.dtype": "float32",
            # At this rate a mistake of the optimizer shows in the next step, and rounding does not.
            "optimizer.learning_rate": 0.3 / settings.model.width,
            "optimizer.warmup_steps": 0,
            "optimizer.weight_decay": 1.0,
            "masking.kind": "codes+bases",
            "train.total_steps": CHECK_STEPS + 1,
        }
    )
    with jax.default_matmul_precision("highest"):
        ours = JaxHalf(GivenCodes, small, tokenizer, *make_inputs(small, tokenizer, unknown_share=0.02))
        ours.disturb()
        theirs = torch.start(ours, "check", steps=CHECK_STEPS, compile_mode=None)["losses_norms"]
        metrics = [jax.device_get(ours.step()) for _ in range(CHECK_STEPS)]
    return np.array([[(m["loss"], m["gradient_norm"]) for m in metrics], theirs])


def make_rows(settings: MaskedCodesSettings, tokenizer: TokenizerConfig, torch: TorchHalf | None) -> dict[str, tuple]:
    """name -> (block of steps, FLOPs per step), in an order that gives the sides their turns."""
    inputs = make_inputs(settings, tokenizer)
    given = JaxHalf(GivenCodes, settings, tokenizer, *inputs)
    rows = {JAX: (given.block, given.flops)}
    with concurrent.futures.ThreadPoolExecutor(1) as beside:  # torch compiles in its process while JAX does here
        building = {
            theirs: beside.submit(torch.start, given, "build", name=theirs, compile_mode=mode)
            for theirs, mode in {EAGER: None, COMPILED: "default"}.items()
            if torch
        }
        halves = {
            ours: JaxHalf(MaskedCodes, settings.changed({"masking.kind": kind}), tokenizer, *inputs)
            for kind, ours in ENCODING.items()
        }
        for half in halves.values():
            jax.block_until_ready(half.step())
    for theirs, (ours, half) in zip((EAGER, COMPILED), halves.items()):
        try:
            if torch and building[theirs].result():
                rows[theirs] = functools.partial(torch.ask, do="block", name=theirs), given.flops
        except RuntimeError as error:
            print(f"{theirs} does not run: {error}\n")
        rows[ours] = half.block, half.flops
    return rows


def table(rows: dict[str, tuple], blocks: list[dict], codes: int, peak: float) -> str:
    """A ratio over 1: so many times as fast as that PyTorch row, from blocks of the same turn. The time of the process
    on all cores ("CPU") also tells where other work shares them."""
    rivals = [name for name in (EAGER, COMPILED) if name in rows]
    times = [f"speed{by}, {name} = 1" for name in rivals for by in ("", " by CPU time")]
    heads = ["step", "ms per step", "CPU ms", "codes/s", "TFLOP/s", "MFU", *times]
    lines = [heads, ["---"] * len(heads)]
    seconds, cpu = ({n: [turn[n][key] for turn in blocks] for n in rows} for key in ("seconds", "cpu_seconds"))
    for name, (_, flops) in rows.items():
        median = np.median(seconds[name])
        mfu = f"{flops / median / peak:.1%}" if peak else "-"
        rates = [f"{codes / median:,.0f}", f"{flops / median / 1e12:.3g}", mfu]
        ratios = [spread(np.divide(of[rival], of[name])) for rival in rivals for of in (seconds, cpu)]
        lines.append([name, *(spread(1e3 * np.array(of[name])) for of in (seconds, cpu)), *rates, *ratios])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} ({np.min(values):.2f} to {np.max(values):.2f})"


def chip() -> str:
    kind, cpu = jax.devices()[0].device_kind, pathlib.Path("/proc/cpuinfo")
    name = cpu.read_text().partition("model name\t: ")[2].partition("\n")[0] if cpu.exists() else ""
    return f"{name or 'CPU'}, {os.cpu_count()} threads" if kind == "cpu" else kind


def bench(options: argparse.Namespace, torch: TorchHalf | None) -> dict:
    """Compares the sides, measures, prints; returns what it printed and all blocks."""
    files = [runpy.run_path(str(HERE.parent / "configs" / name)) for name in ("mcm.py", "hrq.py")]
    settings, hrq = (read_settings(file["get_config"](options.preset)) for file in files)
    settings = settings.changed(
        {
            "data.global_batch": options.batch or BATCHES.get(options.preset, settings.data.global_batch),
            "data.window_bp": options.window or settings.data.window_bp,
            "model.layers": options.layers or settings.model.layers,
        }
    )
    data, model, tokenizer = settings.data, settings.model, hrq.model
    numbers = agreement(settings, tokenizer, torch).tolist() if torch else []
    if torch:
        print(f"(loss, gradient norm) in f32, step by step: JAX {numbers[0]}, PyTorch {numbers[1]}\n", flush=True)
        np.testing.assert_allclose(*numbers, rtol=CHECK_RTOL, err_msg="the sides do not compute the same")
    rows, turns = make_rows(settings, tokenizer, torch), range(1 + options.repeats)
    # The first turn compiles.
    blocks = [{name: block(steps=options.steps) for name, (block, _) in rows.items()} for _ in turns]
    peak = next((peak for part, peak in PEAK_FLOPS.items() if part in chip()), 0) * (model.dtype == "bfloat16")
    text = table(rows, blocks[1:], data.global_batch * data.window_bp // tokenizer.bases_per_code, peak)
    head = f"{time.strftime('%Y-%m-%d')}, {chip()}, jax {jax.__version__}, torch {torch.version if torch else '-'}. "
    head += f"{options.preset}, {model.layers} layers, {model.dtype}, {data.global_batch} x {data.window_bp} bp; "
    print(f"{head}median (range) of {options.repeats} blocks of {options.steps} steps.\n\n{text}")
    return {"head": head, "table": text, "agreement": numbers, "blocks": blocks, "config": settings.recorded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = dict(preset="tiny", torch_python="", device="auto", json="", batch=0, window=0, layers=0)
    for name, default in (defaults | dict(steps=20, repeats=5)).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    options = parser.parse_args()
    if options.device != "auto":
        jax.config.update("jax_platforms", options.device)
    os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.45")  # of a GPU's; PyTorch needs as much
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        try:
            torch = TorchHalf(options.torch_python)
        except (RuntimeError, OSError) as error:
            torch = print(f"JAX rows only: --torch-python={options.torch_python!r} is no Python with torch: {error}\n")
        report = bench(options, torch)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
