//! A GBNF grammar, parsed.

/// The rules of a grammar, by number.
pub(super) struct Gbnf {
    pub(super) rules: Vec<Alternatives>,
    /// The number of the rule `root`.
    pub(super) root: usize,
}

/// One of several sequences.
pub(super) type Alternatives = Vec<Sequence>;

/// Items, one after the other. It may be empty.
pub(super) type Sequence = Vec<Item>;

/// A repeated element.
pub(super) struct Item {
    pub(super) element: Element,
    pub(super) repeat: Repeat,
}

/// A part of a sequence.
pub(super) enum Element {
    /// A text.
    Literal(String),
    /// One character within one of the ranges, or within none of them. Both ends belong to a range.
    Class {
        /// True for characters within none.
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// Any character.
    Any,
    /// The rule of this number.
    Rule(usize),
    Group(Alternatives),
}

/// The number of times that an element occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) min: u32,
    /// The most times, or no bound.
    pub(super) max: Option<u32>,
}

// === impl Repeat ===

impl Repeat {
    pub(super) const ONCE: Self = Self { min: 1, max: Some(1) };
}

// === impl Element ===

impl Element {
    /// Calls `visit` with the number of every rule that the element refers to.
    pub(super) fn for_each_rule(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Self::Rule(number) => visit(*number),
            Self::Group(alternatives) => {
                alternatives.iter().flatten().for_each(|item| item.element.for_each_rule(visit));
            }
            Self::Literal(_) | Self::Class { .. } | Self::Any => {}
        }
    }
}
