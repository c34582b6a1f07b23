//! An incremental parser for server-sent events.

use super::limits::EVENT_BYTES_MAX;

/// Splits a stream into its events. Comments and fields other than `data` are skipped.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Bytes of the unfinished line.
    line: Vec<u8>,
    /// Data of the unfinished event.
    data: Option<Vec<u8>>,
    /// True if the last byte was a carriage return, which a line feed may follow.
    after_carriage_return: bool,
}

/// An event is longer than [`EVENT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct EventTooLong;

// === impl Events ===

impl Events {
    /// Takes the next `bytes` of the stream, which may be cut anywhere. Returns the data of the events that they
    /// complete.
    ///
    /// # Errors
    /// [`EventTooLong`], after which the rest of the stream cannot be parsed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, EventTooLong> {
        let mut complete = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_carriage_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => complete.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > EVENT_BYTES_MAX {
                return Err(EventTooLong);
            }
        }
        Ok(complete)
    }

    /// Ends a line. If the line is empty, it ends an event, whose data is returned.
    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take().map(|data| String::from_utf8_lossy(&data).into_owned());
        }
        let value = line
            .strip_prefix(b"data")
            .and_then(|rest| if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b":") });
        if let Some(value) = value {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\ndata: {\"a\": \"é\"}\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\n\
        :\n: ping\n\nid: 7\r\rdata: [DONE]\n\n";
    const EVENTS: [&str; 3] = ["{\"a\": \"é\"}", "two\nlines", "[DONE]"];

    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut() {
        let bytes = STREAM.as_bytes();
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let mut events = Events::default();
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let found: Vec<_> = parts.iter().flat_map(|part| events.push(part).unwrap()).collect();
                assert_eq!(found, EVENTS, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn an_unfinished_event_is_not_returned() {
        assert_eq!(Events::default().push(b"data: half\n").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_event_is_bounded_in_one_line_and_in_many() {
        assert_eq!(Events::default().push(&vec![b'x'; EVENT_BYTES_MAX + 1]), Err(EventTooLong));
        let lines = "data: 0123456789\n".repeat(EVENT_BYTES_MAX / 10);
        assert_eq!(Events::default().push(lines.as_bytes()), Err(EventTooLong));
        assert!(Events::default().push(&b": ping\n".repeat(EVENT_BYTES_MAX)).unwrap().is_empty());
    }
}
