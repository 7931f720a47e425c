"""Compares models in random folders of every family that docs/src/models.md names with transformers.

    python models.py PROGRAM [--cases 100] [--seed 0] [--keep DIR]

A case is a folder as folders.py draws it. `score --json` has to give the log-probabilities of token
sequences, up to the context's length, within 2e-4 nats, and `generate` at temperature 0 the tokens that
`generate` of transformers gives, in f32 with eager attention. Either may refuse a folder; messages are
counted. Families take turns by the seed, and `--seed SEED --cases 1 --keep DIR` repeats a case and keeps
its folder.

requirements.txt has the versions that it was run with.
"""

import json
import sys
import tempfile
from pathlib import Path

import common
from common import Program, Refused, Summary
from folders import ARCHITECTURES, FORMS, Draw, write_folder

import torch

LONGEST = 300  # tokens of a sequence


@torch.no_grad()
def scored_by_transformers(draw, model):
    """Sequences of various lengths, each with its log-probabilities."""
    context = min(model.config.max_position_embeddings, LONGEST)
    between = draw.random.randint
    lengths = (2, 3, between(4, min(40, context)), between(context // 2, context), context)
    sequences = [draw.sequence(length, model.config.vocab_size) for length in lengths]
    return [(ids, common.log_probs(model, ids)) for ids in sequences]


@torch.no_grad()
def continued_by_transformers(draw, model, n_tokens, max_tokens):
    """Prompts of various lengths, each with its greedy response; a cache would only add faults of its own."""
    room = model.config.max_position_embeddings - max_tokens
    lengths = (3, draw.of(1, 12, 20), draw.of(25, 60, 110))
    prompts = [draw.sequence(min(room, length), n_tokens) for length in lengths]
    how = dict(do_sample=False, max_new_tokens=max_tokens, use_cache=False)
    continued = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), **how)[0].tolist()
        continued.append((prompt, whole[len(prompt) :]))
    return continued


def largest_difference(program, folder, scored):
    """Largest difference of a log-probability."""
    rows = program.score(folder, [{"ids": ids} for ids, _ in scored])
    got = [log_prob for row in rows for log_prob in row["log_probs"]]
    expected = [log_prob for _, log_probs in scored for log_prob in log_probs]
    # Unlike Python's, its `max` does not pass over a NaN.
    return float((torch.tensor(got) - torch.tensor(expected)).abs().max())


def different_response(program, folder, model, continued, max_tokens):
    """The first greedy response that differs and that no near tie explains; none if there is none."""
    responses = program.greedy(folder, [common.words(prompt) for prompt, _ in continued], max_tokens)
    for response, (prompt, expected) in zip(responses, continued, strict=True):
        got = response["tokens"]
        if got != expected and common.greedy(model, prompt, max_tokens)[1] > common.NEAR_TIE:
            return f"prompt {prompt}, response {got}, expected {expected}"
    return None


def run_case(program, folder, seed, summary):
    family = list(ARCHITECTURES)[seed % len(ARCHITECTURES)]
    draw = Draw(seed, family)
    form, max_tokens = draw.of(*FORMS), draw.of(6, 20)
    try:
        model, n_tokens = write_folder(draw, folder, seed, form)
        scored = scored_by_transformers(draw, model)
        continued = continued_by_transformers(draw, model, n_tokens, max_tokens)
    except Exception as error:  # of any kind: transformers checks little and fails anywhere
        return summary.reference_refused(family, f"{type(error).__name__}: {error}")
    note = f"--seed {seed} --cases 1, {form}, {json.dumps(draw.config)}"
    try:
        difference = largest_difference(program, folder, scored)
        response = different_response(program, folder, model, continued, max_tokens)
    except Refused as refusal:
        return summary.refused(family, str(refusal))
    except Exception as error:
        return summary.different(family, f"{note}, {type(error).__name__}: {error}")
    if response and difference <= common.TOLERANCE:
        return summary.different(family, f"{note}, {response}", difference)
    return summary.compared(family, difference, note)


def main():
    parser = common.arguments(__doc__, cases=100)
    parser.add_argument("--keep", type=Path, help="keep the folders of the cases in this folder")
    args = parser.parse_args()
    summary = Summary()
    with tempfile.TemporaryDirectory(prefix="infalign-") as temporary:
        for seed in range(args.seed, args.seed + args.cases):
            folder = (args.keep or Path(temporary)) / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            run_case(Program(args.program), folder, seed, summary)
    sys.exit(summary.finish())


if __name__ == "__main__":
    main()
