//! The key-value cache: preallocated for the longest sequence of a batch, whose rows end in the same column.

use burn::tensor::{DType, Device, Int, Tensor};
use infalign_backend::kernels::{Angles, AttentionShape, attend_cached};

use crate::TransformerConfig;
use crate::tensors::indices;

/// Keys and values of every layer for a batch of sequences that grow by the same columns.
#[derive(Clone, Debug)]
pub(crate) struct KvCache {
    /// Per layer, keys and values: `[batch, kv_heads, capacity, head_width]`.
    layers: Vec<[Tensor<4>; 2]>,
    /// First real column of each row.
    starts: Vec<usize>,
    /// The same on the device.
    first_columns: Tensor<1, Int>,
    /// Columns filled so far.
    length: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache of at most `capacity` columns for sequences that begin at the given ones.
    pub(crate) fn new(
        config: &TransformerConfig,
        starts: Vec<usize>,
        capacity: usize,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let shape = [starts.len(), config.kv_heads(), capacity, config.head_width()];
        let zeros = || Tensor::zeros(shape, (device, dtype));
        let layers = (0..config.num_hidden_layers).map(|_| [zeros(), zeros()]).collect();
        Self { layers, first_columns: indices(&starts, device), starts, length: 0, capacity }
    }

    /// Columns filled so far.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// First real column of each row.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Rotates queries and keys of new columns, writes keys and values into `layer`, and has the new tokens attend to all of its columns.
    ///
    /// The tensors are taken out while they are written, so that the write happens in place.
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        tokens: [Tensor<2>; 3],
        angles: Option<&Angles>,
        shape: AttentionShape,
    ) -> Tensor<2> {
        let caches = self.layers.remove(layer);
        let starts = self.first_columns.clone();
        let (caches, mixed) = attend_cached(tokens, caches, angles, starts, self.length, shape);
        self.layers.insert(layer, caches);
        mixed
    }

    /// Counts `time` columns as filled, once every layer has taken them.
    pub(crate) fn advance(&mut self, time: usize) {
        self.length += time;
    }

    /// The given rows, in the given order, without the columns that are none of theirs; a row may be repeated.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let first = rows.iter().map(|&row| self.starts[row]).min().unwrap_or(0);
        let capacity = self.capacity - first;
        let starts: Vec<usize> = rows.iter().map(|&row| self.starts[row] - first).collect();
        let device = self.first_columns.device();
        let ids = indices(rows, &device);
        let select =
            |tensor: &Tensor<4>| tensor.clone().narrow(2, first, capacity).select(0, ids.clone());
        Self {
            layers: self.layers.iter().map(|layer| layer.each_ref().map(select)).collect(),
            first_columns: indices(&starts, &device),
            starts,
            length: self.length - first,
            capacity,
        }
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
        let layers = self
            .layers
            .iter()
            .zip(&other.layers)
            .map(|([k, v], [other_k, other_v])| [both(k, other_k), both(v, other_v)]);
        let moved = |rows: &Self| {
            rows.starts.iter().map(|start| start + length - rows.length).collect::<Vec<usize>>()
        };
        let starts: Vec<usize> = [self, other].map(moved).concat();
        Self {
            layers: layers.collect(),
            first_columns: indices(&starts, &self.first_columns.device()),
            starts,
            length,
            capacity: length + new,
        }
    }

    /// The same with room for `new` columns.
    pub(crate) fn with_room(self, new: usize) -> Self {
        let widen = |tensor: Tensor<4>| {
            let [batch, heads, _, width] = tensor.dims();
            let room =
                Tensor::zeros([batch, heads, new, width], (&tensor.device(), tensor.dtype()));
            Tensor::cat(vec![tensor.narrow(2, 0, self.length), room], 2)
        };
        let layers = self.layers.into_iter().map(|layer| layer.map(widen)).collect();
        Self { layers, capacity: self.length + new, ..self }
    }
}
