"""A checkpoint that torch pickled, as safetensors, which `vqdna import` reads. Needs torch and safetensors.

    python tools/convert_bin.py pytorch_model.bin model.safetensors

torch reads it with weights_only=True: tensors and nothing that runs.
"""

import argparse
import pathlib
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    files = parser.parse_args()
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        sys.exit(f"package {error.name}: not installed, a pickled checkpoint needs it; pip install torch safetensors")
    stored = torch.load(files.source, map_location="cpu", weights_only=True)
    stored = stored.get("state_dict", stored)
    # Tensors that share memory, as tied ones, are stored each for itself: safetensors knows no sharing.
    tensors = {name: value.detach().clone().contiguous() for name, value in stored.items() if torch.is_tensor(value)}
    save_file(tensors, files.out)
    print(f"{len(tensors)} tensors written to {files.out}")


if __name__ == "__main__":
    main()
