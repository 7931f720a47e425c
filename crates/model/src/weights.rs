//! The weights of the decoder core under Llama's names: which there are, and how a network gives them out. `builder.rs` takes
//! them in; where a family's files have other names, `layout.rs` translates.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::TransformerConfig;
use crate::checkpoint::Checkpoint;
use crate::config::Family;
use crate::norm::Norm;
use crate::projection::Projection;
use crate::transformer::{Block, Transformer};

/// What a stored tensor is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `[outputs, inputs]`, as checkpoints store it.
    Matrix([usize; 2]),
    /// The weight of a norm.
    Norm(usize),
    /// A bias, of a projection or a norm.
    Bias(usize),
}

/// Names of a block's norms: before attention, after it, before the feed-forward layer, after it.
pub(crate) fn norm_names(family: Family) -> [Option<&'static str>; 4] {
    if family.is_gemma() {
        let after = Some("post_feedforward_layernorm");
        [
            Some("input_layernorm"),
            Some("post_attention_layernorm"),
            Some("pre_feedforward_layernorm"),
            after,
        ]
    } else {
        [Some("input_layernorm"), None, Some("post_attention_layernorm"), None]
    }
}

/// A projection of a block: name, inputs, outputs, and whether there is a bias.
pub(crate) type ProjectionKind = (&'static str, usize, usize, bool);

const GATE: &str = "mlp.gate_proj";

/// Names of the weights that are no block's.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const OUTPUT_MATRIX: &str = "lm_head.weight";

/// The projections of a block, with a gate in every family.
pub(crate) fn projection_kinds(config: &TransformerConfig) -> [ProjectionKind; 7] {
    let (hidden, inner, width) =
        (config.hidden_size, config.intermediate_size, config.head_width());
    let (queries, keys) = (config.num_attention_heads * width, config.kv_heads() * width);
    let (biased, biased_output) = config.attention_biases();
    let mlp = config.feed_forward_biases();
    [
        ("self_attn.q_proj", hidden, queries, biased),
        ("self_attn.k_proj", hidden, keys, biased),
        ("self_attn.v_proj", hidden, keys, biased),
        ("self_attn.o_proj", queries, hidden, biased_output),
        (GATE, hidden, inner, mlp),
        ("mlp.up_proj", hidden, inner, mlp),
        ("mlp.down_proj", inner, hidden, mlp),
    ]
}

/// Every tensor of a language model, in the order in which random weights are drawn: matrices first.
pub(crate) fn parameters(config: &TransformerConfig) -> Vec<(String, Kind)> {
    let hidden = config.hidden_size;
    let embedding = Kind::Matrix([config.vocab_size, hidden]);
    let mut matrices = vec![(EMBEDDING.to_owned(), embedding)];
    if config.learns_positions() {
        let positions = Kind::Matrix([config.max_position_embeddings, hidden]);
        matrices.push(("model.embed_positions.weight".to_owned(), positions));
    }
    let mut vectors = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str, end: &str| format!("model.layers.{layer}.{part}.{end}");
        let gated = !config.family.is_gpt();
        let kinds = projection_kinds(config).into_iter();
        for (part, inputs, outputs, biased) in kinds.filter(|kind| gated || kind.0 != GATE) {
            matrices.push((name(part, "weight"), Kind::Matrix([outputs, inputs])));
            vectors.extend(biased.then(|| (name(part, "bias"), Kind::Bias(outputs))));
        }
        for part in norm_names(config.family).into_iter().flatten() {
            vectors.extend(norm_kinds(config.family, &name(part, ""), hidden));
        }
        if config.family.normalises_queries_and_keys() {
            let norms = ["self_attn.q_norm", "self_attn.k_norm"];
            vectors
                .extend(norms.map(|part| (name(part, "weight"), Kind::Norm(config.head_width()))));
        }
    }
    if !config.tie_word_embeddings {
        matrices.push((OUTPUT_MATRIX.to_owned(), embedding));
    }
    vectors.extend(norm_kinds(config.family, "model.norm.", hidden));
    matrices.extend(vectors);
    matrices
}

