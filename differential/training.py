"""Training in PyTorch: tiny models, the schedule, descents, log-probabilities and losses.

A sequence is (tokens, how many of those are its prompt).
"""

import math
from dataclasses import dataclass

from common import EOS, PAD, randomise, write_word_tokenizer
from streams import batch

import torch
import transformers as hf
from torch.nn.functional import logsigmoid

N_TOKENS = 32
# Without PAD, whose embedding would not be trained by PyTorch.
TOKENS = dict(vocab_size=N_TOKENS, pad_token_id=None, bos_token_id=None, eos_token_id=EOS)
DECODER = TOKENS | dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
GPT2 = TOKENS | dict(
    n_embd=16,
    n_layer=2,
    n_head=4,
    n_positions=64,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
)
FAMILIES = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**DECODER)),
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config(**DECODER, tie_word_embeddings=True)),
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config(**GPT2)),
}


def write_model(folder, family, seed):
    """A tiny random model of a family, with the word tokenizer."""
    model_class, config = FAMILIES[family]
    randomise(model_class(config), seed=seed).save_pretrained(folder)
    write_word_tokenizer(folder, N_TOKENS)


def load(folder, model_class=hf.AutoModelForCausalLM, **options):
    """A model as it is trained here: in f32, with eager attention, without dropout."""
    options |= dict(dtype=torch.float32, attn_implementation="eager")
    return model_class.from_pretrained(folder, **options).eval()


@dataclass
class Schedule:
    """The keys of a recipe's `train` and its optimizer."""

    steps: int
    examples: int
    learning_rate: float
    warmup_steps: int = 0
    final_share: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    beta_2: float = 0.99
    decay: str = "linear"

    def toml(self):
        return f"steps = {self.steps}\nexamples_per_step = {self.examples}\n{self.optimizer()}"

    def optimizer(self):
        keys = ("learning_rate", "warmup_steps", "final_share", "weight_decay", "max_grad_norm", "beta_2")
        numbers = "".join(f"{key} = {getattr(self, key)}, " for key in keys)
        return f'optimizer = {{ {numbers}decay = "{self.decay}" }}\n'

    def rate(self, step):
        """The learning rate of a step, from 0: linear warm-up, then the decay (recipes/README.md)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        left = (self.steps - step) / (self.steps - self.warmup_steps)
        if self.decay == "cosine":
            left = (1 - math.cos(math.pi * left)) / 2
        return self.learning_rate * (self.final_share + (1 - self.final_share) * left)


class Descent:
    """AdamW as recipes/README.md describes it, in PyTorch."""

    def __init__(self, model, schedule):
        self.schedule = schedule
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decay = schedule.weight_decay
        self.adam = torch.optim.AdamW(self.parameters, betas=(0.9, schedule.beta_2), eps=1e-8, weight_decay=decay)

    def step(self, loss, step):
        """Descends once; the norm of the gradient before it is clipped, and the learning rate."""
        rate = self.adam.param_groups[0]["lr"] = self.schedule.rate(step)
        self.adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.max_grad_norm)
        self.adam.step()
        return {"grad_norm": float(norm), "learning_rate": rate}


def descend(model, loss, n, schedule, seed):
    """Trains on n examples; the line of every step. `loss(indices)` is the loss and what else is measured."""
    descent, lines = Descent(model, schedule), []
    for step in range(schedule.steps):
        value, measured = loss(batch(seed, n, schedule.examples, step))
        lines.append({"loss": value.item()} | measured | descent.step(value, step))
    return lines


def padded(sequences):
    """Tokens and attention mask [batch, time], padded at the end."""
    longest = max(len(tokens) for tokens, _ in sequences)
    ids = torch.tensor([tokens + [PAD] * (longest - len(tokens)) for tokens, _ in sequences])
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in sequences])
    return ids, mask


def distributions(model, sequences):
    """Log-probabilities [batch, time − 1, vocabulary] of the tokens from the second on."""
    ids, mask = padded(sequences)
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].log_softmax(-1)


def of_tokens(log_probs, sequences):
    """Those [batch, time − 1] of the tokens that stand there, and a mask of the response's."""
    ids, mask = padded(sequences)
    prompts = torch.tensor([prompt for _, prompt in sequences])
    response = mask[:, 1:] * (torch.arange(1, ids.shape[1]) >= prompts[:, None])
    return log_probs.gather(-1, ids[:, 1:, None])[..., 0], response


def response_log_probs(model, sequences):
    """log π(y|x) [batch] of the responses."""
    log_probs, response = of_tokens(distributions(model, sequences), sequences)
    return (log_probs * response).sum(1)


def scores(model, sequences):
    """The scores [batch] of a reward model, read at the last token."""
    ids, mask = padded(sequences)
    states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return model.score(states[torch.arange(len(ids)), mask.sum(1) - 1])[:, 0]


def sft_loss(data, policy, _, indices):
    """Negative log-likelihood of whole responses, the mean over responses."""
    chosen = [data.sequences(1)[i] for i in indices]
    log_probs = response_log_probs(policy, chosen)
    n_tokens = sum(len(tokens) - prompt for tokens, prompt in chosen)
    return -log_probs.mean(), {"loss_per_token": -log_probs.sum().item() / n_tokens}


def margin_loss(of_margin):
    """The loss of a method of pairs. A margin is log π/π_ref of chosen less that of rejected."""

    def loss(data, policy, reference, indices):
        ratios = []
        for place in (1, 2):
            sequences = [data.sequences(place)[i] for i in indices]
            with torch.no_grad():
                of_reference = response_log_probs(reference, sequences)
            ratios.append(response_log_probs(policy, sequences) - of_reference)
        chosen, rejected = ratios
        measured = {"chosen": chosen, "rejected": rejected, "margin": chosen - rejected}
        return of_margin(chosen - rejected).mean(), {name: of.mean().item() for name, of in measured.items()}

    return loss


def rating_loss(model, rated):
    """Squared error of the scores of (tokens, rating)."""
    found = scores(model, [(tokens, 0) for tokens, _ in rated])
    return ((found - torch.tensor([rating for _, rating in rated])) ** 2).mean(), {}


def preference_loss(model, pairs, margin, centring):
    """Bradley and Terry's, with margins, and with scores drawn to a mean of 0 in a pair."""
    chosen = scores(model, [(prompt + response, 0) for prompt, response, _, _ in pairs])
    rejected = scores(model, [(prompt + response, 0) for prompt, _, response, _ in pairs])
    margins = torch.tensor([own for *_, own in pairs]) + margin
    loss = -logsigmoid(chosen - rejected - margins).mean()
    return loss + centring * ((chosen + rejected) ** 2).mean(), {}
