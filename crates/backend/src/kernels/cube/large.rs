//! Products of many rows on devices that copy tiles by themselves, as NVIDIA's do from Hopper on (tensor memory accelerators), where kernels are compiled by NVRTC.
//!
//! These are cubek's kernels for tensor cores that have two tiles in flight; as cubek chooses them, they were on an H100 about twice as fast as what burn takes
//! for all sizes (`benches/results/2026-11-27-h100`). cubek would compile one for every combination of which edges of a product are multiples of a tile, how many rows a
//! plane takes, and in which order tiles are taken. Here all sizes of a layout share one, that for sizes that are multiples of nothing: what lies beyond an edge
//! is copied as zeros, and not written. Tiles are taken column by column, so that a weight, which may be too large for the device's cache, is read once.

use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::features::Tma;
use cubek::matmul::{
    definition::{
        AvailableVectorSizes, MatmulElems, MatmulGlobalElems, MatmulProblem, MatmulSetupError,
        MatmulVectorSizes,
    },
    multi_level::{
        BatchMatmulRoutine,
        args::{ConcreteInputsFactory, ConcreteOutputFactory, InputArg, OutputArg, TensorMapArgs},
        components::tile::TileMatmulKind,
        launch_kernel,
        routines::batch::double_buffering::{DoubleBufferingArgs, TmaDoubleBufferingAlgorithm},
    },
    routine::BlueprintStrategy,
};
use cubek::std::{InputBinding, MatrixLayout, cube_count::GlobalOrder};

use super::{room, stored};

type Routine = TmaDoubleBufferingAlgorithm;
type Inputs = InputArg<TensorMapArgs>;
type Output = OutputArg<TensorMapArgs>;

/// Rows, inputs and columns of the product that a kernel is made for: many, and a prime.
const ANY_SIZE: usize = 65_537;

/// x · weight, both aligned to 16 bytes, where the device has kernels for it.
pub(super) fn product(x: &CubeTensor, weight: &CubeTensor) -> Option<CubeTensor> {
    if !x.client.properties().features.tma.contains(Tma::Base) {
        return None;
    }
    let ([rows, _], [_, columns]) = (x.meta.shape().dims(), weight.meta.shape().dims());
    let y = room(x, [rows, columns], x.dtype);
    launch(x, weight, &y).ok().map(|()| y)
}

fn launch(x: &CubeTensor, weight: &CubeTensor, y: &CubeTensor) -> Result<(), MatmulSetupError> {
    let stored = stored(x);
    let types = MatmulGlobalElems { lhs: stored, rhs: stored, out: stored };
    let [left, right] = [x, weight].map(|m| InputBinding::new(m.clone().binding(), stored));
    let out = y.clone().binding();
    let problem = MatmulProblem::from_shapes_and_strides(
        x.meta.shape().clone(),
        weight.meta.shape().clone(),
        out.shape.clone(),
        x.meta.strides().clone(),
        weight.meta.strides().clone(),
        out.strides.clone(),
        types.clone(),
        left.required_address_type()
            .max(right.required_address_type())
            .max(out.required_address_type(stored.size())),
        None,
        None,
    )?;
    let vectors = vectors(x, &problem)?;
    let device = <Routine as BatchMatmulRoutine<()>>::device_settings(&x.client, vectors);
    let strategy = BlueprintStrategy::<(), Routine>::Inferred(DoubleBufferingArgs {
        tile_matmul: TileMatmulKind::Mma,
        specialized: false,
    });
    let mut kernel = Routine::expand_blueprint(&of_any_size(&problem), &device, &strategy)?;
    kernel.blueprint.hypercube_blueprint.global_order = GlobalOrder::ColMajor;
    let kernel = <Routine as BatchMatmulRoutine<()>>::prepare(&problem, &device, kernel)?;
    let types = MatmulElems::from_globals(&types);
    let (form, vectors) = (&kernel.blueprint, &kernel.vector_sizes);
    let factors = <Inputs as ConcreteInputsFactory<Routine>>::create(
        left, right, form, &problem, vectors, &types,
    );
    let out =
        <Output as ConcreteOutputFactory<Routine>>::create(out, form, &problem, vectors, &types);
    launch_kernel::<TensorMapArgs, Routine>(&x.client, factors, out, (), kernel)
}

/// Numbers that are written at once; tiles are read by the device.
fn vectors(x: &CubeTensor, problem: &MatmulProblem) -> Result<MatmulVectorSizes, MatmulSetupError> {
    AvailableVectorSizes::from_type_size_tma(&x.client, problem.global_dtypes.out.size())
        .filter_lhs_with_tensor(&problem.lhs_strides, &problem.lhs_shape, problem.lhs_layout)
        .filter_rhs_with_tensor(&problem.rhs_strides, &problem.rhs_shape, problem.rhs_layout)
        .filter_out_with_tensor(&problem.out_strides, &problem.out_shape)
        .pick_max()
}

/// A product of the same layouts and types, whose edges all need checks.
fn of_any_size(problem: &MatmulProblem) -> MatmulProblem {
    MatmulProblem::from_parameters(
        ANY_SIZE,
        ANY_SIZE,
        ANY_SIZE,
        Shape::new([]),
        Shape::new([]),
        problem.lhs_layout,
        problem.rhs_layout,
        MatrixLayout::RowMajor,
        None,
        None,
        problem.global_dtypes.clone(),
        problem.address_type,
    )
}
