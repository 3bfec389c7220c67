"""Random weights and what the reference code of other models makes of them, to compare `vqdna import` with.

    python tools/rivals_reference.py OUT [--rival=NAME ...] [--width=12] [--layers=2] [--heads=3] ...

needs torch and transformers, and for DNABERT-2 and HyenaDNA multimolecule (AGPL-3.0), in an environment of its own:
this package depends on none of them. OUT/NAME/ is a directory as its user would download it; OUT/NAME.json holds
sequences, their tokens by the reference and versions, OUT/NAME.npz the outputs: "hidden" [layers + 1, B, T, D] of every
layer, "last" [B, T, D], "logits" [B, T, V], and OUT/NAME.gradient.safetensors the gradients of the sum of logits times
cosines (`cosines`), those of special tokens left out, by the names of the weights. tests/rivals/golden/ was made so: it
holds what CI compares with.
"""

import argparse
import functools
import importlib.metadata
import itertools
import json
import pathlib
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

SEQUENCES = ("ACGTTGCAAGCTTACG", "GGATCC", "TTTTACGNNACGTAC")
MASKED = ((0, 3), (0, 4), (2, 1))  # (sequence, token)


def noisy(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Noise on every parameter, for biases of zeros and norms of ones hide what is left out; products of about 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 and "embeddings" not in name else 0.3
            noise = scale * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise + 1 if parameter.ndim == 1 and "norm" in name.lower() and "weight" in name else noise)
    return model.eval()


class Rows(NamedTuple):
    """Tokens of sequences with special ones, `first` in front and `last` behind; ids of padding and mask."""

    ids: list[list[int]]
    pad: int
    mask: int
    first: int
    last: int


def padded(rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, which there are, which are of the sequence) [B, T]."""
    most = max(map(len, rows.ids))
    ids = torch.tensor([row + [rows.pad] * (most - len(row)) for row in rows.ids])
    there, counted = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, row in enumerate(rows.ids):
        there[i, : len(row)] = 1
        counted[i, rows.first : len(row) - rows.last] = 1
    return ids, there, counted


def cosines(shape: tuple[int, ...]) -> np.ndarray:
    return np.cos(np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


def words_of(k: int, letters: str) -> list[str]:
    return ["".join(word) for word in itertools.product(letters, repeat=k)]


def dnabert(out: pathlib.Path, size: argparse.Namespace):
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words_of(3, "ATCG")]
    (out / "vocab.txt").write_text("\n".join(words) + "\n")
    config = BertConfig(**sizes(size, len(words)), layer_norm_eps=1e-12)
    model = noisy(BertForMaskedLM(config), size.seed)
    tokenizer = BertTokenizer(vocab=str(out / "vocab.txt"), do_lower_case=False)
    rows = [tokenizer(" ".join(seq[i : i + 3] for i in range(len(seq) - 2)))["input_ids"] for seq in size.sequences]
    return model, config.to_dict(), Rows(rows, 0, 4, 1, 1), model.bert.embeddings, model.bert.encoder.layer, dict


def nt(out: pathlib.Path, size: argparse.Namespace, rotary: bool = False):
    from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

    words = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>", *words_of(3, "ATCG"), *"ATCGN"]
    (out / "vocab.txt").write_text("\n".join(words) + "\n")
    kind = {"position_embedding_type": "rotary" if rotary else "absolute", "token_dropout": not rotary}
    special = {"pad_token_id": 1, "mask_token_id": 2, "tie_word_embeddings": False, "emb_layer_norm_before": False}
    config = EsmConfig(**sizes(size, len(words)), layer_norm_eps=1e-12, **kind, **special)
    model = EsmForMaskedLM(config)
    if rotary:
        for layer in model.esm.encoder.layer:
            gated(layer, config)
    noisy(model, size.seed)
    tokenizer = EsmTokenizer(str(out / "vocab.txt"), eos_token=None)
    rows = [tokenizer(seq)["input_ids"] for seq in size.sequences]
    described = config.to_dict() | ({"add_bias_fnn": False} if rotary else {})
    return model, described, Rows(rows, 1, 2, 1, 0), model.esm.embeddings, model.esm.encoder.layer, dict


def nt_v2(out: pathlib.Path, size: argparse.Namespace):
    return nt(out, size, rotary=True)


def gated(layer: torch.nn.Module, config) -> None:
    """The Nucleotide Transformer's second version has SiLU of one half times the other, without biases."""

    class Intermediate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = torch.nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)

        def forward(self, x):
            first, second = self.dense(x).chunk(2, dim=-1)
            return torch.nn.functional.silu(first) * second

    layer.intermediate = Intermediate()
    layer.output.dense = torch.nn.Linear(config.intermediate_size, config.hidden_size, bias=False)


