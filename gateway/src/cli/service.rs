//! `baton service`: installs and removes a service of systemd or launchd.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};

use super::exit::{CliError, Exit};
use super::output;
use crate::service::{Action, Part, Plan, PlanError, Scope, ServiceManager, ServiceRequest};
use crate::settings::Environment;

/// The arguments of `baton service`.
#[derive(Debug, Args)]
pub struct ServiceArguments {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Write the service's file, start it, and have it started with the machine or its person
    Install(InstallArguments),
    /// Stop the service and remove its file
    Uninstall(UninstallArguments),
}

#[derive(Debug, Args)]
struct InstallArguments {
    #[command(flatten)]
    service: ServiceName,
    /// Arguments of the verb, behind `--`
    #[arg(value_name = "ARGUMENT", last = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Args)]
struct UninstallArguments {
    #[command(flatten)]
    service: ServiceName,
}

#[derive(Debug, Args)]
struct ServiceName {
    /// The verb that it runs: up, stage or gateway
    #[arg(value_enum, value_name = "VERB", hide_possible_values = true)]
    part: Part,
    /// A service of the machine, with the settings in /etc/baton (on macOS /usr/local/etc/baton); needs root
    #[arg(long)]
    system: bool,
    /// Print the file and the commands, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// The reason that a service was not installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such service.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no home to install it in.
    #[error("there is no folder for a person's services: expected HOME to be set")]
    NoHome,
    /// A file that it needs is missing.
    #[error("{path} is missing: {advice}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The way to make it.
        advice: &'static str,
    },
    /// It is not installed.
    #[error("it is not installed: expected {path}", path = path.display())]
    NotInstalled {
        /// The service's file.
        path: PathBuf,
    },
    /// A file cannot be written or removed.
    #[error("cannot change {path}: {cause}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        cause: std::io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The command.
        command: String,
        /// Its status and its last line.
        reason: String,
    },
}

/// Installs or removes a service.
pub(super) fn run(arguments: ServiceArguments, environment: &Environment) -> Result<Exit, CliError> {
    let (name, words, installs) = match arguments.order {
        Order::Install(install) => (install.service, install.arguments, true),
        Order::Uninstall(uninstall) => (uninstall.service, Vec::new(), false),
    };
    let plan = plan(&name, words, environment).map_err(CliError::Service)?;
    if name.dry_run {
        output::print(&described(&plan, installs))?;
        return Ok(Exit::Ok);
    }
    if installs { install(&plan) } else { uninstall(&plan) }.map_err(CliError::Service)?;
    output::print(&if installs {
        format!("{} is installed and runs; its log: {}\n", plan.file.0.display(), plan.log)
    } else {
        format!("{} is removed\n", plan.file.0.display())
    })?;
    Ok(Exit::Ok)
}

fn plan(name: &ServiceName, arguments: Vec<String>, environment: &Environment) -> Result<Plan, ServiceError> {
    let scope = if name.system { Scope::System } else { Scope::User };
    let is_user = scope == Scope::User;
    let home = environment.home.clone().filter(|_| is_user).or((!is_user).then(PathBuf::new));
    let config = environment.config.clone().filter(|_| is_user).or((!is_user).then(PathBuf::new));
    // The owner of the home is the person whose session launchd asks for.
    let user_id = home.as_deref().and_then(|home| fs::metadata(home).ok()).map_or(0, |home| home.uid());
    let file = |cause| ServiceError::File { path: "baton".into(), cause };
    let request = ServiceRequest {
        part: name.part,
        scope,
        program: std::env::current_exe().map_err(file)?,
        arguments,
        home: home.ok_or(ServiceError::NoHome)?,
        config: config.ok_or(ServiceError::NoHome)?,
        user_id,
    };
    let manager = if cfg!(target_os = "macos") { ServiceManager::Launchd } else { ServiceManager::Systemd };
    Ok(Plan::new(manager, &request)?)
}

fn install(plan: &Plan) -> Result<(), ServiceError> {
    if let Some((path, advice)) = plan.needed.iter().find(|(path, _)| !path.exists()) {
        return Err(ServiceError::Missing { path: path.clone(), advice });
    }
    let (path, text) = &plan.file;
    let failed = |cause| ServiceError::File { path: path.clone(), cause };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)?;
    plan.install.iter().try_for_each(perform)
}

fn uninstall(plan: &Plan) -> Result<(), ServiceError> {
    let path = &plan.file.0;
    if !path.exists() {
        return Err(ServiceError::NotInstalled { path: path.clone() });
    }
    plan.stop.iter().try_for_each(perform)?;
    fs::remove_file(path).map_err(|cause| ServiceError::File { path: path.clone(), cause })?;
    plan.forget.iter().try_for_each(perform)
}

fn perform(action: &Action) -> Result<(), ServiceError> {
    let failed = |reason| ServiceError::Command { command: action.command.join(" "), reason };
    let Some((program, arguments)) = action.command.split_first() else { return Ok(()) };
    let reason = match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            let last = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
            output::replace_control_chars(&format!("{}: {last}", output.status))
        }
        Err(error) => error.to_string(),
    };
    if action.may_fail { Ok(()) } else { Err(failed(reason)) }
}

fn described(plan: &Plan, installs: bool) -> String {
    let (path, text) = (plan.file.0.display(), &plan.file.1);
    let commands = |actions: &[Action]| -> String {
        actions.iter().map(|action| format!("$ {}\n", action.command.join(" "))).collect()
    };
    if installs {
        format!("{path}:\n{text}\n{}", commands(&plan.install))
    } else {
        format!("{}$ rm {path}\n{}", commands(&plan.stop), commands(&plan.forget))
    }
}
