//! `sluicebox serve`: runs the pipelines of a folder as a service.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use sd_notify::NotifyState;
use tokio::net::TcpListener;

use super::signals::{self, Signals};
use super::{CliError, loader};
use crate::budget::HostMemory;
use crate::clock::SystemClock;
use crate::config::Diagnostics;
use crate::config::host::{HostConfig, TlsConfig};
use crate::http::listener::{Listener, Tls};
use crate::quantity;
use crate::service::api;
use crate::service::api::access::Access;
use crate::service::host::Host;
use crate::service::hosted::{Context, ProbationTime};
use crate::service::revision::States;
use crate::service::store::Store;
use crate::service::tokens::Tokens;

/// How often a starting service looks whether it is ready.
const READY_LOOK: Duration = Duration::from_millis(50);

#[derive(Args)]
pub struct ServeArguments {
    /// The service's folder: its pipelines are the files `pipelines/NAME.toml`, and `data`
    /// has what it remembers of them; the current one by default
    folder: Option<PathBuf>,
    /// A file with what follows, and more; what is given here wins. Read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where HTTP requests are answered, 127.0.0.1:7878 by default; without tokens, only on
    /// this machine
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The file of the tokens by which it is used, which `sluicebox token new` makes
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// The certificate for TLS, with its chain, as PEM; a new one is taken when it is there
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// How many requests an address may send in a second, 200 by default; five times as many
    /// at once
    #[arg(long, value_name = "REQUESTS")]
    rate: Option<NonZeroU32>,
    /// The memory for keys and states of all pipelines together, such as 4GiB: a pipeline
    /// whose share (`memory` of [state]) is not left does not start
    #[arg(long, value_parser = memory)]
    memory: Option<usize>,
    /// How many threads answer requests, and how many of each pipeline work at a time beside
    /// those that plugins hold; as many as the machine has cores by default
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// How long a changed pipeline has to hold before what it puts out is committed, 10s by
    /// default; it is taken back otherwise
    #[arg(long, value_name = "DURATION", value_parser = probation)]
    probation: Option<Duration>,
}

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7878);
const RATE: NonZeroU32 = NonZeroU32::new(200).expect("it is more than 0");
const PROBATION: Duration = Duration::from_secs(10);

fn memory(text: &str) -> Result<usize, String> {
    let bytes = quantity::bytes(text)?;
    usize::try_from(bytes).map_err(|_| "it is more than this machine can address".to_owned())
}

pub(super) fn probation(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_millis(
        quantity::duration_ms(text)?.unsigned_abs(),
    ))
}

/// What the service does, by its arguments, its file and the defaults.
#[derive(PartialEq, Eq)]
struct Settings {
    listen: SocketAddr,
    pipelines: PathBuf,
    /// Whether that is where it is by default, and so is made.
    makes_pipelines: bool,
    data: PathBuf,
    tokens: Option<PathBuf>,
    tls: Option<TlsConfig>,
    rate: NonZeroU32,
    memory: Option<usize>,
    threads: Option<usize>,
    probation: Duration,
}

impl ServeArguments {
    /// What is said here wins over what the file says.
    fn settings(&self) -> Result<Settings, Diagnostics> {
        let file = self.config.as_deref().map(HostConfig::read);
        let file = file.transpose()?.unwrap_or_default();
        // A folder that is given here has both.
        let (pipelines, data) = match &self.folder {
            Some(_) => (None, None),
            None => (file.pipelines, file.data),
        };
        let folder = self.folder.clone().or(file.folder);
        let folder = folder.unwrap_or_else(|| PathBuf::from("."));
        let tls = self.tls_certificate.clone().zip(self.tls_key.clone());
        let tls = tls.map(|(certificate, key)| TlsConfig { certificate, key });
        let threads = self.threads.map(NonZeroUsize::get);
        Ok(Settings {
            listen: self.listen.or(file.listen).unwrap_or(LISTEN),
            makes_pipelines: pipelines.is_none(),
            pipelines: pipelines.unwrap_or_else(|| folder.join("pipelines")),
            data: data.unwrap_or_else(|| folder.join("data")),
            tokens: self.tokens.clone().or(file.tokens),
            tls: tls.or(file.tls),
            rate: self.rate.or(file.rate).unwrap_or(RATE),
            memory: self.memory.or(file.memory),
            threads: threads.or(file.threads),
            probation: self.probation.or(file.probation).unwrap_or(PROBATION),
        })
    }
}

pub fn serve(arguments: ServeArguments, signals: Signals) -> Result<(), CliError> {
    let settings = arguments.settings().map_err(CliError::Config)?;
    let tokens = open_tokens(settings.tokens.as_deref(), settings.listen);
    let tokens = tokens.map_err(CliError::Usage)?;
    let tls = open_tls(&settings)?;
    let pipelines = &settings.pipelines;
    if settings.makes_pipelines && fs::create_dir(pipelines).is_ok() {
        tracing::info!("{} is made, for pipelines", pipelines.display());
    }
    if !pipelines.is_dir() {
        return Err(CliError::Usage(anyhow!(
            "there is no folder {}: pipelines are the files NAME.toml in it",
            pipelines.display()
        )));
    }
    let loader = loader()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.thread_name("service").enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(error.into()))?;
    let context = Context {
        store: open_store(&settings.data)?,
        loader,
        clock: Arc::new(SystemClock),
        memory: Arc::new(HostMemory::new(settings.memory)),
        threads: settings.threads,
        probation: ProbationTime::new(settings.probation),
        states: States::AsWritten,
    };
    let host = Host::new(context, pipelines);
    let access = Access::new(tokens, tls.is_some(), settings.rate);
    let service = Service {
        host,
        access: Arc::new(access),
        arguments,
        settings,
    };
    runtime
        .block_on(service.run(tls, signals))
        .map_err(CliError::Failed)
}

