//! Decodes messages of syslog: RFC 5424, RFC 3164 and what programs send in its place, and
//! lines of log files, which have no priority.
//!
//! A message is taken apart into texts, and its fields are read from these as from JSON: so
//! a type means the same here as there.

use std::collections::HashMap;

use arrow_array::ArrayRef;

use super::fault::{RowFault, excerpt};
use super::json::JsonRows;
use crate::clock::{Clock, SystemClock};
use crate::format::{SYSLOG_FIELDS, SyslogFormat};
use crate::json::{is_bare_value, write_json};
use crate::schema::{DataType, Field, Schema};
use crate::timestamp::{CutTimes, DAY_MS, TimestampFormat, date_of, to_text};

/// By their codes.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// By their codes.
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// How far behind the clock of the sender the host's own may be: a time without a year that
/// is further ahead than this is one of the year before.
const AHEAD_MS: i64 = DAY_MS;

/// Rows under construction.
#[derive(Clone, Debug)]
pub(super) struct SyslogRows {
    format: SyslogFormat,
    rows: JsonRows,
    /// What the parts are that are fields, in the order of [`SYSLOG_FIELDS`].
    kinds: [Option<Kind>; SYSLOG_FIELDS.len()],
    data: DataKind,
    json: Vec<u8>,
}

/// How a text is given to its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// As a number, if it is one.
    Value,
    /// As a list.
    List(bool),
}

/// What structured data is.
#[derive(Clone, Debug)]
enum DataKind {
    /// A text with JSON.
    Text,
    /// Records, by their names, with parameters of these kinds.
    Record(HashMap<String, HashMap<String, Kind>>),
}

/// A message, taken apart.
#[derive(Debug, Default, PartialEq)]
struct Message<'a> {
    priority: Option<u16>,
    version: Option<&'a str>,
    /// As RFC 3339.
    time: Option<String>,
    hostname: Option<&'a str>,
    appname: Option<&'a str>,
    procid: Option<&'a str>,
    msgid: Option<&'a str>,
    data: Vec<Element<'a>>,
    message: &'a str,
}

/// An element of structured data: its id, and parameters with their values.
type Element<'a> = (&'a str, Vec<(&'a str, Vec<String>)>);

impl SyslogRows {
    pub fn new(format: &SyslogFormat, schema: &Schema, timestamps: &[TimestampFormat]) -> Self {
        let field = |name: &str| schema.fields.iter().find(|field| field.name == name);
        let kinds = SYSLOG_FIELDS.map(|name| field(name).map(|field| kind_of(&field.data_type)));
        let data = match field("data").map(|field| &field.data_type) {
            Some(DataType::Record(elements)) => DataKind::Record(elements_of(elements)),
            _ => DataKind::Text,
        };
        SyslogRows {
            format: format.clone(),
            rows: JsonRows::new(schema, timestamps),
            kinds,
            data,
            json: Vec::new(),
        }
    }

    /// Adds a row; after an error, [`Self::truncate`] must follow.
    pub fn push(&mut self, row: &[u8]) -> Result<(), RowFault> {
        // The caller has checked that it is UTF-8.
        let text = String::from_utf8_lossy(row);
        let now_ms = match self.format.year {
            Some(_) => 0,
            None => SystemClock.now_ms(),
        };
        let message = parse(&text, &self.format, now_ms)?;
        self.json.clear();
        self.write(&message);
        self.rows.push(&self.json, 0, self.json.len())
    }

    /// Writes what the message has of the fields, as a JSON object.
    fn write(&mut self, message: &Message<'_>) {
        let out = &mut self.json;
        out.push(b'{');
        for (name, kind) in SYSLOG_FIELDS.iter().zip(self.kinds) {
            let Some(kind) = kind else {
                continue;
            };
            let code = |names: &[&'static str], code: u16| match kind {
                Kind::Value => code.to_string(),
                _ => names[usize::from(code)].to_owned(),
            };
            let text = match *name {
                "facility" => message.priority.map(|it| code(&FACILITIES, it / 8).into()),
                "severity" => message.priority.map(|it| code(&SEVERITIES, it % 8).into()),
                "version" => message.version.map(Into::into),
                "timestamp" => message.time.as_deref().map(Into::into),
                "hostname" => message.hostname.map(Into::into),
                "appname" => message.appname.map(Into::into),
                "procid" => message.procid.map(Into::into),
                "msgid" => message.msgid.map(Into::into),
                "message" => Some(message.message.into()),
                _ => None::<std::borrow::Cow<'_, str>>,
            };
            let is_data = *name == "data" && !message.data.is_empty();
            if text.is_none() && !is_data {
                continue;
            }
            if out.len() > 1 {
                out.push(b',');
            }
            write_json(out, name);
            out.push(b':');
            match (text, &self.data) {
                (Some(text), _) => write_value(out, &text, kind),
                (None, DataKind::Record(kinds)) => write_data(out, &message.data, kinds),
                (None, DataKind::Text) => {
                    let mut data = Vec::new();
                    write_data(&mut data, &message.data, &HashMap::new());
                    write_json(out, &String::from_utf8_lossy(&data));
                }
            }
        }
        out.push(b'}');
    }

    pub fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    pub fn take_cut_times(&mut self) -> Option<CutTimes> {
        self.rows.take_cut_times()
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        self.rows.take()
    }
}

fn kind_of(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Utf8 | DataType::Symbol(_) | DataType::Bytes => Kind::Text,
        DataType::List(element) => Kind::List(kind_of(&element.data_type) == Kind::Value),
        _ => Kind::Value,
    }
}

