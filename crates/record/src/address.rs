//! Paths as relative addresses, as RO-Crates and pages have them, and back.

use std::fmt::Write as _;

/// What stands for itself in an address, beside letters and digits.
const PLAIN: &[u8] = b"-_.~/!$()*+,;=@";

/// A path as a relative address. `:` is encoded, too: it would make of what stands before it a scheme.
pub(crate) fn encoded(path: &str) -> String {
    let mut address = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) {
            address.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(address, "%{byte:02X}");
        }
    }
    address
}

/// A relative address as a path.
pub(crate) fn decoded(address: &str) -> String {
    let mut bytes = Vec::with_capacity(address.len());
    let mut rest = address.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let byte = if *first == b'%' { escape(tail) } else { None };
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte of two hexadecimal digits.
fn escape(tail: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
    let all = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if all { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_back_and_names_no_scheme() {
        for path in ["a/b.json", "a b#c?d%20", "urn:x", "best-of:4/ß&\"<.svg", "%", "%4", "%zz"] {
            let address = encoded(path);
            assert_eq!(decoded(&address), path);
            assert!(!address.contains([':', ' ', '"', '<', '&', '#', '?']), "{address}");
        }
        assert_eq!(encoded("methods/a b"), "methods/a%20b");
        assert_eq!((decoded("%2e%2E/x").as_str(), decoded("%+1").as_str()), ("../x", "%+1"));
    }
}
