//! A real etcd of one member on this machine's loopback address, with its data in a folder: a process that ends with
//! this one.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use engine::store::{EtcdStore, Store};
use tokio::process::{Child, Command};

/// Time for it to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval of the checks whether it answers.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Time for it to end in good order before it is killed, which its data outlives.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// Places in which packages put the program, for a `PATH` that lacks them.
const PLACES: [&str; 3] = ["/usr/bin/etcd", "/usr/local/bin/etcd", "/opt/homebrew/bin/etcd"];
/// The member's name, which its data keeps.
const NAME: &str = "baton";
/// The address for other members, which there are none of: a socket in the data's folder.
const PEER: &str = "unix://peer:0";
/// Time for which it keeps its history. Without an end, its data would grow until it takes no writes.
const HISTORY: &str = "1h";

/// A running etcd. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct EtcdProcess {
    child: Child,
    end: EndLater,
}

/// The reason that etcd did not start.
#[derive(Debug, thiserror::Error)]
pub enum EtcdProcessError {
    /// The program is not here.
    #[error(
        "etcd is not installed: expected it in PATH or in {}; Debian has it as etcd-server, Homebrew as etcd",
        PLACES.join(", ")
    )]
    NotInstalled,
    /// The system failed.
    #[error("cannot {doing}")]
    Io {
        /// The deed.
        doing: &'static str,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// It ended at once.
    #[error(
        "etcd ended with {status} when it was started with its data in {folder}: its reason is above",
        folder = folder.display()
    )]
    Ended {
        /// Its status.
        status: ExitStatus,
        /// The folder of its data.
        folder: PathBuf,
    },
    /// It does not answer.
    #[error(
        "etcd does not answer at {address} within {} s: does another process use its data in {folder}?",
        START_TIMEOUT.as_secs(), folder = folder.display()
    )]
    Silent {
        /// The address.
        address: SocketAddr,
        /// The folder of its data.
        folder: PathBuf,
    },
}

// === impl EtcdProcess ===

impl EtcdProcess {
    /// Starts it with the data in `folder`, which is made if it is missing, and waits until it answers at `address`.
    ///
    /// # Errors
    /// [`EtcdProcessError`] if it is not installed or does not get ready.
    pub(crate) async fn start(folder: &Path, address: SocketAddr) -> Result<Self, EtcdProcessError> {
        make_folder(folder).map_err(|cause| EtcdProcessError::Io { doing: "make a folder for etcd", cause })?;
        let child = spawn(folder, address)?;
        let end = EndLater::arm(child.id().unwrap_or_default());
        let end = end.map_err(|cause| EtcdProcessError::Io { doing: "start sh, which ends etcd", cause })?;
        let mut process = Self { child, end };
        let started = Instant::now();
        loop {
            let answers = answers(address).await;
            // Another server may answer there.
            if let Ok(Some(status)) = process.child.try_wait() {
                process.end.disarm();
                return Err(EtcdProcessError::Ended { status, folder: folder.to_owned() });
            }
            if answers {
                return Ok(process);
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(EtcdProcessError::Silent { address, folder: folder.to_owned() });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The process id.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.end.disarm();
        status
    }

    /// Kills it, as a power failure does.
    ///
    /// # Errors
    /// The system's reason.
    pub(crate) async fn kill(mut self) -> io::Result<()> {
        let killed = self.child.kill().await;
        self.end.disarm();
        killed
    }

    /// Ends it in good order, or kills it.
    pub(crate) async fn stop(mut self) {
        self.end.now();
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Makes the folder of the data, which only this user can read, as etcd wants it.
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn spawn(folder: &Path, address: SocketAddr) -> Result<Child, EtcdProcessError> {
    let programs = ["etcd"].into_iter().chain(PLACES);
    for program in programs {
        match command(program, folder, address).spawn() {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(EtcdProcessError::Io { doing: "start etcd", cause }),
        }
    }
    Err(EtcdProcessError::NotInstalled)
}

fn command(program: &str, folder: &Path, address: SocketAddr) -> Command {
    let client = format!("http://{address}");
    let mut command = Command::new(program);
    command.args(["--name", NAME, "--data-dir", "data", "--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client, "--listen-peer-urls", PEER]);
    command.args(["--initial-advertise-peer-urls", PEER, "--initial-cluster", &format!("{NAME}={PEER}")]);
    command.args(["--auto-compaction-mode", "periodic", "--auto-compaction-retention", HISTORY]);
    command.args(["--logger", "zap", "--log-level", "error"]).current_dir(folder);
    // In a process group of its own, so that Ctrl-C in a terminal does not reach it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).process_group(0);
    command
}

async fn answers(address: SocketAddr) -> bool {
    let Ok(store) = EtcdStore::connect(&[format!("http://{address}")]).await else { return false };
    store.read("/baton/").await.is_ok()
}

/// Ends a process in good order when it is asked to, and when this process dies: a small shell waits for the end of its
/// standard input, whose other end is held here.
#[derive(Debug)]
struct EndLater(Child);

// === impl EndLater ===

impl EndLater {
    fn arm(pid: u32) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "cat > /dev/null; kill -TERM \"$1\"", "sh", &pid.to_string()]);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        shell.spawn().map(Self)
    }

    /// Ends the process now.
    fn now(&mut self) {
        drop(self.0.stdin.take());
    }

    /// Will do nothing, because the process has ended, and another may have its number soon.
    fn disarm(&mut self) {
        let _ = self.0.start_kill();
    }
}
