//! A bundle for whoever helps: a zip archive of what baton knows about a cluster and this machine, without secrets.

mod bundle;
mod limits;
mod redactor;

pub use bundle::Bundle;
pub use limits::LOG_BYTES_MAX;
pub use redactor::Redactor;
