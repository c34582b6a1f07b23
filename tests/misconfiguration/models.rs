//! Model files that differ from the cluster's, and files that are no models.

use std::fs::File;
use std::path::{Path, PathBuf};

use stages::gguf::GgufWriter;

use super::case::{Case, Mistake};
use super::common::model_path;
use super::fixture::Fixture;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("models: another file of the same name", 1, "it is another file", |fixture| {
            let copy = copy(fixture, "other");
            let mut bytes = std::fs::read(&copy).unwrap();
            // Changes a letter of a name in the metadata. The file is still valid, but another one.
            let at = bytes.windows(5).position(|window| window == b"SmolL" || window == b"smoll").expect("a name");
            bytes[at + 1] = b'n';
            std::fs::write(&copy, bytes).unwrap();
            serve(fixture, &copy)
        }),
        Case::ends("models: a text in the place of a model", 1, "expected \"GGUF\", found", |fixture| {
            let path = fixture.path("text.gguf");
            std::fs::write(&path, "once upon a time, there was a model\n".repeat(10)).unwrap();
            serve(fixture, &path)
        }),
        Case::ends("models: half a file", 1, "expected", |fixture| {
            let copy = copy(fixture, "half");
            let file = File::options().write(true).open(&copy).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            serve(fixture, &copy)
        }),
        Case::ends("models: a file that shrinks while it is served", 1, "changed", |fixture| {
            let copy = copy(fixture, "shrinks");
            let mut stage = fixture.baton("stage");
            stage.arg(&copy);
            let mut process = fixture.process(stage);
            super::common::wait_for("it joins", std::time::Duration::from_secs(10), || process.has_logged("joined"));
            let file = File::options().write(true).open(&copy).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            Ok(Mistake::of(process))
        }),
        Case::ends("models: an unknown name", 1, "is not known: expected one of", |fixture| {
            serve(fixture, Path::new("gpt5"))
        }),
        Case::ends("models: a path where nothing is", 1, "No such file", |fixture| {
            let path = fixture.path("nothing.gguf");
            serve(fixture, &path)
        }),
        Case::ends("models: a folder of quantised weights", 1, "expected fp8 with weight_block_size", |fixture| {
            let folder = fixture.path("quantised");
            std::fs::create_dir_all(&folder).unwrap();
            let config = r#"{"model_type": "llama", "quantization_config": {"quant_method": "bitsandbytes"}}"#;
            std::fs::write(folder.join("config.json"), config).unwrap();
            serve(fixture, &folder)
        }),
        Case::ends("models: a part of a split model alone", 1, "expected part 2 of 2, found no such file", |fixture| {
            let path = fixture.path("alone-00001-of-00002.gguf");
            let keys = GgufWriter::new().metadata("split.no", 0_u32).metadata("split.count", 2_u32);
            keys.write_file(&path).unwrap();
            serve(fixture, &path)
        }),
        Case::ends("models: a folder", 1, "is no model: expected a .gguf file, or a folder with", |fixture| {
            let path = fixture.path("folder.gguf");
            std::fs::create_dir_all(&path).unwrap();
            serve(fixture, &path)
        }),
        Case::ends("models: none named, and none in the cache", 1, "fetch it with `baton pull`", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.env_remove("BATON_MODEL").arg("--cache").arg(fixture.path("empty-cache"));
            fixture.start(stage)
        }),
        Case::ends("models: a file that its user may not read", 1, "Permission denied", |fixture| {
            use std::os::unix::fs::PermissionsExt;
            let copy = copy(fixture, "secret");
            std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();
            let mut stage = super::environment::as_nobody(fixture, "stage")?;
            stage.arg(copy).env("XDG_RUNTIME_DIR", "/tmp").env("TMPDIR", "/tmp");
            fixture.start(stage)
        }),
    ]
}

/// A copy of the model with the same file name, in a folder of its own.
fn copy(fixture: &Fixture, folder: &str) -> PathBuf {
    let (folder, model) = (fixture.path(folder), model_path());
    std::fs::create_dir_all(&folder).unwrap();
    let copy = folder.join(model.file_name().unwrap());
    std::fs::copy(&model, &copy).unwrap();
    copy
}

fn serve(fixture: &mut Fixture, model: &Path) -> Result<Mistake, String> {
    let mut stage = fixture.baton("stage");
    stage.arg(model);
    fixture.start(stage)
}
