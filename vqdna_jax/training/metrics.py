"""What a run tells: metrics.jsonl, TensorBoard, a progress bar, and when the numbers say stop."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping

import jax
import tqdm
from jax import Array
from tensorboardX import SummaryWriter

from vqdna_jax.errors import NumericsError
from vqdna_jax.runtime.files import replacing
from vqdna_jax.runtime.processes import first_does
from vqdna_jax.runtime.watchdog import after

# Peak dense bf16 FLOP/s by a part of jax's device_kind; a chip that is not here is reported in GFLOP/s, without MFU.
PEAK_FLOPS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v5": 459e12,  # how a v5p may name itself; after the names that begin like it
}


class Throughput:
    """Bases and FLOPs per second since the last call, over all `chips`; of no step before `first_step`."""

    def __init__(self, bases_per_step: float, flops_per_step: float, chips: int, first_step: int = 0):
        self._bases, self._flops, self._chips, self._first = bases_per_step, flops_per_step, chips, first_step
        self._time = time.perf_counter()
        self._step: int | None = None
        self._all_seconds, self._all_steps = 0.0, 0
        kind = jax.devices()[0].device_kind
        self._peak = next((peak for part, peak in PEAK_FLOPS.items() if part in kind), None)

    def pause(self) -> None:
        """Leaves out what comes until the next `measure`: compiling, evaluating, saving."""
        self._step = None

    def resume(self, step: int) -> None:
        """After a pause, time runs again from the end of `step`."""
        if self._step is None and step >= self._first:
            self._time, self._step = time.perf_counter(), step

    def measure(self, step: int) -> dict[str, float]:
        now = time.perf_counter()
        values: dict[str, float] = {}
        if self._step is not None and step > self._step:
            self._all_seconds += now - self._time
            self._all_steps += step - self._step
            steps_per_s = (step - self._step) / (now - self._time)
            values = {"bases_per_s": steps_per_s * self._bases, "gflops_per_s": steps_per_s * self._flops / 1e9}
            if self._peak:
                values["mfu"] = steps_per_s * self._flops / (self._peak * self._chips)
        self._time, self._step = now, step if step >= self._first else None
        return values

    def bases_per_s(self) -> float:
        """Mean over all that was measured; 0 before there was anything."""
        return self._all_steps * self._bases / self._all_seconds if self._all_seconds else 0.0


HEADLINES = ("accuracy", "token_accuracy", "mcc", "spearman", "macro_f1")
HEALTHY_UTILISATION = 0.9  # of the codes; under it, the log warns
BAD_STEPS = 3  # so many in a row whose loss or gradient is not finite end a run; each of them changes nothing
COLLAPSED_EVALUATIONS = 2  # so many in a row with a codebook under the limit that was asked for


class MetricWriter:
    """Appends rows, named by the steps done, to metrics.jsonl and TensorBoard.

    A run that goes on from `first_step` drops the rows after it first: they will be made again.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int):
        self._path = workdir / "metrics.jsonl"
        kept = [row for row in read_rows(self._path) if row["step"] <= first_step]
        with replacing(self._path) as new:
            new.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", buffering=1)
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step} | {k: _finite(v) for k, v in values.items()}) + "\n")
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._tensorboard.close()


