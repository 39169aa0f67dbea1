//! Processes from outside: signals by id, and which of them a test has started, however indirectly.

use std::path::Path;

use anyhow::Context;
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// Sends a signal to a process.
///
/// # Errors
/// There is no such process.
pub fn signal(id: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal).with_context(|| format!("process {id} cannot be signalled"))
}

/// The variable that marks a process and, by inheritance, all that it starts.
pub const MARK: &str = "SLUICEGATE_TESTS_MARK";

/// Ids of all running processes that carry this mark. One that has ended and was not yet waited for does not count.
///
/// # Errors
/// `/proc` cannot be read.
pub fn marked(mark: &str) -> anyhow::Result<Vec<u32>> {
    let wanted = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("/proc cannot be read")? {
        let path = entry?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        if has_variable(&path, wanted.as_bytes()) && is_running(&path) {
            found.push(id);
        }
    }
    Ok(found)
}

/// A process that vanishes meanwhile, or is somebody else's, has nothing of ours.
fn has_variable(process: &Path, wanted: &[u8]) -> bool {
    let environment = std::fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
}

fn is_running(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    // `pid (name) state …`; the name may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
