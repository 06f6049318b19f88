//! Plans joins: which rows match, the key, and the columns of joined rows.

use std::sync::Arc;

use super::aggregate::settings_of_results;
use super::builder::Builder;
use super::columns::{Relation, Upstream};
use super::keys::Keys;
use super::reading::Reading;
use super::section::{Planned, PlannedOutput, Resolved, UNPLANNED, planned, title_of};
use crate::config::{
    JoinConfig, JoinedConfig, JoinedFrom, MatchingConfig, Mistake, OperatorConfig, Span, Spanned,
};
use crate::logic::{Kind, MAIN, OperatorInfo, Port};
use crate::plan::{
    Exchange, JoinColumn, JoinKind, JoinPlan, JoinRule, JoinSide, LATE_SIDES, LEFT, Matching,
    NodeKind, RIGHT, SIDES, Window,
};
use crate::schema::{DataType, Field, Schema};
use crate::suggest;

/// How many windows a row may be in: a mark of a row counts them in 16 bits.
const WINDOWS_OF_A_ROW_MAX: i64 = u16::MAX as i64;

/// What other sections need to know of a join.
pub(super) fn resolved(operator: &OperatorConfig) -> Resolved {
    let port = |name: &str| Port {
        name: name.to_owned(),
        schema: Arc::default(),
    };
    let outputs = [MAIN, LATE_SIDES[LEFT], LATE_SIDES[RIGHT]];
    Resolved {
        name: "join".to_owned(),
        info: OperatorInfo::new(
            operator.name.get_ref(),
            Kind::Join,
            SIDES.map(port).to_vec(),
            outputs.map(port).to_vec(),
        ),
        arguments: Vec::new(),
        factory: None,
        earlier: Vec::new(),
        timing: None,
    }
}

/// The columns of joined rows, and those of each side that they need.
#[derive(Default)]
struct Selection {
    sides: [Vec<Field>; 2],
    columns: Vec<JoinColumn>,
    relation: Relation,
}

impl Selection {
    /// The index of a side's field, which is added if it is new.
    fn field(&mut self, side: usize, field: &Field) -> usize {
        let fields = &mut self.sides[side];
        let known = fields.iter().position(|known| known.name == field.name);
        known.unwrap_or_else(|| {
            fields.push(field.clone());
            fields.len() - 1
        })
    }

    /// Adds a column of a side, which is missing where a row of the other side matches
    /// none.
    fn push(&mut self, name: &str, side: usize, field: &Field, kind: JoinKind, place: Span) {
        let index = self.field(side, field);
        self.columns.push(match side {
            LEFT => JoinColumn::Left(index),
            _ => JoinColumn::Right(index),
        });
        let nullable = field.nullable || kind.keeps(1 - side);
        let field = Field::new(name, field.data_type.clone(), nullable);
        self.relation.push(field, place);
    }

    /// Adds a record of fields of a side, which is missing where none matches.
    fn push_record(
        &mut self,
        name: &str,
        side: usize,
        members: Vec<Field>,
        kind: JoinKind,
        place: Span,
    ) {
        let indices = members.iter().map(|field| self.field(side, field));
        let indices = indices.collect();
        self.columns.push(JoinColumn::Record(side, indices));
        let record = DataType::Record(members.into());
        let field = Field::new(name, record, kind.keeps(1 - side));
        self.relation.push(field, place);
    }

    /// Adds a column of the key.
    fn push_key(&mut self, name: &str, key: &Field, sides: [&Field; 2], place: Span) {
        let [left, right] = [LEFT, RIGHT].map(|side| self.field(side, sides[side]));
        self.columns.push(JoinColumn::Key { left, right });
        let field = Field::new(name, key.data_type.clone(), key.nullable);
        self.relation.push(field, place);
    }
}

