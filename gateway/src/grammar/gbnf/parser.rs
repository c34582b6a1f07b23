//! Reads GBNF as llama.cpp does.
//!
//! The notation is that of llama.cpp's `grammars/README.md`; its tokens (`<…>`) are not supported.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::syntax::{Alternatives, Element, Gbnf, Item, Repeat, Sequence};
use crate::grammar::GrammarError;
use crate::grammar::limits::{GBNF_NESTING_MAX, GBNF_REPEAT_MAX};

/// Parses `text`.
///
/// # Errors
/// [`GrammarError`] with the place of the mistake.
pub(super) fn parse(text: &str) -> Result<Gbnf, GrammarError> {
    Parser { cursor: Cursor::new(text), numbers: HashMap::new(), rules: Vec::new() }.run()
}

struct Parser<'t> {
    cursor: Cursor<'t>,
    /// The numbers of rules, by name.
    numbers: HashMap<&'t str, usize>,
    rules: Vec<Rule<'t>>,
}

struct Rule<'t> {
    /// The place at which it is named first.
    named: Cursor<'t>,
    body: Option<Alternatives>,
}

// === impl Parser ===

impl<'t> Parser<'t> {
    fn run(mut self) -> Result<Gbnf, GrammarError> {
        self.cursor.skip_space(true);
        while self.cursor.peek().is_some() {
            self.rule()?;
            self.cursor.skip_space(true);
        }
        let root = self.numbers.get("root").copied();
        let root = root.ok_or_else(|| GrammarError::invalid("expected a rule \"root\", found none"))?;
        let names: HashMap<usize, &str> = self.numbers.into_iter().map(|(name, number)| (number, name)).collect();
        let mut rules = Vec::with_capacity(self.rules.len());
        for (number, rule) in self.rules.into_iter().enumerate() {
            let name = names.get(&number).copied().unwrap_or_default();
            rules.push(rule.body.ok_or_else(|| GrammarError::Invalid {
                reason: format!("expected a rule {name:?}, found none"),
                position: Some(rule.named.position()),
            })?);
        }
        Ok(Gbnf { rules, root })
    }

    /// `name ::= alternatives`, up to the end of the line.
    fn rule(&mut self) -> Result<(), GrammarError> {
        let start = self.cursor;
        let (name, number) = self.name()?;
        self.cursor.skip_space(false);
        if !self.cursor.eat("::=") {
            return Err(self.cursor.expected("\"::=\""));
        }
        self.cursor.skip_space(true);
        let body = self.alternatives(0)?;
        if !matches!(self.cursor.peek(), None | Some('\r' | '\n')) {
            return Err(self.cursor.expected("the end of the line"));
        }
        if self.rules[number].body.replace(body).is_some() {
            let reason = format!("expected one rule {name:?}, found another");
            return Err(GrammarError::Invalid { reason, position: Some(start.position()) });
        }
        Ok(())
    }

    /// A rule's name, with its number.
    fn name(&mut self) -> Result<(&'t str, usize), GrammarError> {
        let named = self.cursor;
        let name = self.cursor.eat_while(belongs_to_name);
        if name.is_empty() {
            return Err(self.cursor.expected("the name of a rule (letters, digits, '-' and '_')"));
        }
        let number = *self.numbers.entry(name).or_insert(self.rules.len());
        if number == self.rules.len() {
            self.rules.push(Rule { named, body: None });
        }
        Ok((name, number))
    }

    fn alternatives(&mut self, nesting: usize) -> Result<Alternatives, GrammarError> {
        let mut alternatives = vec![self.sequence(nesting)?];
        while self.cursor.eat("|") {
            self.cursor.skip_space(true);
            alternatives.push(self.sequence(nesting)?);
        }
        Ok(alternatives)
    }

    fn sequence(&mut self, nesting: usize) -> Result<Sequence, GrammarError> {
        let mut sequence = Sequence::new();
        while let Some(element) = self.element(nesting)? {
            self.cursor.skip_space(nesting > 0);
            let repeat = self.repeat(nesting)?;
            sequence.push(Item { element, repeat });
        }
        Ok(sequence)
    }