fn elements_of(elements: &[Field]) -> HashMap<String, HashMap<String, Kind>> {
    let elements = elements.iter().map(|element| {
        let parameters = match &element.data_type {
            DataType::Record(parameters) => parameters,
            _ => [].as_slice(),
        };
        let kinds = parameters.iter();
        let kinds = kinds.map(|field| (field.name.clone(), kind_of(&field.data_type)));
        (element.name.clone(), kinds.collect())
    });
    elements.collect()
}

fn write_value(out: &mut Vec<u8>, text: &str, kind: Kind) {
    match kind == Kind::Value && is_bare_value(text.as_bytes()) {
        true => out.extend_from_slice(text.as_bytes()),
        false => write_json(out, text),
    }
}

/// An object of objects. A parameter with several values is a list.
fn write_data(
    out: &mut Vec<u8>,
    data: &[Element<'_>],
    kinds: &HashMap<String, HashMap<String, Kind>>,
) {
    out.push(b'{');
    for (index, (id, parameters)) in data.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json(out, id);
        out.extend_from_slice(b":{");
        for (index, (name, values)) in parameters.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_json(out, name);
            out.push(b':');
            let kind = kinds.get(*id).and_then(|kinds| kinds.get(*name));
            match (kind, values.as_slice()) {
                (None | Some(Kind::Text | Kind::Value), [value]) => {
                    write_value(out, value, kind.copied().unwrap_or(Kind::Text));
                }
                _ => {
                    let of_element = match kind {
                        Some(Kind::List(true)) => Kind::Value,
                        _ => Kind::Text,
                    };
                    out.push(b'[');
                    for (index, value) in values.iter().enumerate() {
                        if index > 0 {
                            out.push(b',');
                        }
                        write_value(out, value, of_element);
                    }
                    out.push(b']');
                }
            }
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// A text that is read from its beginning.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, what: &str) -> RowFault {
        let found = match self.rest() {
            "" => "the end".to_owned(),
            rest => format!("`{}`", excerpt(rest.as_bytes())),
        };
        RowFault::new(format!("byte {}: expected {what}, found {found}", self.at))
    }

    /// Passes over a text, if it is next.
    fn skip(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    /// What is in front of the next blank, which is passed over.
    fn word(&mut self, what: &str) -> Result<&'a str, RowFault> {
        match self.rest().find(' ') {
            Some(length @ 1..) => {
                let word = &self.rest()[..length];
                self.at += length + 1;
                Ok(word)
            }
            _ => Err(self.expected(&format!("{what} and a blank"))),
        }
    }

    /// The same, where `-` stands for nothing.
    fn optional(&mut self, what: &str) -> Result<Option<&'a str>, RowFault> {
        Ok(Some(self.word(what)?).filter(|word| *word != "-"))
    }
}

