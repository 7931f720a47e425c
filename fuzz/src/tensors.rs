//! Safetensors files written as text, and weights for small models.

/// The file that an input stands for: one that begins with `{` is a header and, after a line end, the tensors' bytes, and gets the
/// header's length put before it; any other is the file itself.
#[must_use]
pub fn safetensors(input: &[u8]) -> Vec<u8> {
    if !input.starts_with(b"{") {
        return input.to_vec();
    }
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, rest) = input.split_at(end);
    let length = (header.len() as u64).to_le_bytes();
    [&length, header, rest.get(1..).unwrap_or_default()].concat()
}

/// Numbers between −1 and 1 that look random, the same ones every time.
pub fn normal() -> impl FnMut() -> f32 {
    let mut state = 1_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}
