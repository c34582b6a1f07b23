//! An OpenTelemetry collector. It takes spans over HTTP, decodes them and stores them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message;

/// Longest message that the collector reads.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A running collector.
pub(super) struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<ResourceSpans>>>,
}

/// One message: `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

/// The fields of a span that the tests use.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(fixed64, tag = "7")]
    pub(super) start_ns: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_ns: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

// === impl Collector ===

impl Collector {
    /// Starts a collector that takes spans until the test process ends.
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let keep = Arc::clone(&keep);
                std::thread::spawn(move || {
                    while let Some(export) = take(&stream) {
                        keep.lock().unwrap().extend(export.resources);
                        let answer =
                            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                        (&stream).write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        Self { address, taken }
    }

    /// Its address in the form that settings have.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until `enough` holds for the spans received so far, and returns them.
    pub(super) fn wait(&self, timeout: Duration, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let started = Instant::now();
        loop {
            let spans: Vec<Span> = {
                let taken = self.taken.lock().unwrap();
                taken.iter().flat_map(|taken| &taken.scopes).flat_map(|scope| scope.spans.clone()).collect()
            };
            if enough(&spans) {
                return spans;
            }
            assert!(started.elapsed() < timeout, "not enough: {spans:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The service names of the senders, each once.
    pub(super) fn services(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let resources = taken.iter().filter_map(|taken| taken.resource.as_ref());
        let mut names: Vec<_> = resources.map(|resource| text(&resource.attributes, "service.name")).collect();
        names.dedup();
        names
    }
}

// === impl Span ===

impl Span {
    /// The text of an attribute.
    pub(super) fn text(&self, key: &str) -> String {
        text(&self.attributes, key)
    }

    /// The number of an attribute.
    pub(super) fn number(&self, key: &str) -> i64 {
        let value = value(&self.attributes, key).and_then(|value| value.number);
        value.unwrap_or_else(|| panic!("no number {key}: {self:?}"))
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    value(attributes, key).and_then(|value| value.text.clone()).unwrap_or_default()
}

/// Reads the next message of a connection.
fn take(stream: &TcpStream) -> Option<Export> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_ascii_lowercase());
    }
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let length = length.parse().expect("a number");
    assert!(length <= MESSAGE_BYTES_MAX, "{length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Export::decode(&*body).expect("spans as OTLP encodes them"))
}
