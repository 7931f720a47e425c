"""Tokens a second of transformers' generate, to compare with generation.rs: medians of five.

INFALIGN_DATA=... python crates/decode/benches/generation.py
INFALIGN_DEVICE: cpu (two threads) or cuda, there with TF32 allowed, as burn takes it. INFALIGN_DTYPE: float32 or bfloat16.
INFALIGN_MODELS: folders of models to measure in place of these, with colons between them.
"""

import os
import pathlib
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

BATCH, PROMPT, NEW_TOKENS, RUNS = 32, 8, 128, 5
DEVICE = os.environ.get("INFALIGN_DEVICE", "cpu")
DTYPE = getattr(torch, os.environ.get("INFALIGN_DTYPE", "float32"))


def measure(name, model):
    model = model.to(DEVICE, DTYPE).eval()
    model.generation_config.eos_token_id = None
    ids = torch.tensor([[3 + (17 * k + 5 * t) % 500 for t in range(PROMPT)] for k in range(BATCH)], device=DEVICE)
    for how, settings in [("greedy", {"do_sample": False}), ("sampled", {"do_sample": True, "top_k": 0})]:
        rates = []
        for run in range(RUNS + 1):
            start = time.perf_counter()
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=NEW_TOKENS,
                    min_new_tokens=NEW_TOKENS,
                    pad_token_id=0,
                    **settings,
                )
            assert out.cpu().shape == (BATCH, PROMPT + NEW_TOKENS)
            if run:
                rates.append(BATCH * NEW_TOKENS / (time.perf_counter() - start))
        reserved = f"  reserved {torch.cuda.max_memory_reserved() >> 20} MiB" if DEVICE != "cpu" else ""
        print(f"{name:<12} {how:<8} {statistics.median(rates):9.0f} tokens/s{reserved}", flush=True)


def main():
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("high")
    if folders := os.environ.get("INFALIGN_MODELS"):
        for folder in folders.split(":"):
            measure(pathlib.Path(folder).name, AutoModelForCausalLM.from_pretrained(folder))
        return
    if data := os.environ.get("INFALIGN_DATA"):
        measure("stories260K", AutoModelForCausalLM.from_pretrained(f"{data}/stories260K-hf"))
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8, vocab_size=512,
        max_position_embeddings=512,
    )
    measure("llama 5.4M", LlamaForCausalLM(config))


if __name__ == "__main__":
    main()
