//! Fields of rows that are in the names of folders, as in `date=2026-01-31/part-000001.jsonl`:
//! all rows of a file have the same. They are the last columns of a source.

use std::sync::Arc;

use arrow_array::{ArrayRef, new_null_array};
use serde_json::Value as Json;

use super::folders::value_of;
use crate::batch::gather;
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, Position, SourceSnapshot};
use crate::config::column::DeclaredColumn;
use crate::connector::Description;
use crate::dead_letter::DeadLetter;
use crate::decode::Decoder;
use crate::format::{CsvFormat, Format, RowFormat};
use crate::json::write_value;
use crate::schema::{Field, Schema};
use crate::source::chunk::BadRow;
use crate::source::{
    Arrival, Noticed, Pending, SourceConnector, SourceContext, SourceError, SourceInput,
};
use crate::timestamp::TimestampFormat;

/// The fields of a source that folders name.
#[derive(Clone, Debug, Default)]
pub struct FolderFields(Vec<FolderField>);

#[derive(Clone, Debug)]
struct FolderField {
    field: Field,
    timestamp_formats: Vec<TimestampFormat>,
}

impl FolderFields {
    pub fn of(columns: &[DeclaredColumn]) -> Self {
        let fields = columns.iter().map(|column| FolderField {
            field: column.field.clone(),
            timestamp_formats: column.timestamp_formats.clone(),
        });
        FolderFields(fields.collect())
    }

    /// Their values in a file, each a column with one row. The error says which folder is
    /// missing, or cannot be one's value.
    pub fn read(&self, path: &str) -> Result<Vec<ArrayRef>, String> {
        self.0.iter().map(|field| field.read(path)).collect()
    }

    /// The format of rows that have these fields as well.
    fn with(&self, format: &RowFormat) -> RowFormat {
        let own = self.0.iter().flat_map(|field| &field.timestamp_formats);
        let mut format = format.clone();
        format.timestamp_formats.extend(own.cloned());
        format
    }
}

impl FolderField {
    fn read(&self, path: &str) -> Result<ArrayRef, String> {
        let name = &self.field.name;
        let folders = path.rsplit('/').skip(1);
        let mut values =
            folders.filter_map(|folder| folder.strip_prefix(&**name)?.strip_prefix('='));
        let Some(written) = values.next() else {
            return Err(format!("{path} is in no folder `{name}=…`"));
        };
        let Some(value) = value_of(written) else {
            return match self.field.nullable {
                true => Ok(new_null_array(&self.field.data_type.to_arrow(), 1)),
                false => Err(format!(
                    "{path} has no `{name}` ({written}), and the field may not be null"
                )),
            };
        };
        let format = RowFormat {
            timestamp_formats: self.timestamp_formats.clone(),
            ..RowFormat::from(Format::Csv(CsvFormat {
                header: false,
                delimiter: b',',
            }))
        };
        let text = format!("\"{}\"", value.replace('"', "\"\""));
        let mut decoder = Decoder::new(&format, &Schema::new(vec![self.field.clone()]));
        let decoded = decoder.decode(text.as_bytes(), &[(0, text.len() as u32)]);
        match (decoded.columns.into_iter().next(), decoded.bad.first()) {
            (Some(column), None) => Ok(column),
            (_, bad) => {
                let why = bad.map_or("it is no value", |bad| bad.error.as_str());
                Err(format!("the folder `{name}={written}` of {path}: {why}"))
            }
        }
    }
}

/// Files in folders that name fields of their rows.
pub struct FolderFieldsSource {
    pub files: Box<dyn SourceConnector>,
    pub fields: FolderFields,
}

impl SourceConnector for FolderFieldsSource {
    fn describe(&self) -> Description {
        let mut description = self.files.describe();
        let names = self.fields.0.iter().map(|it| it.field.name.clone());
        let names: Vec<String> = names.collect();
        let fields = names.join(", ");
        description.lines.push(format!("{fields} by folders"));
        description.settings["folders"] = names.into();
        description
    }

    fn partitions(&self) -> Option<usize> {
        self.files.partitions()
    }

    fn row_format(&self) -> RowFormat {
        self.fields.with(&self.files.row_format())
    }

    fn payload_format(&self) -> RowFormat {
        self.files.row_format()
    }

    fn columns_beside_rows(&self) -> usize {
        self.fields.0.len()
    }

    fn told_beside_row(&self, letter: &DeadLetter) -> Vec<Result<Json, String>> {
        let path = letter.partition.as_deref().unwrap_or_default();
        let told = self.fields.0.iter().map(|field| {
            let mut text = Vec::new();
            write_value(&mut text, &field.read(path)?, 0);
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        });
        told.collect()
    }

