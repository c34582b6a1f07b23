//! The variables and arguments of one start.

use std::path::Path;

use super::table::{LAUNCHERS, Launcher, Setting};

/// The endpoint that a program is to talk to.
#[derive(Debug, Clone, Copy)]
pub struct LaunchTarget<'a> {
    /// The endpoint's address, without a slash at its end.
    pub url: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// The API key. Most programs refuse to start without one, so an endpoint without keys gets a word.
    pub key: Option<&'a str>,
}

/// The environment and the arguments of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program's name for people, by the table.
    pub what: &'static str,
    /// Variables with their values.
    pub variables: Vec<(&'static str, String)>,
    /// Arguments that come before the user's own.
    pub arguments: Vec<String>,
}

/// The key that is sent where none is needed.
const NO_KEY: &str = "none";

// === impl Launch ===

impl Launch {
    /// The start of `program`, a name or a path.
    pub fn new(program: &Path, target: LaunchTarget<'_>) -> Self {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let launcher = launcher(name);
        let fill = |setting: &Setting| fill(setting, target);
        Self {
            what: launcher.what,
            variables: launcher.variables.iter().map(|setting| (setting.name, fill(setting))).collect(),
            arguments: launcher.arguments.iter().map(fill).collect(),
        }
    }
}

fn launcher(name: &str) -> &'static Launcher {
    let known = LAUNCHERS.iter().find(|launcher| launcher.name == name);
    known.unwrap_or(&LAUNCHERS[LAUNCHERS.len() - 1])
}

fn fill(setting: &Setting, target: LaunchTarget<'_>) -> String {
    let v1 = format!("{}/v1", target.url);
    let values =
        [("{url}", target.url), ("{v1}", &v1), ("{model}", target.model), ("{key}", target.key.unwrap_or(NO_KEY))];
    // From left to right, so that braces in a model's name are not filled in again.
    let (mut text, mut rest) = (String::new(), setting.value);
    while let Some(at) = rest.find('{') {
        text += &rest[..at];
        rest = &rest[at..];
        match values.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                text += &if setting.quotes { inside_quotes(value) } else { (*value).to_owned() };
                rest = &rest[name.len()..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text + rest
}

/// The text as it stands between the quotes of JSON, and of TOML's basic strings.
fn inside_quotes(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: LaunchTarget<'_> =
        LaunchTarget { url: "http://127.0.0.1:8100", model: "a \"b\" {key}", key: Some("s3cr3t") };

    #[test]
    fn a_known_program_is_found_by_its_path_and_filled_in_once() {
        let claude = Launch::new(Path::new("/opt/bin/claude"), TARGET);
        let value = |name| &claude.variables.iter().find(|(variable, _)| *variable == name).unwrap().1;
        assert_eq!(value("ANTHROPIC_BASE_URL"), "http://127.0.0.1:8100");
        assert_eq!(value("ANTHROPIC_DEFAULT_HAIKU_MODEL"), "a \"b\" {key}");
        assert_eq!(value("ANTHROPIC_AUTH_TOKEN"), "s3cr3t");
    }

    #[test]
    fn json_and_toml_hold_any_name_of_a_model() {
        let opencode = Launch::new(Path::new("opencode"), TARGET);
        let config: serde_json::Value = serde_json::from_str(&opencode.variables[0].1).unwrap();
        assert_eq!(config["model"], "baton/a \"b\" {key}");
        assert_eq!(config["provider"]["baton"]["options"]["baseURL"], "http://127.0.0.1:8100/v1");
        assert!(config["provider"]["baton"]["models"]["a \"b\" {key}"].is_object());
        let codex = Launch::new(Path::new("codex"), TARGET);
        let toml: String =
            codex.arguments.iter().filter(|word| *word != "-c").map(|line| format!("{line}\n")).collect();
        let toml: toml::Table = toml.parse().unwrap();
        assert_eq!(toml["model"].as_str(), Some("a \"b\" {key}"));
        assert_eq!(toml["model_providers"]["baton"]["base_url"].as_str(), Some("http://127.0.0.1:8100/v1"));
    }

    #[test]
    fn any_other_program_gets_what_libraries_read() {
        let other = Launch::new(Path::new("python3"), LaunchTarget { key: None, ..TARGET });
        assert!(other.variables.contains(&("OPENAI_BASE_URL", "http://127.0.0.1:8100/v1".to_owned())));
        assert!(other.variables.contains(&("OPENAI_API_KEY", "none".to_owned())));
        assert_eq!(other.arguments, [""; 0]);
    }
}
