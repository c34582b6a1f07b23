//! The requests of a run: the prompt and the length of the answer for each, all derived from one seed.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::length_distribution::LengthDistribution;
use super::load::Load;
use super::words;

/// Instruction at the end of each prompt. It comes last so that prompts begin with different words and an endpoint
/// finds none of them in its prefix cache. It asks for a long answer because some endpoints stop at the model's
/// end-of-sequence token.
const INSTRUCTION: &str = "\nWrite a very long story that has all of these words in it.";

/// The parameters that all requests have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Seed of all random choices.
    pub seed: u64,
    /// Distribution of the prompts' lengths in tokens.
    pub prompt_tokens: LengthDistribution,
    /// Distribution of the answers' lengths in tokens.
    pub output_tokens: LengthDistribution,
    /// Tokens of a prefix that all prompts share, in addition to their own text. 0 for no prefix.
    pub shared_prefix_tokens: u32,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// Prefix of all requests. Empty if there is none.
    pub(super) prefix: String,
    /// The text of this request alone.
    pub(super) prompt: String,
    /// Most tokens of the answer.
    pub(super) output_tokens: u32,
}

/// An endpoint's tokens of a prompt as a linear function of its words: `fixed + per_word * words`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// Tokens of the instruction at the end and of the text (a chat template) that the endpoint adds to a prompt.
    pub(super) fixed: f64,
    /// Tokens per word.
    pub(super) per_word: f64,
}

/// The size of a prompt, in words and in the tokens that an endpoint counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromptSize {
    pub(super) words: u32,
    pub(super) tokens: u64,
}

/// The independent random streams of a run.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Lengths,
    Arrivals,
    Prefix,
    Words { endpoint: usize },
}

// === impl Workload ===

impl Workload {
    /// Request `index` of load point `point` for `endpoint`. Both endpoints get the same lengths in different words. If
    /// one server is behind both, the prompts of one endpoint do not put those of the other into its prefix cache.
    pub(super) fn request(&self, endpoint: usize, point: u64, index: u64, scale: Scale) -> Request {
        let mut lengths = self.random(Stream::Lengths, point, index);
        let prompt_tokens = self.prompt_tokens.sample(&mut lengths);
        let output_tokens = self.output_tokens.sample(&mut lengths);
        let mut random = self.random(Stream::Words { endpoint }, point, index);
        Request {
            prefix: words::text(scale.words(self.shared_prefix_tokens, 0.0), &mut self.random(Stream::Prefix, 0, 0)),
            // A prompt is never empty, because some endpoints refuse an empty one.
            prompt: prompt(scale.words(prompt_tokens, scale.fixed).max(1), &mut random),
            output_tokens,
        }
    }

    /// A request whose prompt has `words` words. It is sent to learn the tokens that the endpoint counts for them.
    pub(super) fn probe(&self, endpoint: usize, words: u32) -> Request {
        let mut random = self.random(Stream::Words { endpoint }, u64::MAX, words.into());
        Request { prefix: String::new(), prompt: prompt(words, &mut random), output_tokens: 1 }
    }

    /// The times at which the requests of a load point are due.
    pub(super) fn arrivals(&self, load: Load, point: u64, requests: u32) -> Vec<Option<std::time::Duration>> {
        load.arrivals(requests, &mut self.random(Stream::Arrivals, point, 0))
    }

    fn random(&self, stream: Stream, point: u64, index: u64) -> StdRng {
        let stream = match stream {
            Stream::Lengths => 0,
            Stream::Arrivals => 1,
            Stream::Prefix => 2,
            Stream::Words { endpoint } => 3 + endpoint as u64,
        };
        let mut seed = [0; 32];
        for (part, value) in seed.chunks_exact_mut(8).zip([self.seed, stream, point, index]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        StdRng::from_seed(seed)
    }
}

fn prompt(words: u32, random: &mut StdRng) -> String {
    words::text(words, random) + INSTRUCTION
}

// === impl Scale ===

impl Scale {
    /// The scale that is assumed for an endpoint that does not report the tokens of a prompt.
    pub(super) const DEFAULT: Self = Self { fixed: 30.0, per_word: 1.0 };

    /// The line through two prompts. `None` if it does not rise.
    pub(super) fn through(few: PromptSize, many: PromptSize) -> Option<Self> {
        let per_word = (many.tokens as f64 - few.tokens as f64) / (f64::from(many.words) - f64::from(few.words));
        (per_word > 0.0).then_some(Self { fixed: few.tokens as f64 - per_word * f64::from(few.words), per_word })
    }

    /// Number of words that make `tokens` tokens, of which `fixed` are not from words.
    fn words(self, tokens: u32, fixed: f64) -> u32 {
        ((f64::from(tokens) - fixed) / self.per_word).round().max(0.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SCALE: Scale = Scale { fixed: 20.0, per_word: 1.25 };

    fn workload(seed: u64) -> Workload {
        let lengths = |text: &str| text.parse().unwrap();
        Workload {
            seed,
            prompt_tokens: lengths("uniform:50..200"),
            output_tokens: lengths("lognormal:64,0.5"),
            shared_prefix_tokens: 100,
        }
    }

    fn words(text: &str) -> usize {
        text.split_once('\n').map_or(text, |(words, _)| words).split(' ').count()
    }

    #[test]
    fn no_two_prompts_begin_alike_except_for_the_shared_prefix() {
        let workload = workload(1);
        let mut beginnings = HashSet::new();
        let mut prefixes = HashSet::new();
        for endpoint in 0..2 {
            for point in 0..4 {
                for index in 0..200 {
                    let request = workload.request(endpoint, point, index, SCALE);
                    let beginning: Vec<_> = request.prompt.split(' ').take(8).map(str::to_owned).collect();
                    assert!(beginnings.insert(beginning), "{endpoint} {point} {index}: {}", request.prompt);
                    prefixes.insert(request.prefix);
                }
            }
        }
        assert_eq!(prefixes.len(), 1);
        assert_eq!(words(prefixes.iter().next().unwrap()), 80);
    }

    #[test]
    fn a_seed_determines_all_requests_and_endpoints_get_the_same_lengths() {
        let all = |seed, endpoint| -> Vec<_> {
            (0..50).map(|index| workload(seed).request(endpoint, 0, index, SCALE)).collect()
        };
        assert_eq!(all(1, 0), all(1, 0));
        assert_ne!(all(1, 0), all(2, 0));
        let lengths = |requests: Vec<Request>| -> Vec<_> {
            requests.iter().map(|request| (words(&request.prompt), request.output_tokens)).collect()
        };
        assert_eq!(lengths(all(1, 0)), lengths(all(1, 1)));
    }

    #[test]
    fn the_number_of_words_follows_from_the_endpoints_scale() {
        let size = |words, tokens| PromptSize { words, tokens };
        let scale = Scale::through(size(32, 60), size(160, 220)).unwrap();
        assert_eq!(scale, SCALE);
        let workload =
            Workload { prompt_tokens: LengthDistribution::Fixed(120), shared_prefix_tokens: 0, ..workload(1) };
        let request = workload.request(0, 0, 0, scale);
        assert_eq!((words(&request.prompt), request.prefix.as_str()), (80, ""));
        let tiny = Workload { prompt_tokens: LengthDistribution::Fixed(1), ..workload };
        assert_eq!(words(&tiny.request(0, 0, 0, scale).prompt), 1);
        assert_eq!(Scale::through(size(32, 60), size(160, 60)), None);
    }
}
