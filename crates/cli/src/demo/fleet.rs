//! The worker processes: started, frozen, killed by their id, and ended.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::backend::{Endpoints, log_file};
use super::{APPLICATION, STREAM, TABLE};

/// What every worker is started with.
#[derive(Debug, Clone)]
pub(super) struct FleetSettings {
    pub(super) endpoints: Endpoints,
    pub(super) failover_time: Duration,
    pub(super) logs: Option<PathBuf>,
}

/// All workers that are meant to be alive.
pub(super) struct Fleet {
    settings: FleetSettings,
    workers: Vec<Process>,
    started: usize,
}

/// One worker process.
pub(super) struct Process {
    /// Its number, from 1.
    pub(super) number: usize,
    child: Child,
    /// Its id in the worker table and where its admin server listens, once its first heartbeat told.
    pub(super) known: Option<Known>,
}

/// What a worker's row says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) worker_id: String,
    pub(super) address: String,
}

/// Longest a worker may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

impl Fleet {
    pub(super) fn new(settings: FleetSettings) -> Self {
        Self { settings, workers: Vec::new(), started: 0 }
    }

    /// Starts one more worker.
    pub(super) fn start_worker(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        let number = self.started;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", "--embedded", "--until-stdin-closes", "--admin", "127.0.0.1:0"]);
        command.args(["--stream", STREAM, "--application", APPLICATION, "--table", TABLE]);
        command.env("AWS_ENDPOINT_URL_KINESIS", &self.settings.endpoints.kinesis);
        command.env("AWS_ENDPOINT_URL_DYNAMODB", &self.settings.endpoints.dynamodb);
        let failover_time = humantime::format_duration(self.settings.failover_time).to_string();
        for (name, value) in [
            ("FAILOVER_TIME", failover_time.as_str()),
            ("SAFETY_MARGIN", "200ms"),
            // The embedded backend has no read quota, and the point is to see events arrive.
            ("MIN_READ_INTERVAL", "20ms"),
            ("IDLE_READ_INTERVAL", "100ms"),
            ("MAX_BATCH_AGE", "500ms"),
            ("COMMIT_DELAY", "500ms"),
            // Every published event is compared with what is read, so the environment may leave none out.
            ("FILTER", "none"),
            ("FIELDS", "none"),
            ("REDUCE", "none"),
        ] {
            command.env(format!("{}{name}", sluicegate_worker::config::ENV_PREFIX), value);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        command.stderr(log_file(self.settings.logs.as_deref(), &format!("worker-{number}"))?);
        // A group of its own: Ctrl-C is for the demo, which ends them.
        command.process_group(0);
        let child = command.spawn().context("a worker cannot be started")?;
        self.workers.push(Process { number, child, known: None });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn workers(&mut self) -> &mut [Process] {
        &mut self.workers
    }

    /// Tells a process which row is its own: rows name the process id.
    pub(super) fn recognize(&mut self, worker_id: &str, address: &str, pid: u32) {
        for worker in &mut self.workers {
            if worker.child.id() == Some(pid) {
                worker.known = Some(Known { worker_id: worker_id.to_owned(), address: address.to_owned() });
            }
        }
    }

    /// Index of the worker of this id.
    pub(super) fn index_of(&self, worker_id: &str) -> Option<usize> {
        let is = |worker: &Process| worker.known.as_ref().is_some_and(|known| known.worker_id == worker_id);
        self.workers.iter().position(is)
    }

    /// Number of the worker of this id, for people.
    pub(super) fn number_of(&self, worker_id: &str) -> Option<usize> {
        self.index_of(worker_id).map(|index| self.workers[index].number)
    }

    pub(super) fn worker_id(&self, index: usize) -> &str {
        self.workers[index].known.as_ref().map_or("", |known| &known.worker_id)
    }

    pub(super) fn freeze(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::STOP)
    }

    pub(super) fn thaw(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::CONT)
    }

    /// Kills a worker with SIGKILL and returns its number.
    pub(super) async fn kill(&mut self, index: usize) -> anyhow::Result<usize> {
        self.signal(index, Signal::KILL)?;
        let mut worker = self.workers.remove(index);
        worker.child.wait().await?;
        Ok(worker.number)
    }

    fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let id = self.workers[index].child.id().context("the worker has ended")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("the worker has no process id")?;
        kill_process(pid, signal).context("the worker cannot be signalled")
    }

    /// An error if a worker ended by itself.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            if let Some(status) = worker.child.try_wait()? {
                bail!(
                    "worker {} ended by itself ({status}); give --logs a folder and look there",
                    worker.number
                );
            }
        }
        Ok(())
    }

    /// Ends every worker with SIGTERM; returns how many were started in all.
    pub(super) async fn stop(mut self) -> anyhow::Result<usize> {
        for index in 0..self.workers.len() {
            self.signal(index, Signal::TERM)?;
        }
        for worker in &mut self.workers {
            let ended = tokio::time::timeout(STOP_TIMEOUT, worker.child.wait()).await;
            let status =
                ended.with_context(|| format!("worker {} did not end after SIGTERM", worker.number))??;
            if !status.success() {
                bail!(
                    "worker {} did not drain cleanly ({status}); give --logs a folder and look there",
                    worker.number
                );
            }
        }
        Ok(self.started)
    }
}
