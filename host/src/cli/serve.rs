//! `sluicebox serve`: runs the pipelines of a folder as a service.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use sd_notify::NotifyState;
use tokio::net::TcpListener;

use super::signals::{self, Signals};
use super::{CliError, loader};
use crate::budget::HostMemory;
use crate::clock::SystemClock;
use crate::quantity;
use crate::service::api;
use crate::service::api::access::Access;
use crate::service::host::Host;
use crate::service::hosted::Context;
use crate::service::listener::{Listener, Tls};
use crate::service::store::Store;
use crate::service::tokens::Tokens;

/// How often a starting service looks whether it is ready.
const READY_LOOK: Duration = Duration::from_millis(50);

#[derive(Args)]
pub struct ServeArguments {
    /// The service's folder: its pipelines are the files `pipelines/NAME.toml`, and `data`
    /// has what it remembers of them
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Where HTTP requests are answered; without tokens, only on this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7878")]
    listen: SocketAddr,
    /// The file of the tokens by which it is used, which `sluicebox token new` makes
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// The certificate for TLS, with its chain, as PEM; a new one is taken when it is there
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// How many requests an address may send in a second; five times as many at once
    #[arg(long, value_name = "REQUESTS", default_value = "200")]
    rate: NonZeroU32,
    /// The memory for keys and states of all pipelines together, such as 4GiB: a pipeline
    /// whose share (`memory` of [state]) is not left does not start
    #[arg(long, value_parser = memory)]
    memory: Option<usize>,
    /// How long a changed pipeline has to hold before what it puts out is committed; it is
    /// taken back otherwise
    #[arg(long, value_name = "DURATION", value_parser = probation, default_value = "10s")]
    probation: Duration,
}

fn memory(text: &str) -> Result<usize, String> {
    let bytes = quantity::bytes(text)?;
    usize::try_from(bytes).map_err(|_| "it is more than this machine can address".to_owned())
}

fn probation(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_millis(
        quantity::duration_ms(text)?.unsigned_abs(),
    ))
}

pub fn serve(arguments: &ServeArguments) -> Result<(), CliError> {
    let signals = Signals::start().map_err(|error| CliError::Failed(error.into()))?;
    let tokens = open_tokens(arguments)?;
    let tls = open_tls(arguments)?;
    let pipelines = arguments.folder.join("pipelines");
    if !pipelines.is_dir() {
        return Err(CliError::Usage(anyhow!(
            "there is no folder {}: pipelines are the files NAME.toml in it",
            pipelines.display()
        )));
    }
    let loader = loader()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("service")
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(error.into()))?;
    let context = Context {
        store: open_store(&arguments.folder)?,
        loader,
        clock: Arc::new(SystemClock),
        memory: arguments
            .memory
            .map(|bytes| Arc::new(HostMemory::new(bytes))),
        probation: arguments.probation,
    };
    let host = Host::new(context, &pipelines);
    runtime
        .block_on(run(host, arguments, tokens, tls, signals))
        .map_err(CliError::Failed)
}

fn open_tokens(arguments: &ServeArguments) -> Result<Option<Tokens>, CliError> {
    if let Some(file) = &arguments.tokens {
        let tokens = Tokens::open(file);
        return tokens
            .map(Some)
            .map_err(|error| CliError::Usage(error.into()));
    }
    match arguments.listen.ip().is_loopback() {
        true => Ok(None),
        false => Err(CliError::Usage(anyhow!(
            "everybody who reaches {} could use the service: make tokens by `sluicebox token new`, \
             and give their file as --tokens; or listen on this machine alone, as on 127.0.0.1:7878",
            arguments.listen
        ))),
    }
}

fn open_tls(arguments: &ServeArguments) -> Result<Option<Tls>, CliError> {
    let files = arguments
        .tls_certificate
        .as_ref()
        .zip(arguments.tls_key.as_ref());
    if let Some((certificate, key)) = files {
        let tls = Tls::open(certificate, key);
        return tls.map(Some).map_err(|error| CliError::Usage(error.into()));
    }
    if !arguments.listen.ip().is_loopback() {
        tracing::warn!(
            "whoever sees the network sees tokens and rows: give --tls-certificate and --tls-key"
        );
    }
    Ok(None)
}

fn open_store(folder: &Path) -> Result<Store, CliError> {
    let data = folder.join("data");
    let opened = Store::open(&data);
    let opened = opened.with_context(|| format!("{} cannot be used", data.display()));
    opened.map_err(CliError::Failed)
}

async fn run(
    host: Arc<Host>,
    arguments: &ServeArguments,
    tokens: Option<Tokens>,
    tls: Option<Tls>,
    signals: Signals,
) -> anyhow::Result<()> {
    let listen = arguments.listen;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("listening on {scheme}://{}", listener.local_addr()?);
    let access = Access::new(tokens, tls.is_some(), arguments.rate);
    let listener = Listener::new(listener, tls)?;
    stop_by(&signals, host.clone());
    let answering = tokio::spawn(api::serve(host.clone(), listener, access));
    tokio::spawn(tell_when_ready(host.clone()));
    host.run().await;
    tracing::info!("all pipelines have stopped");
    answering.await??;
    Ok(())
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

/// Stops the host by the first of these signals, and the process by the second.
fn stop_by(taken: &Signals, host: Arc<Host>) {
    taken.take(move |number| {
        if number == libc::SIGHUP {
            signals::log("pipelines and plugins are read whenever they change");
        } else if host.stop().asked() {
            std::process::exit(128 + number);
        } else {
            host.stop().ask();
            signals::log(
                "stopping: each pipeline makes a checkpoint; a second signal quits at once",
            );
            notify(NotifyState::Stopping);
        }
    });
}
