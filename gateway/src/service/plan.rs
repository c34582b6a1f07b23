//! The files and commands that install or remove a service.

use std::path::PathBuf;

use super::{launchd, systemd};

/// The part of a cluster that a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// `baton up`
    Up,
    /// `baton stage`
    Stage,
    /// `baton gateway`
    Gateway,
}

/// The person or machine that a service belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A person, whose files and rights it has.
    User,
    /// The machine: it starts at boot, under a user of its own where the system has one.
    System,
}

/// The program that runs services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceManager {
    /// Linux.
    Systemd,
    /// macOS.
    Launchd,
}

/// The service that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The verb that it runs.
    pub part: Part,
    /// Its owner.
    pub scope: Scope,
    /// The program's absolute path.
    pub program: PathBuf,
    /// Further arguments, for a person's service. A machine's has a settings file.
    pub arguments: Vec<String>,
    /// The person's home.
    pub home: PathBuf,
    /// The folder of the person's settings (`XDG_CONFIG_HOME`).
    pub config: PathBuf,
    /// The person's number.
    pub user_id: u32,
}

/// One command, whose failure counts or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// True if it may fail, because what it is for may be so already.
    pub may_fail: bool,
}

/// The files and commands, in this order: files are needed, commands before, files written or removed, commands after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Files that have to be there, each with the advice how to make it.
    pub needed: Vec<(PathBuf, &'static str)>,
    /// The service's file and its text.
    pub file: (PathBuf, String),
    /// Commands to install it, after the file was written.
    pub install: Vec<Action>,
    /// Commands to stop it, before the file is removed.
    pub stop: Vec<Action>,
    /// Commands after the file was removed.
    pub forget: Vec<Action>,
    /// The command that shows its log.
    pub log: String,
}

/// The reason that there is no such service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `baton up` belongs to a person.
    #[error("`baton up` is a person's service: leave --system away, or install `stage` and `gateway`")]
    UpOfSystem,
    /// A machine's service has its settings in a file.
    #[error("a service of the machine takes no arguments: expected its settings in {settings}, found {found:?}")]
    Arguments {
        /// The settings file.
        settings: &'static str,
        /// The arguments.
        found: Vec<String>,
    },
}

// === impl Part ===

impl Part {
    /// The verb.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Stage => "stage",
            Self::Gateway => "gateway",
        }
    }
}

// === impl Action ===

impl Action {
    pub(super) fn new(command: &[&str]) -> Self {
        Self { command: command.iter().map(|&word| word.to_owned()).collect(), may_fail: false }
    }

    pub(super) fn that_may_fail(command: &[&str]) -> Self {
        Self { may_fail: true, ..Self::new(command) }
    }
}

// === impl Plan ===

impl Plan {
    /// The plan for `manager`.
    ///
    /// # Errors
    /// [`PlanError`] if there is no such service.
    pub fn new(manager: ServiceManager, request: &ServiceRequest) -> Result<Self, PlanError> {
        let settings = match manager {
            ServiceManager::Systemd => systemd::SETTINGS,
            ServiceManager::Launchd => launchd::SETTINGS,
        };
        if request.scope == Scope::System {
            if request.part == Part::Up {
                return Err(PlanError::UpOfSystem);
            }
            if !request.arguments.is_empty() {
                return Err(PlanError::Arguments { settings, found: request.arguments.clone() });
            }
        }
        Ok(match manager {
            ServiceManager::Systemd => systemd::plan(request),
            ServiceManager::Launchd => launchd::plan(request),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn request(part: Part, scope: Scope, arguments: &[&str]) -> ServiceRequest {
        ServiceRequest {
            part,
            scope,
            program: "/opt/my tools/baton".into(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            home: "/home/me".into(),
            config: "/home/me/.config".into(),
            user_id: 501,
        }
    }

    #[test]
    fn a_service_of_the_machine_has_its_settings_in_a_file() {
        for (manager, settings) in [
            (ServiceManager::Systemd, "/etc/baton/baton.toml"),
            (ServiceManager::Launchd, "/usr/local/etc/baton/baton.toml"),
        ] {
            let up = Plan::new(manager, &request(Part::Up, Scope::System, &[]));
            assert_eq!(up, Err(PlanError::UpOfSystem));
            let stage = Plan::new(manager, &request(Part::Stage, Scope::System, &["--name", "a"])).unwrap_err();
            assert!(stage.to_string().contains(settings), "{stage}");
            let plan = Plan::new(manager, &request(Part::Stage, Scope::System, &[])).unwrap();
            assert!(plan.needed.iter().any(|(path, _)| path.to_str() == Some(settings)), "{:?}", plan.needed);
            assert!(plan.file.1.contains("/opt/my tools/baton") && plan.file.1.contains(settings), "{}", plan.file.1);
        }
    }
}
