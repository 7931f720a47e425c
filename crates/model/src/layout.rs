//! How the checkpoints of GPT-2 and GPT-NeoX hold the core's parameters: other names, queries, keys and values fused into one
//! projection, and in GPT-2 matrices that are transposed. The other families store what the core has.

use crate::checkpoint::Checkpoint;
use crate::config::Family;
use crate::weights::{self, Kind, OUTPUT_MATRIX};
use crate::{ModelError, TransformerConfig};

/// The names of a family's checkpoints.
struct Layout {
    /// What goes before all names but the output matrix's; files of a bare model leave it out.
    prefix: &'static str,
    /// The core's modules and the family's, where they differ. Queries, keys and values have the same one.
    modules: &'static [(&'static str, &'static str)],
    /// Whether projections are stored `[inputs, outputs]`.
    transposed: bool,
    /// Whether the rows of a fused matrix go head by head, each its query's, key's and value's; or all queries' first.
    by_head: bool,
}

/// What the other families have: the core's names and matrices.
const PLAIN: Layout = Layout { prefix: "", modules: &[], transposed: false, by_head: false };

const GPT2: Layout = Layout {
    prefix: "transformer.",
    modules: &[
        ("model.layers", "h"),
        ("model.embed_tokens", "wte"),
        ("model.embed_positions", "wpe"),
        ("model.norm", "ln_f"),
        ("input_layernorm", "ln_1"),
        ("post_attention_layernorm", "ln_2"),
        ("self_attn.q_proj", "attn.c_attn"),
        ("self_attn.k_proj", "attn.c_attn"),
        ("self_attn.v_proj", "attn.c_attn"),
        ("self_attn.o_proj", "attn.c_proj"),
        ("mlp.up_proj", "mlp.c_fc"),
        ("mlp.down_proj", "mlp.c_proj"),
    ],
    transposed: true,
    by_head: false,
};

const GPT_NEOX: Layout = Layout {
    prefix: "gpt_neox.",
    modules: &[
        ("model.layers", "layers"),
        ("model.embed_tokens", "embed_in"),
        ("model.norm", "final_layer_norm"),
        ("lm_head", "embed_out"),
        ("self_attn.q_proj", "attention.query_key_value"),
        ("self_attn.k_proj", "attention.query_key_value"),
        ("self_attn.v_proj", "attention.query_key_value"),
        ("self_attn.o_proj", "attention.dense"),
        ("mlp.up_proj", "mlp.dense_h_to_4h"),
        ("mlp.down_proj", "mlp.dense_4h_to_h"),
    ],
    transposed: false,
    by_head: true,
};

impl Layout {
    fn of(family: Family) -> Option<&'static Self> {
        match family {
            Family::Gpt2 => Some(&GPT2),
            Family::GptNeox => Some(&GPT_NEOX),
            _ => None,
        }
    }

    fn module<'a>(&self, core: &'a str) -> &'a str {
        self.modules.iter().find(|(name, _)| *name == core).map_or(core, |(_, own)| own)
    }

    /// The stored name of a parameter such as `model.layers.0.mlp.up_proj.weight`.
    fn name(&self, prefix: &str, core: &str) -> String {
        let (module, end) = core.rsplit_once('.').unwrap_or((core, ""));
        let layer = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        match layer {
            Some((layer, part)) => {
                let layers = self.module("model.layers");
                format!("{prefix}{layers}.{layer}.{}.{end}", self.module(part))
            }
            None if module.starts_with("model.") => {
                format!("{prefix}{}.{end}", self.module(module))
            }
            None => format!("{}.{end}", self.module(module)),
        }
    }

    /// Every stored tensor of a language model.
    fn tensors(&self, config: &TransformerConfig, prefix: &str) -> Vec<Stored> {
        let mut tensors: Vec<Stored> = Vec::new();
        for (core, kind) in weights::parameters(config) {
            let name = self.name(prefix, &core);
            // Queries, keys and values follow each other.
            match tensors.last_mut() {
                Some(fused) if fused.name == name => fused.core.push(core),
                _ => tensors.push(Stored {
                    transposed: self.transposed && core.contains("_proj."),
                    heads: if self.by_head { config.num_attention_heads } else { 1 },
                    core: vec![core],
                    name,
                    kind,
                }),
            }
        }
        tensors
    }
}

