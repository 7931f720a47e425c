//! `--dtype`: in which type the weights of a model that is only asked are held.

use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;
use infalign_model::CausalLm;

/// A type of weights.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Dtype {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, of which 7 are of the mantissa.
    Bf16,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl Dtype {
    /// The model with its weights in this type.
    ///
    /// # Errors
    /// Where the device does not compute with it.
    pub(crate) fn of(self, model: CausalLm) -> Result<CausalLm> {
        match self {
            Self::F32 => Ok(model),
            Self::Bf16 => model.in_bf16().context("--dtype bf16"),
        }
    }
}
