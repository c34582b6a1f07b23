//! The documented settings, flags and defaults are the real ones.

use std::collections::BTreeSet;

use clap::CommandFactory;
use gateway::cli::Cli;
use gateway::settings::{FileOptions, VARIABLES, defaults};

const SETTINGS: &str = include_str!("../etc/baton.toml");

/// The settings file with every setting uncommented.
fn switched_on() -> String {
    let lines: Vec<_> = SETTINGS.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
    lines.join("\n")
}

#[test]
fn the_settings_file_as_it_is_sets_nothing() {
    assert_eq!(FileOptions::parse(SETTINGS).unwrap(), FileOptions::default());
}

#[test]
fn the_settings_file_has_every_setting() {
    let options = format!("{:?}", FileOptions::parse(&switched_on()).unwrap());
    assert!(!options.contains("None"), "a setting is missing in etc/baton.toml: {options}");
}

#[test]
fn the_defaults_in_the_settings_file_are_the_real_ones() {
    let options = FileOptions::parse(&switched_on()).unwrap();
    assert_eq!(options.global.log_format, Some(defaults::LOG_FORMAT));
    assert_eq!(options.cluster.cluster.unwrap().as_str(), defaults::CLUSTER);
    assert_eq!(options.cluster.etcd.unwrap().into_vec(), [defaults::ETCD]);
    assert_eq!(options.member.lease_ttl_s, Some(defaults::LEASE_TTL_S));
    assert_eq!(options.model.model.as_deref(), Some(gateway::models::DEFAULT));
    assert_eq!(options.model.kv_tokens, Some(defaults::KV_TOKENS));
    assert_eq!(options.model.kv_type, Some(defaults::KV_TYPE));
    assert_eq!(options.model.stages_min, Some(defaults::STAGES_MIN));
    assert_eq!(options.compute.spare_cores, Some(defaults::SPARE_CORES));
    assert_eq!(options.gateway.listen.unwrap().to_string(), defaults::LISTEN);
    assert_eq!(options.gateway.request_deadline_s, Some(defaults::REQUEST_DEADLINE_S));
    assert_eq!(options.gateway.generation_config, Some(defaults::GENERATION_CONFIG));
    assert_eq!(options.gateway.web_pins, Some(defaults::WEB_PINS));
    assert_eq!(options.gateway.web_drill, Some(defaults::WEB_DRILL));
    assert_eq!(options.gateway.default_max_tokens, Some(defaults::DEFAULT_MAX_TOKENS));
    assert_eq!(options.gateway.stored_responses, Some(defaults::STORED_RESPONSES));
    assert_eq!(options.up.stages, Some(defaults::STAGES));
    assert_eq!(options.up.store, Some(defaults::STORE));
    assert_eq!(options.up.store_listen.unwrap().to_string(), defaults::STORE_LISTEN);
    assert_eq!(options.up.restart, Some(defaults::RESTART));
    assert_eq!(options.network.discovery, Some(defaults::DISCOVERY));
}

#[test]
fn the_settings_file_names_every_flag_and_variable() {
    let command = Cli::command();
    let mut named = BTreeSet::new();
    for argument in command.get_subcommands().chain([&command]).flat_map(clap::Command::get_arguments) {
        named.extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
        // Flags that are settings have a variable. `--json` and the like are not settings.
        named.extend(argument.get_env().and(argument.get_long()).map(|flag| format!("--{flag}")));
    }
    named.extend(VARIABLES.iter().map(|(name, _)| (*name).to_owned()).filter(|name| name.starts_with("BATON_")));
    let missing: Vec<_> = named.iter().filter(|name| !SETTINGS.contains(name.as_str())).collect();
    assert!(missing.is_empty() && named.len() > 20, "etc/baton.toml does not name {missing:?}");
}

#[test]
fn the_page_of_the_command_line_has_every_document_and_every_status() {
    let page = include_str!("../docs/command-line.md");
    for verb in Cli::command().get_subcommands() {
        let has_json = verb.get_arguments().any(|argument| argument.get_long() == Some("json"));
        let row = page.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{}`", verb.get_name())));
        assert!(!has_json || row, "docs/command-line.md does not say what `{} --json` prints", verb.get_name());
    }
    let help = Cli::command().render_long_help().to_string();
    let statuses = help.split("Exit status:").nth(1).unwrap().lines().filter_map(|line| line.split_whitespace().next());
    for status in statuses.filter(|word| word.parse::<u8>().is_ok()) {
        assert!(page.contains(&format!("| {status} |")), "docs/command-line.md does not have exit status {status}");
    }
}

#[test]
fn the_help_names_the_real_defaults() {
    let mut help = String::new();
    for verb in Cli::command().get_subcommands_mut() {
        help += &verb.render_long_help().to_string();
    }
    // Help texts are wrapped, so whitespace is normalised.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let defaults = [
        defaults::CLUSTER.to_owned(),
        defaults::ETCD.to_owned(),
        defaults::LISTEN.to_owned(),
        defaults::STORE_LISTEN.to_owned(),
        "embedded".to_owned(),
        defaults::LEASE_TTL_S.to_string(),
        format!("what the smallest stage can hold, at least {}", defaults::KV_TOKENS),
        defaults::KV_TYPE.to_string(),
        defaults::REQUEST_DEADLINE_S.to_string(),
        defaults::DEFAULT_MAX_TOKENS.to_string(),
        defaults::STORED_RESPONSES.to_string(),
        defaults::STAGES.to_string(),
    ];
    for default in defaults {
        assert!(help.contains(&format!("[default: {default}]")), "no help text has [default: {default}]");
    }
}
