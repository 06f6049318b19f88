//! Runs the service as its users do: files in a folder, requests by HTTP, signals.

/// Plugins, built once.
#[expect(dead_code, reason = "the service loads them itself")]
mod common;
/// A service in a folder of its own.
#[expect(dead_code, reason = "shared by several test programs")]
#[path = "common/service.rs"]
mod service;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use service::{GOOD, Service, WAIT, shop_with};

/// At the rate of the pipelines, they last longer than what is done meanwhile.
const ROWS: u64 = 8_000;
/// A pipeline whose rows go through a plugin in this mode, and are counted by user.
fn shop(mode: &str) -> String {
    with(mode, "key = \"id\"")
}

fn with(mode: &str, key: &str) -> String {
    format!(
        r#"{}
        [operators.counted]
        aggregate = {{ rows = "count()", total = "sum(n)" }}
        {key}
        window = {{ tumbling = "1m" }}
        input = "guarded"
        [sinks.guarded_rows]
        type = "file"
        path = "../rows.jsonl"
        format = "json"
        input = "guarded"
        [sinks.counts]
        type = "file"
        path = "../counts.jsonl"
        format = "json"
        input = "counted"
        "#,
        shop_with(
            &format!("rate = 1000\ncount = {ROWS}"),
            &format!("parameters = {{ {mode} }}\nlimits = {{ time = \"200ms\" }}")
        )
    )
}

/// The lines of both outputs of an undisturbed run, in order.
fn expected() -> [Vec<String>; 2] {
    expected_of(&shop(GOOD))
}

fn expected_of(text: &str) -> [Vec<String>; 2] {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("pipelines")).expect("writable");
    let file = folder.path().join("pipelines/shop.toml");
    let plugin = format!("{:?}", common::plugin_file("hostile"));
    let text = text.replace("\"../plugins/hostile.wasm\"", &plugin);
    fs::write(&file, text.replace("rate = 1000\n", "")).expect("writable");
    let run = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["run", "--quiet"])
        .arg(&file)
        .output()
        .expect("it runs");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    outputs(folder.path())
}

fn outputs(folder: &Path) -> [Vec<String>; 2] {
    ["rows.jsonl", "counts.jsonl"].map(|name| {
        let text = fs::read_to_string(folder.join(name)).expect("it is complete");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    })
}

#[test]
fn changes_take_effect_without_losing_or_repeating_a_row() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(500);
    for (number, mode) in ["mode = \"log\"", "mode = \"stdout\"", GOOD]
        .into_iter()
        .enumerate()
    {
        service.write("shop", &shop(&format!("{mode}, amount = 0")));
        until_held(&service, number + 2);
    }
    // The plugin becomes another one that does the same: it has a section for people.
    let plugin = service.path("plugins/hostile.wasm");
    let mut bytes = fs::read(&plugin).expect("readable");
    bytes.extend(b"\0\x05\x04note");
    let beside = service.path("plugins/.new");
    fs::write(&beside, bytes).expect("writable");
    fs::rename(beside, plugin).expect("writable");
    until_held(&service, 5);
    let shop = service.until_phase("ended");
    for change in &shop["changes"].as_array().expect("changes")[1..] {
        assert_eq!(
            change["plan"]["nodes"][2]["change"], "changed",
            "{change:#}"
        );
        assert_eq!(change["plan"]["nodes"][3]["state"], "kept", "{change:#}");
        assert!(change["pause_ms"].is_u64(), "{change:#}");
        assert_eq!(change["in_place"], true, "{change:#}");
    }
    assert_eq!(outputs(service.folder.path()), expected());
    assert!(!service.path("dead.jsonl").exists());
}

/// Waits until so many changes have held, and there were no others.
fn until_held(service: &Service, count: usize) {
    service.until("held", |shop| {
        let changes = shop["changes"].as_array().expect("changes");
        changes.len() == count && changes.iter().all(|change| change["outcome"] == "held")
    });
}

#[test]
fn a_change_that_does_not_hold_is_taken_back_and_leaves_no_trace() {
    let mut service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(500);
    for (index, mode) in [
        "mode = \"panic\"",
        "mode = \"trap\", at = \"user-000047\"",
        "mode = \"reject\"",
        "mode = \"loop\", at = \"user-000043\"",
    ]
    .into_iter()
    .enumerate()
    {
        let before = service.shop()["revision"]["digest"].clone();
        service.write("shop", &shop(mode));
        let shop = service.until("taken back", |shop| {
            let changes = shop["changes"].as_array().expect("changes").iter();
            let count = changes
                .filter(|change| change["outcome"] == "taken_back")
                .count();
            shop["phase"] == "running" && count == index + 1
        });
        assert_eq!(shop["revision"]["digest"], before, "{mode}");
        let why = shop["refusal"].as_str().expect("why");
        assert!(
            why.contains("tried and taken back: operator `guarded`"),
            "{why}"
        );
        service.until_read(50);
    }
    // A start of the service does not try it again.
    assert!(service.end(libc::SIGTERM).success());
    service.begin();
    let shop = service.until_phase("ended");
    assert!(
        shop["refusal"]
            .as_str()
            .expect("why")
            .contains("taken back")
    );
    assert_eq!(outputs(service.folder.path()), expected());
    let dead = fs::read_to_string(service.path("dead.jsonl")).unwrap_or_default();
    assert_eq!(dead, "", "the letters are taken back, too");
}