/// Takes a message apart. `now_ms` says which year is meant, where neither the message nor
/// the format has one.
fn parse<'a>(text: &'a str, format: &SyslogFormat, now_ms: i64) -> Result<Message<'a>, RowFault> {
    // Some senders end messages as lines, or as C does.
    let text = text.trim_end_matches(['\n', '\r', '\0']);
    let mut reader = Reader { text, at: 0 };
    let priority = priority(&mut reader)?;
    let version = match priority {
        Some(_) => version(&mut reader),
        None => None,
    };
    let message = match version {
        Some(version) => Message {
            version: Some(version),
            ..rfc_5424(&mut reader)?
        },
        None => rfc_3164(&mut reader, priority.is_some(), format, now_ms)?,
    };
    Ok(Message {
        priority,
        ..message
    })
}

/// Reads `<34>`, if it is there.
fn priority(reader: &mut Reader<'_>) -> Result<Option<u16>, RowFault> {
    if !reader.rest().starts_with('<') {
        return Ok(None);
    }
    let digits = reader.rest()[1..].split_once('>').map(|(digits, _)| digits);
    let is_number = |digits: &&str| {
        (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let priority = digits.filter(is_number);
    match priority.and_then(|digits| Some((digits, digits.parse().ok()?))) {
        Some((digits, priority @ 0..=191)) => {
            reader.at += digits.len() + 2;
            Ok(Some(priority))
        }
        _ => Err(reader.expected("a priority from <0> to <191>")),
    }
}

/// Reads the version, which only RFC 5424 has.
fn version<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let (version, _) = reader.rest().split_once(' ')?;
    let is_version = matches!(
        version.as_bytes(),
        [b'1'..=b'9'] | [b'1'..=b'9', b'0'..=b'9']
    );
    is_version.then(|| {
        reader.at += version.len() + 1;
        version
    })
}

fn rfc_5424<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, RowFault> {
    let at = reader.at;
    let time = reader.optional("a time (RFC 3339) or `-`")?;
    if time.is_some_and(|time| !is_rfc_3339(time)) {
        reader.at = at;
        return Err(reader.expected("a time (RFC 3339) or `-`"));
    }
    let hostname = reader.optional("a host's name or `-`")?;
    let appname = reader.optional("a program's name or `-`")?;
    let procid = reader.optional("a process' id or `-`")?;
    let msgid = reader.optional("a message's id or `-`")?;
    let data = structured_data(reader)?;
    if !reader.rest().is_empty() && !reader.skip(" ") {
        return Err(reader.expected("a blank or the end behind the structured data"));
    }
    // Says that UTF-8 follows, as it does anyway.
    reader.skip("\u{FEFF}");
    Ok(Message {
        time: time.map(str::to_owned),
        hostname,
        appname,
        procid,
        msgid,
        data,
        message: reader.rest(),
        ..Message::default()
    })
}

fn structured_data<'a>(reader: &mut Reader<'a>) -> Result<Vec<Element<'a>>, RowFault> {
    if reader.skip("-") {
        return Ok(Vec::new());
    }
    let mut data: Vec<Element<'_>> = Vec::new();
    while reader.skip("[") {
        let id = name(reader, "the id of structured data")?;
        if data.iter().any(|(known, _)| *known == id) {
            return Err(RowFault::new(format!(
                "byte {}: expected each id of structured data once, found `{id}` again",
                reader.at
            )));
        }
        let mut parameters: Vec<(&str, Vec<String>)> = Vec::new();
        while reader.skip(" ") {
            // Some senders have a blank behind the last one.
            if reader.rest().starts_with(']') {
                break;
            }
            let name = name(reader, "a parameter of structured data")?;
            if !reader.skip("=\"") {
                return Err(reader.expected("`=\"` behind a parameter's name"));
            }
            let value = quoted(reader)?;
            match parameters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => parameters.push((name, vec![value])),
            }
        }
        if !reader.skip("]") {
            return Err(reader.expected("`]` or a blank in structured data"));
        }
        data.push((id, parameters));
    }
    match data.is_empty() {
        true => Err(reader.expected("structured data (`[`) or `-`")),
        false => Ok(data),
    }
}

