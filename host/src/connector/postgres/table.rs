//! A table: what its columns take, whether the sink's rows fit into them, and the
//! statement that makes a table for rows.

use tokio_postgres::Client;

use super::encode::Form;
use super::quoted;
use crate::schema::{DataType, Field};

/// A table's name, with that of its schema if it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    pub schema: Option<String>,
    pub table: String,
}

impl TableName {
    /// Reads `table` or `schema.table`.
    pub fn parse(text: &str) -> TableName {
        match text.split_once('.') {
            Some((schema, table)) => TableName {
                schema: Some(schema.to_owned()),
                table: table.to_owned(),
            },
            None => TableName {
                schema: None,
                table: text.to_owned(),
            },
        }
    }

    /// As people write it.
    pub fn shown(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.table),
            None => self.table.clone(),
        }
    }

    /// As SQL has it.
    pub fn sql(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.table)),
            None => quoted(&self.table),
        }
    }
}

/// A field of the rows and the column that it goes to.
#[derive(Clone, Debug)]
pub struct Target {
    pub column: String,
    pub field: Field,
}

/// What the server says of a table.
pub struct Found {
    columns: Vec<Column>,
    /// The columns of each unique index that `ON CONFLICT` can use.
    unique: Vec<Vec<String>>,
    kind: String,
    missing_privileges: Vec<String>,
}

struct Column {
    name: String,
    /// As SQL writes it, such as `numeric(10,2)`.
    shown: String,
    /// The name of the type, below domains.
    base: String,
    /// Of texts, enums and so on.
    category: String,
    /// The name of the type of an array's elements.
    element: Option<String>,
    modifier: i32,
    is_not_null: bool,
    has_default: bool,
    /// The server alone writes it.
    is_generated: bool,
}

/// Whether there is no table of this name is `None`.
pub async fn find(
    client: &Client,
    name: &TableName,
    privileges: &[&str],
) -> Result<Option<Found>, tokio_postgres::Error> {
    let sql = name.sql();
    let table = client
        .query_one(
            "SELECT c.oid::bigint, c.relkind::text FROM (SELECT to_regclass($1::text) AS oid) w \
             LEFT JOIN pg_class c ON c.oid = w.oid",
            &[&sql],
        )
        .await?;
    let Some(oid) = table.get::<_, Option<i64>>(0) else {
        return Ok(None);
    };
    let kind: String = table.get(1);
    let columns = client
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), b.typname::text, \
                    b.typcategory::text, e.typname::text, \
                    CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, \
                    a.attnotnull OR t.typnotnull, \
                    a.atthasdef OR t.typdefault IS NOT NULL OR a.attidentity <> '', \
                    a.attgenerated <> '' OR a.attidentity = 'a' \
             FROM pg_attribute a \
             JOIN pg_type t ON t.oid = a.atttypid \
             JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
             LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typcategory = 'A' \
             WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped \
             ORDER BY a.attnum",
            &[&oid],
        )
        .await?;
    let columns = columns.iter().map(|row| Column {
        name: row.get(0),
        shown: row.get(1),
        base: row.get(2),
        category: row.get(3),
        element: row.get(4),
        modifier: row.get(5),
        is_not_null: row.get(6),
        has_default: row.get(7),
        is_generated: row.get(8),
    });
    let unique = client
        .query(
            "SELECT array_agg(a.attname::text ORDER BY a.attnum) \
             FROM pg_index i \
             JOIN pg_attribute a ON a.attrelid = i.indrelid \
              AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
             WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND i.indisvalid \
               AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
             GROUP BY i.indexrelid",
            &[&oid],
        )
        .await?;
    let wanted: Vec<String> = privileges.iter().map(|&name| name.to_owned()).collect();
    let missing = client
        .query(
            "SELECT wanted FROM unnest($2::text[]) AS wanted \
             WHERE NOT CASE wanted WHEN 'DELETE' \
                 THEN has_table_privilege($1::bigint::oid, wanted) \
                 ELSE has_any_column_privilege($1::bigint::oid, wanted) END",
            &[&oid, &wanted],
        )
        .await?;
    Ok(Some(Found {
        columns: columns.collect(),
        unique: unique.iter().map(|row| row.get(0)).collect(),
        kind,
        missing_privileges: missing.iter().map(|row| row.get(0)).collect(),
    }))
}

