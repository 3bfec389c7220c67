"""The model card, README.md of an export, written from the run that made the model: nothing in it is typed by hand."""

import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.networks import TrainedConfig
from vqdna_jax.models.tokenizer import TokenizerConfig

# YAML front matter is what model hubs read the library from.
TOKENIZER = """\
---
library_name: vqdna_jax
tags: [dna, genomics, tokenizer, vector-quantization, jax]
---
# A VQDNA genome tokenizer

{summary}
Made by vqdna_jax, an independent implementation of VQDNA ([arXiv 2405.10812](https://arxiv.org/abs/2405.10812)).
Tokenizer digest: `{digest}`.

## Use
```python
import vqdna_jax
model = vqdna_jax.load("DIRECTORY_OF_THIS_FILE")
codes = model.encode("ACGTTGCA")  # int32 [L, {levels}]; model.decode(codes) gives letters again
```
Files: `vqdna encode genome.fa --model=DIRECTORY --out=genome.codes`, and `vqdna decode` back.

## Training data
{corpus}

## How it was trained
{run}

## Metrics
Of the final evaluation, on windows held out from training.

{metrics}

## Limits
- Decoding is not exact: a code stands for what the network saw around it. `vqdna encode` lists every base it changes.
- N and other ambiguous letters have no code of their own: `model.decode` guesses a base there, `vqdna decode` puts the
  N back. The network does not see lower case.
- A code depends on its own bases and {reach} more at each side. The other strand has other codes.
- It knows the species above; on others expect lower accuracy.
- It has no opinion on function, disease or identity, and was not tested for clinical use.

## Licence
Whoever trained it decides, and should say so here. vqdna_jax is under Apache-2.0; the genomes keep their own terms.
"""


PRETRAINED = """\
---
library_name: vqdna_jax
tags: [dna, genomics, masked-language-model, vector-quantization, jax]
---
# A DNA language model over learned codes

{summary}
Made by vqdna_jax, an independent implementation of VQDNA ([arXiv 2405.10812](https://arxiv.org/abs/2405.10812)).
Digest: `{digest}`. The tokenizer is in this directory too.

## Use
```python
import vqdna_jax
model = vqdna_jax.load("DIRECTORY_OF_THIS_FILE")
vector = model.embed("ACGTTGCA")  # float32 [D]; pool="none" gives one vector per code
```
Files: `vqdna embed genome.fa --model=DIRECTORY --out=genome.embeddings`; `vqdna encode` and `decode` work too.

## Training data
{corpus}

## How it was trained
{run}

## Metrics
Of the final evaluation, on windows held out from training. masked_base_bits is the honest one: bases hidden before the
tokenizer, beside count-based models (order0, markov11, context55) on the same bases.

{metrics}

## Limits
- The other strand has other embeddings; average both where that matters.
- It knows the species above; on others expect less.
- It has no opinion on function, disease or identity, and was not tested for clinical use.

## Licence
Whoever trained it decides, and should say so here. vqdna_jax is under Apache-2.0; the genomes keep their own terms.
"""

FIXED_PRETRAINED = """\
---
library_name: vqdna_jax
tags: [dna, genomics, masked-language-model, jax]
---
# A DNA language model over {tokens}

A baseline beside models over learned codes, made by vqdna_jax with the same network and training.
{layers}; a vocabulary of {vocabulary:,}; windows of {window_bp:,} bases, or
{length:,} tokens.
Digest: `{digest}`.

## Use
```python
import vqdna_jax
model = vqdna_jax.load("DIRECTORY_OF_THIS_FILE")
vector = model.embed("ACGTTGCA")  # float32 [D]; pool="none" gives one vector per token
```
To fine-tune it: `python -m vqdna_jax.main --config=configs/finetune.py --config.pretrained=DIRECTORY_OF_THIS_FILE`.

Made {date} by `{command}`, {steps} steps, on {species}.
Metrics of the final evaluation, on windows held out from training: {metrics}.

Whoever trained it decides on its licence, and should say so here. vqdna_jax is under Apache-2.0; the genomes keep their
own terms. It has no opinion on function, disease or identity, and was not tested for clinical use.
"""

