//! Connections of the program's own HTTP clients (`doctor`, `status --watch`, `bench`): http or https, with the API key
//! that they send. It knows no request.

mod api_secret;
mod connector;
mod scheme;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod trusted;

pub use api_secret::ApiSecret;
pub use connector::{ClientStream, Connector, Duplex};
pub use scheme::Scheme;
pub use trusted::{TrustError, TrustedCertificates};
