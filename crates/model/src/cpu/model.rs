//! The forward pass over rows of tokens.

use pulp::Arch;

use super::attention::{Attend, Heads};
use super::layers::{Feed, Linear, Scaling, add};
use super::matrix::Matrix;
use super::row::Row;
use crate::rope::Rope;
use crate::tensors::numbers;
use crate::transformer::Block;
use crate::{CausalLm, TransformerConfig};
use infalign_backend::functions::{cap, softmax_weights};

/// Rows of hidden states that are put through the output matrix together.
const OUTPUT_ROWS: usize = 64;

/// A causal language model for inference on the CPU: the weights of a [`CausalLm`], packed for multiplication.
///
/// The numbers of a sequence are the same bits whatever else is computed with it.
#[derive(Debug)]
pub struct CpuModel {
    pub(super) config: TransformerConfig,
    embedding: Embedding,
    blocks: Vec<Layer>,
    norm: Scaling,
    head: Option<Linear>,
    logit_cap: Option<f32>,
    /// Whether its sessions leave the logits out.
    pub(crate) states_only: bool,
}

#[derive(Debug)]
struct Embedding {
    /// `[hidden, vocabulary]`: the columns are the embeddings, and the whole is the output matrix where there is no other.
    tokens: Matrix,
    scale: f32,
    /// Learned positions `[max_position_embeddings, hidden]`.
    positions: Option<Vec<f32>>,
}

#[derive(Debug)]
struct Layer {
    attention_in: Scaling,
    attention: Mixer,
    attention_out: Option<Scaling>,
    feedforward_in: Scaling,
    feed: Feed,
    feedforward_out: Option<Scaling>,
    parallel: bool,
}

#[derive(Debug)]
struct Mixer {
    /// Queries, keys and values, one beside the other.
    inner: Linear,
    outer: Linear,
    q_norm: Option<Scaling>,
    k_norm: Option<Scaling>,
    rotation: Option<std::sync::Arc<Angles>>,
    heads: Heads,
}

/// Cosines and sines of every position, `[positions, half]`.
#[derive(Debug)]
struct Angles {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// A token to be read: the index of its row, and its position in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) id: u32,
    pub(super) row: usize,
    pub(super) position: usize,
    /// Its place among the tokens of its row that are read together.
    pub(super) ahead: usize,
}

/// What a pass writes into, kept from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    normed: Vec<f32>,
    wide: Vec<f32>,
    queries: Vec<f32>,
    out: Vec<f32>,
    scores: Vec<f32>,
}

impl CpuModel {
    /// Packs the weights of a model; those that nothing else holds are freed on the way.
    pub fn new(model: CausalLm) -> Self {
        let (net, config) = (model.net, model.config);
        let angles = |rope: &Rope| std::sync::Arc::new(Angles::new(rope));
        let full = model.rope.as_ref().map(angles);
        let local = model.local_rope.as_ref().map(angles).or_else(|| full.clone());
        let layer = |(number, block): (usize, Block)| {
            let window = config.window(number);
            let rotation = if window.is_some() { &local } else { &full };
            Layer::new(block, window, rotation.clone())
        };
        Self {
            embedding: Embedding {
                tokens: Matrix::pack_transposed(net.embed_tokens.into_value()),
                scale: net.embedding_scale as f32,
                positions: net.embed_positions.map(|table| numbers(table.into_value())),
            },
            blocks: net.layers.into_iter().enumerate().map(layer).collect(),
            norm: Scaling::new(net.norm),
            head: net.lm_head.map(|head| Linear::new(vec![head], None)),
            logit_cap: net.logit_cap.map(|cap| cap as f32),
            states_only: false,
            config,
        }
    }

    /// kv_heads * head_width.
    pub(super) fn key_width(&self) -> usize {
        self.config.kv_heads() * self.config.head_width()
    }

    pub(super) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Reads tokens, whose rows have room for them, and writes their hidden states `[tokens, hidden]`, normalised.
    pub(super) fn hidden(
        &self,
        rows: &mut [Row],
        tokens: &[Token],
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let mut x = self.embedding.forward(tokens, self.config.hidden_size);
        for (number, layer) in self.blocks.iter().enumerate() {
            layer.forward(number, &mut x, rows, tokens, scratch);
        }
        self.norm.forward(&mut x);
        x
    }

    /// Logits `[rows, vocabulary]` of hidden states `[rows, hidden]`.
    pub(super) fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let mut logits = Vec::new();
        match &self.head {
            Some(head) => head.forward(hidden, &mut logits),
            None => {
                let rows = hidden.len() / self.config.hidden_size;
                logits.resize(rows * self.config.vocab_size, 0.0);
                self.embedding.tokens.multiply(hidden, &mut logits);
            }
        }
        cap(&mut logits, self.logit_cap);
        logits
    }

    /// log π of the tokens `targets`, each given the hidden state that predicts it, in nats.
    pub(super) fn log_probs(&self, hidden: &[f32], targets: &[u32]) -> Vec<f32> {
        let pieces = hidden.chunks(OUTPUT_ROWS * self.config.hidden_size);
        let mut weights = Vec::new();
        let score = |(hidden, targets): (&[f32], &[u32])| {
            let logits = self.logits(hidden);
            let rows = logits.chunks(self.config.vocab_size).zip(targets);
            let log_prob = |(logits, token): (&[f32], &u32)| {
                softmax_weights(logits, 1.0, &mut weights).log_prob(logits[*token as usize])
            };
            rows.map(log_prob).collect::<Vec<f32>>()
        };
        pieces.zip(targets.chunks(OUTPUT_ROWS)).flat_map(score).collect()
    }
}