FINETUNED = """\
---
library_name: vqdna_jax
tags: [dna, genomics, sequence-classification, lora, jax]
---
# A fine-tuned DNA model

Kind: {kind}; labels: {labels}. Trained: {method}. Digest: `{digest}`.
{strands}
Made by vqdna_jax, an independent implementation of VQDNA ([arXiv 2405.10812](https://arxiv.org/abs/2405.10812)).
This directory holds what was trained; it needs its base model, whose digest is `{base}`, and refuses another.

## Use
```python
import vqdna_jax
model = vqdna_jax.load("DIRECTORY_OF_THIS_FILE", base="DIRECTORY_OF_THE_BASE")  # base: only if it was moved
model.predict(["ACGTTGCA"]).labels
```
Files: `vqdna predict sequences.csv --model=DIRECTORY --out=predictions.csv`, CSV or FASTA.

## How it was trained
{run}

## Metrics
Of the best parameters on dev; test was read once.

{metrics}

## Limits
- It was scored on data like its own. On other species, assays or lengths expect less.
- It has no opinion on disease or identity, and was not tested for clinical use.

## Licence
Whoever trained it decides, and should say so here. vqdna_jax is under Apache-2.0; the data keep their own terms.
"""


_STRANDS = {
    "one": "It reads a sequence as it is given; of its reverse complement it may say something else.",
    "both": "It reads a sequence and its reverse complement, and answers with the mean of their logits.",
}


def facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json keeps of a run; `card` as in `tokenizer.save`."""
    kept = ("species", "corpus_digest", "init_from_digest", "source")
    known = {key: card[key] for key in kept if card.get(key)}
    return {"steps": card.get("steps")} | known


def copied(text: str, digests: Mapping[str, str], sections: str) -> str:
    """The card of a copy of a model: with other `digests`, {old: new}, and `sections`, Markdown under "## TITLE" lines.

    One whose title is there takes its place, the others come before the licence.
    """
    for old, new in digests.items():
        text = text.replace(old, new)
    head, *parts = _sections(text)
    own = {_title(part): part for part in _sections(sections)[1:]}
    kept = [own.pop(_title(part), part) for part in parts]
    last = next((i for i, part in enumerate(kept) if _title(part) == "Licence"), len(kept))
    return "\n\n".join(map(str.strip, [head, *kept[:last], *own.values(), *kept[last:]])) + "\n"


def _sections(text: str) -> list[str]:
    """What stands before the first, and each with its title."""
    return re.split(r"(?m)^(?=## )", text)


def _title(section: str) -> str:
    return section.partition("\n")[0].removeprefix("## ").strip()


def of_tokenizer(config: TokenizerConfig, digest: str, card: Mapping[str, Any]) -> str:
    """The text of the card. `card` as in `tokenizer.save`; what it does not hold is said to be not recorded."""
    sizes = " and ".join(f"{size:,}" for size in config.codebook_sizes)
    summary = (
        f"Quantizer {config.quantizer}, codebooks of {sizes} codes, bases per code: {config.bases_per_code}, "
        f"width {config.width}, {config.blocks} blocks."
    )
    return TOKENIZER.format(
        summary=summary,
        digest=digest,
        levels=len(config.codebook_sizes),
        reach=config.blocks * (config.kernel_size // 2) * config.bases_per_code + config.stem_kernel_size // 2,
        corpus=_corpus(card.get("species") or {}),
        run=table(("what", "value"), _run(config, card)),
        metrics=table(("metric", "value"), ((name, _number(v)) for name, v in (card.get("result") or {}).items())),
    )


def of_pretrained(tokenizer: TokenizerConfig, transformer: TrainedConfig, digest: str, card: Mapping[str, Any]) -> str:
    """The text of a pretrained model's card, as `of_tokenizer`."""
    c = transformer
    summary = (
        f"{_layers(c)}, on the codes of a tokenizer (quantizer {tokenizer.quantizer}, bases per code:"
        f" {tokenizer.bases_per_code})."
    )
    return PRETRAINED.format(
        summary=summary,
        digest=digest,
        corpus=_corpus(card.get("species") or {}),
        run=table(("what", "value"), _run(c, card)),
        metrics=table(("metric", "value"), ((name, _number(v)) for name, v in (card.get("result") or {}).items())),
    )


