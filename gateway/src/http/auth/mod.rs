//! API keys: who may use the pages, and how often. The server asks [`AccessControl`] before it calls a page.
//!
//! A key comes as text (`key_text`, `key_file`), is kept as a digest (`key_digest`) in a [`KeyRing`], and is looked up
//! by what a request presents (`credentials`). Limits count by key (`token_bucket`, `permit`), and so do the metrics
//! (`request_meter`). This room knows no page except the one that is always open, and no socket.

mod access_control;
mod credentials;
mod error;
mod key_digest;
mod key_file;
mod key_limits;
mod key_name;
mod key_ring;
mod key_text;
mod permit;
mod request_meter;
mod token_bucket;

pub use access_control::AccessControl;
pub(crate) use access_control::Caller;
pub(crate) use credentials::presented;
pub use error::ApiKeyError;
pub use key_file::{KeyFileError, parse as parse_key_file};
pub use key_limits::{KeyLimits, Limit};
pub use key_name::KeyName;
pub use key_ring::{GivenKey, KeyRing};
pub use key_text::parse as parse_key;
pub(crate) use key_text::secret_of;
pub(crate) use permit::Permit;
