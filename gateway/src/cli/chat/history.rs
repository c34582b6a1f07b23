//! The lines that were written at the prompt, kept in a file that only its person can read.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most lines that are kept.
const LINES_MAX: usize = 1000;
/// Most bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The lines, the newest last.
#[derive(Debug, Default)]
pub(super) struct History {
    lines: Vec<String>,
    file: Option<PathBuf>,
}

// === impl History ===

impl History {
    /// The lines of `file`. Without one, or if it cannot be read, the history begins empty.
    pub(super) fn open(file: Option<&Path>) -> Self {
        let mut bytes = Vec::new();
        let read = file.and_then(|path| File::open(path).ok());
        let _ = read.map(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let mut history = Self { lines, file: file.map(Path::to_owned) };
        history.bound();
        history
    }

    /// The lines.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Adds a line, unless it repeats the last one or begins with a space. A history that cannot be written costs
    /// nothing but the convenience.
    pub(super) fn add(&mut self, line: &str) {
        if line.trim().is_empty() || line.starts_with(' ') || self.lines.last().is_some_and(|last| last == line) {
            return;
        }
        self.lines.push(line.to_owned());
        self.bound();
        let Some(path) = &self.file else { return };
        let _ = path.parent().map(fs::create_dir_all);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let _ = opened.and_then(|mut file| file.write_all((self.lines.join("\n") + "\n").as_bytes()));
    }

    fn bound(&mut self) {
        self.lines.drain(..self.lines.len().saturating_sub(LINES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baton/chat_history");
        let mut history = History::open(Some(&path));
        for number in 0..LINES_MAX + 5 {
            history.add(&format!("line {number}"));
        }
        history.add("line 1004");
        history.add(" a secret");
        history.add("");
        let read = History::open(Some(&path));
        assert_eq!((read.lines().len(), read.lines().last().unwrap().as_str()), (LINES_MAX, "line 1004"));
        assert_eq!(History::open(None).lines(), [""; 0]);
    }
}
