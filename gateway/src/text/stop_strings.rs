//! Ends a stream of text at the first stop string in it.
//!
//! A stop string may begin and end anywhere, also inside the text of one token. Text that may still turn out to be the
//! beginning of one is held back. The result does not depend on the pieces in which the text arrives.

/// The stop strings of one sequence and the text held back because of them.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
    /// True if a stop string is part of the text that it ends.
    included: bool,
}

/// The result of [`StopStrings::push`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that can be sent now.
    pub emit: String,
    /// The stop string that was found. Everything after it is dropped, and the string itself unless it is included.
    pub matched: Option<String>,
}

impl StopStrings {
    /// Watches for `stops`. Empty strings among them are ignored.
    #[must_use]
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), stopped: false, included: false }
    }

    /// The same, with the stop string as a part of the text that it ends if `included`.
    #[must_use]
    pub fn including(self, included: bool) -> Self {
        Self { included, ..self }
    }

    /// Takes the next piece of text. Returns the text that can no longer be part of a stop string.
    ///
    /// The stop string that is complete first wins. Of those complete at the same character, the longest wins. After a
    /// match no more text is returned.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.stopped {
            return Stopped::default();
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_match() {
            let end = if self.included { start + stop.len() } else { start };
            let matched = Some(stop.to_owned());
            self.held.truncate(end);
            self.stopped = true;
            return Stopped { emit: std::mem::take(&mut self.held), matched };
        }
        let kept = self.held.split_off(self.held.len() - self.pending());
        Stopped { emit: std::mem::replace(&mut self.held, kept), matched: None }
    }

    /// The text that is still held back when the stream ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn first_match(&self) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.as_str())));
        found.min_by_key(|(start, stop)| (start + stop.len(), *start))
    }

    /// Length in bytes of the longest end of `held` that begins a stop string.
    fn pending(&self) -> usize {
        let longest = |stop: &String| {
            let ends = (1..stop.len()).rev().filter(|&end| stop.is_char_boundary(end));
            ends.into_iter().find(|&end| self.held.ends_with(&stop[..end])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stop_strings(stops: &[&str]) -> StopStrings {
        StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut strings = stop_strings(stops);
        let mut text = String::new();
        let mut matched = None;
        for piece in pieces {
            let stopped = strings.push(piece);
            text.push_str(&stopped.emit);
            matched = matched.or(stopped.matched);
        }
        text.push_str(&strings.finish());
        (text, matched)
    }

    #[test]
    fn a_stop_string_may_begin_and_end_inside_pieces() {
        assert_eq!(run(&["\n\n"], &["one\n", "\ntwo"]), ("one".to_owned(), Some("\n\n".to_owned())));
        assert_eq!(run(&["END"], &["the bEN", "D of it"]), ("the b".to_owned(), Some("END".to_owned())));
    }

    #[test]
    fn a_stop_string_may_be_part_of_the_text() {
        let mut strings = stop_strings(&["END"]).including(true);
        assert_eq!(strings.push("the bE").emit, "the b");
        assert_eq!(strings.push("ND of it"), Stopped { emit: "END".to_owned(), matched: Some("END".to_owned()) });
    }

    #[test]
    fn a_partial_match_that_fails_is_returned() {
        let mut strings = stop_strings(&["</s>"]);
        assert_eq!(strings.push("a </"), Stopped { emit: "a ".to_owned(), matched: None });
        assert_eq!(strings.push("b>"), Stopped { emit: "</b>".to_owned(), matched: None });
        assert_eq!(strings.push("<"), Stopped::default());
        assert_eq!(strings.finish(), "<");
    }

    #[test]
    fn the_stop_string_that_ends_first_matches_and_then_the_longest() {
        assert_eq!(run(&["two", "one"], &["a one two"]).1.as_deref(), Some("one"));
        assert_eq!(run(&["abcd", "bc"], &["xabcd"]), ("xa".to_owned(), Some("bc".to_owned())));
        assert_eq!(run(&["c", "abc"], &["xabc"]), ("x".to_owned(), Some("abc".to_owned())));
    }

    #[test]
    fn no_text_is_returned_after_a_match() {
        let mut strings = stop_strings(&["x"]);
        assert_eq!(strings.push("axb").emit, "a");
        assert_eq!(strings.push("c"), Stopped::default());
        assert_eq!(strings.finish(), "");
    }

    #[test]
    fn empty_stop_strings_are_ignored() {
        assert_eq!(run(&["", ""], &["a", "b"]), ("ab".to_owned(), None));
    }

    #[test]
    fn repeated_prefixes_do_not_hide_a_match() {
        assert_eq!(run(&["aab"], &["a", "a", "a", "b", "c"]), ("a".to_owned(), Some("aab".to_owned())));
        assert_eq!(run(&["éé"], &["xé", "é"]), ("x".to_owned(), Some("éé".to_owned())));
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_how_the_text_is_cut(
            text in "[abé]{0,24}",
            stops in proptest::collection::vec("[abé]{0,4}", 0..4),
            cuts in proptest::collection::vec(any::<bool>(), 24),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut pieces = vec![String::new()];
            for (character, cut) in text.chars().zip(cuts) {
                if cut {
                    pieces.push(String::new());
                }
                pieces.last_mut().unwrap().push(character);
            }
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (emitted, matched) = run(&stops, &pieces);
            prop_assert_eq!(&run(&stops, &[&text]), &(emitted.clone(), matched.clone()));
            match matched {
                Some(stop) => {
                    let expected = format!("{emitted}{stop}");
                    prop_assert!(text.starts_with(&expected));
                }
                None => {
                    prop_assert_eq!(&emitted, &text);
                    prop_assert!(!stops.iter().any(|stop| !stop.is_empty() && text.contains(stop)));
                }
            }
        }
    }
}
