//! An incremental parser for server-sent events.

use super::limits::EVENT_BYTES_MAX;

/// Splits a stream into its events. Comments and fields other than `data`, `event` and `id` are skipped.
#[derive(Debug)]
pub(crate) struct Events {
    /// Most bytes of one event.
    bytes_max: usize,
    /// Bytes of the unfinished line.
    line: Vec<u8>,
    /// Data of the unfinished event.
    data: Option<Vec<u8>>,
    /// Its name and its id.
    name: Option<String>,
    id: Option<String>,
    /// True if the last byte was a carriage return, which a line feed may follow.
    after_carriage_return: bool,
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// Its name, if it has one.
    pub(crate) name: Option<String>,
    /// Its id, if it has one.
    pub(crate) id: Option<String>,
    /// Its data.
    pub(crate) data: String,
}

/// An event is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {bytes_max} bytes")]
pub(crate) struct EventTooLong {
    bytes_max: usize,
}

// === impl Events ===

impl Default for Events {
    fn default() -> Self {
        Self::with_bytes_max(EVENT_BYTES_MAX)
    }
}

impl Events {
    /// A parser for events of at most `bytes_max` bytes.
    pub(crate) fn with_bytes_max(bytes_max: usize) -> Self {
        Self { bytes_max, line: Vec::new(), data: None, name: None, id: None, after_carriage_return: false }
    }

    /// Takes the next `bytes` of the stream, which may be cut anywhere. Returns the events that they complete.
    ///
    /// # Errors
    /// [`EventTooLong`], after which the rest of the stream cannot be parsed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, EventTooLong> {
        let mut complete = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_carriage_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => complete.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > self.bytes_max {
                return Err(EventTooLong { bytes_max: self.bytes_max });
            }
        }
        Ok(complete)
    }

    /// Ends a line. If the line is empty, it ends an event, which is returned if it has data.
    fn end_line(&mut self) -> Option<ServerEvent> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let (name, id) = (self.name.take(), self.id.take());
            let data = String::from_utf8_lossy(&self.data.take()?).into_owned();
            return Some(ServerEvent { name, id, data });
        }
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(end + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match &line[..end] {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            b"event" => self.name = text(),
            b"id" => self.id = text(),
            _ => {}
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
                let data: Vec<_> = found.iter().map(|event| event.data.as_str()).collect();
                let names: Vec<_> = found.iter().map(|event| event.name.as_deref()).collect();
                assert_eq!(names, [None, Some("x"), None]);
                assert_eq!(found[2].id.as_deref(), None, "an id belongs to its own event");
                assert_eq!(data, EVENTS, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn an_unfinished_event_is_not_returned() {
        assert_eq!(Events::default().push(b"data: half\n").unwrap(), Vec::<ServerEvent>::new());
    }

    #[test]
    fn an_event_is_bounded_in_one_line_and_in_many() {
        let too_long = EventTooLong { bytes_max: EVENT_BYTES_MAX };
        assert_eq!(Events::default().push(&vec![b'x'; EVENT_BYTES_MAX + 1]), Err(too_long));
        let lines = "data: 0123456789\n".repeat(EVENT_BYTES_MAX / 10);
        assert_eq!(Events::default().push(lines.as_bytes()), Err(too_long));
        assert!(Events::default().push(&b": ping\n".repeat(EVENT_BYTES_MAX)).unwrap().is_empty());
    }
}
