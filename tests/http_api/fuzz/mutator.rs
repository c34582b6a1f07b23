//! Turns a valid body into one that is damaged: in its values, its structure, or its bytes. The same number always
//! gives the same body.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Number, Value, json};

/// Deepest nesting that is made. JSON is parsed to 128 levels.
const DEPTH_MAX: usize = 200;
/// Most items or characters that are made.
const LENGTH_MAX: usize = 5000;
/// Values of a body that is not made larger.
const VALUES_MAX: usize = 20_000;
/// Texts that something may take for more than text.
const TEXTS: &[&str] = &[
    "",
    " ",
    "\0",
    "\u{FFFD}",
    "\u{E000}\u{E001}",
    "\u{202E}txt",
    "e\u{301}🙂👨‍👩‍👧",
    "null",
    "-1",
    "NaN",
    "1e999",
    "<END>",
    "<|im_end|>\n<|im_start|>system",
    "</think><tool_call>",
    "{{ messages }}{% for %}",
    "((((((((((a*)*)*)*",
    "root ::= root",
    "start: start",
    "data: [DONE]\n\n",
    "\r\nHTTP/1.1 200 OK\r\n",
    "resp_0123456789abcdef",
    "../../etc/passwd",
    "$ref",
    "#/definitions/a",
    "auto",
    "required",
    "function",
    "json_schema",
    "assistant",
];

/// A generator of damaged bodies.
pub struct Mutator(StdRng);

impl Mutator {
    /// The generator of the body with this number.
    pub fn new(number: u64) -> Self {
        Self(StdRng::seed_from_u64(number))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// The bytes of `body` with one to five changes. `keys` are names that other bodies have.
    pub fn damaged(&mut self, mut body: Value, keys: &[String]) -> Vec<u8> {
        for _ in 0..=self.below(5) {
            self.change(&mut body, keys);
        }
        let mut bytes = body.to_string().into_bytes();
        if self.below(8) == 0 {
            self.change_bytes(&mut bytes);
        }
        bytes
    }

    /// Changes one value in `body`, chosen at random.
    fn change(&mut self, body: &mut Value, keys: &[String]) {
        let values = count(body);
        if values > VALUES_MAX {
            return;
        }
        let at = self.below(values);
        let (junk, text) = (self.junk(), self.text());
        let choice = self.below(10);
        let Some(value) = nth(body, &mut { at }) else { return };
        match (choice, value) {
            (0..3, value) => *value = junk,
            (3, Value::Object(map)) => drop(remove(self, map)),
            (4, Value::Object(map)) => {
                let (key, value) = (keys.choose(&mut self.0).cloned().unwrap_or(text), junk);
                map.insert(key, value);
            }
            (5, Value::Object(map)) => {
                if let (Some(key), Some(value)) = (keys.choose(&mut self.0), remove(self, map)) {
                    map.insert(key.clone(), value);
                }
            }
            (3..6, Value::Array(items)) => {
                let item = items.first().cloned().unwrap_or(junk);
                let copies = 1 + self.0.random_range(0..40);
                items.extend(std::iter::repeat_n(item, copies));
            }
            (6, value) => *value = json!([value.take()]),
            (7, value) => *value = Value::String(value.to_string()),
            (_, Value::Number(number)) => *number = self.number(number.as_f64().unwrap_or_default()),
            (_, Value::String(old)) => match self.0.random_range(0..3) {
                0 => old.push_str(&text),
                1 => *old = old.repeat(if old.len() < LENGTH_MAX { self.0.random_range(0..50) } else { 1 }),
                _ => *old = old.chars().rev().collect(),
            },
            (_, Value::Bool(flag)) => *flag = !*flag,
            (_, value) => *value = junk,
        }
    }

    /// A value that nothing expects.
    fn junk(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => Value::Bool(self.below(2) == 0),
            2..5 => Value::Number(self.number(1.0)),
            5..8 => Value::String(self.text()),
            8 => json!([]),
            9 => json!({}),
            10 => {
                let (depth, is_array) = (self.below(DEPTH_MAX), self.below(2) == 0);
                (0..depth).fold(json!(1), |inner, _| if is_array { json!([inner]) } else { json!({"type": inner}) })
            }
            _ => {
                let (length, item) = (self.below(LENGTH_MAX), self.below(300));
                Value::Array(vec![json!(item); length])
            }
        }
    }

    fn number(&mut self, near: f64) -> Number {
        let numbers = [
            -near,
            near * 1e10,
            near + 0.5,
            near - 1.0,
            0.0,
            -0.0,
            1e308,
            -1e308,
            5e-324,
            f64::from(u32::MAX),
            f64::from(u32::MAX) + 1.0,
            9.007_199_254_740_993e15,
        ];
        match self.below(5) {
            0 => [i64::MIN, i64::MAX, i64::from(i32::MAX), -1, 0, 2].choose(&mut self.0).map(|number| (*number).into()),
            1 => Some(u64::MAX.into()),
            _ => numbers.choose(&mut self.0).and_then(|number| Number::from_f64(*number)),
        }
        .unwrap_or_else(|| 1.into())
    }

    fn text(&mut self) -> String {
        match self.below(10) {
            0 => "x".repeat(self.below(LENGTH_MAX)),
            1 => (0..self.below(20)).map(|_| self.0.random::<char>()).collect(),
            _ => TEXTS.choose(&mut self.0).map(|text| (*text).to_owned()).unwrap_or_default(),
        }
    }

    /// Damages the bytes themselves.
    fn change_bytes(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len().max(1)).min(bytes.len());
        match self.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.splice(at..at, vec![b'['; 1 + self.below(LENGTH_MAX)]).for_each(drop),
            2 => bytes.extend(bytes.clone()),
            3 => bytes.splice(at..at, [0xF0, 0x9F]).for_each(drop),
            4 => bytes.splice(at..at, *b"1e999").for_each(drop),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.0.random_range(0..8);
                }
            }
        }
    }
}

fn remove(mutator: &mut Mutator, map: &mut Map<String, Value>) -> Option<Value> {
    let keys: Vec<_> = map.keys().cloned().collect();
    keys.choose(&mut mutator.0).and_then(|key| map.remove(key))
}

/// Number of values in `value`, itself included.
fn count(value: &Value) -> usize {
    1 + children(value).map(count).sum::<usize>()
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The value with the number `at` of those in `value`, which has the number 0.
fn nth<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, at)),
        Value::Object(map) => map.values_mut().find_map(|item| nth(item, at)),
        _ => None,
    }
}

/// Every key in `value`.
pub fn keys(value: &Value) -> Vec<String> {
    let own = value.as_object().into_iter().flat_map(Map::keys).cloned();
    own.chain(children(value).flat_map(keys)).collect()
}
