//! Connections of the program's own HTTP clients (`bench`, `chat`, `doctor`, `status --watch` and others): http or
//! https, with the API key that they send. It knows no request.

mod api_secret;
mod connector;
mod endpoint;
mod events;
mod failure;
mod limits;
mod request;
mod scheme;
mod target;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod trusted;

pub use api_secret::ApiSecret;
pub use connector::{ClientStream, Connector, Duplex};
pub use endpoint::Endpoint;
pub(crate) use events::{Events, ServerEvent};
pub use failure::Failure;
pub(crate) use request::{collect, first_model, reason, send, truncated};
pub use scheme::Scheme;
pub use target::Target;
pub use trusted::{TrustError, TrustedCertificates};
