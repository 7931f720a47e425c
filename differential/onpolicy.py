"""On-policy steps again: responses from their random streams, then RLOO and GRPO in PyTorch.

Both train on u itself, the rank of a response's reward among those of the run's calibration table. A digest
of the tokens tells whether the responses of a step are the program's.
"""

import struct
from hashlib import sha256

from common import EOS, words
from runs import reward
from streams import Stream, batch
from training import Descent, Schedule, distributions, load, of_tokens

import torch

MAX_TOKENS = 6
N_SAMPLES = 4  # responses to a prompt
BETA = 0.2
CLIP, CLIP_HIGH = 0.05, 0.02
SCHEDULE = Schedule(3, 4, 3e-3, warmup_steps=1, final_share=0.2, weight_decay=0.02, max_grad_norm=2.0)
SOLVERS = {"rloo": 'kind = "rloo"', "grpo": f'kind = "grpo", minibatches = 2, clip = {CLIP}, clip_high = {CLIP_HIGH}'}
TABLES = """
calibration = {{ samples = 16 }}
[train]
steps = {schedule.steps}
prompts_per_step = {schedule.examples}
samples_per_prompt = {samples}
beta = {beta}
{optimizer}
solver = {{ {solver} }}
"""


def tables(solver):
    """The tables of the recipe."""
    numbers = dict(schedule=SCHEDULE, samples=N_SAMPLES, beta=BETA)
    return TABLES.format(**numbers, optimizer=SCHEDULE.optimizer(), solver=SOLVERS[solver])


@torch.no_grad()
def draw(policy, prompt, prompt_id, seed, step):
    """The sequences of a step's responses to a prompt."""
    sequences = []
    for sample in range(N_SAMPLES):
        stream, tokens = Stream(seed, f"rollout-{step}", prompt_id, sample), list(prompt)
        while len(tokens) < len(prompt) + MAX_TOKENS and tokens[-1] != EOS:
            logits = policy(torch.tensor([tokens])).logits[0, -1]
            sums = (logits - logits.max()).exp().double().cumsum(0)
            place = stream.uniform(len(tokens) - len(prompt)) * sums[-1]
            tokens.append(int(torch.searchsorted(sums, place, right=True)))
        sequences.append((tokens, len(prompt)))
    return sequences


def digest(sequences):
    """The program's fingerprint of a step's tokens."""
    packed = (struct.pack(f"<Q{len(tokens)}I", len(tokens), *tokens) for tokens, _ in sequences)
    return sha256(b"".join(packed)).hexdigest()[:16]


def rank(level, rewards):
    """u of a reward among those of reference responses, as docs/src/concepts/calibration.md has it."""
    return (sum((r < level) + 0.5 * (r == level) for r in rewards) + 0.5) / (len(rewards) + 1)


def losses(solver, policy, reference, sequences, u, orders):
    """The loss of each optimiser step of a rollout, to be descended before the next is asked for."""
    groups = torch.tensor(u).view(-1, N_SAMPLES)
    with torch.no_grad():
        old, response = of_tokens(distributions(policy, sequences), sequences)
        penalty = ((old - of_tokens(distributions(reference, sequences), sequences)[0]) * response).sum(1)
    if solver == "rloo":  # the KL in the reward
        rewards = groups / BETA - penalty.view(-1, N_SAMPLES)
        advantages = (rewards - rewards.mean(1, keepdim=True)) * N_SAMPLES / (N_SAMPLES - 1)
    else:
        spread = groups.std(1, unbiased=False, keepdim=True)
        advantages = (groups - groups.mean(1, keepdim=True)) / (spread + 1e-4) / BETA
    for indices in orders:
        part = [sequences[i] for i in indices]
        log_probs, mask = of_tokens(distributions(policy, part), part)
        advantage = advantages.view(-1, 1)[indices]
        if solver == "rloo":
            yield -(advantage * log_probs * mask).sum() / len(part)
            continue
        with torch.no_grad():
            of_reference, _ = of_tokens(distributions(reference, part), part)
        ratio = (log_probs - old[indices, : mask.shape[1]]).exp()
        clipped = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP_HIGH) * advantage)
        k3 = (of_reference - log_probs).exp() - 1 + log_probs - of_reference
        yield ((k3 - clipped) * mask / mask.sum(1, keepdim=True)).sum() / len(part)


def measured(policy, reference, sequences, u, raw):
    """What a step's line says of the policy before it."""
    with torch.no_grad():
        p, q = distributions(policy, sequences), distributions(reference, sequences)
    of_policy, response = of_tokens(p, sequences)
    of_reference, _ = of_tokens(q, sequences)
    exact = (p.exp() * (p - q)).sum(-1)
    n = len(sequences)
    return {
        "kl": float((exact * response).sum()) / n,
        "kl_k1": float(((of_policy - of_reference) * response).sum()) / n,
        "reward/raw": sum(raw) / n,
        "reward/calibrated": sum(u) / n,
    }


def again(solver, model, prompts, rewards, seed):
    """Trains; the policy, and for every step its line and digest.

    `prompts` are tokens, `rewards` those of the calibration table by a prompt's id.
    """
    policy, reference = load(model), load(model)
    descent, lines, digests = Descent(policy, SCHEDULE), [], []
    for step in range(SCHEDULE.steps):
        sequences, u, raw = [], [], []
        for i in batch(seed, len(prompts), SCHEDULE.examples, step):
            prompt_id = sha256(words(prompts[i]).encode()).hexdigest()[:16]
            drawn = draw(policy, prompts[i], prompt_id, seed, step)
            levels = [reward(tokens[prompt:]) for tokens, prompt in drawn]
            sequences += drawn
            raw += levels
            u += [rank(level, rewards[prompt_id]) for level in levels]
        n = len(sequences)
        line = measured(policy, reference, sequences, u, raw)
        order = Stream(seed, f"minibatches-{step}").permutation(n)
        orders = [range(n)] if solver == "rloo" else [order[: n // 2], order[n // 2 :]]
        orders = [torch.tensor(indices) for indices in orders]
        steps = [descent.step(loss, step) for loss in losses(solver, policy, reference, sequences, u, orders)]
        line["grad_norm"] = sum(taken["grad_norm"] for taken in steps) / len(steps)
        lines.append(line | {"learning_rate": steps[-1]["learning_rate"]})
        digests.append(digest(sequences))
    return policy, lines, digests
