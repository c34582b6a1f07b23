//! The address of an OpenTelemetry collector that accepts OTLP over HTTP.

use http::Uri;

use super::options::GatewayOptions;
use super::resolved::SettingsError;

/// The path below the collector's address at which OTLP accepts spans.
const TRACES_PATH: &str = "/v1/traces";

/// The address of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

// === impl OtlpEndpoint ===

impl OtlpEndpoint {
    /// Resolves the setting. If it is missing or empty, no spans are sent.
    ///
    /// # Errors
    /// [`SettingsError::OtlpEndpoint`] if it is not an http address.
    pub fn resolve(options: &GatewayOptions) -> Result<Option<Self>, SettingsError> {
        let Some(given) = options.otlp_endpoint.as_deref().filter(|given| !given.is_empty()) else { return Ok(None) };
        let uri: Option<Uri> = given.parse().ok();
        let is_usable = |uri: &Uri| uri.scheme_str() == Some("http") && uri.query().is_none();
        if uri.as_ref().is_some_and(is_usable) {
            Ok(Some(Self(given.trim_end_matches('/').to_owned())))
        } else {
            Err(SettingsError::OtlpEndpoint { found: given.chars().take(200).collect() })
        }
    }

    /// The address that accepts spans.
    pub fn traces(&self) -> String {
        format!("{}{TRACES_PATH}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(given: &str) -> Result<Option<OtlpEndpoint>, SettingsError> {
        OtlpEndpoint::resolve(&GatewayOptions { otlp_endpoint: Some(given.to_owned()), ..GatewayOptions::default() })
    }

    #[test]
    fn the_path_of_spans_is_added_to_the_collectors_address() {
        let traces = |given| resolve(given).unwrap().map(|endpoint| endpoint.traces());
        assert_eq!(traces("http://mini-1:4318").as_deref(), Some("http://mini-1:4318/v1/traces"));
        assert_eq!(traces("http://mini-1:4318/").as_deref(), Some("http://mini-1:4318/v1/traces"));
        assert_eq!(traces("http://mini-1/otlp").as_deref(), Some("http://mini-1/otlp/v1/traces"));
        assert_eq!((traces(""), OtlpEndpoint::resolve(&GatewayOptions::default()).unwrap()), (None, None));
    }

    #[test]
    fn an_address_that_is_not_http_is_refused() {
        for given in ["mini-1:4318", "https://mini-1:4318", "http://", "grpc://mini-1:4317", "http://a/?b=c", "a b"] {
            let error = resolve(given).unwrap_err().to_string();
            assert!(error.contains(&format!("{given:?}: expected http://<host>:<port>")), "{error}");
        }
    }
}
