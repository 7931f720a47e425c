//! Rotary position embeddings by halves, as Hugging Face's Llama rotates.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{RopeScaling, TransformerConfig};

/// Cosines and sines of every position: two tables `[max_position_embeddings, head_width / 2]`.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// The rows of the tables that belong to one batch: `[batch or 1, 1, time, head_width / 2]` each.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rope {
    /// Angle of position p and pair i: p · theta^(−2i / head_width), the frequency scaled as the configuration says.
    pub(crate) fn new(config: &TransformerConfig, device: &Device) -> Self {
        Self::of(config, config.rope_theta, config.rope_scaling.as_ref(), device)
    }

    /// The table of blocks with a window, where it is another one (Gemma 3): never scaled.
    pub(crate) fn local(config: &TransformerConfig, device: &Device) -> Option<Self> {
        let theta = config.rope_local_base_freq?;
        Some(Self::of(config, theta, None, device))
    }

    fn of(
        config: &TransformerConfig,
        theta: f64,
        scaling: Option<&RopeScaling>,
        device: &Device,
    ) -> Self {
        let half = config.head_width() / 2;
        let frequency = |pair: usize| {
            let plain = theta.powf(-(pair as f64) / half as f64);
            scaling.map_or(plain, |scaling| scaling.scale(plain, config.max_position_embeddings))
        };
        let frequencies: Vec<f64> = (0..half).map(frequency).collect();
        let angles = || {
            (0..config.max_position_embeddings)
                .flat_map(|position| frequencies.iter().map(move |f| position as f64 * f))
        };
        let table = |values: Vec<f32>| {
            Tensor::from_data(
                TensorData::new(values, [config.max_position_embeddings, half]),
                device,
            )
        };
        Self {
            cos: table(angles().map(|a| a.cos() as f32).collect()),
            sin: table(angles().map(|a| a.sin() as f32).collect()),
        }
    }

    /// The rotation of positions `start .. start + time`, the same for every row.
    pub(crate) fn span(&self, start: usize, time: usize) -> Rotation {
        let rows = |table: &Tensor<2>| table.clone().narrow(0, start, time).unsqueeze::<4>();
        Rotation { cos: rows(&self.cos), sin: rows(&self.sin) }
    }

    /// The rotation of the given positions, row-major `[batch, time]`.
    pub(crate) fn gather(&self, positions: &[usize], batch: usize, time: usize) -> Rotation {
        let ids: Vec<i32> = positions.iter().map(|&p| p as i32).collect();
        let ids =
            Tensor::<1, Int>::from_data(TensorData::new(ids, [batch * time]), &self.cos.device());
        let half = self.cos.dims()[1];
        let rows = |table: &Tensor<2>| {
            table.clone().select(0, ids.clone()).reshape([batch, 1, time, half])
        };
        Rotation { cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

impl Rotation {
    /// Rotates x: `[batch, heads, time, head_width]`.
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let low = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let high = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![low, high], 3)
    }
}
