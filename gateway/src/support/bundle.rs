//! The archive. Everything that goes in passes the redactor.

use std::io::{Seek, Write};

use serde::Serialize;
use zip::ZipWriter;
use zip::result::ZipResult;
use zip::write::SimpleFileOptions;

use super::limits::MEMBER_BYTES_MAX;
use super::redactor::Redactor;

/// A bundle that is being written.
pub struct Bundle<W: Write + Seek> {
    archive: ZipWriter<W>,
    redactor: Redactor,
    members: Vec<String>,
}

// === impl Bundle ===

impl<W: Write + Seek> Bundle<W> {
    /// An empty bundle in `file`.
    pub fn new(file: W, redactor: Redactor) -> Self {
        Self { archive: ZipWriter::new(file), redactor, members: Vec::new() }
    }

    /// Adds a text. Of a long one, the end.
    ///
    /// # Errors
    /// The reason that the archive cannot be written.
    pub fn add_text(&mut self, name: &str, text: &str) -> ZipResult<()> {
        let text = self.redactor.text(text);
        let cut = text.len().saturating_sub(MEMBER_BYTES_MAX);
        let begin = (cut..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        self.archive.start_file(name, SimpleFileOptions::default())?;
        self.archive.write_all(&text.as_bytes()[begin..])?;
        self.members.push(name.to_owned());
        Ok(())
    }

    /// Adds a value as JSON.
    ///
    /// # Errors
    /// The reason that the archive cannot be written, or that the value is no JSON.
    pub fn add_json(&mut self, name: &str, value: &impl Serialize) -> ZipResult<()> {
        let value = serde_json::to_value(value).map_err(std::io::Error::other)?;
        let value = serde_json::to_string_pretty(&self.redactor.json(&value)).map_err(std::io::Error::other)?;
        self.archive.start_file(name, SimpleFileOptions::default())?;
        self.archive.write_all(value.as_bytes())?;
        self.members.push(name.to_owned());
        Ok(())
    }

    /// Ends the archive. Returns the names of what it has.
    ///
    /// # Errors
    /// The reason that the archive cannot be written.
    pub fn finish(self) -> ZipResult<Vec<String>> {
        self.archive.finish()?;
        Ok(self.members)
    }
}
