//! The command line: parses it, resolves the settings, runs the verb, and prints an error once.
//!
//! The verbs that run until they are stopped (`up`, `stage`, `gateway`) are in [`crate::run`].

mod arguments;
mod ask;
mod bench;
mod cache;
mod chat;
mod cluster;
mod described;
mod doctor;
mod drill;
mod endpoint;
mod exit;
mod fit;
#[cfg(feature = "tls")]
mod join;
mod launch;
mod logging;
mod logs;
mod manual;
mod model;
mod model_plan;
mod output;
mod pin;
mod pin_arguments;
mod plan;
mod probe;
mod selftest;
mod service;
#[cfg(feature = "tls")]
mod shared_clusters;
#[cfg_attr(not(feature = "otlp"), path = "no_spans.rs")]
mod spans;
mod status;
mod stop;
mod store;
mod support_bundle;
mod table;
#[cfg(feature = "tls")]
mod token;
mod watch;

use schema::Deployment;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

use clap::{CommandFactory, Parser};

pub use arguments::Cli;
use arguments::Verb;
pub use doctor::{Diagnosis, diagnose};
pub use exit::{CliError, Exit};
pub use status::{StatusDocument, render as render_status};

use self::logging::Logging;
use crate::logs::{LogFile, LogFolder};
use crate::run::{self, SwitchWay};
use crate::settings::{
    ClientSettings, ClusterSettings, ComputeSettings, Environment, FileOptions, GatewaySettings, ModelSettings,
    StageSettings, SwitchSettings, TerminalSettings, UpGroups, UpSettings, VARIABLES,
};

/// Runs `baton` with `arguments` (the program's name first).
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match perform(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::print_error(&error, error.advice());
            error.exit().into()
        }
    }
}

/// Prints the help, the version, or the error in the command line.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is no reason to fail.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}

