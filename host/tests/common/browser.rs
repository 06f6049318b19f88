//! Headless Chromium, driven by its DevTools protocol through a pipe.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::Absent;

/// Nothing takes so long, on a busy machine either.
const WAIT: Duration = Duration::from_secs(60);

/// A page in a browser of its own.
pub struct Browser {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _profile: TempDir,
    session: Option<String>,
    calls: u64,
    /// What pages have logged as errors, and what they were refused.
    pub errors: Vec<String>,
}

impl Browser {
    pub fn start() -> Result<Browser, Absent> {
        let found = Command::new("chromium").arg("--version").output();
        if !found.is_ok_and(|found| found.status.success()) {
            let why = "there is no chromium: `make setup` installs it";
            return Err(Absent(why.to_owned()));
        }
        let profile = tempfile::tempdir().expect("a folder");
        // The protocol's pipes are the files 3 and 4.
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null",
                "-",
            ])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-pipe", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut browser = Browser {
            process,
            input,
            output,
            _profile: profile,
            session: None,
            calls: 0,
            errors: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Ok(browser)
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).expect("the browser runs");
        loop {
            let mut bytes = Vec::new();
            self.output.read_until(0, &mut bytes).expect("it answers");
            assert_eq!(bytes.pop(), Some(0), "{method}: the browser has ended");
            let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.errors.push(parameters.to_string()),
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.errors.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }

    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression of JavaScript.
    pub fn value(&mut self, expression: &str) -> Value {
        let call = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", call);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true. Before a page is there, it may fail.
    pub fn until(&mut self, expression: &str) {
        let began = Instant::now();
        let tried = format!(
            "(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"
        );
        while self.value(&tried) != true {
            if began.elapsed() > WAIT {
                let page = self.value("document.body.innerText");
                panic!("never: {expression}\n{page}\n{:?}", self.errors);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the page shows a text.
    pub fn until_text(&mut self, text: &str) {
        self.until(&format!("document.body.innerText.includes({text:?})"));
    }

    /// Clicks on what a selector finds, whose text begins so.
    pub fn click(&mut self, selector: &str, text: &str) {
        let found = format!(
            "[...document.querySelectorAll({selector:?})]\
             .find((found) => found.textContent.trim().startsWith({text:?}))"
        );
        self.until(&found);
        self.value(&format!(
            "{found}.dispatchEvent(new MouseEvent('click', {{ bubbles: true, cancelable: true }}))"
        ));
    }

    /// Writes into a field, or chooses an option.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.until(&format!("document.querySelector({selector:?})"));
        self.value(&format!(
            "(() => {{ const field = document.querySelector({selector:?}); field.value = {text:?}; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             field.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"
        ));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            _ => 9,
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "text": if kind == "keyDown" { text } else { "" },
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Shows the page on a screen of this size, light or dark.
    pub fn resize(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Writes a picture of the page into the folder that `SLUICEBOX_PICTURES` names.
    pub fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("SLUICEBOX_PICTURES") else {
            return;
        };
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let data = shot["data"].as_str().expect("a picture");
        let bytes = BASE64_STANDARD.decode(data).expect("base64");
        let path = Path::new(&folder).join(format!("{name}.png"));
        fs::write(path, bytes).expect("the folder is there");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
