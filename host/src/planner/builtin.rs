//! Resolves operators that need no plugin. Their types depend on what they read, so it
//! has to be planned before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::ArrayRef;

use super::builder::Builder;
use super::columns::Upstream;
use super::section::{Resolved, Timing};
use crate::builtin::aggregate::computed::Computed;
use crate::builtin::aggregate::{Column, Functions};
use crate::builtin::deduplicate::Deduplicate;
use crate::builtin::filter::{CheckError, Fields, Filter, check, check_number};
use crate::builtin::neighbours::call::{Call as NeighbourCall, Neighbour};
use crate::builtin::neighbours::{Added, Neighbours};
use crate::builtin::order::Order;
use crate::builtin::select::{Select, Selected};
use crate::config::{
    AggregateConfig, DeduplicateConfig, DropConfig, FilterConfig, Mistake, OperatorConfig,
    OrderConfig, Runs, SelectConfig, Span,
};
use crate::logic::{Factory, Kind, Value};
use crate::plan::{Arguments, Emit, RowOrder, Window};
use crate::quantity::show_ms;
use crate::schema::{Field, Schema};

/// A field of all upstreams, or a member of one.
struct ReadField {
    /// The field, as it is read.
    column: Field,
    /// The same, or the member. It can be missing if any record around it can.
    value: Field,
    members: Vec<usize>,
    place: Span,
}

