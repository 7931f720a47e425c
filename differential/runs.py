"""What trainers.py has the program do: made-up data, recipes, runs, and comparisons of what they give."""

import json
import random
import tempfile
from pathlib import Path

from common import EOS, words, write_lines
from comparisons import Comparisons
from training import N_TOKENS, Schedule, margin_loss, sft_loss

from torch.nn.functional import logsigmoid

N_PAIRS, N_PROMPTS = 24, 6
LINE_TOLERANCE = 1e-3  # of a number of a step, relative
SMALL = 0.1  # smaller numbers, but learning rates, are compared as if they were this
WEIGHT_TOLERANCE = 1e-3
HELD_OUT = 0.5  # of what reward models learn from
BETA, TAU = 0.3, 0.4
WEIGHTS = {token: (token % 7 - 3) / 4 for token in range(EOS + 1, N_TOKENS)}  # of the reward
REWARD = ", ".join(f"t{token} = {weight}" for token, weight in WEIGHTS.items())
COMPLETIONS, PREFERENCES = 'completions = ["completions.jsonl"]', 'preferences = ["pairs.jsonl"]'
# Of each method: keys of the recipe, schedule, loss.
METHODS = {
    "sft": (
        COMPLETIONS,
        Schedule(6, 5, 2e-3, warmup_steps=2, final_share=0.1, weight_decay=0.05),
        sft_loss,
    ),
    "dpo": (
        f"beta = {BETA}\n{PREFERENCES}",
        Schedule(4, N_PAIRS, 1e-3),
        margin_loss(lambda margin: -logsigmoid(BETA * margin)),
    ),
    "ipo": (
        f"tau = {TAU}\n{PREFERENCES}",
        Schedule(5, 7, 1e-3, warmup_steps=3, final_share=0.5, weight_decay=0.3, max_grad_norm=0.5),
        margin_loss(lambda margin: (margin - 0.5 / TAU) ** 2),
    ),
}


class Data:
    """Made-up prompts, preferences and ratings, as tokens and in files."""

    def __init__(self, folder, seed):
        draw = random.Random(seed)

        def tokens():
            return [draw.randrange(EOS + 1, N_TOKENS) for _ in range(draw.randint(2, 7))]

        self.pairs = [(tokens(), tokens(), tokens(), draw.randrange(12) / 8) for _ in range(N_PAIRS)]
        self.ratings = [(tokens(), draw.randrange(2, 11) / 2) for _ in range(N_PAIRS)]
        self.texts = [
            dict(prompt=words(prompt), chosen=" " + words(yes), rejected=" " + words(no), margin=margin)
            for prompt, yes, no, margin in self.pairs
        ]
        self.completions = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in self.texts]
        write_lines(folder / "pairs.jsonl", self.texts)
        write_lines(folder / "completions.jsonl", self.completions)
        rows = [f"{i}\t{rating}\t{words(text)}\n" for i, (text, rating) in enumerate(self.ratings)]
        (folder / "ratings.tsv").write_text("".join(rows))
        self.prompts = [tokens() for _ in range(N_PROMPTS)]
        write_lines(folder / "prompts.jsonl", [{"prompt": words(prompt)} for prompt in self.prompts])
        write_lines(folder / "held-out.jsonl", [{"prompt": words(tokens())} for _ in range(2)])

    def sequences(self, place):
        """Prompts with the response at this place of a pair, as a policy learns them."""
        return [(pair[0] + pair[place] + [EOS], len(pair[0])) for pair in self.pairs]


def distance(name, a, b):
    """Summed absolute difference, without GPT-2's biases of keys: without effect, they follow rounding."""
    difference = (a - b).abs()
    if name.endswith("c_attn.bias"):
        queries, _, values = difference.chunk(3)
        return float(queries.sum() + values.sum())
    return float(difference.sum())


def reward(tokens):
    """The reward of a response, as the recipes have it by words."""
    return sum(WEIGHTS.get(token, 0.0) for token in tokens)


class Bench(Comparisons):
    """The program with the files that it reads, and the comparisons."""

    def __init__(self, program, folder, seed):
        super().__init__()
        self.program, self.folder, self.seed = program, folder, seed
        self.data = Data(folder, seed)

    def compare_training(self, name, found_lines, lines, found, weights, initial):
        """Every number of every step, and the weights."""
        worst = 0.0
        for found_line, line in zip(found_lines, lines, strict=True):
            for key, number in line.items():
                least = 0.0 if key == "learning_rate" else SMALL
                worst = max(worst, abs(found_line[key] - number) / max(abs(number), least))
        self.compare(f"{name}, numbers of the steps", worst, LINE_TOLERANCE)
        self.compare_weights(name, found, weights, initial)

    def compare_weights(self, name, found, weights, initial):
        """The summed error of all weights, as a share of how far they moved."""
        error = sum(distance(key, found[key], weights[key]) for key in found)
        moved = sum(distance(key, weights[key], initial[key]) for key in found)
        self.compare(f"{name}, final weights", error / moved, WEIGHT_TOLERANCE)

    def run(self, recipe):
        """Trains by a recipe; the folder of the run."""
        out = Path(tempfile.mkdtemp(dir=self.folder))
        (self.folder / "recipe.toml").write_text(f"seed = {self.seed}\n{recipe}")
        self.program.run("train", self.folder / "recipe.toml", "--out", out / "run")
        return out / "run"

    def align(self, model, method, tables=""):
        """Trains a policy by one method; the lines of its steps, the run, and the policy's folder."""
        run = self.run(f"""
task = "align"
name = "differential"
model = "{model}"
prompts = {{ kind = "files", train = "prompts.jsonl", test = "held-out.jsonl" }}
reward = {{ kind = "lexicon", weights = {{ {REWARD} }} }}
generation = {{ max_tokens = 6 }}
evaluation = {{ samples = 2, procedures = ["sample"], baseline = "method" }}
{tables}
[[method]]
name = "method"
{method}""")
        of_method = run / "methods" / "method"
        lines = (of_method / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], run, of_method / "policy"

    def supervised(self, model, kind, schedule, lora=""):
        """As `align`, of a kind of METHODS."""
        keys = f'kind = "{kind}"\n{METHODS[kind][0]}\n[method.train]\n{schedule.toml()}'
        return self.align(model, keys + (f"[method.train.lora]{lora}" if lora else ""))

    def reward_model(self, model, data, schedule, train=""):
        """Trains a reward model; the last step, and the reward model's folder."""
        run = self.run(f"""
task = "reward-model"
name = "differential"
base = "{model}"
held_out = {HELD_OUT}
{data}
[train]
{schedule.toml()}{train}""")
        (state,) = (run / "checkpoints").glob("step-*/state.json")
        return json.loads(state.read_text()), run / "reward-model"