impl Found {
    /// All that keeps rows from this table, and what to do about each.
    pub fn problems(&self, name: &TableName, targets: &[Target], key: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        let table = name.sql();
        if !matches!(self.kind.as_str(), "r" | "p" | "f") {
            return vec![format!(
                "{} is no table but a view or the like",
                name.shown()
            )];
        }
        if !self.missing_privileges.is_empty() {
            let missing = self.missing_privileges.join(", ");
            problems.push(format!(
                "its user may not {missing}: GRANT {missing} ON {table} TO … allows it"
            ));
        }
        for Target { column, field } in targets {
            let Some(found) = self.columns.iter().find(|found| found.name == *column) else {
                let (sql, _) = made_of(&field.data_type);
                problems.push(format!(
                    "it has no column `{column}` for the field `{}` ({}): ALTER TABLE {table} ADD \
                     COLUMN {} {sql}, or name another column in `names`",
                    field.name,
                    field.data_type,
                    quoted(column)
                ));
                continue;
            };
            if found.is_generated {
                problems.push(format!(
                    "its column `{column}` is generated always, and the field `{}` cannot go there",
                    field.name
                ));
            } else if !found.takes(&field.data_type) {
                let (sql, _) = made_of(&field.data_type);
                problems.push(format!(
                    "its column `{column}` is {}, which does not hold all values of the field \
                     `{}` ({}): use {sql}, or another type of the field",
                    found.shown, field.name, field.data_type
                ));
            }
        }
        for column in &self.columns {
            let is_written = targets.iter().any(|target| target.column == column.name);
            if column.is_not_null && !column.has_default && !column.is_generated && !is_written {
                problems.push(format!(
                    "its column `{}` is NOT NULL without a default, and no field goes there: add \
                     one, or ALTER TABLE {table} ALTER COLUMN {} DROP NOT NULL",
                    column.name,
                    quoted(&column.name)
                ));
            }
        }
        if !key.is_empty() && !self.has_unique(key) {
            let columns: Vec<String> = key.iter().map(|column| quoted(column)).collect();
            problems.push(format!(
                "it has no unique index on the key ({}): ALTER TABLE {table} ADD UNIQUE ({})",
                key.join(", "),
                columns.join(", ")
            ));
        }
        problems
    }

    /// Fields that may be null whose columns may not: a row without such a value would stop
    /// the pipeline.
    pub fn nullable<'t>(&self, targets: &'t [Target]) -> Vec<&'t str> {
        let nullable = targets.iter().filter(|target| {
            let mut columns = self.columns.iter();
            let is_strict = |column: &Column| column.name == target.column && column.is_not_null;
            target.field.nullable && columns.any(is_strict)
        });
        nullable.map(|target| target.column.as_str()).collect()
    }

    fn has_unique(&self, key: &[String]) -> bool {
        let mut wanted: Vec<&String> = key.iter().collect();
        wanted.sort();
        self.unique.iter().any(|columns| {
            let mut columns: Vec<&String> = columns.iter().collect();
            columns.sort();
            columns == wanted
        })
    }

    /// How the values of a field are written for its column.
    pub fn form(&self, target: &Target) -> Form {
        let column = self.columns.iter().find(|it| it.name == target.column);
        match (&target.field.data_type, column) {
            (DataType::Record(_), _) => Form::Json,
            (DataType::List(_), Some(column)) if column.element.is_some() => Form::Array,
            (DataType::List(_), _) => Form::Json,
            _ => Form::Plain,
        }
    }
}

impl Column {
    /// Whether it holds every value of a type, exactly.
    fn takes(&self, data_type: &DataType) -> bool {
        match (data_type, &self.element) {
            (DataType::List(element), Some(base)) => {
                // Elements of an array of arrays would have to be equally many.
                !matches!(element.data_type, DataType::List(_))
                    && takes(&element.data_type, base, "", self.modifier)
            }
            (_, Some(_)) => false,
            (_, None) => takes(data_type, &self.base, &self.category, self.modifier),
        }
    }
}

/// Whether a type of PostgreSQL holds every value of a type. What is written as a text may go
/// to all that is read of texts; a text that is none of such a type is a wrong row.
fn takes(data_type: &DataType, base: &str, category: &str, modifier: i32) -> bool {
    let is_text = matches!(base, "text" | "varchar" | "bpchar" | "citext");
    let whole_digits = |digits: i32| base == "numeric" && numeric_holds(modifier, digits, 0);
    let is_one_of = |names: &[&str]| names.contains(&base);
    match data_type {
        DataType::Bool => base == "bool",
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => {
            is_one_of(&["int2", "int4", "int8"]) || whole_digits(5) || is_text
        }
        DataType::UInt16 | DataType::Int32 => {
            is_one_of(&["int4", "int8"]) || whole_digits(10) || is_text
        }
        DataType::UInt32 | DataType::Int64 => base == "int8" || whole_digits(19) || is_text,
        DataType::UInt64 => whole_digits(20) || is_text,
        DataType::Float32 => is_one_of(&["float4", "float8"]) || is_text,
        DataType::Float64 => base == "float8" || is_text,
        DataType::Decimal { precision, scale } => {
            let (precision, scale) = (i32::from(*precision), i32::from(*scale));
            base == "numeric" && numeric_holds(modifier, precision - scale, scale) || is_text
        }
        DataType::Timestamp => {
            // -1: without a limit; else the digits of a second.
            is_one_of(&["timestamptz", "timestamp"]) && !(0..3).contains(&modifier) || is_text
        }
        DataType::Utf8 | DataType::Symbol(_) => {
            is_text
                || matches!(category, "S" | "E")
                || is_one_of(&[
                    "uuid", "json", "jsonb", "xml", "inet", "cidr", "macaddr", "date", "time",
                    "interval", "name",
                ])
        }
        DataType::Bytes => base == "bytea",
        DataType::List(_) | DataType::Record(_) => is_one_of(&["jsonb", "json"]) || is_text,
    }
}

