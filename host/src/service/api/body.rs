//! Reads bodies of JSON. What is described as an object is one: a list of its values, which
//! serde would take as well, says nothing of what they are for.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::Problem;
use crate::config::FILE_BYTES_MAX;

/// A body that may be absent, or else is an object.
pub fn json<T>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem>
where
    T: DeserializeOwned + Default,
{
    let body = body.map_err(|rejection| Problem::body(&rejection, FILE_BYTES_MAX))?;
    read(&body).map_err(|error| {
        Problem::bad_request(&format!("the body is not what is expected: {error}"))
    })
}

fn read<T: DeserializeOwned + Default>(body: &[u8]) -> serde_json::Result<T> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let body: Option<Object<T>> = serde_json::from_slice(body)?;
    Ok(body.map_or_else(T::default, |Object(body)| body))
}

/// What is written as an object alone.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A field that is an object where it is there.
pub fn object<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let given: Option<Object<T>> = Option::deserialize(deserializer)?;
    Ok(given.map(|Object(given)| given))
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default)]
        list: Vec<Object<Inner>>,
        #[serde(default, deserialize_with = "object")]
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        row: Option<Box<RawValue>>,
    }

    impl<T: fmt::Debug> fmt::Debug for Object<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(formatter)
        }
    }

    #[test]
    fn an_object_is_no_list() {
        for body in [
            "[]",
            "[[],{}]",
            r#"{"list":[[null]]}"#,
            r#"{"inner":[null]}"#,
            r#"{"inner":[]}"#,
            r#"{"list":{}}"#,
            r#"{"innner":{}}"#,
            r#"{"inner":{},"inner":{}}"#,
            "1",
            "{} {}",
        ] {
            let error = read::<Outer>(body.as_bytes()).expect_err(body);
            assert!(error.line() > 0, "{body}: {error}");
        }
        let body = br#" {"list":[{"row":{"a" :1.0}},{}],"inner":{}}"#;
        let outer: Outer = read(body).expect("it is one");
        let row = outer.list[0].0.row.as_ref().expect("it has one");
        assert_eq!(row.get(), r#"{"a" :1.0}"#, "as it is written");
        assert!(outer.inner.is_some() && outer.list[1].0.row.is_none());
        for none in ["", "null", "{}", r#"{"inner":null}"#] {
            let outer: Outer = read(none.as_bytes()).expect(none);
            assert!(outer.inner.is_none() && outer.list.is_empty());
        }
    }
}
