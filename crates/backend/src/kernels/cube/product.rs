//! Which kernel takes a product of matrices. burn takes every one by the same, unless it times them.

use burn::backend::{
    Backend, backend_extension, cubecl::dtype_to_storage_type, ops::FloatTensorOps,
    tensor::FloatTensor,
};
use burn_cubecl::{CubeBackend, kernel::matmul, tensor::CubeTensor};
use cubek::matmul::{
    definition::{MatmulElems, MatmulGlobalElems, MatmulSetupError},
    launch::launch_ref,
    multi_level::{
        Strategy, components::tile::TileMatmulKind,
        routines::batch::ordered_double_buffering::OrderedSelectionArgs,
    },
    routine::BlueprintStrategy::Inferred,
};
use cubek::std::InputBinding;

use super::{Rows, gate, large, narrow, room};

/// Products with what follows them, on GPUs alone.
#[backend_extension(Cube)]
pub(crate) trait JointProducts: Backend {
    /// [`crate::kernels::project_onto`].
    fn product_onto(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        onto: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// [`crate::kernels::project_gated`].
    fn gated_product(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// [`crate::kernels::project_three`].
    fn products(
        x: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl JointProducts for CubeBackend {
    fn product_onto(x: CubeTensor, weight: CubeTensor, onto: CubeTensor) -> CubeTensor {
        narrow::product_onto(&x, &weight, &onto)
            .unwrap_or_else(|| CubeBackend::float_add(onto, product(x, weight)))
    }

    fn gated_product(x: CubeTensor, gate: CubeTensor, up: CubeTensor) -> CubeTensor {
        narrow::gated(&x, &gate, &up)
            .unwrap_or_else(|| gate::forward(product(x.clone(), gate), product(x, up)))
    }

    fn products(
        x: CubeTensor,
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [q, k, v] = narrow::products(&x, [&q, &k, &v])
            .unwrap_or_else(|| [q, k, v].map(|weight| product(x.clone(), weight)));
        (q, k, v)
    }
}

/// Rows up to which [`few_rows`] is for, and beyond which [`large`] is.
const FEW: usize = 255;
/// Columns and inputs from which on a product is one for tensor cores.
const WIDE: usize = 256;
/// What a row's first number has to lie at a multiple of, in bytes.
const ALIGNED: usize = 16;

/// x · weight.
#[allow(clippy::panic, reason = "as burn's own products end where a device has no kernel for them")]
pub(super) fn product(x: CubeTensor, weight: CubeTensor) -> CubeTensor {
    let dtype = x.dtype;
    assert_eq!(dtype, weight.dtype, "both factors are of one type");
    if let Some(product) = narrow::product(&x, &weight).or_else(|| wide(&x, &weight)) {
        return product;
    }
    match matmul::matmul(x, weight, None, matmul::MatmulStrategy::default(), dtype) {
        Ok(product) => product,
        Err(reason) => panic!("the device cannot take a product of matrices: {reason:?}"),
    }
}

/// x · weight by another kernel for tensor cores than burn takes for all sizes, where its like were measured to be faster.
fn wide(x: &CubeTensor, weight: &CubeTensor) -> Option<CubeTensor> {
    if cfg!(feature = "autotune") || weight.meta.num_dims() != 2 {
        return None;
    }
    let ([rows, inputs], [_, columns]) = (x.meta.shape().dims(), weight.meta.shape().dims());
    if inputs < WIDE || columns < WIDE || !aligned(x) || !aligned(weight) {
        return None;
    }
    if rows > FEW {
        return large::product(x, weight);
    }
    let y = room(x, [rows, columns], x.dtype);
    few_rows(x, weight, &y).ok().map(|()| y)
}

/// By rows or by columns, whose distances fit.
fn aligned(matrix: &CubeTensor) -> bool {
    let mut matrix = matrix.clone();
    if matrix.meta.strides()[0] == 1 {
        matrix.meta.swap(0, 1);
    }
    matrix.meta.strides()[1] == 1 && Rows::of(matrix).aligned(ALIGNED)
}

/// x · weight of few rows and more columns than [`narrow`] is for, by the kernel that was never far from the fastest on an H100
/// (`benches/results/2026-11-27-h100`); on devices without tensor cores, by what cubek takes in its place.
fn few_rows(x: &CubeTensor, weight: &CubeTensor, y: &CubeTensor) -> Result<(), MatmulSetupError> {
    let strategy = Strategy::OrderedDoubleMma(Inferred(OrderedSelectionArgs {
        partition_k: Some(2),
        row_count: Some(8),
        rows_per_plane: Some(2),
        tile_matmul: TileMatmulKind::Mma,
    }));
    let stored = dtype_to_storage_type(x.dtype);
    let mut types =
        MatmulElems::from_globals(&MatmulGlobalElems { lhs: stored, rhs: stored, out: stored });
    let [x, weight] = [x, weight].map(|factor| InputBinding::new(factor.clone().binding(), stored));
    launch_ref(&strategy.into(), &y.client, x, weight, y.clone().binding(), &mut types)
}