def dnabert2(out: pathlib.Path, size: argparse.Namespace):
    from multimolecule.models import DnaBert2Config, DnaBert2ForMaskedLM
    from transformers import PreTrainedTokenizerFast

    tokenizer = byte_pairs(out / "tokenizer.json")
    changes = {"pad_token_id": 3, "hidden_dropout": 0.0}  # as published 0, the unknown token, whose row has no gradient
    config = DnaBert2Config(**sizes(size, tokenizer.get_vocab_size()), **changes)
    model = DnaBert2ForMaskedLM(config)
    if model.lm_head.bias is not model.lm_head.decoder.bias:
        model.lm_head.decoder.bias = model.lm_head.bias
    noisy(model, size.seed)
    fast = PreTrainedTokenizerFast(tokenizer_file=str(out / "tokenizer.json"))
    rows = [fast(seq)["input_ids"] for seq in size.sequences]
    published = {**sizes(size, config.vocab_size), "model_type": "bert", "layer_norm_eps": 1e-12}
    model.config.layer_norm_eps = 1e-12
    return model, published, Rows(rows, 3, 4, 1, 1), model.model.embeddings, model.model.encoder.layer, mosaic


def byte_pairs(path: pathlib.Path):
    """A tokenizer.json of the kind that DNABERT-2 has."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    words = "".join(np.random.default_rng(0).choice(list("ACGT"), 4000))
    tokenizer.train_from_iterator(
        [words], trainers.BpeTrainer(vocab_size=40, special_tokens=special, show_progress=False)
    )
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(path))
    return tokenizer


def mosaic(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names that DNABERT-2 was published with, queries, keys and values in one matrix."""
    renamed = {}
    for key, value in tensors.items():
        key = (
            key.replace("model.", "bert.", 1)
            if key.startswith("model.")
            else key.replace("lm_head.", "cls.predictions.")
        )
        key = key.replace(".mlp.up_proj", ".mlp.gated_layers").replace(".mlp.down_proj", ".mlp.wo")
        key = key.replace("mlp.layer_norm", "mlp.layernorm").replace("layer_norm", "LayerNorm")
        renamed[key] = value
    for key in [key for key in renamed if ".self.query." in key]:
        thirds = [renamed.pop(key.replace("query", third)) for third in ("query", "key", "value")]
        renamed[key.replace("query", "Wqkv")] = torch.cat(thirds)
    renamed.pop("cls.predictions.decoder.weight", None)  # tied
    if "cls.predictions.bias" in renamed:
        renamed["cls.predictions.decoder.bias"] = renamed.pop("cls.predictions.bias")
    return renamed


def hyenadna(out: pathlib.Path, size: argparse.Namespace):
    from multimolecule.models import HyenaDnaConfig, HyenaDnaForCausalLM

    config = HyenaDnaConfig(
        vocab_size=12,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        filter_order=8,
        max_position_embeddings=size.slots,
        tie_word_embeddings=False,
        pad_token_id=4,
        intermediate_size=size.hidden,
    )
    model = noisy(HyenaDnaForCausalLM(config), size.seed)
    for layer in model.model.layers:
        shared = layer.mixer.filter_fn.implicit_filter
        for i in range(3, 2 + 2 * config.num_inner_mlps, 2):
            shared[i].freq = shared[1].freq
    ids = {base: 7 + i for i, base in enumerate("ACGTN")}
    rows = [[ids[base] for base in seq] for seq in size.sequences]
    published = {"model_type": "hyenadna", "d_model": size.width, "n_layer": size.layers, "d_inner": size.hidden}
    published |= {"max_seq_len": size.slots, "vocab_size": 12, "filter_order": 8}
    as_published = functools.partial(backbone, dict(model.named_buffers()))
    return model, published, Rows(rows, 4, 3, 0, 0), model.model.embeddings, model.model.layers, as_published


