//! A hub of one repository for tests, which notes what it is asked for and counts the bytes that it sends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The way in which a hub answers requests for ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// With the range.
    Ranges,
    /// With the whole file.
    Whole,
    /// With a range that starts so many bytes later.
    From(u64),
    /// With the range of a file that is said to have so many bytes.
    OfLength(u64),
    /// With a byte less than it says.
    Short,
    /// With more bytes than it says.
    Longer,
    /// Not at all.
    Never,
}

/// A hub whose every repository has the same files.
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    state: Arc<State>,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    answers: Answers,
    /// File, first byte, and one past the last of each request for a file.
    asked: Mutex<Vec<(String, u64, u64)>>,
    sent: AtomicU64,
}

// === impl Hub ===

impl Hub {
    /// Starts a hub with these files.
    pub(crate) fn start(files: &[(&str, &[u8])], answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let state = Arc::new(State { files, answers, asked: Mutex::default(), sent: AtomicU64::new(0) });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || drop(state.answer(stream.unwrap())));
            }
        });
        Self { endpoint, state }
    }

    /// Bytes of files that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// First byte and one past the last of each request for `file`, in order.
    pub(crate) fn ranges(&self, file: &str) -> Vec<(u64, u64)> {
        let asked = self.state.asked.lock().unwrap();
        asked.iter().filter(|(name, ..)| name == file).map(|(_, first, end)| (*first, *end)).collect()
    }

    /// Forgets what it was asked for.
    pub(crate) fn forget(&self) {
        self.state.asked.lock().unwrap().clear();
        self.state.sent.store(0, Ordering::SeqCst);
    }
}

// === impl State ===

impl State {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        if self.answers == Answers::Never {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let line = lines.next().unwrap_or(Ok(String::new()))?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut range = None;
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if let Some((first, last)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
                range = Some((first.parse::<u64>().unwrap(), last.parse::<u64>().unwrap()));
            }
            if line.is_empty() {
                break;
            }
        }
        if path.starts_with("/api/models/") {
            let siblings: Vec<_> = self.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            let body = serde_json::json!({"sha": "c0ffee", "siblings": siblings}).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            return stream.write_all((head + &body).as_bytes());
        }
        let name = path.split_once("/resolve/main/").map(|(_, name)| name);
        let Some((name, bytes)) = name.and_then(|name| self.files.get_key_value(name)) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        };
        let length = bytes.len() as u64;
        let (Some((first, last)), true) = (range, self.answers != Answers::Whole) else {
            self.asked.lock().unwrap().push((name.clone(), 0, length));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            return self.send(&mut stream, bytes);
        };
        let end = (last + 1).min(length);
        self.asked.lock().unwrap().push((name.clone(), first, end));
        let body = &bytes[first.min(end) as usize..end as usize];
        let (shift, claimed) = match self.answers {
            Answers::From(shift) => (shift, length),
            Answers::OfLength(claimed) => (0, claimed),
            _ => (0, length),
        };
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {}-{}/{claimed}\r\nconnection: close\r\n\r\n",
            first + shift,
            (end - 1).max(first + shift)
        );
        stream.write_all(head.as_bytes())?;
        match self.answers {
            Answers::Short => self.send(&mut stream, &body[..body.len() - 1]),
            Answers::Longer => self.send(&mut stream, &[body, &[7; 4096]].concat()),
            _ => self.send(&mut stream, body),
        }
    }

    /// Sends `bytes` in pieces, and counts those that were taken.
    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(16 << 10) {
            stream.write_all(piece)?;
            self.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        Ok(())
    }
}
