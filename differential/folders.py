"""Random folders of models: a drawn `config.json`, tiny random weights and a tokenizer of words.

What is drawn is legal, and in the forms that files of the last years have: keys of before and since
transformers 5, some missing, and weights stored in several ways.
"""

import random

import common

import torch
import transformers as hf
from safetensors.torch import load_file, save_file

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
}
FORMS = ("f32", "bf16", "f16", "sharded", "bare", "tied head", "buffers", "stale index", "extra tensor")


class Draw:
    """Draws the keys of a configuration."""

    def __init__(self, seed, family):
        self.random = random.Random(seed)
        self.family = family
        self.config = {"architectures": [ARCHITECTURES[family]], "model_type": family}

    def of(self, *values):
        return self.random.choice(values)

    def happens(self, chance):
        return self.random.random() < chance

    def maybe(self, chance, key, *values):
        """Sets a key, with this probability, to one of the values."""
        if self.happens(chance):
            self.config[key] = self.of(*values)

    def sequence(self, length, n_tokens):
        return [self.random.randrange(n_tokens) for _ in range(length)]


def tokens(draw):
    """Vocabulary, special tokens and what does not change numbers; how many tokens the tokenizer has."""
    n_tokens = draw.of(16, 24, 40)
    draw.config["vocab_size"] = n_tokens + draw.of(0, 0, 8, 24)  # some are padded
    draw.maybe(0.7, "bos_token_id", 1, 0, None)
    draw.config["eos_token_id"] = draw.of(2, 2, [2], [2, 3], None)
    draw.maybe(0.5, "pad_token_id", 0, n_tokens - 1, None)
    draw.maybe(0.5, "use_cache", True, False)
    draw.maybe(0.5, "initializer_range", 0.02, 0.5)
    draw.maybe(0.5, "torch_dtype", "float32", "bfloat16", "float16", None)
    draw.maybe(0.3, "dtype", "float32", "bfloat16")
    draw.maybe(0.5, "tie_word_embeddings", True, False)
    return n_tokens


def scaling(draw):
    """How rotations are scaled, in either spelling of its kind; none where they are not."""
    kind = draw.of(*["default"] * 9, *["linear"] * 4, *["llama3"] * 6, "dynamic", "yarn")
    if kind == "default":
        return draw.of(None, {}, {"rope_type": "default"})
    spelling = draw.of("rope_type", "rope_type", "type")
    if draw.family == "gemma3_text":
        spelling = "rope_type"  # it is younger than the other, which transformers does not read in it
    rope = {spelling: kind, "factor": draw.of(1.5, 2, 8.0)}
    if kind == "llama3":
        rope |= dict(low_freq_factor=draw.of(1, 0.5), high_freq_factor=draw.of(4.0, 2))
        rope |= dict(original_max_position_embeddings=draw.of(16, 32))
    return rope


