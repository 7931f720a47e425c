"""Laws of sampling and procedures from transformers' logits, every response being enumerated.

Procedures are those that docs/src/concepts/procedures.md defines. A response is a tuple of tokens, a law is
{response: probability}. `draw` gives the probabilities [vocabulary] of the token that follows a response,
`value` what a prefix scorer says of a response that is not empty.
"""

import json
import math
from collections import Counter, defaultdict
from itertools import product

from common import EOS

import torch
import transformers as hf
from safetensors.torch import load_file


class Reference:
    """A model in transformers behind a prompt, and the values of a prefix scorer, from its weights."""

    def __init__(self, model, prompt):
        self.model, self.prompt = model, prompt
        self.passes = {}

    def load_scorer(self, folder, weights):
        """Reads the folder of a scorer; `weights` are those of its heads."""
        self.weights = weights
        self.head = {name: tensor.double() for name, tensor in load_file(folder / "head.safetensors").items()}
        self.rewards = json.loads((folder / "scorer.json").read_text())["heads"]

    @torch.no_grad()
    def behind(self, response):
        """Logits [vocabulary] and last hidden state [hidden] at the end of a response."""
        if response not in self.passes:
            output = self.model(torch.tensor([self.prompt + response]), output_hidden_states=True)
            self.passes[response] = output.logits[0, -1].double(), output.hidden_states[-1][0, -1].double()
        return self.passes[response]

    def draw(self, response, temperature=1.0, top_k=0, top_p=1.0):
        """Probabilities [vocabulary] of the next token, by transformers' warpers in their order."""
        logits = self.behind(response)[0][None]
        warpers = [hf.TemperatureLogitsWarper(temperature)]
        warpers += [hf.TopKLogitsWarper(top_k)] if top_k else []
        for warper in [*warpers, hf.TopPLogitsWarper(top_p)]:
            logits = warper(None, logits)
        return logits.softmax(-1)[0].tolist()

    def value(self, response):
        """The weighted sum of the heads' values of a response that is not empty."""
        state, token = self.behind(response[:-1])[1], response[-1]
        inner = torch.nn.functional.gelu(state @ self.head["inner.weight"] + self.head["inner.bias"])
        features = torch.cat([state, inner, torch.ones(1, dtype=torch.double)])
        of_token = self.head["tokens.weight"].view(-1, len(self.rewards), len(features))[token]
        total = 0.0
        for of, value in zip(self.rewards, of_token @ features + features @ self.head["shared.weight"]):
            value = min(max(of["mean"] + of["scale"] * float(value), of["least"]), of["greatest"])
            total += self.weights.get(of["name"], 0.0) * value
        return total


def ended(response, max_tokens):
    return len(response) == max_tokens or response[-1] == EOS


def sequential(draw, max_tokens, start=()):
    """The law of responses that are drawn token by token, of those that begin with `start`."""
    law, open_ = {}, {start: 1.0}
    while open_:
        longer = {y + (z,): p * q for y, p in open_.items() for z, q in enumerate(draw(y)) if q > 0}
        law |= {y: p for y, p in longer.items() if ended(y, max_tokens)}
        open_ = {y: p for y, p in longer.items() if y not in law}
    return law


def tilted(draw, value, strength):
    """How cd-token draws: π(z|s)·exp(λ·V(sz)), normalised."""

    def next_token(response):
        terms = [p and p * math.exp(strength * value(response + (z,))) for z, p in enumerate(draw(response))]
        return [term / sum(terms) for term in terms]

    return next_token


def blockwise(draw, value, length, samples, max_tokens):
    """The law of cd-block: block by block, the one of greatest value of `samples`."""
    law, open_ = {}, {(): 1.0}
    while open_:
        longer = {}
        for start, p in open_.items():
            blocks = sequential(draw, min(len(start) + length, max_tokens), start)
            longer |= {y: p * q for y, q in keep(blocks, value, best_of(samples)).items()}
        law |= {y: p for y, p in longer.items() if ended(y, max_tokens)}
        open_ = {y: p for y, p in longer.items() if y not in law}
    return law


def by_level(law, level):
    """The law of levels."""
    shares = defaultdict(float)
    for response, p in law.items():
        shares[level(response)] += p
    return shares


def keep(law, level, select):
    """The law of what a selection keeps that sees levels alone, chance deciding among responses of one level.

    `level` is what is seen of a response; `select` makes the law of the kept level from the law of levels.
    """
    shares = by_level(law, level)
    kept = select(shares)
    return {response: p * kept[level(response)] / shares[level(response)] for response, p in law.items()}


def best_of(n, sign=1):
    """The greatest of n, or with the sign −1 the least."""

    def select(shares):
        kept, below = {}, 0.0
        for level in sorted(shares, key=lambda level: sign * level):
            kept[level] = (below + shares[level]) ** n - below**n
            below += shares[level]
        return kept

    return select


def soft_best_of(n, temperature):
    """One of n, drawn with probability ∝ exp(level/τ)."""

    def select(shares):
        kept = defaultdict(float)
        for drawn in product(shares, repeat=n):
            weights = [math.exp(level / temperature) for level in drawn]
            p = math.prod(shares[level] for level in drawn) / sum(weights)
            for level, weight in zip(drawn, weights):
                kept[level] += p * weight
        return kept

    return select


def majority(n):
    """The first of n that is most frequent; None has no vote, and is kept where there is nothing else."""

    def select(shares):
        kept = defaultdict(float)
        for drawn in product(shares, repeat=n):
            votes = Counter(level for level in drawn if level is not None)
            most = max(votes.values(), default=0)
            first = next((level for level in drawn if votes and votes[level] == most), None)
            kept[first] += math.prod(shares[level] for level in drawn)
        return kept

    return select


def rejection(draws):
    """The first that is accepted, or the last; a level says whether one is."""
    return lambda shares: {True: 1 - shares[False] ** draws, False: shares[False] ** draws}


def kl(law, other):
    """KL(law‖other) in nats."""
    return sum(p * math.log(p / other[response]) for response, p in law.items() if p > 0)


def win_rate(law, other, level):
    """How often a response of `law` has more than one of `other`, equal ones counted half."""
    pairs = product(by_level(law, level).items(), by_level(other, level).items())
    return sum(p * q * ((a > b) + 0.5 * (a == b)) for (a, p), (b, q) in pairs)
