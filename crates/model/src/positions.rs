//! Where the tokens of a batch stand in their texts.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Positions counted from 0 at each text's first token; padding before it has position 0.
pub(crate) enum Positions {
    /// `start .. start + time`, the same in every row.
    Span { start: usize, time: usize },
    /// `[batch, time]`, a row its own.
    Each(Box<Tensor<2, Int>>),
}

impl Positions {
    /// Columns `start .. start + time` of rows whose texts begin at the given columns.
    pub(crate) fn of_rows(first: &[usize], start: usize, time: usize, device: &Device) -> Self {
        if first.iter().all(|&first| first == 0) {
            return Self::Span { start, time };
        }
        let columns =
            |&first: &usize| (start..start + time).map(move |c| c.saturating_sub(first) as i32);
        let ids: Vec<i32> = first.iter().flat_map(columns).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [first.len(), time]), device);
        Self::Each(Box::new(ids))
    }

    /// The rows of a table `[positions, width]` that belong to them: `[batch or 1, time, width]`.
    pub(crate) fn rows(&self, table: &Tensor<2>) -> Tensor<3> {
        let width = table.dims()[1];
        match self {
            Self::Span { start, time } => table.clone().narrow(0, *start, *time).unsqueeze::<3>(),
            Self::Each(ids) => {
                let [batch, time] = ids.dims();
                let ids = ids.as_ref().clone().reshape([batch * time]);
                table.clone().select(0, ids).reshape([batch, time, width])
            }
        }
    }
}