    /// The next element of a sequence, or none at its end.
    fn element(&mut self, nesting: usize) -> Result<Option<Element>, GrammarError> {
        let Some(first) = self.cursor.peek() else { return Ok(None) };
        let element = match first {
            '"' => self.literal()?,
            '[' => self.class()?,
            '(' => self.group(nesting)?,
            '.' => {
                self.cursor.next();
                Element::Any
            }
            '<' | '!' => {
                return Err(GrammarError::Unsupported {
                    keyword: "special tokens (<…>)".to_owned(),
                    hint: "a grammar can require text only".to_owned(),
                    position: Some(self.cursor.position()),
                });
            }
            first if belongs_to_name(first) => Element::Rule(self.name()?.1),
            _ => return Ok(None),
        };
        Ok(Some(element))
    }

    fn group(&mut self, nesting: usize) -> Result<Element, GrammarError> {
        if nesting >= GBNF_NESTING_MAX {
            let (unit, expected) = ("levels of groups", GBNF_NESTING_MAX);
            return Err(GrammarError::TooLarge { unit, expected, found: nesting + 1 });
        }
        self.cursor.next();
        self.cursor.skip_space(true);
        let alternatives = self.alternatives(nesting + 1)?;
        if !self.cursor.eat(")") {
            return Err(self.cursor.expected("')'"));
        }
        Ok(Element::Group(alternatives))
    }

    /// `"text"`.
    fn literal(&mut self) -> Result<Element, GrammarError> {
        self.cursor.next();
        let mut text = String::new();
        while !self.cursor.eat("\"") {
            text.push(self.character("'\"'")?);
        }
        Ok(Element::Literal(text))
    }

    /// `[a-z_]` or `[^a-z_]`.
    fn class(&mut self) -> Result<Element, GrammarError> {
        self.cursor.next();
        let negated = self.cursor.eat("^");
        let mut ranges = Vec::new();
        while !self.cursor.eat("]") {
            let start = self.character("']'")?;
            let is_range = self.cursor.peek() == Some('-') && self.cursor.peek_second() != Some(']');
            let end = if is_range {
                self.cursor.next();
                self.character("']'")?
            } else {
                start
            };
            if end < start {
                return Err(self
                    .cursor
                    .expected(&format!("a range that ends at {start:?} or above, found {end:?} before")));
            }
            ranges.push((start, end));
        }
        if ranges.is_empty() && !negated {
            return Err(self.cursor.expected("characters in a class, found none before"));
        }
        Ok(Element::Class { negated, ranges })
    }

    /// One character of a text or a class that `end` ends.
    fn character(&mut self, end: &str) -> Result<char, GrammarError> {
        let start = self.cursor;
        match self.cursor.next() {
            None | Some('\r' | '\n') => Err(start.expected(&format!("a character or {end}"))),
            Some('\\') => self.escape(),
            Some(character) => Ok(character),
        }
    }

    /// The character after a backslash.
    fn escape(&mut self) -> Result<char, GrammarError> {
        let start = self.cursor;
        match self.cursor.next() {
            Some('x') => self.code_point(2),
            Some('u') => self.code_point(4),
            Some('U') => self.code_point(8),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some('n') => Ok('\n'),
            Some(character @ ('\\' | '"' | '[' | ']' | '-')) => Ok(character),
            _ => Err(start.expected("one of the escapes \\x \\u \\U \\t \\r \\n \\\\ \\\" \\[ \\] \\-")),
        }
    }

