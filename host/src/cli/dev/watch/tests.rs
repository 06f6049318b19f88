use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("src/deep")).expect("writable");
    for file in [
        "Cargo.toml",
        "src/lib.rs",
        "src/deep/more.rs",
        "src/.lib.rs.swp",
    ] {
        fs::write(folder.path().join(file), "one").expect("writable");
    }
    folder
}

fn names(files: impl IntoIterator<Item = PathBuf>, folder: &TempDir) -> Vec<String> {
    let name = |file: PathBuf| {
        let file = file.strip_prefix(folder.path()).expect("within").to_owned();
        file.display().to_string()
    };
    files.into_iter().map(name).collect()
}

#[test]
fn a_change_is_taken_when_it_is_the_same_twice() {
    let folder = folder();
    let sources = Sources::of(folder.path(), None);
    let mut watched = Watched::default();
    assert!(!watched.look(sources.look()), "it may be being written");
    assert!(watched.look(sources.look()), "nothing was taken yet");
    assert!(watched.take().paths.is_empty(), "all is new");
    assert!(!watched.look(sources.look()));

    // As editors do.
    let (beside, file) = (folder.path().join("4913"), folder.path().join("src/lib.rs"));
    fs::write(&beside, "two").expect("writable");
    fs::rename(&beside, &file).expect("writable");
    fs::write(folder.path().join("src/new.rs"), "").expect("writable");
    assert!(!watched.look(sources.look()));
    assert!(watched.look(sources.look()));
    // Nobody was free to take it, and there is another one.
    fs::write(folder.path().join("src/deep/more.rs"), "three").expect("writable");
    assert!(!watched.look(sources.look()));
    assert!(watched.look(sources.look()));
    let changed = watched.take();
    assert_eq!(
        names(changed.paths, &folder),
        ["src/deep/more.rs", "src/lib.rs", "src/new.rs"]
    );
    assert!(changed.at_ms.is_some());
    fs::remove_file(&file).expect("writable");
    watched.look(sources.look());
    assert!(watched.look(sources.look()));
    assert_eq!(names(watched.take().paths, &folder), ["src/lib.rs"]);
}

#[test]
fn what_a_build_has_read_is_looked_at_as_well() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let release = at("target/wasm32-wasip2/release");
    fs::create_dir_all(&release).expect("writable");
    fs::create_dir_all(at("the sdk/src")).expect("writable");
    for file in [
        "the sdk/Cargo.toml",
        "the sdk/src/lib.rs",
        "table.csv",
        "target/made.rs",
    ] {
        fs::write(at(file), "").expect("writable");
    }
    let artifact = release.join("shop.wasm");
    let read = [
        at("src/lib.rs"),
        at("the sdk/src/lib.rs"),
        at("table.csv"),
        at("target/made.rs"),
    ];
    let read = read.map(|file| file.display().to_string().replace(' ', "\\ "));
    let list = format!("{}: {}\n", artifact.display(), read.join(" "));
    fs::write(artifact.with_extension("d"), list).expect("writable");

    let mut sources = Sources::of(folder.path(), Some(&at("src/lib.rs")));
    let own = ["Cargo.toml", "src/deep/more.rs", "src/lib.rs"];
    assert_eq!(names(sources.look().into_keys(), &folder), own);
    sources.note_build(&artifact);
    fs::write(at("the sdk/src/added.rs"), "").expect("writable");
    assert_eq!(
        names(sources.look().into_keys(), &folder),
        [
            "Cargo.toml",
            "src/deep/more.rs",
            "src/lib.rs",
            "table.csv",
            "the sdk/Cargo.toml",
            "the sdk/src/added.rs",
            "the sdk/src/lib.rs",
        ]
    );
}
