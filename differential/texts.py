"""Compares how texts and conversations become token ids, and ids texts, with transformers.

    python texts.py PROGRAM [--seed 0]

Templates and tokenizers are those of wild.py, each with each, over the conversations below.

- Prompts: the ids that `score --json` prints are those of `apply_chat_template`. Where that refuses a
  conversation, the program has to, too.
- Pairs of plain texts: the ids are those of prompt and response as one text or, where a token would reach
  across the border or a tokenizer ends every text, those of each, the response's without the space that some
  tokenizers put before a text.
- Responses: the text of ids in random order, which `generate` takes from a model that chains all tokens, is
  what `decode` gives for them, alone or as what they add to their prompt.

requirements.txt has the versions that it was run with.
"""

import json
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

import common
from common import BOS, EOS, Program, Refused, Summary
from wild import IN_CONFIG, NAMED_APART, SAVED_ANEW, TEMPLATES, TOKENIZERS

import torch
import transformers as hf
from tokenizers import decoders

HIDDEN = 128  # so wide that random vectors are nearly orthogonal
CONTEXT = 1024
N_PAIRS = 60
N_RESPONSES = 40
LONGEST_RESPONSE = 12

TEXTS = [
    "Hello world",
    "Hello",
    " Hello",
    "  Hello  ",
    "Once upon a time, there was",
    "\nHi",
    "a\r\nb\t\tc",
    "x\x00y \x7f\x80",
    "\ufeffHi",
    "e\u0301 é Straße İ",
    "👩‍👩‍👧 🙂",
    "日本語テスト",
    "हिन्दी مرحبا Привет",
    "ﬁ ½ ² ٣",
    "a\u00a0b\u3000c\u200b",
    "don't stop . , ! ?",
    "12345678",
    "▁a▁ <0x41>",
    "<s>Hello </s> x",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "a  <|im_end|>  b",
    "<think>\nso\n</think>\n\nyes",
    "A" * 50,
    " &lt; {{ x }} {% if %}",
]


def turns(*contents, system=None):
    """A conversation of user and assistant in turns."""
    roles = [("user", "assistant")[i % 2] for i in range(len(contents))]
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + messages


CONVERSATIONS = [
    *[turns(text) for text in TEXTS],
    turns("Hi", system="Be brief."),
    turns("Hi", system=""),
    turns("  Hi \n", " Hello. \n", "\tAnd? "),
    turns("1 + 1?", "<think>\nTwo.\n</think>\n\n2", "And 2 + 2?", "4", "🙂", system=" Rechne, « vite » ! "),
    turns(""),
    turns("", "", ""),
    # The last message is continued.
    turns("Hi", "Hello"),
    turns("Hi", "<think>\nIt is", system="Think."),
    # What some templates, and some of them transformers too, refuse.
    [],
    turns("Hi", system="x")[:1],
    turns("Hi", "Hello")[1:],
    [*turns("Hi"), *turns("Hi")],
]


def write_chain_model(folder, n_tokens, seed):
    """A model that continues each token by the next one of a random order, in which BOS and EOS are not."""
    sizes = dict(hidden_size=HIDDEN, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    tokens = dict(vocab_size=n_tokens, bos_token_id=BOS, eos_token_id=EOS, max_position_embeddings=CONTEXT)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, **tokens))
    order = [token for token in range(n_tokens) if token not in (BOS, EOS)]
    random.Random(seed).shuffle(order)
    successors = dict(zip(order, order[1:] + order[:1])) | {BOS: order[0], EOS: order[1]}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(parameter.dim() == 1))
        embedding = torch.randn(n_tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))
        model.model.embed_tokens.weight.copy_(embedding)
        for token, successor in successors.items():
            model.lm_head.weight[successor] += embedding[token] / embedding[token].norm()
    model.save_pretrained(folder)


def write_folder(folder, kind, seed):
    """A model's folder with a tokenizer of a kind; the tokenizer as transformers reads it."""
    make, tokenizer_class, config = TOKENIZERS[kind]
    tokenizer = make()
    write_chain_model(folder, tokenizer.get_vocab_size(), seed)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    if kind in NAMED_APART:
        common.write_json(folder / "special_tokens_map.json", special)
        special = {}
    config = {"tokenizer_class": tokenizer_class} | special | config
    common.write_json(folder / "tokenizer_config.json", config)
    if kind in SAVED_ANEW:
        hf.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return hf.AutoTokenizer.from_pretrained(folder)


def scored(program, folder, rows):
    """The score of each row, or the message by which the program refuses it."""
    try:
        return program.score(folder, rows)
    except Refused as refusal:
        if len(rows) == 1:
            return [str(refusal)]
    half = len(rows) // 2
    return scored(program, folder, rows[:half]) + scored(program, folder, rows[half:])


def compare(summary, group, note, got, expected):
    """Counts how one comparison ended: `got` and `expected` are messages where they are texts."""
    if isinstance(expected, str):
        if isinstance(got, str):
            summary.reference_refused(group, expected)
        else:
            summary.different(group, f"{note}: accepted, but transformers: {expected}")
    elif isinstance(got, str):
        summary.refused(group, got)
    elif got == expected:
        summary.equal(group)
    else:
        summary.different(group, f"{note}: {got}, expected {expected}")


