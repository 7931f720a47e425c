"""Compares what sampling and procedures draw with laws that are computed from transformers' logits.

    python decoding.py PROGRAM [--seed 0] [--samples 100000]

The model is a tiny random one of eight tokens, and a response has at most three, so that all responses are
enumerated with their probabilities (laws.py): plain, under transformers' warpers (temperature, top-k, top-p),
and under procedures by their definitions. The values that guide a procedure are those of a prefix scorer that
the program trains first; they are computed again from its weights. What the program draws is compared by χ²
tests, each of which fails by chance once in a million. What it computes of a table, by `--exact`, is compared
number by number; the table holds the same model's probabilities.

A line a comparison: the figure may be at most the number behind it. The exit status is 1 if one is greater.
requirements.txt has the versions that it was run with.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import EOS, TOLERANCE, Program, arguments, words
from common import write_json, write_lines, write_tiny_model
from comparisons import Comparisons
from laws import Reference, best_of, blockwise, ended, keep, kl, majority, rejection, sequential, soft_best_of
from laws import tilted, win_rate

import pyarrow.parquet
from scipy.stats import chi2

N_TOKENS = 8
PROMPT = (3, 4)
MAX_TOKENS = 3
LEVEL = 1e-6  # of a χ² test
SMALLEST_CELL = 0.005  # share of the responses; rarer ones share a cell
EXACT_TOLERANCE = 1e-9
# A response's reward is the sum over its tokens: exact in 32 bits, and the same for many.
WEIGHTS = {3: 0.5, 4: -1.0, 5: 0.5, 6: 2.0, 7: -0.25}
LEXICON = f"weights = {{ {', '.join(f't{token} = {weight}' for token, weight in WEIGHTS.items())} }}"
REWARD = f'kind = "lexicon"\n{LEXICON}\n'
ANSWERS = (5, 6, 7)  # tokens that are answers; a response's is its last one
SCORER = f"""
task = "scorer"
name = "scorer"
seed = 1
model = "model"
prompts = {{ kind = "files", train = "prompts.jsonl", test = "held-out.jsonl" }}
generation = {{ max_tokens = {MAX_TOKENS} }}
rollouts = {{ samples = 128, held_out = 2 }}
head = [
    {{ name = "words", reward = {{ kind = "lexicon", {LEXICON} }} }},
    {{ name = "again", reward = {{ kind = "lexicon", {LEXICON} }} }},
    {{ name = "length", reward = {{ kind = "length", unit = "words" }} }},
]
[train]
method = "cd-fudge"
steps = 60
examples_per_step = 64
width = 8
optimizer = {{ learning_rate = 0.02 }}
"""
GUIDE = {"words": 1.0, "length": -0.5}  # weights of heads
TIED = {"words": 1.0, "again": -1.0}  # these two learn the same: all values are 0
WARPS = (
    dict(temperature=0.5),
    dict(temperature=2.3),
    dict(top_k=1),
    dict(top_k=3),
    dict(top_p=0.05),
    dict(top_p=0.6),
    dict(top_k=4, top_p=0.8),
    dict(temperature=0.7, top_k=3),
    dict(temperature=0.7, top_p=0.9),
    dict(temperature=1.7, top_k=5, top_p=0.75),
)
# Letters of the table of `--exact`, whose last token is EOS.
LETTERS = dict(zip([token for token in range(N_TOKENS) if token != EOS], "abcdefg"))


class Bench(Comparisons):
    """The program with the files that it reads, and the comparisons."""

    def __init__(self, program, folder, seed, samples):
        super().__init__()
        self.program, self.folder, self.seed, self.samples = program, folder, seed, samples
        self.prompts = write_lines(folder / "prompts.jsonl", [{"prompt": words(PROMPT)}])
        write_lines(folder / "held-out.jsonl", [{"prompt": words([token])} for token in (5, 6)])
        (folder / "reward.toml").write_text(REWARD)

    def scorers(self, weights):
        of = self.folder / "run" / "scorer"
        return [word for name, weight in weights.items() for word in ("--scorer", f"{of}#{name}:{weight}")]

    def generate(self, procedure, max_tokens, *options):
        """Responses to the prompt, with another seed every time."""
        self.seed += 1
        arguments = ("--prompts", self.prompts, "--samples", self.samples, "--max-tokens", max_tokens)
        more = ("--procedure", procedure, "--seed", self.seed, *options)
        return self.program.json("generate", "--model", self.folder / "model", *arguments, *more)["responses"]

    def test(self, name, law, responses):
        """χ² of responses under a law: at most its quantile at 1 − LEVEL."""
        counts = Counter(tuple(response["tokens"]) for response in responses)
        cells = [[0.0, 0.0]]
        for response, p in sorted(law.items(), key=lambda item: item[1]):
            if cells[-1][0] >= SMALLEST_CELL:
                cells.append([0.0, 0.0])
            cells[-1][0] += p
            cells[-1][1] += counts[response] / len(responses)
        statistic = len(responses) * sum((found - p) ** 2 / p for p, found in cells)
        if any(response not in law for response in counts):
            statistic = float("inf")
        self.compare(f"{name}, χ²", statistic, chi2.isf(LEVEL, max(len(cells) - 1, 1)))


def reward(response):
    return sum(WEIGHTS.get(token, 0.0) for token in response)


def answer(response):
    """The last token that is an answer; None where none is."""
    return next((token for token in reversed(response) if token in ANSWERS), None)


def laws(draw, value, max_tokens):
    """Laws of procedures by their texts."""
    plain = sequential(draw, max_tokens)
    token = sequential(tilted(draw, value, 1.0), max_tokens)
    block = blockwise(draw, value, 1, 2, max_tokens)
    return {
        "sample": plain,
        "best-of:2": keep(plain, reward, best_of(2)),
        "best-of:5": keep(plain, reward, best_of(5)),
        "worst-of:3": keep(plain, reward, best_of(3, -1)),
        "soft-best-of:3,temperature=0.7": keep(plain, reward, soft_best_of(3, 0.7)),
        "cd-token:lambda=1": token,
        "cd-token:lambda=0.3": sequential(tilted(draw, value, 0.3), max_tokens),
        "cd-block:length=1,samples=2": block,
        "cd-block:length=2,samples=4": blockwise(draw, value, 2, 4, max_tokens),
        "best-of:3 over cd-token:lambda=1": keep(token, reward, best_of(3)),
        "worst-of:2 over cd-block:length=1,samples=2": keep(block, reward, best_of(2, -1)),
    }


def check_sampling(bench, reference):
    """The laws of warped sampling, that responses do not depend on one another, and the log-probabilities."""
    for options in WARPS:
        text = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in options.items())
        law = sequential(lambda y: reference.draw(y, **options), MAX_TOKENS)
        responses = bench.generate("sample", MAX_TOKENS, *text.split())
        bench.test(f"sample {text}", law, responses)
    worst = 0.0
    for response in responses[:1000]:
        for place, (token, found) in enumerate(zip(response["tokens"], response["log_probs"])):
            logits, _ = reference.behind(tuple(response["tokens"][:place]))
            worst = max(worst, abs(float(logits.log_softmax(-1)[token]) - found))
    bench.compare(f"sample {text}, error of a log-probability", worst, TOLERANCE)
    first = sequential(reference.draw, 1)
    pairs = {a + b: p * q for a, p in first.items() for b, q in first.items()}
    drawn = [response["tokens"] for response in bench.generate("sample", 1)]
    drawn = [{"tokens": a + b} for a, b in zip(drawn[::2], drawn[1::2])]
    bench.test("sample, two responses in a row", pairs, drawn)


def check_procedures(bench, reference):
    """The laws of procedures, what is reported of their KL, and the values."""
    every = laws(reference.draw, reference.value, MAX_TOKENS)
    every["pruned-best-of:4,length=1,keep=1"] = keep(every["sample"], reward, best_of(4))
    for procedure, law in every.items():
        guided = any(word in procedure for word in ("cd-", "pruned"))
        options = bench.scorers(GUIDE) if guided else []
        options += ["--reward", bench.folder / "reward.toml"] if "-of" in procedure else []
        responses = bench.generate(procedure, MAX_TOKENS, *options)
        bench.test(procedure, law, responses)
        check_kl(bench, reference, procedure, kl(law, every["sample"]), responses)
        if procedure.startswith("cd-block"):
            values = {tuple(response["tokens"]): response["value"] for response in responses}
            worst = max(abs(reference.value(y) - found) for y, found in values.items())
            bench.compare(f"{procedure}, error of a value", worst, TOLERANCE)


def check_kl(bench, reference, procedure, nats, responses):
    """A bound is one, and what is exact is so: of cd-token, for each response, the sum over its tokens."""
    found = {tuple(response["tokens"]): response["kl"] for response in responses}
    named = [{kl["kind"]: kl["nats"] for kl in response["kl"]} for response in responses]
    if "bound" in named[0]:
        bound = sum(kl["bound"] for kl in named) / len(named)
        bench.compare(f"{procedure}, KL above its bound", nats - bound, 0)
    if "exact" in named[0]:
        strength = float(procedure.partition("lambda=")[2] or 0.0)
        draw, guided = reference.draw, tilted(reference.draw, reference.value, strength)
        steps = {y[:place] for y in found for place in range(len(y))}
        nats = {y: kl(dict(enumerate(guided(y))), dict(enumerate(draw(y)))) for y in steps}
        exact = {y: sum(nats[y[:place]] for place in range(len(y))) for y in found}
        worst = max(abs(exact[y] - kl["nats"]) for y, (kl, *_) in found.items())
        bench.compare(f"{procedure}, error of a KL", worst, TOLERANCE)


def check_majority(bench, reference):
    """By whole texts, and by answers, which not every response has."""
    plain = sequential(reference.draw, 2)
    texts = keep(plain, lambda response: response, majority(3))
    bench.test("majority:3 of texts", texts, bench.generate("majority:3", 2))
    file = write_lines(bench.folder / "answers.jsonl", [{"prompt": words(PROMPT), "answer": "t6"}])
    toml = bench.folder / "answer.toml"
    toml.write_text(f'kind = "answer"\nfile = "{file}"\npattern = "{"|".join(words(ANSWERS).split())}"\n')
    answers = keep(plain, answer, majority(4))
    responses = bench.generate("majority:4", 2, "--reward", toml)
    bench.test("majority:4 of answers", answers, responses)


def check_rejection(bench, reference):
    """A draw is accepted whose rank among the table's rewards, ties counted half, is the quantile or more."""
    table, toml = bench.folder / "table.parquet", bench.folder / "reward.toml"
    common = ("--model", bench.folder / "model", "--prompts", bench.prompts, "--max-tokens", MAX_TOKENS)
    bench.program.run("calibrate", "make", *common, "--reward", toml, "--samples", 40, "--out", table)
    rewards = pyarrow.parquet.read_table(table)["rewards"][0].as_py()
    plain = sequential(reference.draw, MAX_TOKENS)
    for quantile, draws in ((0.5, 3), (0.9, 2), (0.97, 20)):

        def accepted(response, quantile=quantile):
            level = reward(response)
            return sum((r < level) + 0.5 * (r == level) for r in rewards) >= quantile * len(rewards)

        procedure = f"rejection:quantile={quantile},draws={draws}"
        responses = bench.generate(procedure, MAX_TOKENS, "--reward", toml, "--calibration", table)
        bench.test(procedure, keep(plain, accepted, rejection(draws)), responses)
        wrong = sum(response["accepted"] != accepted(tuple(response["tokens"])) for response in responses)
        bench.compare(f"{procedure}, `accepted` that is wrong", wrong, 0)


