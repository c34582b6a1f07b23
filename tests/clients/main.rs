//! Client libraries that people use, in pinned versions, against a running `baton up` with the default model. Each case
//! is one work of one script beside this file, which checks the answers itself; the script says what its works are.
//! Cases that run at the same time share a cluster.
//!
//! The libraries are fetched once, into the target folder. That needs Python with `venv` (`etc/prepare venv`) and the
//! registries PyPI and npm; Node.js comes from PyPI.

#[path = "../common/mod.rs"]
mod common;

mod bounded;
mod installation;
mod shared_cluster;

use std::fs;
use std::path::Path;
use std::time::Duration;

use installation::Installation;

/// Longest time of a case, on a machine that does other things, too.
const CASE_TIME_MAX: Duration = Duration::from_secs(240);

/// Makes a test of each work of each script, and a list of all.
macro_rules! cases {
    ($($module:ident: $file:literal [$($work:ident),+ $(,)?])+) => {
        /// The scripts with their works.
        const CASES: &[(&str, &[&str])] = &[$(($file, &[$(stringify!($work)),+])),+];

        $(mod $module {
            $(#[test] fn $work() {
                super::run($file, stringify!($work));
            })+
        })+
    };
}

cases! {
    openai_python: "openai_python.py" [
        chat, choosing, scores, stream, schema, tools, completions, embeddings, models, errors, asynchronous,
    ]
    openai_responses: "openai_responses.py" [
        whole, stream, state, tools, formats, reasoning, codex, errors,
    ]
    anthropic: "anthropic_messages.py" [whole, stream, tools, thinking, errors]
    ollama: "ollama_client.py" [models, chat, stream, generate, format, tools, thinking, infill, embed, errors]
    langchain: "langchain_chat.py" [standard, tools, structured, responses, errors]
    litellm: "litellm_calls.py" [chat, stream, tools, schema, completions, errors]
    instructor: "instructor_models.py" [tools, schema, partial, asynchronous]
    llm: "llm_command.py" [chat, schema, tools, options, errors]
    openai_agents: "openai_agents.py" [chat_completions, responses, structured, stream]
    openai_node: "openai_node.mjs" [chat, stream, schema, tools, completions, responses, errors]
    ai_sdk: "ai_sdk.mjs" [chat, stream, object, tools, errors]
}

/// Runs one work of a script, and fails with the script's output.
fn run(script: &str, work: &str) {
    let installation = Installation::get();
    let cluster = shared_cluster::get();
    let url = format!("http://{}", cluster.http);
    let mut command = installation.command(script);
    let output = bounded::output(command.args(["--url", &url, work]), CASE_TIME_MAX);
    let text = output.unwrap_or_else(|error| panic!("{script} {work} {error}"));
    println!("{text}");
}

/// The works that a script defines: methods of `Works` without parameters, in the way Python and JavaScript write them.
fn works_in(path: &Path) -> Vec<String> {
    let (before, after) = match path.extension() {
        Some(extension) if extension == "py" => ("    def ", "(self):"),
        _ => ("  async ", "() {"),
    };
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with("class Works"));
    let works = lines.filter_map(|line| line.strip_prefix(before)?.strip_suffix(after));
    works.filter(|name| !name.starts_with('_')).map(str::to_owned).collect()
}

#[test]
fn every_work_of_every_script_is_a_case() {
    let is_script = |path: &Path| {
        path.extension().is_some_and(|extension| extension == "py" || extension == "mjs")
            && path.file_stem().is_some_and(|stem| stem != "works")
    };
    let folder = fs::read_dir(installation::folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = folder
        .filter(|path| is_script(path))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), works_in(&path)))
        .collect();
    found.sort();
    let mut listed: Vec<_> = CASES
        .iter()
        .map(|(script, works)| ((*script).to_owned(), works.iter().map(|work| (*work).to_owned()).collect()))
        .collect();
    listed.sort();
    assert_eq!(listed, found, "tests/clients/main.rs lists other works than the scripts define");
}
