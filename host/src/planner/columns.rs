//! Finds the columns that an operator reads: by name, whatever their order and
//! whatever other columns there are.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::builder::Builder;
use crate::config::{Mistake, OperatorConfig, Span};
use crate::schema::{DataType, Field, Schema};
use crate::suggest;

/// A schema, and for each column the place in the file that it comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct Relation {
    pub schema: Schema,
    pub places: Vec<Span>,
    /// Whether rows may take others back.
    pub changes: Option<Changes>,
    /// Of [`Changes::Upserts`]: the names of the fields of the key, unless inputs have several.
    pub key: Vec<String>,
    /// The columns by their names: there may be thousands.
    index: OnceCell<HashMap<String, usize>>,
}

/// Rows that take others back, by the times that they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Changes {
    /// The time of the row that is taken back: that of its window.
    Windows,
    /// The same; and what comes in its place may have another time.
    Sessions,
    /// The time at which it is taken back.
    Rows,
    /// The same. A row takes the place of the one before it with the same key, which is not
    /// taken back; what is gone comes with its key alone.
    Upserts,
}

/// An output that feeds an input.
pub(super) struct Upstream<'p> {
    pub section: usize,
    /// The index of the output at its section.
    pub output: usize,
    /// Names the section in messages: "source `actions`".
    pub title: String,
    /// The place of the input that names it.
    pub place: Span,
    pub relation: &'p Relation,
}

impl Relation {
    /// Adds the columns of an operator's output.
    pub fn push_output(&mut self, operator: &OperatorConfig, output: &Schema) {
        let places = operator.runs.column_places();
        for field in &output.fields {
            let place = places.get(field.name.as_str());
            let place = place.cloned().unwrap_or_else(|| operator.runs.place());
            self.push(field.clone(), place);
        }
    }

    /// The column with this name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        let index = self.index.get_or_init(|| {
            let names = self.schema.fields.iter().map(|field| field.name.clone());
            // Of several, the first one counts.
            names
                .zip(0..)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect()
        });
        index.get(name).copied()
    }

    pub fn push(&mut self, field: Field, place: Span) {
        self.index.take();
        self.schema.fields.push(field);
        self.places.push(place);
    }

    pub fn remove(&mut self, name: &str) {
        if let Some(column) = self.schema.index_of(name) {
            self.index.take();
            self.schema.fields.remove(column);
            self.places.remove(column);
        }
    }

    fn place(&self, column: usize) -> Span {
        self.places.get(column).cloned().unwrap_or_default()
    }
}

impl Upstream<'_> {
    /// The column with this name; else the one with the nearest name, if any.
    pub fn find(&self, name: &str) -> Result<usize, Option<usize>> {
        let schema = &self.relation.schema;
        self.relation.index_of(name).ok_or_else(|| {
            let names = schema.fields.iter().map(|field| field.name.as_str());
            suggest::nearest(name, names).and_then(|near| schema.index_of(near))
        })
    }

    /// A column of this name, or else a member of records.
    pub fn find_member(&self, name: &str) -> Option<Found<'_>> {
        let fields = &self.relation.schema.fields;
        match self.relation.index_of(name) {
            Some(column) => Some(Found {
                column,
                members: Vec::new(),
                fields: vec![&fields[column]],
            }),
            None if name.contains('.') => find(fields, name),
            None => None,
        }
    }

    pub fn field(&self, column: usize) -> &Field {
        &self.relation.schema.fields[column]
    }

    pub fn field_place(&self, column: usize) -> Span {
        self.relation.place(column)
    }

    /// Says that there is no field of this name. `reads` says who reads it, `place` and
    /// `label` where.
    pub fn lacks(&self, reads: &str, name: &str, place: &Span, label: &str) -> Mistake {
        let fields = self.relation.schema.fields.iter();
        let names = fields.map(|field| field.name.as_str());
        let nouns = format!("fields of {}", self.title);
        Mistake::new(format!(
            "{reads} `{name}`; {} has no such field",
            self.title
        ))
        .at(place.clone(), label)
        .at(self.place.clone(), "rows come from here")
        .help(suggest::help(name, &nouns, names))
    }

    pub fn has(&self) -> String {
        let fields = &self.relation.schema.fields;
        let names: Vec<String> = fields.iter().map(Field::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        format!("{} has: {}", self.title, suggest::listed(&names))
    }
}

