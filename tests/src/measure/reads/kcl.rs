//! KCL in a worker's place, where Java and Maven are there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::harness::backend::STREAM;
use crate::harness::{Backend, binary};

/// How long Maven may take.
const BUILD: Duration = Duration::from_secs(300);

/// The built program.
#[derive(Debug)]
pub(super) struct KclReader {
    jar: PathBuf,
    log: PathBuf,
}

impl KclReader {
    /// Builds it in a folder of its own; or says why not.
    pub(super) async fn build(name: &str) -> Result<Self, String> {
        for program in ["java", "mvn"] {
            let there = Command::new("sh").arg("-c").arg(format!("command -v {program}")).output().await;
            if !there.is_ok_and(|there| there.status.success()) {
                return Err(format!("there is no {program}"));
            }
        }
        let folder = binary::scratch(name).map_err(|error| format!("{error:#}"))?.join("kcl");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer/kcl");
        let copy = ["src/main/java/KclReader.java", "pom.xml"];
        for file in copy {
            let (from, to) = (source.join(file), folder.join(file));
            let made =
                to.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::copy(&from, &to));
            made.map_err(|error| format!("{}: {error}", from.display()))?;
        }
        let mut maven = Command::new("mvn");
        maven.args(["-q", "package"]).current_dir(&folder).stdin(Stdio::null()).kill_on_drop(true);
        let built = tokio::time::timeout(BUILD, maven.output()).await;
        let built = built.map_err(|_late| "it was not built in 5 minutes".to_owned())?;
        let built = built.map_err(|error| error.to_string())?;
        let jar = folder.join("target/kcl-reader-1.jar");
        if !built.status.success() || !jar.is_file() {
            let said = String::from_utf8_lossy(&built.stdout).into_owned();
            let first = said.lines().next().unwrap_or("no output");
            return Err(format!("mvn cannot build it: {first}"));
        }
        Ok(Self { jar, log: folder.join("kcl.log") })
    }

    /// Starts it; dropping the process kills it.
    pub(super) fn start(&self, backend: &Backend) -> anyhow::Result<Child> {
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-Daws.cborEnabled=false", "-jar"]).arg(&self.jar);
        java.env("STREAM", STREAM).env("APP", "kcl-reader");
        java.env("KINESIS_ENDPOINT", &backend.endpoints().kinesis);
        java.env("DYNAMODB_ENDPOINT", &backend.endpoints().dynamodb);
        java.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&self.log)?);
        Ok(java.kill_on_drop(true).spawn()?)
    }
}