/// Whether a `numeric` with this modifier has as many digits before and behind the point.
fn numeric_holds(modifier: i32, whole: i32, scale: i32) -> bool {
    if modifier < 4 {
        return true;
    }
    let precision = ((modifier - 4) >> 16) & 0xFFFF;
    // Eleven bits with a sign.
    let own_scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024;
    own_scale >= scale && precision - own_scale >= whole
}

/// The type for a column of a type's values, and how they are written to it.
fn made_of(data_type: &DataType) -> (String, Form) {
    let plain = |sql: &str| (sql.to_owned(), Form::Plain);
    match data_type {
        DataType::Bool => plain("boolean"),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => plain("smallint"),
        DataType::UInt16 | DataType::Int32 => plain("integer"),
        DataType::UInt32 | DataType::Int64 => plain("bigint"),
        DataType::UInt64 => plain("numeric(20,0)"),
        DataType::Float32 => plain("real"),
        DataType::Float64 => plain("double precision"),
        DataType::Utf8 | DataType::Symbol(_) => plain("text"),
        DataType::Bytes => plain("bytea"),
        DataType::Decimal { precision, scale } => plain(&format!("numeric({precision},{scale})")),
        DataType::Timestamp => plain("timestamptz"),
        DataType::List(element) => match made_of(&element.data_type) {
            (sql, Form::Plain) => (format!("{sql}[]"), Form::Array),
            _ => ("jsonb".to_owned(), Form::Json),
        },
        DataType::Record(_) => ("jsonb".to_owned(), Form::Json),
    }
}

/// The statement that makes a table for these columns.
pub fn ddl(name: &TableName, targets: &[Target], key: &[String]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for Target { column, field } in targets {
        let (sql, _) = made_of(&field.data_type);
        let is_key = key.contains(column);
        let not_null = if field.nullable && !is_key {
            ""
        } else {
            " NOT NULL"
        };
        lines.push(format!("    {} {sql}{not_null}", quoted(column)));
    }
    if !key.is_empty() {
        let columns: Vec<String> = key.iter().map(|column| quoted(column)).collect();
        lines.push(format!("    PRIMARY KEY ({})", columns.join(", ")));
    }
    format!("CREATE TABLE {} (\n{}\n);", name.sql(), lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;

    use super::*;

    #[test]
    fn a_numeric_holds_what_has_no_more_digits() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7FF)) + 4;
        assert!(numeric_holds(-1, 38, 38));
        assert!(numeric_holds(modifier(10, 2), 8, 2));
        assert!(!numeric_holds(modifier(10, 2), 9, 2));
        assert!(!numeric_holds(modifier(10, 2), 8, 3));
        // Rounded to thousands.
        assert!(!numeric_holds(modifier(10, -3), 5, 0));
    }

    #[test]
    fn a_table_is_made_for_all_types() {
        let list = |data_type, nullable| {
            DataType::List(Arc::new(Field::new("element", data_type, nullable)))
        };
        let types = [
            ("id", DataType::Int64),
            ("big", DataType::UInt64),
            (
                "price",
                DataType::Decimal {
                    precision: 12,
                    scale: 2,
                },
            ),
            ("tags", list(DataType::Utf8, false)),
            ("nested", list(list(DataType::Int8, false), true)),
            ("we\"ird", DataType::Bytes),
        ];
        let targets: Vec<Target> = types
            .into_iter()
            .enumerate()
            .map(|(index, (name, data_type))| Target {
                column: name.to_owned(),
                field: Field::new(name, data_type, index > 1),
            })
            .collect();
        let made = ddl(
            &TableName::parse("shop.orders"),
            &targets,
            &["id".to_owned()],
        );
        expect![[r#"
            CREATE TABLE "shop"."orders" (
                "id" bigint NOT NULL,
                "big" numeric(20,0) NOT NULL,
                "price" numeric(12,2),
                "tags" text[],
                "nested" jsonb,
                "we""ird" bytea,
                PRIMARY KEY ("id")
            );"#]]
        .assert_eq(&made);
    }
}
