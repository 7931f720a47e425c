//! The key-value cache: preallocated for the longest sequence of a batch, whose rows end in the same column.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::TransformerConfig;

/// Keys and values of every layer for a batch of sequences that grow by the same columns.
#[derive(Clone, Debug)]
pub(crate) struct KvCache {
    /// Per layer, keys and values: `[batch, kv_heads, capacity, head_width]`.
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    /// Columns filled so far.
    length: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for `batch` sequences of at most `capacity` tokens.
    pub(crate) fn new(
        config: &TransformerConfig,
        batch: usize,
        capacity: usize,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let shape = [batch, config.kv_heads(), capacity, config.head_width()];
        let zeros = || Tensor::zeros(shape, (device, dtype));
        let layers = (0..config.num_hidden_layers).map(|_| Some((zeros(), zeros()))).collect();
        Self { layers, length: 0, capacity }
    }

    /// Columns filled so far.
    pub(crate) fn length(&self) -> usize {
        self.length
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

    /// The given rows, in the given order, without the columns before `first`; a row may be repeated.
    pub(crate) fn select(&self, rows: &[usize], first: usize) -> Self {
        let (length, capacity) = (self.length - first, self.capacity - first);
        let select = |tensor: &Tensor<4>| {
            let ids = rows.iter().map(|&row| row as i32).collect();
            let ids: Vec<i32> = ids;
            let data = TensorData::new(ids, [rows.len()]);
            let ids = Tensor::<1, Int>::from_data(data, &tensor.device());
            tensor.clone().narrow(2, first, capacity).select(0, ids)
        };
        let layers = self.layers.iter().map(|layer| {
            let (keys, values) = layer.as_ref()?;
            Some((select(keys), select(values)))
        });
        Self { layers: layers.collect(), length, capacity }
    }

    /// The rows of both, those of `other` last, with room for `new` columns. Rows that are shorter begin later.
    pub(crate) fn join(&self, other: &Self, new: usize) -> Self {
        let length = self.length.max(other.length);
        let aligned = |tensor: &Tensor<4>, filled: usize| {
            let [batch, heads, _, width] = tensor.dims();
            let options = (&tensor.device(), tensor.dtype());
            let room = Tensor::zeros([batch, heads, length + new, width], options);
            let columns = [0..batch, 0..heads, length - filled..length, 0..width];
            room.slice_assign(columns, tensor.clone().narrow(2, 0, filled))
        };
        let both = |a: &Tensor<4>, b: &Tensor<4>| {
            Tensor::cat(vec![aligned(a, self.length), aligned(b, other.length)], 0)
        };
        let layers = self.layers.iter().zip(&other.layers).map(|(own, other)| {
            let ((keys, values), (more_keys, more_values)) = (own.as_ref()?, other.as_ref()?);
            Some((both(keys, more_keys), both(values, more_values)))
        });
        Self { layers: layers.collect(), length, capacity: length + new }
    }

    /// The same with room for `new` columns.
    pub(crate) fn with_room(self, new: usize) -> Self {
        let widen = |tensor: Tensor<4>| {
            let [batch, heads, _, width] = tensor.dims();
            let room =
                Tensor::zeros([batch, heads, new, width], (&tensor.device(), tensor.dtype()));
            Tensor::cat(vec![tensor.narrow(2, 0, self.length), room], 2)
        };
        let layers = self.layers.into_iter().map(|layer| {
            let (keys, values) = layer?;
            Some((widen(keys), widen(values)))
        });
        Self { layers: layers.collect(), length: self.length, capacity: self.length + new }
    }
}
