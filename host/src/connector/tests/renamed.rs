//! Files that have other names, or other files that have their names, when a source is
//! restored: each row is read once, or the run is refused.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::sources::{COMPRESSIONS, CSV, Read, compressed, context, files};
use crate::checkpoint::snapshot::SourceSnapshot;
use crate::connector::file::opened::Compression;
use crate::format::Format;
use crate::placement::Placement;
use crate::source::SourceContext;
use crate::source::reader::SourceReader;

/// A folder whose files several runs read, one after the other.
struct Folder {
    folder: TempDir,
    format: Format,
    /// How many tasks the next run has.
    tasks: usize,
    /// The last checkpoint.
    restored: Arc<[SourceSnapshot]>,
    /// The rows that all runs have read.
    ids: Vec<String>,
}

impl Folder {
    fn new() -> Self {
        Folder {
            folder: TempDir::new().unwrap(),
            format: Format::Json,
            tasks: 1,
            restored: Arc::new([]),
            ids: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes rows with these ids, behind those that are there.
    fn append(&self, name: &str, ids: &[&str]) {
        let mut content = fs::read(self.path(name)).unwrap_or_default();
        content.extend(text(ids).into_bytes());
        fs::write(self.path(name), content).unwrap();
    }

    /// Writes nothing but rows with these ids.
    fn write(&self, name: &str, ids: &[&str], compression: Compression) {
        fs::write(self.path(name), compressed(&text(ids), compression)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Opens all files that are in the folder.
    async fn open(&self) -> Result<Vec<SourceReader>, String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        let plan = files(&paths, self.format.clone());
        let mut readers = Vec::new();
        for task in 0..self.tasks {
            let context = SourceContext {
                placement: Placement::on_one_host(task, self.tasks),
                restored: self.restored.clone(),
                ..context(1)
            };
            let reader = SourceReader::open(&plan, context).await;
            readers.push(reader.map_err(|error| error.to_string())?);
        }
        Ok(readers)
    }

    /// Reads about this many rows in each task, and makes a checkpoint.
    async fn read(&mut self, rows: usize) -> Result<(), String> {
        let mut readers = self.open().await?;
        self.read_with(&mut readers, rows).await;
        self.checkpoint(&mut readers);
        Ok(())
    }

    async fn read_with(&mut self, readers: &mut [SourceReader], rows: usize) {
        for reader in readers {
            let mut read = Read::default();
            while read.ids.len() < rows
                && let Some(pulled) = reader.next().await.unwrap()
            {
                read.add(pulled);
            }
            self.ids.extend(read.ids);
        }
    }

    fn checkpoint(&mut self, readers: &mut [SourceReader]) {
        self.restored = readers.iter_mut().map(SourceReader::snapshot).collect();
    }

    async fn read_all(&mut self) {
        self.read(usize::MAX).await.unwrap();
    }

    /// Checks that the rows with these ids were read, each once.
    #[track_caller]
    fn assert_read(&mut self, expected: &str) {
        self.ids.sort();
        assert_eq!(self.ids.join(" "), expected);
    }

    /// The next run is refused.
    async fn refuse(&mut self, expected: &[&str]) {
        let said = self.read(1).await.unwrap_err();
        for expected in expected {
            assert!(said.contains(expected), "{expected}\n{said}");
        }
        assert!(said.contains("`sluicebox run --drop events/"), "{said}");
    }
}

fn text(ids: &[&str]) -> String {
    let row = |id: &&str| format!("{{\"id\":\"{id}\",\"ts\":1}}\n");
    ids.iter().map(row).collect()
}

/// However much of them was read, and however many tasks read them then.
#[tokio::test]
async fn renamed_files_are_read_on_where_they_were() {
    for tasks in 1..4 {
        for (compression, _) in COMPRESSIONS {
            for rows in [0, 1, 30, usize::MAX] {
                let mut folder = Folder::new();
                folder.format = CSV;
                let mut expected = Vec::new();
                for file in 0..4 {
                    let ids: Vec<String> = (10..60).map(|row| format!("{file}-{row}")).collect();
                    let lines: String = ids.iter().map(|id| format!("{id},1\n")).collect();
                    let text = compressed(&format!("id,ts\n{lines}"), compression);
                    fs::write(folder.path(&named(file, compression)), text).unwrap();
                    expected.extend(ids);
                }
                folder.read(rows).await.unwrap();
                folder.rename(&named(0, compression), &named(9, compression));
                // Two change their names.
                folder.rename(&named(1, compression), "other");
                folder.rename(&named(2, compression), &named(1, compression));
                folder.rename("other", &named(2, compression));
                folder.tasks = tasks;
                folder.read_all().await;
                folder.tasks = 1;
                folder.read_all().await;
                folder.assert_read(&expected.join(" "));
            }
        }
    }
}

fn named(number: usize, compression: Compression) -> String {
    let extension = match compression {
        Compression::Gzip => ".gz",
        Compression::Zstd => ".zst",
        Compression::None => "",
    };
    format!("{number}.csv{extension}")
}

/// As logrotate does it with `create`: each file gets the next name, and another one
/// the first.
#[tokio::test]
async fn rotated_files_are_read_on_beside_the_new_one() {
    for tasks in [1, 2] {
        for rows in [0, 1, usize::MAX] {
            let mut folder = Folder::new();
            folder.tasks = tasks;
            folder.append("log", &["a", "b"]);
            folder.read(rows).await.unwrap();
            for (id, more) in [("c", "d"), ("e", "f")] {
                if folder.path("log.1").exists() {
                    folder.rename("log.1", "log.2");
                }
                folder.append("log", &[id]);
                folder.rename("log", "log.1");
                folder.append("log", &[more]);
                folder.read(rows).await.unwrap();
            }
            folder.read_all().await;
            folder.assert_read("a b c d e f");
        }
    }
}

#[tokio::test]
async fn the_oldest_rotated_file_may_go_when_it_was_read() {
    let mut folder = Folder::new();
    folder.append("log.1", &["a", "b"]);
    folder.append("log", &["c"]);
    folder.read_all().await;
    folder.rename("log", "log.1");
    folder.append("log", &["d"]);
    folder.read_all().await;
    folder.assert_read("a b c d");
}

#[tokio::test]
async fn the_oldest_rotated_file_may_not_go_before_it_was_read() {
    let mut folder = Folder::new();
    folder.append("log.1", &["a", "b"]);
    folder.append("log", &["c", "d"]);
    folder.read(1).await.unwrap();
    folder.rename("log", "log.1");
    folder.append("log", &["e"]);
    folder.refuse(&["log.1 up to byte", "put it back"]).await;
}

/// As logrotate does it with `copytruncate`.
#[tokio::test]
async fn a_file_that_was_copied_and_cut_is_refused() {
    for (more, what) in [
        (&["c"][..], "is shorter than"),
        (&["c", "d", "e"], "is another file"),
    ] {
        for rows in [1, usize::MAX] {
            let mut folder = Folder::new();
            folder.append("log", &["a", "b"]);
            folder.read(rows).await.unwrap();
            folder.copy("log", "log.1");
            fs::write(folder.path("log"), text(more)).unwrap();
            let what = if rows == 1 { "is another file" } else { what };
            folder.refuse(&[what, "log.1 begins with them"]).await;
            // As the message says.
            folder.rename("log", "log.2");
            folder.rename("log.1", "log");
            folder.read_all().await;
            folder.assert_read(&format!("a b {}", more.join(" ")));
        }
    }
}

/// The run that reads it stops as the next one would, whether it has the file open or not.
#[tokio::test]
async fn a_file_that_is_cut_while_it_is_read_is_refused() {
    let ids = |prefix: &str, rows: usize| -> Vec<String> {
        (0..rows).map(|row| format!("{prefix}{row}")).collect()
    };
    for others in [0, 80] {
        for (rows, what) in [(3, "is shorter than the"), (9_000, "begins otherwise")] {
            let mut folder = Folder::new();
            for other in 0..others {
                folder.append(&format!("log-{other}"), &["other"]);
            }
            let first = ids("first-", 3_000);
            folder.append("log.z", &Vec::from_iter(first.iter().map(String::as_str)));
            let mut readers = folder.open().await.unwrap();
            folder.read_with(&mut readers, 1).await;
            folder.copy("log.z", "copied");
            let second = ids("second-", rows);
            let second = text(&Vec::from_iter(second.iter().map(String::as_str)));
            fs::write(folder.path("log.z"), second).unwrap();
            let said = loop {
                match readers[0].next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the file is not what it was"),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(said.contains(what), "{others} {said}");
            assert!(said.contains("put back the one that was read"), "{said}");
            // Nor does a checkpoint take it for the one that was read.
            folder.checkpoint(&mut readers);
            folder.remove("copied");
            folder.refuse(&["log.z"]).await;
        }
    }
}

#[tokio::test]
async fn a_copy_is_new_as_long_as_the_file_is_there() {
    let mut folder = Folder::new();
    folder.append("a", &["a", "b"]);
    folder.read_all().await;
    folder.copy("a", "copy");
    folder.read_all().await;
    folder.assert_read("a a b b");
}

#[tokio::test]
async fn a_copy_of_a_file_that_is_gone_is_refused() {
    for rows in [1, usize::MAX] {
        let mut folder = Folder::new();
        folder.append("a", &["a", "b"]);
        folder.read(rows).await.unwrap();
        folder.copy("a", "copy");
        folder.append("copy", &["c"]);
        folder.remove("a");
        folder.refuse(&["copy begins", "give it th"]).await;
        folder.rename("copy", "a");
        folder.read_all().await;
        folder.assert_read("a b c");
    }
}

/// As logrotate does it with `compress`.
#[tokio::test]
async fn a_file_that_was_compressed_is_refused() {
    let rows = text(&(0..2_000).map(|_| "row").collect::<Vec<_>>());
    for (compression, name) in [
        (Compression::Gzip, "log.gz"),
        (Compression::Zstd, "log.zst"),
    ] {
        for (from, to) in [("log", name), (name, "log")] {
            let mut folder = Folder::new();
            let written = |name: &str| match name {
                "log" => rows.clone().into_bytes(),
                _ => compressed(&rows, compression),
            };
            fs::write(folder.path(from), written(from)).unwrap();
            folder.append("other", &["other"]);
            folder.read_all().await;
            fs::write(folder.path(to), written(to)).unwrap();
            folder.remove(from);
            folder.refuse(&[to, "is perhaps a copy"]).await;
            // As the message says.
            folder.remove(to);
            folder.read_all().await;
            assert_eq!(folder.ids.len(), 2_001);
        }
    }
}

/// Either of them may be the one that is to be read on.
#[tokio::test]
async fn a_renamed_file_beside_its_copy_is_refused() {
    let mut folder = Folder::new();
    folder.append("a", &["a", "b"]);
    folder.read_all().await;
    folder.rename("a", "a.old");
    folder.copy("a.old", "a");
    folder.append("a", &["c"]);
    folder
        .refuse(&["a.old is the file", "as a copy does"])
        .await;
    folder.remove("a.old");
    folder.read_all().await;
    folder.assert_read("a b c");
}

/// Whether it differs where it was read last, at its beginning, or in between, or is
/// shorter.
#[tokio::test]
async fn other_content_at_the_same_place_is_refused() {
    const CUT: &[&str] = &["a", "b"];
    for (compression, _) in COMPRESSIONS {
        for (rows, other) in [
            (0, &["v", "w", "x", "y", "z", "f"][..]),
            (1, &["v", "w", "x", "y", "z", "f"]),
            (usize::MAX, &["v", "w", "x", "y", "z", "f"]),
            (usize::MAX, &["a", "b", "x", "d", "e", "f"]),
            (usize::MAX, &["a", "b", "c", "d", "x", "f"]),
            (usize::MAX, CUT),
        ] {
            let mut folder = Folder::new();
            let (a, b) = (named(1, compression), named(2, compression));
            folder.write(&a, &["a", "b", "c", "d", "e"], compression);
            folder.read(rows).await.unwrap();
            folder.rename(&a, &b);
            folder.write(&b, other, compression);
            let what = match (rows, compression) {
                (0, _) => "up to byte",
                (_, Compression::None) if other == CUT => "is shorter than the",
                _ => "has been changed in",
            };
            folder.refuse(&[what, &a, "--drop events/"]).await;
            // Also beside a new file that has its name.
            if rows > 0 {
                folder.write(&a, &["g"], compression);
                folder.refuse(&[what, &b]).await;
            }
        }
    }
}

/// The inode may be used again, where the disk does not tell when a file was created.
#[tokio::test]
async fn other_content_at_a_place_without_a_time_is_another_file() {
    let mut folder = Folder::new();
    folder.append("a", &["a", "b"]);
    folder.read_all().await;
    let mut snapshot = folder.restored[0].clone();
    let mark = snapshot.partitions[0].digest.take().unwrap();
    let words = mark
        .split(' ')
        .map(|word| match word.strip_prefix("file=") {
            Some(place) => format!("file={}", place.rsplit_once(':').unwrap().0),
            None => word.to_owned(),
        });
    snapshot.partitions[0].digest = Some(words.collect::<Vec<_>>().join(" "));
    folder.restored = Arc::new([snapshot]);
    folder.rename("a", "b");
    fs::write(folder.path("b"), text(&["x", "y", "z"])).unwrap();
    folder.read_all().await;
    folder.assert_read("a b x y z");
}

/// New files often begin like others that are gone.
#[tokio::test]
async fn files_without_rows_are_nobodys_copies() {
    let mut folder = Folder::new();
    folder.format = CSV;
    for name in ["a", "b"] {
        fs::write(folder.path(name), "id,ts\n").unwrap();
    }
    fs::write(folder.path("c"), "").unwrap();
    folder.read_all().await;
    for name in ["a", "b", "c"] {
        folder.remove(name);
    }
    fs::write(folder.path("d"), "id,ts\nd,1\n").unwrap();
    fs::write(folder.path("e"), "").unwrap();
    folder.read_all().await;
    folder.assert_read("d");
}

#[tokio::test]
async fn an_empty_file_may_grow_under_another_name() {
    let mut folder = Folder::new();
    folder.append("a", &[]);
    folder.append("b", &["b"]);
    folder.read(0).await.unwrap();
    folder.rename("a", "c");
    folder.append("c", &["c"]);
    folder.read_all().await;
    folder.assert_read("b c");
}

/// What was not read of a file may change, as long as it has its name.
#[tokio::test]
async fn a_file_that_was_not_begun_may_be_replaced() {
    let mut folder = Folder::new();
    folder.append("a", &["a"]);
    folder.append("b", &["b"]);
    folder.read(1).await.unwrap();
    folder.assert_read("a");
    fs::write(folder.path("b.new"), text(&["c"])).unwrap();
    folder.rename("b.new", "b");
    folder.read_all().await;
    folder.assert_read("a c");
}

/// More than are open at a time. Their descriptors are closed when they are renamed.
#[tokio::test]
async fn files_that_are_closed_may_be_renamed_before_the_checkpoint() {
    let mut folder = Folder::new();
    let names: Vec<String> = (10..90).map(|number| number.to_string()).collect();
    for name in &names {
        folder.append(name, &[name]);
    }
    let mut readers = folder.open().await.unwrap();
    folder.read_with(&mut readers, 40).await;
    for name in &names {
        folder.rename(name, &format!("new-{name}"));
    }
    folder.checkpoint(&mut readers);
    folder.read_all().await;
    folder.assert_read(&names.join(" "));
}

#[tokio::test]
async fn a_file_that_was_renamed_while_it_was_read_is_read_on() {
    for (compression, _) in COMPRESSIONS {
        let mut folder = Folder::new();
        folder.format = CSV;
        let text = compressed("id,ts\na,1\nb,1\n", compression);
        fs::write(folder.path(&named(1, compression)), text).unwrap();
        let mut readers = folder.open().await.unwrap();
        folder.read_with(&mut readers, 1).await;
        folder.rename(&named(1, compression), &named(2, compression));
        let text = compressed("id,ts\nc,1\nd,1\n", compression);
        fs::write(folder.path(&named(1, compression)), text).unwrap();
        folder.checkpoint(&mut readers);
        folder.read_all().await;
        folder.assert_read("a b c d");
    }
}

/// Nothing is compared with everything.
#[tokio::test]
async fn many_files_are_renamed_and_replaced_at_once() {
    const FILES: usize = 3_000;
    let mut folder = Folder::new();
    folder.tasks = 3;
    let ids: Vec<String> = (0..FILES).map(|file| format!("{file:04}")).collect();
    for id in &ids {
        folder.append(id, &[id]);
    }
    folder.read_all().await;
    for (index, id) in ids.iter().enumerate() {
        match index % 3 {
            0 => folder.rename(id, &format!("new-{id}")),
            1 => folder.remove(id),
            _ => {}
        }
        if index % 3 == 1 {
            folder.append(&format!("more-{id}"), &[&format!("more-{id}")]);
        }
    }
    let before = std::time::Instant::now();
    folder.read_all().await;
    assert!(before.elapsed().as_secs() < 20, "{:?}", before.elapsed());
    let more = ids.iter().skip(1).step_by(3).map(|id| format!("more-{id}"));
    let expected: Vec<String> = ids.iter().cloned().chain(more).collect();
    folder.assert_read(&expected.join(" "));
}
