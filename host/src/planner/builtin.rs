//! Resolves operators that need no plugin. Their types depend on what they read, so it
//! has to be planned before.

use std::sync::Arc;

use super::builder::Builder;
use super::columns::Upstream;
use super::section::Resolved;
use crate::builtin::aggregate::call::Call;
use crate::builtin::aggregate::{Column, Functions};
use crate::config::{AggregateConfig, Mistake, OperatorConfig, Runs, Span, Spanned};
use crate::logic::{Factory, Kind, Value};
use crate::plan::BUILT_IN;
use crate::schema::{Field, Schema};
use crate::suggest;

impl Builder<'_> {
    /// `None` for a plugin's operator, after a mistake, and if an upstream is not known.
    pub(super) fn resolve_builtin(
        &mut self,
        operator: &OperatorConfig,
        upstreams: &[Option<Upstream>],
    ) -> Option<Resolved> {
        match &operator.runs {
            Runs::Plugin(_) => None,
            Runs::Aggregate(aggregate) => self.resolve_aggregate(operator, aggregate, upstreams),
        }
    }

    fn resolve_aggregate(
        &mut self,
        operator: &OperatorConfig,
        aggregate: &AggregateConfig,
        upstreams: &[Option<Upstream>],
    ) -> Option<Resolved> {
        let title = format!("operator `{}`", operator.name.get_ref());
        let timing = self.timing(operator, &title, Kind::Aggregate);
        let upstreams: Vec<&Upstream> = upstreams
            .iter()
            .map(Option::as_ref)
            .collect::<Option<_>>()?;
        let mut input = Schema::default();
        let mut good = true;
        for (_, call) in &aggregate.columns {
            let Some(name) = &call.get_ref().field else {
                continue;
            };
            let Some((field, place)) = self.read_field(&title, call, name, &upstreams) else {
                good = false;
                continue;
            };
            if let Err(reason) = call.get_ref().takes(&field.data_type) {
                good = false;
                self.mistakes.push(
                    Mistake::new(format!(
                        "{title}: `{}` cannot take `{field}`: {reason}",
                        call.get_ref()
                    ))
                    .at(call.span(), "")
                    .at(place, format!("`{field}` is from here")),
                );
            }
            if input.index_of(name).is_none() {
                input.fields.push(field);
            }
        }
        if !good {
            return None;
        }
        let columns = aggregate.columns.iter();
        let columns: Vec<Column> = columns
            .map(|(name, call)| Column {
                name: name.get_ref().clone(),
                call: call.get_ref().clone(),
            })
            .collect();
        let arguments = columns
            .iter()
            .map(|column| (column.name.clone(), Value::Text(column.call.to_string())));
        let arguments = arguments.collect();
        let factory = Functions::new(columns, input);
        Some(Resolved {
            name: BUILT_IN.to_owned(),
            info: factory.info().clone(),
            arguments,
            factory: Some(Arc::new(factory)),
            timing,
        })
    }

    /// A field that all upstreams have, and its place.
    fn read_field(
        &mut self,
        title: &str,
        call: &Spanned<Call>,
        name: &str,
        upstreams: &[&Upstream],
    ) -> Option<(Field, Span)> {
        let mut found: Option<(Field, Span)> = None;
        let mut good = true;
        for up in upstreams {
            let Ok(column) = up.find(name) else {
                good = false;
                let names = up.relation.schema.fields.iter();
                let names = names.map(|field| field.name.as_str());
                self.mistakes.push(
                    Mistake::new(format!(
                        "{title}: `{}` reads `{name}`; {} has no such field",
                        call.get_ref(),
                        up.title
                    ))
                    .at(call.span(), "")
                    .at(up.place.clone(), "rows come from here")
                    .help(suggest::help(
                        name,
                        &format!("fields of {}", up.title),
                        names,
                    )),
                );
                continue;
            };
            let field = up.field(column);
            // Other types are refused where columns are read.
            match &mut found {
                Some((first, _)) => first.nullable |= field.nullable,
                None => found = Some((field.clone(), up.field_place(column))),
            }
        }
        found.filter(|_| good)
    }
}