impl Builder<'_> {
    /// For each field that the operator reads, the index of its column.
    pub(super) fn columns_read(
        &mut self,
        reader: &str,
        wants: &Schema,
        up: &Upstream,
    ) -> Option<Vec<usize>> {
        let columns: Vec<Option<usize>> = wants
            .fields
            .iter()
            .map(|wanted| {
                let problem = match up.find(&wanted.name) {
                    Ok(column) if wanted.reads(up.field(column)) => return Some(column),
                    Ok(column) => differs(reader, wanted, up, column),
                    Err(near) => missing(reader, wanted, up, near),
                };
                self.mistakes.push(problem);
                None
            })
            .collect();
        columns.into_iter().collect()
    }

    /// The columns of merged inputs whose rows are passed on: they must be the
    /// same.
    pub(super) fn merged(&mut self, reader: &str, upstreams: &[&Upstream]) -> Option<Relation> {
        let (first, others) = upstreams.split_first()?;
        let mut good = true;
        for other in others {
            let (one, two) = (&first.relation.schema, &other.relation.schema);
            if one == two {
                continue;
            }
            good = false;
            let difference = one.fields.iter().zip(&two.fields).position(|(a, b)| a != b);
            let column = difference.unwrap_or(one.fields.len().min(two.fields.len()));
            let side = |up: &Upstream| match up.relation.schema.fields.get(column) {
                Some(field) => format!("`{field}`"),
                None => "no more columns".to_owned(),
            };
            let mistake = Mistake::new(format!(
                "{reader} merges inputs that differ: {} has {} where {} has {}",
                first.title,
                side(first),
                other.title,
                side(other)
            ))
            .at(other.place.clone(), "this input")
            .at(first.place.clone(), "and this one");
            self.mistakes.push(mistake.help(
                "merged rows are passed on unchanged: their columns must have the same names, \
                 types and order; a transform before one of them can adapt it",
            ));
        }
        let changes = upstreams.iter().filter_map(|up| up.relation.changes).max();
        let mut key = first.relation.key.clone();
        if others.iter().any(|other| other.relation.key != key) {
            key.clear();
        }
        good.then(|| Relation {
            changes,
            key,
            ..first.relation.clone()
        })
    }

    pub(super) fn transform_output(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        output: &Schema,
        changes: Option<Changes>,
    ) -> Option<Relation> {
        let mut relation = Relation {
            changes,
            ..Relation::default()
        };
        relation.push_output(operator, output);
        let help = match operator.runs.plugin() {
            Some(_) => "this is a mistake in the plugin: rename one of its output fields",
            None => "rows have a field of this name: give the column another one",
        };
        self.refuse_duplicates(title, relation, |_, _| help.to_owned())
    }

    /// Refuses two columns with the same name; `help` explains what the two
    /// are.
    pub(super) fn refuse_duplicates(
        &mut self,
        title: &str,
        relation: Relation,
        help: impl Fn(usize, usize) -> String,
    ) -> Option<Relation> {
        let mut good = true;
        let mut places = HashMap::new();
        for (i, field) in relation.schema.fields.iter().enumerate() {
            let first = *places.entry(&field.name).or_insert(i);
            if first != i {
                good = false;
                let name = &field.name;
                let mut mistake = Mistake::new(format!(
                    "the output of {title} has two columns named `{name}`"
                ))
                .at(relation.place(i), format!("`{field}` is from here"));
                if relation.place(first) != relation.place(i) {
                    let other = &relation.schema.fields[first];
                    mistake = mistake.at(relation.place(first), format!("`{other}` is from here"));
                }
                self.mistakes.push(mistake.help(help(first, i)));
            }
        }
        good.then_some(relation)
    }
}

/// A field that was found by its name, and the records around it.
pub(super) struct Found<'a> {
    pub column: usize,
    pub members: Vec<usize>,
    /// The column, and each member.
    pub fields: Vec<&'a Field>,
}

/// A column of this name, or else a member of records: `meta.ts`.
pub(super) fn find<'a>(fields: &'a [Field], name: &str) -> Option<Found<'a>> {
    let index = |fields: &[Field], name: &str| fields.iter().position(|it| it.name == name);
    if let Some(column) = index(fields, name) {
        return Some(Found {
            column,
            members: Vec::new(),
            fields: vec![&fields[column]],
        });
    }
    let mut path = Vec::new();
    let mut found = Vec::new();
    let mut members = fields;
    for name in name.split('.') {
        let at = index(members, name)?;
        path.push(at);
        found.push(&members[at]);
        members = match &members[at].data_type {
            DataType::Record(members) => members,
            _ => &[],
        };
    }
    Some(Found {
        column: path.remove(0),
        members: path,
        fields: found,
    })
}

fn missing(reader: &str, wanted: &Field, up: &Upstream, near: Option<usize>) -> Mistake {
    match near {
        Some(column) => {
            let given = up.field(column);
            Mistake::new(format!(
                "{reader} needs `{wanted}`; {} has `{given}`",
                up.title
            ))
            .at(up.place.clone(), "rows come from here")
            .at(up.field_place(column), format!("`{given}` is from here"))
            .help(format!(
                "did you mean `{}`? Fields are found by name: give it the same name on both sides",
                wanted.name
            ))
        }
        None => {
            let optional = match wanted.nullable {
                true => {
                    format!("; it may be missing in a row, but not as a column: add `{wanted}`")
                }
                false => String::new(),
            };
            Mistake::new(format!(
                "{reader} needs `{wanted}`; {} has no such field",
                up.title
            ))
            .at(up.place.clone(), "rows come from here")
            .help(format!("{}{optional}", up.has()))
        }
    }
}

fn differs(reader: &str, wanted: &Field, up: &Upstream, column: usize) -> Mistake {
    let given = up.field(column);
    let mut as_required = given.clone();
    as_required.nullable = wanted.nullable;
    let help = if wanted.reads(&as_required) {
        format!(
            "`?` means that it may be missing: declare it without (a row that lacks it is then \
             a bad row), or let the plugin take an Option for `{}`",
            wanted.name
        )
    } else {
        match (&wanted.data_type, &given.data_type) {
            (DataType::Record(_), DataType::Record(_)) => {
                "records must have the same members in the same order".to_owned()
            }
            _ => format!(
                "make it `{}` there, or change what the plugin takes",
                wanted.data_type
            ),
        }
    };
    Mistake::new(format!(
        "{reader} needs `{wanted}`; {} has `{given}`",
        up.title
    ))
    .at(up.place.clone(), "rows come from here")
    .at(up.field_place(column), format!("`{given}` is from here"))
    .help(help)
}