#[test]
fn what_does_not_fit_is_refused_until_somebody_agrees() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(200);
    let digest = service.shop()["revision"]["digest"].clone();
    for (text, why) in [
        ("name = \"shop\"\n[sources", "not TOML"),
        (&*shop("mode = \"nonsense\""), "nonsense"),
        (
            &*with(GOOD, "key = \"n\""),
            "operator `counted` cannot keep its state: its key was",
        ),
        (
            &*shop(GOOD).replace("name = \"shop\"", "name = \"other\""),
            "rename the file",
        ),
    ] {
        service.write("shop", text);
        let shop = service.until("refused", |shop| {
            shop["refusal"]
                .as_str()
                .is_some_and(|refusal| refusal.contains(why))
        });
        assert_eq!(shop["revision"]["digest"], digest, "what ran runs on");
        assert_eq!(shop["phase"], "running");
    }
    let another = [
        ("\"shop\"", "\"new\""),
        ("../rows", "../more"),
        ("../counts", "../sums"),
    ];
    let another = another
        .iter()
        .fold(shop(GOOD), |text, (from, to)| text.replace(from, to));
    for (method, path, body) in [
        ("POST", "shop/plan?drop=nosuch", &*shop(GOOD)),
        ("PUT", "shop?drop=nosuch", &*shop(GOOD)),
        ("POST", "shop/start", "{\"drop\":[\"nosuch\"]}"),
        ("PUT", "new?drop=nosuch", &*another),
    ] {
        let (status, answer) = service.ask(method, &format!("/api/v1/pipelines/{path}"), body);
        let detail = answer["detail"].as_str().expect("why");
        assert!(detail.contains("`nosuch` to drop"), "{detail}");
        assert_eq!(status, 422, "{path}");
    }
    service.write("shop", &with(GOOD, "key = \"n\""));
    service.until("refused", |shop| {
        shop["refusal"]
            .as_str()
            .is_some_and(|refusal| refusal.contains("drop"))
    });
    let agreed = json!({ "drop": ["counted"] }).to_string();
    let (status, answer) = service.ask("POST", "/api/v1/pipelines/shop/start", &agreed);
    assert_eq!(status, 202, "{answer}");
    let shop = service.until("held", |shop| {
        shop["phase"] == "running" && shop["revision"]["digest"] != digest
    });
    assert!(shop["refusal"].is_null());
    let last = shop["changes"]
        .as_array()
        .and_then(|changes| changes.last())
        .expect("one");
    assert_eq!(last["plan"]["nodes"][3]["state"], "dropped");
}

/// Puts a content for which the counts may go.
fn agree(service: &Service, mode: &str) {
    let put = "/api/v1/pipelines/shop?drop=counted";
    let (status, answer) = service.ask("PUT", put, &with(mode, "key = \"n\""));
    assert_eq!(status, 202, "{answer}");
}

/// Waits for the end of the content that was agreed to.
fn until_agreed_is_done(service: &Service) {
    let shop = service.until_phase("ended");
    assert!(shop["refusal"].is_null(), "{shop:#}");
    let rows = fs::read_to_string(service.path("counts.jsonl")).expect("it is complete");
    assert!(!rows.contains("\"id\""), "they are those of the change");
    assert_eq!(outputs(service.folder.path())[0], expected()[0]);
}

fn until_last(service: &Service, outcome: &str) {
    service.until(outcome, |shop| {
        let changes = shop["changes"].as_array();
        let last = changes.and_then(|changes| changes.last()).expect("one");
        last["outcome"] == outcome
    });
}

#[test]
fn states_that_were_agreed_to_go_are_there_when_the_change_is_taken_back() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(500);
    until_held(&service, 1);
    agree(&service, "mode = \"panic\"");
    until_last(&service, "taken_back");
    service.until_read(50);
    service.write("shop", &shop(GOOD));
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

#[test]
fn what_was_agreed_to_is_done_after_a_kill() {
    let mut service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(500);
    until_held(&service, 1);
    agree(&service, GOOD);
    // Before it has held, and before it has made a checkpoint of its own.
    for outcome in ["probation", "held"] {
        until_last(&service, outcome);
        service.end(libc::SIGKILL);
        service.begin();
    }
    until_agreed_is_done(&service);
}

