//! Paths as relative addresses, as RO-Crates and pages have them, and back.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What does not stand for itself in an address. `:` is among it: it would make of what stands before it a scheme.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b'!')
    .remove(b'$')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// A path as a relative address.
pub(crate) fn encoded(path: &str) -> String {
    utf8_percent_encode(path, ENCODED).to_string()
}

/// A relative address as a path.
pub(crate) fn decoded(address: &str) -> String {
    percent_decode_str(address).decode_utf8_lossy().into_owned()
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