def read_rows(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a metrics.jsonl; a line cut short by a kill, or that is none of a run's, ends the file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            break
        rows.append(row)
    return rows


def read_evaluated(workdir: pathlib.Path) -> dict[int, float | None]:
    """The steps at which a run was evaluated before, and what the best is chosen by there ("choice", or the loss); None
    where it has none, or none finite."""

    def read() -> list[tuple[int, float | None]]:
        rows = [row for row in read_rows(workdir / "metrics.jsonl") if _is_evaluation(row)]
        return [(int(row["step"]), row.get("eval_choice", row.get("eval_loss"))) for row in rows]

    return dict(first_does("evaluated", read))


def _is_evaluation(row: Mapping[str, float]) -> bool:
    return any(name.startswith("eval_") for name in row)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON has no NaN


class Progress:
    """A bar with an ETA on a terminal, plain lines elsewhere; silent on every process but the first."""

    def __init__(self, total_steps: int, first_step: int):
        self._quiet = jax.process_index() != 0
        self._plain = self._quiet or not sys.stderr.isatty()
        self._total = total_steps
        self._since: tuple[int, float] | None = None  # the step of the first report, and when it was
        self._bar = tqdm.tqdm(
            total=total_steps, initial=first_step, unit="step", disable=self._plain, dynamic_ncols=True
        )

    def update(self, step: int, values: Mapping[str, float]) -> None:
        text = describe(values)
        if not self._plain:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
        elif not self._quiet:
            self.say(f"step {step}/{self._total}  {text}{self._eta(step)}")

    def _eta(self, step: int) -> str:
        """How long the other steps take, in words; none at the first report, for what came before it was compiling."""
        now = time.monotonic()
        first, start = self._since = self._since or (step, now)
        return f"  ETA {(now - start) / (step - first) * (self._total - step) / 60:.1f} min" if step > first else ""

    def say(self, line: str) -> None:
        if not self._quiet:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


class StepLog:
    """Metrics of the training steps, fetched one step late so that the device never waits for the host."""

    def __init__(
        self,
        workdir: pathlib.Path,
        first_step: int,
        total_steps: int,
        every_steps: int,
        learning_rate: Callable[[int], float],
        throughput: Throughput,
        stop_below_utilisation: float = 0.0,
    ):
        self._every, self._learning_rate, self._throughput = every_steps, learning_rate, throughput
        self._writer = MetricWriter(workdir, first_step) if jax.process_index() == 0 else None
        self._progress = Progress(total_steps, first_step)
        self._pending: tuple[int, Mapping[str, Array]] | None = None
        self._bad_steps = 0
        self._stop_below, self._collapsed = stop_below_utilisation, 0

    def step(self, step: int, metrics: Mapping[str, Array]) -> None:
        previous, self._pending = self._pending, (step, metrics)
        if previous is not None:
            self._write(*previous)

    def length(self, step: int, said: str) -> None:
        """From this step on sequences are of another length, for which the next step is compiled."""
        self.pause()
        self._progress.say(f"length {after(step)}: {said}")

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        if self._writer:
            self._writer.write(step, {f"eval_{name}": value for name, value in values.items()})
        self._progress.say(f"held-out {after(step)}: {describe(values)}")
        for name, utilisation in values.items():
            if name.endswith("_utilisation") and utilisation < HEALTHY_UTILISATION:
                codebook = name.removesuffix("_utilisation").replace("_", " ")
                self._progress.say(
                    f"warning: {codebook}: only {utilisation:.0%} of the codes occur in held-out sequence;"
                    " a lower config.codebook.ema_decay keeps more alive (docs/vocabulary.md)"
                )
        self._stop_if_collapsed(step, values)

    def _stop_if_collapsed(self, step: int, values: Mapping[str, float]) -> None:
        """Raises NumericsError where config.train.stop_below_utilisation says so."""
        used = {name: share for name, share in values.items() if name.endswith("_utilisation")}
        name = min(used, key=lambda name: used[name], default="")
        self._collapsed = self._collapsed + 1 if name and used[name] < self._stop_below else 0
        if self._collapsed == COLLAPSED_EVALUATIONS:
            raise NumericsError(
                f"step {step}: {name} is {used[name]:.3f}, in {COLLAPSED_EVALUATIONS} evaluations in a row under"
                f" config.train.stop_below_utilisation={self._stop_below:g}: the codebook collapsed. Name a new"
                " --workdir, with a lower config.codebook.ema_decay or a higher config.codebook.revive_below"
            )

    def pause(self) -> None:
        """Before an evaluation or a save: writes what is pending, and leaves what follows out of the throughput."""
        self._flush()
        self._throughput.pause()

    def close(self) -> None:
        """Writes what is pending, and closes."""
        self._flush()
        self.abandon()

    def abandon(self) -> None:
        """Closes, without what is pending: for the end on an error."""
        self._progress.close()
        if self._writer:
            self._writer.close()

    def _flush(self) -> None:
        if self._pending is not None:
            self._write(*self._pending)
            self._pending = None

    def _write(self, step: int, metrics: Mapping[str, Array]) -> None:
        """Raises NumericsError after BAD_STEPS losses in a row that are not finite; the state took none of them."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        finite = math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
        self._bad_steps = 0 if finite else self._bad_steps + 1
        found = f"step {step}: loss {values['loss']}, gradient norm {values['gradient_norm']}"
        if not finite:
            self._progress.say(f"warning: {found}: this step changed nothing")
        if self._bad_steps == BAD_STEPS:
            raise NumericsError(
                f"{found}, and so in {BAD_STEPS} steps in a row; nothing of them was saved. The same command would end"
                " here again: name a new --workdir and lower config.optimizer.learning_rate"
            )
        self._throughput.resume(step + 1)
        if (step + 1) % self._every == 0 or step == 0:
            values |= self._throughput.measure(step + 1) | {"learning_rate": float(self._learning_rate(step))}
            if self._writer:
                self._writer.write(step + 1, values)
            self._progress.update(step + 1, values)


def describe(values: Mapping[str, float]) -> str:
    """The few numbers worth watching, short."""
    shown = []
    if "loss" in values:
        shown.append(f"loss {values['loss']:.4f}")
    shown += [f"{name} {values[name]:.4f}" for name in HEADLINES if name in values]
    if "reconstruction_accuracy" in values:
        shown.append(f"acc {100 * values['reconstruction_accuracy']:.2f}%")
    if "base_bits" in values or "masked_base_bits" in values:
        shown.append(f"bits per base {values.get('base_bits', values.get('masked_base_bits')):.4f}")
    codes = [100 * v for k, v in values.items() if k.startswith("code_") and k.endswith("_accuracy")]
    if codes:
        shown.append("codes " + "/".join(f"{v:.1f}" for v in codes) + "%")
    if values.get("skipped_steps"):
        shown.append(f"skipped {values['skipped_steps']:.0f}")
    perplexities = [v for k, v in values.items() if k.startswith("codebook_") and k.endswith("_perplexity")]
    if perplexities:
        shown.append("perplexity " + "/".join(f"{v:.0f}" for v in perplexities))
    if "bases_per_s" in values:
        rate = f"{100 * values['mfu']:.1f}% MFU" if "mfu" in values else f"{values['gflops_per_s']:.1f} GFLOP/s"
        shown.append(f"{values['bases_per_s']:,.0f} bases/s, {rate}")
    return "  ".join(shown)
