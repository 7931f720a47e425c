//! A module that follows another.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// A module with every weight moved by the share `rate` of the way towards another's, on whose device it is.
pub(crate) fn moved<M: Module>(net: M, towards: &M, rate: f64) -> M {
    let mut weights = Weights(GradientsParams::new());
    towards.visit(&mut weights);
    net.map(&mut Move { towards: weights.0, rate })
}

/// Weights by their ids, in the container that burn has for tensors of any rank.
struct Weights(GradientsParams);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val());
    }
}

struct Move {
    towards: GradientsParams,
    rate: f64,
}

impl ModuleMapper for Move {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(target) = self.towards.remove::<D>(param.id) else { return param };
        // A weight that is not trained stays as it is, to the bit.
        param.map(|weight| weight.clone() + (target - weight) * self.rate)
    }
}
