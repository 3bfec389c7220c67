"""What a benchmark has to run: a job is one model, or control, on one set with one seed."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from vqdna_jax.benchmark import cells, controls
from vqdna_jax.benchmark.controls import Controls
from vqdna_jax.benchmark.sets import editing, find
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.errors import InputError
from vqdna_jax.training.experiments import read_config

UNTRAINED = ", untrained"  # after the name of the row that a twin is of
_SAYS_ITSELF = {"seed": "--seeds", "pretrained": "--model", "data.labelled": "--data"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run. Raises InputError for fewer than one seed, a shard that there is not, or a setting that would make
    a cell another one than it is called.

    Attributes:
        data: a folder of sets in any layout that `sets.find` knows. tasks: names of sets; empty: all found.
        models: row -> directory of a pretrained model; those whose name ends in UNTRAINED are controls.
        settings: KEY=VALUE of configs/finetune.py for every job, after the set's recipe. own: more of them for a model.
        shard: (i, n): this process does every n-th job from the i-th on.
        controls: "linear" ones, of these the "counts" of k-mers alone, or "all".
    """

    data: pathlib.Path
    models: Mapping[str, pathlib.Path]
    out: pathlib.Path
    tasks: Sequence[str] = ()
    seeds: int = 3
    preset: str = "base"
    settings: Sequence[str] = ()
    shard: tuple[int, int] = (0, 1)
    controls: Controls = "linear"
    own: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds={self.seeds}: expected 1 or more, the runs of each model on each set")
        index, count = self.shard
        if not 0 <= index < count:
            raise InputError(f"--shard={index}/{count}: expected i/n with i from 0 to n - 1, for example 0/2")
        for setting in self.settings:
            if by := _SAYS_ITSELF.get(setting.partition("=")[0].strip()):
                raise InputError(f"--set={setting}: a cell is named by what {by} says; use that, and leave this out")


class Job(NamedTuple):
    model: str  # or control
    dataset: str
    seed: int


def folders(plan: Plan) -> dict[str, pathlib.Path]:
    """Folders of the sets by name; editing tables are turned into such folders once."""
    found = {}
    for name, path in find.find(plan.data, plan.tasks or None).items():
        if not path.is_dir():
            folder = plan.out / "data" / CARDS[name].key
            if not (folder / "train.csv").exists():
                editing.prepare(path, folder)
            path = folder
        found[name] = path
    return found


def jobs(plan: Plan, datasets: Sequence[str]) -> Iterator[Job]:
    """Those of this shard: seeds first, so that a benchmark stopped early has whole tables of fewer seeds.

    Linear controls are deterministic and have one seed.
    """
    index, count = plan.shard
    for place, job in enumerate(_jobs(plan, datasets)):
        if place % count == index:
            yield job


def _jobs(plan: Plan, datasets: Sequence[str]) -> Iterator[Job]:
    for seed in range(plan.seeds):
        for dataset in datasets:
            yield from (Job(model, dataset, seed) for model in plan.models)
            yield from (Job(control, dataset, seed) for control in controls.of_seed(plan.controls, seed))


def role_of(model: str) -> cells.Role:
    return "control" if model in controls.NAMES or model.endswith(UNTRAINED) else "model"


def config_of(plan: Plan, folder: pathlib.Path, job: Job) -> ConfigDict:
    """The config of a job: preset, the set's recipe, the settings of the command line. Raises InputError."""
    card = CARDS[job.dataset]
    values = dict(card.recipe) | {
        "seed": job.seed,
        "data.labelled": folder,
        "data.kind": card.kind,
        "data.long": "window",
        "data.label_names": card.label_names,
    }
    if job.model in plan.models:
        values["pretrained"] = plan.models[job.model]
    of_job = [f"{key}={value}" for key, value in values.items()]
    return read_config(f"finetune:{plan.preset}", [*of_job, *plan.settings, *plan.own.get(job.model, ())])