impl Builder<'_> {
    /// `None` for a plugin's operator, after a mistake, and if an upstream is not known.
    pub(super) fn resolve_builtin(
        &mut self,
        operator: &OperatorConfig,
        upstreams: &[Option<Upstream>],
    ) -> Option<Resolved> {
        let title = format!("operator `{}`", operator.name.get_ref());
        let timing = match &operator.runs {
            Runs::Plugin(_) | Runs::Join(_) => return None,
            Runs::Deduplicate(deduplicate) => {
                self.refuse_aggregate_settings(operator, &title, Kind::Filter);
                Some(deduplicate_timing(deduplicate))
            }
            runs => self.timing(operator, &title, runs.kind()?),
        };
        let known = upstreams.iter().map(Option::as_ref);
        let known: Vec<&Upstream> = known.collect::<Option<_>>()?;
        let (factory, arguments) = match &operator.runs {
            Runs::Plugin(_) | Runs::Join(_) => return None,
            Runs::Aggregate(aggregate) => self.functions(aggregate, &title, &known)?,
            Runs::Select(select) => self.select(select, &title, &known)?,
            Runs::Drop(drop) => self.drop(drop, &title, &known)?,
            Runs::Deduplicate(deduplicate) => resolve_deduplicate(deduplicate),
            Runs::Filter(filter) => self.filter(filter, &title, &known)?,
            Runs::Order(order) => self.order(operator, order, &title, &known)?,
        };
        Some(Resolved {
            name: factory.info().name.clone(),
            info: factory.info().clone(),
            arguments,
            factory: Some(factory),
            earlier: Vec::new(),
            timing,
        })
    }

    fn order(
        &mut self,
        operator: &OperatorConfig,
        order: &OrderConfig,
        title: &str,
        upstreams: &[&Upstream],
    ) -> Option<(Arc<dyn Factory>, Arguments)> {
        if operator.order.as_ref()?.value == RowOrder::Arrival {
            self.mistakes.push(
                Mistake::new(format!("{title} changes nothing"))
                    .at(
                        order.place.clone(),
                        "rows come in order of arrival without it, too",
                    )
                    .help("write `order = \"event_time\"`"),
            );
            return None;
        }
        let rows = self.merged(title, upstreams)?.schema;
        if order.add.is_empty() {
            return Some((Arc::new(Order::new(rows)), Arguments::new()));
        }
        let added = order.add.iter().map(|(name, call)| {
            let (call, place) = (call.get_ref(), call.span());
            let reads = format!("{title}: `{call}`");
            let (column, default) = match call {
                NeighbourCall::RowNumber => (0, None),
                NeighbourCall::Neighbour(neighbour) => {
                    self.neighbour(neighbour, &rows, &reads, &place, upstreams)?
                }
            };
            Some(Added {
                name: name.get_ref().clone(),
                call: call.clone(),
                column,
                default,
            })
        });
        let added: Vec<Option<Added>> = added.collect();
        let waits = order
            .add
            .iter()
            .find(|(_, call)| call.get_ref().reach().1 > 0);
        let ttl_ms = operator.ttl_ms.as_ref().map(|setting| setting.value);
        if let Some((_, call)) = waits.filter(|_| ttl_ms.is_none()) {
            self.mistakes.push(
                Mistake::new(format!("{title} has `{}` and no `ttl`", call.get_ref()))
                    .at(call.span(), "the last rows of each key wait for others")
                    .help(
                        "say how long, in event time: `ttl = \"1h\"`; then they have the value \
                         for no row",
                    ),
            );
            return None;
        }
        let added = added.into_iter().collect::<Option<Vec<_>>>()?;
        let arguments = added
            .iter()
            .map(|added| (added.name.clone(), Value::Text(added.call.to_string())));
        let arguments = arguments.collect();
        Some((Arc::new(Neighbours::new(rows, added, ttl_ms)), arguments))
    }

    /// The column of a neighbour's field, and the value instead of a neighbour.
    fn neighbour(
        &mut self,
        neighbour: &Neighbour,
        rows: &Schema,
        reads: &str,
        place: &Span,
        upstreams: &[&Upstream],
    ) -> Option<(usize, Option<ArrayRef>)> {
        let found = self.read_field(reads, &neighbour.field, place, upstreams)?;
        if !found.members.is_empty() {
            self.mistakes.push(
                Mistake::new(format!(
                    "{reads} cannot take `{}`: it is a member of a record",
                    found.value
                ))
                .at(place.clone(), "")
                .help("make a field of it by an operator with `select`"),
            );
            return None;
        }
        let column = rows.index_of(&neighbour.field)?;
        let Some(default) = &neighbour.default else {
            return Some((column, None));
        };
        match default.of_type(&rows.fields[column].data_type) {
            Ok(value) => Some((column, Some(value))),
            Err(problem) => {
                self.mistakes.push(
                    Mistake::new(format!("{reads} cannot have this value: {problem}"))
                        .at(place.clone(), "")
                        .at(found.place, format!("`{}` is from here", found.column))
                        .help(
                            "write a value of the field's type; texts and times have quotes: \
                             `'none'`",
                        ),
                );
                None
            }
        }
    }

    fn functions(
        &mut self,
        aggregate: &AggregateConfig,
        title: &str,
        upstreams: &[&Upstream],
    ) -> Option<(Arc<dyn Factory>, Arguments)> {
        let mut input = Schema::default();
        let mut computed: Vec<Computed> = Vec::new();
        let mut good = true;
        let retracts = upstreams.iter().any(|up| up.relation.changes.is_some());
        for (_, call) in &aggregate.columns {
            let place = call.span();
            let call = call.get_ref();
            let Some(name) = &call.field else {
                continue;
            };
            let reads = format!("{title}: `{call}`");
            let is_name = upstreams.iter().any(|up| up.find_member(name).is_some());
            let found = match is_name || !is_calculation(name) {
                true => self.read_field(&reads, name, &place, upstreams),
                false => self.compute(&reads, name, &place, upstreams, &mut input, &mut computed),
            };
            let Some(found) = found else {
                good = false;
                continue;
            };
            let field = &found.value;
            let refused = match call.takes(&field.data_type) {
                _ if !found.members.is_empty() => Err("it is a member of a record"),
                taken => taken,
            };
            if let Err(reason) = refused {
                good = false;
                let mut mistake = Mistake::new(format!("{reads} cannot take `{field}`: {reason}"))
                    .at(place, "")
                    .at(found.place, format!("`{}` is from here", found.column));
                if !found.members.is_empty() {
                    mistake = mistake.help("make a field of it by an operator with `select`");
                }
                self.mistakes.push(mistake);
            } else if let Some(reason) = call.retracts().err().filter(|_| retracts) {
                good = false;
                let takes_back = upstreams.iter().find(|up| up.relation.changes.is_some());
                let mut mistake = Mistake::new(format!(
                    "{reads} cannot take rows back, as changes of results do: {reason}"
                ))
                .at(place, "")
                .help("use other functions here, or read results that are final");
                if let Some(up) = takes_back {
                    mistake = mistake.at(up.place.clone(), "rows come from here");
                }
                self.mistakes.push(mistake);
            } else if computed.iter().all(|it| it.field.name != *name)
                && input.index_of(name).is_none()
            {
                input.fields.push(found.column);
            }
        }
        if !good {
            return None;
        }
        let columns = aggregate.columns.iter().map(|(name, call)| Column {
            name: name.get_ref().clone(),
            call: call.get_ref().clone(),
        });
        let columns: Vec<Column> = columns.collect();
        let arguments = columns
            .iter()
            .map(|column| (column.name.clone(), Value::Text(column.call.to_string())));
        let arguments = arguments.collect();
        Some((
            Arc::new(Functions::computing(columns, input, computed, retracts)),
            arguments,
        ))
    }

    /// What a function reads that is calculated of fields.
    fn compute(
        &mut self,
        reads: &str,
        text: &str,
        place: &Span,
        upstreams: &[&Upstream],
        input: &mut Schema,
        computed: &mut Vec<Computed>,
    ) -> Option<ReadField> {
        let mut fields = FilterFields {
            builder: self,
            reads: reads.to_owned(),
            place: place.clone(),
            upstreams,
            input: std::mem::take(input),
            read: Vec::new(),
        };
        let checked = check_number(text, &mut fields);
        let FilterFields {
            input: columns,
            read,
            ..
        } = fields;
        *input = columns;
        match checked {
            Ok((expression, data_type)) => {
                let nullable = read.iter().any(|read| read.field.nullable);
                let field = Field::new(text, data_type, nullable);
                if computed.iter().all(|it| it.field.name != text) {
                    computed.push(Computed {
                        field: field.clone(),
                        reads: read,
                        expression,
                    });
                }
                Some(ReadField {
                    column: field.clone(),
                    members: Vec::new(),
                    value: field,
                    place: place.clone(),
                })
            }
            Err(error) => {
                self.tell_wrong(&format!("{reads}:"), place, error);
                None
            }
        }
    }

    fn select(
        &mut self,
        select: &SelectConfig,
        title: &str,
        upstreams: &[&Upstream],
    ) -> Option<(Arc<dyn Factory>, Arguments)> {
        let mut input = Schema::default();
        // By their names: there may be thousands.
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut columns = Vec::new();
        let mut arguments = Arguments::new();
        for (name, path) in &select.columns {
            let (name, place) = (name.get_ref(), path.span());
            let path = path.get_ref();
            let reads = format!("{title}: `{name}`");
            let Some(found) = self.read_field(&reads, path, &place, upstreams) else {
                continue;
            };
            let place = places.entry(found.column.name.clone());
            let column = *place.or_insert_with(|| {
                input.fields.push(found.column);
                input.fields.len() - 1
            });
            columns.push(Selected {
                field: Field {
                    name: name.clone(),
                    ..found.value
                },
                column,
                members: found.members,
            });
            arguments.push((name.clone(), Value::Text(path.clone())));
        }
        let good = columns.len() == select.columns.len();
        let factory = || Arc::new(Select::new(input, columns)) as Arc<dyn Factory>;
        good.then(|| (factory(), arguments))
    }

    fn filter(
        &mut self,
        filter: &FilterConfig,
        title: &str,
        upstreams: &[&Upstream],
    ) -> Option<(Arc<dyn Factory>, Arguments)> {
        let (text, place) = (filter.expression.get_ref(), filter.expression.span());
        let mut fields = FilterFields {
            builder: self,
            reads: format!("{title}: `filter`"),
            place: place.clone(),
            upstreams,
            input: Schema::default(),
            read: Vec::new(),
        };
        let checked = check(text, &mut fields);
        let FilterFields { input, read, .. } = fields;
        match checked {
            Ok(expression) => {
                let arguments = vec![("filter".to_owned(), Value::Text(text.clone()))];
                let factory = Filter::new(input, read, expression);
                Some((Arc::new(factory) as Arc<dyn Factory>, arguments))
            }
            Err(error) => {
                self.tell_wrong(&format!("{title}: in `filter`,"), &place, error);
                None
            }
        }
    }

    /// Reports what is wrong with a part of an expression, with `front` before it.
    fn tell_wrong(&mut self, front: &str, place: &Span, error: CheckError) {
        if let CheckError::Wrong {
            part,
            problem,
            help,
        } = error
        {
            let mistake = Mistake::new(format!("{front} `{part}` {problem}"));
            self.mistakes.push(mistake.at(place.clone(), "").help(help));
        }
    }

    fn drop(
        &mut self,
        drop: &DropConfig,
        title: &str,
        upstreams: &[&Upstream],
    ) -> Option<(Arc<dyn Factory>, Arguments)> {
        let mut good = true;
        for name in &drop.fields {
            let reads = format!("{title}: `drop`");
            let found = self.read_field(&reads, name.get_ref(), &name.span(), upstreams);
            let Some(found) = found else {
                good = false;
                continue;
            };
            if !found.members.is_empty() {
                good = false;
                self.mistakes.push(
                    Mistake::new(format!("{reads} can drop fields, not members of records"))
                        .at(name.span(), "")
                        .help("drop the record, or have `select` keep some of its members"),
                );
            }
        }
        let input = self.merged(title, upstreams)?.schema;
        let dropped: HashSet<&str> = drop.fields.iter().map(|name| &**name.get_ref()).collect();
        let kept: Vec<Field> = input
            .fields
            .iter()
            .filter(|it| !dropped.contains(&*it.name))
            .cloned()
            .collect();
        if kept.is_empty() {
            self.mistakes.push(
                Mistake::new(format!("{title} drops all fields"))
                    .at(drop.place.clone(), "")
                    .help("keep one of them at least"),
            );
            return None;
        }
        let columns = kept.iter().enumerate().map(|(column, field)| Selected {
            field: field.clone(),
            column,
            members: Vec::new(),
        });
        let columns = columns.collect();
        let names = drop.fields.iter().map(|name| name.get_ref().clone());
        let arguments = vec![("drop".to_owned(), Value::Texts(names.collect()))];
        let factory = Select::new(Schema::new(kept), columns).named("drop");
        good.then(|| (Arc::new(factory) as Arc<dyn Factory>, arguments))
    }

    /// A field that all upstreams have, or a member of a record. `reads` says who reads
    /// it; `at` is the place of its name.
    fn read_field(
        &mut self,
        reads: &str,
        name: &str,
        at: &Span,
        upstreams: &[&Upstream],
    ) -> Option<ReadField> {
        let mut read: Option<ReadField> = None;
        let mut good = true;
        for up in upstreams {
            let fields = &up.relation.schema.fields;
            let Some(found) = up.find_member(name) else {
                good = false;
                let reads = format!("{reads} reads");
                self.mistakes.push(up.lacks(&reads, name, at, ""));
                continue;
            };
            let nullable = found.fields.iter().any(|field| field.nullable);
            let column = &fields[found.column];
            match &mut read {
                // Other types are refused where columns are read.
                Some(read) => {
                    read.column.nullable |= column.nullable;
                    read.value.nullable |= nullable;
                }
                None => {
                    let value = found.fields.last().copied().unwrap_or(column);
                    read = Some(ReadField {
                        column: column.clone(),
                        value: Field {
                            name: name.to_owned(),
                            nullable,
                            ..value.clone()
                        },
                        place: up.field_place(found.column),
                        members: found.members,
                    });
                }
            }
        }
        read.filter(|_| good)
    }
}