/// A tensor of a checkpoint, and the parameters of the core that it holds: one, or queries, keys and values.
pub(crate) struct Stored {
    name: String,
    pub(crate) core: Vec<String>,
    /// What each of the parameters is.
    kind: Kind,
    transposed: bool,
    /// Groups of rows in which a fused tensor has some of each parameter.
    heads: usize,
}

impl Stored {
    /// Rows and columns of each parameter; a vector has one column.
    fn size(&self) -> [usize; 2] {
        match self.kind {
            Kind::Matrix(shape) => shape,
            Kind::Norm(width) | Kind::Bias(width) => [width, 1],
        }
    }

    /// The shape of a tensor with so many rows.
    fn shape(&self, rows: usize, transposed: bool) -> Vec<usize> {
        match self.kind {
            Kind::Matrix([_, columns]) if transposed => vec![columns, rows],
            Kind::Matrix([_, columns]) => vec![rows, columns],
            Kind::Norm(_) | Kind::Bias(_) => vec![rows],
        }
    }

    /// The module that a weight belongs to.
    pub(crate) fn module(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(&self.name)
    }

    /// Inputs and outputs of a matrix; those of a fused one are its parts' together.
    pub(crate) fn inputs_and_outputs(&self) -> [usize; 2] {
        let [rows, columns] = self.size();
        [columns, rows * self.core.len()]
    }

    /// The rows of a matrix with one row an output, of `columns` numbers each, as the core has them: all of one parameter together.
    pub(crate) fn rows_to_core(&self, values: &[f32], columns: usize) -> Vec<f32> {
        split_rows(values, self.core.len(), self.group(self.size()[0]) * columns).concat()
    }

    /// The opposite of [`Stored::rows_to_core`].
    pub(crate) fn rows_from_core(&self, values: &[f32], columns: usize) -> Vec<f32> {
        let rows = self.size()[0];
        let parts: Vec<Vec<f32>> = values.chunks(rows * columns).map(<[f32]>::to_vec).collect();
        fuse_rows(&parts, self.group(rows) * columns)
    }

    /// Moves the tensor to the core's names.
    fn unpack(&self, checkpoint: &mut Checkpoint) -> Result<(), ModelError> {
        let [rows, columns] = self.size();
        let stored_rows = rows * self.core.len();
        let mut values =
            checkpoint.remove(&self.name, &self.shape(stored_rows, self.transposed))?;
        if self.transposed {
            values = transpose(&values, stored_rows);
        }
        if let [core] = self.core.as_slice() {
            checkpoint.insert(core.clone(), self.shape(rows, false), values);
            return Ok(());
        }
        let parts = split_rows(&values, self.core.len(), self.group(rows) * columns);
        for (core, part) in self.core.iter().zip(parts) {
            checkpoint.insert(core.clone(), self.shape(rows, false), part);
        }
        Ok(())
    }

    /// Moves the core's parameters to the tensor's name.
    fn pack(&self, checkpoint: &mut Checkpoint) -> Result<(), ModelError> {
        let [rows, columns] = self.size();
        let shape = self.shape(rows, false);
        let parts = self
            .core
            .iter()
            .map(|core| checkpoint.remove(core, &shape))
            .collect::<Result<Vec<_>, _>>()?;
        let mut values = fuse_rows(&parts, self.group(rows) * columns);
        if self.transposed {
            values = transpose(&values, columns);
        }
        let shape = self.shape(rows * self.core.len(), self.transposed);
        checkpoint.insert(self.name.clone(), shape, values);
        Ok(())
    }

    /// Rows of one parameter that stand together.
    fn group(&self, rows: usize) -> usize {
        if self.core.len() > 1 { rows / self.heads } else { rows }
    }
}