#[test]
fn who_agrees_again_takes_nothing_that_fits() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(500);
    until_held(&service, 1);
    agree(&service, GOOD);
    until_held(&service, 2);
    let drops = || {
        let log = log_of(&service);
        log.matches("dropping what checkpoint").count()
    };
    assert_eq!(drops(), 1);
    let before = service.shop();
    agree(&service, GOOD);
    until_started_after(&service, &before);
    service.until_phase("ended");
    assert_eq!(drops(), 1);
    assert_eq!(outputs(service.folder.path())[0], expected()[0]);
}

#[test]
fn what_was_agreed_to_is_known_from_the_answer_on() {
    for (signal, has_held) in [(libc::SIGKILL, false), (libc::SIGTERM, true)] {
        let mut service = Service::start(&[("shop", &shop(GOOD))]);
        service.until_read(200);
        if has_held {
            until_held(&service, 1);
        }
        agree(&service, GOOD);
        service.end(signal);
        service.begin();
        until_agreed_is_done(&service);
    }
}

#[test]
fn what_a_checkpoint_has_may_go_whatever_has_made_it() {
    let mut service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(200);
    until_held(&service, 1);
    service.end(libc::SIGTERM);
    // As if `sluicebox run` had made it.
    fs::remove_dir_all(service.path("data")).expect("it is there");
    let renamed = shop(GOOD).replace("counted", "recounted");
    service.write("shop", &renamed);
    service.begin();
    service.until_phase("failed");
    let plan = |text: &str| {
        let path = "/api/v1/pipelines/shop/plan";
        let (status, plan) = service.ask("POST", path, text);
        assert_eq!(status, 200, "{plan}");
        let nodes = plan["nodes"].as_array().expect("nodes").iter();
        let of = nodes.filter(|node| {
            node["name"]
                .as_str()
                .is_some_and(|it| it.ends_with("counted"))
        });
        of.map(|node| format!("{} {}", node["name"], node["state"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        plan(&renamed),
        [r#""recounted" "new""#, r#""counted" "gone""#]
    );
    assert_eq!(plan(&shop(GOOD)), [r#""counted" "kept""#]);
    let start = |dropped: &str| {
        let body = json!({ "drop": [dropped] }).to_string();
        service.ask("POST", "/api/v1/pipelines/shop/start", &body)
    };
    for unknown in ["nosuch", "recounted", "counted/x", "actions/x"] {
        let (status, answer) = start(unknown);
        assert_eq!(status, 422, "{unknown}: {answer}");
    }
    let (status, answer) = start("counted");
    assert_eq!(status, 202, "{answer}");
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path())[0], expected()[0]);
}

#[test]
fn a_running_pipeline_goes_back_to_its_oldest_checkpoint() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(500);
    until_held(&service, 1);
    service.until_phase("running");
    let started = service.shop()["revision"]["started_ms"].clone();
    // One may be deleted just when it is asked for.
    let ask = || {
        let oldest = service.get("/api/v1/pipelines/shop/checkpoints")[0]["id"].clone();
        go_back(&service, &oldest.to_string()).0
    };
    let is_taken = (0..100).map(|_| ask()).any(|status| status == 202);
    assert!(is_taken);
    service.until("gone back", |shop| {
        assert_ne!(shop["phase"], "failed", "{shop:#}");
        shop["revision"]["started_ms"] != started && shop["phase"] == "running"
    });
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

/// Asks to go back to a checkpoint.
fn go_back(service: &Service, from: &str) -> (u16, Value) {
    let from = json!({ "from": from }).to_string();
    service.ask("POST", "/api/v1/pipelines/shop/start", &from)
}

fn save(service: &Service, name: &str) -> Value {
    let name = json!({ "name": name }).to_string();
    let (status, made) = service.ask("POST", "/api/v1/pipelines/shop/savepoints", &name);
    assert_eq!(status, 201, "{made}");
    made
}

/// Waits until something was started after this.
fn until_started_after(service: &Service, before: &Value) -> Value {
    service.until("started", |shop| {
        assert_ne!(shop["phase"], "failed", "{shop:#}");
        shop["phase"] == "running"
            && shop["revision"]["started_ms"] != before["revision"]["started_ms"]
    })
}

#[test]
fn a_checkpoint_whose_rows_were_taken_back_is_not_gone_back_to() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    until_held(&service, 1);
    service.until_read(500);
    save(&service, "early");
    service.until_read(1_500);
    save(&service, "late");
    let before = service.shop();
    let unknown = json!({ "from": "early", "drop": ["nosuch"] }).to_string();
    let (status, answer) = service.ask("POST", "/api/v1/pipelines/shop/start", &unknown);
    assert_eq!(status, 422, "{answer}");
    assert_eq!(go_back(&service, "early").0, 202);
    // The next checkpoint knows of it.
    let again = until_started_after(&service, &before);
    service.until("a checkpoint", |shop| {
        !shop["revision"]["checkpoints"][0].is_null()
    });
    let (status, answer) = go_back(&service, "late");
    assert_eq!(status, 409, "{answer}");
    let why = answer["detail"].as_str().expect("a reason");
    assert!(why.contains("cannot be gone back to"), "{why}");
    assert!(why.contains("sink `guarded_rows`"), "{why}");
    let list = service.get("/api/v1/pipelines/shop/checkpoints");
    let damage = |name: &str| {
        let mut list = list.as_array().expect("a list").iter();
        list.find(|made| made["name"] == name).expect(name)["damage"].clone()
    };
    assert!(damage("early").is_null(), "{list:#}");
    assert!(damage("late").is_string(), "{list:#}");
    let now = service.shop();
    assert_eq!(
        now["revision"]["started_ms"],
        again["revision"]["started_ms"]
    );
    assert_eq!(go_back(&service, "early").0, 202, "that is there");
    until_started_after(&service, &again);
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

#[test]
fn a_running_pipeline_goes_on_where_it_cannot_go_back() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    until_held(&service, 1);
    service.until_read(500);
    let id = save(&service, "early")["id"].to_string();
    // What is in a file of the checkpoint is another, as it shows when it is read.
    let folder = service.path("pipelines/shop.state/checkpoints").join(id);
    let files = fs::read_dir(&folder).expect("it is there");
    let files = files.map(|file| file.expect("readable").path());
    let is_state = |file: &std::path::PathBuf| !file.ends_with("sluicebox.manifest");
    let file = files.into_iter().find(is_state).expect("files");
    let mut bytes = fs::read(&file).expect("readable");
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    // Others have links to it.
    fs::remove_file(&file).expect("writable");
    fs::write(&file, bytes).expect("writable");
    let before = service.shop();
    assert_eq!(go_back(&service, "early").0, 202);
    let why = service.until("told", |shop| {
        assert_ne!(shop["phase"], "failed", "{shop:#}");
        shop["refusal"].is_string()
    });
    let why = why["refusal"].as_str().expect("a reason");
    assert!(why.contains("cannot go back to checkpoint"), "{why}");
    assert!(why.contains("its content has changed"), "{why}");
    until_started_after(&service, &before);
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

#[test]
fn a_checkpoint_that_is_gone_back_to_is_not_deleted_meanwhile() {
    let text = shop(GOOD);
    let (start, _) = text.split_once("[sinks.").expect("sinks");
    let text = format!("{start}[sinks.out]\ntype = \"blackhole\"\ninput = \"counted\"\n");
    let text = text
        .replace("\"100ms\"", "\"20ms\"")
        .replace(&format!("count = {ROWS}"), "");
    let service = Service::start(&[("shop", &text)]);
    until_held(&service, 1);
    service.until_phase("running");
    let is_well = |shop: &Value| {
        assert_ne!(shop["phase"], "failed", "{shop:#}");
        assert!(shop["refusal"].is_null(), "{shop:#}");
    };
    for _ in 0..40 {
        // As soon as it is taken: the run before may still be going back.
        let began = Instant::now();
        let ask = || {
            let list = service.get("/api/v1/pipelines/shop/checkpoints");
            go_back(&service, &list[0]["id"].to_string()).0
        };
        while ask() != 202 {
            is_well(&service.shop());
            assert!(began.elapsed() < WAIT, "it is never taken");
        }
        is_well(&service.shop());
    }
    for _ in 0..5 {
        service.until_phase("running");
        let made = save(&service, "short")["id"].as_u64();
        let has_later = |shop: &Value| {
            let made_since = shop["revision"]["checkpoints"].as_array().expect("a list");
            made_since
                .iter()
                .filter(|it| it["id"].as_u64() > made)
                .count()
                > 1
        };
        let before = service.until("later ones", has_later);
        assert_eq!(go_back(&service, "short").0, 202);
        let path = "/api/v1/pipelines/shop/savepoints/short";
        let status = service.ask("DELETE", path, "").0;
        assert!([204, 409].contains(&status), "{status}");
        is_well(&until_started_after(&service, &before));
        service.until("a checkpoint", |shop| {
            is_well(shop);
            !shop["revision"]["checkpoints"][0].is_null()
        });
        service.ask("DELETE", path, "");
    }
}

#[test]
fn a_damaged_history_is_told_and_stops_no_other() {
    let mut service = Service::start(&[("shop", &shop(GOOD))]);
    until_held(&service, 1);
    service.until_read(500);
    service.end(libc::SIGTERM);
    let ledger = service.path("data/pipelines/shop/ledger.json");
    let text = fs::read(&ledger).expect("readable");
    fs::write(&ledger, &text[..text.len() / 2]).expect("writable");
    service.begin();
    let shop = service.until_phase("refused");
    let why = shop["refusal"].as_str().expect("a reason");
    for part in ["ledger.json is damaged", "delete it and start the pipeline"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(service.get("/api/v1/pipelines")[0]["refusal"], why);
    let path = "/api/v1/pipelines/shop/changes/sha256:0/diff";
    assert_eq!(service.ask("GET", path, "").0, 409);
    fs::remove_file(&ledger).expect("writable");
    assert_eq!(
        service.ask("POST", "/api/v1/pipelines/shop/start", "").0,
        202
    );
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

#[test]
fn a_savepoint_is_made_or_refused_while_the_pipeline_is_started() {
    let service = Service::start(&[("shop", &shop(GOOD))]);
    service.until_read(500);
    until_held(&service, 1);
    for number in 0..6 {
        for what in ["pause", "start"] {
            let path = format!("/api/v1/pipelines/shop/{what}");
            assert_eq!(service.ask("POST", &path, "").0, 202);
        }
        let began = Instant::now();
        let name = json!({ "name": format!("number-{number}") }).to_string();
        let path = "/api/v1/pipelines/shop/savepoints";
        let (status, answer) = service.ask("POST", path, &name);
        assert!([201, 409].contains(&status), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

#[test]
fn a_call_that_does_not_end_does_not_hold_up_who_takes_its_plugin_back() {
    let long = |mode| shop(mode).replace("time = \"200ms\"", "time = \"10m\"");
    let service = Service::start(&[("shop", &long(GOOD))]);
    service.until_read(500);
    until_held(&service, 1);
    service.write("shop", &long("mode = \"loop\", at = \"user-000043\""));
    until_last(&service, "taken_back");
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

#[test]
fn a_call_that_does_not_end_does_not_hold_up_the_change_that_mends_it() {
    let long = |mode| shop(mode).replace("time = \"200ms\"", "time = \"10m\"");
    let more = "[sinks.more]\ntype = \"blackhole\"\ninput = \"guarded\"\n";
    // In place, and by a run of its own.
    for more in ["", more] {
        let service = Service::start(&[("shop", &long("mode = \"loop\", at = \"user-000043\""))]);
        // There is nothing to go back to.
        until_held(&service, 1);
        service.until("looping", |_| looped(&service));
        let began = Instant::now();
        service.write("shop", &(long(GOOD) + more));
        let shop = service.until("waiting", |shop| shop["changes"][1]["outcome"] == "waiting");
        let why = shop["changes"][1]["why"].as_str().expect("a reason");
        assert!(why.contains("operator `guarded` has worked"), "{why}");
        service.until("mended", |shop| {
            shop["changes"][1]["outcome"] == "held" && shop["phase"] == "running"
        });
        assert!(began.elapsed() < Duration::from_secs(30), "{began:?}");
        let shop = service.until_phase("ended");
        let change = &shop["changes"][1];
        assert!(change["why"].is_null(), "{change:#}");
        assert_eq!(service.outcomes(), ["held", "held"]);
        assert_eq!(outputs(service.folder.path()), expected());
        assert!(!service.path("dead.jsonl").exists());
    }
}

/// Whether rows of the first content have stopped coming out.
fn looped(service: &Service) -> bool {
    let out = || service.shop()["revision"]["nodes"][2]["rows_out"].clone();
    let before = out();
    std::thread::sleep(Duration::from_millis(500));
    out() == before
}

#[test]
fn a_killed_service_goes_on_and_a_paused_pipeline_stays_paused() {
    let mut service = Service::start(&[("shop", &shop(GOOD))]);
    for _ in 0..3 {
        service.until_read(300);
        service.end(libc::SIGKILL);
        service.begin();
    }
    service.until_read(100);
    assert_eq!(
        service.ask("POST", "/api/v1/pipelines/shop/pause", "").0,
        202
    );
    service.until_phase("paused");
    service.end(libc::SIGKILL);
    service.begin();
    service.until_phase("paused");
    assert_eq!(service.get("/readyz")["status"], "ready");
    assert_eq!(
        service.ask("POST", "/api/v1/pipelines/shop/start", "").0,
        202
    );
    let (status, savepoint) = service.ask(
        "POST",
        "/api/v1/pipelines/shop/savepoints",
        "{\"name\":\"before\"}",
    );
    // It may not have begun.
    assert!(
        status == 201 && savepoint["name"] == "before" || status == 409,
        "{savepoint}"
    );
    service.until_phase("ended");
    assert_eq!(outputs(service.folder.path()), expected());
}

/// `SLUICEBOX_CHANGES=100` makes more of them; `SEED` repeats them.
#[test]
fn random_changes_and_kills_lose_and_repeat_no_row() {
    let of_env = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seed = of_env("SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = of_env("SLUICEBOX_CHANGES").unwrap_or(12);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let long = |mode: &str| {
        let rows = format!("count = {}", 750 * count);
        shop(mode).replace(&format!("count = {ROWS}"), &rows)
    };
    let mut service = Service::start(&[("shop", &long(GOOD))]);
    // Before that, there is nothing to go back to for what comes after a kill.
    service.until("held", |shop| shop["changes"][0]["outcome"] == "held");
    for number in 0..count {
        let harmless = format!("{GOOD}, amount = {number}");
        match random.u8(..10) {
            0..4 => service.write("shop", &long(&harmless)),
            4 => service.write("shop", &long("mode = \"panic\"")),
            5 => service.write("shop", &long("mode = \"trap\", at = \"user-000011\"")),
            6 => service.write("shop", &long("mode = \"reject\"")),
            7 => service.write("shop", &with(GOOD, "key = \"n\"")),
            8 => {
                service.ask("POST", "/api/v1/pipelines/shop/pause", "");
                std::thread::sleep(Duration::from_millis(random.u64(..200)));
                service.ask("POST", "/api/v1/pipelines/shop/start", "");
            }
            _ => {
                service.end(match random.bool() {
                    true => libc::SIGKILL,
                    false => libc::SIGTERM,
                });
                service.begin();
            }
        }
        std::thread::sleep(Duration::from_millis(random.u64(..900)));
    }
    service.write("shop", &long(GOOD));
    service.ask("POST", "/api/v1/pipelines/shop/start", "");
    service.until_phase("ended");
    let outcomes = service.outcomes();
    println!("{outcomes:?}");
    assert_eq!(outputs(service.folder.path()), expected_of(&long(GOOD)));
    assert!(outcomes.iter().filter(|&outcome| outcome == "held").count() > 0);
}

#[test]
fn pipelines_come_and_go_with_their_files() {
    let service = Service::start(&[]);
    assert_eq!(service.get("/api/v1/pipelines"), json!([]));
    let (status, plan) = service.ask("POST", "/api/v1/pipelines/shop/plan", &shop(GOOD));
    assert_eq!(status, 200, "{plan}");
    assert_eq!(plan["nodes"][0]["change"], "added");
    assert!(
        !service.path("pipelines/shop.toml").exists(),
        "a plan changes nothing"
    );
    let (status, plan) = service.ask("PUT", "/api/v1/pipelines/shop", &shop(GOOD));
    assert_eq!(status, 202, "{plan}");
    let began = Instant::now();
    while service.get("/api/v1/pipelines") == json!([]) {
        assert!(began.elapsed() < WAIT, "the file is never seen");
    }
    service.until_read(1);
    assert_eq!(
        service.get("/api/v1/pipelines/shop/graph")["nodes"][0]["name"],
        "actions"
    );
    let metrics = service.get("/metrics");
    let metrics = metrics.as_str().expect("a text");
    assert!(
        metrics.contains("sluicebox_rows_in_total{pipeline=\"shop\",node=\"actions\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("sluicebox_pipeline_phase{pipeline=\"shop\",phase=\"running\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("# TYPE sluicebox_rows_in_total counter"),
        "nobody has asked for OpenMetrics\n{metrics}"
    );

    let (status, problem) = service.ask("PUT", "/api/v1/pipelines/shop", "name = 3");
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("refused")),
        "{problem}"
    );
    let lost = with(GOOD, "key = \"n\"");
    let (status, problem) = service.ask("PUT", "/api/v1/pipelines/shop", &lost);
    assert_eq!(status, 422, "{problem}");
    assert_eq!(
        fs::read_to_string(service.path("pipelines/shop.toml")).expect("there"),
        shop(GOOD)
    );

    assert_eq!(service.ask("DELETE", "/api/v1/pipelines/shop", "").0, 202);
    let began = Instant::now();
    while service.get("/api/v1/pipelines") != json!([]) {
        assert!(began.elapsed() < WAIT, "it never goes");
    }
    service.write("0", &shop(GOOD));
    let began = Instant::now();
    while !log_of(&service).contains("0.toml\" is no pipeline, for its name") {
        assert!(began.elapsed() < WAIT, "{}", log_of(&service));
    }
    assert_eq!(service.get("/api/v1/pipelines"), json!([]));
    for (method, path, status, code) in [
        ("GET", "/api/v1/pipelines/0", 400, "bad_request"),
        ("GET", "/api/v1/pipelines/shop", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/api/v1/pipelines", 405, "method_not_allowed"),
        ("PUT", "/api/v1/pipelines/..%2Fx", 400, "bad_request"),
    ] {
        let (answered, problem) = service.ask(method, path, "");
        assert_eq!(
            (answered, &problem["code"]),
            (status, &json!(code)),
            "{method} {path}"
        );
    }
    let state = service.path("pipelines/shop.state");
    assert!(state.exists(), "the state stays: {}", state.display());
}

/// Their rows would be mixed, or one would replace the other's file.
/// The service's log.
fn log_of(service: &Service) -> String {
    fs::read_to_string(service.path("log.txt")).expect("readable")
}

#[test]
fn a_pipeline_that_waits_for_a_restart_says_so_and_lets_nobody_wait() {
    let looping = |mode: &str| {
        let text = shop(mode).replace(
            "limits = { time = \"200ms\" }",
            "limits = { time = \"200ms\" }\non_error = \"fail\"",
        );
        text + "[restart]\ndelay = \"10m\"\nmax_delay = \"10m\"\nfailures = 30\n"
    };
    let bad = looping("mode = \"loop\"");
    let mut service = Service::start(&[("shop", &bad)]);
    let until_restarts = |service: &Service, restarts: u64| {
        service.until("restarting", |shop| {
            shop["phase"] == "restarting" && shop["restarts"] == restarts
        })
    };
    let shop = until_restarts(&service, 1);
    let restarting = &shop["restarting"];
    let why = restarting["message"].as_str().expect("why");
    assert!(why.contains("operator `guarded`"), "{why}");
    assert_eq!(restarting["blame"], "plugin");
    assert_eq!(
        (&restarting["failures"], &restarting["failures_max"]),
        (&json!(1), &json!(30))
    );
    let (at, failed) = (&restarting["at_ms"], &restarting["failed_ms"]);
    assert_eq!(at.as_i64().map(|at| at - 600_000), failed.as_i64());
    assert_eq!(&shop["since_ms"], failed);
    let line = &service.get("/api/v1/pipelines")[0];
    assert_eq!(&line["restarting"], restarting);
    assert_eq!(line["restarts"], 1);
    let metrics = |service: &Service, series: &str| {
        let metrics = service.get("/metrics");
        let metrics = metrics.as_str().expect("a text").to_owned();
        let of_shop = format!("sluicebox_{series} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&of_shop));
        let value = value.map(|value| value.parse::<f64>().expect("a number"));
        value.unwrap_or_else(|| panic!("no {series} in:\n{metrics}"))
    };
    let of = |phase: &str| format!("pipeline_phase{{pipeline=\"shop\",phase=\"{phase}\"}}");
    assert_eq!(metrics(&service, &of("restarting")), 1.0);
    assert_eq!(metrics(&service, &of("running")), 0.0);
    let counted = "pipeline_restarts_total{pipeline=\"shop\"}";
    assert_eq!(metrics(&service, counted), 1.0);
    assert_eq!(service.ask("GET", "/readyz", "").0, 200);

    // None of these waits for ten minutes.
    let start = "/api/v1/pipelines/shop/start";
    assert_eq!(service.ask("POST", start, "").0, 202);
    until_restarts(&service, 2);
    assert_eq!(
        service.ask("POST", "/api/v1/pipelines/shop/pause", "").0,
        202
    );
    let paused = service.until_phase("paused");
    assert_eq!(paused["restarting"], json!(null));
    assert_eq!(service.ask("POST", start, "").0, 202);
    until_restarts(&service, 3);
    assert_eq!(metrics(&service, counted), 3.0);
    let began = Instant::now();
    assert_eq!(service.ask("POST", start, "").0, 202);
    assert!(service.end(libc::SIGTERM).success());
    assert!(began.elapsed() < WAIT, "{:?}", began.elapsed());

    // Nor does what mends it, in place or not.
    service.begin();
    until_restarts(&service, 1);
    service.write("shop", &looping(GOOD));
    let ended = service.until_phase("ended");
    assert_eq!(ended["restarting"], json!(null));
    assert_eq!(outputs(service.folder.path()), expected());
    let made = &ended["revision"]["state"]["checkpoint"]["completed_ms"];
    let made = made.as_i64().expect("a time");
    assert!(ended["since_ms"].as_i64() >= Some(made), "{ended:#}");
    assert_eq!(service.get("/api/v1/pipelines")[0]["checkpoint_ms"], made);
    let told = metrics(&service, "checkpoint_timestamp_seconds{pipeline=\"shop\"}");
    assert_eq!((told * 1e3).round(), made as f64);
}

/// A line that is none of the host's.
const FORGED: &str = "2026-11-29T12:00:00.000000Z ERROR of{pipeline=\"payments\"}: all is lost";

/// Has the service run a pipeline that fails with that line in what is wrong with a row.
/// Returns its file, and why it has failed.
fn fail_quoting(service: &Service) -> (&'static str, String) {
    let row = json!({ "id": format!("x\n{FORGED}\u{2028}"), "n": 1 });
    fs::write(service.path("lines.jsonl"), format!("{row}\n")).expect("writable");
    let quoting = r#"
        name = "shop"
        plugins.hostile.path = "../plugins/hostile.wasm"
        [sources.lines]
        type = "file"
        path = "../lines.jsonl"
        format = "json"
        fields = { id = "utf8", n = "int64" }
        [operators.guarded]
        plugin = "hostile.misbehave"
        parameters = { mode = "panic" }
        on_error = "fail"
        input = "lines"
        [sinks.out]
        type = "blackhole"
        input = "guarded"
        "#;
    service.write("shop", quoting);
    service.until_seen();
    let failed = service.until_phase("failed");
    let why = failed["failure"]["message"].as_str().expect("why");
    assert!(why.contains(&format!("\n{FORGED}")), "{why}");
    (quoting, why.to_owned())
}

#[test]
fn lines_of_the_log_are_objects_where_that_is_asked_for() {
    let service = Service::start_in(&[], &[("SLUICEBOX_LOG_FORMAT", "json")]);
    let (_, why) = fail_quoting(&service);
    let log = log_of(&service);
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}\nof\n{log}")))
        .collect();
    for line in &lines {
        let is_whole = ["timestamp", "level", "message", "target"].map(|it| line[it].is_string());
        assert_eq!(is_whole, [true; 4], "{line}");
    }
    let of_level = |level: &'static str| lines.iter().filter(move |line| line["level"] == level);
    let failed = of_level("ERROR").next().expect("it has failed");
    assert_eq!(failed["span"]["pipeline"], "shop", "{failed}");
    let message = failed["message"].as_str().expect("a text");
    assert!(message.starts_with(&format!("failed: {why}")), "{message}");
    // The call has failed before the run.
    let call = of_level("WARN").find(|line| line["operator"] == "guarded");
    let call = call.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(call["span"]["pipeline"], "shop", "{call}");
}

#[test]
fn nothing_that_the_log_quotes_looks_like_a_line_of_it() {
    let service = Service::start(&[]);
    let (quoting, why) = fail_quoting(&service);
    service.write("shop", &format!("{quoting}\n'{FORGED}' = 1"));
    service.until("refused", |shop| shop["refusal"].is_string());
    let log = log_of(&service);
    assert!(log.contains(&format!("failed: {}", why.lines().next().expect("one"))));
    assert!(log.contains(&format!("\\n{FORGED}\\u{{2028}}")), "{log}");
    assert!(log.contains("its new content is refused"), "{log}");
    for line in log.lines() {
        let is_own = line.starts_with("20") && !line.starts_with(FORGED);
        assert!(is_own, "{line}\nis a line of:\n{log}");
    }
}

#[test]
fn two_pipelines_do_not_write_one_file() {
    let slow = |name: &str, rows: &str, counts: &str| {
        let text = shop(GOOD).replace("rate = 1000", "rate = 100");
        let text = text.replace("name = \"shop\"", &format!("name = \"{name}\""));
        let text = text.replace("\"../rows.jsonl\"", &format!("\"{rows}\""));
        text.replace("\"../counts.jsonl\"", &format!("\"{counts}\""))
    };
    let service = Service::start(&[("shop", &slow("shop", "../rows.jsonl", "../counts.jsonl"))]);
    service.until_read(20);
    let both = slow("other", "../pipelines/../rows.jsonl", "../other.jsonl");
    for (method, path) in [
        ("POST", "/api/v1/pipelines/other/plan"),
        ("PUT", "/api/v1/pipelines/other"),
    ] {
        let (status, problem) = service.ask(method, path, &both);
        assert_eq!(status, 422, "{problem}");
        let why = problem["detail"].as_str().expect("why");
        for said in [
            "one file is used by two pipelines: sink `guarded_rows` writes it",
            "in pipeline `shop`, which runs, sink `guarded_rows` writes it",
            "/rows.jsonl",
        ] {
            assert!(why.contains(said), "{why}");
        }
    }
    let other = || service.get("/api/v1/pipelines/other");
    let until = |what: &str, holds: &dyn Fn(&Value) -> bool| {
        let began = Instant::now();
        while !service.path("pipelines/other.toml").exists() || !holds(&other()) {
            assert!(began.elapsed() < WAIT, "never {what}: {:#}", other());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // A file that somebody writes there is refused likewise, and so are two pipes by one name.
    service.write("other", &both);
    std::thread::sleep(Duration::from_millis(500));
    until("refused", &|other| other["phase"] == "refused");
    assert!(other()["refusal"].as_str().expect("why").contains("`shop`"));
    service.write("other", &slow("other", "../mine.jsonl", "../other.jsonl"));
    until("running", &|other| other["phase"] == "running");
    assert!(other()["refusal"].is_null());
    // What the one wants to write now, the other one has.
    let taken = slow("shop", "../rows.jsonl", "../other.jsonl");
    let (status, problem) = service.ask("PUT", "/api/v1/pipelines/shop", &taken);
    assert_eq!(status, 422, "{problem}");
    // Until that stops.
    assert_eq!(
        service.ask("POST", "/api/v1/pipelines/other/pause", "").0,
        202
    );
    until("paused", &|other| other["phase"] == "paused");
    let (status, plan) = service.ask("POST", "/api/v1/pipelines/shop/plan", &taken);
    assert_eq!(status, 200, "{plan}");
}

#[test]
fn wrong_starts_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let serve = |arguments: &[&str]| {
        let served = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .arg("serve")
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let stderr = String::from_utf8_lossy(&served.stderr).into_owned();
        (served.status.code(), stderr)
    };
    let (code, stderr) = serve(&["nowhere"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("there is no folder nowhere/pipelines"),
        "{stderr}"
    );
    let (code, stderr) = serve(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("sluicebox token new"), "{stderr}");

    let mut service = Service::start(&[]);
    let again = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .current_dir(service.folder.path())
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("another service runs there"), "{stderr}");

    // A service in a folder of its own makes what it needs there.
    service.end(libc::SIGTERM);
    fs::remove_dir(service.path("pipelines")).expect("it is empty");
    service.begin();
    assert!(service.path("pipelines").is_dir());
}