/// The tensors of a norm of the stream, whose name is given with its last dot.
fn norm_kinds(
    family: Family,
    name: &str,
    width: usize,
) -> impl Iterator<Item = (String, Kind)> + use<> {
    let weight = (format!("{name}weight"), Kind::Norm(width));
    let bias = family.is_gpt().then(|| (format!("{name}bias"), Kind::Bias(width)));
    std::iter::once(weight).chain(bias)
}

/// The weights of a network under their names, without autodiff.
pub(crate) fn checkpoint(net: &Transformer, config: &TransformerConfig) -> Checkpoint {
    let mut checkpoint = Checkpoint::empty();
    let net = net.valid();
    checkpoint.put(EMBEDDING, net.embed_tokens.val());
    if let Some(table) = &net.embed_positions {
        checkpoint.put("model.embed_positions.weight", table.val());
    }
    for (layer, block) in net.layers.iter().enumerate() {
        put_block(&mut checkpoint, &format!("model.layers.{layer}"), block, config);
    }
    put_norm(&mut checkpoint, "model.norm", &net.norm);
    if let Some(head) = &net.lm_head {
        put_projection(&mut checkpoint, "lm_head", head);
    }
    checkpoint
}

/// The projection whose weight has the given name, if the network has it.
pub(crate) fn projection_mut<'a>(
    net: &'a mut Transformer,
    name: &str,
) -> Option<&'a mut Projection> {
    if name == OUTPUT_MATRIX {
        return net.lm_head.as_mut();
    }
    let (layer, part) = block_part(name)?;
    let Block { self_attn, mlp, .. } = net.layers.get_mut(layer)?;
    match part {
        "self_attn.q_proj.weight" => Some(&mut self_attn.q_proj),
        "self_attn.k_proj.weight" => Some(&mut self_attn.k_proj),
        "self_attn.v_proj.weight" => Some(&mut self_attn.v_proj),
        "self_attn.o_proj.weight" => Some(&mut self_attn.o_proj),
        "mlp.gate_proj.weight" => mlp.gate_proj.as_mut(),
        "mlp.up_proj.weight" => Some(&mut mlp.up_proj),
        "mlp.down_proj.weight" => Some(&mut mlp.down_proj),
        _ => None,
    }
}

/// The block that a tensor belongs to, and its name there.
pub(crate) fn block_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

fn put_block(checkpoint: &mut Checkpoint, name: &str, block: &Block, config: &TransformerConfig) {
    let Block { self_attn, mlp, .. } = block;
    let projections = [
        Some(&self_attn.q_proj),
        Some(&self_attn.k_proj),
        Some(&self_attn.v_proj),
        Some(&self_attn.o_proj),
        mlp.gate_proj.as_ref(),
        Some(&mlp.up_proj),
        Some(&mlp.down_proj),
    ];
    for ((part, ..), projection) in projection_kinds(config).into_iter().zip(projections) {
        if let Some(projection) = projection {
            put_projection(checkpoint, &format!("{name}.{part}"), projection);
        }
    }
    let [before, after, feed, fed] = norm_names(config.family);
    for (part, norm) in [
        (before, Some(&block.attention_in)),
        (after, block.attention_out.as_ref()),
        (feed, Some(&block.feedforward_in)),
        (fed, block.feedforward_out.as_ref()),
        (Some("self_attn.q_norm"), self_attn.q_norm.as_ref()),
        (Some("self_attn.k_norm"), self_attn.k_norm.as_ref()),
    ] {
        if let (Some(part), Some(norm)) = (part, norm) {
            put_norm(checkpoint, &format!("{name}.{part}"), norm);
        }
    }
}

fn put_projection(checkpoint: &mut Checkpoint, name: &str, projection: &Projection) {
    checkpoint.put(format!("{name}.weight"), projection.weight.val().transpose());
    put_bias(checkpoint, name, &projection.bias);
}

fn put_norm(checkpoint: &mut Checkpoint, name: &str, norm: &Norm) {
    checkpoint.put(format!("{name}.weight"), norm.weight.val());
    put_bias(checkpoint, name, &norm.bias);
}

fn put_bias(checkpoint: &mut Checkpoint, name: &str, bias: &Option<Param<Tensor<1>>>) {
    if let Some(bias) = bias {
        checkpoint.put(format!("{name}.bias"), bias.val());
    }
}