def chat_ids(tokenizer, messages):
    """The ids of a prompt of messages by transformers, or its message."""
    continued = bool(messages) and messages[-1]["role"] == "assistant"
    how = dict(add_generation_prompt=not continued, continue_final_message=continued, return_dict=False)
    try:
        return tokenizer.apply_chat_template(messages, **how)
    except Exception as error:  # of any kind: a template's and those of its own code
        return f"{type(error).__name__}: {error}"


def with_template(folder, name, template):
    """The tokenizer with another chat template."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    file = folder / "chat_template.jinja"
    file.unlink(missing_ok=True)
    if name in IN_CONFIG:
        config["chat_template"] = template
    else:
        file.write_text(template, encoding="utf-8")
    common.write_json(folder / "tokenizer_config.json", config)
    return hf.AutoTokenizer.from_pretrained(folder)


def compare_chats(program, folder, kind, summary):
    rows = [{"prompt": messages, "response": "x"} for messages in CONVERSATIONS]
    for name, template in TEMPLATES.items():
        tokenizer = with_template(folder, name, template)
        expected = [chat_ids(tokenizer, messages) for messages in CONVERSATIONS]
        good = [row for row, ids in zip(rows, expected) if not isinstance(ids, str)]
        scores = iter(scored(program, folder, good))
        for row, ids in zip(rows, expected):
            score = scored(program, folder, [row])[0] if isinstance(ids, str) else next(scores)
            got = score if isinstance(score, str) else score["ids"][: score["prompt_length"]]
            compare(summary, f"chat, {name}", f"{kind}, {row['prompt']}", got, ids)


def text_ids(tokenizer, text):
    """The ids of a text, without a second beginning where it has one of its own."""
    ids = tokenizer(text)["input_ids"]
    written = tokenizer(text, add_special_tokens=False)["input_ids"]
    twice = len(ids) > len(written) and ids[:1] == ids[1:2] and written[:1] != written[1:2]
    return ids[1:] if twice else ids


def pair_ids(tokenizer, prompt, response):
    """The ids of one text; where a token would reach across the border, of each apart, without a space that nobody wrote."""
    before = text_ids(tokenizer, prompt)
    whole = text_ids(tokenizer, prompt + response)
    if whole[: len(before)] == before and len(whole) > len(before):
        return whole
    alone, behind_a_line, line = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (response, "\n" + response, "\n")
    )
    parts_by_spaces = isinstance(tokenizer.backend_tokenizer.decoder, decoders.WordPiece | None)
    if parts_by_spaces or tokenizer.decode(before + alone) == tokenizer.decode(before) + response:
        return before + alone
    return before + behind_a_line[len(line) :]


def compare_pairs(program, folder, tokenizer, kind, draw, summary):
    pairs = [(draw.choice(TEXTS), draw.choice(TEXTS)) for _ in range(N_PAIRS)]
    rows = [{"prompt": prompt, "response": response} for prompt, response in pairs]
    scores = scored(program, folder, rows)
    for score, pair in zip(scores, pairs, strict=True):
        got = score if isinstance(score, str) else score["ids"]
        compare(summary, f"pairs, {kind}", repr(pair), got, pair_ids(tokenizer, *pair))


def response_texts(tokenizer, prompt, ids):
    """The text of a response's ids by transformers: alone, and as what they add to the prompt's ids."""
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    before = text_ids(tokenizer, prompt) if isinstance(prompt, str) else chat_ids(tokenizer, prompt)
    alone, whole, start = decode(ids), decode(before + ids), decode(before)
    return {alone, whole.removeprefix(start)} if whole.startswith(start) else {alone}


def compare_responses(program, folder, kind, draw, summary):
    tokenizer = with_template(folder, "ChatML", TEMPLATES["ChatML"])
    ends = draw.sample("abcdefghijklmnopqrstuvwxyz0123456789.,!?*+-='", N_RESPONSES)
    texts = [draw.choice(TEXTS[:5]) + end for end in ends]  # all different, as prompts have to be
    prompts = [draw.choice([text, turns(text)]) for text in texts]
    try:
        responses = program.greedy(folder, prompts, LONGEST_RESPONSE)
    except Refused as refusal:
        return summary.refused(f"responses, {kind}", str(refusal))
    for prompt, response in zip(prompts, responses, strict=True):
        got, ids = response["response"], response["tokens"]
        expected = response_texts(tokenizer, prompt, ids)
        if got in expected:
            summary.equal(f"responses, {kind}")
        else:
            tokens = tokenizer.convert_ids_to_tokens(ids)
            summary.different(f"responses, {kind}", f"{prompt!r}, {tokens}: {got!r}, expected {expected}")
    return None


def main():
    args = common.arguments(__doc__).parse_args()
    program, summary = Program(args.program), Summary("compared")
    for kind in TOKENIZERS:
        with tempfile.TemporaryDirectory(prefix="infalign-") as temporary:
            folder, draw = Path(temporary), random.Random(args.seed)
            tokenizer = write_folder(folder, kind, args.seed)
            compare_pairs(program, folder, tokenizer, kind, draw, summary)
            compare_responses(program, folder, kind, draw, summary)
            compare_chats(program, folder, kind, summary)
    sys.exit(summary.finish())


if __name__ == "__main__":
    main()
