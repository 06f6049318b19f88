//! Finds the key's columns on each edge of a keyed operator.

use super::builder::Builder;
use super::columns::{Relation, Upstream};
use super::reading::Reading;
use crate::config::{KeyColumns, Mistake, OperatorConfig, Runs, Span, Spanned};
use crate::logic::Port;
use crate::schema::{DataType, Field, Schema};
use crate::suggest;

/// An operator's key: its columns on each edge, and their schema.
pub(super) struct Keys {
    pub columns: Vec<Vec<usize>>,
    pub relation: Relation,
}

impl Builder<'_> {
    /// The key's columns on each edge. The types must be the same on all edges; the
    /// names are those of the first port.
    pub(super) fn keys(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        ports: &[Port],
        reading: &Reading,
    ) -> Option<Keys> {
        let of_port = self.key_names(operator, title, ports)?;
        let mut relation = Relation::default();
        let mut columns: Vec<Vec<usize>> = vec![Vec::new(); reading.upstreams.len()];
        let mut good = true;
        let first_port = of_port.first().copied().unwrap_or_default();
        for (at, key_name) in first_port.iter().enumerate() {
            let mut first: Option<(&Upstream, &str, Field)> = None;
            for (edge, up) in reading.upstreams.iter().enumerate() {
                let Some(up) = up else {
                    good = false;
                    continue;
                };
                let name = &of_port[reading.ports[edge]][at];
                let place = name.span();
                let Some(column) = self.key_column(title, name.get_ref(), &place, up) else {
                    good = false;
                    continue;
                };
                columns[edge].push(column);
                let field = up.field(column);
                match &mut first {
                    None => first = Some((up, name.get_ref(), field.clone())),
                    Some((_, _, key)) if key.data_type == field.data_type => {
                        key.nullable |= field.nullable;
                    }
                    Some((other, other_name, key)) => {
                        good = false;
                        let others = other.field_place(other.find(other_name).unwrap_or(0));
                        self.mistakes.push(
                            Mistake::new(format!(
                                "{title} has inputs whose key differs: {} has `{key}`, {} has `{field}`",
                                other.title, up.title
                            ))
                            .at(name.span(), "the key")
                            .at(others, format!("`{key}` is from here"))
                            .at(up.field_place(column), format!("`{field}` is from here"))
                            .help("a key must have the same type on all inputs"),
                        );
                    }
                }
            }
            if let Some((_, _, mut field)) = first {
                field.name.clone_from(key_name.get_ref());
                relation.push(field, key_name.span());
            }
        }
        good.then_some(Keys { columns, relation })
    }

    /// The names of the key's columns for each port.
    fn key_names<'k>(
        &mut self,
        operator: &'k OperatorConfig,
        title: &str,
        ports: &[Port],
    ) -> Option<Vec<&'k [Spanned<String>]>> {
        if let Runs::Deduplicate(deduplicate) = &operator.runs {
            return Some(vec![&deduplicate.by; ports.len()]);
        }
        let Some(key) = &operator.key else {
            return Some(vec![&[]; ports.len()]);
        };
        let of_ports = match &key.columns {
            KeyColumns::Same(names) => return Some(vec![names; ports.len()]),
            KeyColumns::ByPort(of_ports) => of_ports,
        };
        let mut good = true;
        for (name, _) in of_ports {
            if ports.iter().any(|port| port.name == *name.get_ref()) {
                continue;
            }
            good = false;
            let names = ports.iter().map(|port| port.name.as_str());
            let help = suggest::help(name.get_ref(), &format!("inputs of {title}"), names);
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} has a key for the input `{}`, which it does not have",
                    name.get_ref()
                ))
                .at(name.span(), "")
                .help(help),
            );
        }
        let mut names: Vec<&[Spanned<String>]> = Vec::new();
        for port in ports {
            let of_port = of_ports
                .iter()
                .find(|(name, _)| *name.get_ref() == port.name);
            let Some((_, of_port)) = of_port else {
                good = false;
                self.mistakes.push(
                    Mistake::new(format!("{title} has no key for its input `{}`", port.name))
                        .at(key.place.clone(), "")
                        .help(format!("add it: {} = \"…\"", port.name)),
                );
                continue;
            };
            if let Some(first) = names.first().filter(|first| first.len() != of_port.len()) {
                good = false;
                self.mistakes.push(
                    Mistake::new(format!(
                        "the keys of {title} have {} and {} fields",
                        first.len(),
                        of_port.len()
                    ))
                    .at(key.place.clone(), "")
                    .help("name as many fields for each input: they are compared one by one"),
                );
            }
            names.push(of_port);
        }
        good.then_some(names)
    }

    /// The columns of the key that the operator reads.
    pub(super) fn key_read(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        wanted: &Schema,
        keys: &Keys,
    ) -> Option<Vec<usize>> {
        let Relation { schema, places, .. } = &keys.relation;
        let mut good = true;
        let mut columns = Vec::with_capacity(wanted.fields.len());
        for field in &wanted.fields {
            match schema.index_of(&field.name) {
                Some(column) if field.reads(&schema.fields[column]) => columns.push(column),
                Some(column) => {
                    good = false;
                    let given = &schema.fields[column];
                    self.mistakes.push(
                        Mistake::new(format!(
                            "{title} reads `{field}` of its key, which has `{given}`"
                        ))
                        .at(places[column].clone(), "the key")
                        .at(operator.runs.place(), "this reads it")
                        .help("both must have the same type"),
                    );
                }
                None => {
                    good = false;
                    let names = schema.fields.iter().map(|field| field.name.as_str());
                    let place = match &operator.key {
                        Some(key) => key.place.clone(),
                        None => operator.name.span(),
                    };
                    let help = match schema.fields.is_empty() {
                        true => format!("add it: key = \"{}\"", field.name),
                        false => suggest::help(&field.name, "fields of the key", names),
                    };
                    self.mistakes.push(
                        Mistake::new(format!(
                            "{title} reads `{field}` of its key, which has no such field"
                        ))
                        .at(place, "")
                        .help(help),
                    );
                }
            }
        }
        good.then_some(columns)
    }

    fn key_column(
        &mut self,
        title: &str,
        name: &str,
        place: &Span,
        up: &Upstream,
    ) -> Option<usize> {
        let Ok(column) = up.find(name) else {
            let reads = format!("{title} has the key");
            self.mistakes.push(up.lacks(&reads, name, place, "the key"));
            return None;
        };
        let field = up.field(column);
        let reason = match field.data_type {
            DataType::Float32 | DataType::Float64 => {
                "floating-point numbers that look equal differ"
            }
            DataType::List(_) | DataType::Record(_) => "lists and records are not compared",
            _ => return Some(column),
        };
        self.mistakes.push(
            Mistake::new(format!("{title} cannot have `{field}` as a key: {reason}"))
                .at(place.clone(), "the key")
                .at(up.field_place(column), format!("`{field}` is from here"))
                .help("keys are whole numbers, texts, symbols, bytes, booleans or timestamps"),
        );
        None
    }
}
