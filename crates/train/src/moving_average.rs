//! A module that follows another.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};

/// A module with every weight moved by the share `rate` of the way towards another's.
pub(crate) fn moved<M: Module>(net: M, towards: &M, rate: f64) -> M {
    let mut weights = Weights::default();
    towards.visit(&mut weights);
    net.map(&mut Move { towards: weights, rate })
}

/// Weights by their ids.
#[derive(Default)]
struct Weights(HashMap<ParamId, TensorData>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id, param.val().into_data());
    }
}

struct Move {
    towards: Weights,
    rate: f64,
}

impl ModuleMapper for Move {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(target) = self.towards.0.remove(&param.id) else { return param };
        param.map(|weight| {
            let target = Tensor::<D>::from_data(target, &weight.device());
            // A weight that is not trained stays as it is, to the bit.
            weight.clone() + (target - weight) * self.rate
        })
    }
}
