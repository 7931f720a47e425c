"""Seconds a training step takes in PyTorch and in TRL's RLOOTrainer, to compare with step.rs: medians of five, two threads.

pip install torch transformers trl; INFALIGN_DATA=... python crates/train/benches/step.py
"""

import os
import resource
import statistics
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

RUNS, PROMPTS, SAMPLES, NEW_TOKENS = 5, 16, 8, 64


def report(name, what, seconds):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{name:<12} {what:<16} {statistics.median(seconds[1:]):7.3f} s  peak {peak} MiB", flush=True)


class Clock(TrainerCallback):
    def __init__(self):
        self.steps, self.last = [], time.perf_counter()

    def on_step_end(self, *_, **__):
        now = time.perf_counter()
        self.steps.append(now - self.last)
        self.last = now


def reinforcement(name, model, tokenizer):
    """Steps of 16 prompts x 8 responses x 64 tokens."""
    model.generation_config.eos_token_id = None
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    prompts = [{"prompt": f"Once upon a time, number {k % 10} went"} for k in range(PROMPTS)]
    with tempfile.TemporaryDirectory() as folder:
        settings = RLOOConfig(
            output_dir=folder, use_cpu=True, bf16=False, max_steps=RUNS + 1, num_generations=SAMPLES, beta=0.05,
            per_device_train_batch_size=PROMPTS * SAMPLES, max_completion_length=NEW_TOKENS, learning_rate=1e-6,
            gradient_checkpointing=False, report_to=[], save_strategy="no", logging_steps=1000, disable_tqdm=True,
            generation_kwargs={"min_new_tokens": NEW_TOKENS, "eos_token_id": None},
        )
        clock = Clock()
        reward = lambda completions, **_: [float(sum(text.encode()) % 17) for text in completions]
        trainer = RLOOTrainer(
            model=model, reward_funcs=reward, args=settings, train_dataset=Dataset.from_list(prompts),
            processing_class=tokenizer, callbacks=[clock],
        )
        trainer.train()
    report(name, "RLOO step", clock.steps)


def llama(vocabulary):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8, vocab_size=vocabulary,
        max_position_embeddings=512,
    ))


def supervised(name, model):
    """Steps of 16 x 128 tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(0, 4096, (16, 129))
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    report(name, "supervised step", seconds)


if __name__ == "__main__":
    torch.set_num_threads(2)
    supervised("llama 7.2M", llama(4096))
    if data := os.environ.get("INFALIGN_DATA"):
        tokenizer = AutoTokenizer.from_pretrained(f"{data}/stories260K-hf")
        reinforcement("stories260K", AutoModelForCausalLM.from_pretrained(f"{data}/stories260K-hf"), tokenizer)
        # TRL reads the reference anew from where the policy came from.
        with tempfile.TemporaryDirectory() as folder:
            llama(512).save_pretrained(folder)
            reinforcement("llama 5.4M", AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    else:
        print("SKIPPED the RLOO steps: set INFALIGN_DATA to the data folder")