/// The weights of the projections of all blocks, and the output matrix where the embedding's is not used.
pub(crate) fn projections(config: &TransformerConfig) -> Vec<Stored> {
    let layout = Layout::of(config.family).unwrap_or(&PLAIN);
    let mut tensors = layout.tensors(config, layout.prefix);
    tensors.retain(|tensor| {
        tensor.core[0].ends_with("_proj.weight") || tensor.core[0] == OUTPUT_MATRIX
    });
    tensors
}

/// What the family calls a tensor of the core.
pub(crate) fn stored_name(config: &TransformerConfig, core: &str) -> String {
    let layout = Layout::of(config.family).unwrap_or(&PLAIN);
    layout.name(layout.prefix, core)
}

/// Turns a checkpoint with a family's names into one with the core's; tensors that the core does not know are left alone.
///
/// # Errors
/// [`ModelError::MissingTensor`] and [`ModelError::Shape`], with the stored tensor's name.
pub(crate) fn from_stored(
    mut checkpoint: Checkpoint,
    config: &TransformerConfig,
) -> Result<Checkpoint, ModelError> {
    let Some(layout) = Layout::of(config.family) else { return Ok(checkpoint) };
    let bare = checkpoint.contains(&layout.name("", "model.embed_tokens.weight"));
    let prefix = if bare { "" } else { layout.prefix };
    for tensor in layout.tensors(config, prefix) {
        if !(config.classifies() && tensor.core[0] == OUTPUT_MATRIX) {
            tensor.unpack(&mut checkpoint)?;
        }
    }
    let layers = format!("{prefix}{}.", layout.module("model.layers"));
    let output = layout.name(prefix, OUTPUT_MATRIX);
    if let Some(name) = checkpoint.names().find(|name| name.starts_with(&layers)) {
        let (path, name) = (checkpoint.path().into(), name.to_owned());
        return Err(ModelError::SurplusTensor { path, name });
    }
    // Of a model whose output matrix is the embedding, a file may hold it all the same.
    Ok(checkpoint.renamed(|name| if name == output { OUTPUT_MATRIX } else { name }.to_owned()))
}

/// The opposite of [`from_stored`].
///
/// # Errors
/// None for the checkpoint of a model with that configuration.
pub(crate) fn to_stored(
    mut checkpoint: Checkpoint,
    config: &TransformerConfig,
) -> Result<Checkpoint, ModelError> {
    let Some(layout) = Layout::of(config.family) else { return Ok(checkpoint) };
    for tensor in layout.tensors(config, layout.prefix) {
        if checkpoint.contains(&tensor.core[0]) {
            tensor.pack(&mut checkpoint)?;
        }
    }
    Ok(checkpoint)
}

/// Deals out runs of `length` numbers to `parts` parts in turn.
fn split_rows(values: &[f32], parts: usize, length: usize) -> Vec<Vec<f32>> {
    let deal = |part| values.chunks(length).skip(part).step_by(parts).flatten().copied().collect();
    (0..parts).map(deal).collect()
}

/// The opposite of [`split_rows`].
fn fuse_rows(parts: &[Vec<f32>], length: usize) -> Vec<f32> {
    let turns = parts.first().map_or(0, |part| part.len() / length);
    let turn = |turn: usize| parts.iter().flat_map(move |p| &p[turn * length..][..length]);
    (0..turns).flat_map(turn).copied().collect()
}

/// `[rows, columns]` → `[columns, rows]`.
pub(crate) fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_rows_come_apart_and_together() {
        let fused: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let blocks = split_rows(&fused, 3, 4);
        assert_eq!(blocks[1], [4.0, 5.0, 6.0, 7.0]);
        let by_head = split_rows(&fused, 3, 2);
        assert_eq!(by_head[1], [2.0, 3.0, 8.0, 9.0]);
        assert_eq!(fuse_rows(&blocks, 4), fused);
        assert_eq!(fuse_rows(&by_head, 2), fused);
        assert_eq!(transpose(&transpose(&fused, 4), 3), fused);
        assert_eq!(transpose(&fused, 4)[..4], [0.0, 4.0, 8.0, 1.0]);
    }
}