def check_ties(bench, reference):
    """Where all values are equal, what is guided by them leaves the model's law as it is."""
    plain = sequential(reference.draw, MAX_TOKENS)
    toml = bench.folder / "equal.toml"
    toml.write_text('kind = "patterns"\nweights = { never = 1.0 }\n')
    for procedure in (
        "cd-block:length=1,samples=4",
        "pruned-best-of:4,length=1,keep=0.5",
        "beam:width=2,branch=1,length=1",
        "beam:width=3,branch=2,length=1",
        "beam:width=2,branch=2,length=2",
    ):
        options = ["--reward", toml] if "-of" in procedure else []
        responses = bench.generate(procedure, MAX_TOKENS, *bench.scorers(TIED), *options)
        bench.test(f"{procedure}, all tied", plain, responses)


def letters(response):
    """A response as the table of `--exact` writes it."""
    return "".join(LETTERS[token] for token in response if token != EOS) + "$"


def check_exact(bench, reference):
    """`--exact` of a table of the model's probabilities, where values are expected rewards."""
    plain = sequential(reference.draw, MAX_TOKENS)
    begun = {y[:place] for y in plain for place in range(len(y))}
    of_letters = {y: reference.draw(y) for y in begun}
    rows = {letters(y)[:-1]: [of_letters[y][token] for token in [*LETTERS, EOS]] for y in begun}
    table = {"D": MAX_TOKENS + 1, "p": rows, "r": {letters(y): reward(y) for y in plain}}
    write_json(bench.folder / "table.json", table)

    def value(response):
        if ended(response, MAX_TOKENS):
            return reward(response)
        return sum(p * reward(y) for y, p in sequential(reference.draw, MAX_TOKENS, response).items())

    for procedure, law in laws(reference.draw, value, MAX_TOKENS).items():
        arguments = ("--model", f"tabular:{bench.folder}/table.json", "--procedure", procedure)
        found = bench.program.json("generate", "--exact", *arguments)
        errors = [abs(found["distribution"].get(letters(y), 0.0) - p) for y, p in law.items()]
        errors.append(abs(found["kl"] - kl(law, plain)))
        errors.append(abs(found["win_rate"] - win_rate(law, plain, reward)))
        errors.append(abs(found["expected_reward"] - sum(p * reward(y) for y, p in law.items())))
        bench.compare(f"--exact {procedure}", max(errors), EXACT_TOLERANCE)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=100_000, help="responses of a law (default 100000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        # A BOS would end responses, which it does not in transformers.
        model = write_tiny_model(folder / "model", N_TOKENS, options.seed, bos_token_id=None)
        reference = Reference(model, PROMPT)
        bench = Bench(Program(options.program), folder, options.seed, options.samples)
        (folder / "scorer.toml").write_text(SCORER)
        bench.program.run("scorer", folder / "scorer.toml", "--out", folder / "run")
        reference.load_scorer(folder / "run" / "scorer", GUIDE)
        check_sampling(bench, reference)
        check_procedures(bench, reference)
        check_majority(bench, reference)
        check_rejection(bench, reference)
        check_ties(bench, reference)
        check_exact(bench, reference)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