def rotations(draw):
    """Old keys (rope_theta, rope_scaling), new ones (rope_parameters), both, or none."""
    form = draw.of("old", "old", "new", "new", "both", "none")
    theta = draw.of(10.0, 100.0, 10000, 500000.0, 1e6)
    neox = draw.family == "gpt_neox"
    share = draw.of(0.25, 0.5, 1.0, 1)
    if form in ("old", "both"):
        draw.maybe(0.8, "rotary_emb_base" if neox else "rope_theta", theta)
        if neox:
            draw.maybe(0.8, "rotary_pct", share)
        if draw.family == "gemma3_text":
            draw.maybe(0.6, "rope_local_base_freq", 20.0, 1e4)
        if draw.happens(0.6):
            draw.config["rope_scaling"] = scaling(draw) or None
            if draw.config["rope_scaling"] and draw.happens(0.1):
                draw.config["rope_scaling"]["rope_theta"] = theta
    if form in ("new", "both"):
        draw.config["rope_parameters"] = rope = {"rope_type": "default"} | (scaling(draw) or {})
        if "type" in rope:
            rope["rope_type"] = rope.pop("type")
        rope["rope_theta"] = draw.of(theta, theta, 55.0)
        if neox:
            rope["partial_rotary_factor"] = share
        if draw.family == "gemma3_text":
            local = {"rope_type": "default", "rope_theta": draw.of(10.0, 50.0)}
            draw.config["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}


def decoder(draw):
    """What all families but GPT-2 have in common; the number of heads."""
    heads = draw.of(2, 4, 6)
    draw.config |= dict(num_attention_heads=heads, hidden_size=heads * draw.of(4, 8))
    draw.config |= dict(intermediate_size=draw.of(12, 40), num_hidden_layers=draw.of(1, 2, 3, 4, 7))
    draw.config |= dict(max_position_embeddings=draw.of(32, 64, 128, 256))
    draw.maybe(0.3, "attention_dropout", 0.0, 0.1)
    rotations(draw)
    return heads


def windows(draw):
    """Sliding windows, and which layers have them."""
    layers = draw.config["num_hidden_layers"]
    draw.maybe(0.8, "sliding_window", 3, 5, 8, 16)
    kinds = ["sliding_attention", "full_attention"]
    if draw.family in ("mistral", "qwen2", "qwen3"):
        draw.maybe(0.2, "sliding_window", None)
    if draw.family in ("qwen2", "qwen3"):
        draw.maybe(0.7, "use_sliding_window", True, True, False)
        draw.maybe(0.7, "max_window_layers", 0, 1, 2, layers, 28)
        used = draw.config.get("use_sliding_window") and draw.config.get("sliding_window")
        kinds = kinds if used else kinds[1:]
    if draw.family == "gemma3_text":
        draw.maybe(0.5, "sliding_window_pattern", 1, 2, 3, 6)
    if draw.family != "mistral" and draw.happens(0.3):
        draw.config["layer_types"] = [draw.of(*kinds) for _ in range(layers)]


def llama_like(draw):
    """Llama, Mistral, Qwen and Gemma."""
    heads = decoder(draw)
    shared = [n for n in range(1, heads + 1) if heads % n == 0]
    if draw.family != "llama" or draw.happens(0.7):
        draw.config["num_key_value_heads"] = draw.of(*shared)
    head_dim = draw.of(4, 6, 8, 12)
    if draw.family in ("qwen3", "gemma2", "gemma3_text") or draw.happens(0.3):
        draw.config["head_dim"] = head_dim
    draw.maybe(0.5, "rms_norm_eps", 1e-6, 1e-5, 1e-3, 0.1)
    draw.maybe(0.3, "attention_bias", True, False)
    if draw.family == "llama":
        draw.maybe(0.3, "mlp_bias", True, False)
        draw.maybe(0.2, "pretraining_tp", 1, 2)
    if draw.family != "llama" or draw.happens(0.1):
        windows(draw)
    if draw.family.startswith("gemma"):
        draw.maybe(0.5, "hidden_activation", "gelu_pytorch_tanh")
        draw.maybe(0.3, "hidden_act", "gelu_pytorch_tanh", "gelu")
        draw.maybe(0.6, "query_pre_attn_scalar", head_dim, 16, 3)
        draw.maybe(0.5, "attn_logit_softcapping", None, 2.0, 50.0)
        draw.maybe(0.5, "final_logit_softcapping", None, 3.0, 30.0)
        draw.maybe(0.1, "use_bidirectional_attention", False, None)
    else:
        draw.maybe(0.4, "hidden_act", *["silu"] * 9, "gelu")


def gpt_neox(draw):
    draw.config["hidden_size"] = decoder(draw) * draw.of(8, 16)
    draw.maybe(0.5, "use_parallel_residual", True, False)
    draw.maybe(0.5, "attention_bias", True, False)
    draw.maybe(0.5, "hidden_act", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
    draw.maybe(0.5, "layer_norm_eps", 1e-5, 1e-3, 0.1)
    draw.maybe(0.3, "hidden_dropout", 0.1)


def gpt2(draw):
    heads = draw.of(2, 4, 6)
    draw.config |= dict(n_head=heads, n_embd=heads * draw.of(2, 4, 8), n_layer=draw.of(1, 2, 3, 4, 7))
    draw.maybe(0.9, "n_positions", 32, 64, 128, 256)
    draw.maybe(0.4, "n_ctx", draw.config.get("n_positions", 1024))
    draw.maybe(0.5, "n_inner", None, 20, 4 * draw.config["n_embd"])
    draw.maybe(0.6, "activation_function", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu")
    draw.maybe(0.5, "layer_norm_epsilon", 1e-5, 1e-3, 0.1)
    draw.maybe(0.1, "scale_attn_weights", True, False)
    draw.maybe(0.1, "scale_attn_by_inverse_layer_idx", True, False)
    draw.maybe(0.1, "reorder_and_upcast_attn", True, False)


def store(draw, model, folder, form):
    """Writes the weights in one of the forms that occur; `config.json` stays as it was drawn."""
    model.to({"bf16": torch.bfloat16, "f16": torch.float16}.get(form, torch.float32))
    # As the file of GPT-2 itself.
    bare = form == "bare" and draw.family == "gpt2" and model.config.tie_word_embeddings
    saved = folder / "saved"
    size = {"max_shard_size": "8KB"} if form == "sharded" else {}
    (model.base_model if bare else model).save_pretrained(saved, **size)
    for file in saved.glob("model*"):
        file.rename(folder / file.name)
    for file in saved.iterdir():
        file.unlink()
    saved.rmdir()
    weights = folder / "model.safetensors"
    if form == "stale index":
        index = {name: "model-00001-of-00002.safetensors" for name in load_file(weights)}
        index = {"metadata": {"total_size": 1}, "weight_map": index}
        common.write_json(folder / "model.safetensors.index.json", index)
    elif form in ("tied head", "buffers", "extra tensor"):
        save_file(load_file(weights) | additions(draw, model, form), weights, {"format": "pt"})


def additions(draw, model, form):
    """Tensors beside those that are needed."""
    if form == "extra tensor":
        return {"score.weight": torch.randn(1, model.config.hidden_size)}
    if form == "tied head":
        name = {"gpt_neox": "embed_out.weight"}.get(draw.family, "lm_head.weight")
        tied = model.config.tie_word_embeddings
        return {name: model.get_input_embeddings().weight.detach().clone()} if tied else {}
    layers = range(model.config.num_hidden_layers)
    mask = {"bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "masked_bias": torch.tensor(-1e4)}
    frequencies = {"rotary_emb.inv_freq": torch.ones(3)}
    prefix, buffers = {
        "gpt2": ("transformer.h.{}.attn.", mask),
        "gpt_neox": ("gpt_neox.layers.{}.attention.", mask | frequencies),
    }.get(draw.family, ("model.layers.{}.self_attn.", frequencies))
    return {prefix.format(layer) + name: t.clone() for layer in layers for name, t in buffers.items()}


def write_folder(draw, folder, seed, form):
    """Draws a configuration and writes the folder; the model that transformers reads from it."""
    n_tokens = tokens(draw)
    {"gpt2": gpt2, "gpt_neox": gpt_neox}.get(draw.family, llama_like)(draw)
    common.write_json(folder / "config.json", draw.config)
    common.write_word_tokenizer(folder, n_tokens)
    ends = draw.config["eos_token_id"]
    if ends is not None and draw.happens(0.4):
        ends = draw.of(ends, [2, 3, 4])  # those of the configuration, or more
        how = {"eos_token_id": ends, "do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 5}
        common.write_json(folder / "generation_config.json", how)
    config = hf.AutoConfig.from_pretrained(folder)
    made = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    store(draw, common.randomise(made, draw.of(0.15, 0.3), seed), folder, form)
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), n_tokens
