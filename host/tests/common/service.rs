//! A service in a folder of its own, as its users have it: files, requests by HTTP,
//! signals.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{common, signal};

/// Nothing takes so long, on a busy machine either.
pub const WAIT: Duration = Duration::from_secs(60);

/// A service in a folder of its own.
pub struct Service {
    pub folder: TempDir,
    /// The pipeline that is looked at.
    pipeline: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    host: Option<Child>,
    address: String,
    /// Of the requests.
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Service {
    /// With these pipelines.
    pub fn start(pipelines: &[(&str, &str)]) -> Service {
        Service::start_with(pipelines, &["--rate", "1000000"], reqwest::Client::new())
    }

    /// With these pipelines and variables.
    pub fn start_in(pipelines: &[(&str, &str)], environment: &[(&str, &str)]) -> Service {
        let mut service = Service::new(pipelines, &[], reqwest::Client::new());
        let of = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        service.environment = environment.iter().map(of).collect();
        service.begin();
        service
    }

    /// With these pipelines and arguments, and a client that asks.
    pub fn start_with(
        pipelines: &[(&str, &str)],
        arguments: &[&str],
        client: reqwest::Client,
    ) -> Service {
        let mut service = Service::new(pipelines, arguments, client);
        service.begin();
        service
    }

    fn new(pipelines: &[(&str, &str)], arguments: &[&str], client: reqwest::Client) -> Service {
        let folder = tempfile::tempdir().expect("a folder");
        for made in ["pipelines", "plugins"] {
            fs::create_dir(folder.path().join(made)).expect("writable");
        }
        let plugin = folder.path().join("plugins/hostile.wasm");
        fs::copy(common::plugin_file("hostile"), plugin).expect("it is built");
        let service = Service {
            folder,
            pipeline: pipelines
                .first()
                .map_or("shop", |(name, _)| name)
                .to_owned(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            environment: Vec::new(),
            host: None,
            address: String::new(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            client,
        };
        for (name, text) in pipelines {
            service.write(name, text);
        }
        service
    }

    pub fn begin(&mut self) {
        self.begin_at("127.0.0.1:0");
    }

    /// Begins where clients look for it.
    pub fn begin_at(&mut self, address: &str) {
        let log = self.path("log.txt");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command
            .args(["serve", ".", "--listen", address])
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .args(["--probation", "500ms"])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("writable"));
        let mut host = signal::not_ignored(&mut command)
            .spawn()
            .expect("it starts");
        let began = Instant::now();
        self.address = loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let address = text
                .lines()
                .find_map(|line| line.split_once("listening on "));
            if let Some((_, address)) = address {
                // In JSON, a quote follows it.
                let end = address.find('"').unwrap_or(address.len());
                break address[..end].to_owned();
            }
            let ended = host.try_wait().expect("it is ours");
            assert!(
                ended.is_none() && began.elapsed() < WAIT,
                "{ended:?}\n{text}"
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        self.host = Some(host);
        while self.ask("GET", "/readyz", "").0 != 200 {
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(began.elapsed() < WAIT, "never ready\n{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.host.as_ref().expect("it runs").id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where it listens, as `127.0.0.1:7878`.
    pub fn address(&self) -> &str {
        let (_, address) = self.address.split_once("://").expect("a URL");
        address
    }

    /// Writes a pipeline's file as a whole.
    pub fn write(&self, name: &str, text: &str) {
        let beside = self.path(&format!("pipelines/.{name}"));
        fs::write(&beside, text).expect("writable");
        fs::rename(beside, self.path(&format!("pipelines/{name}.toml"))).expect("writable");
    }

    /// Sends a signal that it does not end by.
    pub fn send(&self, number: i32) {
        signal::send(self.host.as_ref().expect("it runs"), number);
    }

    /// Sends a signal, and waits for the end.
    pub fn end(&mut self, number: i32) -> ExitStatus {
        let mut host = self.host.take().expect("it runs");
        signal::send(&host, number);
        host.wait().expect("it is ours")
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.ask_by(&self.client, method, path, body)
    }

    /// Asks by another client.
    pub fn ask_by(
        &self,
        client: &reqwest::Client,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, Value) {
        self.send_by(client, method, path, body.to_owned().into())
    }

    /// Uploads a plugin.
    pub fn upload(&self, plugin: &[u8]) -> (u16, Value) {
        self.send_by(
            &self.client,
            "POST",
            "/api/v1/plugins",
            plugin.to_vec().into(),
        )
    }

    fn send_by(
        &self,
        client: &reqwest::Client,
        method: &str,
        path: &str,
        body: reqwest::Body,
    ) -> (u16, Value) {
        let url = format!("{}{path}", self.address);
        let method = method.parse().expect("a method");
        let request = client.request(method, url).body(body);
        self.runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            let text = answer.text().await.expect("a text");
            let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
            (status, json)
        })
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, json) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    pub fn shop(&self) -> Value {
        self.get(&format!("/api/v1/pipelines/{}", self.pipeline))
    }

    /// Waits until the pipeline's file was seen.
    pub fn until_seen(&self) {
        let began = Instant::now();
        let path = format!("/api/v1/pipelines/{}", self.pipeline);
        while self.ask("GET", &path, "").0 != 200 {
            assert!(began.elapsed() < WAIT, "the file is never seen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this holds of the pipeline.
    pub fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let shop = self.shop();
            if holds(&shop) {
                return shop;
            }
            let log = fs::read_to_string(self.path("log.txt")).unwrap_or_default();
            assert!(began.elapsed() < WAIT, "never {what}: {shop:#}\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn until_phase(&self, phase: &str) -> Value {
        self.until(phase, |shop| shop["phase"] == phase)
    }

    /// Waits until its source has read so many rows since it was started.
    pub fn until_read(&self, rows: u64) {
        self.until("read", |shop| {
            shop["revision"]["nodes"][0]["rows_in"].as_u64() >= Some(rows)
        });
    }

    /// The outcomes of its changes.
    pub fn outcomes(&self) -> Vec<String> {
        let shop = self.shop();
        let changes = shop["changes"].as_array().expect("changes");
        let outcome = |change: &Value| change["outcome"].as_str().unwrap_or_default().to_owned();
        changes.iter().map(outcome).collect()
    }
}

/// What pipelines called `shop` begin with that generate rows of users as `source` says more,
/// and pass them through a plugin as `guarded` says more.
pub fn shop_with(source: &str, guarded: &str) -> String {
    format!(
        r#"
        name = "shop"
        dead_letters = "../dead.jsonl"
        plugins.hostile.path = "../plugins/hostile.wasm"
        [checkpoints]
        interval = "100ms"
        [sources.actions]
        type = "generator"
        seed = 3
        users = 50
        {source}
        events_per_second = 100
        start = "2024-01-01T10:00:00Z"
        [operators.rows]
        select = {{ id = "user_id", n = "quantity" }}
        input = "actions"
        [operators.guarded]
        plugin = "hostile.misbehave"
        {guarded}
        input = "rows"
        "#
    )
}

/// Parameters of the plugin with which it passes all rows on.
pub const GOOD: &str = "mode = \"nothing\"";

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(host) = &mut self.host {
            let _ = host.kill();
            let _ = host.wait();
        }
    }
}