impl Builder<'_> {
    pub(super) fn plan_join(
        &mut self,
        operator: &OperatorConfig,
        join: &JoinConfig,
        reading: &Reading,
        late_wanted: [bool; 2],
    ) -> Planned {
        let title = title_of(operator);
        self.refuse_settings_of_join(operator, &title);
        let rule = self.join_rule(operator, join, &title);
        let nameless = SIDES.map(|name| Port {
            name: name.to_owned(),
            schema: Arc::default(),
        });
        if operator.key.is_none() {
            self.mistakes.push(
                Mistake::new(format!("{title} is a join and has no `key`"))
                    .at(operator.name.span(), "")
                    .help(
                        "name the field by which rows belong together: `key = \"user_id\"`, or \
                         `key = { left = \"user\", right = \"user_id\" }`",
                    ),
            );
            return UNPLANNED;
        }
        let keys = self.keys(operator, &title, &nameless, reading);
        let (Some(rule), Some(keys), Some(upstreams)) = (rule, keys, reading.known()) else {
            return UNPLANNED;
        };
        let Some(selection) = self.selection(&title, join, rule.kind, &keys, reading, &upstreams)
        else {
            return UNPLANNED;
        };
        let tombstone = match &join.matching {
            Some(MatchingConfig::AsOf {
                tombstone: Some(tombstone),
                ..
            }) => match self.tombstone(&title, tombstone, reading, &upstreams) {
                Some(columns) => Some(columns),
                None => return UNPLANNED,
            },
            _ => None,
        };
        let schemas = selection.sides.map(|fields| Arc::new(Schema::new(fields)));
        let ports = [LEFT, RIGHT].map(|side| Port {
            name: SIDES[side].to_owned(),
            schema: schemas[side].clone(),
        });
        let Some(columns) = self.columns_of_edges(&title, &ports, reading) else {
            return UNPLANNED;
        };
        let mut outputs = vec![PlannedOutput::new(MAIN, Some(selection.relation))];
        let mut late_outputs = [None, None];
        for side in [LEFT, RIGHT] {
            // What reads the late rows of a join that has none is refused where it does.
            if !late_wanted[side] || !rule.matching.has_late_rows() {
                continue;
            }
            let name = LATE_SIDES[side];
            let late = self.merged(
                &format!("the output `{name}` of {title}"),
                &reading.of_port(&upstreams, side),
            );
            late_outputs[side] = Some(outputs.len());
            outputs.push(PlannedOutput::new(name, late));
        }
        let read = ports.map(|port| fields_read(port, &keys, reading, &upstreams, &tombstone));
        let inputs = reading.inputs(&read, |edge| Exchange::Hash(keys.columns[edge].clone()));
        let mut columns = reading.by_port(SIDES.len(), columns).into_iter();
        let mut key = reading.by_port(SIDES.len(), keys.columns).into_iter();
        let mut tombstone = [None, tombstone];
        let sides = [LEFT, RIGHT].map(|side| JoinSide {
            schema: schemas[side].clone(),
            columns: columns.next().unwrap_or_default(),
            key: key.next().unwrap_or_default(),
            tombstone: tombstone[side].take(),
            late_output: late_outputs[side],
        });
        let kind = NodeKind::Join(JoinPlan {
            rule,
            key_schema: Arc::new(keys.relation.schema),
            sides,
            output: selection.columns,
            // Known when all nodes are.
            waits_for_table: false,
        });
        planned(&operator.name, Some(kind), inputs, outputs)
    }

    /// Which rows match: by the join itself, or by its window.
    fn join_rule(
        &mut self,
        operator: &OperatorConfig,
        join: &JoinConfig,
        title: &str,
    ) -> Option<JoinRule> {
        let kind = *join.kind.get_ref();
        let matching = match (&join.matching, &operator.window) {
            (
                Some(MatchingConfig::Interval {
                    before_ms,
                    after_ms,
                }),
                None,
            ) => Matching::Interval {
                before_ms: *before_ms,
                after_ms: *after_ms,
            },
            (Some(MatchingConfig::AsOf { version, .. }), None) => Matching::AsOf(*version),
            (None, Some(window)) => self.window_of_join(title, kind, window)?,
            (Some(_), Some(window)) => {
                self.mistakes.push(
                    Mistake::new(format!("{title} says twice which rows match"))
                        .at(window.span(), "those in the same window")
                        .at(join.place.clone(), "and those that this says")
                        .help("remove the `window`, or all of `join` but its `kind`"),
                );
                return None;
            }
            (None, None) => {
                self.mistakes.push(
                    Mistake::new(format!("{title} does not say which rows match"))
                        .at(join.place.clone(), "")
                        .help(
                            "add `before` and `after` for a time between them, `as_of` for the \
                             last right row before the left one, or a `window`",
                        ),
                );
                return None;
            }
        };
        Some(JoinRule { kind, matching })
    }

    fn window_of_join(
        &mut self,
        title: &str,
        kind: JoinKind,
        window: &Spanned<Window>,
    ) -> Option<Matching> {
        let (problem, help) = match *window.get_ref() {
            Window::Sliding {
                size_ms,
                slide_ms: every_ms,
                ..
            }
            | Window::Cumulate {
                size_ms,
                step_ms: every_ms,
                ..
            } if kind != JoinKind::Inner && (size_ms - 1) / every_ms >= WINDOWS_OF_A_ROW_MAX => (
                format!("puts each row into more than {WINDOWS_OF_A_ROW_MAX} windows"),
                "choose a longer `every`, or an inner join",
            ),
            window @ (Window::Tumbling { .. }
            | Window::Sliding { .. }
            | Window::Cumulate { .. }) => {
                return Some(Matching::Window(window));
            }
            Window::Session { .. } => (
                "is a session, whose end depends on the rows of both sides".to_owned(),
                "choose a tumbling or sliding window, or `before` and `after` in `join`",
            ),
            Window::Count { .. } | Window::Running | Window::Global => (
                "does not end by time".to_owned(),
                "choose a tumbling or sliding window, or `before` and `after` in `join`",
            ),
        };
        self.mistakes.push(
            Mistake::new(format!("{title} cannot join by this window: it {problem}"))
                .at(window.span(), "")
                .help(help),
        );
        None
    }

    /// Refuses what only plugins and aggregates have.
    fn refuse_settings_of_join(&mut self, operator: &OperatorConfig, title: &str) {
        let mut given = settings_of_results(operator);
        if !operator.parameters.is_empty() {
            given.push(("parameters", operator.parameters_place.clone()));
        }
        let given_policy = operator
            .on_error
            .map(|_| ("on_error", operator.name.span()));
        given.extend(given_policy);
        for (setting, place) in given {
            self.mistakes.push(
                Mistake::new(format!("{title} is a join, which has no `{setting}`"))
                    .at(place, "")
                    .help("remove it"),
            );
        }
    }

    fn selection(
        &mut self,
        title: &str,
        join: &JoinConfig,
        kind: JoinKind,
        keys: &Keys,
        reading: &Reading,
        upstreams: &[&Upstream],
    ) -> Option<Selection> {
        match &join.select {
            Some(select) => self.selected(title, select, kind, keys, reading, upstreams),
            None => self.everything(title, join, kind, keys, reading, upstreams),
        }
    }

    fn selected(
        &mut self,
        title: &str,
        select: &[JoinedConfig],
        kind: JoinKind,
        keys: &Keys,
        reading: &Reading,
        upstreams: &[&Upstream],
    ) -> Option<Selection> {
        let mut selection = Selection::default();
        let mut good = true;
        for JoinedConfig { name, from, place } in select {
            let name = name.get_ref();
            match from {
                JoinedFrom::Side(side, field) => {
                    let edges = reading.of_port(upstreams, *side);
                    match self.field_of_side(title, "selects", &edges, field, place) {
                        Some(field) => {
                            selection.push(name, *side, &field, kind, place.clone());
                        }
                        None => good = false,
                    }
                }
                JoinedFrom::Record(side, members) => {
                    let members = Schema::new(members.clone());
                    let edges = reading.of_port(upstreams, *side);
                    let read = edges
                        .iter()
                        .map(|up| self.columns_read(title, &members, up));
                    let read: Option<Vec<Vec<usize>>> = read.collect();
                    match read.zip(edges.first()) {
                        Some((read, up)) => {
                            let fields = read[0].iter().map(|&column| up.field(column).clone());
                            let place = place.clone();
                            selection.push_record(name, *side, fields.collect(), kind, place);
                        }
                        None => good = false,
                    }
                }
                JoinedFrom::Key(field) => {
                    let Some(at) = keys.relation.schema.index_of(field) else {
                        good = false;
                        let fields = &keys.relation.schema.fields;
                        let names = fields.iter().map(|field| field.name.as_str());
                        let nouns = format!("fields of the key of {title}");
                        self.mistakes.push(
                            Mistake::new(format!("{title} has no key `{field}`"))
                                .at(place.clone(), "")
                                .help(suggest::help(field, &nouns, names)),
                        );
                        continue;
                    };
                    let sides = key_fields(keys, at, reading, upstreams);
                    let [Some(left), Some(right)] = &sides else {
                        continue;
                    };
                    let key = &keys.relation.schema.fields[at];
                    selection.push_key(name, key, [left, right], place.clone());
                }
            }
        }
        good.then_some(selection)
    }

    /// All columns of both sides; key columns of the same name once.
    fn everything(
        &mut self,
        title: &str,
        join: &JoinConfig,
        kind: JoinKind,
        keys: &Keys,
        reading: &Reading,
        upstreams: &[&Upstream],
    ) -> Option<Selection> {
        let mut selection = Selection::default();
        let relations = [LEFT, RIGHT].map(|side| {
            let edges = reading.of_port(upstreams, side);
            self.merged(&format!("the {} side of {title}", SIDES[side]), &edges)
        });
        let [Some(left), Some(right)] = relations else {
            return None;
        };
        // The keys that both sides call by one name.
        let fields = keys.relation.schema.fields.iter().enumerate();
        let shared: Vec<(&Field, [Field; 2])> = fields
            .filter_map(|(at, key)| match key_fields(keys, at, reading, upstreams) {
                [Some(left), Some(right)] if left.name == right.name => Some((key, [left, right])),
                _ => None,
            })
            .collect();
        for (side, relation) in [(LEFT, &left), (RIGHT, &right)] {
            for (field, place) in relation.schema.fields.iter().zip(&relation.places) {
                let key = shared.iter().find(|(key, _)| key.name == field.name);
                match key {
                    Some((key, [left, right])) if side == LEFT => {
                        selection.push_key(&field.name, key, [left, right], place.clone());
                    }
                    Some(_) => {}
                    None => selection.push(&field.name, side, field, kind, place.clone()),
                }
            }
        }
        let columns = std::mem::take(&mut selection.relation);
        let duplicate = columns.schema.fields.iter().enumerate();
        let mut duplicate = duplicate
            .filter(|(at, field)| columns.schema.index_of(&field.name) != Some(*at))
            .map(|(_, field)| field.name.clone())
            .peekable();
        if duplicate.peek().is_some() {
            let names: Vec<String> = duplicate.map(|name| format!("`{name}`")).collect();
            self.mistakes.push(
                Mistake::new(format!(
                    "both sides of {title} have a column {}",
                    names.join(", ")
                ))
                .at(join.place.clone(), "")
                .help(
                    "say which columns joined rows have, and by which names: \
                     `select = { id = \"left.id\", other_id = \"right.id\" }`",
                ),
            );
            return None;
        }
        selection.relation = columns;
        Some(selection)
    }

    /// A field that every edge of a side has.
    fn field_of_side(
        &mut self,
        title: &str,
        verb: &str,
        edges: &[&Upstream],
        name: &str,
        place: &Span,
    ) -> Option<Field> {
        let mut found: Option<Field> = None;
        for up in edges {
            let Ok(column) = up.find(name) else {
                let reads = format!("{title} {verb}");
                self.mistakes.push(up.lacks(&reads, name, place, ""));
                return None;
            };
            let field = up.field(column);
            match &mut found {
                // Types that differ are reported with the columns that are read.
                Some(found) => found.nullable |= field.nullable,
                None => found = Some(field.clone()),
            }
        }
        found
    }

    /// For each edge of the right side, the column that says which rows delete.
    fn tombstone(
        &mut self,
        title: &str,
        tombstone: &Spanned<String>,
        reading: &Reading,
        upstreams: &[&Upstream],
    ) -> Option<Vec<usize>> {
        let edges = reading.of_port(upstreams, RIGHT);
        let place = tombstone.span();
        let verb = "has the tombstone";
        self.field_of_side(title, verb, &edges, tombstone.get_ref(), &place)?;
        let mut columns = Vec::with_capacity(edges.len());
        for up in edges {
            let column = up.find(tombstone.get_ref()).ok()?;
            let field = up.field(column);
            if field.data_type != DataType::Bool {
                self.mistakes.push(
                    Mistake::new(format!("{title} cannot have `{field}` as its `tombstone`"))
                        .at(place, "")
                        .at(up.field_place(column), format!("`{field}` is from here"))
                        .help("name a boolean field, which is true in a row that deletes"),
                );
                return None;
            }
            columns.push(column);
        }
        Some(columns)
    }
}

