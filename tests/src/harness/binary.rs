//! The programs under test: built when a test process first asks for them, so that they are never stale. The measuring
//! programs, which `make` builds, use what it built beside them.
//!
//! `cargo test` builds a package's programs only for tests of that same package, so the tests ask cargo here. They
//! ask for the whole workspace with an example: dependencies then have the same features as under
//! `cargo test --workspace`, and nothing is compiled twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, anyhow, bail};

/// The program.
///
/// # Errors
/// It cannot be built.
pub fn sluicegate() -> anyhow::Result<PathBuf> {
    Ok(built()?.join("sluicegate"))
}

/// An example of the workspace.
///
/// # Errors
/// It cannot be built.
pub fn example(name: &str) -> anyhow::Result<PathBuf> {
    Ok(built()?.join("examples").join(name))
}

/// A folder for what a test leaves behind for people, such as logs.
///
/// # Errors
/// It cannot be made.
pub fn scratch(name: &str) -> anyhow::Result<PathBuf> {
    let target = profile_folder()?.parent().map(Path::to_owned).context("no target folder")?;
    let folder = target.join("tmp").join("sluicegate-tests").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// `target/<profile>`: test programs are in `deps` below it, others in it.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().map(|folder| match folder.parent() {
        Some(profile) if folder.ends_with("deps") => profile,
        Some(_) | None => folder,
    });
    folder.map(Path::to_owned).context("the program is not below a target folder")
}

fn built() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_ref().map(PathBuf::as_path).map_err(|error| anyhow!("{error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    let folder = profile_folder()?;
    let is_test = std::env::current_exe()?.parent().is_some_and(|parent| parent.ends_with("deps"));
    if !is_test && folder.join("sluicegate").is_file() {
        return Ok(folder);
    }
    let profile = folder.file_name().and_then(|name| name.to_str()).context("no profile")?;
    let profile = if profile == "debug" { "dev" } else { profile };
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.args(["build", "--locked", "--quiet", "--workspace", "--profile", profile]);
    command.args(["--bin", "sluicegate", "--example", "custom_sink"]);
    command.arg("--target-dir").arg(folder.parent().context("no target folder")?);
    // What cargo tells the tests of their own package is none of the build's business: ring's build script, for one,
    // runs again when it changes, and everything behind it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    let output = command.output().context("cargo cannot be run")?;
    if !output.status.success() {
        bail!("the programs under test do not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder)
}