impl Embedding {
    fn forward(&self, tokens: &[Token], hidden: usize) -> Vec<f32> {
        let mut x = vec![0.0; tokens.len() * hidden];
        for (row, token) in x.chunks_mut(hidden).zip(tokens) {
            self.tokens.column(token.id as usize, row);
            row.iter_mut().for_each(|x| *x *= self.scale);
            if let Some(table) = &self.positions {
                add(row, &table[token.position * hidden..(token.position + 1) * hidden]);
            }
        }
        x
    }
}

impl Layer {
    fn new(block: Block, window: Option<usize>, rotation: Option<std::sync::Arc<Angles>>) -> Self {
        let attention = block.self_attn;
        let width = attention.head_width;
        let heads = Heads {
            heads: attention.q_proj.weight.dims()[1] / width,
            kv_heads: attention.kv_heads,
            width,
            scale: attention.scale as f32,
            score_cap: attention.score_cap.map(|cap| cap as f32),
            window,
        };
        let inner = vec![attention.q_proj, attention.k_proj, attention.v_proj];
        Self {
            attention_in: Scaling::new(block.attention_in),
            attention: Mixer {
                inner: Linear::new(inner, attention.fused_adapter),
                outer: Linear::new(vec![attention.o_proj], None),
                q_norm: attention.q_norm.map(Scaling::new),
                k_norm: attention.k_norm.map(Scaling::new),
                rotation,
                heads,
            },
            attention_out: block.attention_out.map(Scaling::new),
            feedforward_in: Scaling::new(block.feedforward_in),
            feed: Feed::new(block.mlp),
            feedforward_out: block.feedforward_out.map(Scaling::new),
            parallel: block.parallel,
        }
    }

    fn forward(
        &self,
        number: usize,
        x: &mut [f32],
        rows: &mut [Row],
        tokens: &[Token],
        scratch: &mut Scratch,
    ) {
        let normed = |norm: &Scaling, x: &[f32], into: &mut Vec<f32>| {
            into.clear();
            into.extend_from_slice(x);
            norm.forward(into);
        };
        normed(&self.attention_in, x, &mut scratch.normed);
        self.attention.forward(number, rows, tokens, scratch);
        if self.parallel {
            normed(&self.feedforward_in, x, &mut scratch.normed);
        }
        if let Some(norm) = &self.attention_out {
            norm.forward(&mut scratch.out);
        }
        add(x, &scratch.out);
        if !self.parallel {
            normed(&self.feedforward_in, x, &mut scratch.normed);
        }
        self.feed.forward(&scratch.normed, &mut scratch.wide, &mut scratch.out);
        if let Some(norm) = &self.feedforward_out {
            norm.forward(&mut scratch.out);
        }
        add(x, &scratch.out);
    }
}

impl Mixer {
    /// From `scratch.normed` to `scratch.out`, both `[tokens, hidden]`.
    fn forward(&self, number: usize, rows: &mut [Row], tokens: &[Token], scratch: &mut Scratch) {
        let Scratch { normed, wide, queries, out, scores } = scratch;
        self.inner.forward(normed, wide);
        let key_width = self.heads.kv_heads * self.heads.width;
        let query_width = self.heads.heads * self.heads.width;
        for (columns, token) in wide.chunks_mut(query_width + 2 * key_width).zip(tokens) {
            let (query, rest) = columns.split_at_mut(query_width);
            let (key, value) = rest.split_at_mut(key_width);
            self.place(query, &self.q_norm, token.position);
            self.place(key, &self.k_norm, token.position);
            rows[token.row].put(number, token.ahead, key, value);
        }
        queries.clear();
        for (columns, token) in wide.chunks(query_width + 2 * key_width).zip(tokens) {
            let start = queries.len();
            queries.extend_from_slice(&columns[..query_width]);
            let (row, position) = (&rows[token.row], token.position);
            let queries = &mut queries[start..];
            Arch::new().dispatch(Attend {
                heads: &self.heads,
                row,
                layer: number,
                position,
                queries,
                scores,
            });
        }
        self.outer.forward(queries, out);
    }

    /// Normalises and rotates the heads of one token.
    fn place(&self, heads: &mut [f32], norm: &Option<Scaling>, position: usize) {
        if let Some(norm) = norm {
            norm.forward(heads);
        }
        if let Some(angles) = &self.rotation {
            heads.chunks_mut(self.heads.width).for_each(|head| angles.rotate(head, position));
        }
    }
}

impl Angles {
    fn new(rope: &Rope) -> Self {
        let [cos, sin] = rope.tables();
        let half = cos.dims()[1];
        Self { half, cos: numbers(cos), sin: numbers(sin) }
    }

    fn rotate(&self, head: &mut [f32], position: usize) {
        let place = position * self.half..(position + 1) * self.half;
        let (first, second) = head[..2 * self.half].split_at_mut(self.half);
        let turns = self.cos[place.clone()].iter().zip(&self.sin[place]);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(turns) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
