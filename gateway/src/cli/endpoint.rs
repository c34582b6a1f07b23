//! The endpoint that `baton chat` and `baton run` use, and its model.

use std::net::SocketAddr;

use clap::Args;

use crate::client::{Endpoint, Scheme, Target};
use crate::settings::{ClientSettings, GatewayOptions, Switch, defaults};

/// The endpoint and the model.
#[derive(Debug, Clone, Args)]
pub struct EndpointArguments {
    /// The endpoint [default: this machine's gateway: http://127.0.0.1:8100, or `listen` of the settings file]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<Endpoint>,
    /// The model to request [default: the first that the endpoint lists]
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
}

// === impl EndpointArguments ===

impl EndpointArguments {
    /// The endpoint with the key of `client`. Without a URL, this machine's gateway as `gateway` configures it.
    pub(super) fn target(&self, gateway: &GatewayOptions, client: &ClientSettings) -> Target {
        let endpoint = self.url.clone().unwrap_or_else(|| own_gateway(gateway));
        Target { endpoint, api_key: client.api_key.clone() }
    }
}

/// The address of the gateway that these options make `baton up` or `baton gateway` start here.
fn own_gateway(options: &GatewayOptions) -> Endpoint {
    let listen: SocketAddr =
        options.listen.unwrap_or_else(|| defaults::LISTEN.parse().expect("a constant that is an address"));
    let https = options.tls == Some(Switch::On) || options.tls_cert.is_some();
    let scheme = if https && cfg!(feature = "tls") { Scheme::Https } else { Scheme::Http };
    // The certificate that baton makes names localhost, whatever the address.
    let host = if listen.ip().is_unspecified() { format!("localhost:{}", listen.port()) } else { listen.to_string() };
    format!("{scheme}://{host}").parse().expect("a socket address is an endpoint")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_url_the_gateway_of_the_settings_file_is_used() {
        let url = |listen: Option<&str>, tls| {
            let options =
                GatewayOptions { listen: listen.map(|a| a.parse().unwrap()), tls, ..GatewayOptions::default() };
            own_gateway(&options).to_string()
        };
        assert_eq!(url(None, None), "http://127.0.0.1:8100");
        assert_eq!(url(Some("0.0.0.0:9000"), Some(Switch::Off)), "http://localhost:9000");
        assert_eq!(url(Some("[::]:9000"), None), "http://localhost:9000");
        assert_eq!(url(Some("10.0.0.7:80"), None), "http://10.0.0.7:80");
        #[cfg(feature = "tls")]
        assert_eq!(url(None, Some(Switch::On)), "https://127.0.0.1:8100");
    }
}
