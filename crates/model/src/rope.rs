//! Rotary position embeddings by halves, as Hugging Face's Llama rotates.

use burn::tensor::{Device, Tensor, TensorData};
use infalign_backend::kernels::Angles;

use crate::positions::Positions;
use crate::{RopeScaling, TransformerConfig};

/// Cosines and sines of every position: two tables `[max_position_embeddings, rotary_width / 2]`.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Rope {
    /// Angle of position p and pair i: p · theta^(−2i / rotary_width), the frequency scaled as the configuration says.
    /// None for families without rotations.
    pub(crate) fn new(config: &TransformerConfig, device: &Device) -> Option<Self> {
        let rotates = !config.learns_positions();
        rotates.then(|| Self::of(config, config.rope_theta, config.rope_scaling.as_ref(), device))
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
        let half = config.rotary_width() / 2;
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

    /// Cosines and sines, `[max_position_embeddings, rotary_width / 2]` each.
    pub(crate) fn tables(&self) -> [Tensor<2>; 2] {
        [self.cos.clone(), self.sin.clone()]
    }

    /// The angles of a batch's tokens.
    pub(crate) fn at(&self, positions: &Positions) -> Angles {
        Angles { cos: positions.rows(&self.cos), sin: positions.rows(&self.sin) }
    }
}