fn open_tokens(file: Option<&Path>, listen: SocketAddr) -> anyhow::Result<Option<Tokens>> {
    if let Some(file) = file {
        return Ok(Some(Tokens::open(file)?));
    }
    match listen.ip().is_loopback() {
        true => Ok(None),
        false => Err(anyhow!(
            "everybody who reaches {listen} could use the service: make tokens by `sluicebox token \
             new`, and give their file as --tokens; or listen on this machine alone, as on \
             127.0.0.1:7878"
        )),
    }
}

fn open_tls(settings: &Settings) -> Result<Option<Tls>, CliError> {
    if let Some(TlsConfig { certificate, key }) = &settings.tls {
        let tls = Tls::open(certificate, key);
        return tls.map(Some).map_err(|error| CliError::Usage(error.into()));
    }
    if !settings.listen.ip().is_loopback() {
        tracing::warn!(
            "whoever sees the network sees tokens and rows: give --tls-certificate and --tls-key"
        );
    }
    Ok(None)
}

fn open_store(data: &Path) -> Result<Store, CliError> {
    let opened = Store::open(data);
    let opened = opened.with_context(|| format!("{} cannot be used", data.display()));
    opened.map_err(CliError::Failed)
}

/// A service that runs.
struct Service {
    host: Arc<Host>,
    access: Arc<Access>,
    arguments: ServeArguments,
    settings: Settings,
}

impl Service {
    async fn run(self, tls: Option<Tls>, signals: Signals) -> anyhow::Result<()> {
        let listen = self.settings.listen;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{}", listener.local_addr()?);
        let listener = Listener::new(listener, tls)?;
        let (host, access) = (self.host.clone(), self.access.clone());
        self.take_signals(&signals);
        let answering = tokio::spawn(api::serve(host.clone(), listener, access));
        tokio::spawn(tell_when_ready(host.clone()));
        host.run().await;
        tracing::info!("all pipelines have stopped");
        answering.await??;
        Ok(())
    }

    /// SIGHUP has the file read again. The first of the others stops the host, and the second
    /// the process.
    fn take_signals(self, taken: &Signals) {
        let host = self.host.clone();
        let service = Arc::new(Mutex::new(self));
        taken.take(move |number| {
            if number == libc::SIGHUP {
                let service = service.clone();
                // Nobody may read the log, and the next signal has to be taken meanwhile.
                let reloading = std::thread::Builder::new().spawn(move || {
                    let mut service = service.lock().unwrap_or_else(PoisonError::into_inner);
                    service.reload();
                });
                // Without a thread more, nothing changes.
                drop(reloading);
            } else {
                let message =
                    "stopping: each pipeline makes a checkpoint; a second signal quits at once";
                signals::stop_or_end(number, host.stop(), message);
                notify(NotifyState::Stopping);
            }
        });
    }

    /// Reads the file again. What it says takes effect as a whole, or not at all.
    fn reload(&mut self) {
        let Some(file) = &self.arguments.config else {
            tracing::info!("pipelines and plugins are read whenever they change");
            return;
        };
        let file = file.display();
        let now = match self.arguments.settings() {
            Ok(now) => now,
            Err(mistakes) => {
                tracing::error!("{file} has mistakes, and nothing changes: {mistakes}");
                return;
            }
        };
        if self.settings.tokens.is_some() && now.tokens.is_none() {
            tracing::error!(
                "{file} is not taken, and nothing changes: it names no `tokens` any more, and \
                 everybody who reaches the service could use it; name them again, or restart the \
                 service to have it run without"
            );
            return;
        }
        let tokens = match open_tokens(now.tokens.as_deref(), self.settings.listen) {
            Ok(tokens) => tokens,
            Err(error) => {
                tracing::error!("{file} is not taken, and nothing changes: {error:#}");
                return;
            }
        };
        let before = &self.settings;
        for (key, is_same) in [
            ("listen", now.listen == before.listen),
            (
                "folder",
                now.pipelines == before.pipelines && now.data == before.data,
            ),
            ("threads", now.threads == before.threads),
            ("tls", now.tls == before.tls),
        ] {
            if !is_same {
                tracing::warn!("`{key}` of {file} takes effect when the service is restarted");
            }
        }
        if (&now.tokens, now.rate) != (&before.tokens, before.rate) {
            self.access.change(tokens, now.rate);
        }
        let context = self.host.context();
        context.memory.limit(now.memory);
        context.probation.set(now.probation);
        tracing::info!("{file} is read again");
        let running = &mut self.settings;
        running.tokens = now.tokens;
        running.rate = now.rate;
        running.memory = now.memory;
        running.probation = now.probation;
    }
}

/// Tells a service manager that started this process.
async fn tell_when_ready(host: Arc<Host>) {
    while !host.is_ready() {
        if host.stop().asked() {
            return;
        }
        tokio::time::sleep(READY_LOOK).await;
    }
    tracing::info!("ready: {} pipelines", host.pipelines().len());
    notify(NotifyState::Ready);
}

fn notify(state: NotifyState<'_>) {
    // Without a service manager, this does nothing.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}
