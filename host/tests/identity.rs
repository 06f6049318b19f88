//! What a checkpoint has belongs to the sources, aggregates and files that it was
//! made with: a run finds them again however they are spelled, and refuses to go
//! on where they are not the same, unless it is told to drop them.

/// Plugins, built once.
#[expect(dead_code, reason = "the host loads its own plugins")]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a pipeline that counts three rows.
struct Shop {
    parent: TempDir,
    folder: PathBuf,
}

const PIPELINE: &str = r#"
name = "shop"
[plugins.basics]
path = "BASICS"
[checkpoints]
[sources.rows]
type = "file"
path = "rows.jsonl"
fields = { id = "utf8", n = "int64" }
[operators.counted]
plugin = "basics.count"
input = "rows"
window = "running"
[sinks.out]
type = "file"
path = "out.jsonl"
input = "counted"
[sinks.seen]
type = "blackhole"
input = "rows"
"#;

impl Shop {
    fn new() -> Self {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("shop");
        fs::create_dir(&folder).expect("it is writable");
        let shop = Shop { parent, folder };
        let rows = ["a", "b", "c"].map(|id| format!("{{\"id\":\"{id}\",\"n\":1}}\n"));
        shop.write("rows.jsonl", &rows.concat());
        let plugin = common::plugin_file("basics");
        shop.write(
            "shop.toml",
            &PIPELINE.replace("BASICS", &plugin.display().to_string()),
        );
        shop
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("it is writable");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// Replaces text in the pipeline's file.
    fn edit(&self, from: &str, to: &str) {
        let text = self.read("shop.toml");
        assert!(text.contains(from), "{text}");
        self.write("shop.toml", &text.replace(from, to));
    }

    /// The counts in the sink's file.
    fn counts(&self) -> Vec<i64> {
        let rows = self.read("out.jsonl");
        let rows = rows.lines().map(|row| {
            let row: Value = serde_json::from_str(row).expect("whole rows");
            row["count"].as_i64().expect("a number")
        });
        rows.collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command
            .args(["run", "--quiet"])
            .args(arguments)
            .current_dir(&self.folder);
        command
    }

    /// Runs the pipeline by some spelling of its path, from a folder.
    fn run_as(&self, pipeline: &Path, arguments: &[&str], from: &Path) -> Result<String, String> {
        let mut command = self.command(arguments);
        let output = command.arg(pipeline).current_dir(from).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => Ok(said),
            Some(1 | 2) => Err(said),
            other => panic!("{other:?}: {said}"),
        }
    }

    /// Runs the pipeline until it crashes at this place.
    fn crash(&self, arguments: &[&str], place: &str) {
        let mut command = self.command(arguments);
        let output = command
            .arg("shop.toml")
            .env("SLUICEBOX_CRASH_AT", place)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), None, "{place} {arguments:?}: {said}");
    }

    fn add_row(&self, row: &str) {
        let more = self.read("rows.jsonl") + row + "\n";
        self.write("rows.jsonl", &more);
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.run_as(Path::new("shop.toml"), arguments, &self.folder)
    }

    /// A run that is refused, and changes nothing.
    fn refuse(&self, expected: &[&str]) {
        let (out, other) = (self.read("out.jsonl"), self.read("other.jsonl"));
        let said = self.run(&[]).expect_err("it is refused");
        for expected in expected {
            assert!(said.contains(expected), "{expected}\n{said}");
        }
        assert!(!said.contains(", and restarts in"), "{said}");
        assert_eq!(self.read("out.jsonl"), out);
        assert_eq!(self.read("other.jsonl"), other);
    }

    /// A pipeline that has run to its end twice, and has the checkpoints of both:
    /// three rows, and a fourth. It has a second sink.
    fn ended_twice() -> Self {
        let shop = Shop::new();
        shop.edit("[checkpoints]", "[checkpoints]\nkeep = 9");
        shop.edit(
            "input = \"counted\"",
            "input = \"counted\"\nif_exists = \"replace\"",
        );
        let other = "type = \"file\"\npath = \"other.csv\"\nif_exists = \"replace\"";
        shop.edit("type = \"blackhole\"", other);
        shop.run(&[]).expect("it runs");
        shop.add_row("{\"id\":\"d\",\"n\":1}");
        shop.run(&[]).expect("it runs");
        assert_eq!(shop.counts(), [1, 2, 3, 4]);
        shop
    }

    /// A pipeline that has run to its end.
    fn ended() -> Self {
        let shop = Shop::new();
        shop.run(&[]).expect("it runs");
        assert_eq!(shop.counts(), [1, 2, 3]);
        shop
    }
}

#[test]
fn a_path_is_the_same_however_it_is_spelled() {
    let shop = Shop::ended();
    let file = shop.folder.join("shop.toml");
    let spellings = [
        (Path::new("./shop.toml"), shop.folder.as_path()),
        (file.as_path(), shop.folder.as_path()),
        (Path::new("shop/../shop/shop.toml"), shop.parent.path()),
    ];
    for (spelling, from) in spellings {
        let ran = shop.run_as(spelling, &[], from);
        ran.unwrap_or_else(|said| panic!("{}: {said}", spelling.display()));
        assert_eq!(shop.counts(), [1, 2, 3], "{}", spelling.display());
    }
    shop.edit("\"rows.jsonl\"", "\"../shop/rows.jsonl\"");
    shop.edit("\"out.jsonl\"", "\"./out.jsonl\"");
    shop.run(&[]).expect("it runs");
    assert_eq!(shop.counts(), [1, 2, 3]);
}

#[test]
fn a_pipeline_can_be_moved_with_its_files() {
    let mut shop = Shop::ended();
    let moved = shop.parent.path().join("moved");
    fs::rename(&shop.folder, &moved).expect("it can be moved");
    shop.folder = moved;
    shop.run(&[]).expect("it runs");
    assert_eq!(shop.counts(), [1, 2, 3]);
}

#[test]
fn a_file_with_two_names_is_read_once() {
    let shop = Shop::new();
    shop.edit("path = \"rows.jsonl\"", "path = \"rows*.jsonl\"");
    let link = shop.folder.join("rows-2.jsonl");
    fs::hard_link(shop.folder.join("rows.jsonl"), link).expect("it is writable");
    shop.run(&[]).expect("it runs");
    assert_eq!(shop.counts(), [1, 2, 3]);
    shop.run(&[]).expect("it goes on");
    assert_eq!(shop.counts(), [1, 2, 3]);
}

