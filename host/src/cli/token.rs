//! `sluicebox token`: makes, lists and removes the tokens of a service.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use super::CliError;
use crate::service::store::{BY_FILES, BY_HTTP};
use crate::service::tokens::{Role, TokenFile};

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; the file gets its hash
    New {
        #[command(flatten)]
        file: TokensFile,
        /// What its bearer may do: look at everything, or change pipelines as well
        #[arg(long, value_enum)]
        role: Role,
        /// What the token is called, to remove it by
        #[arg(long)]
        name: String,
    },
    /// List the tokens' names and roles
    List {
        #[command(flatten)]
        file: TokensFile,
    },
    /// Remove a token, which a running service notices within a second
    Remove {
        #[command(flatten)]
        file: TokensFile,
        /// Its name
        name: String,
    },
}

#[derive(Args)]
pub struct TokensFile {
    /// The file of tokens, which `sluicebox serve --tokens` is given
    #[arg(long, default_value = "tokens.toml", value_name = "FILE")]
    file: PathBuf,
}

pub fn token(command: &TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::New { file, role, name } => add(file, *role, name),
        TokenCommand::List { file } => list(file),
        TokenCommand::Remove { file, name } => remove(file, name),
    }
}

impl TokensFile {
    fn read(&self) -> Result<TokenFile, CliError> {
        TokenFile::read(&self.file).map_err(|error| CliError::Usage(error.into()))
    }

    fn write(&self, tokens: &TokenFile) -> Result<(), CliError> {
        let written = tokens.write(&self.file);
        let written = written.with_context(|| format!("cannot write {}", self.file.display()));
        written.map_err(CliError::Failed)
    }
}

fn add(file: &TokensFile, role: Role, name: &str) -> Result<(), CliError> {
    if [BY_FILES, BY_HTTP].contains(&name) {
        return Err(CliError::Usage(anyhow!(
            "the history of changes says `{name}` of what no token has asked for: take another name"
        )));
    }
    let is_new = matches!(
        file.file.metadata(),
        Err(error) if error.kind() == io::ErrorKind::NotFound
    );
    let mut tokens = match is_new {
        true => TokenFile::default(),
        false => file.read()?,
    };
    if tokens.tokens.iter().any(|token| token.name == name) {
        return Err(CliError::Usage(anyhow!(
            "{} has a token `{name}`: take another name, or remove that one first",
            file.file.display()
        )));
    }
    let token = tokens.add(name, role);
    let token = token.map_err(|error| CliError::Failed(error.into()))?;
    file.write(&tokens)?;
    super::print(&format!("{token}\n"))
}

fn list(file: &TokensFile) -> Result<(), CliError> {
    let tokens = file.read()?.tokens;
    let line = |name: &str, role: Role| match role {
        Role::Read => format!("read   {name}\n"),
        Role::Admin => format!("admin  {name}\n"),
    };
    let lines = tokens.iter().map(|token| line(&token.name, token.role));
    super::print(&lines.collect::<String>())
}

fn remove(file: &TokensFile, name: &str) -> Result<(), CliError> {
    let mut tokens = file.read()?;
    let before = tokens.tokens.len();
    tokens.tokens.retain(|token| token.name != name);
    if tokens.tokens.len() == before {
        return Err(CliError::Usage(anyhow!(
            "{} has no token `{name}`: `sluicebox token list` shows them",
            file.file.display()
        )));
    }
    file.write(&tokens)
}
