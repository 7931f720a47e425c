//! The gradients of the kernels, as burn's automatic differentiation asks for them.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Backend, tensor::FloatTensor};

use super::{AdamWStep, AlignmentKernels, AttentionShape};

/// A kernel of N tensors and some numbers. Its inputs are all that its gradients need.
trait Kernel<B: Backend, const N: usize>: Debug + Send + 'static {
    /// What it is told besides tensors.
    type Numbers: Clone + Debug + Send + 'static;

    fn forward(inputs: [FloatTensor<B>; N], numbers: Self::Numbers) -> FloatTensor<B>;

    /// The gradients of the inputs; one that is not wanted may be left out.
    fn gradients(
        inputs: [FloatTensor<B>; N],
        numbers: Self::Numbers,
        grad: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N];
}

/// The backward step of a kernel.
#[derive(Debug)]
struct Step<K>(PhantomData<K>);

impl<B: Backend, K: Kernel<B, N>, const N: usize> Backward<B, N> for Step<K> {
    type State = ([FloatTensor<B>; N], K::Numbers);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, numbers) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = K::gradients(inputs, numbers, grad, wanted);
        for (parent, grad) in ops.parents.iter().zip(found) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// Runs a kernel, and keeps its inputs where somebody may ask for gradients.
fn tracked<K: Kernel<B, N>, B: Backend, C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    numbers: K::Numbers,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    match Step::<K>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let inputs = inputs.map(|input| input.into_primitive());
            let output = K::forward(inputs.clone(), numbers.clone());
            prepared.finish((inputs, numbers), output)
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(K::forward(inputs.map(|input| input.into_primitive()), numbers))
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: AlignmentKernels> Kernel<B, 2> for RmsNorm {
    type Numbers = f32;

    fn forward([x, weight]: [FloatTensor<B>; 2], epsilon: f32) -> FloatTensor<B> {
        B::rms_norm(x, weight, epsilon)
    }

    fn gradients(
        [x, weight]: [FloatTensor<B>; 2],
        epsilon: f32,
        grad: FloatTensor<B>,
        _: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let (x, weight) = B::rms_norm_backward(x, weight, grad, epsilon);
        [Some(x), Some(weight)]
    }
}

#[derive(Debug)]
struct GatedSilu;

impl<B: AlignmentKernels> Kernel<B, 2> for GatedSilu {
    type Numbers = ();

    fn forward([gate, up]: [FloatTensor<B>; 2], (): ()) -> FloatTensor<B> {
        B::gated_silu(gate, up)
    }

    fn gradients(
        [gate, up]: [FloatTensor<B>; 2],
        (): (),
        grad: FloatTensor<B>,
        _: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let (gate, up) = B::gated_silu_backward(gate, up, grad);
        [Some(gate), Some(up)]
    }
}

/// The backward step of [`AlignmentKernels::rotate`], which needs the angles alone and they are constants.
#[derive(Debug)]
struct TurnBack<B>(PhantomData<B>);

#[derive(Clone, Debug)]
struct Angles<B: Backend> {
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    width: usize,
    turn: f32,
}

impl<B: AlignmentKernels> Backward<B, 1> for TurnBack<B> {
    type State = Angles<B>;

    fn backward(self, ops: Ops<Angles<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let Angles { cos, sin, width, turn } = ops.state;
        if let [Some(parent)] = &ops.parents {
            grads.register::<B>(parent.id, B::rotate(grad, cos, sin, width, -turn));
        }
    }
}

#[derive(Debug)]
struct Attend;

impl<B: AlignmentKernels> Kernel<B, 3> for Attend {
    type Numbers = (AttentionShape, u64);

    fn forward([q, k, v]: [FloatTensor<B>; 3], shape: (AttentionShape, u64)) -> FloatTensor<B> {
        B::attend(q, k, v, shape)
    }

    fn gradients(
        [q, k, v]: [FloatTensor<B>; 3],
        shape: (AttentionShape, u64),
        grad: FloatTensor<B>,
        _: [bool; 3],
    ) -> [Option<FloatTensor<B>>; 3] {
        let (q, k, v) = B::attend_backward(q, k, v, grad, shape);
        [Some(q), Some(k), Some(v)]
    }
}

#[derive(Debug)]
struct Project;

impl<B: AlignmentKernels> Kernel<B, 2> for Project {
    type Numbers = ();

    fn forward([x, weight]: [FloatTensor<B>; 2], (): ()) -> FloatTensor<B> {
        B::project(x, weight)
    }

    fn gradients(
        [x, weight]: [FloatTensor<B>; 2],
        (): (),
        grad: FloatTensor<B>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let [of_x, of_weight] = wanted;
        [
            of_x.then(|| B::project(grad.clone(), B::float_transpose(weight))),
            of_weight.then(|| B::project(B::float_transpose(x), grad)),
        ]
    }
}

#[derive(Debug)]
struct LogProbs;

