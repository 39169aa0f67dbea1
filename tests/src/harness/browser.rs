//! A headless Chromium, driven over a pipe (Chrome DevTools Protocol): no port, no other program.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a browser may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Programs that speak the protocol, by name.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// One browser with one page. Dropping it kills it.
#[derive(Debug)]
pub struct Browser {
    _child: Child,
    to: ChildStdin,
    from: ChildStdout,
    received: Vec<u8>,
    session: Option<String>,
    asked: u64,
    /// What the page complained of: exceptions, console messages, failed loads.
    pub complaints: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one, if there is one on the machine.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let mut found = None;
        for name in NAMES {
            let there = Command::new("sh").arg("-c").arg(format!("command -v {name}")).output().await?;
            if there.status.success() {
                found = Some(name);
                break;
            }
        }
        let Some(name) = found else { return Ok(None) };
        let profile = tempfile::tempdir()?;
        // The protocol is spoken on descriptors 3 and 4, which become this process' ends of standard input and output.
        let script = format!(
            "exec {name} --headless --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage \
             --user-data-dir='{}' --remote-debugging-pipe about:blank 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null",
            profile.path().display()
        );
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("a browser cannot be started")?;
        let (to, from) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
        let mut browser = Self {
            _child: child,
            to,
            from,
            received: Vec::new(),
            session: None,
            asked: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"})).await?;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach).await?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({})).await?;
        }
        Ok(Some(browser))
    }

    /// Shows a page in a window of this size, in a colour scheme.
    ///
    /// # Errors
    /// The browser refuses.
    pub async fn open(&mut self, url: &str, (width, height): (u32, u32), scheme: &str) -> anyhow::Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", &size).await?;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features).await?;
        let opened = self.call("Page.navigate", &json!({"url": url})).await?;
        ensure!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        Ok(())
    }

    /// What an expression gives on the page.
    ///
    /// # Errors
    /// It throws.
    pub async fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let ask = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", &ask).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    async fn call(&mut self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        tokio::time::timeout(PATIENCE, self.exchange(method, parameters))
            .await
            .with_context(|| format!("the browser does not answer to {method}"))?
    }

    async fn exchange(&mut self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).await?;
        loop {
            let mut heard = self.next().await?;
            if heard["id"].as_u64() == Some(self.asked) {
                ensure!(heard["error"].is_null(), "{method}: {}", heard["error"]);
                return Ok(heard["result"].take());
            }
            let kind = heard["method"].as_str().unwrap_or_default();
            if ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"].contains(&kind) {
                self.complaints.push(heard);
            }
        }
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(serde_json::from_slice(&message[..end])?);
            }
            if self.from.read_buf(&mut self.received).await? == 0 {
                bail!("the browser has ended");
            }
        }
    }
}
