//! Sets and maps, which keep their elements in order: columns of lists, of the elements or
//! of records with a `key` and a `value`. A list that has an element twice is read as if it
//! had it once; of entries with the same key, the last one counts.

use std::collections::{BTreeMap, BTreeSet};

use super::columns::Columns;
use super::list::{Element, ListReader, ListWriter};
use super::mapping::{Field, schema_field};
use super::source::{Origin, Source};
use super::unreadable::Unreadable;
use super::writer::RecordWriter;
use crate::bindings::sluicebox::plugin::schemas;

impl<'a, T: Element<'a> + Ord> Field<'a> for BTreeSet<T> {
    type Reader = ListReader<'a, T::Reader>;
    type Writer = ListWriter<T::Writer>;
    const COLUMNS: usize = 1 + T::COLUMNS;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        Vec::<T>::describe(name, doc, fields);
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        Vec::<T>::reader(columns, rows)
    }

    #[inline]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        let elements = unsafe { Vec::<T>::read(reader, row) }?;
        Ok(elements.into_iter().collect())
    }

    #[inline]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        name: &'static str,
        _origin: Origin<'_, S>,
        _passed: bool,
    ) {
        // SAFETY: as the caller says.
        unsafe { writer.put_fields(row, self.iter(), name) }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe { Vec::<T>::write_missing(writer, row) }
    }
}

impl<'a, T: Element<'a> + Ord> Element<'a> for BTreeSet<T> {}

const KEY: &str = "key";
const VALUE: &str = "value";

impl<'a, K: Field<'a> + Ord, V: Field<'a>> Field<'a> for BTreeMap<K, V> {
    type Reader = ListReader<'a, (K::Reader, V::Reader)>;
    type Writer = ListWriter<RecordWriter<(K::Writer, V::Writer)>>;
    const COLUMNS: usize = 2 + K::COLUMNS + V::COLUMNS;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        fields.push(schema_field(name, doc, schemas::FieldType::List));
        let entry = schemas::FieldType::Record(2);
        fields.push(schema_field("element", "", entry));
        K::describe(KEY, "", fields);
        V::describe(VALUE, "", fields);
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        ListReader::new(columns, rows, |columns, entries| {
            columns.record(entries);
            (K::reader(columns, entries), V::reader(columns, entries))
        })
    }

    #[inline]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        let mut map = BTreeMap::new();
        // SAFETY: as the caller says; the readers of members have the entries of all rows.
        unsafe {
            let entries = reader.elements_of(row);
            for entry in entries {
                let (keys, values) = reader.elements();
                let key = K::read(keys, entry).map_err(|cause| cause.within(KEY))?;
                let value = V::read(values, entry);
                map.insert(key, value.map_err(|cause| cause.within(VALUE))?);
            }
        }
        Ok(map)
    }

    #[inline]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        _name: &'static str,
        _origin: Origin<'_, S>,
        _passed: bool,
    ) {
        // SAFETY: the list's writer has space for the entries; the caller answers for the
        // row.
        unsafe {
            writer.put(
                row,
                self.iter(),
                |RecordWriter((keys, values)), (key, value), at| {
                    key.write(keys, at, KEY, Origin::NOWHERE, false);
                    value.write(values, at, VALUE, Origin::NOWHERE, false);
                },
            );
        }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe { writer.end(row) }
    }
}

impl<'a, K: Field<'a> + Ord, V: Field<'a>> Element<'a> for BTreeMap<K, V> {}
