//! A headless Chromium with one page open, driven over the `Chrome DevTools Protocol` on a pair of pipes
//! (`--remote-debugging-pipe`: messages of JSON that end with a zero byte, on descriptors 3 and 4).

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine;
use command_fds::{CommandFdExt, FdMapping};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A browser and its page. Ends with it.
pub struct Browser {
    child: Child,
    to: PipeWriter,
    from: BufReader<PipeReader>,
    last_id: u64,
    session: Option<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts `program` and opens `url` in it.
    pub fn open(program: &Path, url: &str) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let (commands, to) = std::io::pipe()?;
        let (from, answers) = std::io::pipe()?;
        let mut command = Command::new(program);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--no-proxy-server", "--window-size=1400,900", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let ends = [(commands.into(), 3), (answers.into(), 4)];
        command.fd_mappings(ends.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).into())?;
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        drop(command);
        let mut browser = Self { child, to, from: BufReader::new(from), last_id: 0, session: None, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": url}))?;
        let attached = browser.call("Target.attachToTarget", &json!({"targetId": target["targetId"], "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        Ok(browser)
    }

    /// The value of a JavaScript expression in the page.
    pub fn evaluate<T: DeserializeOwned>(&mut self, expression: &str) -> Result<T> {
        let answer = self.call("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}))?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("the page threw {thrown}");
        }
        serde_json::from_value(answer["result"]["value"].clone()).with_context(|| format!("read {}", answer["result"]))
    }

    /// What the page looks like, as PNG.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}))?;
        let text = answer["data"].as_str().context("no data in the answer")?;
        Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(message.to_string().as_bytes())?;
        self.to.write_all(&[0])?;
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes)?;
            if bytes.pop() != Some(0) {
                bail!("the browser ended during {method}");
            }
            // Events come in between.
            let mut answer: Value = serde_json::from_slice(&bytes)?;
            if answer["id"] != json!(self.last_id) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(answer["result"].take());
        }
    }
}

impl Drop for Browser {
    /// The browser ends its own helpers when it is asked; then it is gone or killed.
    fn drop(&mut self) {
        if self.call("Browser.close", &json!({})).is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}