impl Shop {
    /// Gives a name that a link has a file of its own, as `sed -i` does.
    fn rewrite(&self, name: &str, text: &str) {
        self.write("rewritten", text);
        self.rename("rewritten", name);
    }
}

#[test]
fn a_link_that_has_become_a_file_is_refused_until_it_is_one_again() {
    let is_edited = [false, true];
    for (is_symbolic, rewritten, is_edited) in [false, true].into_iter().flat_map(|symbolic| {
        let names = ["rows.jsonl", "rows2.jsonl"];
        let names = names.into_iter().skip(usize::from(symbolic));
        names.flat_map(move |name| is_edited.map(|edited| (symbolic, name, edited)))
    }) {
        let what = format!("{is_symbolic} {rewritten} {is_edited}");
        let shop = Shop::new();
        shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
        let (first, link) = (
            shop.folder.join("rows.jsonl"),
            shop.folder.join("rows2.jsonl"),
        );
        let other = shop
            .folder
            .join(["rows2.jsonl", "rows.jsonl"][usize::from(rewritten != "rows.jsonl")]);
        match is_symbolic {
            true => std::os::unix::fs::symlink("rows.jsonl", &link),
            false => fs::hard_link(&first, &link),
        }
        .expect("it is writable");
        shop.run(&[]).expect("it runs");
        // The link is known although a run did not look for it.
        shop.edit("\"rows*.jsonl\"", "\"rows.jsonl\"");
        shop.run(&[]).expect("it goes on");
        shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
        let text = shop.read(rewritten);
        let edited = text.replace("\"a\"", "\"x\"");
        shop.rewrite(rewritten, if is_edited { &edited } else { &text });
        shop.refuse(&[
            &format!("{rewritten} was another name of "),
            "of which 51 bytes were read before",
            "--drop rows/rows.jsonl",
        ]);
        // What is new has a new name.
        if is_edited {
            shop.rename(rewritten, "rows3.jsonl");
            shop.run(&[]).expect("it is new");
            assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6], "{what}");
            continue;
        }
        fs::remove_file(shop.folder.join(rewritten)).expect("it is there");
        fs::hard_link(other, shop.folder.join(rewritten)).expect("it is writable");
        shop.run(&[]).expect("it is a link again");
        assert_eq!(shop.counts(), [1, 2, 3], "{what}");
    }
}

#[test]
fn a_link_that_stays_when_its_file_goes_is_known() {
    let shop = Shop::new();
    shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
    let link = shop.folder.join("rows2.jsonl");
    fs::hard_link(shop.folder.join("rows.jsonl"), link).expect("it is writable");
    shop.run(&[]).expect("it runs");
    let text = shop.read("rows.jsonl");
    fs::remove_file(shop.folder.join("rows.jsonl")).expect("it is there");
    for _ in 0..2 {
        shop.run(&[]).expect("it is known");
        assert_eq!(shop.counts(), [1, 2, 3]);
    }
    shop.write("rows.jsonl", &text);
    shop.refuse(&["rows.jsonl was another name of rows2.jsonl"]);
    fs::remove_file(shop.folder.join("rows.jsonl")).expect("it is there");
    let edited = shop.read("rows2.jsonl").replace("\"a\"", "\"x\"");
    shop.rewrite("rows2.jsonl", &edited);
    shop.refuse(&["rows2.jsonl is another file"]);
}

#[test]
fn a_renamed_source_is_refused_until_it_is_dropped() {
    let shop = Shop::ended();
    shop.edit("sources.rows", "sources.events");
    shop.edit("input = \"rows\"", "input = \"events\"");
    shop.refuse(&["source `rows` has offsets in checkpoint", "--drop rows"]);
    shop.run(&["--drop", "rows"]).expect("it is dropped");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6], "it is read again");
    shop.run(&[]).expect("it was dropped for good");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_renamed_sink_is_refused() {
    let shop = Shop::ended();
    shop.edit("sinks.out", "sinks.results");
    shop.refuse(&["sink `out` has rows in checkpoint", "--drop out"]);
    shop.edit("sinks.results", "sinks.out");
    shop.run(&[]).expect("it is the same again");
    assert_eq!(shop.counts(), [1, 2, 3]);
}

#[test]
fn a_sink_that_writes_another_file_or_format_is_refused() {
    let shop = Shop::ended();
    shop.write("other.jsonl", "of somebody else\n");
    shop.edit("\"out.jsonl\"", "\"other.jsonl\"");
    shop.refuse(&[
        "sink `out`",
        "its file was out.jsonl and is now other.jsonl",
    ]);
    shop.edit("\"other.jsonl\"", "\"out.jsonl\"\nformat = \"csv\"");
    shop.refuse(&["sink `out`", "its format was json and is now csv"]);
}

#[test]
fn a_sink_without_rows_of_its_own_may_go() {
    let shop = Shop::ended();
    shop.edit("sinks.seen", "sinks.unseen");
    shop.run(&[]).expect("nothing is lost");
}

#[test]
fn all_that_must_be_dropped_is_said_at_once() {
    let shop = Shop::ended();
    shop.edit("operators.counted", "operators.again");
    shop.edit("input = \"counted\"", "input = \"again\"");
    shop.edit("sinks.out", "sinks.elsewhere");
    shop.edit("sources.rows", "sources.others");
    shop.edit("input = \"rows\"", "input = \"others\"");
    let all = ["--drop", "rows", "--drop", "counted", "--drop", "out"];
    shop.refuse(&[
        "source `rows` has offsets in checkpoint",
        "operator `counted` has state in checkpoint",
        "sink `out` has rows in checkpoint",
        "change them back, or drop what the checkpoint has of them",
        &format!("`sluicebox run {} PIPELINE`", all.join(" ")),
        "or how it is started",
    ]);
    // What is given already is a part of the command.
    let said = shop.run(&all[..2]).expect_err("it is refused");
    let command = format!("`sluicebox run {} PIPELINE`", all.join(" "));
    assert!(said.contains(&command), "{said}");
    // Another sink has no right to it.
    fs::remove_file(shop.folder.join("out.jsonl")).expect("it is there");
    shop.run(&all).expect("all are dropped");
}

