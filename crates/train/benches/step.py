"""Seconds a training step takes in PyTorch and in TRL's RLOOTrainer, to compare with step.rs: medians of five.

pip install torch transformers trl; INFALIGN_DATA=... python crates/train/benches/step.py
INFALIGN_DEVICE: cpu (two threads) or cuda, there with TF32 allowed, as burn takes it. INFALIGN_MODELS: folders of models to measure in
place of these, with colons between them. Without TRL, and of those models, a step of RLOO is written out in PyTorch: `plain`.
"""

import copy
import os
import pathlib
import resource
import statistics
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainerCallback

try:
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer
except ImportError:
    RLOOTrainer = None

RUNS, UNCOUNTED, PROMPTS, SAMPLES, PROMPT, NEW_TOKENS = 5, 2, 16, 8, 8, 64
DEVICE = os.environ.get("INFALIGN_DEVICE", "cpu")


def report(name, what, seconds):
    if DEVICE == "cpu":
        memory = f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
    else:
        memory = f"reserved {torch.cuda.max_memory_reserved() >> 20} MiB"
    print(f"{name:<12} {what:<16} {statistics.median(seconds[UNCOUNTED:]):7.3f} s  {memory}", flush=True)


def timed(step):
    """Seconds of every step, the device's work included."""
    seconds = []
    for _ in range(RUNS + UNCOUNTED):
        start = time.perf_counter()
        step()
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


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
            output_dir=folder, use_cpu=DEVICE == "cpu", bf16=False, max_steps=RUNS + UNCOUNTED,
            num_generations=SAMPLES, beta=0.05,
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


def plain_reinforcement(name, model):
    """The same arithmetic without a framework: sample, score by the reference, REINFORCE with a leave-one-out baseline, AdamW."""
    model = model.to(DEVICE)
    model.generation_config.eos_token_id = None
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    ids = torch.tensor([[3 + (17 * k + 5 * t) % 500 for t in range(PROMPT)] for k in range(PROMPTS)], device=DEVICE)
    ids = ids.repeat_interleave(SAMPLES, 0)

    def log_probs(model, tokens):
        logits = model(tokens).logits[:, PROMPT - 1 : -1]
        return torch.log_softmax(logits, -1).gather(2, tokens[:, PROMPT:, None]).squeeze(2)

    def step():
        tokens = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
            do_sample=True, top_k=0, pad_token_id=0,
        )
        with torch.no_grad():
            theirs = log_probs(reference, tokens)
        # As many tokens a pass as step.rs takes.
        rows = max(1, 4096 // tokens.shape[1] // SAMPLES) * SAMPLES
        optimizer.zero_grad()
        for first in range(0, len(tokens), rows):
            part, reference_part = tokens[first : first + rows], theirs[first : first + rows]
            ours = log_probs(model, part)
            reward = part[:, PROMPT:].float().mean(1) - 0.05 * (ours.detach() - reference_part).sum(1)
            groups = reward.view(-1, SAMPLES)
            advantage = (groups - (groups.sum(1, keepdim=True) - groups) / (SAMPLES - 1)).view(-1, 1)
            (-(advantage * ours).sum() / len(tokens)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    report(name, "RLOO step, plain", timed(step))


def llama(vocabulary):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8, vocab_size=vocabulary,
        max_position_embeddings=512,
    ))


def supervised(name, model):
    """Steps of 16 x 128 tokens."""
    model = model.to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(0, 4096, (16, 129), device=DEVICE)

    def step():
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    report(name, "supervised step", timed(step))


def main():
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("high")
    if folders := os.environ.get("INFALIGN_MODELS"):
        for folder in folders.split(":"):
            name = pathlib.Path(folder).name
            plain_reinforcement(name, AutoModelForCausalLM.from_pretrained(folder))
            supervised(name, AutoModelForCausalLM.from_pretrained(folder))
        return
    supervised("llama 7.2M", llama(4096))
    if RLOOTrainer is None:
        plain_reinforcement("llama 5.4M", llama(512))
    elif data := os.environ.get("INFALIGN_DATA"):
        tokenizer = AutoTokenizer.from_pretrained(f"{data}/stories260K-hf")
        reinforcement("stories260K", AutoModelForCausalLM.from_pretrained(f"{data}/stories260K-hf"), tokenizer)
        # TRL reads the reference anew from where the policy came from.
        with tempfile.TemporaryDirectory() as folder:
            llama(512).save_pretrained(folder)
            reinforcement("llama 5.4M", AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    else:
        print("SKIPPED the RLOO steps: set INFALIGN_DATA to the data folder")


if __name__ == "__main__":
    main()