fn name<'a>(reader: &mut Reader<'a>, what: &str) -> Result<&'a str, RowFault> {
    let rest = reader.rest();
    let length = rest.find([' ', '=', ']', '"']).unwrap_or(rest.len());
    if length == 0 {
        return Err(reader.expected(what));
    }
    reader.at += length;
    Ok(&rest[..length])
}

/// Reads up to the quote that ends a value. A backslash is before `"`, `\` and `]`; before
/// others, it is one itself.
fn quoted(reader: &mut Reader<'_>) -> Result<String, RowFault> {
    let mut value = String::new();
    let mut rest = reader.rest().char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        match character {
            '"' => {
                reader.at += at + 1;
                return Ok(value);
            }
            '\\' => match rest.next_if(|(_, next)| matches!(next, '"' | '\\' | ']')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            character => value.push(character),
        }
    }
    Err(reader.expected("a value that a quote ends"))
}

/// `Nov 29 11:04:03 host program[123]: message`, or with a time as in RFC 3339. Of a message
/// with a priority, all of this may be missing; a line without one begins with a time.
fn rfc_3164<'a>(
    reader: &mut Reader<'a>,
    has_priority: bool,
    format: &SyslogFormat,
    now_ms: i64,
) -> Result<Message<'a>, RowFault> {
    let Some(time) = time(reader, format, now_ms) else {
        return match has_priority {
            true => Ok(Message {
                message: reader.rest(),
                ..Message::default()
            }),
            false => Err(reader.expected(
                "a priority such as <34>, or a time such as `Nov 29 11:04:03` or as RFC 3339",
            )),
        };
    };
    let mut message = Message {
        time: Some(time),
        ..Message::default()
    };
    // A first word that ends like a program's is no host.
    let first = reader.rest().split(' ').next().unwrap_or_default();
    if tag(reader.rest()).is_none() && first.len() < reader.rest().len() && !first.is_empty() {
        message.hostname = Some(first);
        reader.at += first.len() + 1;
    }
    if let Some(tag) = tag(reader.rest()) {
        message.appname = Some(tag.appname);
        message.procid = tag.procid;
        reader.at += tag.length;
        reader.skip(" ");
    }
    message.message = reader.rest();
    Ok(message)
}

struct Tag<'a> {
    appname: &'a str,
    procid: Option<&'a str>,
    /// With its colon.
    length: usize,
}

/// `program:` or `program[123]:` at the beginning of a text.
fn tag(text: &str) -> Option<Tag<'_>> {
    let length = text.find([' ', ':', '['])?;
    let appname = Some(&text[..length]).filter(|name| !name.is_empty())?;
    match text.as_bytes()[length] {
        b':' if text[length + 1..].starts_with(' ') || text.len() == length + 1 => Some(Tag {
            appname,
            procid: None,
            length: length + 1,
        }),
        b'[' => {
            let (procid, rest) = text[length + 1..].split_once(']')?;
            let is_id = !procid.is_empty() && !procid.contains(' ');
            let colon = usize::from(rest.starts_with(':'));
            is_id.then_some(Tag {
                appname,
                procid: Some(procid),
                length: length + procid.len() + 2 + colon,
            })
        }
        _ => None,
    }
}