/// Neither the folder of its state nor one on the way to it.
#[test]
fn a_run_that_is_refused_leaves_no_folder() {
    let shop = Shop::new();
    shop.edit(
        "[checkpoints]",
        "[checkpoints]\n[state]\npath = \"deep/state\"",
    );
    shop.run(&["--drop", "rows"]).expect_err("there is nothing");
    assert!(!shop.folder.join("deep").exists());
    shop.write("out.jsonl", "{\"of\":\"somebody else\"}\n");
    shop.run(&[]).expect_err("the file is not its own");
    assert!(!shop.folder.join("deep").exists());
    fs::remove_file(shop.folder.join("out.jsonl")).expect("it is there");
    shop.run(&[]).expect("it runs");
    assert!(shop.folder.join("deep/state/checkpoints").exists());
}

#[test]
fn the_state_of_an_aggregate_can_be_dropped() {
    let shop = Shop::ended();
    shop.edit("operators.counted", "operators.again");
    shop.edit("input = \"counted\"", "input = \"again\"");
    shop.refuse(&[
        "operator `counted` has state in checkpoint",
        "--drop counted",
    ]);
    let more = shop.read("rows.jsonl") + "{\"id\":\"d\",\"n\":1}\n";
    shop.write("rows.jsonl", &more);
    let said = shop.run(&["--drop", "counted", "--drop", "rows"]);
    said.expect("both are dropped");
    assert_eq!(shop.counts(), [1, 2, 3, 1, 2, 3, 4], "it counts anew");
}

#[test]
fn an_output_that_was_read_and_is_gone_is_told() {
    let shop = Shop::new();
    shop.edit("fields = {", "event_time = \"n\"\nfields = {");
    shop.edit("\"running\"", "{ tumbling = \"1m\" }");
    let readers = "\n[sinks.late]\ntype = \"blackhole\"\ninput = \"counted.late\"\n\
                   [sinks.both]\ntype = \"blackhole\"\ninput = [\"rows\", \"counted.late\"]\n";
    let text = shop.read("shop.toml");
    shop.write("shop.toml", &(text + readers));
    shop.run(&[]).expect("it runs");
    // One reader more or less is no loss.
    shop.edit(", \"counted.late\"]", "]");
    let said = shop.run(&[]).expect("it runs");
    assert!(!said.contains("is gone"), "{said}");
    shop.edit("[\"rows\"]", "[\"rows\", \"counted.late\"]");
    shop.run(&[]).expect("it runs");

    shop.edit(readers, "");
    shop.edit("{ tumbling = \"1m\" }", "\"running\"");
    let said = shop.run(&["--drop", "counted"]).expect("it is dropped");
    let expected = "output `late` of `counted` is gone, which was read by `late`, `both` at ";
    assert_eq!(said.matches(expected).count(), 1, "{said}");
    let said = shop.run(&[]).expect("it runs");
    assert!(!said.contains("is gone"), "{said}");
}

/// Their stages read each other, and have dots in their names.
#[test]
fn no_output_of_a_recommender_or_look_up_is_gone_at_a_restore() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for (example, plugin) in [("recommend", "recommend"), ("orders", "cart")] {
        let shop = Shop::new();
        let example = examples.join(example);
        let pipeline = fs::read_to_string(example.join("pipeline.toml")).expect("it is there");
        shop.write("shop.toml", &(pipeline + "\n[checkpoints]\n"));
        let wasm = format!("../../plugins/{plugin}/{plugin}.wasm");
        let built = common::plugin_file(plugin);
        shop.edit(&wasm, &built.display().to_string());
        let input = example.join("tests/small/input/");
        shop.edit("tests/small/input/", &input.display().to_string());
        shop.run(&[]).expect("it runs");
        let said = shop.run(&[]).expect("it goes on");
        assert!(said.contains("this one reads what is new"), "{said}");
        assert!(!said.contains("is gone"), "{said}");
    }
}

#[test]
fn a_run_that_goes_on_after_its_end_reads_what_is_new() {
    let shop = Shop::ended();
    let more = shop.read("rows.jsonl") + "{\"id\":\"d\",\"n\":1}\n";
    shop.write("rows.jsonl", &more);
    let said = shop.run(&[]).expect("it runs");
    assert!(said.contains("reads what is new"), "{said}");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
    shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
    shop.write("rows2.jsonl", "{\"id\":\"e\",\"n\":1}\n");
    shop.run(&[]).expect("it runs");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_file_that_was_replaced_is_refused_until_its_source_is_dropped() {
    let shop = Shop::ended();
    let other = shop.read("rows.jsonl").replace("\"a\"", "\"x\"");
    shop.write("rows.jsonl", &(other + "{\"id\":\"y\",\"n\":1}\n"));
    shop.refuse(&["rows.jsonl is another file", "--drop rows"]);
    shop.run(&["--drop", "rows"]).expect("it is dropped");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_file_that_is_gone_may_be_gone_when_it_was_read_to_its_end() {
    let shop = Shop::ended();
    shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
    shop.write("rows2.jsonl", "{\"id\":\"e\",\"n\":1}\n");
    fs::remove_file(shop.folder.join("rows.jsonl")).expect("it is there");
    shop.run(&[]).expect("all of it was read");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
}

/// Rows of `rows.jsonl` and of a file that stays, all of them read.
fn with_a_file_that_stays() -> Shop {
    let shop = Shop::new();
    shop.edit("\"rows.jsonl\"", "\"rows*\"\nformat = \"json\"");
    shop.write("rows-stay.jsonl", "{\"id\":\"s\",\"n\":1}\n");
    shop.run(&[]).expect("it runs");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
    shop
}

impl Shop {
    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.folder.join(from), self.folder.join(to)).expect("it is there");
    }

    /// Has a second source read a row, of a file, by a path or pattern that names it.
    fn read_others(&self, path: &str, file: &str) {
        let others = format!(
            "[sources.others]\ntype = \"file\"\npath = \"{path}\"\nformat = \"json\"\n\
             fields = {{ id = \"utf8\", n = \"int64\" }}\n[operators.counted]"
        );
        self.edit("[operators.counted]", &others);
        self.edit(
            "input = \"rows\"\nwindow",
            "input = [\"rows\", \"others\"]\nwindow",
        );
        self.write(file, "{\"id\":\"o\",\"n\":1}\n");
        self.run(&[]).expect("it runs");
        assert_eq!(self.counts(), [1, 2, 3, 4]);
    }

    /// Runs while a file is away, which changes nothing, and puts it back under another
    /// name, or the same.
    fn goes_and_comes(&self, name: &str, back: &str) {
        let counts = self.counts();
        self.rename(name, "aside");
        for _ in 0..2 {
            self.run(&[]).expect("all of it was read");
        }
        assert_eq!(self.counts(), counts);
        self.rename("aside", back);
    }
}

