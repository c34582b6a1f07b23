//! Reads the last lines of several log files, and then the new ones, in the order of their times.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::folder::{LogFolder, MemberLog};
use super::limits::TAIL_BYTES_MAX;
use super::line::LogLine;

/// A line with the member that logged it, and its JSON text.
pub type MemberLine = (String, LogLine, String);

/// The place up to which each file was read.
#[derive(Debug)]
pub struct LogTail {
    folder: LogFolder,
    member: Option<String>,
    read: HashMap<PathBuf, Place>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    inode: u64,
    bytes: u64,
}

// === impl LogTail ===

impl LogTail {
    /// The lines of `member` in `folder`, or of all members.
    pub fn new(folder: LogFolder, member: Option<String>) -> Self {
        Self { folder, member, read: HashMap::new() }
    }

    /// The last `count` lines. What comes after them is left to [`Self::more`].
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn last(&mut self, count: usize) -> io::Result<Vec<MemberLine>> {
        let mut lines = Vec::new();
        for log in self.logs()? {
            let older = read_from(&log.older(), Place::default()).ok();
            let mut text = older.map(|(text, _)| text).unwrap_or_default();
            let (newer, place) = read_from(&log.path, Place::default())?;
            text += &newer;
            self.read.insert(log.path, place);
            lines.extend(parse(&log.member, &text));
        }
        lines.sort_by(|a, b| a.1.timestamp.cmp(&b.1.timestamp));
        Ok(lines.split_off(lines.len().saturating_sub(count)))
    }

    /// The lines since the last call.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn more(&mut self) -> io::Result<Vec<MemberLine>> {
        let mut lines = Vec::new();
        for log in self.logs()? {
            let last = self.read.get(&log.path).copied().unwrap_or_default();
            let (text, place) = read_from(&log.path, last)?;
            self.read.insert(log.path, place);
            lines.extend(parse(&log.member, &text));
        }
        lines.sort_by(|a, b| a.1.timestamp.cmp(&b.1.timestamp));
        Ok(lines)
    }

    fn logs(&self) -> io::Result<Vec<MemberLog>> {
        let mut logs = self.folder.members()?;
        logs.retain(|log| self.member.as_ref().is_none_or(|member| *member == log.member));
        Ok(logs)
    }
}

fn parse(member: &str, text: &str) -> Vec<MemberLine> {
    let parsed = text.lines().filter_map(|text| Some((member.to_owned(), LogLine::parse(text)?, text.to_owned())));
    parsed.collect()
}

/// The whole lines of a file from `last` on, and the place behind them. Of much text only the end is read, and of a
/// file that started anew all of it.
fn read_from(path: &Path, last: Place) -> io::Result<(String, Place)> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    let is_same = found.ino() == last.inode && found.len() >= last.bytes;
    let begin = if is_same { last.bytes } else { 0 }.max(found.len().saturating_sub(TAIL_BYTES_MAX));
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let place = Place { inode: found.ino(), bytes: begin + bytes.len() as u64 };
    Ok((String::from_utf8_lossy(&bytes).into_owned(), place))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn line(second: u32, text: &str) -> String {
        let fields = serde_json::json!({"message": text});
        let timestamp = format!("2026-12-01T10:00:{second:02}Z");
        format!("{}\n", serde_json::json!({"timestamp": timestamp, "level": "INFO", "fields": fields}))
    }

    fn texts(lines: &[MemberLine]) -> Vec<String> {
        lines.iter().map(|(member, line, _)| format!("{member} {}", line.fields["message"].as_str().unwrap())).collect()
    }

    #[test]
    fn lines_of_all_members_come_in_the_order_of_their_times() {
        let state = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(state.path(), &"home".parse().unwrap());
        let (mut a, mut b) = (folder.open("a", 1).unwrap(), folder.open("b", 2).unwrap());
        a.write_all(line(1, "one").as_bytes()).unwrap();
        b.write_all(line(2, "two").as_bytes()).unwrap();
        a.write_all(line(3, "three").as_bytes()).unwrap();
        let mut tail = LogTail::new(folder.clone(), None);
        assert_eq!(texts(&tail.last(2).unwrap()), ["b two", "a three"]);
        assert_eq!(texts(&tail.more().unwrap()), [""; 0]);
        a.write_all(line(5, "five").as_bytes()).unwrap();
        b.write_all(line(4, "four").as_bytes()).unwrap();
        // A line that is not whole yet waits for its rest.
        b.write_all(b"{\"timestamp\":").unwrap();
        assert_eq!(texts(&tail.more().unwrap()), ["b four", "a five"]);
        b.write_all(&line(6, "six").as_bytes()["{\"timestamp\":".len()..]).unwrap();
        assert_eq!(texts(&tail.more().unwrap()), ["b six"]);
        assert_eq!(texts(&LogTail::new(folder, Some("a".to_owned())).last(9).unwrap()), ["a one", "a three", "a five"]);
    }

    #[test]
    fn a_file_that_starts_anew_is_read_from_its_beginning() {
        let state = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(state.path(), &"home".parse().unwrap());
        folder.open("a", 1).unwrap().write_all(line(1, "one").as_bytes()).unwrap();
        let mut tail = LogTail::new(folder.clone(), None);
        assert_eq!(texts(&tail.last(9).unwrap()), ["a one"]);
        let path = folder.path().join("a.1.log");
        fs::rename(&path, path.with_extension("older")).unwrap();
        fs::write(&path, line(2, "two")).unwrap();
        assert_eq!(texts(&tail.more().unwrap()), ["a two"]);
        assert_eq!(texts(&LogTail::new(folder, None).last(9).unwrap()), ["a one", "a two"]);
    }
}
