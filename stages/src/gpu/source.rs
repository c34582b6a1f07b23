//! The kernels' source as one text for a device's own compiler. Knows no kernels' meaning.

use super::kernel::format_name;
use crate::format::Format;

/// The kernels' headers by name, in the order of `kernels/all.h`.
const HEADERS: [(&str, &str); 9] = [
    ("threads.h", include_str!("kernels/threads.h")),
    ("norm.h", include_str!("kernels/norm.h")),
    ("formats.h", include_str!("kernels/formats.h")),
    ("product.h", include_str!("kernels/product.h")),
    ("gated.h", include_str!("kernels/gated.h")),
    ("heads.h", include_str!("kernels/heads.h")),
    ("attention.h", include_str!("kernels/attention.h")),
    ("finite.h", include_str!("kernels/finite.h")),
    ("choose.h", include_str!("kernels/choose.h")),
];

/// A device's own compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "a program has the dialects of the devices that its system may have"))]
pub(super) enum Dialect {
    /// Metal's.
    Metal,
    /// NVRTC.
    Cuda,
}

// === impl Dialect ===

impl Dialect {
    fn header(self) -> &'static str {
        match self {
            Self::Metal => include_str!("kernels/dialect/metal.h"),
            Self::Cuda => include_str!("kernels/dialect/cuda.h"),
        }
    }

    /// The text of all kernels that multiply weights of `format`, and of those that multiply none. All formats together
    /// take a compiler ten times as long, and a model has two or three of them. `None` leaves the products out.
    pub(super) fn source(self, format: Option<Format>) -> String {
        let formats = format.and_then(format_name).map(|name| format!(" apply({}, {name})", name.to_uppercase()));
        let mut text = format!("#define FOR_EACH_FORMAT(apply){}\n", formats.unwrap_or_default());
        for header in std::iter::once(self.header()).chain(HEADERS.map(|(_, header)| header)) {
            text.push_str(header);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_those_of_the_simulator_in_its_order() {
        let all = include_str!("kernels/all.h").lines();
        let all: Vec<_> = all.filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"')).collect();
        assert_eq!(HEADERS.map(|(name, _)| name).as_slice(), all);
    }

    #[test]
    fn a_source_has_the_products_of_one_format() {
        let text = Dialect::Cuda.source(Some(Format::Q4K));
        assert!(text.starts_with("#define FOR_EACH_FORMAT(apply) apply(Q4_K, q4_k)\n"), "{}", &text[..80]);
        assert!(Dialect::Metal.source(None).starts_with("#define FOR_EACH_FORMAT(apply)\n//"));
    }

    #[test]
    fn every_format_with_kernels_is_in_the_source_by_its_name() {
        let formats = include_str!("kernels/formats.h");
        for name in Format::ALL.into_iter().filter_map(format_name) {
            assert!(formats.contains(&format!("apply({}, {name})", name.to_uppercase())), "{name}");
        }
    }
}