#[test]
fn a_file_that_was_gone_and_comes_back_is_read_on() {
    let shop = with_a_file_that_stays();
    shop.goes_and_comes("rows.jsonl", "rows.jsonl");
    shop.run(&[]).expect("it is known");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
    // Under another name, and longer.
    shop.goes_and_comes("rows.jsonl", "rows.old");
    let more = shop.read("rows.old") + "{\"id\":\"d\",\"n\":1}\n";
    let file = fs::OpenOptions::new()
        .write(true)
        .open(shop.folder.join("rows.old"));
    std::io::Write::write_all(&mut file.expect("it is there"), more.as_bytes()).expect("grows");
    let said = shop.run(&[]).expect("it is known");
    assert!(
        said.contains("rows.old is rows.jsonl of the checkpoint"),
        "{said}"
    );
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5]);
    // As a copy of the same name.
    let text = shop.read("rows.old");
    shop.goes_and_comes("rows.old", "aside-too");
    shop.write("rows.old", &text);
    shop.run(&[]).expect("it is known");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_file_that_was_gone_and_comes_back_as_another_is_refused_until_it_is_dropped() {
    let shop = with_a_file_that_stays();
    shop.goes_and_comes("rows.jsonl", "aside-too");
    shop.write("rows.jsonl", "{\"id\":\"other\",\"n\":1}\n");
    shop.refuse(&[
        "rows.jsonl is shorter than the 51 bytes",
        "--drop rows/rows.jsonl",
    ]);
    // A copy of another name, perhaps compressed.
    fs::remove_file(shop.folder.join("rows.jsonl")).expect("it is there");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, shop.read("aside-too").as_bytes()).expect("in memory");
    let gz = gz.finish().expect("in memory");
    fs::write(shop.folder.join("rows.jsonl.gz"), gz).expect("it is writable");
    shop.refuse(&["rows.jsonl.gz is perhaps a copy", "--drop rows/rows.jsonl"]);
    shop.run(&["--drop", "rows/rows.jsonl"])
        .expect("it is let go");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6, 7]);
    shop.run(&[]).expect("it is known");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn files_that_patterns_left_out_for_a_while_are_read_on() {
    let shop = with_a_file_that_stays();
    for narrow in ["\"rows-*\"", "\"rows-stay.jsonl\"", "\"rows-st*y.jsonl\""] {
        shop.edit("\"rows*\"", narrow);
        shop.run(&[]).expect("all of it was read");
        assert_eq!(shop.counts(), [1, 2, 3, 4], "{narrow}");
        shop.edit(narrow, "\"rows*\"");
        shop.run(&[]).expect("they are known");
        assert_eq!(shop.counts(), [1, 2, 3, 4], "{narrow}");
    }
}

#[test]
fn sources_that_swap_their_files_are_refused_until_the_files_are_dropped() {
    let shop = Shop::new();
    shop.read_others("others.jsonl", "others.jsonl");
    // By their paths.
    let straight = shop.read("shop.toml");
    shop.edit("\"rows.jsonl\"", "\"a file\"");
    shop.edit("\"others.jsonl\"", "\"rows.jsonl\"");
    shop.edit("\"a file\"", "\"others.jsonl\"");
    let had_read = "had read 17 bytes of it before the checkpoint";
    shop.refuse(&[
        "source `rows`",
        "source `others`",
        had_read,
        "--drop others/others.jsonl",
    ]);
    // By their names.
    shop.write("shop.toml", &straight);
    shop.edit("sources.rows", "sources.a");
    shop.edit("sources.others", "sources.rows");
    shop.edit("sources.a", "sources.others");
    shop.refuse(&["which does not read", "before the checkpoint"]);
    // One takes a file over.
    shop.write("shop.toml", &straight);
    shop.edit(
        "path = \"rows.jsonl\"",
        "path = [\"rows.jsonl\", \"others.jsonl\"]",
    );
    shop.edit("path = \"others.jsonl\"", "path = \"other*.jsonl\"");
    shop.run(&[]).expect("it is read by both");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5], "both read it");
    shop.write("shop.toml", &straight);
    shop.edit("\"rows.jsonl\"", "[\"rows.jsonl\", \"more.jsonl\"]");
    shop.edit("\"others.jsonl\"", "\"fewer.jsonl\"");
    shop.write("fewer.jsonl", "");
    shop.rename("others.jsonl", "more.jsonl");
    shop.run(&["--drop", "rows/others.jsonl"])
        .expect_err("others has read it, too");
    shop.run(&["--drop", "rows/others.jsonl", "--drop", "others/*"])
        .expect("they are let go");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6]);
}

/// Rows of `rows.jsonl`, and of another source's `b1.jsonl`, all of them read.
fn with_two_sources() -> Shop {
    let shop = Shop::new();
    shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
    shop.read_others("b*", "b1.jsonl");
    shop
}

#[test]
fn a_copy_of_a_file_that_another_source_has_read_is_refused_until_the_file_is_dropped() {
    for is_compressed in [false, true] {
        let shop = with_two_sources();
        let rows = shop.read("rows.jsonl");
        let copy = match is_compressed {
            false => {
                shop.write("b2.jsonl", &rows);
                "b2.jsonl"
            }
            true => {
                let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                std::io::Write::write_all(&mut gz, rows.as_bytes()).expect("in memory");
                let gz = gz.finish().expect("in memory");
                fs::write(shop.folder.join("b2.jsonl.gz"), gz).expect("it is writable");
                "b2.jsonl.gz"
            }
        };
        fs::remove_file(shop.folder.join("rows.jsonl")).expect("it is there");
        shop.refuse(&[
            &format!("{copy} is perhaps a copy"),
            "source `rows` had read of rows.jsonl",
            "--drop rows/rows.jsonl",
        ]);
        // As the message says.
        shop.rename(copy, "aside");
        shop.run(&[]).expect("all of it was read");
        assert_eq!(shop.counts(), [1, 2, 3, 4]);
        shop.rename("aside", copy);
        shop.write("rows.jsonl", &rows);
        shop.run(&[])
            .expect("a copy is new as long as the file is there");
        assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6, 7]);
    }
}

