//! Products of matrices into memory of their own, which is neither cleared before nor copied after.

use gemm::Parallelism;

use super::FlexTensor;

/// Multiplications from which on all cores take part.
const PARALLEL: usize = 192 * 192 * 192;

/// A matrix as it lies in memory: rows and columns at any distance.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    numbers: &'a [f32],
    dims: [usize; 2],
    /// From one row, and from one column, to the next.
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` numbers, one behind the other.
    pub(super) fn rows(numbers: &'a [f32], columns: usize) -> Self {
        let rows = numbers.len().checked_div(columns).unwrap_or(0);
        Self { numbers, dims: [rows, columns], strides: [columns, 1] }
    }

    /// A tensor of two dimensions. Those of this workspace run forwards only.
    pub(super) fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let strides = layout.strides().iter().map(|&stride| match usize::try_from(stride) {
            Ok(stride) => stride,
            Err(_) => unreachable!("the tensors of this workspace run forwards"),
        });
        let mut strides = strides.chain([0, 0]);
        Self {
            numbers: &tensor.storage::<f32>()[layout.start_offset()..],
            dims: layout.shape().dims(),
            strides: [(); 2].map(|()| strides.next().unwrap_or(0)),
        }
    }

    /// n rows from `first` on.
    pub(super) fn narrow(self, first: usize, n: usize) -> Self {
        let numbers =
            &self.numbers[first.saturating_mul(self.strides[0]).min(self.numbers.len())..];
        Self { numbers, dims: [n, self.dims[1]], ..self }
    }

    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [row, column]) = (self.dims, self.strides);
        Self { dims: [columns, rows], strides: [column, row], ..self }
    }

    pub(super) fn columns(self) -> usize {
        self.dims[1]
    }

    /// Numbers from the first to the last.
    fn extent(self) -> usize {
        let ([rows, columns], [row, column]) = (self.dims, self.strides);
        if rows == 0 || columns == 0 {
            return 0;
        }
        let last =
            (rows - 1).saturating_mul(row).saturating_add((columns - 1).saturating_mul(column));
        last.saturating_add(1)
    }
}

/// a · b, row by row.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let mut out = Vec::new();
    extend_by_product(&mut out, a, b);
    out
}

/// Appends a · b, row by row.
pub(super) fn extend_by_product(out: &mut Vec<f32>, a: Matrix<'_>, b: Matrix<'_>) {
    let ([m, k], [inner, n]) = (a.dims, b.dims);
    assert_eq!(k, inner, "as many columns as rows");
    // Sizes that wrap around would reserve too little.
    let size = m.saturating_mul(n);
    if k == 0 {
        out.resize(out.len() + size, 0.0);
        return;
    }
    out.reserve(size);
    let length = out.len() + size;
    let rest = out.spare_capacity_mut().as_mut_ptr().cast::<f32>();
    // SAFETY: there is room for m · n numbers, and the product is written over all of them.
    #[allow(unsafe_code, reason = "numbers that are all written need not be cleared before")]
    unsafe {
        multiply(a, b, rest, false);
        out.set_len(length);
    }
}

/// Adds a · b to what is there.
pub(super) fn add_product(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    assert_eq!(a.dims[1], b.dims[0], "as many columns as rows");
    assert_eq!(out.len(), a.dims[0].saturating_mul(b.dims[1]), "a number for each row and column");
    // SAFETY: there are m · n numbers, and no factor lies there, since they are borrowed to be changed.
    #[allow(unsafe_code, reason = "as above")]
    unsafe {
        multiply(a, b, out.as_mut_ptr(), true);
    }
}

/// Writes a · b over `out`, or adds it to what is there.
///
/// # Safety
/// `out` is valid for as many numbers as the product has, which are initialised where they are added to.
#[allow(unsafe_code, reason = "the crate that multiplies takes pointers")]
unsafe fn multiply(a: Matrix<'_>, b: Matrix<'_>, out: *mut f32, add: bool) {
    let ([m, k], n) = (a.dims, b.dims[1]);
    assert!(a.extent() <= a.numbers.len() && b.extent() <= b.numbers.len(), "within the memory");
    let alone = m.saturating_mul(n).saturating_mul(k) < PARALLEL;
    let threads = if alone { Parallelism::None } else { Parallelism::Rayon(0) };
    let [a_row, a_column] = a.strides.map(|stride| stride as isize);
    let [b_row, b_column] = b.strides.map(|stride| stride as isize);
    let (a, b) = (a.numbers.as_ptr(), b.numbers.as_ptr());
    // SAFETY: every number of both factors lies within its slice, as was just seen; the caller vouches for the product.
    unsafe {
        gemm::gemm(
            m, n, k, out, 1, n as isize, add, a, a_column, a_row, b, b_column, b_row, 1.0, 1.0,
            false, false, false, threads,
        );
    }
}