fn perform(cli: Cli) -> Result<Exit, CliError> {
    let environment = Environment::read();
    let file = FileOptions::read(cli.config.as_deref(), &environment.config_paths)?;
    let global = cli.global.or(file.global.clone());
    // Dropped at the end of this function, where it sends the remaining spans.
    let exporter = cli.verb.otlp_endpoint(&file)?.as_ref().map(spans::Exporter::start).transpose()?;
    let spans = exporter.as_ref().map(spans::Exporter::layer);
    let terminal = TerminalSettings::new(&environment);
    let (log_file, no_log_file) = open_log_file(&cli.verb, &file, environment.state.as_deref());
    logging::start(Logging {
        filter: global.log.as_deref().or(environment.rust_log.as_deref()),
        format: global.log_format.unwrap_or_default(),
        colours: terminal.colours,
        long_running: cli.verb.is_long_running(),
        file: log_file,
        spans,
    })?;
    if let Some(error) = no_log_file {
        tracing::warn!(%error, "no log file is written, so `baton logs` will not show this process");
    }
    warn_of_unknown_variables(&environment);
    match cli.verb {
        Verb::Up(arguments) => {
            let groups = UpGroups {
                shared: arguments.shared(&file),
                compute: &arguments.compute.or(file.compute),
                gateway: &arguments.gateway.or(file.gateway),
                keys: &arguments.keys,
                up: &arguments.up.or(file.up),
                network: &arguments.network.or(file.network),
                global: &global,
            };
            let settings = UpSettings::new(groups, cli.config, &environment)?;
            run_service("up", Builder::new_multi_thread(), run::up(settings))
        }
        Verb::Stage(arguments) => {
            let shared = arguments.shared(&file);
            let (follow_stdin, deployment) = (arguments.follow_stdin, arguments.deployment.map(Deployment));
            let (compute, stage) = (arguments.compute.or(file.compute), arguments.stage.or(file.stage));
            let settings = StageSettings::new(shared, &compute, stage, &global, &environment)?;
            let settings = StageSettings { follow_stdin, deployment, ..settings };
            // One thread for everything except compute, because passing a message to another thread costs more than
            // handling it.
            run_service("stage", Builder::new_current_thread(), run::stage(settings))
        }
        #[cfg(feature = "tls")]
        Verb::Join(arguments) => {
            let runtime = start_runtime(Builder::new_current_thread())?;
            let step = runtime.block_on(join::begin(*arguments, file, &global, &environment))?;
            runtime.shutdown_background();
            match step {
                join::Step::Serve(settings) => {
                    run_service("join", Builder::new_current_thread(), run::stage(*settings))
                }
                join::Step::Listed => Ok(Exit::Ok),
            }
        }
        #[cfg(feature = "tls")]
        Verb::Token(arguments) => {
            let cluster = arguments.deed.client().cluster(file, &environment)?;
            run_once(token::run(arguments, &cluster, &environment))
        }
        Verb::Store(arguments) => {
            let options = arguments.deed.cluster().clone().or(file.cluster);
            let cluster = ClusterSettings::for_client(&options, &file.member, &environment)?;
            run_once(store::run(arguments, &cluster))
        }
        Verb::Gateway(arguments) => {
            let shared = arguments.shared(&file);
            let gateway = arguments.gateway.or(file.gateway);
            let settings = GatewaySettings::new(shared, &gateway, &arguments.keys, &global, &environment)?;
            run_service("gateway", Builder::new_multi_thread(), run::gateway(settings))
        }
        Verb::Status(arguments) if arguments.watch => {
            run_once(watch::run(&arguments.client.cluster(file, &environment)?, &terminal))
        }
        Verb::Status(arguments) => {
            run_once(status::run(&arguments.client.cluster(file, &environment)?, arguments.client.json))
        }
        Verb::Plan(arguments) => {
            let (compute, room) = (ComputeSettings::new(&file.compute, 1)?, ModelSettings::new(file.model.clone(), 1)?);
            let (cluster, json) = (arguments.client.cluster(file, &environment)?, arguments.client.json);
            let Some(model) = arguments.hypothetical.model() else {
                let pin = arguments.hypothetical.pin().map_err(|reason| CliError::NoStage { reason })?;
                return run_once(plan::run(&cluster, pin, json));
            };
            let cache = crate::settings::cache(&global, &environment)?;
            run_once(model_plan::run(model, &cache, &cluster, &compute, &room, json))
        }
        Verb::Pin(arguments) => {
            let (cluster, pin) = (arguments.client.cluster(file, &environment)?, arguments.target.pin());
            run_once(pin::run(&cluster, arguments.target.stage, pin, arguments.client.json))
        }
        Verb::Switch(arguments) => {
            let cluster = arguments.cluster.or(file.cluster);
            let cluster = ClusterSettings::for_client(&cluster, &file.member, &environment)?;
            let settings = SwitchSettings::new(cluster, arguments.model, &global, &environment)?;
            let way = match (arguments.cancel, arguments.stop_first) {
                (true, _) => SwitchWay::Cancel,
                (false, true) => SwitchWay::StopFirst,
                (false, false) => SwitchWay::Beside,
            };
            run_service("switch", Builder::new_current_thread(), run::switch(settings, way))
        }
        Verb::Unpin(arguments) => run_once(pin::run(
            &arguments.client.cluster(file, &environment)?,
            arguments.stage,
            None,
            arguments.client.json,
        )),
        Verb::Doctor(arguments) => run_once(doctor::run(&arguments.cluster(file, &environment)?, arguments.json)),
        Verb::Stop(arguments) => run_once(stop::run(arguments, file.cluster, &environment)),
        Verb::Drill(arguments) => {
            let (cache, client) = (crate::settings::cache(&global, &environment)?, ClientSettings::new(&environment)?);
            run_once(drill::run(&arguments, cache.root(), client, environment.names))
        }
        Verb::Chat(arguments) => chat::run(&arguments, &file.gateway, &ClientSettings::new(&environment)?, &terminal),
        Verb::Run(arguments) => launch::run(arguments, &file.gateway, &ClientSettings::new(&environment)?),
        Verb::SupportBundle(arguments) => {
            let cluster = arguments.cluster(&file, &environment)?;
            let config = cli.config.as_deref();
            run_once(support_bundle::run(&arguments, &cluster, &file, config, &environment))
        }
        Verb::Logs(arguments) => run_once(logs::run(arguments, file.cluster, environment.state.as_deref())),
        Verb::Service(arguments) => service::run(arguments, &environment),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man { folder } => manual::pages(&folder),
        Verb::Bench(arguments) => run_once(bench::run(*arguments, ClientSettings::new(&environment)?)),
        Verb::Pull { model } => {
            let model = model.or(file.model.model);
            model::pull(model.as_deref(), &crate::settings::cache(&global, &environment)?)
        }
        Verb::Models(arguments) => {
            let (compute, room) = (ComputeSettings::new(&file.compute, 1)?, ModelSettings::new(file.model.clone(), 1)?);
            let cluster = arguments.client.cluster(file, &environment)?;
            let cache = crate::settings::cache(&global, &environment)?;
            run_once(model::list(&cache, &cluster, &compute, room, (&arguments).into()))
        }
        Verb::Cache(arguments) => cache::run(arguments, &crate::settings::cache(&global, &environment)?),
        Verb::Probe(arguments) => {
            let threads = arguments.compute_options().or(file.compute);
            probe::run(&ComputeSettings::new(&threads, 1)?, arguments.json)
        }
        Verb::Selftest(arguments) => {
            let compute = arguments.compute_options().or(file.compute);
            selftest::run(&ComputeSettings::new(&compute, 1)?, arguments.json)
        }
        Verb::Key => {
            let key = engine::link::ClusterKey::generate().map_err(|source| CliError::Random { source })?;
            output::print(&format!("{}\n", key.to_hex()))?;
            Ok(Exit::Ok)
        }
    }
}

/// Opens the log file of a member, or says why there is none.
fn open_log_file(verb: &Verb, file: &FileOptions, state: Option<&Path>) -> (Option<LogFile>, Option<std::io::Error>) {
    let (Some((cluster, member)), Some(state)) = (verb.log_member(file), state) else { return (None, None) };
    match LogFolder::new(state, &cluster).open(&member, std::process::id()) {
        Ok(file) => (Some(file), None),
        Err(error) => (None, Some(error)),
    }
}