#[test]
fn a_file_that_another_source_has_read_is_refused_if_it_is_edited_too() {
    let shop = with_two_sources();
    shop.rename("rows.jsonl", "b2.jsonl");
    shop.write("b2.jsonl", &shop.read("b2.jsonl").replace("\"a\"", "\"x\""));
    shop.refuse(&["had read 51 bytes of it", "--drop rows/rows.jsonl"]);
    shop.run(&["--drop", "rows/rows.jsonl"])
        .expect("it is let go");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn what_a_checkpoint_does_not_have_cannot_be_dropped() {
    let shop = Shop::ended();
    for (dropped, expected) in [
        ("rows/row.jsonl", "did you mean `rows.jsonl`?"),
        ("counted/rows.jsonl", "has no source `counted`"),
        ("rows/other-*", "has nothing of `other-*` of source `rows`"),
    ] {
        let said = shop.run(&["--drop", dropped]).expect_err("it is refused");
        assert!(said.contains(expected), "{dropped}: {said}");
    }
    let said = shop.run(&["--drop", "rows/rows.*"]).expect("it is let go");
    let twice = "states and files that are kept get its rows twice (`counted`, `out`)";
    assert!(said.contains(twice), "{said}");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn who_lets_go_of_a_renamed_source_is_told_what_gets_its_rows_twice() {
    let shop = Shop::ended();
    shop.edit("[sources.rows]", "[sources.events]");
    shop.edit("input = \"rows\"", "input = \"events\"");
    shop.refuse(&["source `rows`", "--drop rows"]);
    let said = shop.run(&["--drop", "rows"]).expect("it is let go");
    let twice = "states and files that are kept get its rows twice (`counted`, `out`)";
    assert!(said.contains(twice), "{said}");
}

#[test]
fn a_link_to_nowhere_that_a_pattern_matches_is_not_passed_over() {
    let shop = Shop::new();
    shop.edit("\"rows.jsonl\"", "\"row*.jsonl\"\nformat = \"json\"");
    std::os::unix::fs::symlink("nowhere", shop.folder.join("row1.jsonl")).expect("it is new");
    let said = shop.run(&[]).expect_err("it is refused");
    let expected = "row1.jsonl is a link to nowhere, which does not exist";
    assert!(said.contains(expected), "{said}");
    fs::remove_file(shop.folder.join("row1.jsonl")).expect("it is there");
    shop.run(&[]).expect("it is gone");
}

#[test]
fn a_file_that_was_renamed_is_read_on() {
    let shop = Shop::ended();
    shop.edit(
        "\"rows.jsonl\"",
        "[\"rows*\", \"old/*\"]\nformat = \"json\"",
    );
    fs::create_dir(shop.folder.join("old")).expect("it is new");
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    let old = shop.folder.join("old/rows.1");
    fs::rename(shop.folder.join("rows.jsonl"), old).expect("it is there");
    shop.write("rows.jsonl", "{\"id\":\"e\",\"n\":1}\n");
    let said = shop.run(&[]).expect("it is known");
    let expected = "old/rows.1 is rows.jsonl of the checkpoint, and rows.jsonl is a new file; it \
                    is read on from byte 51";
    assert!(said.contains(expected), "{said}");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5]);
    let said = shop.run(&[]).expect("it runs");
    assert!(!said.contains("of the checkpoint"), "{said}");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_file_that_was_replaced_before_a_row_was_read_is_told_of() {
    let shop = Shop::new();
    shop.crash(&[], "deliver_after");
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    let said = shop.run(&[]).expect("it has grown");
    assert!(!said.contains("has been replaced"), "{said}");
    let shop = Shop::new();
    shop.crash(&[], "deliver_after");
    shop.write("rows.jsonl", "{\"id\":\"x\",\"n\":1}\n");
    let said = shop.run(&[]).expect("nothing was read twice");
    assert!(said.contains("rows.jsonl has been replaced"), "{said}");
    assert_eq!(shop.counts(), [1]);
}

#[test]
fn a_copy_of_a_file_that_is_gone_is_refused_until_its_source_is_dropped() {
    let shop = Shop::ended();
    shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
    shop.write("rows2.jsonl", &shop.read("rows.jsonl"));
    fs::remove_file(shop.folder.join("rows.jsonl")).expect("it is there");
    shop.refuse(&["rows2.jsonl is perhaps a copy", "--drop rows"]);
    shop.run(&["--drop", "rows"]).expect("it is dropped");
    assert_eq!(shop.counts(), [1, 2, 3, 4, 5, 6]);
}

/// The windows in the sink's file: their starts, in seconds, and their counts.
fn windows(shop: &Shop) -> Vec<(String, i64)> {
    let rows = shop.read("out.jsonl");
    let rows = rows.lines().map(|row| {
        let row: Value = serde_json::from_str(row).expect("whole rows");
        let start = row["window_start"].as_str().expect("a time");
        (
            start[14..19].to_owned(),
            row["count"].as_i64().expect("a number"),
        )
    });
    rows.collect()
}

#[test]
fn windows_that_fired_at_the_end_stay_closed_and_later_ones_open() {
    for (lateness, of_operator) in [("0s", false), ("1h", false), ("0s", true), ("1h", true)] {
        let shop = Shop::new();
        shop.edit(
            "window = \"running\"",
            &format!("window = {{ tumbling = \"1m\" }}\nallowed_lateness = \"{lateness}\""),
        );
        let fields = "n = \"int64\", at = \"timestamp\" }\n";
        if of_operator {
            shop.edit("n = \"int64\" }\n", fields);
            shop.edit(
                "[operators.counted]\nplugin = \"basics.count\"\ninput = \"rows\"",
                "[operators.timed]\nplugin = \"basics.even\"\ninput = \"rows\"\n\
                 event_time = \"at\"\n\
                 [operators.counted]\nplugin = \"basics.count\"\ninput = \"timed\"",
            );
        } else {
            let timed = format!("{fields}event_time = \"at\"\n");
            shop.edit("n = \"int64\" }\n", &timed);
        }
        shop.edit("\"rows.jsonl\"", "\"rows*.jsonl\"");
        let row = |at: &str| format!("{{\"id\":\"a\",\"n\":2,\"at\":\"2026-01-31T12:{at}Z\"}}\n");
        shop.write("rows.jsonl", &[row("00:05"), row("01:10")].concat());
        shop.run(&[]).expect("it runs");
        let first = [("00:00".to_owned(), 1), ("01:00".to_owned(), 1)];
        assert_eq!(windows(&shop), first, "{lateness}");
        let rows2 = [row("01:50"), row("02:10"), row("02:20"), row("05:00")];
        shop.write("rows2.jsonl", &rows2.concat());
        let said = shop.run(&[]).expect("it runs");
        let told = "1 of 4 rows of counted were late, since their windows had fired: when the \
                    inputs had ended";
        assert!(said.contains(told), "{lateness}: {said}");
        let all = windows(&shop);
        assert_eq!(all[..2], first, "no window fires twice: {all:?}");
        let last = |start: &str| all.iter().rfind(|(known, _)| known == start);
        assert_eq!(last("02:00"), Some(&("02:00".to_owned(), 2)), "{lateness}");
        assert_eq!(last("05:00"), Some(&("05:00".to_owned(), 1)), "{lateness}");
        let in_first = all.iter().filter(|(start, _)| start == "01:00").count();
        assert_eq!(in_first, 1, "{lateness}: {all:?}");
    }
}

#[test]
fn a_run_that_starts_anew_keeps_nothing() {
    let shop = Shop::ended();
    // What is refused loses nothing.
    let said = shop.run(&["--fresh"]).expect_err("the file is there");
    assert!(said.contains("if_exists"), "{said}");
    shop.run(&[]).expect("it goes on");
    assert_eq!(shop.counts(), [1, 2, 3]);

    shop.edit(
        "path = \"out.jsonl\"",
        "path = \"out.jsonl\"\nif_exists = \"replace\"",
    );
    let said = shop.run(&["--fresh"]).expect("it starts anew");
    assert!(
        said.contains("starting anew: deleting checkpoint"),
        "{said}"
    );
    assert_eq!(shop.counts(), [1, 2, 3]);
    let said = shop.run(&[]).expect("it goes on from the new checkpoint");
    assert!(!said.contains("deleting"), "{said}");
    assert_eq!(shop.counts(), [1, 2, 3]);
}

#[test]
fn a_run_starts_anew_with_other_operators() {
    let shop = Shop::ended();
    shop.edit("counted]", "tallied]");
    shop.edit(
        "input = \"counted\"",
        "input = \"tallied\"\nif_exists = \"replace\"",
    );
    shop.refuse(&["operator `counted` has state in checkpoint"]);
    shop.run(&["--fresh"]).expect("it starts anew");
    assert_eq!(shop.counts(), [1, 2, 3]);
}

/// What a start may be asked for.
const STARTS: [&[&str]; 3] = [&["--from", "2"], &["--drop", "out"], &["--fresh"]];

#[test]
fn a_start_that_is_refused_changes_nothing() {
    for arguments in STARTS {
        let shop = Shop::ended_twice();
        let other = shop.read("other.csv");
        fs::remove_file(shop.folder.join("other.csv")).expect("it is there");
        fs::create_dir(shop.folder.join("other.csv")).expect("it is gone");
        let said = shop.run(arguments).expect_err("a folder is in the way");
        assert!(said.contains("a folder has this name"), "{said}");
        assert_eq!(shop.counts(), [1, 2, 3, 4], "{arguments:?}");
        fs::remove_dir(shop.folder.join("other.csv")).expect("it is there");
        shop.write("other.csv", &other);
        shop.run(&[]).expect("it goes on");
        assert_eq!(shop.counts(), [1, 2, 3, 4], "{arguments:?}");
        assert_eq!(shop.read("other.csv"), other);
    }
}

#[test]
fn a_start_that_is_killed_before_its_checkpoint_changes_nothing() {
    for arguments in STARTS {
        for place in [
            "barrier_before",
            "barrier_after",
            "write_before",
            "manifest_before",
            "manifest_after",
        ] {
            let shop = Shop::ended_twice();
            shop.crash(arguments, place);
            assert_eq!(shop.counts(), [1, 2, 3, 4], "{arguments:?} {place}");
            shop.run(&[]).expect("it goes on");
            assert_eq!(shop.counts(), [1, 2, 3, 4], "{arguments:?} {place}");
            assert_eq!(shop.read("other.csv").lines().count(), 5);
        }
    }
}

#[test]
fn a_start_that_is_killed_after_its_checkpoint_goes_on() {
    for arguments in STARTS {
        for place in ["deliver_before", "deliver_after"] {
            let shop = Shop::ended_twice();
            shop.crash(arguments, place);
            shop.run(&[]).expect("it goes on");
            let counts: &[i64] = match arguments {
                ["--drop", _] => &[],
                _ => &[1, 2, 3, 4],
            };
            assert_eq!(shop.counts(), counts, "{arguments:?} {place}");
            assert_eq!(shop.read("other.csv").lines().count(), 5);
        }
    }
}

#[test]
fn rows_of_a_checkpoint_that_have_no_name_yet_are_not_overwritten() {
    let shop = Shop::ended();
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    shop.crash(&[], "write_before");
    let part = shop.read("out.jsonl.part");
    assert_eq!(part.lines().count(), 4);
    shop.edit("sinks.out", "sinks.results");
    let said = shop.run(&["--drop", "out"]).expect_err("rows are there");
    assert!(said.contains("out.jsonl is there"), "{said}");
    assert_eq!(shop.read("out.jsonl.part"), part);
    shop.edit("sinks.results", "sinks.out");
    shop.run(&[]).expect("it goes on");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
}

#[test]
fn rows_are_appended_to_those_of_a_sink_that_was_renamed() {
    let shop = Shop::ended();
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    let append = "[sinks.results]\nif_exists = \"append\"";
    shop.edit("[sinks.out]", append);
    shop.run(&["--drop", "out"]).expect("it appends");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
    assert!(!shop.folder.join("out.jsonl.part").exists());
}

#[test]
fn the_columns_of_a_table_stay() {
    let shop = Shop::new();
    shop.edit("\"out.jsonl\"", "\"out.csv\"");
    shop.run(&[]).expect("it runs");
    shop.edit("input = \"counted\"", "input = \"rows\"");
    shop.refuse(&[
        "sink `out`",
        "its columns were count: int64 and are now id: utf8, n: int64",
    ]);
}

#[test]
fn the_event_time_of_a_source_stays() {
    let shop = Shop::new();
    shop.edit("n = \"int64\" }", "n = \"int64\" }\nevent_time = \"n\"");
    shop.run(&[]).expect("it runs");
    shop.edit("event_time = \"n\"", "");
    shop.refuse(&[
        "source `rows`",
        "its event time was column n and is now the time when a row is read",
    ]);
}

#[test]
fn a_checkpoint_belongs_to_one_pipeline() {
    let shop = Shop::new();
    shop.edit("[checkpoints]", "[state]\npath = \"state\"\n[checkpoints]");
    shop.run(&[]).expect("it runs");
    shop.edit("name = \"shop\"", "name = \"stall\"");
    shop.refuse(&["is of pipeline `shop`, and this is `stall`", "--from 2"]);
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    shop.run(&["--from", "2"]).expect("it has a new name");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
    shop.run(&[]).expect("and keeps it");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
}

#[test]
fn what_is_not_there_cannot_be_asked_for() {
    let shop = Shop::ended();
    for (arguments, expected) in [
        (
            ["--drop", "roes"],
            "has no node `roes` to drop: did you mean `rows`?",
        ),
        (["--from", "7"], "there is no checkpoint `7`"),
    ] {
        let said = shop.run(&arguments).expect_err("it is not there");
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("change the pipeline's file"), "{said}");
    }
}