def of_fixed_pretrained(
    tokens: str,
    vocabulary: int,
    transformer: TrainedConfig,
    window_bp: int,
    length: int,
    digest: str,
    card: Mapping[str, Any],
) -> str:
    """The text of the card of a model over fixed `tokens`, as `of_tokenizer`; `length`: of a window in tokens."""
    facts = {name: value for name, value in (card.get("result") or {}).items() if isinstance(value, int | float)}
    return FIXED_PRETRAINED.format(
        **{key: card.get(key) or "not recorded" for key in ("date", "command", "steps")},
        layers=_layers(transformer),
        tokens=tokens,
        vocabulary=vocabulary,
        window_bp=window_bp,
        length=length,
        digest=digest,
        species=", ".join(card.get("species") or ()) or "species that are not recorded",
        metrics=", ".join(f"{name} {value:.6g}" for name, value in facts.items()) or "not recorded",
    )


def of_finetuned(described: Mapping[str, Any], digest: str, card: Mapping[str, Any]) -> str:
    """The text of a fine-tuned model's card, as `of_tokenizer`; `described`: its config.json."""
    return FINETUNED.format(
        kind=described["kind"],
        labels=", ".join(described["label_names"]),
        method=described["method"],
        strands=_STRANDS[described.get("strands", "one")],
        digest=digest,
        base=described["pretrained_digest"],
        run=table(("what", "value"), _run(None, card)),
        metrics=table(("metric", "value"), ((name, _number(v)) for name, v in (card.get("result") or {}).items())),
    )


def _corpus(bases_by_species: Mapping[str, int]) -> str:
    rows = [(name, f"{bases:,}") for name, bases in bases_by_species.items()]
    return table(("species", "bases"), [*rows, ("all", f"{sum(bases_by_species.values()):,}")] if rows else [])


def _layers(c: TrainedConfig) -> str:
    if isinstance(c, HyenaEncoderConfig):
        sides = "causal" if c.causal else "a filter for each side"
        return f"{c.layers} Hyena layers of width {c.width} ({sides}), hidden {c.hidden}"
    return f"{c.layers} layers of width {c.width}, {c.heads} heads, hidden {c.hidden} ({c.activation})"


def _run(config: TokenizerConfig | TrainedConfig | None, card: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    run = card.get("config") or {}
    data, began = run.get("data", {}), card.get("init_from_digest")
    facts = {
        "command": f"`{card['command']}`" if card.get("command") else None,
        "date": card.get("date"),
        "steps": card.get("steps"),
        "windows per step": data.get("global_batch"),
        "bases per window": data.get("window_bp"),
        "learning rate": (run.get("optimizer", {}) | (card.get("result") or {})).get("learning_rate"),
        "seed": run.get("seed"),
        "corpus": card.get("corpus_digest"),
        "began with": began and f"{run['init_from']}, digest {began}",
        "dtype": config.dtype if config else None,
        "bases per second": card.get("throughput"),
    }
    return ((name, _number(value)) for name, value in facts.items() if value is not None)


def table(header: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    if not rows:
        return "Not recorded."
    lines = [header, ("---", "---"), *((name.replace("|", "\\|"), value.replace("|", "\\|")) for name, value in rows)]
    return "\n".join(f"| {name} | {value} |" for name, value in lines)


def _number(value: Any) -> str:
    if value is None:
        return "not defined"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, numbers.Real) else str(value)
