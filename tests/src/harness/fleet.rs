//! Worker processes of one application: started, frozen, killed by their id, and ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sluicegate_checkpoint::{Cut, Position, SequenceNumber, ShardId};
use sluicegate_lease::{Lease, WorkerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

use super::backend::{Backend, STREAM};
use super::link::Link;
use super::process::{Signal, signal};
use super::wait::{LONG, wait_for};
use super::{binary, command};

/// The application of all fleets that are given no other: each has a backend of its own.
pub const APPLICATION: &str = "billing";
/// How long a heartbeat of these workers stands still before they are presumed dead.
pub const FAILOVER: Duration = Duration::from_secs(2);

/// Workers that are meant to be alive.
#[derive(Debug)]
pub struct Fleet<'b> {
    backend: &'b Backend,
    application: String,
    settings: Vec<(String, String)>,
    workers: Vec<Worker>,
    started: usize,
    /// Whether each worker has a way of its own to DynamoDB.
    linked: bool,
    home: tempfile::TempDir,
    logs: PathBuf,
}

/// One worker process. Dropping it kills it.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    log: PathBuf,
    number: usize,
    link: Option<Link>,
}

/// What the client of the worker of this number calls itself.
pub fn name_of(number: usize) -> String {
    format!("worker-{number}")
}

/// A worker that was killed, and what its rows showed as announced when it died.
#[derive(Debug)]
pub struct Killed {
    /// Its id.
    pub worker: WorkerId,
    /// Announced and not committed.
    pub announced: Vec<(ShardId, Cut)>,
}