/// Reads a time and the blank behind it, as RFC 3339.
fn time(reader: &mut Reader<'_>, format: &SyslogFormat, now_ms: i64) -> Option<String> {
    let rest = reader.rest();
    let first = rest.split(' ').next().unwrap_or_default();
    if is_rfc_3339(first) {
        reader.at += (first.len() + 1).min(rest.len());
        return Some(first.to_owned());
    }
    // `Nov  1 11:04:03`, perhaps with a year in front of the time of day, or a star, by which
    // routers say that their clock is not set.
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let month = words
        .next()
        .map(|word| word.trim_start_matches(['*', '.']))?;
    MONTHS.iter().position(|known| *known == month)?;
    let day = words.next()?;
    let mut of_day = words.next()?;
    let year = (of_day.len() == 4)
        .then(|| of_day.parse::<i16>().ok())
        .flatten();
    if year.is_some() {
        of_day = words.next()?;
    }
    // It is a part of this text.
    let end = of_day.as_ptr() as usize - rest.as_ptr() as usize + of_day.len();
    let of_day = of_day.trim_end_matches(':');
    let (whole, fraction) = of_day.split_once('.').unwrap_or((of_day, ""));
    let is_number = fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || fraction.len() > 9 {
        return None;
    }
    let in_year = |year: i16| {
        let text = format!("{year:04} {month} {day} {whole}");
        format.pattern.read(text.as_bytes()).map(|time| time.ms)
    };
    let ms = match year.or(format.year) {
        Some(year) => in_year(year)?,
        None => {
            let (now, ..) = date_of(now_ms.div_euclid(DAY_MS));
            let now = i16::try_from(now).ok()?;
            // A leap day may be some years ago.
            let years = (now - 8..=now + 1).rev();
            let mut times = years.filter_map(in_year);
            times.find(|ms| *ms <= now_ms.saturating_add(AHEAD_MS))?
        }
    };
    reader.at += end;
    reader.skip(" ");
    let mut text = to_text(ms);
    if !fraction.is_empty() {
        text.truncate(text.len() - 1);
        text.push_str(&format!(".{fraction}Z"));
    }
    Some(text)
}

