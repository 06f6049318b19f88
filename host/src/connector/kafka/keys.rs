//! The config keys that Kafka's source and sink share: `brokers`, `properties`,
//! `topic`, `registry`.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use reqwest::Url;
use toml::de::DeValue;

use super::KafkaConnection;
use super::registry::RegistryConnection;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::reader::{ConfigValue, Table, to_i64};
use crate::config::secrets;
use crate::connector::server::Password;

/// Properties that cannot be set in `properties`: a name, and what to do
/// instead.
pub type Owned = &'static [(&'static str, &'static str)];

const OWNED_BY_BOTH: Owned = &[
    ("bootstrap.servers", "name the brokers in `brokers`"),
    ("metadata.broker.list", "name the brokers in `brokers`"),
];

pub fn read_connection(
    table: &mut Table,
    owned: Owned,
    mistakes: &mut Diagnostics,
) -> Option<KafkaConnection> {
    let meaning = "addresses of brokers, such as \"127.0.0.1:9092\"";
    let brokers = table
        .required("brokers", meaning, mistakes)
        .and_then(|value| {
            value.one_or_more(
                "an address or a list of addresses",
                mistakes,
                |value, mistakes| read_broker(value, mistakes),
            )
        });
    let properties = match table.optional("properties") {
        Some(value) => read_properties(&value, owned, mistakes),
        None => Vec::new(),
    };
    let brokers = brokers?;
    if brokers.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no broker", table.owner()))
                .at(table.place(), "")
                .help("write the address of one, such as \"127.0.0.1:9092\""),
        );
        return None;
    }
    Some(KafkaConnection {
        brokers: brokers.join(","),
        properties,
    })
}

