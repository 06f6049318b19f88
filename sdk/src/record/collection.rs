//! Sets and maps, which keep their elements in order: columns of lists, of the elements or
//! of records with a `key` and a `value`. A list that has an element twice is read as if it
//! had it once; of entries with the same key, the last one counts.

use std::collections::{BTreeMap, BTreeSet};

use super::columns::Columns;
use super::list::{Element, ListReader, ListWriter};
use super::mapping::{Field, schema_field};
use super::source::{Lineage, Origin, Source};
use super::unreadable::Unreadable;
use super::writer::{RecordWriter, Writer};
use crate::bindings::sluicebox::plugin::columns::Column;
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
        // SAFETY: the list's writer has space for the elements; the caller answers for the
        // row.
        unsafe {
            writer.put(row, self.iter(), |writer, element, at| {
                element.write(writer, at, name, Origin::NOWHERE, false);
            });
        }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe { Vec::<T>::write_missing(writer, row) }
    }
}

impl<'a, T: Element<'a> + Ord> Element<'a> for BTreeSet<T> {}

/// The members of a map's entries.
#[doc(hidden)]
pub struct EntryReader<K, V> {
    keys: K,
    values: V,
}

#[doc(hidden)]
#[derive(Default)]
pub struct EntryWriter<K, V> {
    keys: K,
    values: V,
}

impl<'a, K: Writer<'a>, V: Writer<'a>> Writer<'a> for EntryWriter<K, V> {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        // SAFETY: as the caller says.
        unsafe {
            self.keys.reserve(used, total);
            self.values.reserve(used, total);
        }
    }

    unsafe fn settle(&mut self, rows: usize) {
        // SAFETY: as the caller says.
        unsafe {
            self.keys.settle(rows);
            self.values.settle(rows);
        }
    }

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        // SAFETY: as the caller says.
        unsafe {
            self.keys.finish(rows, Lineage::NONE, columns);
            self.values.finish(rows, Lineage::NONE, columns);
        }
    }
}

const KEY: &str = "key";
const VALUE: &str = "value";

impl<'a, K: Field<'a> + Ord, V: Field<'a>> Field<'a> for BTreeMap<K, V> {
    type Reader = ListReader<'a, EntryReader<K::Reader, V::Reader>>;
    type Writer = ListWriter<RecordWriter<EntryWriter<K::Writer, V::Writer>>>;
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
            EntryReader {
                keys: K::reader(columns, entries),
                values: V::reader(columns, entries),
            }
        })
    }

    #[inline]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        let mut map = BTreeMap::new();
        // SAFETY: as the caller says; the readers of members have the entries of all rows.
        unsafe {
            let entries = reader.elements_of(row);
            for entry in entries {
                let members = reader.elements();
                let key = K::read(&members.keys, entry).map_err(|cause| cause.within(KEY))?;
                let value = V::read(&members.values, entry);
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
                |RecordWriter(members), (key, value), at| {
                    key.write(&mut members.keys, at, KEY, Origin::NOWHERE, false);
                    value.write(&mut members.values, at, VALUE, Origin::NOWHERE, false);
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