/// Whether it looks like such a time; whether it is one, its field says.
fn is_rfc_3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    bytes.len() >= 20
        && [0, 1, 2, 3, 5, 6, 8, 9].into_iter().all(is_digit)
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && matches!(bytes[10], b'T' | b't')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-03-01T12:00:00Z.
    const NOW_MS: i64 = 1_772_366_400_000;

    fn format(zone: &str, year: Option<i16>) -> SyslogFormat {
        SyslogFormat::new(Some(zone), year).unwrap_or_else(|problem| panic!("{}", problem.message))
    }

    fn read(text: &str) -> Result<Message<'_>, String> {
        parse(text, &format("UTC", None), NOW_MS).map_err(|fault| fault.to_string())
    }

    /// The parts in one line, `-` for those that are missing.
    fn shown(text: &str) -> String {
        let message = match read(text) {
            Ok(message) => message,
            Err(error) => return error,
        };
        let or_none = |part: Option<&str>| part.unwrap_or("-").to_owned();
        let priority = message.priority.map(|it| it.to_string());
        let parts = [
            or_none(priority.as_deref()),
            or_none(message.version),
            or_none(message.time.as_deref()),
            or_none(message.hostname),
            or_none(message.appname),
            or_none(message.procid),
            or_none(message.msgid),
            format!("{:?}", message.data),
            format!("{:?}", message.message),
        ];
        parts.join(" ")
    }

    #[test]
    fn the_examples_of_rfc_5424() {
        for (text, expected) in [
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{FEFF}'su root' failed for lonvick on /dev/pts/8",
                r#"34 1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 [] "'su root' failed for lonvick on /dev/pts/8""#,
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
                r#"165 1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - [] "%% It's time to make the do-nuts.""#,
            ),
            (
                r#"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"]"#,
                r#"165 1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [("exampleSDID@32473", [("iut", ["3"]), ("eventSource", ["Application"]), ("eventID", ["1011"])]), ("examplePriority@32473", [("class", ["high"])])] """#,
            ),
            (
                r#"<0>1 - - - - - [a b="\"\\\]\x" b="2"] "#,
                r#"0 1 - - - - - [("a", [("b", ["\"\\]\\x", "2"])])] """#,
            ),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn older_messages_and_lines_of_files() {
        for (text, expected) in [
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
                r#"34 - 2025-10-11T22:14:15Z mymachine su - - [] "'su root' failed for lonvick on /dev/pts/8""#,
            ),
            (
                "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
                r#"13 - 2026-02-05T17:32:18Z 10.0.0.99 - - - [] "Use the BFG!""#,
            ),
            (
                "Mar  2 11:04:03 host kernel: [   12.3] eth0: link up",
                r#"- - 2026-03-02T11:04:03Z host kernel - - [] "[   12.3] eth0: link up""#,
            ),
            (
                "2026-11-29T11:04:03.123456+01:00 host app[123]: started",
                r#"- - 2026-11-29T11:04:03.123456+01:00 host app 123 - [] "started""#,
            ),
            (
                "<30>Mar  1 12:00:00.25 app[1]: no host\n",
                r#"30 - 2026-03-01T12:00:00.25Z - app 1 - [] "no host""#,
            ),
            (
                "<189>Mar  1 2024 12:00:00 router : %SYS-5-CONFIG_I: x",
                r#"189 - 2024-03-01T12:00:00Z router - - - [] ": %SYS-5-CONFIG_I: x""#,
            ),
            (
                "<14>nothing but text",
                r#"14 - - - - - - [] "nothing but text""#,
            ),
            ("<14>", r#"14 - - - - - - [] """#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_message_says_where() {
        for (text, expected) in [
            (
                "",
                "byte 0: expected a priority such as <34>, or a time such as `Nov 29 11:04:03` or as RFC 3339, found the end",
            ),
            (
                "a line",
                "byte 0: expected a priority such as <34>, or a time such as `Nov 29 11:04:03` or as RFC 3339, found `a line`",
            ),
            (
                "<192>1 - - - - - -",
                "byte 0: expected a priority from <0> to <191>, found `<192>1 - - - - - -`",
            ),
            (
                "<x> y",
                "byte 0: expected a priority from <0> to <191>, found `<x> y`",
            ),
            (
                "<1>1 yesterday - - - - -",
                "byte 5: expected a time (RFC 3339) or `-`, found `yesterday - - - - -`",
            ),
            (
                "<1>1 - host",
                "byte 7: expected a host's name or `-` and a blank, found `host`",
            ),
            (
                "<1>1 - - - - - x",
                "byte 15: expected structured data (`[`) or `-`, found `x`",
            ),
            (
                "<1>1 - - - - - [a b=c]",
                "byte 19: expected `=\"` behind a parameter's name, found `=c]`",
            ),
            (
                "<1>1 - - - - - [a b=\"c]",
                "byte 21: expected a value that a quote ends, found `c]`",
            ),
            (
                "<1>1 - - - - - [a][a]",
                "byte 20: expected each id of structured data once, found `a` again",
            ),
            (
                "<1>1 - - - - - [a]x",
                "byte 18: expected a blank or the end behind the structured data, found `x`",
            ),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_year_is_not_ahead_of_the_clock() {
        let time = |text: &str, now_ms| {
            let line = format!("{text} host a: b");
            let message = parse(&line, &format("Europe/Berlin", None), now_ms);
            message.ok().and_then(|message| message.time)
        };
        // 2026-01-01T00:30:00Z.
        let new_year = 1_767_227_400_000;
        for (text, now_ms, expected) in [
            ("Dec 31 23:59:59", new_year, "2025-12-31T22:59:59Z"),
            ("Jan  1 01:30:00", new_year, "2026-01-01T00:30:00Z"),
            ("Jan  2 01:29:00", new_year, "2026-01-02T00:29:00Z"),
            ("Jan  3 00:00:00", new_year, "2025-01-02T23:00:00Z"),
            ("Jul  1 12:00:00", NOW_MS, "2025-07-01T10:00:00Z"),
            ("Feb 29 12:00:00", NOW_MS, "2024-02-29T11:00:00Z"),
        ] {
            assert_eq!(time(text, now_ms).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(time("Feb 30 12:00:00", NOW_MS), None);
        let message = parse("Feb 28 12:00:00 h a: b", &format("+02:00", Some(1999)), 0);
        let time = message.ok().and_then(|message| message.time);
        assert_eq!(time.as_deref(), Some("1999-02-28T10:00:00Z"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(<[0-9]{0,4}>)?[0-9]? ?[-\\[\\]\"= a-zN0-9:\\\\ü]{0,60}") {
            let _ = read(&text);
        }
    }
}
