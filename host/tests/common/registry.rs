//! A real registry of schemas for each test program; see `tests/registry/registry.sh`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::harness::Absent;
use crate::kafka::scripted::{self, Scripted};

pub struct Registry(Scripted);

/// The registry of this test program.
pub fn registry() -> Result<&'static Registry, Absent> {
    static REGISTRY: LazyLock<Result<Registry, String>> =
        LazyLock::new(|| Scripted::start("registry", "registry/registry.sh").map(Registry));
    scripted::required(&REGISTRY, "schema registry")
}

impl Registry {
    pub fn address(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Adds a schema of Avro to a subject, and returns its number.
    pub fn add(&self, subject: &str, schema: &str, references: &[(&str, &str, i64)]) -> u32 {
        self.add_of("AVRO", subject, schema, references)
    }

    /// The same of another language.
    pub fn add_of(
        &self,
        language: &str,
        subject: &str,
        schema: &str,
        references: &[(&str, &str, i64)],
    ) -> u32 {
        let references = references.iter().map(|(name, subject, version)| {
            json!({ "name": name, "subject": subject, "version": version })
        });
        let references = references.collect::<Vec<_>>();
        let body = json!({ "schema": schema, "schemaType": language, "references": references });
        let subject = subject.replace('/', "%2F");
        let answer = self.ask(&format!("subjects/{subject}/versions"), Some(body));
        let id = answer["id"].as_u64();
        id.unwrap_or_else(|| panic!("{answer}")) as u32
    }

    /// Sets which changes of a subject are compatible.
    pub fn allow(&self, subject: &str, compatibility: &str) {
        let url = format!("{}/config/{subject}", self.address());
        let body = json!({ "compatibility": compatibility }).to_string();
        self.sent(reqwest::Client::new().put(url).body(body));
    }

    /// What it has at a path.
    pub fn ask(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/{path}", self.address());
        let client = reqwest::Client::new();
        self.sent(match body {
            Some(body) => client.post(url).body(body.to_string()),
            None => client.get(url),
        })
    }

    fn sent(&self, request: reqwest::RequestBuilder) -> Value {
        let request = request.header("content-type", "application/vnd.schemaregistry.v1+json");
        let text = crate::pipeline::runtime().block_on(async {
            let answer = request.send().await.expect("an answer");
            answer.text().await.expect("all of it")
        });
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}
