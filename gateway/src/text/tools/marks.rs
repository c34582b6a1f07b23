//! Marks: the fixed texts, such as `<tool_call>`, that a model writes around calls and reasoning.

/// The first place in `text` at which one of `marks` begins, and that mark. Of several at this place, the longest.
pub(in crate::text) fn find_first<'m>(text: &str, marks: &[&'m str]) -> Option<(usize, &'m str)> {
    let places = marks.iter().filter(|mark| !mark.is_empty()).filter_map(|&mark| Some((text.find(mark)?, mark)));
    places.min_by_key(|(at, mark)| (*at, std::cmp::Reverse(mark.len())))
}

/// Length in bytes of the longest end of `text` that could become one of `marks` with more text.
pub(in crate::text) fn pending(text: &str, marks: &[&str]) -> usize {
    let longest = |mark: &&str| {
        let mut ends = (1..mark.len()).rev().filter(|&end| mark.is_char_boundary(end));
        ends.find(|&end| text.ends_with(&mark[..end])).unwrap_or(0)
    };
    marks.iter().map(longest).max().unwrap_or(0)
}

/// True if `text` could become one of `marks` with more text.
pub(in crate::text) fn could_become(text: &str, marks: &[&str]) -> bool {
    marks.iter().any(|mark| mark.len() > text.len() && mark.starts_with(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_is_found_and_of_two_at_one_place_the_longer() {
        assert_eq!(find_first("a <b> <c>", &["<c>", "<b>"]), Some((2, "<b>")));
        assert_eq!(find_first("a <b> x", &["<b>", "<b> x"]), Some((2, "<b> x")));
        assert_eq!(find_first("a", &["", "b"]), None);
    }

    #[test]
    fn the_beginning_of_a_mark_is_pending_and_a_complete_one_is_not() {
        assert_eq!(pending("a <to", &["<tool>", "<t"]), 3);
        assert_eq!(pending("a <tool>", &["<tool>"]), 0);
        assert_eq!(pending("x<｜", &["<｜a"]), 4);
        assert!(could_become("<｜", &["<｜a"]) && could_become("", &["<"]) && !could_become("<", &["<"]));
    }
}