/// A field of the key as each side has it.
fn key_fields(
    keys: &Keys,
    at: usize,
    reading: &Reading,
    upstreams: &[&Upstream],
) -> [Option<Field>; 2] {
    [LEFT, RIGHT].map(|side| {
        let edges = upstreams.iter().zip(&reading.ports).zip(&keys.columns);
        let edges = edges.filter(|((_, port), _)| **port == side);
        let fields = edges.map(|((up, _), columns)| up.field(columns[at]));
        fields.cloned().reduce(|first, other| Field {
            nullable: first.nullable || other.nullable,
            ..first
        })
    })
}

/// A side's port with all fields that are read there: those of joined rows, the key, and
/// what says which rows delete.
fn fields_read(
    port: Port,
    keys: &Keys,
    reading: &Reading,
    upstreams: &[&Upstream],
    tombstone: &Option<Vec<usize>>,
) -> Port {
    let side = usize::from(port.name == SIDES[RIGHT]);
    let mut fields = port.schema.fields.clone();
    let mut add = |field: Field| {
        if !fields.iter().any(|known| known.name == field.name) {
            fields.push(field);
        }
    };
    for at in 0..keys.relation.schema.fields.len() {
        let [left, right] = key_fields(keys, at, reading, upstreams);
        let of_side = if side == LEFT { left } else { right };
        of_side.into_iter().for_each(&mut add);
    }
    let edges = reading.of_port(upstreams, side);
    if let (RIGHT, Some(columns)) = (side, tombstone) {
        let fields = edges
            .iter()
            .zip(columns)
            .map(|(up, column)| up.field(*column));
        let field = fields.cloned().reduce(|first, other| Field {
            nullable: first.nullable || other.nullable,
            ..first
        });
        field.into_iter().for_each(&mut add);
    }
    Port {
        name: port.name,
        schema: Arc::new(Schema::new(fields)),
    }
}