/// Reads `host:port`, or several separated by commas as other tools write them.
fn read_broker(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<String> {
    let text = value.text("the address of a broker, in quotes", mistakes)?;
    let is_good = text.get_ref().split(',').all(|address| {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
        !host.is_empty() && !host.contains([' ', '/']) && port.parse::<u16>().is_ok()
    });
    if !is_good {
        mistakes.push(
            Mistake::new(format!("{} is not the address of a broker", value.what()))
                .at(text.span(), "")
                .help("write a host and a port, such as \"127.0.0.1:9092\""),
        );
        return None;
    }
    Some(text.into_inner())
}

pub fn read_topic(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<String> {
    let text = value.text("the name of a topic, in quotes", mistakes)?;
    let name = text.get_ref();
    let is_good = !matches!(name.as_str(), "" | "." | "..")
        && name.len() <= 249
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !is_good {
        mistakes.push(
            Mistake::new(format!("{} cannot be the name of a topic", value.what()))
                .at(text.span(), "")
                .help("topics have up to 249 of: letters, digits, dot, _ and -"),
        );
        return None;
    }
    Some(text.into_inner())
}

/// Reads properties of librdkafka, which checks them itself.
fn read_properties(
    value: &ConfigValue,
    owned: Owned,
    mistakes: &mut Diagnostics,
) -> Vec<(String, String)> {
    let Some(table) = value.table(mistakes) else {
        return Vec::new();
    };
    let mut properties = Vec::new();
    for (name, value) in table.into_entries() {
        let text = match value.raw() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Boolean(boolean) => Some(boolean.to_string()),
            DeValue::Integer(integer) => to_i64(integer).map(|integer| integer.to_string()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            DeValue::Table(_) => match secrets::read_outside(&value, mistakes) {
                Some(text) => Some(text),
                None => continue,
            },
            _ => None,
        };
        let Some(text) = text else {
            value.refuse(
                "a text, { env = \"NAME\" }, { file = \"path\" }, a number or a boolean",
                mistakes,
            );
            continue;
        };
        let name_text = name.get_ref();
        let mut all = OWNED_BY_BOTH.iter().chain(owned);
        if let Some((_, help)) = all.find(|(owned, _)| owned == name_text) {
            mistakes.push(
                Mistake::new(format!("{} cannot be set here", value.what()))
                    .at(name.span(), "")
                    .help(*help),
            );
            continue;
        }
        let mut alone = ClientConfig::new();
        alone.set(name_text, &text);
        if let Err(KafkaError::ClientConfig(_, problem, _, _)) = alone.create_native_config() {
            let is_outside = matches!(value.raw(), DeValue::Table(_));
            let problem = match is_outside && problem.contains(&text) {
                true => "librdkafka does not accept its text",
                false => &problem,
            };
            mistakes.push(
                Mistake::new(format!("{}: {problem}", value.what()))
                    .at(name.span(), "")
                    .help("librdkafka's CONFIGURATION.md lists its properties and their values"),
            );
            continue;
        }
        properties.push((name.into_inner(), text));
    }
    properties
}

/// Where schemas are, and what a sink does with its own.
#[derive(Debug)]
pub struct RegistryKeys {
    pub connection: RegistryConnection,
    /// The subject of a sink's schema, if it is named.
    pub subject: Option<String>,
    /// Whether a sink may add its schema.
    pub registers: bool,
}

/// Reads `registry`: an address, or a table with it. A source has no schema of its own.
pub fn read_registry(
    value: &ConfigValue,
    is_sink: bool,
    mistakes: &mut Diagnostics,
) -> Option<RegistryKeys> {
    let DeValue::Table(_) = value.raw() else {
        return Some(RegistryKeys {
            connection: RegistryConnection {
                address: read_address(value, mistakes)?,
                user: None,
                token: None,
            },
            subject: None,
            registers: true,
        });
    };
    let mut table = value.table(mistakes)?;
    let meaning = "the address of the registry, such as \"http://127.0.0.1:8081\"";
    let address = table
        .required("address", meaning, mistakes)
        .and_then(|value| read_address(&value, mistakes));
    let user = table
        .optional("user")
        .map(|value| value.text("the name of a user, in quotes", mistakes));
    let mut secret = |key| {
        let value = table.optional(key)?;
        Some((value.key_span(), read_secret(&value, mistakes)))
    };
    let (password, token) = (secret("password"), secret("token"));
    let (subject, registers) = match is_sink {
        true => (table.optional("subject"), table.optional("register")),
        false => (None, None),
    };
    let subject = subject.map(|value| value.text("the name of a subject, in quotes", mistakes));
    let registers = registers.map(|value| value.boolean(mistakes));
    let lone = match (&user, &password, &token) {
        (Some(_), None, _) => Some((table.place(), "has a `user` and no `password`")),
        (None, Some((place, _)), _) => Some((place.clone(), "has a `password` and no `user`")),
        (Some(_), Some(_), Some((place, _))) => {
            Some((place.clone(), "has a `token` beside a `user`"))
        }
        _ => None,
    };
    table.finish(mistakes);
    if let Some((place, is)) = lone {
        let mistake = Mistake::new(format!("{} {is}", value.what())).at(place, "");
        mistakes.push(mistake.help("write `user` and `password`, or `token`, or none of them"));
        return None;
    }
    let user = match (user, password) {
        // Where secrets are left out, there is none.
        (Some(user), Some((_, password))) => {
            let password = password.unwrap_or_else(|| Password(String::new()));
            Some((user?.into_inner(), password))
        }
        _ => None,
    };
    Some(RegistryKeys {
        connection: RegistryConnection {
            address: address?,
            user,
            token: token.and_then(|(_, token)| token),
        },
        subject: match subject {
            Some(subject) => Some(subject?.into_inner()),
            None => None,
        },
        registers: match registers {
            Some(registers) => registers?,
            None => true,
        },
    })
}

fn read_address(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Url> {
    let text = value.text("the address of a registry, in quotes, or a table", mistakes)?;
    let is_good = |url: &Url| {
        let is_plain = url.username().is_empty() && url.password().is_none();
        ["http", "https"].contains(&url.scheme())
            && url.has_host()
            && is_plain
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let url = Url::parse(text.get_ref()).ok().filter(is_good);
    if url.is_none() {
        mistakes.push(
            Mistake::new(format!("{} is not the address of a registry", value.what()))
                .at(text.span(), "")
                .help(
                    "write one such as \"http://127.0.0.1:8081\"; a user and a password are keys \
                     of their own: { address = \"…\", user = \"…\", password = { env = \"…\" } }",
                ),
        );
    }
    url
}

fn read_secret(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Password> {
    let text = secrets::read(value, mistakes)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        mistakes.push(
            Mistake::new(format!("{} cannot be sent", value.what()))
                .at(value.span(), "")
                .help("it is a text of one line"),
        );
        return None;
    }
    Some(Password(text))
}
