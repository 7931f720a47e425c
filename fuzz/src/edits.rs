//! Damage to a valid file: random bytes would hardly get past the first check of a binary format.

/// The bytes of a file after edits, four bytes each: what to do, where (two bytes, little end first), and with which value.
#[must_use]
pub fn edited(whole: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for edit in edits.chunks_exact(4) {
        let [kind, low, high, value] = [edit[0], edit[1], edit[2], edit[3]];
        if bytes.is_empty() {
            break;
        }
        let place = usize::from(u16::from_le_bytes([low, high])) % bytes.len();
        match kind % 4 {
            0 => bytes[place] = value,
            1 => bytes.insert(place, value),
            2 => drop(bytes.drain(place..(place + usize::from(value)).min(bytes.len()))),
            _ => bytes.truncate(place),
        }
    }
    bytes
}