def backbone(stored: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names that HyenaDNA was published with, what is fixed among them; of shared sines the first."""
    once = {k: v for k, v in (stored | tensors).items() if not k.endswith(("3.freq", "5.freq"))}
    names = (k.replace("model.", "hyena.backbone.", 1).replace("final_layer_norm", "ln_f") for k in once)
    return dict(zip(names, once.values()))


def sizes(size: argparse.Namespace, vocabulary: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.hidden,
        "max_position_embeddings": size.slots,
    }


REFERENCES = {"dnabert": dnabert, "nt": nt, "nt_v2": nt_v2, "dnabert2": dnabert2, "hyenadna": hyenadna}


def write(name: str, size: argparse.Namespace) -> None:
    out = size.out / name
    out.mkdir(parents=True, exist_ok=True)
    model, config, rows, embeddings, layers, as_published = REFERENCES[name](out, size)
    ids, there, counted = padded(rows)
    for row, token in MASKED:
        ids[row, token + rows.first] = rows.mask
    seen: list[torch.Tensor] = []
    for module in (embeddings, *layers):
        module.register_forward_hook(lambda _, __, y: seen.append(y[0] if isinstance(y, tuple) else y))
    trunk = next(model.children())
    trunk.register_forward_hook(lambda _, __, y: seen.append(y[0]))
    logits = model(input_ids=ids, attention_mask=there).logits
    (logits * torch.from_numpy(cosines(logits.shape)) * counted[..., None]).sum().backward()
    *hidden, last = (x.detach().numpy() for x in seen)
    arrays = {"hidden": np.stack(hidden), "last": last, "logits": logits.detach().numpy()}
    np.savez_compressed(size.out / f"{name}.npz", **arrays)
    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    for file, tensors in ((out / "model.safetensors", state), (size.out / f"{name}.gradient.safetensors", gradients)):
        save_file({key: value.detach().clone().contiguous() for key, value in as_published(tensors).items()}, file)
    (out / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")
    told = {"sequences": size.sequences, "tokens": rows.ids, "masked": MASKED, "versions": versions()}
    (size.out / f"{name}.json").write_text(json.dumps(told) + "\n")


def serve(name: str, size: argparse.Namespace) -> None:
    """Answers each line of stdin, rows and tokens, with the CPU seconds of a forward pass of so many."""
    with tempfile.TemporaryDirectory() as directory:
        model = REFERENCES[name](pathlib.Path(directory), size)[0]
    trunk = next(model.children())
    for line in sys.stdin:
        shape = tuple(map(int, line.split()))
        ids = torch.randint(5, model.config.vocab_size, shape)
        with torch.no_grad():
            began = time.process_time()
            trunk(input_ids=ids, attention_mask=torch.ones_like(ids))
            print(time.process_time() - began, flush=True)


def versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "transformers", "multimolecule", "tokenizers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rival", action="append", choices=REFERENCES)
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--slots", type=int, default=40, help="of learned positions, and of Hyena's longest input")
    parser.add_argument("--length", type=int, default=0, help="bases of one more sequence")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="write nothing; be timed by tools/bench_rivals.py")
    size = parser.parse_args()
    longest = "".join(np.random.default_rng(size.seed).choice(list("ACGT"), size.length))
    size.sequences = [*SEQUENCES, *([longest] if longest else [])]
    torch.set_num_threads(1)
    for name in size.rival or REFERENCES:
        if size.serve:
            serve(name, size)
            continue
        write(name, size)
        print(f"{name}: written to {size.out / name}")


if __name__ == "__main__":
    main()