impl<B: AlignmentKernels> Kernel<B, 2> for LogProbs {
    /// The targets, and the result where it is known.
    type Numbers = (Vec<u32>, Option<FloatTensor<B>>);

    fn forward(
        [hidden, weight]: [FloatTensor<B>; 2],
        (targets, known): (Vec<u32>, Option<FloatTensor<B>>),
    ) -> FloatTensor<B> {
        known.unwrap_or_else(|| B::log_probs(hidden, weight, targets))
    }

    fn gradients(
        [hidden, weight]: [FloatTensor<B>; 2],
        (targets, _): (Vec<u32>, Option<FloatTensor<B>>),
        grad: FloatTensor<B>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let (hidden, weight) = B::log_probs_backward(hidden, weight, targets, grad, wanted);
        [wanted[0].then_some(hidden), wanted[1].then_some(weight)]
    }
}

/// Gradients themselves are not differentiated: what computes them goes to the backend below.
impl<B: AlignmentKernels, C: CheckpointStrategy> AlignmentKernels for Autodiff<B, C> {
    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        tracked::<RmsNorm, B, C, 2>([x, weight], epsilon)
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, weight, grad] = constants::<B, C, _>([x, weight, grad]);
        let (x, weight) = B::rms_norm_backward(x, weight, grad, epsilon);
        (FloatTensor::<Self>::new(x), FloatTensor::<Self>::new(weight))
    }

    fn gated_silu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<GatedSilu, B, C, 2>([gate, up], ())
    }

    fn gated_silu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [gate, up, grad] = constants::<B, C, _>([gate, up, grad]);
        let (gate, up) = B::gated_silu_backward(gate, up, grad);
        (FloatTensor::<Self>::new(gate), FloatTensor::<Self>::new(up))
    }

    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        width: usize,
        turn: f32,
    ) -> FloatTensor<Self> {
        let [cos, sin] = constants::<B, C, _>([cos, sin]);
        let step = TurnBack::<B>(PhantomData).prepare::<C>([x.node()]).compute_bound().stateful();
        let x = x.into_primitive();
        match step {
            OpsKind::Tracked(prepared) => {
                let turned = B::rotate(x, cos.clone(), sin.clone(), width, turn);
                prepared.finish(Angles { cos, sin, width, turn }, turned)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::rotate(x, cos, sin, width, turn)),
        }
    }

    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: (AttentionShape, u64),
    ) -> FloatTensor<Self> {
        tracked::<Attend, B, C, 3>([q, k, v], shape)
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<Project, B, C, 2>([x, weight], ())
    }

    fn attend_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        shape: (AttentionShape, u64),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v, grad] = constants::<B, C, _>([q, k, v, grad]);
        let (q, k, v) = B::attend_backward(q, k, v, grad, shape);
        (FloatTensor::<Self>::new(q), FloatTensor::<Self>::new(k), FloatTensor::<Self>::new(v))
    }

    fn log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<u32>,
    ) -> FloatTensor<Self> {
        tracked::<LogProbs, B, C, 2>([hidden, weight], (targets, None))
    }

    fn known_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<u32>,
        known: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [known] = constants::<B, C, _>([known]);
        tracked::<LogProbs, B, C, 2>([hidden, weight], (targets, Some(known)))
    }

    fn compare(
        ours: FloatTensor<Self>,
        our_weight: FloatTensor<Self>,
        theirs: FloatTensor<Self>,
        their_weight: FloatTensor<Self>,
        targets: Vec<u32>,
    ) -> FloatTensor<Self> {
        let [ours, our_weight, theirs, their_weight] =
            constants::<B, C, _>([ours, our_weight, theirs, their_weight]);
        let found = B::compare(ours, our_weight, theirs, their_weight, targets);
        FloatTensor::<Self>::new(found)
    }

    fn log_probs_backward(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<u32>,
        grad: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [hidden, weight, grad] = constants::<B, C, _>([hidden, weight, grad]);
        let (hidden, weight) = B::log_probs_backward(hidden, weight, targets, grad, wanted);
        (FloatTensor::<Self>::new(hidden), FloatTensor::<Self>::new(weight))
    }

    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mean_square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [weight, grad, mean, mean_square] =
            constants::<B, C, _>([weight, grad, mean, mean_square]);
        let (weight, mean, mean_square) = B::adamw(weight, grad, mean, mean_square, step);
        (
            FloatTensor::<Self>::new(weight),
            FloatTensor::<Self>::new(mean),
            FloatTensor::<Self>::new(mean_square),
        )
    }

    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x] = constants::<B, C, _>([x]);
        FloatTensor::<Self>::new(B::square_sum(x))
    }
}

fn constants<B: Backend, C: CheckpointStrategy, const N: usize>(
    tensors: [FloatTensor<Autodiff<B, C>>; N],
) -> [FloatTensor<B>; N] {
    tensors.map(|tensor| tensor.into_primitive())
}
