//! Tokens that stand for bytes.

/// The byte of a token that is written `<0xNN>`.
pub(super) fn written_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

/// The byte that a letter of GPT-2's alphabet stands for: one that can be printed has its own letter, the others have those from 256 on, in
/// their order.
pub(super) fn letter_byte(letter: char) -> Option<u8> {
    let is_printed = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(letter).checked_sub(256) {
        None => u8::try_from(letter).ok().filter(is_printed),
        Some(place) => (0..=u8::MAX).filter(|byte| !is_printed(byte)).nth(place as usize),
    }
}
