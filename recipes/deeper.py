"""Writes a Llama that is deeper and wider than another, and computes the same: to see what a policy's size has to do with what it learns.

    pip install numpy safetensors
    python recipes/deeper.py MODEL OUT --layers 10 --intermediate 512

Behind each of the first blocks comes a new one whose outputs are 0, and new neurons of feed-forward layers have output weights of 0; everything else
that is new is random.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

SILENT = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def widened(name, tensor, neurons, random):
    """The tensor of a block whose feed-forward layer has so many neurons."""
    if name.endswith(("gate_proj.weight", "up_proj.weight")):
        return np.concatenate([tensor, random((neurons - len(tensor), tensor.shape[1]))])
    if name.endswith("down_proj.weight"):
        return np.pad(tensor, ((0, 0), (0, neurons - tensor.shape[1])))
    return tensor


def new(name, tensor, random):
    """A tensor of that shape for a block that adds nothing."""
    if name in SILENT:
        return np.zeros_like(tensor)
    return np.ones_like(tensor) if "layernorm" in name else random(tensor.shape)


def deeper(tensors, old, layers, neurons, random):
    """All tensors of the model with more blocks."""
    made = {name: tensor for name, tensor in tensors.items() if ".layers." not in name}
    place = 0
    for layer in range(old):
        prefix = f"model.layers.{layer}."
        block = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        block = {name: widened(name, tensor, neurons, random) for name, tensor in block.items()}
        copies = [block]
        if layer < layers - old:
            copies.append({name: new(name, tensor, random) for name, tensor in block.items()})
        for copy in copies:
            made |= {f"model.layers.{place}.{name}": tensor for name, tensor in copy.items()}
            place += 1
    return made


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, required=True, help="at most twice those of the model")
    parser.add_argument("--intermediate", type=int, required=True)
    args = parser.parse_args()
    config = json.loads((args.model / "config.json").read_text())
    old, generator = config["num_hidden_layers"], np.random.default_rng(0)
    spread = config["hidden_size"] ** -0.5
    random = lambda shape: (spread * generator.standard_normal(shape)).astype(np.float32)
    tensors = load_file(args.model / "model.safetensors")
    tensors = deeper(tensors, old, args.layers, args.intermediate, random)
    shutil.copytree(args.model, args.out, copy_function=shutil.copyfile)
    config |= {"num_hidden_layers": args.layers, "intermediate_size": args.intermediate}
    (args.out / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})
    print(f"{args.out}: {sum(tensor.size for tensor in tensors.values()):,} parameters")


if __name__ == "__main__":
    main()
