//! Shows tables, sizes, numbers and times to people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::quantity::show_ms;
use crate::text;

/// Lines of texts in columns, under their names. A name that begins with `>` is that of a
/// column of numbers. Whatever could begin another line is escaped.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().map(|name| name.trim_start_matches('>')));
    for row in rows {
        table.add_row(row.iter().map(|text| one_line(text)));
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines();
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Without the line ends of what a row or a plugin says.
pub(super) fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// The beginning of a text, on one line.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    text::cut(&one_line(text), chars_max).into_owned()
}

/// `12.3 MB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes if bytes >= 1e3 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{bytes} B"),
    }
}

/// Shortens `1234567` to `1.23M`.
pub(super) fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.2}G", n / 1e9),
        n if n >= 1e6 => format!("{:.2}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// RFC 3339.
pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

/// How long ago, in whole seconds.
pub(super) fn ago(ms: i64, now_ms: i64) -> String {
    match now_ms.saturating_sub(ms) {
        ..0 => "in the future".to_owned(),
        0..1_000 => "now".to_owned(),
        passed => format!("{} ago", show_ms(passed / 1_000 * 1_000)),
    }
}

/// A duration in its two largest units: `3d 4h`.
pub(super) fn span(ms: i64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let Some(at) = units.iter().position(|(unit, _)| ms >= *unit) else {
        return format!("{}ms", ms.max(0));
    };
    let (unit, name) = units[at];
    match units.get(at + 1) {
        Some((smaller, smaller_name)) if ms % unit >= *smaller => {
            format!("{}{name} {}{smaller_name}", ms / unit, ms % unit / smaller)
        }
        _ => format!("{}{name}", ms / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_enough_to_read() {
        let shorts = [0.4, 999.0, 9999.0, 12_345.0, 1_234_567.0, 2e9].map(short);
        assert_eq!(shorts, ["0", "999", "9999", "12.3k", "1.23M", "2.00G"]);
        let spans = [-1, 12, 12_345, 60_000, 3_725_000, 90_000_000, 86_400_000].map(span);
        assert_eq!(spans, ["0ms", "12ms", "12s", "1m", "1h 2m", "1d 1h", "1d"]);
    }

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_lines() {
        assert_eq!(cut("ééé\n", 10), "ééé\\n");
        assert_eq!(cut("éééé", 2), "éé…");
        let shown = table(&[">n", "text"], [vec!["1".to_owned(), "a\nb".to_owned()]]);
        assert_eq!(shown, " n  text\n 1  a\\nb\n");
    }
}