    fn warnings(&self) -> &[Noticed] {
        self.files.warnings()
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let mut fields = context.schema.fields.clone();
            fields.truncate(fields.len().saturating_sub(self.fields.0.len()));
            let within = SourceContext {
                schema: Arc::new(Schema::new(fields)),
                ..context.clone()
            };
            let mut input = FolderFieldsInput {
                input: self.files.open(&within).await?,
                fields: self.fields.clone(),
                values: Vec::new(),
                context: within,
            };
            input.read_values()?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }

    fn not_read(&self, known: &[SourceSnapshot]) -> Vec<PartitionSnapshot> {
        self.files.not_read(known)
    }
}

struct FolderFieldsInput {
    input: Box<dyn SourceInput>,
    fields: FolderFields,
    /// Of each partition, each a column with one row.
    values: Vec<Vec<ArrayRef>>,
    context: SourceContext,
}

impl FolderFieldsInput {
    /// Reads the fields of partitions that were added.
    fn read_values(&mut self) -> Result<(), SourceError> {
        for partition in self.values.len()..self.input.partitions() {
            let (name, _) = self.input.partition(partition);
            let values = self.fields.read(&name);
            let refused = |why| self.context.refuse(why, Fault::OUTSIDE_LASTING);
            self.values.push(values.map_err(refused)?);
        }
        Ok(())
    }
}

impl SourceInput for FolderFieldsInput {
    fn partitions(&self) -> usize {
        self.input.partitions()
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        self.input.partition(partition)
    }

    fn restored<'a>(
        &'a self,
        partition: usize,
        context: &'a SourceContext,
    ) -> Option<&'a PartitionSnapshot> {
        self.input.restored(partition, context)
    }

    fn absent(&self) -> &[PartitionSnapshot] {
        self.input.absent()
    }

    fn kept(&self, partition: usize, position: Position) -> Option<String> {
        self.input.kept(partition, position)
    }

    fn digest(&mut self, partition: usize, position: Position) -> Option<String> {
        self.input.digest(partition, position)
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            let mut arrival = self.input.next(order).await?;
            self.read_values()?;
            if let Arrival::Rows(partition, chunk) = &mut arrival {
                let rows = vec![0; chunk.rows];
                chunk
                    .columns
                    .extend(gather(&self.values[*partition], &rows));
            }
            Ok(arrival)
        })
    }

    fn progress(&self) -> Option<f64> {
        self.input.progress()
    }

    fn bad(&mut self, partition: usize, rows: &[BadRow]) {
        self.input.bad(partition, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::DataType;
    use crate::text::write_text;

    fn read(field: Field, path: &str) -> Result<String, String> {
        let fields = FolderFields(vec![FolderField {
            field,
            timestamp_formats: Vec::new(),
        }]);
        let columns = fields.read(path)?;
        let mut text = Vec::new();
        match write_text(&mut text, &columns[0], 0) {
            true => Ok(String::from_utf8_lossy(&text).into_owned()),
            false => Ok("null".to_owned()),
        }
    }

    #[test]
    fn a_folder_has_the_value_of_its_field() {
        let text = |path: &str| read(Field::new("k", DataType::Utf8, true), path);
        assert_eq!(text("out/k=a%2Fb%22/part-1.csv"), Ok("a/b\"".to_owned()));
        assert_eq!(text("k=first/k=last/x=y/f"), Ok("last".to_owned()));
        assert_eq!(text("k=/f"), Ok(String::new()));
        let none = "k=__HIVE_DEFAULT_PARTITION__/f";
        assert_eq!(text(none), Ok("null".to_owned()));
        for path in ["kk=1/f", "k/f", "k=f"] {
            let why = text(path).expect_err("no such folder");
            assert!(why.contains("is in no folder `k=…`"), "{why}");
        }
        let number = |path: &str| read(Field::new("k", DataType::Int64, false), path);
        assert_eq!(number("k=-7/f"), Ok("-7".to_owned()));
        assert!(number(none).is_err_and(|why| why.contains("may not be null")));
        let why = number("k=seven/f").expect_err("no number");
        assert!(
            why.starts_with("the folder `k=seven` of k=seven/f: "),
            "{why}"
        );
        let day = read(
            Field::new("k", DataType::Timestamp, false),
            "k=2026-01-31T00%3A00%3A00Z/f",
        );
        assert_eq!(day, Ok("2026-01-31T00:00:00Z".to_owned()));
    }
}
