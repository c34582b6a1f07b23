//! Writes a GBNF grammar as Lark.
//!
//! A rule is regular if it refers to regular rules only, so not to itself. It becomes a terminal, `T` with its number.
//! Other rules become rules, `r` with their number, and each run of regular items in them a terminal of its own, `X`.

use std::fmt::Write;

use super::syntax::{Alternatives, Element, Gbnf, Item, Repeat};
use crate::grammar::translation::write_literal;

/// The Lark grammar.
pub(super) fn write(gbnf: &Gbnf) -> String {
    let mut writer = Writer { regular: regular_rules(gbnf), runs: Vec::new() };
    let mut lark = format!("start: {}\n", writer.name(gbnf.root));
    for (number, body) in gbnf.rules.iter().enumerate() {
        let body = if writer.regular[number] { writer.terminal(body) } else { writer.rule(body) };
        let _ = writeln!(lark, "{}: {body}", writer.name(number));
    }
    for (number, run) in writer.runs.iter().enumerate() {
        let _ = writeln!(lark, "X{number}: {run}");
    }
    lark
}

struct Writer {
    /// By a rule's number, true if it is regular.
    regular: Vec<bool>,
    /// The terminals that stand for runs of regular items.
    runs: Vec<String>,
}

// === impl Writer ===

impl Writer {
    fn name(&self, rule: usize) -> String {
        format!("{}{rule}", if self.regular[rule] { 'T' } else { 'r' })
    }

    /// The body of a terminal.
    fn terminal(&self, alternatives: &Alternatives) -> String {
        let sequence = |items: &Vec<Item>| self.run(items);
        alternatives.iter().map(sequence).collect::<Vec<_>>().join(" | ")
    }

    /// Regular items, within a terminal.
    fn run(&self, items: &[Item]) -> String {
        if items.is_empty() {
            return "\"\"".to_owned();
        }
        items
            .iter()
            .map(|item| repeated(self.regular_element(&item.element), item.repeat))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn regular_element(&self, element: &Element) -> String {
        match element {
            Element::Literal(text) => {
                let mut literal = String::new();
                write_literal(text, &mut literal);
                literal
            }
            Element::Class { negated, ranges } => class(*negated, ranges),
            Element::Any => "/(?s:.)/".to_owned(),
            Element::Rule(number) => self.name(*number),
            Element::Group(alternatives) => format!("({})", self.terminal(alternatives)),
        }
    }

    /// The body of a rule.
    fn rule(&mut self, alternatives: &Alternatives) -> String {
        let mut written = Vec::with_capacity(alternatives.len());
        for items in alternatives {
            let mut parts = Vec::new();
            let together = |one: &Item, next: &Item| self.is_regular(&one.element) && self.is_regular(&next.element);
            let runs: Vec<&[Item]> = items.chunk_by(together).collect();
            for run in runs {
                parts.push(self.part(run));
            }
            written.push(if parts.is_empty() { "\"\"".to_owned() } else { parts.join(" ") });
        }
        written.join(" | ")
    }

    /// A run of regular items, or one item that is not regular, within a rule.
    fn part(&mut self, items: &[Item]) -> String {
        match items {
            [Item { element: Element::Rule(number), repeat }] => repeated(self.name(*number), *repeat),
            [Item { element: Element::Group(alternatives), repeat }] if !self.is_regular(&items[0].element) => {
                let group = format!("({})", self.rule(alternatives));
                repeated(group, *repeat)
            }
            run => {
                let run = self.run(run);
                self.runs.push(run);
                format!("X{}", self.runs.len() - 1)
            }
        }
    }

    fn is_regular(&self, element: &Element) -> bool {
        let mut regular = true;
        element.for_each_rule(&mut |rule| regular &= self.regular[rule]);
        regular
    }
}

fn repeated(element: String, repeat: Repeat) -> String {
    match (repeat.min, repeat.max) {
        (_, Some(0)) => "\"\"".to_owned(),
        (1, Some(1)) => element,
        (0, Some(1)) => element + "?",
        (0, None) => element + "*",
        (1, None) => element + "+",
        (min, None) => format!("{element}{{{min},}}"),
        (min, Some(max)) => format!("{element}{{{min},{max}}}"),
    }
}

fn class(negated: bool, ranges: &[(char, char)]) -> String {
    if ranges.is_empty() {
        return "/(?s:.)/".to_owned();
    }
    let mut class = format!("/[{}", if negated { "^" } else { "" });
    for (start, end) in ranges {
        let _ = write!(class, "\\x{{{:X}}}-\\x{{{:X}}}", u32::from(*start), u32::from(*end));
    }
    class + "]/"
}

/// By a rule's number, true if it is regular.
fn regular_rules(gbnf: &Gbnf) -> Vec<bool> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); gbnf.rules.len()];
    // References of each rule to rules that are not known to be regular.
    let mut unknown = vec![0_usize; gbnf.rules.len()];
    for (number, body) in gbnf.rules.iter().enumerate() {
        for item in body.iter().flatten() {
            item.element.for_each_rule(&mut |used| {
                users[used].push(number);
                unknown[number] += 1;
            });
        }
    }
    let mut regular = vec![false; gbnf.rules.len()];
    let mut ready: Vec<usize> = (0..gbnf.rules.len()).filter(|&number| unknown[number] == 0).collect();
    while let Some(number) = ready.pop() {
        regular[number] = true;
        for &user in &users[number] {
            unknown[user] -= 1;
            if unknown[user] == 0 {
                ready.push(user);
            }
        }
    }
    regular
}

#[cfg(test)]
mod tests {
    use super::super::to_lark;

    #[test]
    fn rules_that_refer_to_themselves_stay_rules_and_their_runs_become_terminals() {
        let gbnf = r#"
            root  ::= value
            value ::= number | "[" ws (value ("," ws value)*)? "]" ws
            number ::= [0-9]+ ws
            ws ::= " "?
        "#;
        let expected = [
            "start: r0",
            "r0: r1",
            "r1: T2 | X0 (r1 (X1 r1)*)? X2",
            r"T2: /[\x{30}-\x{39}]/+ T3",
            r"T3: /\x{20}/?",
            r"X0: /\x{5B}/ T3",
            r"X1: /\x{2C}/ T3",
            r"X2: /\x{5D}/ T3",
            "",
        ];
        assert_eq!(to_lark(gbnf).unwrap(), expected.join("\n"));
    }

    #[test]
    fn every_form_of_an_element_is_written() {
        let gbnf = r#"root ::= "\"\u00e9" [^"\\\x7F] . ("a" | ) "b"{2} "c"{1,} "d"{0,3} "e"{0} [^] "" "#;
        let root = [
            r"T0: /\x{22}\x{E9}/",
            r"/[^\x{22}-\x{22}\x{5C}-\x{5C}\x{7F}-\x{7F}]/",
            r#"/(?s:.)/ (/\x{61}/ | "")"#,
            r"/\x{62}/{2,2} /\x{63}/+ /\x{64}/{0,3}",
            r#""" /(?s:.)/ """#,
        ];
        assert_eq!(to_lark(gbnf).unwrap(), format!("start: T0\n{}\n", root.join(" ")));
    }
}
