//! Where spans go: the address of a collector that speaks OTLP over HTTP. Knows nothing of spans.

use http::Uri;

use super::choices::GatewayChoices;
use super::resolved::SettingsError;

/// Where OTLP says that spans are taken, below the collector's address.
const TRACES_PATH: &str = "/v1/traces";

/// The address of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

// === impl OtlpEndpoint ===

impl OtlpEndpoint {
    /// What was said; nothing and an empty text mean that spans go nowhere.
    ///
    /// # Errors
    /// [`SettingsError::OtlpEndpoint`] when it is no address of http.
    pub fn resolve(choices: &GatewayChoices) -> Result<Option<Self>, SettingsError> {
        let Some(said) = choices.otlp_endpoint.as_deref().filter(|said| !said.is_empty()) else { return Ok(None) };
        let uri: Option<Uri> = said.parse().ok();
        let is_usable = |uri: &Uri| uri.scheme_str() == Some("http") && uri.query().is_none();
        if uri.as_ref().is_some_and(is_usable) {
            Ok(Some(Self(said.trim_end_matches('/').to_owned())))
        } else {
            Err(SettingsError::OtlpEndpoint { found: said.chars().take(200).collect() })
        }
    }

    /// Where spans are taken.
    pub fn traces(&self) -> String {
        format!("{}{TRACES_PATH}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(said: &str) -> Result<Option<OtlpEndpoint>, SettingsError> {
        OtlpEndpoint::resolve(&GatewayChoices { otlp_endpoint: Some(said.to_owned()), ..GatewayChoices::default() })
    }

    #[test]
    fn the_path_of_spans_is_added_to_the_collectors_address() {
        let traces = |said| resolve(said).unwrap().map(|endpoint| endpoint.traces());
        assert_eq!(traces("http://mini-1:4318").as_deref(), Some("http://mini-1:4318/v1/traces"));
        assert_eq!(traces("http://mini-1:4318/").as_deref(), Some("http://mini-1:4318/v1/traces"));
        assert_eq!(traces("http://mini-1/otlp").as_deref(), Some("http://mini-1/otlp/v1/traces"));
        assert_eq!((traces(""), OtlpEndpoint::resolve(&GatewayChoices::default()).unwrap()), (None, None));
    }

    #[test]
    fn what_is_no_address_of_http_is_refused() {
        for said in ["mini-1:4318", "https://mini-1:4318", "http://", "grpc://mini-1:4317", "http://a/?b=c", "a b"] {
            let error = resolve(said).unwrap_err().to_string();
            assert!(error.contains(&format!("{said:?}: expected http://<host>:<port>")), "{error}");
        }
    }
}
