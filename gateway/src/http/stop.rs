//! Ends a stream of text at the first stop string in it.
//!
//! A stop string may begin and end anywhere, also inside what one token brought. Text that may yet turn out to be the
//! beginning of one is held back. How the text is cut into pieces never changes the outcome.

/// The stop strings of one sequence and what is held back because of them.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

/// What [`StopStrings::push`] lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that can be given out now.
    pub emit: String,
    /// The stop string that was found: everything from its first character on is dropped.
    pub matched: Option<String>,
}

impl StopStrings {
    /// Watches for `stops`; empty strings among them are ignored.
    #[must_use]
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes the next piece of text; gives out what cannot be part of a stop string any more.
    ///
    /// The stop string that is complete first wins; of those complete at the same character, the longest. After a
    /// match nothing more comes out.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.stopped {
            return Stopped::default();
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_match() {
            let matched = Some(stop.to_owned());
            self.held.truncate(start);
            self.stopped = true;
            return Stopped { emit: std::mem::take(&mut self.held), matched };
        }
        let kept = self.held.split_off(self.held.len() - self.pending());
        Stopped { emit: std::mem::replace(&mut self.held, kept), matched: None }
    }

    /// What is still held back when the stream ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn first_match(&self) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.as_str())));
        found.min_by_key(|(start, stop)| (start + stop.len(), *start))
    }

    /// The length in bytes of the longest end of `held` that begins a stop string.
    fn pending(&self) -> usize {
        let longest = |stop: &String| {
            let ends = (1..stop.len()).rev().filter(|&end| stop.is_char_boundary(end));
            ends.into_iter().find(|&end| self.held.ends_with(&stop[..end])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}