impl<'b> Fleet<'b> {
    /// No workers yet. Their logs go to `target/tmp/sluicegate-tests/<name>`.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn new(backend: &'b Backend, name: &str) -> anyhow::Result<Self> {
        let mut fleet = Self::with_defaults(backend, name)?;
        for (setting, value) in [
            ("failover_time", "2s"),
            ("safety_margin", "300ms"),
            ("min_read_interval", "20ms"),
            ("idle_read_interval", "50ms"),
            ("max_batch_age", "300ms"),
            ("commit_delay", "300ms"),
        ] {
            fleet = fleet.set(setting, value);
        }
        Ok(fleet)
    }

    /// No workers yet, which will go by the product's own defaults.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn with_defaults(backend: &'b Backend, name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            backend,
            application: APPLICATION.to_owned(),
            settings: Vec::new(),
            workers: Vec::new(),
            started: 0,
            linked: false,
            home: tempfile::tempdir()?,
            logs: binary::scratch(name)?,
        })
    }

    /// Of another application: several fleets can then share a backend.
    pub fn of(mut self, application: &str) -> Self {
        application.clone_into(&mut self.application);
        self
    }

    /// With a way of its own to DynamoDB for each worker, which can be cut.
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// With this setting, over an earlier one of the same name.
    pub fn set(mut self, setting: &str, value: &str) -> Self {
        self.settings.push((format!("SLUICEGATE_CFG_{}", setting.to_uppercase()), value.to_owned()));
        self
    }

    /// Starts one more worker and returns its index.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, arguments: &[&str]) -> anyhow::Result<usize> {
        self.started += 1;
        let log = self.log_of(self.started);
        let mut command = command::bare(self.home.path())?;
        command.args(["run", "--embedded", "--until-stdin-closes", "--admin", "127.0.0.1:0"]);
        command.args(["--application", &self.application]).args(arguments);
        if !arguments.contains(&"--stream") {
            command.args(["--stream", STREAM]);
        }
        command.envs(self.backend.environment());
        // The journal tells by it who sent a write.
        command.env("AWS_SDK_UA_APP_ID", name_of(self.started));
        let link = self.linked.then(|| Link::to(self.backend.address())).transpose()?;
        if let Some(link) = &link {
            command.env("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{}", link.address()));
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        // Its input is open as long as this process lives: it ends with the tests, however they end.
        command.stdin(Stdio::piped());
        command.stderr(std::fs::File::create(&log)?);
        if !arguments.contains(&"stdout") {
            command.stdout(Stdio::null());
        }
        let child = command.spawn().context("a worker cannot be started")?;
        self.workers.push(Worker { child, log, number: self.started, link });
        Ok(self.workers.len() - 1)
    }

    /// How many workers were started, ended ones included: they are numbered from 1.
    pub fn started(&self) -> usize {
        self.started
    }

    /// Where the worker of this number logs.
    pub fn log_of(&self, number: usize) -> PathBuf {
        self.logs.join(format!("worker-{number}.log"))
    }

    /// The numbers of the workers that are meant to be alive.
    pub fn numbers(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.number).collect()
    }

    /// Kills the worker of this number with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// There is none.
    pub async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut worker = self.take(number)?;
        worker.signal(Signal::KILL)?;
        worker.child.wait().await?;
        Ok(())
    }

    /// Ends the worker of this number with SIGTERM and checks that it drains and exits with 0.
    ///
    /// # Errors
    /// It does not.
    pub async fn leave(&mut self, number: usize) -> anyhow::Result<()> {
        let mut worker = self.take(number)?;
        worker.signal(Signal::TERM)?;
        let status = worker.ended().await?;
        ensure!(status.success(), "a worker did not drain ({status}): {}", worker.log()?);
        Ok(())
    }

    /// Sends a signal to the worker of this number.
    ///
    /// # Errors
    /// There is none.
    pub fn signal(&self, number: usize, which: Signal) -> anyhow::Result<()> {
        let worker = self.workers.iter().find(|worker| worker.number == number);
        worker.context("no such worker")?.signal(which)
    }

    /// Cuts the way of the worker of this number to DynamoDB, or mends it; a worker that is gone needs none.
    pub fn cut(&self, number: usize, cut: bool) {
        if let Some(worker) = self.workers.iter().find(|worker| worker.number == number) {
            worker.cut(cut);
        }
    }

    /// Parts with the worker of this number: what becomes of it is the caller's matter.
    ///
    /// # Errors
    /// There is none.
    pub fn part(&mut self, number: usize) -> anyhow::Result<Worker> {
        self.take(number)
    }

    fn take(&mut self, number: usize) -> anyhow::Result<Worker> {
        let at = self.workers.iter().position(|worker| worker.number == number);
        Ok(self.workers.remove(at.context("no such worker")?))
    }

    /// Memory of each worker, in bytes.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn resident_bytes(&self) -> anyhow::Result<Vec<u64>> {
        self.memory("VmRSS:")
    }

    /// The most memory that each worker ever had, in bytes.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn peak_bytes(&self) -> anyhow::Result<Vec<u64>> {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> anyhow::Result<Vec<u64>> {
        let of = |worker: &Worker| {
            let id = worker.child.id().context("a worker has ended")?;
            let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix(which)).context("no such line")?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
            Ok(kib << 10)
        };
        self.workers.iter().map(of).collect()
    }

    /// A metric without labels, of each worker that answers.
    ///
    /// # Errors
    /// A worker does not have it.
    pub async fn metrics(&self, name: &str) -> anyhow::Result<Vec<f64>> {
        let scrapes = self.scrapes().await?;
        scrapes.values().map(|scrape| crate::measure::hardship::value_of(scrape, name)).collect()
    }

    /// What the admin server of each worker answers to `/metrics`, by its address; those that do not answer are left out.
    ///
    /// # Errors
    /// The worker rows cannot be read.
    pub async fn scrapes(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let rows = self.backend.workers(&self.application).await?;
        let addresses = rows.into_iter().filter_map(|row| row.address);
        let scrape = async |address: String| Some((address.clone(), ask(&address, "/metrics").await.ok()?));
        let scrapes = futures::future::join_all(addresses.map(scrape)).await;
        Ok(scrapes.into_iter().flatten().collect())
    }

    /// A worker by the order of starting, killed ones left out.
    pub fn worker(&mut self, index: usize) -> &mut Worker {
        &mut self.workers[index]
    }

    /// The lease rows.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn leases(&self) -> anyhow::Result<Vec<Lease>> {
        self.backend.leases(&self.application).await
    }

    /// Waits until so many events are stored and nothing is announced, and that no worker has ended by itself.
    ///
    /// # Errors
    /// That does not come to pass.
    pub async fn drained(&mut self, events: usize) -> anyhow::Result<()> {
        let table = self.backend.table(&self.application);
        let what = format!("{events} events stored and committed; the logs are in {}", self.logs.display());
        wait_for(&what, LONG, async || {
            self.check_alive()?;
            let rows = self.backend.leases(&self.application).await?;
            let committed = !rows.is_empty() && rows.iter().all(|row| cuts(row).is_empty());
            let done = committed && table.stored().await? >= events as u64;
            Ok(done.then_some(()))
        })
        .await
    }

    /// Waits until every shard is committed up to its last record. The rows tell: a scan of a table of gigabytes would keep
    /// the embedded DynamoDB from answering anybody else.
    ///
    /// # Errors
    /// That does not come to pass.
    pub async fn committed(
        &mut self,
        ends: &BTreeMap<ShardId, SequenceNumber>,
        within: Duration,
    ) -> anyhow::Result<()> {
        wait_for("every shard to be committed to its end", within, async || {
            self.check_alive()?;
            let rows = self.backend.leases(&self.application).await?;
            let done = rows.iter().filter(|row| match (&row.checkpoint, ends.get(&row.key)) {
                (Position::At(number, _), Some(end)) => number >= end && cuts(row).is_empty(),
                (_, end) => end.is_none(),
            });
            Ok((rows.len() >= ends.len() && done.count() == rows.len()).then_some(()))
        })
        .await
    }

    /// Checks that no worker has ended by itself.
    ///
    /// # Errors
    /// One has; the error holds its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            if let Some(status) = worker.child.try_wait()? {
                bail!("a worker ended by itself ({status}): {}", worker.log()?);
            }
        }
        Ok(())
    }

    /// Freezes a worker whose rows show an announced batch; returns its id and index. What its rows show stays true
    /// while it sleeps, unless another takes over.
    ///
    /// # Errors
    /// No such moment comes.
    pub async fn freeze_announcing(&mut self) -> anyhow::Result<(WorkerId, usize)> {
        wait_for("a worker with an announced batch", LONG, async || {
            self.check_alive()?;
            let rows = self.leases().await?;
            let announcing = rows.into_iter().find(|row| !cuts(row).is_empty());
            let Some(owner) = announcing.and_then(|row| row.owner) else { return Ok(None) };
            let Some(index) = self.index_of(&owner).await? else { return Ok(None) };
            self.workers[index].signal(Signal::STOP)?;
            if self.announced_by(&owner).await?.is_empty() {
                self.workers[index].signal(Signal::CONT)?;
                return Ok(None);
            }
            Ok(Some((owner, index)))
        })
        .await
    }

    /// Kills a worker with SIGKILL whose rows show an announced batch: frozen first, so that what its rows show is
    /// still true when it dies.
    ///
    /// # Errors
    /// No such moment comes.
    pub async fn kill_announcing(&mut self) -> anyhow::Result<Killed> {
        let (owner, index) = self.freeze_announcing().await?;
        let announced = self.announced_by(&owner).await?;
        let mut worker = self.workers.remove(index);
        worker.signal(Signal::KILL)?;
        worker.child.wait().await?;
        Ok(Killed { worker: owner, announced })
    }

    async fn announced_by(&self, owner: &WorkerId) -> anyhow::Result<Vec<(ShardId, Cut)>> {
        let rows = self.leases().await?;
        let owned = rows.iter().filter(|row| row.owner.as_ref() == Some(owner));
        Ok(owned.flat_map(|row| cuts(row).into_iter().map(|cut| (row.key.clone(), cut))).collect())
    }

    /// Index of the process with this worker id: its admin server tells the process id.
    ///
    /// # Errors
    /// The worker rows cannot be read.
    pub async fn index_of(&self, id: &WorkerId) -> anyhow::Result<Option<usize>> {
        let rows = self.backend.workers(&self.application).await?;
        let Some(address) = rows.into_iter().find(|row| row.worker_id == *id).and_then(|row| row.address)
        else {
            return Ok(None);
        };
        let Ok(metrics) = ask(&address, "/metrics").await else { return Ok(None) };
        let line = metrics.lines().find_map(|line| line.strip_prefix("sluicegate_process_id "));
        let pid: Option<u32> = line.and_then(|pid| pid.trim().parse().ok());
        Ok(self.workers.iter().position(|worker| pid.is_some() && worker.child.id() == pid))
    }

    /// Index of a worker that has ended by itself, if one has.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn ended(&mut self) -> anyhow::Result<Option<usize>> {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if worker.child.try_wait()?.is_some() {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Waits until a worker has ended by itself and checks that it exited with 0. It is left out from then on.
    ///
    /// # Errors
    /// It has not.
    pub async fn left(&mut self, index: usize) -> anyhow::Result<()> {
        let mut worker = self.workers.remove(index);
        let status = worker.ended().await?;
        ensure!(status.success(), "a worker failed ({status}): {}", worker.log()?);
        Ok(())
    }

    /// Ends every worker with SIGTERM and checks that each drains and exits with 0.
    ///
    /// # Errors
    /// One does not.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for worker in &self.workers {
            worker.signal(Signal::TERM)?;
        }
        for worker in &mut self.workers {
            let status = worker.ended().await?;
            ensure!(status.success(), "a worker did not drain ({status}): {}", worker.log()?);
        }
        Ok(())
    }
}

