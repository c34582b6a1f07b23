//! `baton run`: starts a program that talks to an endpoint.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use super::endpoint::EndpointArguments;
use super::exit::{CliError, Exit};
use super::output;
use crate::client::{Connector, Failure, first_model};
use crate::launchers::{Launch, LaunchTarget};
use crate::settings::{ClientSettings, GatewayOptions};

/// Timeout for the endpoint's list of models.
const MODELS_TIMEOUT: Duration = Duration::from_secs(10);

/// The arguments of `baton run`.
#[derive(Debug, Args)]
pub struct LaunchArguments {
    #[command(flatten)]
    endpoint: EndpointArguments,
    /// Print the variables for a shell, with the whole command in a remark, and start nothing
    #[arg(long)]
    print: bool,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Asks the endpoint for its model, and becomes the program.
pub(super) fn run(
    arguments: LaunchArguments,
    gateway: &GatewayOptions,
    client: &ClientSettings,
) -> Result<Exit, CliError> {
    let target = arguments.endpoint.target(gateway, client);
    let url = target.endpoint.to_string();
    let connector = Connector::new(target.endpoint.scheme(), &client.trusted);
    let connector = connector.map_err(|cause| CliError::Trust { url: url.clone(), cause })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Runtime { source })?;
    // A program that starts and finds nothing there would say so in its own, longer way.
    let listed = runtime.block_on(first_model(&target, &connector, MODELS_TIMEOUT));
    let listed = listed.map_err(|cause| CliError::Endpoint { url: url.clone(), cause })?;
    let none = || Failure::InvalidResponse { reason: "the endpoint lists no model: name one with --model".to_owned() };
    let model = arguments.endpoint.model.or(listed.map(|listed| listed.id));
    let model = model.ok_or_else(|| CliError::Endpoint { url: url.clone(), cause: none() })?;
    let Some((program, words)) = arguments.command.split_first() else { return Ok(Exit::Usage) };
    let key = target.api_key.as_ref().and_then(|key| key.secret());
    let program = PathBuf::from(program);
    let launch = Launch::new(&program, LaunchTarget { url: &url, model: &model, key });
    if arguments.print {
        output::print(&described(&launch, &program, words))?;
        return Ok(Exit::Ok);
    }
    let mut command = Command::new(&program);
    command.args(&launch.arguments).args(words).envs(launch.variables);
    // Returns only if it fails: the program takes this process's place, with its terminal and its exit status.
    let cause = command.exec();
    Err(CliError::Program { program, cause })
}

fn described(launch: &Launch, program: &std::path::Path, words: &[String]) -> String {
    let exports = launch.variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value)));
    let program = program.to_string_lossy().into_owned();
    let command: Vec<_> =
        [&program].into_iter().chain(&launch.arguments).chain(words).map(|word| quoted(word)).collect();
    format!("# {}\n{}# {}\n", launch.what, exports.collect::<String>(), command.join(" "))
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_.,:=@+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