/// How many dead letters a file has.
fn letters(shop: &Shop, file: &str) -> usize {
    shop.read(file).lines().count()
}

#[test]
fn dead_letters_are_not_doubled_when_they_go_elsewhere() {
    let shop = Shop::new();
    shop.add_row("bad");
    shop.run(&[]).expect("it runs");
    shop.add_row("worse");
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    shop.crash(&[], "write_before");
    assert_eq!(letters(&shop, "shop.dead.jsonl"), 2);
    shop.edit(
        "name = \"shop\"",
        "name = \"shop\"\ndead_letters = \"letters.jsonl\"",
    );
    shop.run(&[]).expect("it runs");
    assert_eq!(letters(&shop, "shop.dead.jsonl"), 1);
    assert_eq!(letters(&shop, "letters.jsonl"), 1);
    shop.run(&[]).expect("it runs");
    assert_eq!(letters(&shop, "letters.jsonl"), 1);
}

#[test]
fn dead_letters_stay_when_a_start_is_withdrawn() {
    let shop = Shop::new();
    shop.edit("[checkpoints]", "[checkpoints]\nkeep = 9");
    shop.run(&[]).expect("it runs");
    shop.add_row("bad");
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    shop.run(&[]).expect("it runs");
    shop.crash(&["--from", "2"], "manifest_before");
    assert_eq!(letters(&shop, "shop.dead.jsonl"), 1);
    shop.run(&[]).expect("it goes on");
    assert_eq!(letters(&shop, "shop.dead.jsonl"), 1);
    shop.run(&["--from", "2"]).expect("it reads the row again");
    assert_eq!(letters(&shop, "shop.dead.jsonl"), 1);
}

