//! The pin that the arguments of `baton pin` and `baton plan` describe.

use clap::Args;
use schema::record::Pin;
use schema::{ByteSize, LayerRange, StageName};

/// A stage and the pin it is to get. clap ensures that exactly one form of pin is given.
#[derive(Debug, Clone, Args)]
pub(super) struct PinTarget {
    /// The stage, by its name in `baton status`
    #[arg(value_name = "STAGE", requires = "PinKind")]
    pub(super) stage: StageName,
    #[command(flatten)]
    kind: PinKind,
}

/// A stage and a pin for `baton plan`, which also runs without them.
#[derive(Debug, Clone, Args)]
pub(super) struct HypotheticalPin {
    /// The stage that is supposed to be pinned, by its name in `baton status`
    #[arg(value_name = "STAGE", requires = "PinKind")]
    stage: Option<StageName>,
    #[command(flatten)]
    kind: PinKind,
}

#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
struct PinKind {
    /// These layers exactly, such as 0..12: the first is included, the last is not
    #[arg(value_name = "LAYERS", value_parser = layers)]
    layers: Option<LayerRange>,
    /// At most this much memory, such as 6GiB
    #[arg(long, value_name = "SIZE", requires = "stage")]
    memory: Option<ByteSize>,
    /// No layers
    #[arg(long, requires = "stage")]
    exclude: bool,
    /// The layers it holds now, and no others
    #[arg(long, requires = "stage")]
    cordon: bool,
}

fn layers(text: &str) -> Result<LayerRange, String> {
    let ends = text.split_once("..").and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
    let range = ends.and_then(|(start, end)| LayerRange::new(start, end));
    range.ok_or_else(|| "expected FIRST..END with FIRST < END, such as 0..12".to_owned())
}

// === impl PinTarget ===

impl PinTarget {
    /// The pin. clap ensures that there is one.
    pub(super) fn pin(&self) -> Option<Pin> {
        self.kind.pin()
    }
}

// === impl HypotheticalPin ===

impl HypotheticalPin {
    /// The stage and its pin, if they are given.
    pub(super) fn pin(&self) -> Option<(StageName, Pin)> {
        Some((self.stage.clone()?, self.kind.pin()?))
    }
}

// === impl PinKind ===

impl PinKind {
    fn pin(&self) -> Option<Pin> {
        let flag = |set: bool, pin| set.then_some(pin);
        let layers = self.layers.map(Pin::Layers).or(self.memory.map(Pin::Memory));
        layers.or(flag(self.exclude, Pin::Excluded)).or(flag(self.cordon, Pin::Cordoned))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::super::arguments::Verb;
    use super::*;

    fn parse(arguments: &str) -> Result<Verb, String> {
        let cli = Cli::try_parse_from(format!("baton {arguments}").split_whitespace());
        cli.map(|cli| cli.verb).map_err(|error| error.to_string())
    }

    #[test]
    fn each_form_of_pin_is_parsed() {
        let pins = [
            ("0..12", Pin::Layers(LayerRange::new(0, 12).unwrap())),
            ("--memory 6GiB", Pin::Memory("6GiB".parse().unwrap())),
            ("--exclude", Pin::Excluded),
            ("--cordon", Pin::Cordoned),
        ];
        for (text, pin) in pins {
            let Ok(Verb::Pin(arguments)) = parse(&format!("pin a {text}")) else { panic!("{text}") };
            assert_eq!((arguments.target.stage.as_str(), arguments.target.pin()), ("a", Some(pin)));
            let Ok(Verb::Plan(arguments)) = parse(&format!("plan a {text}")) else { panic!("{text}") };
            assert_eq!(arguments.hypothetical.pin(), Some(("a".parse().unwrap(), pin)));
        }
        assert!(matches!(parse("plan"), Ok(Verb::Plan(arguments)) if arguments.hypothetical.pin().is_none()));
    }

    #[test]
    fn no_pin_several_pins_and_incomplete_pins_are_refused() {
        for text in ["pin a", "pin a 0..2 --cordon", "pin a 2..2", "pin a 3", "plan a", "plan --cordon"] {
            assert!(parse(text).is_err(), "{text} was accepted");
        }
    }
}
