"""Compares trainings of tiny random models with PyTorch, TRL and PEFT.

    python trainers.py PROGRAM [--seed 0]

The program trains by SFT, DPO and IPO, reward models of pairs (with margins and centring) and of ratings,
with LoRA, and by two on-policy solvers (onpolicy.py). So does a loop of PyTorch, with torch.optim.AdamW and
the batches, schedule, clipping and masks that are documented (training.py, streams.py). Compared are the
numbers of every step that both have (loss, gradient norm, learning rate, …), of reward models those of the
last, and the final weights, by their summed error as a share of how far they moved. Where every step sees all
data, so do TRL's trainers. Adapters are loaded with PEFT, too, which has to find the same log-probabilities.

A line a comparison: the figure may be at most the number behind it. The exit status is 1 if one is greater.
requirements.txt has the versions that it was run with.
"""

import json
import sys
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from common import EOS, PAD, TOLERANCE, Program, arguments, log_probs, words
from onpolicy import SOLVERS, again, tables
from runs import BETA, HELD_OUT, METHODS, N_PAIRS, PREFERENCES, Bench
from training import FAMILIES, N_TOKENS, Schedule, descend, load, preference_loss, rating_loss, write_model

import pyarrow.parquet
import torch
import transformers as hf
from datasets import Dataset, disable_progress_bars
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

MARGIN, CENTRING = 0.3, 0.02
OF_PAIRS = Schedule(5, 7, 2e-3, warmup_steps=2, final_share=0.1, weight_decay=0.05)
OF_RATINGS = Schedule(5, 6, 2e-3, warmup_steps=1, final_share=0.2, max_grad_norm=0.7, decay="cosine")
# Of what TRL trains, too. Every gradient is clipped, so that of SFT the same is left, although its loss is a
# sum over tokens here and a mean there.
FULL = Schedule(4, N_PAIRS, 1e-3, beta_2=0.999, decay="cosine")
ALL_LINEAR = """
r = 4
lora_alpha = 8
target_modules = "all-linear"
"""
UNEVEN = """
r = 3
lora_alpha = 7
use_rslora = true
target_modules = ["{first}", "mlp.{second}"]
rank_pattern = {{ "{second}" = 5 }}
alpha_pattern = {{ "{first}" = 2 }}
"""
RANK_STABILISED = {
    "llama": UNEVEN.format(first="q_proj", second="down_proj"),
    "qwen2": UNEVEN.format(first="v_proj", second="up_proj"),
    "gpt2": UNEVEN.format(first="c_attn", second="c_proj"),
}


def saved_weights(folder):
    return load_file(folder / "model.safetensors")


def check_supervised(bench, family, model):
    """SFT, DPO and IPO of all weights."""
    for kind, (_, schedule, loss) in METHODS.items():
        found, _, policy = bench.supervised(model, kind, schedule)
        trained, reference = load(model), load(model)
        of_batch = partial(loss, bench.data, trained, reference)
        lines = descend(trained, of_batch, N_PAIRS, schedule, bench.seed)
        final, weights, initial = saved_weights(policy), trained.state_dict(), reference.state_dict()
        bench.compare_training(f"{family} {kind}", found, lines, final, weights, initial)


def learned(text):
    """Whether a reward model learns from a text, or from a prompt as JSON, by its hash."""
    number = int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 11
    return number / 2**53 >= HELD_OUT


def classifier(model):
    """A reward model before it learns: the score of every text is 0."""
    model = load(model, hf.AutoModelForSequenceClassification, num_labels=1)
    torch.nn.init.zeros_(model.score.weight)
    return model


def pairs_to_learn(data):
    return [pair for pair, text in zip(data.pairs, data.texts) if learned(json.dumps(text["prompt"]))]


def check_reward_models(bench, family, model):
    """Of pairs, with margins of their own and one for all, and of ratings."""
    data = bench.data
    pairs = pairs_to_learn(data)
    rated = [(tokens, rating) for tokens, rating in data.ratings if learned(words(tokens))]
    train = f"margin = {MARGIN}\ncentring = {CENTRING}\n"
    of_pairs = partial(preference_loss, margin=MARGIN, centring=CENTRING)
    cases = {
        "pairs": (PREFERENCES, OF_PAIRS, train, pairs, of_pairs),
        "ratings": ('ratings = ["ratings.tsv"]', OF_RATINGS, "", rated, rating_loss),
    }
    for name, (keys, schedule, train, rows, loss) in cases.items():
        last, folder = bench.reward_model(model, keys, schedule, train)
        trained, initial = classifier(model), classifier(model).state_dict()
        of_batch = lambda indices: loss(trained, [rows[i] for i in indices])
        lines = descend(trained, of_batch, len(rows), schedule, bench.seed)
        final, weights = saved_weights(folder), trained.state_dict()
        bench.compare_training(f"{family} {name}", [last], lines[-1:], final, weights, initial)


