//! The pin that the arguments of `baton pin` and `baton plan` describe.

use clap::Args;
use schema::record::Pin;
use schema::{ByteSize, LayerRange, StageName};

/// A stage and the pin it is to get. clap ensures that exactly one form of pin is given.
#[derive(Debug, Clone, Args)]
pub(super) struct WishedPin {
    /// The stage, by its name in `baton status`
    #[arg(value_name = "STAGE", requires = "Wish")]
    pub(super) stage: StageName,
    #[command(flatten)]
    wish: Wish,
}

/// A stage and a pin for `baton plan`, which also runs without them.
#[derive(Debug, Clone, Args)]
pub(super) struct SupposedPin {
    /// The stage that is supposed to be pinned, by its name in `baton status`
    #[arg(value_name = "STAGE", requires = "Wish")]
    stage: Option<StageName>,
    #[command(flatten)]
    wish: Wish,
}

#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
struct Wish {
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

// === impl WishedPin ===

impl WishedPin {
    /// The pin. clap ensures that there is one.
    pub(super) fn pin(&self) -> Option<Pin> {
        self.wish.pin()
    }
}

// === impl SupposedPin ===

impl SupposedPin {
    /// The stage and its pin, if they are given.
    pub(super) fn pin(&self) -> Option<(StageName, Pin)> {
        Some((self.stage.clone()?, self.wish.pin()?))
    }
}

// === impl Wish ===

impl Wish {
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
    fn a_pin_says_one_thing() {
        let pins = [
            ("0..12", Pin::Layers(LayerRange::new(0, 12).unwrap())),
            ("--memory 6GiB", Pin::Memory("6GiB".parse().unwrap())),
            ("--exclude", Pin::Excluded),
            ("--cordon", Pin::Cordoned),
        ];
        for (said, pin) in pins {
            let Ok(Verb::Pin(wished)) = parse(&format!("pin a {said}")) else { panic!("{said}") };
            assert_eq!((wished.wished.stage.as_str(), wished.wished.pin()), ("a", Some(pin)));
            let Ok(Verb::Plan(supposed)) = parse(&format!("plan a {said}")) else { panic!("{said}") };
            assert_eq!(supposed.supposed.pin(), Some(("a".parse().unwrap(), pin)));
        }
        assert!(matches!(parse("plan"), Ok(Verb::Plan(supposed)) if supposed.supposed.pin().is_none()));
    }

    #[test]
    fn none_several_and_half_are_refused() {
        for said in ["pin a", "pin a 0..2 --cordon", "pin a 2..2", "pin a 3", "plan a", "plan --cordon"] {
            assert!(parse(said).is_err(), "{said} was accepted");
        }
    }
}
