//! The key-value cache: preallocated once for the longest sequence of a batch.

use burn::tensor::{Device, Int, Tensor};

use crate::TransformerConfig;

/// Keys and values of every layer for a batch of sequences that grow by the same columns.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Per layer, keys and values: `[batch, kv_heads, capacity, head_width]`.
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    /// Columns filled so far.
    length: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for `batch` sequences of at most `capacity` tokens.
    pub fn new(config: &TransformerConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let zeros =
            || Tensor::zeros([batch, config.kv_heads(), capacity, config.head_width()], device);
        let layers = (0..config.num_hidden_layers).map(|_| Some((zeros(), zeros()))).collect();
        Self { layers, length: 0, capacity }
    }

    /// Columns filled so far.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Columns that the cache can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes the keys and values of new columns into `layer` and returns all of the layer's columns.
    ///
    /// The tensors are taken out while they are written, so that the write happens in place.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let Some((mut all_keys, mut all_values)) = self.layers[layer].take() else {
            return (keys, values);
        };
        let [batch, heads, time, width] = keys.dims();
        let new = [0..batch, 0..heads, self.length..self.length + time, 0..width];
        all_keys = all_keys.slice_assign(new.clone(), keys);
        all_values = all_values.slice_assign(new, values);
        let filled = [0..batch, 0..heads, 0..self.length + time, 0..width];
        let columns = (all_keys.clone().slice(filled.clone()), all_values.clone().slice(filled));
        self.layers[layer] = Some((all_keys, all_values));
        columns
    }

    /// Counts `time` columns as filled, once every layer has appended them.
    pub(crate) fn advance(&mut self, time: usize) {
        self.length += time;
    }

    /// Keeps the given rows, in the given order; a row may be repeated.
    pub(crate) fn select(&mut self, rows: Tensor<1, Int>) {
        for (keys, values) in self.layers.iter_mut().flatten() {
            *keys = keys.clone().select(0, rows.clone());
            *values = values.clone().select(0, rows.clone());
        }
    }
}
