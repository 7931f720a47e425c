"""What the scripts of this folder share: the program under test, tiny models, thread settings, the summary.

A script imports this module before torch and transformers, which read some settings when they are imported.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

TOLERANCE = 2e-4  # of a log-probability, in nats
NEAR_TIE = 1e-3  # of two logits, between which rounding may decide
TIME_LIMIT = 300  # seconds that one call of the program may take
MOST_SHOWN = 20  # differences of a group
LONGEST_NOTE = 110  # characters of a message that are counted and printed
PAD, BOS, EOS = 0, 1, 2

hf.utils.logging.set_verbosity_error()
hf.utils.logging.disable_progress_bar()
torch.set_num_threads(1)


class Refused(Exception):
    """The program ended with an error of its own; its message."""


class Program:
    """The program under test."""

    def __init__(self, path):
        self.path = str(Path(path).resolve())

    def run(self, *arguments, **options):
        """What it prints, or `Refused`, which a panic, a signal and a time-out are not."""
        command = [self.path, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, **options)
        if done.returncode == 0:
            return done.stdout
        message = done.stderr.strip()
        if done.returncode in (1, 2) and "error: " in message:
            raise Refused(message[message.index("error: ") + len("error: ") :])
        raise RuntimeError(f"exit status {done.returncode}: {message}")

    def json(self, *arguments, **options):
        """The JSON document that it prints with --json."""
        return json.loads(self.run(*arguments, "--json", **options))

    def score(self, folder, rows):
        """The scores of rows, {"ids": …} or {"prompt": …, "response": …}, under the model in `folder`."""
        rows = write_lines(folder / "score.jsonl", rows)
        return self.json("score", "--model", folder, "--input", rows)["scores"]

    def greedy(self, folder, prompts, max_tokens):
        """The greedy responses to prompts (texts or lists of messages) under the model in `folder`."""
        rows = write_lines(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
        arguments = ("--model", folder, "--prompts", rows, "--temperature", 0, "--max-tokens", max_tokens)
        return self.json("generate", *arguments)["responses"]


class Summary:
    """How the cases ended, by group, with the largest difference of each group."""

    ENDS = ("equal", "refused", "transformers refused", "different")

    def __init__(self, group="family"):
        self.group = group
        self.ends = defaultdict(Counter)
        self.largest = defaultdict(float)
        self.messages = Counter()

    def equal(self, group, difference=0.0):
        self._count(group, "equal", difference)

    def refused(self, group, message):
        """The program refused; messages are counted without the paths, names and numbers in them."""
        self._count(group, "refused")
        self.messages["program: " + shape(message)] += 1

    def reference_refused(self, group, message):
        """Transformers, or whatever is the reference, refused."""
        self._count(group, "transformers refused")
        self.messages["transformers: " + shape(message)] += 1

    def different(self, group, note, difference=0.0):
        """Prints at once what differs: `note` says how to see it again. Of each group, the first few."""
        self._count(group, "different", difference)
        if self.ends[group]["different"] <= MOST_SHOWN:
            print(f"DIFFERENT {group}: {note}", flush=True)

    def compared(self, group, difference, note, tolerance=TOLERANCE):
        """Equal within the tolerance, or different."""
        if difference <= tolerance:  # false for a NaN
            self.equal(group, difference)
        else:
            self.different(group, f"{note}, by {difference:.3g}", difference)

    def finish(self):
        """Prints the messages and the table; the exit status: 1 if anything differs or nothing is equal."""
        for message, count in self.messages.most_common():
            print(f"{count:5} × {message}")
        width = max(map(len, [self.group, "all", *self.ends])) + 2
        total = sum(self.ends.values(), Counter())
        largest = max(self.largest.values(), default=0.0)
        # Where texts are compared, there is none.
        columns = (*self.ENDS, "largest difference") if largest else self.ENDS
        print("\n" + self.group.ljust(width) + "".join(f"{column:>22}" for column in columns))
        for group in sorted(self.ends):
            self._print_row(group.ljust(width), self.ends[group], self.largest[group])
        self._print_row("all".ljust(width), total, largest)
        return int(total["different"] > 0 or total["equal"] == 0)

    def _count(self, group, end, difference=0.0):
        self.ends[group][end] += 1
        self.largest[group] = max(self.largest[group], difference)

    def _print_row(self, title, ends, largest):
        counts = "".join(f"{ends[end]:22}" for end in self.ENDS)
        print(title + counts + (f"{largest:22.1e}" if largest else ""))


def shape(message):
    """The beginning of a message, with … for paths and N for numbers, so that like ones count together."""
    line = " ".join(message.split())
    line = re.sub(r"\S*/\S+", "…", line)
    return re.sub(r"\d+(\.\d+)?", "N", line)[:LONGEST_NOTE]


def arguments(doc, cases=None):
    """The parser of a command line: the program, the seed and, given a default, the number of cases."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", metavar="PROGRAM", help="the program, as target/release/infalign")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case (default 0)")
    if cases is not None:
        parser.add_argument("--cases", type=int, default=cases, help=f"number of cases (default {cases})")
    return parser


def write_json(path, value):
    Path(path).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_lines(path, rows):
    """Writes JSON Lines; the path."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def words(ids):
    """The text of token ids under `write_word_tokenizer`'s tokenizer."""
    return " ".join(f"t{token}" for token in ids)


def write_word_tokenizer(folder, n_tokens):
    """A tokenizer whose tokens are the words t0, t1, … with the ids 0, 1, …, without special tokens."""
    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(n_tokens)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def randomise(model, spread=0.3, seed=0):
    """Random matrices, and norms and biases random around their defaults, with this standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            default = parameter if parameter.dim() == 1 else torch.zeros_like(parameter)
            parameter.copy_(default + spread * torch.randn(parameter.shape, generator=generator))
    return model


def write_tiny_model(folder, n_tokens=32, seed=0, spread=0.3, model_class=hf.LlamaForCausalLM, **config):
    """A tiny random Llama, or another class of its family, with the word tokenizer; the model, in f32."""
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    tokens = dict(vocab_size=n_tokens, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS)
    defaults = sizes | tokens | dict(max_position_embeddings=128)
    model = randomise(model_class(hf.LlamaConfig(**defaults | config)), spread, seed).eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_word_tokenizer(folder, n_tokens)
    return model


@torch.no_grad()
def log_probs(model, ids):
    """Log-probability of every token of a sequence but the first."""
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


@torch.no_grad()
def greedy(model, prompt, max_tokens, stops=(), context=None):
    """The greedy continuation, to the first of `stops`, and the smallest gap between the two best logits."""
    ids, gap = list(prompt), float("inf")
    while len(ids) < min(len(prompt) + max_tokens, context or sys.maxsize):
        (best, second), tokens = model(torch.tensor([ids]), use_cache=False).logits[0, -1].float().topk(2)
        gap = min(gap, float(best - second))
        ids.append(int(tokens[0]))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :], gap