#[test]
fn rows_behind_the_checkpoint_are_not_appended_to() {
    let shop = Shop::ended();
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    shop.crash(&[], "write_before");
    assert_eq!(shop.read("out.jsonl.part").lines().count(), 4);
    shop.edit("[sinks.out]", "[sinks.results]\nif_exists = \"append\"");
    shop.run(&["--drop", "out"]).expect("it appends");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
}

#[test]
fn rows_of_other_columns_are_not_appended() {
    let shop = Shop::new();
    shop.edit("\"out.jsonl\"", "\"out.csv\"\nif_exists = \"append\"");
    shop.run(&[]).expect("it runs");
    let before = shop.read("out.csv");
    shop.edit("input = \"counted\"", "input = \"rows\"");
    let said = shop.run(&["--drop", "out"]).expect_err("other columns");
    assert!(said.contains("which does not begin as they do"), "{said}");
    assert_eq!(shop.read("out.csv"), before);
}

#[test]
fn a_refused_start_leaves_a_finished_file_its_name() {
    let shop = Shop::ended();
    shop.write("other.csv", "of somebody else\n");
    let other = "type = \"file\"\npath = \"other.csv\"\ninput = \"rows\"";
    shop.edit(
        "[sinks.seen]",
        &format!("[sinks.other]\n{other}\n[sinks.seen]"),
    );
    shop.refuse(&["other.csv is there"]);
    assert_eq!(shop.counts(), [1, 2, 3]);
    assert!(!shop.folder.join("out.jsonl.part").exists());
}

#[test]
fn a_file_that_came_up_beside_a_part_is_not_overwritten() {
    let shop = Shop::ended();
    shop.add_row("{\"id\":\"d\",\"n\":1}");
    shop.crash(&[], "write_before");
    shop.write("out.jsonl", "precious\n");
    for arguments in [&[][..], &["--from", "2"]] {
        let said = shop.run(arguments).expect_err("it is there");
        assert!(said.contains("out.jsonl is there"), "{said}");
        assert_eq!(shop.read("out.jsonl"), "precious\n");
    }
    fs::remove_file(shop.folder.join("out.jsonl")).expect("it is there");
    shop.run(&[]).expect("it goes on");
    assert_eq!(shop.counts(), [1, 2, 3, 4]);
}

