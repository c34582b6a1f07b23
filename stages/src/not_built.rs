//! The error of a device that this program was built without.

use schema::record::DeviceKind;

/// This program was built without the device.
#[derive(Debug, thiserror::Error)]
#[error(
    "this baton was built without {device}: build it with `cargo build --release --features {device}`{platform}, or \
     use the device cpu"
)]
pub struct NotBuilt {
    /// The device, and the feature that adds it.
    device: &'static str,
    /// Platform on which this works, if not everywhere.
    platform: &'static str,
}

// === impl NotBuilt ===

impl NotBuilt {
    /// The error for a GPU of `kind`.
    pub(crate) fn new(kind: DeviceKind) -> Self {
        match kind {
            DeviceKind::Cpu => Self { device: "cpu", platform: "" },
            DeviceKind::Metal => Self { device: "metal", platform: " on a Mac" },
            DeviceKind::Cuda => Self { device: "cuda", platform: "" },
            DeviceKind::Sim => Self { device: "sim", platform: "" },
        }
    }
}