    fn code_point(&mut self, digits: usize) -> Result<char, GrammarError> {
        let start = self.cursor;
        let mistake = || start.expected(&format!("{digits} hexadecimal digits of a character"));
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.cursor.next().and_then(|character| character.to_digit(16));
            code = code << 4 | digit.ok_or_else(mistake)?;
        }
        char::from_u32(code).ok_or_else(mistake)
    }

    /// `*`, `+`, `?`, `{m}`, `{m,}` or `{m,n}`, or nothing, and the white space after it.
    fn repeat(&mut self, nesting: usize) -> Result<Repeat, GrammarError> {
        let repeat = match self.cursor.peek() {
            Some('*') => Repeat { min: 0, max: None },
            Some('+') => Repeat { min: 1, max: None },
            Some('?') => Repeat { min: 0, max: Some(1) },
            Some('{') => return self.counted(nesting),
            _ => return Ok(Repeat::ONCE),
        };
        self.cursor.next();
        self.cursor.skip_space(nesting > 0);
        self.not_repeated()?;
        Ok(repeat)
    }

    fn counted(&mut self, nesting: usize) -> Result<Repeat, GrammarError> {
        let space = nesting > 0;
        self.cursor.next();
        self.cursor.skip_space(space);
        let min = self.count()?;
        self.cursor.skip_space(space);
        let mut max = Some(min);
        if self.cursor.eat(",") {
            self.cursor.skip_space(space);
            let bounded = self.cursor.peek().is_some_and(|digit| digit.is_ascii_digit());
            max = if bounded { Some(self.count()?) } else { None };
            self.cursor.skip_space(space);
        }
        if max.is_some_and(|max| max < min) {
            return Err(self.cursor.expected("a largest count that is not below the smallest one, found one before"));
        }
        if !self.cursor.eat("}") {
            return Err(self.cursor.expected("'}'"));
        }
        self.cursor.skip_space(space);
        self.not_repeated()?;
        Ok(Repeat { min, max })
    }

    fn count(&mut self) -> Result<u32, GrammarError> {
        let start = self.cursor;
        let count = self.cursor.eat_while(|digit| digit.is_ascii_digit()).parse().ok();
        let count = count.filter(|count| *count <= GBNF_REPEAT_MAX);
        count.ok_or_else(|| start.expected(&format!("a count from 0 to {GBNF_REPEAT_MAX}")))
    }

    /// Refuses a repetition of a repetition, whose meaning differs between programs.
    fn not_repeated(&self) -> Result<(), GrammarError> {
        match self.cursor.peek() {
            Some('*' | '+' | '?' | '{') => Err(self.cursor.expected("one repetition (put the first one into a group)")),
            _ => Ok(()),
        }
    }
}

fn belongs_to_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        parse(text).err().unwrap_or_else(|| panic!("{text:?} is taken")).to_string()
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        assert_eq!(mistake("root = \"a\""), "invalid grammar at line 1, column 6: expected \"::=\", found '='");
        assert_eq!(
            mistake("root ::= a\n\n  b ::= \"x\""),
            "invalid grammar at line 1, column 10: expected a rule \"a\", found none"
        );
        assert_eq!(mistake("# only\na ::= \"b\""), "invalid grammar: expected a rule \"root\", found none");
        assert_eq!(mistake("root ::= (\"a\""), "invalid grammar at line 1, column 14: expected ')', found the end");
        assert_eq!(
            mistake("root ::= \"a\nb\""),
            "invalid grammar at line 1, column 12: expected a character or '\"', found '\\n'"
        );
        assert!(
            mistake("root ::= \"\\q\"")
                .starts_with("invalid grammar at line 1, column 12: expected one of the escapes")
        );
        assert!(mistake("root ::= \"\\ud800\"").contains("expected 4 hexadecimal digits of a character"));
        assert!(mistake("root ::= [b-a]").contains("expected a range that ends at 'b' or above"));
        assert!(mistake("root ::= \"a\"\nroot ::= \"b\"").contains("line 2, column 1: expected one rule \"root\""));
        assert!(mistake("root ::= \"a\"{3,1}").contains("not below the smallest"));
        assert!(mistake("root ::= \"a\"{2001}").contains("expected a count from 0 to 2000"));
        assert!(mistake("root ::= \"a\"{99999999999}").contains("expected a count from 0 to 2000"));
        assert!(mistake("root ::= \"a\"+*").contains("expected one repetition"));
        assert!(mistake("root ::= \"a\" )").contains("expected the end of the line, found ')'"));
        assert!(mistake("root ::= *").contains("expected the end of the line, found '*'"));
        assert!(mistake("root ::= []").contains("expected characters in a class"));
        assert!(mistake("").contains("expected a rule \"root\""));
    }

    #[test]
    fn tokens_are_refused_by_name() {
        let error = mistake("root ::= <[1000]> \"a\"");
        assert!(error.starts_with("unsupported: special tokens (<…>) at line 1, column 10"), "{error}");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("root ::= {}\"a\"{}", "(".repeat(levels), ")".repeat(levels));
        assert!(parse(&nested(GBNF_NESTING_MAX)).is_ok());
        assert!(mistake(&nested(GBNF_NESTING_MAX + 1)).contains("expected at most 24 levels of groups, found 25"));
        assert!(mistake(&nested(100_000)).contains("levels of groups"));
    }

    #[test]
    fn groups_and_alternatives_may_span_lines_and_hold_comments() {
        let text = "root ::= # the answer\n  ( \"a\" # first\n | \"b\"\n ) |\n \"c\"\n\n# end";
        let gbnf = parse(text).unwrap();
        assert_eq!(gbnf.rules.len(), 1);
        assert_eq!(gbnf.rules[0].len(), 2);
    }
}