/// Finds the fields of a filter's expression in its input.
struct FilterFields<'a, 'b, 'p> {
    builder: &'a mut Builder<'b>,
    /// Who reads them, and where it says so.
    reads: String,
    place: Span,
    upstreams: &'a [&'a Upstream<'p>],
    /// The columns that are read.
    input: Schema,
    /// The fields, and the columns or members that they are.
    read: Vec<Selected>,
}

impl Fields for FilterFields<'_, '_, '_> {
    fn number(&mut self, path: &str) -> Option<usize> {
        let known = self.read.iter().position(|read| read.field.name == path);
        if known.is_some() {
            return known;
        }
        let found = self
            .builder
            .read_field(&self.reads, path, &self.place, self.upstreams)?;
        self.read.push(Selected {
            column: index_of(&mut self.input, found.column),
            field: found.value,
            members: found.members,
        });
        Some(self.read.len() - 1)
    }

    fn field(&self, number: usize) -> &Field {
        &self.read[number].field
    }
}

/// Whether a function's argument is more than the name of a field.
fn is_calculation(text: &str) -> bool {
    text.contains(['+', '-', '*', '/', '%', '(', '?'])
}

/// The place of a column, which is added if it is new.
fn index_of(input: &mut Schema, column: Field) -> usize {
    input.index_of(&column.name).unwrap_or_else(|| {
        input.fields.push(column);
        input.fields.len() - 1
    })
}

fn deduplicate_timing(deduplicate: &DeduplicateConfig) -> Timing {
    Timing {
        window: Window::Running,
        allowed_lateness_ms: 0,
        emit: Emit::default(),
        early_every_ms: None,
        discards: false,
        ttl_ms: Some(deduplicate.within_ms),
        bounds: None,
        column: None,
        bounds_place: deduplicate.place.clone(),
    }
}

fn resolve_deduplicate(deduplicate: &DeduplicateConfig) -> (Arc<dyn Factory>, Arguments) {
    let names = deduplicate.by.iter();
    let by = names.map(|name| name.get_ref().clone()).collect();
    let within = show_ms(deduplicate.within_ms);
    let arguments = vec![
        ("by".to_owned(), Value::Texts(by)),
        ("within".to_owned(), Value::Text(within)),
    ];
    let factory = Deduplicate::new(deduplicate.within_ms.unsigned_abs());
    (Arc::new(factory), arguments)
}
