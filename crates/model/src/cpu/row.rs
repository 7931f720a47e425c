//! The keys and values of one sequence, in segments that sequences share.

use std::sync::Arc;

/// Positions that are computed together; keys are stored in multiples of it.
pub(super) const POSITIONS: usize = 16;

/// Keys and values of consecutive positions, in every block.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) layers: Vec<KeysValues>,
    /// Positions filled.
    pub(super) length: usize,
    /// Positions that there is room for: a multiple of [`POSITIONS`].
    pub(super) capacity: usize,
}

/// Keys and values of one block.
#[derive(Clone, Debug)]
pub(super) struct KeysValues {
    /// `[kv_heads * head_width, capacity]`: positions lie side by side, to be scored together.
    pub(super) keys: Vec<f32>,
    /// `[capacity, kv_heads * head_width]`, as far as filled.
    pub(super) values: Vec<f32>,
}

impl Segment {
    /// - `width`: kv_heads * head_width.
    fn new(layers: usize, width: usize, capacity: usize) -> Self {
        let padded = capacity.next_multiple_of(POSITIONS);
        let layer = || KeysValues {
            keys: vec![0.0; width * padded],
            values: Vec::with_capacity(width * capacity),
        };
        Self { layers: (0..layers).map(|_| layer()).collect(), length: 0, capacity: padded }
    }

    /// The same without the room that is left: of a sequence that is continued in many short pieces, all would stay.
    fn trimmed(self) -> Self {
        let padded = self.length.next_multiple_of(POSITIONS);
        if padded == self.capacity {
            return self;
        }
        let trim = |KeysValues { keys, mut values }: KeysValues| {
            let columns = keys.chunks(self.capacity).flat_map(|column| &column[..padded]);
            values.shrink_to_fit();
            KeysValues { keys: columns.copied().collect(), values }
        };
        let layers = self.layers.into_iter().map(trim).collect();
        Self { layers, length: self.length, capacity: padded }
    }
}

/// One sequence: what it shares with others, and its own end.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) shared: Vec<Arc<Segment>>,
    pub(super) own: Option<Segment>,
}

impl Row {
    /// Positions filled.
    pub(super) fn length(&self) -> usize {
        self.shared.iter().map(Arc::as_ref).chain(&self.own).map(|segment| segment.length).sum()
    }

    /// Makes room for `new` positions, of which at most `most` will come before the row is shared.
    pub(super) fn reserve(&mut self, layers: usize, width: usize, new: usize, most: usize) {
        let fits = |own: &Segment| own.length + new <= own.capacity;
        if !self.own.as_ref().is_some_and(fits) {
            self.share();
            self.own = Some(Segment::new(layers, width, new.max(most)));
        }
    }

    /// Writes the key and the value of the position `ahead` of those that count.
    pub(super) fn put(&mut self, layer: usize, ahead: usize, key: &[f32], value: &[f32]) {
        let Some(own) = &mut self.own else { return };
        let place = own.length + ahead;
        let KeysValues { keys, values } = &mut own.layers[layer];
        for (column, key) in keys.chunks_mut(own.capacity).zip(key) {
            column[place] = *key;
        }
        values.extend_from_slice(value);
    }

    /// Counts positions as filled, once every block has them.
    pub(super) fn advance(&mut self, positions: usize) {
        if let Some(own) = &mut self.own {
            own.length += positions;
        }
    }

    /// Turns the row's own end into one that others can share.
    pub(super) fn share(&mut self) {
        let own = self.own.take().filter(|own| own.length > 0);
        self.shared.extend(own.map(|own| Arc::new(own.trimmed())));
    }

    /// Another row with the same past.
    pub(super) fn fork(&mut self) -> Self {
        self.share();
        Self { shared: self.shared.clone(), own: None }
    }
}