/// Runs a verb that runs until it is stopped.
fn run_service(
    verb: &'static str,
    threads: Builder,
    running: impl Future<Output = Result<(), run::RunError>>,
) -> Result<Exit, CliError> {
    let runtime = start_runtime(threads)?;
    let ended = runtime.block_on(running);
    // Blocking tasks (a fetch, a lookup) are not awaited, because Ctrl-C is to end the process at once.
    runtime.shutdown_background();
    ended.map(|()| Exit::Ok).map_err(|source| CliError::Run { verb, source })
}

/// Runs a verb that ends by itself.
fn run_once(running: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = start_runtime(Builder::new_current_thread())?;
    let ended = runtime.block_on(running);
    runtime.shutdown_background();
    ended
}

/// Files that the runtime has room for before it starts: its event queue, pipes for signals, and a few to spare. Tokio
/// panics if it cannot open those pipes.
const RUNTIME_FILES: usize = 12;

fn start_runtime(mut threads: Builder) -> Result<Runtime, CliError> {
    let files: io::Result<Vec<File>> = (0..RUNTIME_FILES).map(|_| File::open("/dev/null")).collect();
    let started = files.map(drop).and_then(|()| threads.enable_all().build());
    started.map_err(|source| CliError::Runtime { source })
}

/// Warns of unknown variables, because a misspelt variable would otherwise have no effect and no message.
fn warn_of_unknown_variables(environment: &Environment) {
    let known = known_variables();
    for name in environment.names.iter().filter(|name| !known.contains(name)) {
        tracing::warn!(name, known = known.join(" "), "this variable is not known to baton");
    }
}

/// Names of all `BATON_…` variables that `baton` reads.
fn known_variables() -> Vec<String> {
    let command = Cli::command();
    let commands = command.get_subcommands().chain([&command]);
    let of_flags = commands.flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_env);
    let of_flags = of_flags.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<_> = of_flags.chain(VARIABLES.iter().map(|(name, _)| (*name).to_owned())).collect();
    names.sort();
    names.dedup();
    names.retain(|name| name.starts_with("BATON_"));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ApiKeyOptions, KvSize, SharedOptions};

    #[test]
    fn the_variables_of_all_flags_are_known() {
        let known = known_variables();
        for name in ["BATON_ETCD", "BATON_CONFIG", "BATON_LISTEN", "BATON_CLUSTER_KEY", "BATON_STAGES"] {
            assert!(known.contains(&name.to_owned()), "{name} is missing in {known:?}");
        }
    }
    #[test]
    fn a_stage_of_up_reads_the_settings_it_was_given() {
        let key = "ab".repeat(32);
        let cache = Some("/cache".into());
        let rust_log = Some("info,engine=debug".to_owned());
        let environment = Environment { cluster_key: Some(key.clone()), cache, rust_log, ..Environment::default() };
        let toml = "[cluster]\ncluster = \"lab\"\n[member]\nadvertise = \"mini-1\"\nlease_ttl_s = 9\n\
                    [model]\nkv_tokens = 4096\n[compute]\nmemory = \"6GiB\"\nthreads = 3\n[up]\nstages = 3\n";
        let file = FileOptions::parse(toml).unwrap();
        let FileOptions { cluster, member, model, compute, gateway, up, network, global, .. } = &file;
        let shared = SharedOptions { cluster: cluster.clone(), member: member.clone(), model: model.clone() };
        let groups = UpGroups { shared, compute, gateway, keys: &ApiKeyOptions::default(), up, network, global };
        let up = UpSettings::new(groups, None, &environment).unwrap();

        let etcd = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
        let (model, budget) = ("-odd name.gguf".as_ref(), up.compute.memory_budget_bytes.unwrap());
        let arguments = up.stage_arguments(&up.stage_names[1], model, &etcd, Deployment(2), budget);
        assert!(arguments.iter().all(|argument| !argument.to_string_lossy().contains(&key)));
        assert_eq!(up.stage_environment(), [("BATON_CLUSTER_KEY", key)]);
        let cli = Cli::try_parse_from(std::iter::once("baton".into()).chain(arguments)).unwrap();
        assert_eq!(cli.global.log.as_deref(), Some("info,engine=debug"));
        let Verb::Stage(parsed) = cli.verb else { panic!("not a stage: {:?}", cli.verb) };
        assert_eq!((parsed.follow_stdin, parsed.deployment), (true, Some(2)));
        let shared = parsed.shared(&FileOptions::default());
        let stage = StageSettings::new(shared, &parsed.compute, parsed.stage, &cli.global, &environment).unwrap();
        assert_eq!((stage.cluster.cluster, stage.cluster.etcd.endpoints.as_slice()), (up.cluster, &etcd[..]));
        assert_eq!((stage.member, stage.compute, &stage.name), (up.member, up.compute, &up.stage_names[1]));
        assert_eq!((stage.model.model.as_deref(), stage.model.kv), (Some("./-odd name.gguf"), KvSize::Tokens(4096)));
        assert_eq!((stage.model.stages_min, stage.cache.root()), (3, up.cache.root()));
    }
}