impl Worker {
    /// Which of the workers it is, by the order of starting.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Cuts its way to DynamoDB, if it has one of its own, or mends it.
    pub fn cut(&self, cut: bool) {
        if let Some(link) = &self.link {
            link.cut(cut);
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, which: Signal) -> anyhow::Result<()> {
        signal(self.child.id().context("the worker has ended")?, which)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It does not.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(LONG, self.child.wait()).await;
        Ok(ended.with_context(|| format!("a worker does not end; its log is {}", self.log.display()))??)
    }

    /// Its standard output, of a worker that writes there.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// What it logged.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}

/// What a row shows as announced.
pub fn cuts(row: &Lease) -> Vec<Cut> {
    row.pending.state().map(|state| state.cuts).unwrap_or_default()
}

/// What an admin server answers, headers and all.
///
/// # Errors
/// It does not answer.
pub async fn ask(address: &str, path: &str) -> anyhow::Result<String> {
    exchange(address, "GET", path, "").await
}

/// The body of an answer over plain HTTP that says that all is well.
pub(crate) async fn http(address: &str, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let answer = exchange(address, method, path, body).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {head} {body}");
    Ok(body.to_owned())
}

async fn exchange(address: &str, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let ask = async {
        let mut socket = TcpStream::connect(address).await?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        socket.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    tokio::time::timeout(FAILOVER, ask).await.with_context(|| format!("{address} does not answer"))?
}