def check_adapter(bench, family, model, kind, lora):
    """LoRA, from the program's own random A, and what PEFT makes of the adapter."""
    _, schedule, loss = METHODS[kind]
    found, _, policy = bench.supervised(model, kind, schedule, lora)
    _, _, untrained = bench.supervised(model, kind, Schedule(1, N_PAIRS, 1e-30), lora)
    initial = load_file(untrained / "adapter_model.safetensors")
    initial |= {key: torch.zeros_like(tensor) for key, tensor in initial.items() if "lora_B" in key}
    trained, reference = PeftModel.from_pretrained(load(model), policy, is_trainable=True).eval(), load(model)
    set_peft_model_state_dict(trained, initial)
    of_batch = partial(loss, bench.data, trained, reference)
    lines = descend(trained, of_batch, N_PAIRS, schedule, bench.seed)
    name, adapter = f"{family} {kind} lora", load_file(policy / "adapter_model.safetensors")
    bench.compare_training(name, found, lines, adapter, get_peft_model_state_dict(trained), initial)
    loaded = PeftModel.from_pretrained(load(model), policy).eval()
    sequences = [tokens for tokens, _ in bench.data.sequences(1)]
    scored = bench.program.score(policy, [{"ids": tokens} for tokens in sequences])
    found = torch.tensor([log_prob for row in scored for log_prob in row["log_probs"]])
    expected = torch.tensor([log_prob for tokens in sequences for log_prob in log_probs(loaded, tokens)])
    bench.compare(f"{name}, log-probabilities in PEFT", float((found - expected).abs().max()), TOLERANCE)


def check_on_policy(bench, family, model):
    """Every step of RLOO and GRPO, from the responses on."""
    for solver in SOLVERS:
        found, run, policy = bench.align(model, 'kind = "ctrl"\nobjective = "identity"\n', tables(solver))
        table = pyarrow.parquet.read_table(run / "calibration.parquet").to_pylist()
        rewards = {row["prompt_id"]: row["rewards"] for row in table}
        trained, lines, digests = again(solver, model, bench.data.prompts, rewards, bench.seed)
        name = f"{family} {solver}"
        other = sum(line["rollout"] != digest for line, digest in zip(found, digests))
        bench.compare(f"{name}, steps with other responses", other, 0)
        final, weights, initial = saved_weights(policy), trained.state_dict(), load(model).state_dict()
        bench.compare_training(name, found, lines, final, weights, initial)


def tokenizer_for_trl():
    """The same words, with a text for EOS, which TRL appends to texts."""
    own = {EOS: "<eos>", PAD: "<pad>"}
    vocabulary = {own.get(token, f"t{token}"): token for token in range(N_TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def trl_options(bench, config_class, n, **options):
    """TRL's configuration for FULL where a step sees all n examples."""
    return config_class(
        output_dir=str(bench.folder / "trl"),
        per_device_train_batch_size=n,
        max_steps=FULL.steps,
        learning_rate=FULL.learning_rate,
        lr_scheduler_type=FULL.decay,
        adam_beta2=FULL.beta_2,
        weight_decay=0.0,
        max_grad_norm=FULL.max_grad_norm,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        **options,
    )


def compare_with_trl(bench, name, trainer, found, names, weights):
    """Numbers of the program's steps by TRL's names for them, and the weights."""
    initial = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    trainer.remove_callback(hf.PrinterCallback)
    trainer.train()
    logged = [line for line in trainer.state.log_history if "loss" in line]
    lines = [{ours: float(line[theirs]) for ours, theirs in names.items()} for line in logged[-len(found) :]]
    bench.compare_training(f"{name} in TRL", found, lines, weights, trainer.model.state_dict(), initial)


def check_trl(bench, family, model):
    """DPO, SFT and a reward model of pairs where each step sees all."""
    given = dict(processing_class=tokenizer_for_trl())
    names = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate"}

    found, _, policy = bench.supervised(model, "dpo", FULL)
    for line in found:
        line["margin"] *= BETA
    options = trl_options(bench, DPOConfig, N_PAIRS, beta=BETA)
    texts = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in bench.data.texts]
    trainer = DPOTrainer(load(model), load(model), options, train_dataset=Dataset.from_list(texts), **given)
    weights = saved_weights(policy)
    compare_with_trl(bench, f"{family} dpo", trainer, found, names | {"margin": "rewards/margins"}, weights)

    found, _, policy = bench.supervised(model, "sft", FULL)
    options = trl_options(bench, SFTConfig, N_PAIRS, completion_only_loss=True)
    completions = Dataset.from_list(bench.data.completions)
    trainer = SFTTrainer(load(model), options, train_dataset=completions, **given)
    weights = load_file(policy / "model.safetensors")
    sft_names = {"loss_per_token": "loss", "learning_rate": "learning_rate"}
    compare_with_trl(bench, f"{family} sft", trainer, found, sft_names, weights)

    pairs = pairs_to_learn(bench.data)
    schedule = replace(FULL, examples=len(pairs))
    last, folder = bench.reward_model(model, PREFERENCES, schedule, f"centring = {CENTRING}\n")
    options = trl_options(bench, RewardConfig, len(pairs), center_rewards_coefficient=CENTRING)
    rows = [{"chosen_ids": p + c, "rejected_ids": p + r, "margin": own} for p, c, r, own in pairs]
    base = classifier(model)
    base.config.pad_token_id = PAD
    trainer = RewardTrainer(base, options, train_dataset=Dataset.from_list(rows), **given)
    weights = saved_weights(folder)
    compare_with_trl(bench, f"{family} pairs", trainer, [last], names, weights)


def main():
    options = arguments(__doc__).parse_args()
    disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Program(options.program), Path(folder), options.seed)
        for family in FAMILIES:
            model = bench.folder / family
            write_model(model, family, options.seed)
            check_supervised(bench, family, model)
            check_reward_models(bench, family, model)
            check_adapter(bench, family, model, "sft", ALL_LINEAR)
            check_adapter(bench, family, model, "dpo", RANK_STABILISED[family])
            check_on_policy(bench, family, model)
            check_trl(bench, family, model)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