/// The Parquet files of the shop, by name.
fn parquet_files(shop: &Shop) -> Vec<String> {
    let entries = fs::read_dir(&shop.folder).expect("it is there");
    let names = entries.map(|entry| entry.expect("it is there").file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("out-")).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_refused_start_deletes_no_parquet_file() {
    let shop = Shop::new();
    shop.edit(
        "[checkpoints]",
        "[state]\npath = \"state\"\n[checkpoints]\nkeep = 9",
    );
    let parquet =
        "type = \"file\"\npath = \"out.parquet\"\nif_exists = \"replace\"\ninput = \"rows\"";
    shop.edit(
        "[sinks.seen]",
        &format!("[sinks.pq]\n{parquet}\n[sinks.seen]"),
    );
    shop.run(&[]).expect("it runs");
    fs::remove_dir_all(shop.folder.join("state")).expect("it is there");
    fs::remove_file(shop.folder.join("out.jsonl")).expect("it is there");
    shop.run(&[]).expect("it runs anew, with the same numbers");
    let written = parquet_files(&shop);
    assert_eq!(written, ["out-2.parquet"]);
    shop.write("other.csv", "of somebody else\n");
    let other = "type = \"file\"\npath = \"other.csv\"\ninput = \"rows\"";
    shop.edit(
        "[sinks.seen]",
        &format!("[sinks.other]\n{other}\n[sinks.seen]"),
    );
    shop.run(&["--from", "1"])
        .expect_err("a file is in the way");
    assert_eq!(parquet_files(&shop), written);
    fs::remove_file(shop.folder.join("other.csv")).expect("it is there");
    shop.run(&[]).expect("it goes on");
    assert_eq!(parquet_files(&shop), written);
}

/// Sources and files whose rows all have a number of their own.
struct Assigned {
    shop: Shop,
    random: fastrand::Rng,
    /// The files that each source reads.
    sources: [(&'static str, Vec<String>); 3],
    /// The files that are there but not read, and the source that has read them.
    left_out: Vec<(usize, String)>,
    /// What has the content of a file whose name another file has by now, and that name.
    rewritten: Option<(String, String)>,
    /// Counts names and rows.
    named: usize,
    rows: usize,
}

impl Assigned {
    fn new(seed: u64) -> Self {
        let mut assigned = Assigned {
            shop: Shop::new(),
            random: fastrand::Rng::with_seed(seed),
            sources: ["one", "two", "three"].map(|name| (name, Vec::new())),
            left_out: Vec::new(),
            rewritten: None,
            named: 0,
            rows: 0,
        };
        for source in (0..3).cycle().take(6) {
            let name = assigned.new_name();
            assigned.grow(&name);
            assigned.sources[source].1.push(name);
        }
        assigned
    }

    fn new_name(&mut self) -> String {
        self.named += 1;
        format!("file-{}.jsonl", self.named)
    }

    fn grow(&mut self, name: &str) {
        let mut text = self.shop.read(name);
        for _ in 0..self.random.u8(1..4) {
            self.rows += 1;
            text += &format!("{{\"id\":\"{}\"}}\n", self.rows);
        }
        self.shop.write(name, &text);
    }

    /// Changes which source reads which files, by which names. Tells what was changed,
    /// and whether a source then finds what another has read.
    fn change(&mut self) -> (&'static str, bool) {
        let one = self.random.usize(0..3);
        let other = (one + self.random.usize(1..3)) % 3;
        let is_last = self.sources[one].1.len() == 1;
        match self.random.u8(0..8) {
            0 if !is_last => {
                let file = self.sources[one].1.remove(0);
                self.left_out.push((one, file));
                ("left out", false)
            }
            1 | 2 if !self.left_out.is_empty() => {
                let (reader, file) = self.left_out.remove(0);
                let to = [other, reader][self.random.usize(0..2)];
                self.sources[to].1.push(file);
                ("back", to != reader)
            }
            3 if !is_last => {
                let file = self.sources[one].1.remove(0);
                self.sources[other].1.push(file);
                ("moved", true)
            }
            4 => {
                let files = std::mem::take(&mut self.sources[one].1);
                self.sources[one].1 = std::mem::replace(&mut self.sources[other].1, files);
                ("swapped", true)
            }
            5 => {
                self.link(one);
                ("a link became a file", true)
            }
            6 => {
                let new = self.new_name();
                let old = std::mem::replace(&mut self.sources[one].1[0], new.clone());
                self.shop.rename(&old, &new);
                ("renamed", false)
            }
            _ => {
                let name = self.sources[one].1[0].clone();
                self.grow(&name);
                ("grown", false)
            }
        }
    }

    /// Has a source read a file by two names, and then gives one of them a file of its
    /// own, perhaps with other rows.
    fn link(&mut self, source: usize) {
        let (name, link) = (self.sources[source].1[0].clone(), self.new_name());
        let path = |name: &str| self.shop.folder.join(name);
        fs::hard_link(path(&name), path(&link)).expect("it is writable");
        self.sources[source].1.push(link.clone());
        let rows = (1..=self.rows).collect::<Vec<_>>();
        assert_eq!(self.run().as_ref(), Ok(&rows), "{name} and {link}");
        let mut text = self.shop.read(&name);
        if self.random.bool() {
            text = text.replace("\":\"", "\":\"0");
        }
        if self.random.bool() {
            self.shop.rewrite(&link, &text);
        } else {
            self.shop.rewrite(&name, &text);
            self.rewritten = Some((link, name));
        }
    }

    /// Puts back what was refused.
    fn put_back(
        &mut self,
        sources: [(&'static str, Vec<String>); 3],
        left_out: Vec<(usize, String)>,
    ) {
        (self.sources, self.left_out) = (sources, left_out);
        if let Some((link, name)) = self.rewritten.take() {
            self.shop.rename(&link, &name);
        }
    }

    /// Runs the pipeline, and gives the numbers of the rows in the sink.
    fn run(&self) -> Result<Vec<usize>, String> {
        let mut text = "name = \"shop\"\n[checkpoints]\n".to_owned();
        for (name, files) in &self.sources {
            text += &format!(
                "[sources.{name}]\ntype = \"file\"\npath = {files:?}\n\
                 fields = {{ id = \"utf8\" }}\n"
            );
        }
        text += "[sinks.out]\ntype = \"file\"\npath = \"out.jsonl\"\n\
                 input = [\"one\", \"two\", \"three\"]\n";
        self.shop.write("shop.toml", &text);
        let ran = self.shop.run(&[]);
        let rows = self.shop.read("out.jsonl");
        let mut numbers: Vec<_> = rows
            .split('"')
            .filter_map(|part| part.parse().ok())
            .collect();
        numbers.sort_unstable();
        ran.map(|_| numbers)
    }
}

#[test]
fn no_row_is_read_twice_whichever_source_has_its_file() {
    let mut happened = BTreeMap::new();
    for seed in 0..12 {
        let mut assigned = Assigned::new(seed);
        let rows = (1..=assigned.rows).collect::<Vec<_>>();
        assert_eq!(assigned.run().as_ref(), Ok(&rows), "seed {seed}");
        for change in 0..8 {
            let before = (assigned.sources.clone(), assigned.left_out.clone());
            let (what, is_refused) = assigned.change();
            *happened.entry((what, is_refused)).or_insert(0) += 1;
            let what = format!("seed {seed}, change {change}: {what}");
            if is_refused {
                let said = assigned.run().expect_err(&what);
                assert!(said.contains("--drop"), "{what}: {said}");
                assigned.put_back(before.0, before.1);
            }
            let rows = (1..=assigned.rows).collect::<Vec<_>>();
            assert_eq!(assigned.run().as_ref(), Ok(&rows), "{what}");
        }
    }
    assert_eq!(happened.len(), 8, "{happened:?}");
}
