//! The kernels' source as one text, for a device that compiles it when it is opened.

/// The files after the dialect, in the order of `kernels/all.h`.
const FILES: [(&str, &str); 9] = [
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

/// The source in Metal's C++.
pub fn metal() -> String {
    join(include_str!("kernels/dialect/metal.h"))
}

/// The source in CUDA's C++.
pub fn cuda() -> String {
    join(include_str!("kernels/dialect/cuda.h"))
}

fn join(dialect: &str) -> String {
    let files = FILES.iter().map(|(_, text)| *text);
    std::iter::once(dialect).chain(files).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_those_of_the_simulator_in_its_order() {
        let includes = include_str!("kernels/all.h").lines().filter_map(|line| line.strip_prefix("#include "));
        let names: Vec<_> = includes.map(|name| name.trim_matches('"')).collect();
        assert_eq!(FILES.map(|(name, _)| name).to_vec(), names);
    }

    #[test]
    fn nothing_is_included_that_a_device_would_have_to_find() {
        for (dialect, included) in [(metal(), vec!["#include <metal_stdlib>"]), (cuda(), vec![])] {
            let found: Vec<_> = dialect.lines().filter(|line| line.starts_with("#include")).collect();
            assert_eq!(found, included);
        }
    }
}
