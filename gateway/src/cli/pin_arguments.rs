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
    /// The stage that is supposed to be pinned, by its name in `baton status`, or alone a model: a name of `baton
    /// models` or a .gguf file
    #[arg(value_name = "STAGE|MODEL")]
    stage: Option<String>,
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
    ///
    /// # Errors
    /// The reason why the stage's name is none, as clap shows it.
    pub(super) fn pin(&self) -> Result<Option<(StageName, Pin)>, String> {
        let (Some(stage), Some(pin)) = (&self.stage, self.kind.pin()) else { return Ok(None) };
        let stage = stage.parse::<StageName>().map_err(|error| format!("{stage:?} is no stage: {error}"))?;
        Ok(Some((stage, pin)))
    }

    /// The model to plan for, if one is given in the place of a stage.
    pub(super) fn model(&self) -> Option<&str> {
        self.stage.as_deref().filter(|_| self.kind.pin().is_none())
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
            assert_eq!(arguments.hypothetical.pin(), Ok(Some(("a".parse().unwrap(), pin))));
            assert_eq!(arguments.hypothetical.model(), None);
        }
        assert!(matches!(parse("plan"), Ok(Verb::Plan(arguments)) if arguments.hypothetical.pin() == Ok(None)));
        let Ok(Verb::Plan(arguments)) = parse("plan ./a.gguf") else { panic!("a model") };
        assert_eq!((arguments.hypothetical.model(), arguments.hypothetical.pin()), (Some("./a.gguf"), Ok(None)));
    }

    #[test]
    fn no_pin_several_pins_and_incomplete_pins_are_refused() {
        for text in ["pin a", "pin a 0..2 --cordon", "pin a 2..2", "pin a 3", "plan a 2..2", "plan --cordon"] {
            assert!(parse(text).is_err(), "{text} was accepted");
        }
    }
}
