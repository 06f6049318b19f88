//! Reads the file of a host: where it listens, where its folders are, what it may take, who
//! may use it. What it does not say is as the command line says, or as by default.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostics::{Diagnostics, Mistake};
use super::file::{self, FileKind};
use super::reader::{ConfigValue, Table};

/// A host's file. Paths are relative to the file's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    pub listen: Option<SocketAddr>,
    pub folder: Option<PathBuf>,
    pub pipelines: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub memory: Option<usize>,
    pub threads: Option<usize>,
    pub probation: Option<Duration>,
    pub tokens: Option<PathBuf>,
    pub tls: Option<TlsConfig>,
    pub rate: Option<NonZeroU32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

const FILE: FileKind = FileKind {
    the: "the host's file",
    a: "a host's file",
    advice: "give the path of a TOML file, as docs/service.md describes it",
};
const FILE_BYTES_MAX: u64 = 1 << 20;
const MEMORY_BYTES_MIN: u64 = 1 << 20;
const MEMORY_BYTES_MAX: u64 = 1 << 40;
const THREADS_MAX: i64 = 1_024;
const RATE_MAX: i64 = 1_000_000;

impl HostConfig {
    pub fn read(path: &Path) -> Result<HostConfig, Diagnostics> {
        let text = file::read(path, &FILE, FILE_BYTES_MAX)?;
        HostConfig::parse(&path.display().to_string(), &text)
    }

    fn parse(file: &str, text: &str) -> Result<HostConfig, Diagnostics> {
        let (document, mut mistakes) = file::parse(file, text)?;
        let table = Table::new("the host", 0..0, document.get_ref());
        let config = read(table, &mut mistakes);
        match mistakes.is_empty() {
            true => Ok(config),
            false => Err(mistakes.sorted()),
        }
    }
}

fn read(mut table: Table, mistakes: &mut Diagnostics) -> HostConfig {
    let listen = table.optional("listen");
    let listen = listen.and_then(|value| address(&value, mistakes));
    let mut path_of = |key: &'static str| {
        let value = table.optional(key)?;
        path(&value, mistakes)
    };
    let folder = path_of("folder");
    let pipelines = path_of("pipelines");
    let data = path_of("data");
    let tokens = path_of("tokens");
    let memory = table.optional("memory").and_then(|value| {
        let bytes = value.bytes(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX, mistakes)?;
        usize::try_from(bytes).ok()
    });
    let threads = table
        .optional("threads")
        .and_then(|value| value.integer(1..=THREADS_MAX, mistakes));
    let probation = table
        .optional("probation")
        .and_then(|value| value.duration(0, mistakes));
    let tls = table
        .optional("tls")
        .and_then(|value| read_tls(&value, mistakes));
    let rate = table
        .optional("limits")
        .and_then(|value| read_limits(&value, mistakes));
    table.finish(mistakes);
    HostConfig {
        listen,
        folder,
        pipelines,
        data,
        memory,
        threads: threads.map(|threads| *threads.get_ref() as usize),
        probation: probation.map(|ms| Duration::from_millis(ms.get_ref().unsigned_abs())),
        tokens,
        tls,
        rate,
    }
}

fn read_tls(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<TlsConfig> {
    let mut table = value.table(mistakes)?.owned_by("[tls]", value.key_span());
    let certificate = table
        .required(
            "certificate",
            "the certificate, with its chain, as PEM",
            mistakes,
        )
        .and_then(|value| path(&value, mistakes));
    let key = table
        .required("key", "the certificate's private key, as PEM", mistakes)
        .and_then(|value| path(&value, mistakes));
    table.finish(mistakes);
    Some(TlsConfig {
        certificate: certificate?,
        key: key?,
    })
}

fn read_limits(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<NonZeroU32> {
    let mut table = value
        .table(mistakes)?
        .owned_by("[limits]", value.key_span());
    let rate = table
        .optional("rate")
        .and_then(|value| value.integer(1..=RATE_MAX, mistakes));
    table.finish(mistakes);
    NonZeroU32::new(u32::try_from(*rate?.get_ref()).ok()?)
}

fn path(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<PathBuf> {
    let path = value.path(mistakes)?;
    Some(mistakes.folder().join(path.get_ref()))
}

fn address(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<SocketAddr> {
    let wanted = "an address and a port, such as \"127.0.0.1:7878\"";
    let text = value.text(wanted, mistakes)?;
    let address = text.get_ref().parse();
    if address.is_err() {
        mistakes.push(
            Mistake::new(format!("{} must be {wanted}", value.what()))
                .at(text.span(), "")
                .help("0.0.0.0 and [::] are all addresses of this machine; names are not taken"),
        );
    }
    address.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/service.md");

    fn mistakes(text: &str) -> String {
        let read = HostConfig::parse("etc/host.toml", text);
        read.expect_err("it has mistakes").to_string()
    }

    #[test]
    fn the_example_of_the_docs_has_every_key() {
        let (_, behind) = PAGE.split_once("```toml\n").expect("an example");
        let (example, _) = behind.split_once("```").expect("its end");
        let config = HostConfig::parse("etc/host.toml", example);
        let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let HostConfig {
            listen,
            folder,
            pipelines,
            data,
            memory,
            threads,
            probation,
            tokens,
            tls,
            rate,
        } = config;
        assert!(listen.is_some() && folder.is_some() && pipelines.is_some() && data.is_some());
        assert!(memory.is_some() && threads.is_some() && probation.is_some());
        assert!(tls.is_some() && rate.is_some());
        assert_eq!(tokens.as_deref(), Some(Path::new("etc/tokens.toml")));
    }

    #[test]
    fn mistakes_are_shown_with_their_places_and_what_was_expected() {
        let told = mistakes(
            "lisen = \"127.0.0.1:7878\"\nlisten = \"localhost\"\nmemory = \"4\"\nthreads = 0\n\
             probation = \"10\"\n[tls]\ncertificate = \"a\"\n[limits]\nrates = 3\n",
        );
        for part in [
            "the host has an unknown key `lisen`",
            "did you mean `listen`?",
            "host.toml:1:1",
            "`listen` of the host must be an address and a port",
            "host.toml:2:10",
            "`memory` of the host is not a size: a size needs a unit",
            "`threads` of the host must be a whole number from 1 to 1024",
            "`probation` of the host is not a duration: a duration needs a unit",
            "[tls] has no `key`",
            "[limits] has an unknown key `rates`",
            "did you mean `rate`?",
        ] {
            assert!(told.contains(part), "`{part}` is not in:\n{told}");
        }
        let told = mistakes("listen = ");
        assert!(told.contains("a value is missing"), "{told}");
        assert!(!mistakes("tokens = [\"sluicebox_abc\"]").contains("abc"));
    }
}
