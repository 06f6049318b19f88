//! What a checkpoint has of files at moments that last for a few milliseconds.

use std::fs::OpenOptions;
use std::io::Write;

use super::*;
use crate::checkpoint::snapshot::SourceSnapshot;
use crate::connector::tests::sources::context;
use crate::format::Format;

fn rows(numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|number| format!("{{\"id\":\"{number}\"}}\n"))
        .collect()
}

/// A copy was made of a file, more of it was written and read, and it was cut and written anew.
#[test]
fn what_was_just_cut_is_read_on_in_its_copy_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (
        folder.path().join("app.log"),
        folder.path().join("app.log.1"),
    );
    let watched = [Watched {
        folder: folder.path().to_owned(),
        pattern: "app.log*".to_owned(),
    }];
    let list = || Listing::of(&watched, Extent::All).expect("a folder");
    std::fs::write(&path, rows(0..500)).expect("it is writable");
    let mut context = context(1_000);
    let format = RowFormat::from(Format::Json);
    let name = "app.log".to_owned();
    let mut file = FollowedFile::new(name.clone(), name, &list().files[0], false);
    let read = |file: &mut FollowedFile, context: &SourceContext| {
        let rows = Rows {
            format: &format,
            must_be_text: false,
            context,
        };
        file.note(&list(), folder.path());
        let opened = file.open(&rows).expect("it is readable");
        assert!(opened.expect("its rows are rows"));
        let mut count = 0;
        while let Some(chunk) = file
            .rows(&rows)
            .expect("it is readable")
            .expect("its rows are rows")
        {
            count += chunk.rows;
        }
        count
    };
    assert_eq!(read(&mut file, &context), 500);
    std::fs::copy(&path, &copy).expect("it is writable");
    let mut appended = OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("it is there");
    appended
        .write_all(rows(500..600).as_bytes())
        .expect("it is writable");
    assert_eq!(read(&mut file, &context), 100);

    std::fs::write(&path, rows(1_000..2_000)).expect("it is writable");
    assert_eq!(read(&mut file, &context), 0);
    assert!(file.is_cut());
    let (position, mark) = (file.position(), file.mark());
    assert_eq!(position.offset, rows(0..600).len() as u64);
    assert_eq!(
        mark.unread,
        Some(0),
        "the rows behind it are another file's"
    );
    let snapshot = PartitionSnapshot {
        name: file.name.to_string(),
        position,
        digest: Some(mark.to_string()),
        ..PartitionSnapshot::default()
    };
    context.restored = Arc::new([SourceSnapshot {
        partitions: vec![snapshot],
        ..SourceSnapshot::default()
    }]);
    let found = restored::find(|| Ok(list()), folder.path(), &context);
    let found: Vec<_> = found.expect("nothing is lost").into_iter().collect();
    let [found] = found.as_slice() else {
        panic!("{} files", found.len());
    };
    assert_eq!(found.path.as_ref(), Some(&copy));
    assert_eq!(found.position().offset, rows(0..500).len() as u64);
}
